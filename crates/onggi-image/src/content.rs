//! Content that is uploaded: anything that can be read again from any place, so that a broken upload continues.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    os::unix::fs::FileExt as _,
};

/// A blob to be sent. It is read from several places, possibly more than once and by several threads.
pub trait Content: Sync {
    /// A reader from this byte on.
    ///
    /// # Errors
    /// The content cannot be read from there.
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + '_>>;
}

impl Content for File {
    /// Reads at own offsets: the file's position is neither used nor moved.
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(At { file: self, offset: from }))
    }
}

impl Content for &[u8] {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + '_>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(Cursor::new(&self[from..])))
    }
}

impl Content for Vec<u8> {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + '_>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(Cursor::new(&self[from..])))
    }
}

struct At<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &dyn Content, from: u64) -> String {
        let mut text = String::new();
        content.open(from).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn content_is_read_from_any_place_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "0123456789").unwrap();
        let file = File::open(&path).unwrap();
        let bytes = b"0123456789".to_vec();
        for content in [&file as &dyn Content, &bytes] {
            assert_eq!(read(content, 0), "0123456789");
            assert_eq!(read(content, 7), "789");
            assert_eq!(read(content, 7), "789");
            assert_eq!(read(content, 10), "");
            assert_eq!(read(content, 11), "");
        }
    }
}

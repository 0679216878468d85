//! Reading small files whole, in as few calls as that takes: open, read, read (the end), close.
//!
//! The standard library asks for the size first and then reads 32 bytes to see whether there is anything at all:
//! files of /proc and cgroupfs have no size, and a start reads a dozen of them.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Fits every file that a start reads, but for large configurations.
const FIRST: usize = 4096;

/// The whole file, if it has at most `limit` bytes. It may be a pipe.
///
/// # Errors
/// open(2), read(2); [`io::ErrorKind::FileTooLarge`].
pub fn read(at: &Path, limit: usize) -> io::Result<Vec<u8>> {
    read_open(File::open(at)?, limit)
}

/// The same of a file that is open.
///
/// # Errors
/// As [`read`].
pub fn read_open(mut file: File, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FIRST];
    let mut length = 0;
    loop {
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if length > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// The same as text, for files whose size the kernel bounds.
///
/// # Errors
/// As [`read`]; it is not UTF-8.
pub fn read_text(at: &Path) -> io::Result<String> {
    String::from_utf8(read(at, usize::MAX)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_every_size_arrive_whole_or_not_at_all() {
        let at = std::env::temp_dir().join(format!("onggi-small-file-{}", std::process::id()));
        for size in [0, 1, FIRST - 1, FIRST, FIRST + 1, 5 * FIRST] {
            let content: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            std::fs::write(&at, &content).unwrap();
            assert_eq!(read(&at, size).unwrap(), content);
            if size > 0 {
                assert_eq!(read(&at, size - 1).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
            }
        }
        std::fs::remove_file(&at).unwrap();
        assert_eq!(read(&at, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_without_a_size_are_read() {
        assert!(read_text(Path::new("/proc/self/mountinfo")).unwrap().contains(" / "));
    }
}

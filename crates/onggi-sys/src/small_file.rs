//! Reading small files whole, in as few calls as that takes: open, read, read (the end), close.
//!
//! The standard library asks for the size first and then reads 32 bytes to see whether there is anything at all:
//! files of /proc and cgroupfs have no size, and a start reads a dozen of them.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
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

/// The same of a record of our own: a link in its place is an error, and a pipe keeps nobody waiting.
///
/// # Errors
/// As [`read`]; ELOOP of a link, EAGAIN of a pipe that somebody may write to. One that nobody writes to is empty.
pub fn read_record(at: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    read_open(File::options().read(true).custom_flags(flags).open(at)?, limit)
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
    fn a_record_that_is_a_link_or_a_pipe_is_an_error_or_empty_at_once() {
        let dir = std::env::temp_dir().join(format!("onggi-record-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let (record, link, pipe) = (dir.join("record"), dir.join("link"), dir.join("pipe"));
        std::fs::write(&record, "text").unwrap();
        std::os::unix::fs::symlink(&record, &link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        assert_eq!(read_record(&record, 4).unwrap(), b"text");
        assert_eq!(read_record(&link, 4).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(read_record(&pipe, 4).unwrap(), b"");
        let writer = File::options().read(true).write(true).open(&pipe).unwrap();
        assert_eq!(read_record(&pipe, 4).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(writer);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn files_without_a_size_are_read() {
        assert!(read_text(Path::new("/proc/self/mountinfo")).unwrap().contains(" / "));
    }
}

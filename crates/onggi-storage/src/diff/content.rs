//! The bytes of files: compared and copied, holes never read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use onggi_sys::fs;
use onggi_sys::{Errno, SysError};
use rustix::fs::SeekFrom;

use super::dir::Found;

/// Bytes moved at once: large enough that system calls do not count.
const PIECE: usize = 256 << 10;
/// What holes are written from.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

type Sys<T> = std::result::Result<T, SysError>;

/// Opens a regular file's data for reading. Its type was seen on the handle that is opened.
pub(super) fn open(found: &Found) -> Sys<File> {
    let handle = found.data.as_ref().unwrap_or(&found.handle);
    fs::reopen_read(handle.as_fd()).map(File::from)
}

/// True when both files have the same bytes.
pub(super) fn equal(new: &Found, old: &Found) -> Sys<bool> {
    let place = |f: &Found| -> Sys<(u64, u64)> {
        match &f.data {
            Some(data) => fs::stat(data.as_fd()).map(|s| (s.st_dev, s.st_ino)),
            None => Ok((f.stat.st_dev, f.stat.st_ino)),
        }
    };
    if place(new)? == place(old)? {
        return Ok(true);
    }
    let (mut new, mut old) = (open(new)?, open(old)?);
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let n = fill(&mut new, &mut a).map_err(failed)?;
        let m = fill(&mut old, &mut b).map_err(failed)?;
        if a[..n] != b[..m] {
            return Ok(false);
        }
        if n < PIECE {
            return Ok(true);
        }
    }
}

/// Why copying ended.
pub(super) enum CopyError {
    /// The file cannot be read.
    Read(SysError),
    /// The archive cannot be written.
    Write(io::Error),
}

/// Copies exactly `size` bytes to `write`. A file that has become shorter meanwhile is filled up with zeros, as GNU tar
/// does; what it has grown by is left out.
pub(super) fn copy(
    file: &mut File,
    size: u64,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), CopyError> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(size).unwrap_or(PIECE).max(1))];
    let mut at = 0;
    while at < size {
        let (data, end) = segment(file, at, size).map_err(CopyError::Read)?;
        zeros(data - at, &mut write).map_err(CopyError::Write)?;
        at = data;
        while at < end {
            let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let n = file.read(&mut buffer[..wanted]).map_err(|e| CopyError::Read(failed(e)))?;
            if n == 0 {
                return zeros(size - at, &mut write).map_err(CopyError::Write);
            }
            write(&buffer[..n]).map_err(CopyError::Write)?;
            at += n as u64;
        }
    }
    Ok(())
}

/// Begin and end of the next data at or behind `at`; the file stands at its begin.
fn segment(file: &File, at: u64, size: u64) -> Sys<(u64, u64)> {
    let seek = |to| rustix::fs::seek(file, to);
    let data = match seek(SeekFrom::Data(at)) {
        Ok(data) => data.min(size),
        // Nothing but a hole up to the end.
        Err(Errno::NXIO) => return Ok((size, size)),
        // A filesystem that does not tell holes.
        Err(Errno::INVAL | Errno::NOTSUP) => at,
        Err(e) => return Err(SysError::new("lseek", "SEEK_DATA", e)),
    };
    let end = match seek(SeekFrom::Hole(data)) {
        Ok(end) => end.min(size),
        Err(Errno::NXIO | Errno::INVAL | Errno::NOTSUP) => size,
        Err(e) => return Err(SysError::new("lseek", "SEEK_HOLE", e)),
    };
    seek(SeekFrom::Start(data)).map_err(|e| SysError::new("lseek", "SEEK_SET", e))?;
    Ok((data, end.max(data)))
}

fn zeros(mut count: u64, write: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    while count > 0 {
        let n = ZEROS.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        write(&ZEROS[..n])?;
        count -= n as u64;
    }
    Ok(())
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

fn failed(e: io::Error) -> SysError {
    SysError::new("read", "a file of the tree", Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

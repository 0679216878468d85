//! A writer of plain ustar archives for the bench's images: names of at most 100 bytes, owner root.

use std::io::{self, Write};

const BLOCK: usize = 512;

/// Appends entries to a stream.
pub(crate) struct Tarball<W> {
    out: W,
}

impl<W: Write> Tarball<W> {
    pub(crate) fn new(out: W) -> Tarball<W> {
        Tarball { out }
    }

    pub(crate) fn dir(&mut self, name: &str) -> io::Result<()> {
        self.header(name, b'5', 0o755, 0, "")
    }

    pub(crate) fn symlink(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.header(name, b'2', 0o777, 0, target)
    }

    pub(crate) fn hard_link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.header(name, b'1', 0o644, 0, target)
    }

    /// A file whose content is that of `pieces` in a row.
    pub(crate) fn file(&mut self, name: &str, pieces: &[&[u8]]) -> io::Result<()> {
        let size: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.header(name, b'0', 0o644, size, "")?;
        for piece in pieces {
            self.out.write_all(piece)?;
        }
        self.out.write_all(&[0; BLOCK][..size.next_multiple_of(BLOCK) - size])
    }

    /// Two empty blocks; the stream.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn header(&mut self, name: &str, kind: u8, mode: u32, size: usize, link: &str) -> io::Result<()> {
        let mut block = [0u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        if name.len() > 100 || link.len() > 100 {
            return Err(io::Error::other(format!("{name} is too long for a plain header")));
        }
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\x000000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"14000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(&block)
    }
}

//! A layer being made: tar in, gzip out, the DiffID on the way.
//!
//! The header of the gzip stream has no time and no name, so the same layer is the same blob on every machine.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use onggi_spec::Digest;
use sha2::{Digest as _, Sha256};

/// The level that Docker and Podman write layers with.
const LEVEL: u32 = 6;

/// Hashes what is written to it and passes it on, compressed.
#[derive(Debug)]
pub struct LayerWriter<W: Write> {
    gzip: GzEncoder<W>,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> LayerWriter<W> {
    /// Writes the blob to `out`.
    pub fn new(out: W) -> Self {
        // 255 is "unknown" (RFC 1952): not even the system gets into the blob.
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(out, Compression::new(LEVEL));
        Self { gzip, hasher: Sha256::new(), size: 0 }
    }

    /// Ends the blob: the writer below, the DiffID, and the length of the tar.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish(self) -> io::Result<(W, Digest, u64)> {
        let out = self.gzip.finish()?;
        Ok((out, Digest::from_sha256(&self.hasher.finalize().into()), self.size))
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.gzip.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gzip.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_blob_inflates_to_what_has_the_diff_id() {
        let mut writer = LayerWriter::new(Vec::new());
        writer.write_all(b"hello").unwrap();
        let (blob, diff_id, size) = writer.finish().unwrap();
        assert_eq!(&blob[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&blob[..]).read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size), ("hello", 5));
        assert_eq!(diff_id, Digest::from_sha256(&Sha256::digest(b"hello").into()));
    }
}

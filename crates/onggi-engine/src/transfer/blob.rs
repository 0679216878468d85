//! Blobs on their way: counted and hashed.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use onggi_spec::{Digest, image::Descriptor};
use sha2::{Digest as _, Sha256};

use super::FormatError;
use crate::EngineError;

/// A descriptor without anything optional.
pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        platform: None,
        artifact_type: None,
        data: None,
    }
}

/// Reads what a descriptor describes and nothing else: too much or too little or other bytes is an error of the read that
/// meets it, so that nobody takes a wrong blob for a complete one.
pub(crate) struct Checked<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: Sha256,
    expected: Digest,
    size: u64,
    read: u64,
    ended: bool,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(inner: Box<dyn Read + 'a>, descriptor: &Descriptor) -> Self {
        let (expected, size) = (descriptor.digest.clone(), descriptor.size);
        Self { inner, hasher: Sha256::new(), expected, size, read: 0, ended: false }
    }

    fn wrong(&self) -> FormatError {
        let actual = Digest::from_sha256(&self.hasher.clone().finalize().into());
        let (digest, expected) = (self.expected.clone(), self.size);
        match self.read {
            read if read > self.size => FormatError::WrongLength { digest, expected, found: "more".to_owned() },
            read if actual == digest => FormatError::WrongLength { digest, expected, found: read.to_string() },
            size => FormatError::WrongBlob { expected: digest, actual, size },
        }
    }

    /// For a sink that did not read to the end: reads the rest.
    pub(crate) fn complete(mut self) -> Result<(), EngineError> {
        let copied = io::copy(&mut self, &mut io::sink());
        copied.map(drop).map_err(|source| read_error(source).into())
    }
}

/// The reason that a read of [`Checked`] failed for, out of the `io::Error` that carried it.
pub(crate) fn read_error(source: io::Error) -> FormatError {
    match source.downcast::<FormatError>() {
        Ok(error) => error,
        Err(source) => FormatError::Stream { action: "read a blob", source },
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.read += n as u64;
        if self.read > self.size {
            return Err(io::Error::other(self.wrong()));
        }
        if n == 0 {
            let actual = Digest::from_sha256(&self.hasher.clone().finalize().into());
            if self.read != self.size || actual != self.expected {
                return Err(io::Error::other(self.wrong()));
            }
            self.ended = true;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use onggi_image::digest_of;

    use super::*;

    fn read(content: &'static [u8], claimed: &[u8], size: u64) -> io::Result<Vec<u8>> {
        let descriptor = descriptor("x", digest_of(claimed), size);
        let mut out = Vec::new();
        Checked::new(Box::new(content), &descriptor).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn only_the_very_bytes_are_read_to_the_end() {
        assert_eq!(read(b"abc", b"abc", 3).unwrap(), b"abc");
        assert!(read(b"abc", b"abd", 3).is_err());
        assert!(read(b"abc", b"abc", 2).is_err());
        assert!(read(b"abc", b"abc", 4).is_err());
        let error = read(b"abc", b"abd", 3).unwrap_err();
        assert!(matches!(read_error(error), FormatError::WrongBlob { .. }));
        // A digest is not told as the opposite of itself.
        let text = |size| read_error(read(b"abc", b"abc", size).unwrap_err()).to_string();
        assert!(text(4).ends_with(" should have 4 bytes and has 3"), "{}", text(4));
        assert!(text(2).ends_with(" should have 2 bytes and has more"), "{}", text(2));
    }
}

//! gzip, zstd or nothing, to a tar stream.
//!
//! In: a blob whose digest has been verified. Out: bytes, and a named error for a stream that is truncated,
//! corrupt or followed by anything else. Decompression is in-process: no program of an image or of the host is
//! ever run for it.

use std::io::{BufRead, BufReader, Read};

use crate::error::{Result, StorageError};
use crate::limits::CHUNK;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames, skippable ones included.
    Zstd,
}

/// The layer media types of the OCI and Docker specifications, without the compression suffix.
const LAYER_TYPES: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// Refuses everything but layers; an encrypted layer, say, has a suffix that is not listed.
///
/// # Errors
/// [`StorageError::MediaType`].
pub fn check_media_type(media_type: &str) -> Result<()> {
    let known = LAYER_TYPES.iter().any(|base| {
        let suffix = media_type.strip_prefix(base);
        matches!(suffix, Some("" | "+gzip" | ".gzip" | "+zstd" | ".zstd"))
    });
    if known {
        return Ok(());
    }
    Err(StorageError::MediaType { media_type: media_type.chars().take(128).collect() })
}

impl Codec {
    /// From the first bytes. Registries do serve layers whose media type is wrong about compression (Docker
    /// accepts them); that is no ambiguity, because the result must have the `diff_id` of the image's
    /// configuration.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come first.
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// A decoder over a blob.
pub struct Decoder<'a> {
    codec: Codec,
    inner: Box<dyn Read + 'a>,
}

impl<'a> Decoder<'a> {
    /// Looks at the first bytes and picks the codec.
    ///
    /// # Errors
    /// The blob cannot be read, or the decoder has no memory.
    pub fn new(blob: impl Read + 'a) -> Result<Self> {
        let mut blob = BufReader::with_capacity(CHUNK, blob);
        let head = blob.fill_buf().map_err(|source| StorageError::ReadBlob { source })?;
        let codec = Codec::detect(head);
        let inner: Box<dyn Read + 'a> = match codec {
            Codec::Plain => Box::new(blob),
            Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
            Codec::Zstd => Box::new(
                zstd::stream::read::Decoder::with_buffer(blob).map_err(|source| StorageError::ReadBlob { source })?,
            ),
        };
        Ok(Self { codec, inner })
    }

    /// Fills `buffer` as far as the stream goes; fewer bytes than its length only at the end.
    ///
    /// # Errors
    /// [`StorageError::TruncatedStream`], [`StorageError::CorruptStream`], [`StorageError::ReadBlob`].
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut have = 0;
        while have < buffer.len() {
            match self.inner.read(&mut buffer[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error(e)),
            }
        }
        Ok(have)
    }

    fn error(&self, e: std::io::Error) -> StorageError {
        let codec = self.codec.name();
        if self.codec == Codec::Plain || e.raw_os_error().is_some() {
            return StorageError::ReadBlob { source: e };
        }
        if e.kind() == std::io::ErrorKind::UnexpectedEof {
            return StorageError::TruncatedStream { codec };
        }
        StorageError::CorruptStream { codec, reason: e.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(data: &[u8]) -> Result<Vec<u8>> {
        let mut decoder = Decoder::new(data)?;
        let mut out = vec![0; 1 << 20];
        let n = decoder.fill(&mut out)?;
        out.truncate(n);
        Ok(out)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn zstd(data: &[u8]) -> Vec<u8> {
        zstd::encode_all(data, 1).unwrap()
    }

    #[test]
    fn every_codec_is_recognised_by_its_content() {
        let data = b"hello".repeat(1000);
        for blob in [data.clone(), gzip(&data), zstd(&data)] {
            assert_eq!(all(&blob).unwrap(), data);
        }
    }

    #[test]
    fn several_members_and_skippable_frames_are_one_stream() {
        assert_eq!(all(&[gzip(b"ab"), gzip(b""), gzip(b"cd")].concat()).unwrap(), b"abcd");
        let skip = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        assert_eq!(all(&[skip.clone(), zstd(b"ab"), skip, zstd(b"cd")].concat()).unwrap(), b"abcd");
    }

    #[test]
    fn cve_2021_20291_a_truncated_stream_ends_with_a_named_error() {
        let data: Vec<u8> = (0..200_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (codec, blob) in [("gzip", gzip(&data)), ("zstd", zstd(&data))] {
            for cut in [5, blob.len() / 3, blob.len() - 9, blob.len() - 4, blob.len() - 1] {
                let mut decoder = Decoder::new(&blob[..cut]).unwrap();
                let e = decoder.fill(&mut vec![0; 1 << 21]).unwrap_err();
                assert!(
                    matches!(e, StorageError::TruncatedStream { codec: c } if c == codec),
                    "{codec} at {cut}: {e:?}"
                );
            }
        }
    }

    #[test]
    fn trailing_garbage_is_refused() {
        for blob in [gzip(b"ab"), zstd(b"ab")] {
            for tail in [&b"garbage garbage"[..], &[0; 512], &[0x1f, 0x8b, 1]] {
                let e = all(&[&blob, tail].concat()).unwrap_err();
                assert!(
                    matches!(e, StorageError::CorruptStream { .. } | StorageError::TruncatedStream { .. }),
                    "{tail:?}: {e:?}"
                );
            }
        }
    }

    #[test]
    fn media_types_are_checked() {
        for ok in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            assert!(check_media_type(ok).is_ok(), "{ok}");
        }
        for bad in [
            "",
            "text/plain",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        ] {
            assert!(check_media_type(bad).is_err(), "{bad}");
        }
    }
}

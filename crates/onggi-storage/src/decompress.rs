//! gzip, zstd or nothing, to a tar stream; for archives of people also xz and bzip2.
//!
//! In: a blob whose digest has been verified, or an archive from anywhere. Out: bytes, and a named error for a stream
//! that is truncated, corrupt or followed by anything else. Decompression is in-process: no program of an image or of
//! the host is ever run for it. Layers are gzip, zstd or plain, as the specifications say; nothing else is tried on them.

use std::io::{BufReader, Cursor, Read};

use crate::error::{Result, StorageError};
use crate::limits::{CHUNK, MAX_XZ_MEMORY};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames, skippable ones included.
    Zstd,
    /// The .xz format 1.2, any number of streams; archives only.
    Xz,
    /// bzip2, any number of streams; archives only.
    Bzip2,
}

/// Bytes that tell every codec: bzip2 is sure after its first block's mark.
pub const HEAD: usize = 10;

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

    /// As [`Self::detect`], for what `load` and `import` read. `head` has [`HEAD`] bytes, or all there are.
    pub fn detect_archive(head: &[u8]) -> Self {
        match head {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // The mark of a block, or of the end of an empty stream.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            other => Self::detect(other),
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
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
        Self::detected(blob, Codec::detect)
    }

    /// As [`Self::new`], also for xz and bzip2.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_archive(blob: impl Read + 'a) -> Result<Self> {
        Self::detected(blob, Codec::detect_archive)
    }

    fn detected(mut blob: impl Read + 'a, detect: fn(&[u8]) -> Codec) -> Result<Self> {
        // A pipe may give a byte at a time.
        let mut head = Vec::with_capacity(HEAD);
        let read = blob.by_ref().take(HEAD as u64).read_to_end(&mut head);
        read.map_err(|source| StorageError::ReadBlob { source })?;
        let codec = detect(&head);
        let blob = BufReader::with_capacity(CHUNK, Cursor::new(head).chain(blob));
        let inner: Box<dyn Read + 'a> = match codec {
            Codec::Plain => Box::new(blob),
            Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
            Codec::Zstd => Box::new(
                zstd::stream::read::Decoder::with_buffer(blob).map_err(|source| StorageError::ReadBlob { source })?,
            ),
            Codec::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(blob, true, MAX_XZ_MEMORY)),
            Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(blob)),
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
        match e.kind() {
            std::io::ErrorKind::UnexpectedEof => return StorageError::TruncatedStream { codec },
            std::io::ErrorKind::OutOfMemory => return StorageError::StreamMemory { codec, limit: MAX_XZ_MEMORY },
            _ => {}
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

    fn xz(data: &[u8]) -> Vec<u8> {
        xz_with(data, 1 << 20)
    }

    fn xz_with(data: &[u8], dictionary: u32) -> Vec<u8> {
        let mut options = lzma_rust2::XzOptions::with_preset(0);
        options.lzma_options.dict_size = dictionary;
        let mut w = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn bzip2(data: &[u8]) -> Vec<u8> {
        let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    /// A pipe that gives one byte at a time.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len().min(self.0.len()).min(1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn archive(data: &[u8]) -> Result<Vec<u8>> {
        let mut decoder = Decoder::of_archive(Drip(data))?;
        let mut out = vec![0; 1 << 20];
        let n = decoder.fill(&mut out)?;
        out.truncate(n);
        Ok(out)
    }

    #[test]
    fn archives_may_be_xz_and_bzip2_and_layers_may_not() {
        let data = b"hello".repeat(1000);
        for blob in [data.clone(), gzip(&data), zstd(&data), xz(&data), bzip2(&data)] {
            assert_eq!(archive(&blob).unwrap(), data);
        }
        for blob in [xz(&data), bzip2(&data)] {
            assert_eq!(all(&blob).unwrap(), blob, "a layer is taken as it is, and then is no tar");
        }
        assert_eq!(Codec::detect_archive(b"BZh9 is how this file's name begins"), Codec::Plain);
        assert_eq!(archive(&bzip2(b"")).unwrap(), b"");
        assert_eq!(archive(&xz(b"")).unwrap(), b"");
        assert_eq!(archive(b"").unwrap(), b"");
    }

    #[test]
    fn several_streams_and_the_padding_of_xz_are_one_archive() {
        assert_eq!(archive(&[xz(b"ab"), xz(b""), xz(b"cd")].concat()).unwrap(), b"abcd");
        assert_eq!(archive(&[xz(b"ab"), vec![0; 8], xz(b"cd"), vec![0; 4]].concat()).unwrap(), b"abcd");
        assert_eq!(archive(&[bzip2(b"ab"), bzip2(b"cd")].concat()).unwrap(), b"abcd");
    }

    #[test]
    fn a_dictionary_that_would_eat_the_memory_is_refused_and_the_largest_preset_is_not() {
        let e = archive(&xz_with(b"small", 512 << 20)).unwrap_err();
        assert!(matches!(e, StorageError::StreamMemory { codec: "xz", .. }), "{e:?}");
        assert!(e.hint().unwrap().contains("xz -9"));
        assert_eq!(archive(&xz_with(b"small", 64 << 20)).unwrap(), b"small");
    }

    #[test]
    fn a_damaged_xz_or_bzip2_stream_is_a_named_error_wherever_the_damage_is() {
        let data: Vec<u8> = (0..6_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (name, blob) in [("xz", xz(&data)), ("bzip2", bzip2(&data))] {
            for cut in [11, 14, blob.len() / 3, blob.len() / 2, blob.len() - 9, blob.len() - 1] {
                let e = archive(&blob[..cut]).unwrap_err();
                let named = matches!(e, StorageError::TruncatedStream { codec } | StorageError::CorruptStream { codec, .. } if codec == name);
                assert!(named, "{name} cut at {cut}: {e:?}");
            }
            for tail in [&b"garbage garbage"[..], &[0; 511], &[0xfd, b'7', b'z'], b"BZh"] {
                let e = archive(&[&blob, tail].concat());
                assert!(e.is_err(), "{name} and {tail:?}");
            }
            let mut wrong = 0;
            for at in (HEAD..blob.len()).step_by(blob.len() / 20) {
                let mut bad = blob.clone();
                bad[at] ^= 0x10;
                // Reserved bits may be ignored; a wrong byte must never pass for content.
                match archive(&bad) {
                    Ok(out) => assert_eq!(out, data, "{name} at {at}"),
                    Err(_) => wrong += 1,
                }
            }
            assert!(wrong > 15, "{name}: {wrong}");
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

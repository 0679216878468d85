//! One 512-byte header block: POSIX ustar, GNU and V7.
//!
//! Stricter than most readers on purpose: where two readers in the field see different things in one block,
//! this one refuses it. Layout: pax(1) "ustar Interchange Format", GNU tar manual "Basic Tar Format".

use super::TarErrorKind as E;

/// Size of a header and unit of padding.
pub const BLOCK: usize = 512;

/// Which of the three formats a header is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `ustar\0` `00`.
    Posix,
    /// `ustar ` ` \0`.
    Gnu,
    /// No magic at all.
    V7,
}

/// A header block whose checksum has been verified.
pub(crate) struct Header<'a> {
    block: &'a [u8; BLOCK],
    /// Its format.
    pub(crate) format: Format,
}

impl<'a> Header<'a> {
    /// Verifies checksum and magic.
    pub(crate) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, E> {
        let sum: u64 = block.iter().enumerate().map(|(i, b)| if in_checksum(i) { 32 } else { u64::from(*b) }).sum();
        let stored = number(&block[148..156]).ok_or(E::Checksum)?;
        if i128::from(sum) != stored {
            return Err(E::Checksum);
        }
        let format = match &block[257..265] {
            b"ustar\x0000" => Format::Posix,
            b"ustar  \0" => Format::Gnu,
            [0, 0, 0, 0, 0, 0, 0, 0] => Format::V7,
            _ => return Err(E::Magic),
        };
        // star(1) keeps times where POSIX has the end of the name prefix.
        if format == Format::Posix && &block[508..] == b"tar\0" {
            return Err(E::Magic);
        }
        Ok(Self { block, format })
    }

    /// The type flag.
    pub(crate) fn flag(&self) -> u8 {
        self.block[156]
    }

    /// The name, with the POSIX prefix in front.
    pub(crate) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = if self.format == Format::Posix { text(&self.block[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    /// The link target.
    pub(crate) fn link(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    /// The permission bits. Some writers store the file type above them: the type flag decides that.
    pub(crate) fn mode(&self) -> Result<u32, E> {
        let mode = ranged("mode", &self.block[100..108], i128::from(u32::MAX))?;
        Ok(mode as u32 & 0o7777)
    }

    /// User id; 2^32-1 means "unchanged" to the kernel and is refused.
    pub(crate) fn uid(&self) -> Result<u32, E> {
        ranged("uid", &self.block[108..116], MAX_ID).map(|v| v as u32)
    }

    /// Group id, as [`Self::uid`].
    pub(crate) fn gid(&self) -> Result<u32, E> {
        ranged("gid", &self.block[116..124], MAX_ID).map(|v| v as u32)
    }

    /// Stored bytes that follow.
    pub(crate) fn size(&self) -> Result<u64, E> {
        ranged("size", &self.block[124..136], i128::from(i64::MAX)).map(|v| v as u64)
    }

    /// Seconds since 1970; negative in GNU's binary form.
    pub(crate) fn mtime(&self) -> Result<i64, E> {
        let value = number(&self.block[136..148]).ok_or(E::Number { field: "mtime" })?;
        i64::try_from(value).map_err(|_| E::Range { field: "mtime", value: value.to_string() })
    }

    /// Device numbers; 12 and 20 bits are what the kernel keeps.
    pub(crate) fn device(&self) -> Result<(u32, u32), E> {
        let major = ranged("device major", &self.block[329..337], 0xfff)?;
        let minor = ranged("device minor", &self.block[337..345], 0xf_ffff)?;
        Ok((major as u32, minor as u32))
    }

    /// The fields of GNU's old sparse format.
    pub(crate) fn gnu_sparse(&self) -> Result<GnuSparse, E> {
        let real = ranged("realsize", &self.block[483..495], i128::from(i64::MAX))? as u64;
        Ok(GnuSparse { segments: segments(&self.block[386..482])?, more: self.block[482] != 0, real })
    }
}

/// What a header of GNU's old sparse format says.
pub(crate) struct GnuSparse {
    /// Up to four of (offset, length).
    pub segments: Vec<(u64, u64)>,
    /// Blocks with further segments follow.
    pub more: bool,
    /// Length of the file.
    pub real: u64,
}

/// Largest id that means somebody.
pub(crate) const MAX_ID: i128 = u32::MAX as i128 - 1;

fn in_checksum(i: usize) -> bool {
    (148..156).contains(&i)
}

/// A block of 21 further sparse segments: the segments, and whether another block follows.
pub(crate) fn sparse_block(block: &[u8; BLOCK]) -> Result<(Vec<(u64, u64)>, bool), E> {
    Ok((segments(&block[..504])?, block[504] != 0))
}

fn segments(bytes: &[u8]) -> Result<Vec<(u64, u64)>, E> {
    let mut out = Vec::new();
    for pair in bytes.chunks_exact(24).take_while(|p| p[0] != 0) {
        let offset = ranged("sparse offset", &pair[..12], i128::from(i64::MAX))?;
        let length = ranged("sparse length", &pair[12..], i128::from(i64::MAX))?;
        out.push((offset as u64, length as u64));
    }
    Ok(out)
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

fn ranged(field: &'static str, bytes: &[u8], max: i128) -> Result<i128, E> {
    let value = number(bytes).ok_or(E::Number { field })?;
    if (0..=max).contains(&value) { Ok(value) } else { Err(E::Range { field, value: value.to_string() }) }
}

/// Octal digits after spaces and before NULs or spaces (nothing else anywhere), or GNU's base 256: first
/// byte 0x80 for a positive, 0xff for a negative number. An empty field is zero.
fn number(field: &[u8]) -> Option<i128> {
    match field[0] {
        0x80 => return binary(0, &field[1..]),
        0xff => return binary(-1, &field[1..]),
        _ => {}
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let digits = field[start..].iter().take_while(|b| (b'0'..=b'7').contains(b)).count();
    let (number, rest) = field[start..].split_at(digits);
    if rest.iter().any(|b| !matches!(b, 0 | b' ')) {
        return None;
    }
    Some(number.iter().fold(0, |n, d| n * 8 + i128::from(d - b'0')))
}

fn binary(sign: i128, bytes: &[u8]) -> Option<i128> {
    let value = bytes.iter().fold(sign, |n, b| (n << 8) | i128::from(*b));
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn octal_fields_are_strict() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"00000000005 "), Some(5));
        for bad in [&b"+000644\0"[..], b"-1\0\0\0\0\0\0", b"0x10\0\0\0\0", b"644\x00644\0", b"0000648\0", b"\t000644\0"]
        {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn base256_fields_are_signed() {
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]), Some(-256));
        assert_eq!(number(&[0xc0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}

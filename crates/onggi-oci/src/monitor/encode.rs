//! One log entry as JSON, byte for byte as Docker's json-file driver writes it:
//! `{"log":"text\n","stream":"stdout","time":"…"}`. Pure; writes into a buffer that the caller made
//! large enough ([`worst_case`]).
//!
//! A log is bytes of a stranger. Each byte that is not part of valid UTF-8 becomes `\ufffd`, and a line that has
//! such bytes has a further field `raw`: its bytes without the newline in base64 (RFC 4648), from which `onggi logs`
//! prints what was written. Other readers pass it over. Control characters, `<`, `>`, `&` and the two line separators of JavaScript are escaped, so that a line can be
//! neither mistaken for two nor for markup.

use super::clock::MAX_TEXT;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

const HEAD: &[u8] = b"{\"log\":\"";
const MIDDLE: &[u8] = b"\",\"stream\":\"stdout\",\"time\":\"";
const RAW: &[u8] = b"\",\"raw\":\"";
const END: &[u8] = b"\"}\n";
const MAX_TAIL: usize = MIDDLE.len() + MAX_TEXT;

/// Room that an entry of `len` bytes may need: every byte escaped to six, the newline to two, and all of them once more in
/// base64.
pub(super) const fn worst_case(len: usize) -> usize {
    HEAD.len() + 6 * len + 2 + MAX_TAIL + RAW.len() + len.div_ceil(3) * 4 + END.len()
}

/// The part of an entry between its text and its end, the same for all lines of one read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    bytes: [u8; MAX_TAIL],
    len: usize,
}

impl Tail {
    /// `time` is RFC 3339 text of at most [`MAX_TEXT`] bytes.
    pub(super) fn new(source: Source, time: &[u8]) -> Self {
        let mut bytes = [0; MAX_TAIL];
        let mut out = Out { buffer: &mut bytes, len: 0 };
        out.put(match source {
            Source::Stdout => MIDDLE,
            Source::Stderr => b"\",\"stream\":\"stderr\",\"time\":\"",
        });
        out.put(time);
        let len = out.len;
        Self { bytes, len }
    }
}

/// Writes one entry to the start of `buffer` and returns its length. `newline` is false for a part of a
/// line whose rest follows in the next entry.
pub(super) fn entry(buffer: &mut [u8], line: &[u8], newline: bool, tail: &Tail) -> usize {
    let mut out = Out { buffer, len: 0 };
    out.put(HEAD);
    let valid = escape(&mut out, line);
    if newline {
        out.put(b"\\n");
    }
    out.put(&tail.bytes[..tail.len]);
    if !valid {
        out.put(RAW);
        base64(&mut out, line);
    }
    out.put(END);
    out.len
}

struct Out<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl Out<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.buffer[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// False when a byte was no part of valid UTF-8.
fn escape(out: &mut Out<'_>, mut line: &[u8]) -> bool {
    let mut valid = true;
    loop {
        line = copy_plain(out, line);
        let Some(&byte) = line.first() else { return valid };
        let taken = match byte {
            0x80.. => escape_multibyte(out, line, &mut valid),
            _ => escape_ascii(out, byte),
        };
        line = &line[taken..];
    }
}

fn base64(out: &mut Out<'_>, line: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in line.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let digit = |i: usize| match i <= chunk.len() {
            true => DIGITS[(bits >> (18 - 6 * i) & 63) as usize],
            false => b'=',
        };
        out.put(&[digit(0), digit(1), digit(2), digit(3)]);
    }
}

/// Copies the bytes at the start that need no escape; returns the rest.
fn copy_plain<'l>(out: &mut Out<'_>, mut line: &'l [u8]) -> &'l [u8] {
    while let Some((block, rest)) = line.split_first_chunk::<BLOCK>()
        && is_plain(block)
    {
        out.put(block);
        line = rest;
    }
    let plain = line.iter().take_while(|&&b| !SPECIAL[usize::from(b)]).count();
    out.put(&line[..plain]);
    &line[plain..]
}

/// Bytes looked at together.
const BLOCK: usize = 16;

fn is_plain(block: &[u8; BLOCK]) -> bool {
    let two = u128::from_le_bytes(*block);
    (special_bytes(two as u64) | special_bytes((two >> 64) as u64)) == 0
}

/// A word that is 0 when none of the eight bytes of `x` must be escaped. Written as arithmetic on words,
/// which is fast however the program is optimised.
fn special_bytes(x: u64) -> u64 {
    let below = |n: u8| x.wrapping_sub(repeat(n)) & !x;
    let equal = |y: u64, byte: u8| {
        let z = y ^ repeat(byte);
        z.wrapping_sub(repeat(1)) & !z
    };
    // '<' and '>' differ in bit 1, '"' and '&' in bit 2.
    let marks = x | below(0x20) | equal(x, b'\\') | equal(x | repeat(0x02), b'>') | equal(x | repeat(0x04), b'&');
    marks & repeat(0x80)
}

const fn repeat(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// Everything but printable ASCII without `"`, `\`, `<`, `>`, `&`.
const fn is_special(b: u8) -> bool {
    (b < 0x20) | (b >= 0x80) | (b == b'"') | (b == b'\\') | (b == b'<') | (b == b'>') | (b == b'&')
}

/// [`is_special`] for single bytes.
const SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < table.len() {
        table[b] = is_special(b as u8);
        b += 1;
    }
    table
};

fn escape_ascii(out: &mut Out<'_>, byte: u8) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.put(&[b'\\', byte]),
        b'\n' => out.put(b"\\n"),
        b'\r' => out.put(b"\\r"),
        _ => out.put(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
    }
    1
}

/// Copies one character, or marks one byte as invalid; returns the bytes consumed.
fn escape_multibyte(out: &mut Out<'_>, text: &[u8], valid: &mut bool) -> usize {
    match multibyte_len(text) {
        None => {
            *valid = false;
            out.put(b"\\ufffd");
            1
        }
        Some(3) if text.starts_with(b"\xe2\x80\xa8") => {
            out.put(b"\\u2028");
            3
        }
        Some(3) if text.starts_with(b"\xe2\x80\xa9") => {
            out.put(b"\\u2029");
            3
        }
        Some(len) => {
            out.put(&text[..len]);
            len
        }
    }
}

/// Length of the valid multi-byte UTF-8 character at the start of `text` (Unicode 3.9, table 3-7).
fn multibyte_len(text: &[u8]) -> Option<usize> {
    let (len, second) = match *text.first()? {
        0xc2..=0xdf => (2, 0x80..=0xbf),
        0xe0 => (3, 0xa0..=0xbf),
        0xed => (3, 0x80..=0x9f),
        0xe1..=0xef => (3, 0x80..=0xbf),
        0xf0 => (4, 0x90..=0xbf),
        0xf1..=0xf3 => (4, 0x80..=0xbf),
        0xf4 => (4, 0x80..=0x8f),
        _ => return None,
    };
    let continued = |b: &u8| (0x80..=0xbf).contains(b);
    let valid = text.len() >= len && second.contains(&text[1]) && text[2..len].iter().all(continued);
    valid.then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(line: &[u8], newline: bool) -> String {
        let mut buffer = vec![0; worst_case(line.len())];
        let tail = Tail::new(Source::Stderr, b"2024-02-29T23:59:59.120000001Z");
        let len = entry(&mut buffer, line, newline, &tail);
        buffer.truncate(len);
        String::from_utf8(buffer).unwrap()
    }

    fn escaped(line: &[u8]) -> String {
        let all = encode(line, false);
        let end = all.find("\",\"stream\"").unwrap();
        all[HEAD.len()..end].to_owned()
    }

    #[test]
    fn an_entry_has_dockers_fields_in_dockers_order() {
        assert_eq!(
            encode(b"hi", true),
            "{\"log\":\"hi\\n\",\"stream\":\"stderr\",\"time\":\"2024-02-29T23:59:59.120000001Z\"}\n"
        );
        assert!(encode(b"part", false).starts_with("{\"log\":\"part\",\"stream\""));
    }

    #[test]
    fn special_characters_are_escaped_as_docker_escapes_them() {
        for (raw, expected) in [
            (&b"plain text ~"[..], "plain text ~"),
            (b"say \"hi\" \\ <b>&</b>", r#"say \"hi\" \\ \u003cb\u003e\u0026\u003c/b\u003e"#),
            (b"\t\r\x1b[0m\x00\x7f", "\\u0009\\r\\u001b[0m\\u0000\u{7f}"),
            ("옹기 🏺".as_bytes(), "옹기 🏺"),
            ("a\u{2028}b\u{2029}".as_bytes(), "a\\u2028b\\u2029"),
            (b"\xff\xfe ok", "\\ufffd\\ufffd ok"),
            (b"\xea\xb0", "\\ufffd\\ufffd"),
            (b"\xc0\xaf\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd"),
            (b"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"),
        ] {
            assert_eq!(escaped(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn every_single_byte_at_every_offset_of_a_word_survives_a_json_parser() {
        for byte in 0..=255u8 {
            for offset in 0..17 {
                let mut line = [b'x'; 17];
                line[offset] = byte;
                let value: serde_json::Value = serde_json::from_str(&encode(&line, true)).unwrap();
                let mut expected = String::from_utf8_lossy(&line).into_owned();
                expected.push('\n');
                assert_eq!(value["log"], expected, "{byte:#x} at {offset}");
            }
        }
    }

    #[test]
    fn valid_utf8_is_recognised_exactly_as_the_standard_library_does() {
        for first in 0x80..=0xffu8 {
            for second in (0..=0xffu8).step_by(1) {
                for rest in [[0x80, 0x80], [0xbf, 0xbf], [0x7f, 0x80], [0x80, 0xc0]] {
                    let text = [first, second, rest[0], rest[1]];
                    let expected =
                        (2..=4).find(|&n| std::str::from_utf8(&text[..n]).is_ok_and(|s| s.chars().count() == 1));
                    assert_eq!(multibyte_len(&text), expected, "{text:x?}");
                }
            }
        }
    }

    #[test]
    fn a_line_that_is_no_text_is_kept_byte_for_byte() {
        for (line, expected) in
            [(&b"\xff"[..], "/w=="), (b"\xfe\xff", "/v8="), (b"a\xffb", "Yf9i"), (b"caf\xe9 \x00\x01", "Y2Fm6SAAAQ==")]
        {
            let value: serde_json::Value = serde_json::from_str(&encode(line, true)).unwrap();
            assert_eq!(value["raw"], expected, "{line:?}");
        }
        assert!(!encode("옹기".as_bytes(), true).contains("raw"));
    }

    #[test]
    fn the_worst_case_is_an_upper_bound() {
        let line = [0xff; 1000];
        let long = encode(&line, true);
        assert!(long.len() <= worst_case(line.len()));
        assert!(long.len() >= 6 * line.len());
    }
}

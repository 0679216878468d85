//! Cutting a stream of bytes into log entries: one per line, long lines in parts of 16 KiB as Docker
//! does. Pure. Unlike Docker a part never ends inside a UTF-8 character, so long lines stay readable.

/// Longest text of one entry, as Docker's.
pub(super) const MAX_ENTRY: usize = 16 * 1024;

/// The first entry of a stretch of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// A line of this many bytes; a newline follows and is consumed too.
    Line(usize),
    /// This many bytes of a line that is longer than an entry.
    Part(usize),
    /// Neither a whole line nor a whole part yet.
    Incomplete,
}

/// Looks for the first entry. The first `searched` bytes are known to hold no newline.
pub(super) fn cut(data: &[u8], searched: usize) -> Cut {
    let window = &data[..data.len().min(MAX_ENTRY)];
    let from = searched.min(window.len());
    match memchr::memchr(b'\n', &window[from..]) {
        Some(at) => Cut::Line(from + at),
        None if window.len() == MAX_ENTRY => Cut::Part(character_boundary(window)),
        None => Cut::Incomplete,
    }
}

/// The end of the last whole character; the end of `window` when that is not UTF-8 anyway.
fn character_boundary(window: &[u8]) -> usize {
    for back in 1..=3 {
        let at = window.len() - back;
        let needed = match window[at] {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        return if needed > back { at } else { window.len() };
    }
    window.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_their_newline_and_the_rest_waits() {
        assert_eq!(cut(b"ab\ncd", 0), Cut::Line(2));
        assert_eq!(cut(b"\n", 0), Cut::Line(0));
        assert_eq!(cut(b"cd", 0), Cut::Incomplete);
        assert_eq!(cut(b"", 0), Cut::Incomplete);
        assert_eq!(cut(b"abc\n", 3), Cut::Line(3));
    }

    #[test]
    fn a_line_that_fills_an_entry_is_cut_and_its_newline_comes_alone() {
        let mut data = vec![b'x'; MAX_ENTRY - 1];
        data.push(b'\n');
        assert_eq!(cut(&data, 0), Cut::Line(MAX_ENTRY - 1));
        let mut data = vec![b'x'; MAX_ENTRY];
        data.push(b'\n');
        assert_eq!(cut(&data, 0), Cut::Part(MAX_ENTRY));
        assert_eq!(cut(&data[MAX_ENTRY..], 0), Cut::Line(0));
    }

    #[test]
    fn a_part_never_ends_inside_a_character_but_garbage_is_cut_anywhere() {
        for (character, shift) in [("옹", 1), ("옹", 2), ("🏺", 3), ("é", 1)] {
            let mut data = vec![b'x'; MAX_ENTRY - shift];
            data.extend_from_slice(character.as_bytes());
            assert_eq!(cut(&data, 0), Cut::Part(MAX_ENTRY - shift), "{character} {shift}");
        }
        assert_eq!(cut(&[0x80; MAX_ENTRY + 4], 0), Cut::Part(MAX_ENTRY));
        let mut data = vec![b'x'; MAX_ENTRY - 3];
        data.extend_from_slice("옹x".as_bytes());
        assert_eq!(cut(&data, 0), Cut::Part(MAX_ENTRY));
    }
}

//! The detach keys, ctrl-p ctrl-q unless others are chosen: found in what is typed, across reads.

use std::str::FromStr;

use onggi_spec::ParseError;

/// Watches typed bytes for a sequence of keys.
#[derive(Debug, Clone)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// So many of the keys have just been typed, and are held back until the next byte tells what they were.
    held: usize,
}

impl Default for DetachKeys {
    /// ctrl-p ctrl-q.
    fn default() -> Self {
        Self { keys: vec![0x10, 0x11], held: 0 }
    }
}

impl FromStr for DetachKeys {
    type Err = ParseError;

    /// Docker's grammar: keys separated by commas, each one character or `ctrl-` with a letter or one of `@[\]^_`.
    /// Nothing at all leaves no way to detach.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let keys = text.split(',').filter(|_| !text.is_empty()).map(|key| byte(key).ok_or(key));
        match keys.collect::<Result<_, _>>() {
            Ok(keys) => Ok(Self { keys, held: 0 }),
            Err(key) => {
                Err(ParseError::new("detach key", key, "expected a character or ctrl-X, such as ctrl-p,ctrl-q"))
            }
        }
    }
}

/// What a terminal sends for a key.
fn byte(key: &str) -> Option<u8> {
    match key.as_bytes() {
        [one] if one.is_ascii() => Some(*one),
        [b'c', b't', b'r', b'l', b'-', key] => match key.to_ascii_lowercase() {
            key @ b'a'..=b'z' => Some(key - b'a' + 1),
            b'@' => Some(0),
            key @ b'['..=b'_' => Some(key - b'[' + 0x1b),
            _ => None,
        },
        _ => None,
    }
}

/// What a read amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// To be sent on.
    pub(super) bytes: Vec<u8>,
    /// The keys were typed; nothing after them is sent.
    pub(super) detach: bool,
}

impl DetachKeys {
    /// Takes a read.
    pub(super) fn feed(&mut self, input: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(input.len() + self.held);
        for &b in input {
            // The longest run of keys that ends with this byte; what is then no part of it was only typed.
            let typed: Vec<u8> = self.keys[..self.held].iter().copied().chain([b]).collect();
            let run = (0..=typed.len()).find(|&skip| self.keys.starts_with(&typed[skip..])).unwrap_or(typed.len());
            bytes.extend_from_slice(&typed[..run]);
            self.held = typed.len() - run;
            if self.held > 0 && self.held == self.keys.len() {
                return Typed { bytes, detach: true };
            }
        }
        Typed { bytes, detach: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(mut keys: DetachKeys, reads: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        for read in reads {
            let typed = keys.feed(read);
            all.extend(typed.bytes);
            if typed.detach {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn the_keys_are_found_within_and_across_reads_and_else_pass_through() {
        let usual = DetachKeys::default;
        assert_eq!(feed(usual(), &[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(feed(usual(), &[b"ab\x10", b"\x11"]), (b"ab".to_vec(), true));
        assert_eq!(feed(usual(), &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(feed(usual(), &[b"\x10x\x11"]), (b"\x10x\x11".to_vec(), false));
        assert_eq!(feed(usual(), &[b"\x11\x10", b"z"]), (b"\x11\x10z".to_vec(), false));
    }

    #[test]
    fn other_keys_can_be_chosen_or_none() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.keys).map_err(|e| e.to_string());
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(DetachKeys::default().keys));
        assert_eq!(keys("a,ctrl-A,ctrl-@,ctrl-[,ctrl-_"), Ok(vec![b'a', 1, 0, 0x1b, 0x1f]));
        assert_eq!(keys(""), Ok(Vec::new()));
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b", "é", ","] {
            assert!(keys(bad).is_err(), "{bad:?}");
        }
        let aab: DetachKeys = "a,a,b".parse().expect("three keys");
        assert_eq!(feed(aab.clone(), &[b"xaa", b"ab."]), (b"xa".to_vec(), true));
        assert_eq!(feed(aab, &[b"aac"]), (b"aac".to_vec(), false));
        let none: DetachKeys = "".parse().expect("no keys");
        assert_eq!(feed(none, &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }
}

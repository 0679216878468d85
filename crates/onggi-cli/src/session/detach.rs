//! The detach keys, ctrl-p ctrl-q: found in what is typed, across reads.

/// ctrl-p.
const FIRST: u8 = 0x10;
/// ctrl-q.
const SECOND: u8 = 0x11;

/// Watches typed bytes for the two keys.
#[derive(Debug, Default)]
pub(super) struct DetachKeys {
    pending: bool,
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
    /// Takes a read. A ctrl-p is held back until the next byte tells what it was.
    pub(super) fn feed(&mut self, input: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(input.len() + 1);
        for &b in input {
            match (std::mem::take(&mut self.pending), b) {
                (true, SECOND) => return Typed { bytes, detach: true },
                (true, FIRST) => {
                    bytes.push(FIRST);
                    self.pending = true;
                }
                (true, b) => bytes.extend([FIRST, b]),
                (false, FIRST) => self.pending = true,
                (false, b) => bytes.push(b),
            }
        }
        Typed { bytes, detach: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(reads: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::default();
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
        assert_eq!(feed(&[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(feed(&[b"ab\x10", b"\x11"]), (b"ab".to_vec(), true));
        assert_eq!(feed(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(feed(&[b"\x10x\x11"]), (b"\x10x\x11".to_vec(), false));
        assert_eq!(feed(&[b"\x11\x10", b"z"]), (b"\x11\x10z".to_vec(), false));
    }
}

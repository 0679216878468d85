//! Decoding of what attach clients send ([`onggi_spec::attach`]): a push parser over whatever bytes have
//! arrived. It keeps at most a header and a four-byte payload; stdin bytes are handed on as they are.
//!
//! A frame that is too long, of unknown kind, of the wrong direction or of the wrong length is an error,
//! after which the client is dropped: there is no way to find the next frame.

use onggi_spec::attach::{FrameKind, MAX_FRAME};

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input<'a> {
    /// Bytes for the workload.
    Stdin(&'a [u8]),
    /// No more bytes will come.
    StdinEof,
    /// The size of the client's terminal.
    Resize { columns: u16, rows: u16 },
    /// The client cleans up after the exit.
    WillCleanUp,
}

/// Why a client cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes is longer than the {MAX_FRAME} allowed")]
    TooLong(u32),
    #[error("frame kind {0} is unknown or not for the monitor")]
    Kind(u8),
    #[error("a frame of kind {kind} cannot have {len} bytes")]
    Length { kind: u8, len: u32 },
}

/// The decoder's place in the stream of one client.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    header: [u8; 5],
    have: usize,
    size: [u8; 4],
    taken: usize,
}

impl Decoder {
    /// Takes bytes off the front of `input` until there is something to do. `None`: all was consumed.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Input<'a>>, FrameError> {
        while self.have < self.header.len() {
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            self.header[self.have] = byte;
            self.have += 1;
            *input = rest;
        }
        let kind = self.kind()?;
        match kind {
            FrameKind::Stdin => Ok(self.stdin(input)),
            FrameKind::Resize => Ok(self.resize(input)),
            FrameKind::StdinEof => Ok(Some(self.done(Input::StdinEof))),
            _ => Ok(Some(self.done(Input::WillCleanUp))),
        }
    }

    fn len(&self) -> u32 {
        u32::from_le_bytes([self.header[1], self.header[2], self.header[3], self.header[4]])
    }

    fn kind(&self) -> Result<FrameKind, FrameError> {
        let (byte, len) = (self.header[0], self.len());
        if len as usize > MAX_FRAME {
            return Err(FrameError::TooLong(len));
        }
        let kind = FrameKind::from_byte(byte).ok_or(FrameError::Kind(byte))?;
        let fits = match kind {
            FrameKind::Stdin => true,
            FrameKind::Resize => len == 4,
            FrameKind::StdinEof | FrameKind::WillCleanUp => len == 0,
            FrameKind::Stdout | FrameKind::Stderr | FrameKind::Exit => return Err(FrameError::Kind(byte)),
        };
        if fits { Ok(kind) } else { Err(FrameError::Length { kind: byte, len }) }
    }

    fn stdin<'a>(&mut self, input: &mut &'a [u8]) -> Option<Input<'a>> {
        let left = self.len() as usize - self.taken;
        let (now, rest) = input.split_at(left.min(input.len()));
        *input = rest;
        self.taken += now.len();
        if self.taken == self.len() as usize {
            self.restart();
        }
        // An empty frame asks nothing, but what follows it may.
        if now.is_empty() && !input.is_empty() { Some(Input::Stdin(b"")) } else { nonempty(now) }
    }

    fn resize<'a>(&mut self, input: &mut &[u8]) -> Option<Input<'a>> {
        while self.taken < self.size.len() {
            let (&byte, rest) = input.split_first()?;
            self.size[self.taken] = byte;
            self.taken += 1;
            *input = rest;
        }
        let [c0, c1, r0, r1] = self.size;
        let size = Input::Resize { columns: u16::from_le_bytes([c0, c1]), rows: u16::from_le_bytes([r0, r1]) };
        Some(self.done(size))
    }

    fn done<'a>(&mut self, input: Input<'a>) -> Input<'a> {
        self.restart();
        input
    }

    fn restart(&mut self) {
        self.have = 0;
        self.taken = 0;
    }
}

fn nonempty(bytes: &[u8]) -> Option<Input<'_>> {
    (!bytes.is_empty()).then_some(Input::Stdin(bytes))
}

#[cfg(test)]
mod tests {
    use onggi_spec::attach::header;

    use super::*;

    fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut out = header(kind, payload.len() as u32).to_vec();
        out.extend_from_slice(payload);
        out
    }

    /// Decodes in pieces of `step` bytes; adjacent stdin bytes are joined.
    fn decode(bytes: &[u8], step: usize) -> Result<Vec<String>, FrameError> {
        let (mut decoder, mut seen, mut stdin) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            let mut input = piece;
            while let Some(what) = decoder.next(&mut input)? {
                match what {
                    Input::Stdin(bytes) => stdin.extend_from_slice(bytes),
                    other => seen.push(format!("{other:?}")),
                }
            }
            assert!(input.is_empty());
        }
        seen.push(String::from_utf8(stdin).unwrap());
        Ok(seen)
    }

    #[test]
    fn frames_are_understood_however_they_are_torn_apart() {
        let mut bytes = frame(FrameKind::Stdin, b"hello ");
        bytes.extend(frame(FrameKind::Stdin, b""));
        bytes.extend(frame(FrameKind::Resize, &[80, 0, 24, 1]));
        bytes.extend(frame(FrameKind::Stdin, b"world"));
        bytes.extend(frame(FrameKind::StdinEof, b""));
        bytes.extend(frame(FrameKind::WillCleanUp, b""));
        for step in 1..=bytes.len() {
            assert_eq!(
                decode(&bytes, step).unwrap(),
                ["Resize { columns: 80, rows: 280 }", "StdinEof", "WillCleanUp", "hello world"],
                "step {step}"
            );
        }
    }

    #[test]
    fn what_is_not_a_frame_for_the_monitor_is_refused() {
        let too_long = header(FrameKind::Stdin, MAX_FRAME as u32 + 1);
        assert_eq!(decode(&too_long, 5), Err(FrameError::TooLong(MAX_FRAME as u32 + 1)));
        assert_eq!(decode(&[99, 0, 0, 0, 0], 5), Err(FrameError::Kind(99)));
        assert_eq!(decode(&[0, 0, 0, 0, 0], 1), Err(FrameError::Kind(0)));
        for kind in [FrameKind::Stdout, FrameKind::Stderr, FrameKind::Exit] {
            assert_eq!(decode(&header(kind, 0), 5), Err(FrameError::Kind(kind as u8)));
        }
        let bad = header(FrameKind::Resize, 3);
        assert_eq!(decode(&bad, 5), Err(FrameError::Length { kind: 4, len: 3 }));
        let bad = header(FrameKind::StdinEof, 1);
        assert_eq!(decode(&bad, 5), Err(FrameError::Length { kind: 5, len: 1 }));
        let longest = vec![b'x'; MAX_FRAME];
        assert_eq!(decode(&frame(FrameKind::Stdin, &longest), 4096).unwrap()[0].len(), MAX_FRAME);
    }
}

//! The framing between an attach client (the command line) and the monitor: a byte of kind, a
//! little-endian u32 length, the payload. Bounded: a longer frame is an error (I12).

/// Longest payload of one frame.
pub const MAX_FRAME: usize = 64 * 1024;

/// Kinds of frames. The direction is given in brackets (c = client, m = monitor).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// \[c→m\] bytes for stdin.
    Stdin = 1,
    /// \[m→c\] bytes of stdout, or of the terminal.
    Stdout = 2,
    /// \[m→c\] bytes of stderr.
    Stderr = 3,
    /// \[c→m\] terminal size: columns u16 LE, rows u16 LE.
    Resize = 4,
    /// \[c→m\] stdin has ended.
    StdinEof = 5,
    /// \[m→c\] the container exited: an `ExitRecord` as JSON. Last frame to the client.
    Exit = 6,
    /// \[c→m\] answer to `Exit`: the client cleans up, the exit command is not needed.
    WillCleanUp = 7,
}

impl FrameKind {
    /// From the wire.
    pub fn from_byte(b: u8) -> Option<Self> {
        Some(match b {
            1 => Self::Stdin,
            2 => Self::Stdout,
            3 => Self::Stderr,
            4 => Self::Resize,
            5 => Self::StdinEof,
            6 => Self::Exit,
            7 => Self::WillCleanUp,
            _ => return None,
        })
    }
}

/// The five bytes before a payload of `len` bytes (`len <= MAX_FRAME`).
pub fn header(kind: FrameKind, len: u32) -> [u8; 5] {
    let l = len.to_le_bytes();
    [kind as u8, l[0], l[1], l[2], l[3]]
}

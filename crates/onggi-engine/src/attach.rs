//! The client's end of the stream between the command line and a container's monitor.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use onggi_spec::{
    attach::{FrameKind, MAX_FRAME, header},
    monitor::ExitRecord,
};

use crate::{Engine, EngineError, ProcessHandle, Started, Status, freeze};

/// What the monitor sends.
#[derive(Debug, PartialEq, Eq)]
pub enum AttachEvent<'a> {
    /// Bytes of stdout, or of the terminal.
    Stdout(&'a [u8]),
    /// Bytes of stderr.
    Stderr(&'a [u8]),
    /// The container has ended; nothing follows.
    Exit(ExitRecord),
    /// The monitor closed the stream without an exit: it was killed.
    Closed,
}

/// A connection to a monitor. Clone it to read and write from two threads.
#[derive(Debug)]
pub struct AttachStream {
    stream: UnixStream,
    buffer: Vec<u8>,
    detached: Arc<AtomicBool>,
}

impl AttachStream {
    /// Wraps a connected socket.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), detached: Arc::default() }
    }

    /// A second handle on the same connection.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, buffer: Vec::new(), detached: self.detached.clone() })
    }

    /// Leaves the container: every handle on this connection then reads [`AttachEvent::Closed`].
    pub fn detach(&self) {
        self.detached.store(true, Ordering::Release);
        // A connection that the monitor has closed is as good as shut down.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// True after [`AttachStream::detach`] on any handle.
    pub fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// The stream broke, or carried something that is not a frame.
    pub fn next_event(&mut self) -> io::Result<AttachEvent<'_>> {
        let mut head = [0u8; 5];
        match self.stream.read_exact(&mut head) {
            Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return Ok(AttachEvent::Closed);
            }
            other => other?,
        }
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > MAX_FRAME {
            return Err(malformed("a frame is too long"));
        }
        self.buffer.resize(len, 0);
        self.stream.read_exact(&mut self.buffer)?;
        match FrameKind::from_byte(head[0]) {
            Some(FrameKind::Stdout) => Ok(AttachEvent::Stdout(&self.buffer)),
            Some(FrameKind::Stderr) => Ok(AttachEvent::Stderr(&self.buffer)),
            Some(FrameKind::Exit) => Ok(AttachEvent::Exit(serde_json::from_slice(&self.buffer)?)),
            _ => Err(malformed("a frame of unknown kind")),
        }
    }

    /// Sends bytes to the container's stdin.
    ///
    /// # Errors
    /// The stream broke.
    pub fn send_stdin(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(MAX_FRAME).try_for_each(|chunk| self.send(FrameKind::Stdin, chunk))
    }

    /// Closes the container's stdin.
    ///
    /// # Errors
    /// The stream broke.
    pub fn send_eof(&mut self) -> io::Result<()> {
        self.send(FrameKind::StdinEof, &[])
    }

    /// Sets the terminal's size.
    ///
    /// # Errors
    /// The stream broke.
    pub fn resize(&mut self, columns: u16, rows: u16) -> io::Result<()> {
        let (c, r) = (columns.to_le_bytes(), rows.to_le_bytes());
        self.send(FrameKind::Resize, &[c[0], c[1], r[0], r[1]])
    }

    /// Tells the monitor, after `Exit`, that this client cleans up.
    pub(crate) fn will_clean_up(&mut self) -> io::Result<()> {
        self.send(FrameKind::WillCleanUp, &[])
    }

    fn send(&mut self, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).map_err(|_| malformed("a frame is too long"))?;
        let mut frame = Vec::with_capacity(5 + payload.len());
        frame.extend_from_slice(&header(kind, len));
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame)
    }
}

impl Engine {
    /// Connects to a running container: its output from now on, its stdin if it was made with `-i`.
    ///
    /// # Errors
    /// No such container, or it does not run.
    pub fn attach(&self, name: &str) -> Result<Started, EngineError> {
        self.recover()?;
        let record = self.find(name)?;
        let pid = match self.status(&record.id)? {
            Status::Running { pid, paused: false, .. } => pid,
            other => {
                let hint = if other.is_paused() { freeze::PAUSED_HINT } else { "start it first" };
                let (name, state) = (record.name.to_string(), other.name());
                return Err(EngineError::WrongState { verb: "attach to", name, state, hint });
            }
        };
        let stream = onggi_sys::unix::connect(&self.paths.run_dir(&record.id).join("attach.sock"));
        let stream =
            stream.map_err(|source| EngineError::Sys { op: "connect to the container's monitor".into(), source })?;
        let process = self.process(&record)?.map(ProcessHandle::new);
        Ok(Started {
            record,
            pid,
            attach: Some(AttachStream::new(stream.into())),
            process,
            owner: false,
            notes: Vec::new(),
        })
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_in_order_and_the_end_is_seen() {
        let (mut monitor, client) = UnixStream::pair().unwrap();
        let mut client = AttachStream::new(client);
        monitor.write_all(&header(FrameKind::Stdout, 2)).unwrap();
        monitor.write_all(b"hi").unwrap();
        drop(monitor);
        assert_eq!(client.next_event().unwrap(), AttachEvent::Stdout(b"hi"));
        assert_eq!(client.next_event().unwrap(), AttachEvent::Closed);
    }

    #[test]
    fn a_frame_beyond_the_bound_is_an_error() {
        let (mut monitor, client) = UnixStream::pair().unwrap();
        monitor.write_all(&[2, 255, 255, 255, 255]).unwrap();
        assert!(AttachStream::new(client).next_event().is_err());
    }
}

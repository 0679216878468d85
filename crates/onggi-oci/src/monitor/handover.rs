//! What the starter tells the monitor: one flat message and its descriptors.
//!
//! The starter has parsed the JSON; the monitor gets plain numbers and texts that it reads in place, so
//! that the long-lived process never runs a parser and never allocates for its configuration. Both ends
//! are this very program, forked, so the format has no versions; a message that does not decode means
//! that the starter died half-way.
//!
//! Layout: `u32` length of the rest, then the fields in the order of [`write`]; numbers little-endian,
//! texts and lists as `u32` length and bytes.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// Longest message: paths of a container and the exit command; far more than any real one.
pub(super) const MAX_MESSAGE: usize = 256 * 1024;

/// The outcome of a start, borrowed from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handover<'m> {
    /// The workload runs. Otherwise only `report` and `exit_command` mean something.
    pub(super) started: bool,
    /// The workload has a terminal: one stream for input and output.
    pub(super) terminal: bool,
    /// Attach clients may write to stdin.
    pub(super) interactive: bool,
    /// The container is removed when it ends.
    pub(super) disposable: bool,
    /// The workload's first process.
    pub(super) pid: i32,
    /// uid whose attach clients are served, besides root.
    pub(super) owner: u32,
    /// Unix time in nanoseconds.
    pub(super) started_at: i64,
    /// OOM kills already counted in the cgroup before the workload ran.
    pub(super) oom_before: u64,
    /// Bytes of one log file.
    pub(super) max_size: u64,
    /// Log files in all.
    pub(super) max_files: u32,
    /// The log file.
    pub(super) log: &'m Path,
    /// Where the exit record goes.
    pub(super) exit_file: &'m Path,
    /// The container's runtime directory, with `attach.sock` and `monitor.pid`.
    pub(super) run_dir: &'m Path,
    /// The runtime's state directory of this container.
    pub(super) state_dir: &'m Path,
    /// The line for the report descriptor.
    pub(super) report: &'m [u8],
    /// Pairs of cgroup controller and directory.
    pub(super) cgroups: List<'m>,
    /// Program and arguments run at the end; may be empty.
    pub(super) exit_command: List<'m>,
}

/// A list of byte strings, still encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct List<'m>(&'m [u8]);

impl<'m> List<'m> {
    /// The items in order.
    pub(super) fn iter(self) -> impl Iterator<Item = &'m OsStr> {
        let mut rest = Reader(self.0);
        std::iter::from_fn(move || rest.bytes().map(OsStr::from_bytes))
    }
}

/// Encodes a list for [`Handover`].
pub(super) fn encode_list<T: AsRef<OsStr>>(items: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        put_bytes(&mut out, item.as_ref().as_bytes());
    }
    out
}

impl<'m> List<'m> {
    /// A list made by [`encode_list`].
    pub(super) fn encoded(bytes: &'m [u8]) -> Self {
        Self(bytes)
    }
}

/// Encodes a message, with its length in front. `None` when it is longer than [`MAX_MESSAGE`].
pub(super) fn write(h: &Handover<'_>) -> Option<Vec<u8>> {
    let mut out = vec![0; 4];
    let flags = [h.started, h.terminal, h.interactive, h.disposable];
    out.push(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    out.extend_from_slice(&h.pid.to_le_bytes());
    out.extend_from_slice(&h.owner.to_le_bytes());
    out.extend_from_slice(&h.started_at.to_le_bytes());
    out.extend_from_slice(&h.oom_before.to_le_bytes());
    out.extend_from_slice(&h.max_size.to_le_bytes());
    out.extend_from_slice(&h.max_files.to_le_bytes());
    for path in [h.log, h.exit_file, h.run_dir, h.state_dir] {
        put_bytes(&mut out, path.as_os_str().as_bytes());
    }
    for bytes in [h.report, h.cgroups.0, h.exit_command.0] {
        put_bytes(&mut out, bytes);
    }
    let len = u32::try_from(out.len() - 4).ok()?;
    out[..4].copy_from_slice(&len.to_le_bytes());
    (out.len() <= MAX_MESSAGE).then_some(out)
}

/// Decodes a whole message (with its length in front). `None` when it is torn.
pub(super) fn read(message: &[u8]) -> Option<Handover<'_>> {
    let mut r = Reader(message);
    if r.u32()? as usize != r.0.len() {
        return None;
    }
    let flags = r.take::<1>()?[0];
    Some(Handover {
        started: flags & 1 != 0,
        terminal: flags & 2 != 0,
        interactive: flags & 4 != 0,
        disposable: flags & 8 != 0,
        pid: i32::from_le_bytes(r.take()?),
        owner: r.u32()?,
        started_at: i64::from_le_bytes(r.take()?),
        oom_before: u64::from_le_bytes(r.take()?),
        max_size: u64::from_le_bytes(r.take()?),
        max_files: r.u32()?,
        log: r.path()?,
        exit_file: r.path()?,
        run_dir: r.path()?,
        state_dir: r.path()?,
        report: r.bytes()?,
        cgroups: List(r.bytes()?),
        exit_command: List(r.bytes()?),
    })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'m [u8]> {
        let len = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn path(&mut self) -> Option<&'m Path> {
        self.bytes().map(|b| Path::new(OsStr::from_bytes(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_and_a_torn_one_is_refused() {
        let (cgroups, command) = (encode_list(["memory", "/sys/fs/cgroup/x"]), encode_list(["/bin/true", "", "a b"]));
        let sent = Handover {
            started: true,
            terminal: false,
            interactive: true,
            disposable: true,
            pid: 77,
            owner: 1000,
            started_at: 1_700_000_000_123_456_789,
            oom_before: 3,
            max_size: 10 << 20,
            max_files: 5,
            log: Path::new("/a/container.log"),
            exit_file: Path::new("/a/exit.json"),
            run_dir: Path::new("/run/a"),
            state_dir: Path::new("/run/oci/a"),
            report: b"{}\n",
            cgroups: List::encoded(&cgroups),
            exit_command: List::encoded(&command),
        };
        let message = write(&sent).unwrap();
        let got = read(&message).unwrap();
        assert_eq!(got, sent);
        let items: Vec<_> = got.exit_command.iter().collect();
        assert_eq!(items, ["/bin/true", "", "a b"]);
        for len in 0..message.len() {
            assert_eq!(read(&message[..len]), None);
        }
    }

    #[test]
    fn a_message_beyond_the_bound_is_not_made() {
        let huge = vec![b'x'; MAX_MESSAGE];
        let empty = read(&write(&read(&EMPTY).unwrap()).unwrap()).is_some();
        assert!(empty);
        let mut big = read(&EMPTY).unwrap();
        big.report = &huge;
        assert_eq!(write(&big), None);
    }

    /// 37 bytes of numbers and seven empty texts.
    const EMPTY: [u8; 4 + 37 + 28] = {
        let mut m = [0; 4 + 37 + 28];
        m[0] = 37 + 28;
        m
    };
}

//! A client of one D-Bus connection: blocking, one call at a time, systemd's manager and nothing else.
//!
//! Own code instead of a crate: about 500 lines with the wire format, no thread, no async runtime, a few
//! kilobytes of the static binary (docs/design). Authentication is SASL EXTERNAL without an identity: the
//! server takes the one that the kernel tells it, which is right inside a user namespace too.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Manager, Property,
    value::Value,
    wire::{FIXED, Kind, Malformed, Message},
};

/// How long systemd may take for one call, as in runc.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long systemd may take to come to a bus that was just begun.
const COMING: Duration = Duration::from_secs(3);
/// Longest line of the authentication.
const MAX_LINE: usize = 1024;
/// Signals that are kept while another message is waited for.
const MAX_JOBS: usize = 64;

const DAEMON: (&str, &str, &str) = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus");
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const NO_OWNER: &str = "org.freedesktop.DBus.Error.NameHasNoOwner";
const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
const JOB_REMOVED: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                           interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// Why systemd could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No socket of a bus at any of the places where one may be.
    #[error("no bus to reach it: {tried}")]
    NoBus {
        /// Each place and what was wrong there.
        tried: String,
    },
    /// The connection broke, or it took too long.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side does not let us in.
    #[error("the bus refuses us: {0}")]
    Refused(String),
    /// What came is no message.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// systemd's own error.
    #[error("{text} ({name})")]
    Answer {
        /// `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// In its words.
        text: String,
    },
    /// An answer of another type than the call has.
    #[error("an unexpected answer to {0}")]
    Unexpected(&'static str),
    /// A job ended otherwise than "done".
    #[error("the job ended with {0:?}")]
    Job(String),
}

impl BusError {
    /// It is this error of systemd's.
    pub(super) fn is_named(&self, wanted: &str) -> bool {
        matches!(self, Self::Answer { name, .. } if name == wanted)
    }
}

type Result<T> = std::result::Result<T, BusError>;

/// A connection to a manager.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// systemd's name on a bus with a daemon between us; none on systemd's own socket.
    owner: Option<String>,
    /// Results of jobs that ended before we asked, by object path.
    jobs: BTreeMap<String, String>,
}

impl Bus {
    pub(super) fn connect(manager: Manager) -> Result<Self> {
        let mut tried = Vec::new();
        for (path, daemon) in places(manager) {
            match UnixStream::connect(&path) {
                Ok(stream) => return Self::enter(stream, daemon),
                Err(e) => tried.push(format!("{}: {e}", path.display())),
            }
        }
        Err(BusError::NoBus { tried: tried.join(", ") })
    }

    fn enter(stream: UnixStream, daemon: bool) -> Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Self { stream, serial: 0, owner: None, jobs: BTreeMap::new() };
        bus.authenticate()?;
        if daemon {
            bus.daemon_call("Hello", Vec::new())?;
            bus.daemon_call("AddMatch", vec![Value::str(JOB_REMOVED)])?;
            // Anybody on a bus may send a signal: those of this name's owner count.
            bus.owner = Some(bus.systemd_on_the_bus()?);
        }
        Ok(bus)
    }

    /// systemd's own name on the bus. A user's bus is begun by the first word on it, and systemd comes there a moment
    /// later.
    fn systemd_on_the_bus(&mut self) -> Result<String> {
        let deadline = Instant::now() + COMING;
        loop {
            match self.daemon_call("GetNameOwner", vec![Value::str(SYSTEMD)]) {
                Ok(answer) => match answer.as_slice() {
                    [Value::Str(owner)] => return Ok(owner.clone()),
                    _ => return Err(BusError::Unexpected("GetNameOwner")),
                },
                Err(e) if e.is_named(NO_OWNER) && Instant::now() < deadline => thread::sleep(COMING / 100),
                Err(e) => return Err(e),
            }
        }
    }

    fn daemon_call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>> {
        let (name, path, interface) = DAEMON;
        self.call(Message { body, ..Message::call(0, name, path, interface, member) })
    }

    /// D-Bus specification, "Authentication Protocol".
    fn authenticate(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
        loop {
            let line = self.line(deadline)?;
            match line.split(' ').next() {
                Some("DATA") => self.stream.write_all(b"DATA\r\n")?,
                Some("OK") => break,
                _ => return Err(BusError::Refused(line)),
            }
        }
        Ok(self.stream.write_all(b"BEGIN\r\n")?)
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read_exact(&mut byte, deadline)?;
            line.push(byte[0]);
            if line.len() > MAX_LINE {
                return Err(BusError::Refused("a line of the authentication has no end".into()));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read_exact(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<()> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => buffer = &mut buffer[n..],
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        let mut head = [0; FIXED];
        self.read_exact(&mut head, deadline)?;
        let mut bytes = vec![0; Message::length(&head)?];
        bytes[..FIXED].copy_from_slice(&head);
        self.read_exact(&mut bytes[FIXED..], deadline)?;
        Ok(Message::decode(&bytes)?)
    }

    /// Sends a call and waits for its answer; ends of jobs that come meanwhile are kept.
    fn call(&mut self, mut message: Message) -> Result<Vec<Value>> {
        let deadline = Instant::now() + PATIENCE;
        self.serial += 1;
        message.serial = self.serial;
        self.stream.write_all(&message.encode()?)?;
        loop {
            let answer = self.receive(deadline)?;
            match answer.kind {
                Kind::Return if answer.reply_to == Some(self.serial) => return Ok(answer.body),
                Kind::Error if answer.reply_to == Some(self.serial) => return Err(refusal(answer)),
                Kind::Signal => self.note_job(&answer),
                _ => {}
            }
        }
    }

    /// `JobRemoved(u id, o job, s unit, s result)`.
    fn note_job(&mut self, signal: &Message) {
        let ours = signal.interface.as_deref() == Some(MANAGER)
            && signal.member.as_deref() == Some("JobRemoved")
            && (self.owner.is_none() || signal.sender == self.owner);
        if let [Value::U32(_), Value::ObjectPath(job), Value::Str(_), Value::Str(result)] = signal.body.as_slice()
            && ours
            && self.jobs.len() < MAX_JOBS
        {
            self.jobs.insert(job.clone(), result.clone());
        }
    }

    fn manager_call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>> {
        let message = Message::call(0, self.destination(), SYSTEMD_PATH, MANAGER, member);
        self.call(Message { body, ..message })
    }

    /// A peer without a daemon takes messages for nobody else.
    fn destination(&self) -> &'static str {
        if self.owner.is_some() { SYSTEMD } else { "" }
    }

    /// Waits until the job that a call has made is over; returns its result.
    fn job(&mut self, answer: &[Value]) -> Result<String> {
        let [Value::ObjectPath(job)] = answer else { return Err(BusError::Unexpected("a job")) };
        let deadline = Instant::now() + PATIENCE;
        self.jobs.retain(|path, _| path == job);
        loop {
            if let Some(result) = self.jobs.remove(job) {
                return Ok(result);
            }
            let message = self.receive(deadline)?;
            if message.kind == Kind::Signal {
                self.note_job(&message);
                self.jobs.retain(|path, _| path == job);
            }
        }
    }

    pub(super) fn manager_property(&mut self, name: &str) -> Result<String> {
        let message = Message::call(0, self.destination(), SYSTEMD_PATH, "org.freedesktop.DBus.Properties", "Get");
        let body = vec![Value::str(MANAGER), Value::str(name)];
        match self.call(Message { body, ..message })?.as_slice() {
            [Value::Variant(v)] => match v.as_ref() {
                Value::Str(text) => Ok(text.clone()),
                _ => Err(BusError::Unexpected("Get")),
            },
            _ => Err(BusError::Unexpected("Get")),
        }
    }

    /// Returns the result of the job: `done` when all is well.
    pub(super) fn start_transient_unit(&mut self, unit: &str, properties: &[Property]) -> Result<String> {
        let auxiliary = Value::Array("(sa(sv))".into(), Vec::new());
        let body = vec![Value::str(unit), Value::str("replace"), list(properties), auxiliary];
        let answer = self.manager_call("StartTransientUnit", body)?;
        self.job(&answer)
    }

    /// Has systemd move a process into the unit's group: for callers who may not do it themselves.
    pub(super) fn attach_process(&mut self, unit: &str, pid: u32) -> Result<()> {
        let pids = Value::Array("u".into(), vec![Value::U32(pid)]);
        self.manager_call("AttachProcessesToUnit", vec![Value::str(unit), Value::str(""), pids]).map(drop)
    }

    pub(super) fn stop_unit(&mut self, unit: &str) -> Result<String> {
        let answer = self.manager_call("StopUnit", vec![Value::str(unit), Value::str("replace")])?;
        self.job(&answer)
    }

    pub(super) fn reset_failed_unit(&mut self, unit: &str) -> Result<()> {
        self.manager_call("ResetFailedUnit", vec![Value::str(unit)]).map(drop)
    }

    /// For this boot only, as a transient unit wants it.
    pub(super) fn set_unit_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let body = vec![Value::str(unit), Value::Bool(true), list(properties)];
        self.manager_call("SetUnitProperties", body).map(drop)
    }
}

/// `a(sv)`.
fn list(properties: &[Property]) -> Value {
    let pair = |p: &Property| Value::Struct(vec![Value::str(&p.name), Value::Variant(Box::new(p.value.clone()))]);
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}

fn refusal(answer: Message) -> BusError {
    let text = match answer.body.into_iter().next() {
        Some(Value::Str(text)) => text,
        _ => "no reason is given".into(),
    };
    BusError::Answer { name: answer.error.unwrap_or_default(), text }
}

/// Sockets to try, and whether a bus daemon is behind them.
fn places(manager: Manager) -> Vec<(PathBuf, bool)> {
    let address = |name: &str| env::var(name).ok().and_then(|text| socket_of(&text));
    match manager {
        Manager::System => {
            let bus = address("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "/run/dbus/system_bus_socket".into());
            // Without a bus daemon root reaches PID 1 on its private socket.
            vec![(bus, true), ("/run/systemd/private".into(), false)]
        }
        Manager::User => {
            let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
            let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", host_uid()).into());
            let bus = address("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| runtime.join("bus"));
            vec![(bus, true), (runtime.join("systemd/private"), false)]
        }
    }
}

/// The uid that the host knows the caller by: inside a user namespace that of the mapping.
fn host_uid() -> u32 {
    let uid = rustix::process::geteuid().as_raw();
    outside_uid(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default(), uid)
}

/// `inside outside count` lines.
fn outside_uid(map: &str, uid: u32) -> u32 {
    let range = |line: &str| {
        let mut n = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (inside, outside, count) = (n.next()?.ok()?, n.next()?.ok()?, n.next()?.ok()?);
        let offset = uid.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    };
    map.lines().find_map(range).unwrap_or(uid)
}

/// The first socket with a path in a D-Bus address (D-Bus specification, "Server Addresses").
fn socket_of(address: &str) -> Option<PathBuf> {
    let path = |part: &str| {
        let value = part.strip_prefix("unix:")?.split(',').find_map(|pair| pair.strip_prefix("path="))?;
        Some(PathBuf::from(unescape(value)?)).filter(|p| Path::new(p).is_absolute())
    };
    address.split(';').find_map(path)
}

/// `%2f`.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that lets the client in and then answers each call as `answer` says: with messages to send.
    fn peer(
        daemon: bool,
        answer: impl Fn(&Message) -> Vec<Message> + Send + 'static,
    ) -> (Result<Bus>, thread::JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        let server = thread::spawn(move || {
            let mut expect = |text: &[u8], reply: &[u8]| {
                let mut got = vec![0; text.len()];
                theirs.read_exact(&mut got).expect("authentication");
                assert_eq!(got, text);
                theirs.write_all(reply).expect("authentication");
            };
            expect(b"\0AUTH EXTERNAL\r\n", b"DATA\r\n");
            expect(b"DATA\r\n", b"OK 0123\r\n");
            expect(b"BEGIN\r\n", b"");
            let mut head = [0; FIXED];
            while theirs.read_exact(&mut head).is_ok() {
                let mut bytes = vec![0; Message::length(&head).expect("length")];
                bytes[..FIXED].copy_from_slice(&head);
                theirs.read_exact(&mut bytes[FIXED..]).expect("body");
                for message in answer(&Message::decode(&bytes).expect("call")) {
                    theirs.write_all(&message.encode().expect("encode")).expect("send");
                }
            }
        });
        (Bus::enter(ours, daemon), server)
    }

    fn reply(call: &Message, body: Vec<Value>) -> Message {
        let message = Message::call(9, "", "/x", "x.y", "Z");
        Message {
            kind: Kind::Return,
            reply_to: Some(call.serial),
            path: None,
            interface: None,
            member: None,
            body,
            ..message
        }
    }

    fn removed(job: &str, result: &str, sender: Option<&str>) -> Message {
        let message = Message::call(8, "", SYSTEMD_PATH, MANAGER, "JobRemoved");
        let body = vec![Value::U32(1), Value::ObjectPath(job.into()), Value::str("u.scope"), Value::str(result)];
        Message { kind: Kind::Signal, sender: sender.map(str::to_owned), body, ..message }
    }

    fn job(call: &Message) -> Message {
        reply(call, vec![Value::ObjectPath("/job/1".into())])
    }

    #[test]
    fn a_job_is_waited_for_whether_its_end_comes_before_or_after_the_answer() {
        for early in [true, false] {
            let (bus, server) = peer(false, move |call| {
                let (end, other) = (removed("/job/1", "done", None), removed("/job/2", "failed", None));
                if early { vec![other, end, job(call)] } else { vec![job(call), other, end] }
            });
            let mut bus = bus.expect("enter");
            assert_eq!(bus.start_transient_unit("u.scope", &[]).expect("start"), "done");
            drop(bus);
            server.join().expect("server");
        }
    }

    #[test]
    fn only_the_owner_of_systemds_name_ends_a_job() {
        let (bus, server) = peer(true, |call| match call.member.as_deref() {
            Some("GetNameOwner") => vec![reply(call, vec![Value::str(":1.1")])],
            Some("StopUnit") => {
                vec![removed("/job/1", "done", Some(":1.66")), job(call), removed("/job/1", "timeout", Some(":1.1"))]
            }
            _ => vec![reply(call, Vec::new())],
        });
        let mut bus = bus.expect("enter");
        assert_eq!(bus.stop_unit("u.scope").expect("stop"), "timeout");
        drop(bus);
        server.join().expect("server");
    }

    #[test]
    fn a_systemd_that_is_not_on_the_bus_yet_is_waited_for() {
        let asked = std::sync::atomic::AtomicU32::new(0);
        let (bus, server) = peer(true, move |call| match call.member.as_deref() {
            Some("GetNameOwner") if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 => {
                let error = Some(NO_OWNER.to_owned());
                vec![Message { kind: Kind::Error, error, ..reply(call, vec![Value::str("no such name")]) }]
            }
            Some("GetNameOwner") => vec![reply(call, vec![Value::str(":1.1")])],
            _ => vec![reply(call, Vec::new())],
        });
        assert_eq!(bus.expect("enter").owner.as_deref(), Some(":1.1"));
        server.join().expect("server");
    }

    #[test]
    fn errors_carry_systemds_name_and_words_and_answers_their_type() {
        let (bus, server) = peer(false, |call| match call.member.as_deref() {
            Some("Get") => vec![reply(call, vec![Value::U32(7)])],
            _ => {
                let error = Some("org.freedesktop.systemd1.NoSuchUnit".to_owned());
                vec![Message { kind: Kind::Error, error, ..reply(call, vec![Value::str("Unit x not loaded.")]) }]
            }
        });
        let mut bus = bus.expect("enter");
        let error = bus.stop_unit("x").expect_err("no such unit");
        assert!(error.is_named("org.freedesktop.systemd1.NoSuchUnit"));
        assert!(error.to_string().contains("Unit x not loaded."), "{error}");
        assert!(matches!(bus.manager_property("Version"), Err(BusError::Unexpected("Get"))));
        drop(bus);
        server.join().expect("server");
    }

    #[test]
    fn addresses_name_a_socket_by_its_path() {
        assert_eq!(socket_of("unix:path=/run/user/1000/bus"), Some("/run/user/1000/bus".into()));
        assert_eq!(socket_of("tcp:host=x;unix:guid=1,path=/a%20b"), Some("/a b".into()));
        for none in ["", "unix:abstract=/x", "unix:path=x", "unix:path=/%zz", "unix:path=/%", "unix:path=/%4"] {
            assert_eq!(socket_of(none), None, "{none}");
        }
    }

    #[test]
    fn the_outside_uid_is_looked_up_in_the_mapping() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!([0, 1, 65_536].map(|uid| outside_uid(map, uid)), [1000, 100_000, 165_535]);
        assert_eq!(outside_uid("", 7), 7);
        assert_eq!(outside_uid("0 0 4294967295\n", 7), 7);
    }
}

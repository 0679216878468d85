//! The guest's side: this program on the payload's disk, started by a systemd unit as root.
//!
//! It puts the payload's trees where the host has them, does the job and says on the second serial line how it
//! went. The unit powers the machine off when it ends. It must never run outside of the guest.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use super::protocol::{Event, Job, Test, Work};
use crate::{Outcome, leaks};

/// Hidden verb of this program.
pub(crate) const VERB: &str = "__vm-guest";

const PAYLOAD: &str = "/payload";
const SWAP: &str = "/dev/vdc";
const LINE: &str = "/dev/ttyS1";

/// A test may take this long; everything is some twenty times slower here.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// What the ordinary user's systemd may take to come to his bus.
const USERS_BUS: Duration = Duration::from_secs(120);

/// As many tests at a time as there are processors.
const JOBS: usize = 2;

/// Does the job.
pub(crate) fn main(_args: &[String]) -> Outcome {
    let text = fs::read_to_string(format!("{PAYLOAD}/job.json")).map_err(|e| format!("read the job: {e}"))?;
    let job = Job::from_json(&serde_json::from_str(&text).map_err(|e| format!("read the job: {e}"))?)?;
    for path in &job.mounts {
        bind(path)?;
    }
    for make in [["mkswap", "--quiet", SWAP], ["swapon", "--discard", SWAP]] {
        crate::process::run_quietly(Command::new(make[0]).args(&make[1..]))?;
    }
    if job.work == Work::Shell {
        return shell(&job);
    }
    let serial = Serial::open()?;
    if matches!(job.work, Work::Tests(_)) {
        users_bus()?;
    }
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    serial.say(&Event::Ready { uptime: uptime.split(' ').next().unwrap_or_default().to_owned() });
    let code = match &job.work {
        Work::Tests(tests) => run_all(&serial, &job, tests),
        Work::Command(command) => run_one(&serial, &job, command),
        Work::Shell => 0,
    };
    serial.say(&Event::Done { code });
    serial.drain();
    Ok(())
}

/// Waits for the ordinary user's systemd on his bus: it comes there a moment after somebody's first word on it, and
/// the first test that asks would not find it.
fn users_bus() -> Outcome {
    let start = Instant::now();
    while start.elapsed() < USERS_BUS {
        let mut ask = Command::new("setpriv");
        ask.args(["--reuid=1000", "--regid=1000", "--init-groups", "busctl", "--user", "status"]);
        ask.arg("org.freedesktop.systemd1").env("XDG_RUNTIME_DIR", "/run/user/1000");
        let answer = ask.stdin(Stdio::null()).output().map_err(|e| format!("start setpriv: {e}"))?;
        if answer.status.success() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Err(format!("the ordinary user's systemd is not on his bus after {USERS_BUS:?}"))
}

/// The line to the host.
struct Serial(Mutex<File>);

impl Serial {
    fn open() -> Outcome<Serial> {
        stty(&["raw", "-echo"])?;
        let file = File::options().write(true).open(LINE).map_err(|e| format!("open {LINE}: {e}"))?;
        Ok(Serial(Mutex::new(file)))
    }

    /// A line that cannot be written has nobody to be reported to; the host notices the silence.
    fn say(&self, event: &Event) {
        if let Ok(mut file) = self.0.lock() {
            let _ = file.write_all(event.to_line().as_bytes());
        }
    }

    /// Waits until the last byte is out: the machine is powered off next. `stty` does that before it changes
    /// anything.
    fn drain(&self) {
        let _ = stty(&["raw", "-echo"]);
    }
}

fn stty(settings: &[&str]) -> Outcome {
    let status = Command::new("stty").args(["-F", LINE]).args(settings).status();
    if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("stty -F {LINE} failed")) }
}

fn bind(path: &str) -> Outcome {
    fs::create_dir_all(path).map_err(|e| format!("make directory {path}: {e}"))?;
    let mut mount = Command::new("mount");
    mount.args(["--bind", &format!("{PAYLOAD}/tree{path}"), path]);
    crate::process::run_quietly(&mut mount)
}

fn shell(job: &Job) -> Outcome {
    stty(&["sane"])?;
    let open = |options: &mut fs::OpenOptions| options.open(LINE).map_err(|e| format!("open {LINE}: {e}"));
    let input = open(File::options().read(true))?;
    let output = open(File::options().write(true))?;
    let error = output.try_clone().map_err(|e| format!("open {LINE}: {e}"))?;
    // setsid makes the serial line its controlling terminal, so that ^C works.
    let mut shell = Command::new("setsid");
    shell.args(["--ctty", "--wait", "bash", "-i"]).envs(job.env.iter().cloned()).env("TERM", "vt100");
    shell.current_dir("/root").stdin(input).stdout(output).stderr(error);
    shell.status().map(|_| ()).map_err(|e| format!("start a shell: {e}"))
}

fn run_one(serial: &Serial, job: &Job, command: &[String]) -> i32 {
    let mut shell = Command::new("sh");
    // The shell joins the two streams in the order in which they were written.
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).args(command).envs(job.env.iter().cloned()).current_dir("/root");
    let mut child = match shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            serial.say(&Event::Output { text: format!("start {command:?}: {error}\n") });
            return 127;
        }
    };
    let mut buffer = [0; 4096];
    while let Some(stdout) = &mut child.stdout {
        match stdout.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => serial.say(&Event::Output { text: String::from_utf8_lossy(&buffer[..n]).into_owned() }),
        }
    }
    child.wait().map_or(127, code_of)
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn run_all(serial: &Serial, job: &Job, tests: &[Test]) -> i32 {
    let before = leaks::Snapshot::take();
    let queue: Mutex<VecDeque<&Test>> = Mutex::new(tests.iter().collect());
    let next = || queue.lock().ok().and_then(|mut queue| queue.pop_front());
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(test) = next() {
                    serial.say(&Event::Started { test: test.label() });
                    serial.say(&run_test(job, test));
                }
            });
        }
    });
    match leaks::nothing_added_since(&before) {
        Ok(()) => 0,
        Err(text) => {
            serial.say(&Event::Leaked { text });
            1
        }
    }
}

fn run_test(job: &Job, test: &Test) -> Event {
    let start = Instant::now();
    let (passed, output) = match try_test(job, test) {
        Ok(ended) => ended,
        Err(message) => (false, message),
    };
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Event::Ended { test: test.label(), passed, millis, output }
}

/// Runs one test in a process group of its own; what a killed one has left in there goes with it.
fn try_test(job: &Job, test: &Test) -> Outcome<(bool, String)> {
    let log = Path::new("/run").join(format!("test-{:?}.log", thread::current().id()));
    let file = File::create(&log).map_err(|e| format!("create {}: {e}", log.display()))?;
    let error = file.try_clone().map_err(|e| format!("create {}: {e}", log.display()))?;
    let mut command = Command::new(&test.binary);
    command.args(["--exact", &test.name, "--nocapture", "--test-threads", "1"]);
    command.envs(job.env.iter().cloned()).env("CARGO_MANIFEST_DIR", &test.package_dir).current_dir(&test.package_dir);
    command.stdin(Stdio::null()).stdout(file).stderr(error).process_group(0);
    let mut child = command.spawn().map_err(|e| format!("start {}: {e}", test.binary))?;
    let status = wait(&mut child)?;
    let mut output = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let ran = output.contains("test result: ok. 1 passed");
    let passed = match status {
        Some(status) if status.success() && ran => true,
        Some(status) => {
            output.push_str(&format!("\nended with {status}"));
            false
        }
        None => {
            output.push_str(&format!("\nended after {PATIENCE:?}"));
            false
        }
    };
    Ok((passed, output))
}

/// Waits within bounds; `None` when the test had to be ended.
fn wait(child: &mut Child) -> Outcome<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|e| format!("wait for the test: {e}"))? {
            return Ok(Some(status));
        }
        if start.elapsed() > PATIENCE {
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

//! The virtual machine: starting qemu, following what the guest says, never waiting for ever.
//!
//! ```text
//! ttyS0   kernel and systemd       target/vm/console.log, shown when the machine dies
//! ttyS1   protocol.rs              qemu's standard output
//! vda     the guest's disk         a snapshot: what the guest writes goes away with it
//! vdb     the payload              read-only
//! vdc     swap                     a snapshot of a sparse file
//! vdd …   further ones             where there are some
//! ```

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use super::{monitor, payload::Payload, protocol::Event, rootfs::Image};
use crate::{Outcome, build, process::line, test::Counts};

/// The guest says something at each test's start and end, and a test is ended after [`super::guest::PATIENCE`]. Booting
/// takes half a minute of two processors, and as many times longer as others want them.
const SILENCE: Duration = Duration::from_secs(600);

/// How long a guest that was interrupted may take to write what it was doing.
const LAST_WORDS: Duration = Duration::from_secs(90);
const SECOND: Duration = Duration::from_secs(1);
/// How many lines of that are shown; the console's log has all.
const CONFESSION: usize = 400;

/// A kernel with working hardware support is up in a second.
const PROBE: Duration = Duration::from_secs(10);

/// How exactly the moment of a cut is met.
const TICK: Duration = Duration::from_millis(2);

/// How many of the slowest tests are named.
const SLOWEST: usize = 12;

/// What the guest may use.
const MEMORY: &str = "2048";
const CPUS: &str = "2";

/// An emulated processor without what is dear to emulate and what no test is about: a fifth level of page tables
/// (each miss of the emulator's address cache walks them all), access prevention of user memory (each copy from and to
/// a program ends a translated block twice), protection keys, and string instructions that are called fast (each byte
/// is an iteration, where plain stores move sixteen).
const EMULATED: &str = "max,la57=off,smap=off,smep=off,umip=off,pku=off,erms=off,fsrm=off";

/// For the emulated processor: its string instructions are slow, and its clock, which is the host's, needs no watching
/// (the kernel would take one whose every reading leaves the translated code). Grace periods are not waited for
/// tick by tick: namespaces and groups come and go all the time.
const EMULATED_OPTIONS: &str = "clearcpuid=rep_good tsc=reliable rcupdate.rcu_expedited=1";

/// Runs the payload's tests; prints each that fails.
pub(super) fn run_tests(image: &Image, payload: &Payload) -> Outcome<Counts> {
    println!("{} tests", payload.tests);
    let mut tally = Tally::default();
    let code = match follow(image, payload, |event| tally.take(event)) {
        Ok(code) => code,
        // An emulator may fail too; a guest that a test has brought down falls twice.
        Err(e) => {
            println!("{e}\nThe machine failed, not a test of it: all once more.");
            tally = Tally::default();
            follow(image, payload, |event| tally.take(event))?
        }
    };
    let seen = tally.passed + tally.failed;
    if seen as usize != payload.tests {
        return Err(format!("only {seen} of {} tests were reported", payload.tests));
    }
    for (millis, name) in &tally.slowest {
        println!("{:>7.1} s {name}", Duration::from_millis(*millis).as_secs_f64());
    }
    for name in &tally.failures {
        println!("FAILED in the VM: {name}");
    }
    if code != 0 && tally.failed == 0 {
        return Err("the guest was not left as it was found".to_owned());
    }
    Ok(Counts::of(tally.passed, tally.failed))
}

/// Runs the payload's command with its output on ours; returns that too.
pub(super) fn run_command(image: &Image, payload: &Payload) -> Outcome<String> {
    let mut all = String::new();
    let code = follow(image, payload, |event| {
        if let Event::Output { text } = event {
            print!("{text}");
            all.push_str(&text);
        }
    })?;
    if code == 0 { Ok(all) } else { Err(format!("the command ended with {code}")) }
}

/// Boots, and when the payload's command has said `ready`, has the rest done.
pub(super) fn when(image: &Image, payload: &Payload, ready: &str, rest: impl FnOnce() -> Outcome) -> Outcome {
    let (mut child, lines) = start(image, payload)?;
    let mut said = String::new();
    while !said.contains(ready) {
        match lines.recv_timeout(SILENCE) {
            Ok(text) => {
                if let Some(Event::Output { text }) = Event::from_line(&text) {
                    said.push_str(&text);
                }
            }
            Err(_) => return Err(format!("the guest did not say \"{ready}\"\n{said}\n{}", tail(&payload.console))),
        }
    }
    rest()?;
    child.0.wait().map_err(|e| format!("wait for qemu: {e}")).map(drop)
}

/// Boots, and kills the machine as soon as `due` says so, which is asked again and again with what the payload's command
/// has said; returns that. A command that ends by itself is not killed.
pub(super) fn cut(image: &Image, payload: &Payload, mut due: impl FnMut(&str) -> Outcome<bool>) -> Outcome<String> {
    let (mut child, lines) = start(image, payload)?;
    let (mut said, mut heard, mut killed) = (String::new(), Instant::now(), false);
    loop {
        match lines.recv_timeout(TICK) {
            Ok(text) => {
                heard = Instant::now();
                if let Some(Event::Output { text }) = Event::from_line(&text) {
                    said.push_str(&text);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(said),
            Err(RecvTimeoutError::Timeout) if heard.elapsed() > SILENCE => {
                return Err(format!("the guest said nothing for {SILENCE:?}\n{said}\n{}", tail(&payload.console)));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if !killed && due(&said)? {
            child.0.kill().map_err(|e| format!("kill qemu: {e}"))?;
            // What it had said before still counts.
            killed = true;
        }
    }
}

/// Gives the terminal to the guest until it powers off.
pub(super) fn shell(image: &Image, payload: &Payload) -> Outcome {
    println!("starting; the shell comes in half a minute, `exit` powers off");
    let mut qemu = qemu(image, payload);
    let status = qemu.status().map_err(|e| format!("start {}: {e}", line(&qemu)))?;
    if status.success() { Ok(()) } else { Err(format!("qemu ended with {status}")) }
}

/// What the tests' events add up to.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    failures: Vec<String>,
    slowest: Vec<(u64, String)>,
}

impl Tally {
    fn take(&mut self, event: Event) {
        if let Event::Ended { test, millis, .. } = &event {
            self.slowest.push((*millis, test.clone()));
            self.slowest.sort_by(|one, other| other.cmp(one));
            self.slowest.truncate(SLOWEST);
        }
        match event {
            Event::Ready { uptime } => println!("the guest is up after {uptime} s of its own time"),
            Event::Ended { passed: true, .. } => self.passed += 1,
            Event::Ended { test, passed: false, millis, output } => {
                self.failed += 1;
                println!("--- FAILED in the VM after {millis} ms: {test}\n{}\n---", output.trim_end());
                self.failures.push(test);
            }
            Event::Leaked { text } => println!("the tests left something behind in the guest: {text}"),
            Event::Output { text } => print!("{text}"),
            Event::Started { .. } | Event::Done { .. } => {}
        }
    }
}

/// Boots, hands every event on, and returns the code with which the guest's work ended.
fn follow(image: &Image, payload: &Payload, mut take: impl FnMut(Event)) -> Outcome<i32> {
    println!("$ {}", line(&qemu(image, payload)));
    let (mut child, lines) = start(image, payload)?;
    let mut code = None;
    let mut last = "boot".to_owned();
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(text) => match Event::from_line(&text) {
                Some(Event::Done { code: done }) => code = Some(done),
                Some(event) => {
                    if let Event::Started { test } = &event {
                        last.clone_from(test);
                    }
                    take(event);
                }
                None => println!("{text}"),
            },
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let found = examine(&lines, payload);
                return Err(format!("the guest said nothing for {SILENCE:?} after: {last}\n{found}"));
            }
        }
    }
    let status = child.0.wait().map_err(|e| format!("wait for qemu: {e}"))?;
    code.ok_or_else(|| format!("the guest died ({status}) after: {last}\n{}", tail(&payload.console)))
}

/// What can be found out about a guest that says nothing; the machine ends by it if the guest's kernel still works.
fn examine(lines: &Receiver<String>, payload: &Payload) -> String {
    let asked = payload.monitor().ok_or("no path for qemu's monitor".to_owned()).and_then(|at| monitor::interrupt(&at));
    let found = asked.unwrap_or_else(|e| e);
    let start = Instant::now();
    while start.elapsed() < LAST_WORDS && !matches!(lines.recv_timeout(SECOND), Err(RecvTimeoutError::Disconnected)) {}
    format!("{found}\n{}", end_of(&payload.console, CONFESSION))
}

/// The machine, and what it says line by line.
fn start(image: &Image, payload: &Payload) -> Outcome<(Running, Receiver<String>)> {
    let mut qemu = qemu(image, payload);
    let spawned = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = Running(spawned.map_err(|e| format!("start {}: {e}", line(&qemu)))?);
    let lines = lines_of(child.0.stdout.take().ok_or("qemu's output is not a pipe")?);
    Ok((child, lines))
}

/// A started machine, which does not outlive this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&bytes).trim_end().to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn tail(console: &Path) -> String {
    end_of(console, 40)
}

fn end_of(console: &Path, count: usize) -> String {
    let text = fs::read(console).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    format!("the end of {}:\n{}", console.display(), lines[from..].join("\n"))
}

fn qemu(image: &Image, payload: &Payload) -> Command {
    let (accelerator, cpu, more) = if kvm_works(image) {
        ("kvm", "max", "")
    } else {
        ("tcg,thread=multi,tb-size=512", EMULATED, EMULATED_OPTIONS)
    };
    let mut qemu = base(image, accelerator, cpu);
    qemu.args(["-smp", CPUS, "-m", MEMORY]);
    // Debian's kernel uses pure version 2 and AppArmor unless told otherwise; huge pages are for their controller.
    // The kernel panics when the timer, emulated on a busy host, misses its first ticks; it need not look.
    let timer = "no_timer_check";
    let telling = monitor::TELLING;
    let options = format!(
        "console=ttyS0 quiet panic=-1 mitigations=off hugepages=16 swapaccount=1 onggi.guest {timer} {more} {telling}"
    );
    qemu.args(["-append", &options]);
    qemu.arg("-serial").arg(format!("file:{}", payload.console.display()));
    qemu.args(["-serial", "stdio"]);
    qemu.args(payload.monitor().iter().flat_map(|at| monitor::arguments(at)));
    let extra = &payload.extra;
    let kept = if extra.lasting { "off" } else { "on" };
    let root = extra.root.clone().unwrap_or_else(|| image.dir.join("rootfs.ext4"));
    qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot={kept}", root.display()));
    qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,readonly=on", payload.disk.display()));
    qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot={kept}", payload.swap.display()));
    for drive in &extra.drives {
        qemu.arg("-drive").arg(drive);
    }
    qemu.args(&extra.arguments);
    qemu
}

fn base(image: &Image, accelerator: &str, cpu: &str) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"]);
    qemu.args(["-cpu", cpu, "-accel", accelerator]);
    qemu.arg("-kernel").arg(image.dir.join("vmlinuz")).arg("-initrd").arg(image.dir.join("initrd"));
    qemu
}

/// True when a guest runs with hardware support. On some machines `/dev/kvm` is there and a guest hangs in its
/// first instructions, so one is started: without disks our initrd powers off at once. The answer is kept until
/// the next boot of this machine.
pub(super) fn kvm_works(image: &Image) -> bool {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = build::target_dir().join(format!("vm/kvm-{}", boot.trim()));
    if let Ok(known) = fs::read_to_string(&answer) {
        return known == "yes";
    }
    let works = probe(image);
    println!("hardware support for virtual machines: {}", if works { "used" } else { "does not work, emulating" });
    // An answer that cannot be kept is found again next time.
    let _ = fs::write(&answer, if works { "yes" } else { "no" });
    works
}

fn probe(image: &Image) -> bool {
    let mut qemu = base(image, "kvm", "max");
    qemu.args(["-m", "256", "-append", "quiet panic=-1 no_timer_check"]);
    let started = qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(child) = started else { return false };
    let mut child = Running(child);
    let start = Instant::now();
    while start.elapsed() < PROBE {
        match child.0.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(_) => return false,
        }
    }
    false
}

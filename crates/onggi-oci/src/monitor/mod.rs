//! The monitor: one small process per running container, the parent of its first process.
//!
//! `onggi-oci monitor --bundle DIR --report-fd N [--client-fd N] [--netns-fd N] [--lock-fd N]`, started by the engine in
//! a session of its own. It reports once whether the workload runs, then owns its stdio: writes the log,
//! serves attach clients, waits for the end, records it and cleans up. It lives as long as the container,
//! so it must stay tiny: JSON is parsed, and the sandbox is made, by a short-lived *starter* process that
//! hands the result over as one flat message ([`handover`]). It must never block on a client and never die
//! of a full disk. If it is killed, the kernel kills the workload (PR_SET_PDEATHSIG) and frees the lock.
//!
//! ```text
//! <run_dir>/monitor.lock   flocked for as long as the monitor lives; never removed by it
//! <run_dir>/monitor.pid    its pid
//! <run_dir>/attach.sock    attach clients, mode 0600; frames of onggi_spec::attach
//! ```

mod attach;
mod clock;
mod confine;
mod encode;
mod exit;
mod frame;
mod handover;
mod lines;
mod log;
mod queue;
mod report;
mod serve;
mod start;
mod stdin;
mod stream;

use std::{
    ffi::OsString,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use onggi_sys::{
    process::{CloneRequest, Cloned, clone_process},
    resident::Region,
    spawn::take_inherited,
    unix,
};

use handover::{Handover, MAX_MESSAGE};
use serve::{Descriptors, End, Resources};
use start::Inherited;

/// Names in the container's runtime directory.
const LOCK_FILE: &str = "monitor.lock";
const PID_FILE: &str = "monitor.pid";
const ATTACH_SOCKET: &str = "attach.sock";

/// Exit code of a monitor that did not get a workload to run.
const FAILED: i32 = 125;

/// What the command line asks.
#[derive(Debug)]
struct Options {
    bundle: PathBuf,
    report: OwnedFd,
    client: Option<OwnedFd>,
    inherited: Inherited,
}

/// Runs the monitor with the arguments after `monitor`. Returns its exit code, unless it ends as the exit
/// command.
pub(crate) fn run(args: &[OsString]) -> i32 {
    match parse(args) {
        Ok(options) => supervise(options),
        Err(text) => {
            // The only message on stderr: without a report descriptor there is no other way.
            let _ = std::io::stderr().write_all(text.as_bytes());
            FAILED
        }
    }
}

const USAGE: &str = "onggi-oci monitor: expected --bundle DIR --report-fd N [--client-fd N] [--netns-fd N] \
    [--lock-fd N]\n";

fn parse(args: &[OsString]) -> Result<Options, String> {
    let (mut bundle, mut report, mut client, mut netns, mut lock) = (None, None, None, None, None);
    for pair in args.chunks(2) {
        let [name, value] = pair else { return Err(USAGE.to_owned()) };
        match name.to_str() {
            Some("--bundle") => bundle = Some(PathBuf::from(value)),
            Some("--report-fd") => report = Some(descriptor(value)?),
            Some("--client-fd") => client = Some(descriptor(value)?),
            Some("--netns-fd") => netns = Some(descriptor(value)?),
            Some("--lock-fd") => lock = Some(descriptor(value)?),
            _ => return Err(USAGE.to_owned()),
        }
    }
    match (bundle, report) {
        (Some(bundle), Some(report)) => Ok(Options { bundle, report, client, inherited: Inherited { netns, lock } }),
        _ => Err(USAGE.to_owned()),
    }
}

fn descriptor(value: &OsString) -> Result<OwnedFd, String> {
    let number = value.to_str().and_then(|v| v.parse().ok()).ok_or(USAGE)?;
    take_inherited(number).map_err(|e| format!("onggi-oci monitor: descriptor {number}: {e}\n"))
}

fn supervise(options: Options) -> i32 {
    let Options { bundle, report, client, inherited } = options;
    let prepared = Resources::prepare().and_then(|r| Ok((r, Region::new(MAX_MESSAGE)?, unix::pair()?)));
    let (resources, mut message, (ours, theirs)) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return give_up(report, "prepare the monitor", &error),
    };
    let monitor = rustix::process::getpid();
    let starter = match clone_process(CloneRequest::default()) {
        Ok(Cloned::Child) => {
            drop((ours, report, client));
            start::run(&bundle, inherited, theirs, monitor)
        }
        Ok(Cloned::Parent { pidfd, .. }) => pidfd,
        Err(error) => return give_up(report, "start the starter", &error),
    };
    drop((theirs, inherited));
    let (len, fds) = receive(&ours, &mut message);
    // The starter has nothing left to do; its status says no more than its message.
    let _ = onggi_sys::process::wait_pidfd(starter.as_fd());
    drop((starter, ours));
    match handover::read(&message[..len]) {
        Some(handover) if handover.started => match Descriptors::from_list(&handover, fds) {
            Some(fds) => keep(&handover, fds, report, client, resources),
            None => starter_died(report),
        },
        Some(handover) => {
            // Who hears the report cleans up.
            if !report::send(report, handover.report) {
                exit::become_exit_command(handover.exit_command);
            }
            FAILED
        }
        None => starter_died(report),
    }
}

/// Looks after a running workload to the end.
fn keep(
    handover: &Handover<'_>,
    fds: Descriptors,
    report: OwnedFd,
    client: Option<OwnedFd>,
    resources: Resources,
) -> i32 {
    let ordinary = resist_oom_killer();
    confine::confine();
    report::send(report, handover.report);
    // A failure of the kernel's event calls: ending here ends the workload, and the clean-up must follow.
    let end = serve::serve(handover, fds, client, resources).unwrap_or(End::Unattended);
    if end == End::Unattended {
        // The command may start a container again, which must not be spared.
        if let Some(score) = ordinary {
            let _ = std::fs::write(OOM_SCORE, score);
        }
        exit::become_exit_command(handover.exit_command);
    }
    0
}

/// Receives the starter's message, or as much as it managed to send.
fn receive(channel: &OwnedFd, message: &mut Region) -> (usize, Vec<OwnedFd>) {
    let (mut len, mut fds) = (0, Vec::with_capacity(unix::MAX_FDS));
    while len < message.len() {
        match unix::recv_with_fds(channel.as_fd(), &mut message[len..], &mut fds) {
            Ok(n) if n > 0 => len += n,
            _ => break,
        }
    }
    (len, fds)
}

fn give_up(report: OwnedFd, step: &str, error: &onggi_sys::SysError) -> i32 {
    report::send(report, &report::failed(&start::failure(step, error)));
    FAILED
}

fn starter_died(report: OwnedFd) -> i32 {
    report::send(report, &report::failed(&start::interrupted()));
    FAILED
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// The workload dies with its monitor, so the monitor should be the last to be chosen. Returns the score
/// from before; without the privilege nothing changes.
fn resist_oom_killer() -> Option<Vec<u8>> {
    let before = std::fs::read(OOM_SCORE).ok()?;
    std::fs::write(OOM_SCORE, "-999").ok().map(|()| before)
}

//! `start`: releases a created container's program and hears from it whether exec succeeded.
//!
//! The two meet in FIFOs and not in a socket: the waiting process is under its seccomp filter already and must
//! not need more than read(2) and write(2). fifo(7).

use std::{
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::Path,
};

use onggi_spec::{
    monitor::SandboxState,
    oci::runtime::{ContainerState, Hook},
};
use onggi_sys::{Errno, SysContext};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::{
    channel::{Channel, Message},
    child::StartEnds,
    error::{Result, StartFailureError, Step},
    hooks,
    state::{self, StateDir},
};

/// Makes the FIFOs in a directory that only the owner can enter.
pub(crate) fn make_ends(dir: &StateDir) -> Result<StartEnds> {
    let make = |at: &Path| {
        rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .sys("mkfifo", || format!("{at:?}"))?;
        open(at, OFlags::RDWR)
    };
    let step = || "make the start FIFOs".to_string();
    let answers = dir.answer_fifo();
    if let Some(parent) = answers.parent() {
        std::fs::DirBuilder::new().mode(0o700).create(parent).sys("mkdir", || format!("{parent:?}")).step(step)?;
    }
    Ok(StartEnds { go: make(&dir.start_fifo()).step(step)?, answer: make(&answers).step(step)? })
}

fn open(at: &Path, flags: OFlags) -> onggi_sys::Result<std::os::fd::OwnedFd> {
    rustix::fs::open(at, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).sys("open", || format!("{at:?}"))
}

/// Starts the program of a created container; returns what was kept as it was.
///
/// # Errors
/// The container is not in the created state, or its program could not be executed.
pub fn start(state_root: &Path, id: &str) -> Result<Vec<String>> {
    let dir = StateDir::of(state_root, id)?;
    let mut state = dir.load()?;
    // runc's words.
    let refuse = |text: String| Err(StartFailureError::new(text));
    match dir.status(&state) {
        ContainerState::Created => {}
        ContainerState::Running => return refuse("cannot start an already running container".into()),
        ContainerState::Stopped => return refuse("cannot start a container that has stopped".into()),
        other => {
            let now = format!("{other:?}").to_lowercase();
            return refuse(format!("cannot start a container in the {now} state"));
        }
    }
    let answer = release(&dir)?;
    let notes = follow(&answer).inspect_err(|e| {
        if e.0.step.starts_with("error running startContainer hook") {
            destroy(state_root, id);
        }
    })?;
    let _ = std::fs::remove_file(dir.answer_fifo());
    state.started = true;
    dir.save(&state)?;
    run_poststart(&state, &dir.hooks().poststart).inspect_err(|_| destroy(state_root, id))?;
    Ok(notes)
}

/// Runs the poststart hooks once the program has begun. A failure ends the container (runtime.md, "Lifecycle",
/// step 9).
pub(crate) fn run_poststart(state: &SandboxState, list: &[Hook]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let bytes = state::for_hooks(state, ContainerState::Running)?;
    let bundle = hooks::bundle_directory(&state.bundle);
    let directory = bundle.as_ref().map(AsFd::as_fd);
    hooks::run_all(hooks::Stage { kind: "poststart", state: &bytes, environment: None, directory }, list)
}

/// After a hook that failed "the lifecycle continues at step 12": the container is destroyed and its poststop hooks
/// run. The first failure is what is reported.
fn destroy(state_root: &Path, id: &str) {
    let _ = crate::lifecycle::delete(state_root, id, true);
}

/// Says go; returns where the answer comes. Of several starts at once the one that removes the name wins.
fn release(dir: &StateDir) -> Result<Channel> {
    let step = || "reach the waiting container".to_string();
    // Without a reader, which is the waiting process, this is ENXIO.
    let go = open(&dir.start_fifo(), OFlags::WRONLY | OFlags::NONBLOCK).map_err(|e| {
        let failure = StartFailureError::from_sys(step(), &e);
        match e.errno {
            Errno::NXIO => failure.hint("its first process has died"),
            Errno::NOENT => failure.hint("it is being started already"),
            _ => failure,
        }
    })?;
    let answer = open(&dir.answer_fifo(), OFlags::RDONLY | OFlags::NONBLOCK).step(step)?;
    let flags = rustix::fs::fcntl_getfl(&answer).sys("fcntl", || "F_GETFL").step(step)?;
    rustix::fs::fcntl_setfl(&answer, flags - OFlags::NONBLOCK).sys("fcntl", || "F_SETFL").step(step)?;
    let name = dir.start_fifo();
    std::fs::remove_file(&name).sys("unlink", || format!("{name:?}")).step(step)?;
    // A packet, not a frame: the other side reads it at once.
    Channel::from_socket(go).send(&Message::Go)?;
    Ok(Channel::from_fifo(answer))
}

/// Listens until exec has closed the channel.
pub(crate) fn follow(channel: &Channel) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let mut executing = false;
    loop {
        match channel.receive()? {
            Some(Message::Note(text)) => notes.push(text),
            Some(Message::Executing) => executing = true,
            Some(Message::Failed(failure)) => return Err(StartFailureError(failure)),
            Some(_) => {}
            None if executing => return Ok(notes),
            None => return Err(StartFailureError::new("the container's first process died before its program ran")),
        }
    }
}

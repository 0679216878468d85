//! `start`: releases a created container's program and hears from it whether exec succeeded.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use onggi_spec::{
    monitor::SandboxState,
    oci::runtime::{ContainerState, Hook},
};
use onggi_sys::SysContext;
use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::{
    channel::{Channel, Message},
    error::{Result, StartFailureError, Step},
    hooks,
    state::{self, StateDir},
};

/// A socket's address is limited to 108 bytes, so it is named through the descriptor of its directory.
fn address(dir: &OwnedFd, name: &str) -> onggi_sys::Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    SocketAddrUnix::new(path.as_str()).sys("bind", || path.clone())
}

fn socket() -> onggi_sys::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .sys("socket", || "AF_UNIX, SOCK_SEQPACKET")
}

/// Listens at `name` in a directory that only the owner can enter.
pub(crate) fn listen(dir: &OwnedFd, name: &str) -> onggi_sys::Result<OwnedFd> {
    let fd = socket()?;
    rustix::net::bind(&fd, &address(dir, name)?).sys("bind", || format!("{name:?}"))?;
    rustix::net::listen(&fd, 1).sys("listen", || format!("{name:?}"))?;
    Ok(fd)
}

/// Starts the program of a created container; returns what poststart hooks had to complain about.
///
/// # Errors
/// The container is not in the created state, or its program could not be executed.
pub fn start(state_root: &Path, id: &str) -> Result<Vec<String>> {
    let dir = StateDir::of(state_root, id)?;
    let mut state = dir.load()?;
    // runc's words.
    let refuse = |text: String| Err(StartFailureError::new(text));
    match state::status(&state) {
        ContainerState::Created => {}
        ContainerState::Running => return refuse("cannot start an already running container".into()),
        ContainerState::Stopped => return refuse("cannot start a container that has stopped".into()),
        other => {
            let now = format!("{other:?}").to_lowercase();
            return refuse(format!("cannot start a container in the {now} state"));
        }
    }
    let channel = connect(&dir)?;
    // One start at a time can have been accepted; the name is not needed any more.
    let _ = std::fs::remove_file(dir.start_socket());
    channel.send(&Message::Go)?;
    let mut notes = follow(&channel)?;
    state.started = true;
    dir.save(&state)?;
    notes.extend(run_poststart(&state, &dir.hooks().poststart)?);
    Ok(notes)
}

/// Runs the poststart hooks once the program has begun; returns their complaints.
pub(crate) fn run_poststart(state: &SandboxState, hooks: &[Hook]) -> Result<Vec<String>> {
    if hooks.is_empty() {
        return Ok(Vec::new());
    }
    let shown = state::oci_state(state, ContainerState::Running);
    let bytes =
        serde_json::to_vec(&shown).map_err(|e| StartFailureError::new(format!("encode the state for hooks: {e}")))?;
    Ok(hooks::run_all_lenient("poststart", hooks, &bytes))
}

fn connect(dir: &StateDir) -> Result<Channel> {
    let step = || "connect to the waiting container".to_string();
    let at = rustix::fs::open(&dir.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .sys("open", || format!("{:?}", dir.path))
        .step(step)?;
    let fd = socket().step(step)?;
    let to = address(&at, "start.sock").step(step)?;
    rustix::net::connect(&fd, &to).sys("connect", || "start.sock").step(step)?;
    Ok(Channel::from_fd(fd))
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

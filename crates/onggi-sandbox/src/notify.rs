//! The agent that `SCMP_ACT_NOTIFY` asks: it is given the filter's listener before the program runs.
//! config-linux.md "Seccomp", "The Container Process State"; seccomp_unotify(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use onggi_spec::oci::runtime::{ContainerProcessState, LinuxSeccomp, OCI_VERSION, State};
use onggi_sys::{SysContext, SysError, fs::write_all};
use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
    process::PidfdGetfdFlags,
};

use crate::{
    channel,
    error::{Result, StartFailureError},
};

/// Sends the listener of process `pid` with the container's state to the policy's agent, over a connection of
/// its own.
pub(crate) fn hand_over(policy: Option<&LinuxSeccomp>, pid: i32, state: State, listener: &OwnedFd) -> Result<()> {
    let Some(policy) = policy else {
        return Err(StartFailureError::new("a seccomp listener came from a process without a policy"));
    };
    let path = policy.listener_path.as_deref().unwrap_or_default();
    let message = ContainerProcessState {
        oci_version: OCI_VERSION.into(),
        fds: vec!["seccompFd".into()],
        pid,
        metadata: policy.listener_metadata.clone(),
        state,
    };
    let json = serde_json::to_vec(&message)
        .map_err(|e| StartFailureError::new(format!("encode the state for the seccomp agent: {e}")))?;
    let failed = |what: &str, e: &SysError| {
        StartFailureError::from_sys(format!("failed to {what} seccomp agent specified in the seccomp profile"), e)
            .hint(format!("linux.seccomp.listenerPath is {path:?}; is the agent running?"))
    };
    let socket = connect(path).map_err(|e| failed("connect with", &e))?;
    send(socket.as_fd(), &json, listener.as_fd()).map_err(|e| failed("send to", &e))
}

fn connect(path: &str) -> onggi_sys::Result<OwnedFd> {
    let what = || format!("{path:?}");
    let address = SocketAddrUnix::new(path).sys("connect", what)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .sys("socket", || "AF_UNIX, SOCK_STREAM")?;
    rustix::net::connect(&socket, &address).sys("connect", what)?;
    Ok(socket)
}

/// The descriptor goes with the first bytes; a long state takes more than one call.
fn send(socket: BorrowedFd<'_>, json: &[u8], listener: BorrowedFd<'_>) -> onggi_sys::Result<()> {
    let sent = channel::send_part(socket, json, Some(listener))?;
    write_all(socket, &json[sent..])
}

/// The listener that is descriptor `number` of the process behind `pidfd`. pidfd_getfd(2).
pub(crate) fn fetch(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())
        .sys("pidfd_getfd", || number.to_string())
        .map_err(|e| StartFailureError::from_sys("take the seccomp listener out of the container's process", &e))
}

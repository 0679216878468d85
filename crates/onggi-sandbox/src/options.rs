//! What callers give to and get from the verbs.

use std::{os::fd::OwnedFd, path::PathBuf};

use onggi_spec::{
    monitor::{RootFs, SandboxState},
    oci::runtime::{Process, Spec},
};
use serde::{Deserialize, Serialize};

use crate::plan::SandboxPlan;

/// Where the standard streams of the first process come from.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These three.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A pseudo-terminal of the container's own devpts.
    Terminal {
        /// A connected stream socket that the master is sent to (SCM_RIGHTS); when absent it is returned.
        console_socket: Option<OwnedFd>,
        /// A line feed stays one instead of becoming CR LF (ONLCR): for who shows the output on another terminal,
        /// which makes that itself, or keeps it in a file.
        bare_line_feeds: bool,
    },
}

/// Everything that `create` needs.
#[derive(Debug)]
pub struct CreateOptions {
    /// The container's id, valid as one path component.
    pub id: String,
    /// The bundle directory; relative paths of the configuration start here.
    pub bundle: PathBuf,
    /// Directory of all states: `<state_root>/<id>/state.json`.
    pub state_root: PathBuf,
    /// The configuration, parsed.
    pub config: Spec,
    /// How the root filesystem is made.
    pub rootfs: RootFs,
    /// Standard streams.
    pub stdio: Stdio,
    /// The network namespace; replaces what the configuration says.
    pub netns: Option<OwnedFd>,
    /// PID 1 is an init that reaps and forwards signals; the program is its child.
    pub init: bool,
    /// The program is killed when the process that is its parent dies.
    pub die_with_parent: bool,
    /// The program waits for `start`; otherwise it is executed at once and success means that exec succeeded.
    pub wait_for_start: bool,
    /// The first process becomes a child of the caller's parent (CLONE_PARENT): for a short-lived starter.
    pub sibling: bool,
    /// Descriptors 3 to 2+n are inherited by the program.
    pub preserve_fds: u32,
    /// The root is entered by MS_MOVE and chroot: for roots on an initramfs, less safe.
    pub no_pivot: bool,
    /// The caller's session keyring is kept.
    pub no_new_keyring: bool,
    /// Written with the pid once the process exists.
    pub pid_file: Option<PathBuf>,
    /// Who makes the container's cgroups.
    pub cgroup_driver: CgroupDriver,
    /// A container may go without the cgroups that its creator may not make (runc's `--rootless`); absent: where he
    /// is not the host's root.
    pub rootless: Option<bool>,
    /// The configuration as it was read, kept for `exec`; without it the bundle's is read again then.
    pub config_text: Option<Vec<u8>>,
    /// A connected stream socket that the first process's pidfd is sent to.
    pub pidfd_socket: Option<OwnedFd>,
    /// The state gets a directory for a notify socket; the configuration mounts it.
    pub notify: bool,
    /// The mount that the caller was executed through ([`onggi_sys::entry`]), to be closed when there is nothing to do
    /// but to wait.
    pub executable: Option<OwnedFd>,
}

/// Who makes a container's cgroups, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupDriver {
    /// The runtime; of version 1 only those in which something is limited or counted. For callers that ask
    /// the runtime, and do not look into cgroupfs.
    #[default]
    Lean,
    /// The runtime, in every hierarchy, as other runtimes do it.
    Cgroupfs,
    /// systemd: `cgroupsPath` is `slice:prefix:name`, and the container a transient unit.
    Systemd,
    /// Nobody: the container stays where its caller is, and a limit is an error.
    Disabled,
}

/// A container that exists.
#[derive(Debug)]
pub struct Created {
    /// Pid of the first process in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master, when one was asked for without a console socket.
    pub console_master: Option<OwnedFd>,
    /// The state as it was stored.
    pub state: SandboxState,
    /// What was asked for and kept as it was instead, one line each.
    pub notes: Vec<String>,
    /// Flags of seccomp(2) that the filter was loaded with, when there is one; TSYNC is not among them.
    pub filter_flags: Option<u32>,
    /// What it was made from.
    pub remains: Remains,
}

/// Plan and configuration of a container that exists. A process that ends soon forgets them: to free them piece by
/// piece writes to every page of the heap once more.
#[derive(Debug)]
pub struct Remains {
    pub(crate) _plan: SandboxPlan,
    pub(crate) _config: Spec,
}

/// Everything that `exec` needs.
#[derive(Debug)]
pub struct ExecOptions {
    /// The container's id.
    pub id: String,
    /// Directory of all states.
    pub state_root: PathBuf,
    /// The process to run.
    pub process: Process,
    /// Standard streams.
    pub stdio: Stdio,
    /// Descriptors 3 to 2+n are inherited by the program.
    pub preserve_fds: u32,
    /// Written with the pid.
    pub pid_file: Option<PathBuf>,
    /// The program is killed when the caller dies.
    pub die_with_parent: bool,
    /// What to do when the container is paused.
    pub paused: Paused,
    /// Which of the container's cgroups it runs in.
    pub cgroups: CgroupChoice,
    /// A connected stream socket that its pidfd is sent to.
    pub pidfd_socket: Option<OwnedFd>,
    /// A FIFO: the program runs when somebody opens it for reading.
    pub wait_fifo: Option<PathBuf>,
    /// As for [`CreateOptions`].
    pub executable: Option<OwnedFd>,
}

/// `exec` in a paused container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Paused {
    /// Refused: the process would hang.
    #[default]
    Refuse,
    /// The process stands still until `resume`.
    Enter,
}

/// The cgroups of an `exec`'d process, as runc's `--cgroup` names them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CgroupChoice {
    /// The container's own; where the version 2 one takes no processes any more, that of its first process.
    #[default]
    Container,
    /// These directories below the container's, by controller (`None`: in every hierarchy).
    Below(Vec<(Option<String>, PathBuf)>),
}

/// A process that was started in a container.
#[derive(Debug)]
pub struct Executed {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd; the caller is its parent.
    pub pidfd: OwnedFd,
    /// The terminal's master, when one was asked for without a console socket.
    pub console_master: Option<OwnedFd>,
    /// What was asked for and kept as it was instead, one line each.
    pub notes: Vec<String>,
}

//! What a verb of the engine can fail with.
//!
//! Display says what failed; `source()` says why; [`EngineError::hint`] says what to do;
//! [`EngineError::exit_code`] is Docker's code for it.

use std::{io, path::PathBuf};

use onggi_spec::{Digest, ParseError, monitor::StartFailure, oci::build::BuildError};
use onggi_sys::SysError;
use thiserror::Error;

/// A failed verb.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A directory of ours cannot be made.
    #[error("cannot make the directory {}", path.display())]
    MakeDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory of ours belongs to another user.
    #[error("{} belongs to uid {uid}, not to you", path.display())]
    ForeignDir {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A file of ours cannot be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours cannot be written.
    #[error("cannot write {}", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours does not hold what it should.
    #[error("{} is damaged", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file of `--cidfile` is somebody's.
    #[error("container ID file found, make sure the other container isn't running or delete {}", path.display())]
    IdFileExists {
        /// The file.
        path: PathBuf,
    },
    /// A container has the host port.
    #[error("{protocol} port {port} is already used by container {container}")]
    PortTaken {
        /// Host port.
        port: u16,
        /// `tcp` or `udp`.
        protocol: String,
        /// Its holder's name.
        container: String,
    },
    /// An image has more names than the one that was meant.
    #[error("image {image} has several names: {}", names.join(", "))]
    SeveralNames {
        /// What was asked for.
        image: String,
        /// Its names.
        names: Vec<String>,
    },
    /// Neither a container nor an image.
    #[error("no such object: {name}")]
    NoSuchObject {
        /// As written, cut.
        name: String,
    },
    /// A running container uses the image.
    #[error("image {image} cannot be removed, not even with force: container {container} runs from it")]
    ImageRuns {
        /// Short id.
        image: String,
        /// The container's name.
        container: String,
    },
    /// The image is mounted for somebody to look at.
    #[error("image {image} is in use: it is mounted on {}", path.display())]
    ImageMounted {
        /// Short id.
        image: String,
        /// Where.
        path: PathBuf,
    },
    /// A directory that something is to be mounted on.
    #[error("cannot mount on {}", path.display())]
    MountPoint {
        /// As given.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program that does a part of the work failed; it has said why.
    #[error("{} failed ({status})", program.display())]
    ToolFailed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The stored image is for another platform.
    #[error("image {image} is for {found}, not for {wanted}")]
    OtherPlatform {
        /// The image.
        image: String,
        /// Its platform.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// A recorded image's configuration is gone.
    #[error("the store has lost {digest}")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// What a container has written, or the record of its root filesystem.
    #[error("the files of container {name} are gone: there is no {}", path.display())]
    FilesGone {
        /// The container.
        name: String,
        /// What is not there.
        path: PathBuf,
    },
    /// A credential file is unusable.
    #[error("cannot look up credentials")]
    Credentials {
        /// Why.
        source: onggi_image::CredentialsError,
    },
    /// What `login` and `logout` change.
    #[error("cannot change the stored credentials")]
    KeepCredentials {
        /// Why.
        source: onggi_image::CredentialsError,
    },
    /// The configuration of registries, or a credential helper.
    #[error(transparent)]
    Registry(#[from] crate::registry::RegistryError),
    /// The policy forbids to fetch the image.
    #[error("image {image} is not stored here, and is not to be pulled")]
    NotPulled {
        /// As written.
        image: String,
    },
    /// No socket pair.
    #[error("cannot make the attach stream")]
    MakeStream {
        /// Why.
        source: io::Error,
    },
    /// The verb needs another state.
    #[error("cannot {verb} container {name}: it is {state}")]
    WrongState {
        /// What was wanted.
        verb: &'static str,
        /// The container.
        name: String,
        /// Its state.
        state: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A container is renamed to its own name.
    #[error("container {name} has this name already")]
    SameName {
        /// The name.
        name: String,
    },
    /// A port of a container is asked for that nothing leads to.
    #[error("no port of the host leads to port {port} of container {name}, which is {state}")]
    NotPublished {
        /// The container.
        name: String,
        /// `80/tcp`.
        port: String,
        /// The container's state.
        state: &'static str,
    },
    /// The host or the caller lacks something.
    #[error("{what} is not possible: {reason}")]
    Unsupported {
        /// What was wanted.
        what: String,
        /// What is missing.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A text of the request is wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The image's USER is no user.
    #[error("the image's USER {user:?} cannot be used")]
    ImageUser {
        /// As in the image.
        user: String,
        /// Why.
        source: ParseError,
    },
    /// The OCI configuration cannot be built.
    #[error("cannot build the container's configuration")]
    Build(#[source] BuildError),
    /// The rootfs directory of `rootfs:` is unusable.
    #[error("cannot use {} as a root filesystem", path.display())]
    Rootfs {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The command is not in the image, or cannot be run.
    #[error("cannot start {command:?}")]
    Command {
        /// argv\[0\].
        command: String,
        /// Why.
        source: onggi_storage::ExecutableProblem,
    },
    /// The runtime could not start the container.
    #[error("cannot start the container: {}", .0.step)]
    Start(StartFailure),
    /// The monitor ended without a word.
    #[error("the monitor of container {id} ended before it reported")]
    MonitorDied {
        /// Short id.
        id: String,
        /// What it wrote to stderr.
        output: String,
    },
    /// `onggi-oci` is not installed beside `onggi`.
    #[error("cannot find the program onggi-oci")]
    RuntimeMissing {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The runtime program failed.
    #[error("{verb} failed: {message}")]
    Runtime {
        /// Its verb.
        verb: &'static str,
        /// Its message.
        message: String,
        /// Its hint; may be empty.
        hint: String,
        /// 125, 126 or 127.
        exit_code: i32,
    },
    /// A container did not stop although it was killed.
    #[error("container {name} did not end within {seconds} s of SIGKILL")]
    DidNotStop {
        /// The container.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Clean-up failed in several steps; each was tried.
    #[error("cannot clean up container {id}: {}", failures.join("; "))]
    CleanUp {
        /// Short id.
        id: String,
        /// What failed.
        failures: Vec<String>,
    },
    /// The configuration file.
    #[error("{} is wrong: {reason}", path.display())]
    Config {
        /// The file.
        path: std::path::PathBuf,
        /// Why, with the line.
        reason: String,
    },
    /// The database.
    #[error(transparent)]
    State(#[from] onggi_state::StateError),
    /// A lock, an intent or a lease.
    #[error(transparent)]
    Files(#[from] onggi_state::files::FileError),
    /// The content store.
    #[error(transparent)]
    Blobs(#[from] onggi_image::StoreError),
    /// Image or registry.
    #[error(transparent)]
    Image(#[from] onggi_image::ImageError),
    /// The network was not given back as a whole.
    #[error("cannot give back the container's network: {}", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Detach {
        /// What failed; the rest was done.
        failures: Vec<onggi_network::NetworkError>,
    },
    /// Layers and snapshots.
    #[error(transparent)]
    Storage(#[from] onggi_storage::StorageError),
    /// An archive or a directory of images.
    #[error(transparent)]
    Format(#[from] crate::transfer::FormatError),
    /// Network.
    #[error(transparent)]
    Network(#[from] onggi_network::NetworkError),
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] onggi_cgroup::CgroupError),
    /// A system call.
    #[error("{op}")]
    Sys {
        /// What was being done.
        op: String,
        /// The call.
        source: SysError,
    },
}

/// Docker's exit code for an error of the engine itself.
const ENGINE_ERROR: i32 = 125;

impl EngineError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = |s: &str| Some(s.to_owned());
        match self {
            Self::MakeDir { source, .. } | Self::WriteFile { source, .. } => io_hint(source),
            Self::ForeignDir { .. } => text("choose other directories with --root and --runroot"),
            Self::DamagedFile { .. } => text("remove the container with rm -f and create it again"),
            Self::ImageRuns { container, .. } => Some(format!("stop it first: onggi stop {container}")),
            Self::ImageMounted { path, .. } => Some(format!("onggi image unmount {}", path.display())),
            Self::ToolFailed { program, .. } => Some(format!(
                "its messages are above (more without --quiet); {} --help and its manual page explain them",
                program.display()
            )),
            Self::MountPoint { path, .. } => Some(format!("make the directory first: mkdir -p {}", path.display())),
            Self::OtherPlatform { .. } => {
                text("pull the image for that platform under a digest or another tag, or leave --platform out")
            }
            Self::PortTaken { container, .. } => {
                Some(format!("choose another host port, or stop it: onggi stop {container}"))
            }
            Self::SeveralNames { .. } => text("remove the names one by one, or use rmi -f"),
            Self::Config { .. } => text("docs/images.md lists the settings; ONGGI_CONFIG names another file"),
            Self::MissingBlob { .. } => text("pull the image again, or let `onggi system check --repair` do so"),
            Self::Credentials { source: onggi_image::CredentialsError::Inaccessible { .. } } => {
                text("correct --authfile or REGISTRY_AUTH_FILE; `onggi login --authfile FILE REGISTRY` makes one")
            }
            Self::FilesGone { name, .. } => Some(format!("they are nowhere else: remove it with `onggi rm {name}`")),
            Self::Credentials { .. } => {
                text("mend the file, log in again (`onggi login REGISTRY`), or name another with --authfile")
            }
            Self::KeepCredentials { .. } => {
                text("name another file with --authfile, or its directory with DOCKER_CONFIG")
            }
            Self::Registry(e) => e.hint(),
            Self::NoSuchObject { .. } => text("`onggi ps -a` lists the containers, `onggi images` the images"),
            Self::NotPulled { .. } => text("leave --pull=never out, or pull the image first"),
            Self::WrongState { hint, name, .. } => Some(hint.replace("NAME", name)),
            Self::SameName { .. } => text("choose another one"),
            Self::NotPublished { name, state: "running" | "paused", .. } => {
                Some(format!("`onggi port {name}` lists what is published; ports are chosen by -p of `onggi run`"))
            }
            Self::NotPublished { name, .. } => Some(format!("start it first: onggi start {name}")),
            Self::Unsupported { hint, .. } => Some(hint.clone()),
            Self::Parse(e) => Some(e.hint.clone()).filter(|h| !h.is_empty()),
            Self::ImageUser { .. } => text("choose another with -u, or have the image mended"),
            Self::Build(e) => e.hint(),
            Self::Rootfs { .. } => text("write rootfs:DIR with an existing directory"),
            Self::Command { source, .. } => text(source.hint()),
            Self::Start(failure) => Some(failure.hint.clone()).filter(|h| !h.is_empty()),
            Self::Runtime { hint, .. } => Some(hint.clone()).filter(|h| !h.is_empty()),
            Self::RuntimeMissing { .. } => text("install both programs: cargo xtask install"),
            Self::State(e) => state_hint(e),
            Self::Files(onggi_state::files::FileError::Io { source, .. }) => io_hint(source),
            Self::Blobs(e) => e.hint(),
            Self::Image(e) => e.hint(),
            Self::Storage(e) => e.hint(),
            Self::Format(e) => e.hint(),
            Self::Network(e) => Some(e.hint()).filter(|h| !h.is_empty()),
            Self::Cgroup(e) => e.hint(),
            Self::Sys { source, .. } => errno_hint(source.raw()),
            _ => None,
        }
    }

    /// True when a registry does not accept the credentials.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Image(onggi_image::ImageError::Unauthorized { .. }))
    }

    /// True when what was asked for is an image that does not exist.
    pub fn is_no_such_image(&self) -> bool {
        matches!(self, Self::State(onggi_state::StateError::ImageNotFound { .. }))
    }

    /// True when what was asked for is a container that does not exist.
    pub fn is_no_such_container(&self) -> bool {
        matches!(self, Self::State(onggi_state::StateError::ContainerNotFound { .. }))
    }

    /// True when a user or group is not in the container's files.
    pub fn is_about_an_account(&self) -> bool {
        matches!(self, Self::Storage(onggi_storage::StorageError::NoSuchAccount { .. }))
    }

    /// Where it was an image that is not there, it might have been a container too.
    pub(crate) fn or_container(self) -> Self {
        match self {
            Self::State(onggi_state::StateError::ImageNotFound { reference }) => {
                Self::NoSuchObject { name: reference.chars().take(128).collect() }
            }
            other => other,
        }
    }

    /// True when nobody reads what was being written to a stream.
    pub fn is_closed_pipe(&self) -> bool {
        let source = match self {
            Self::Format(crate::transfer::FormatError::Stream { source, .. })
            | Self::Storage(onggi_storage::StorageError::WriteArchive { source }) => source,
            _ => return false,
        };
        source.kind() == io::ErrorKind::BrokenPipe
    }

    /// 125 for our own failures; 126 and 127 when the command cannot be invoked or is not there.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Start(failure) => failure.exit_code,
            Self::Command { source, .. } => source.exit_code(),
            Self::Runtime { exit_code, .. } => *exit_code,
            _ => ENGINE_ERROR,
        }
    }

    /// The errno and call behind a failed start, which has no Rust error as its source.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Start(f) if f.errno != 0 => Some(format!("{}: {}", f.call, onggi_sys::error::describe(f.errno))),
            Self::Start(f) if !f.call.is_empty() => Some(f.call.clone()),
            Self::MonitorDied { output, .. } if !output.is_empty() => Some(output.clone()),
            Self::RuntimeMissing { tried } => Some(format!(
                "looked for {}",
                tried.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
            )),
            _ => None,
        }
    }
}

/// An error and all of its causes in one line.
pub fn chain(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&onggi_sys::error::cause(cause));
        source = cause.source();
    }
    if let Some(detail) = error.detail() {
        text.push_str(": ");
        text.push_str(&detail);
    }
    text
}

fn state_hint(e: &onggi_state::StateError) -> Option<String> {
    match e {
        onggi_state::StateError::NameTaken { name, .. } => {
            Some(format!("remove it with `onggi rm {name}`, or choose another name"))
        }
        other => other.hint(),
    }
}

pub(crate) fn io_hint(e: &io::Error) -> Option<String> {
    errno_hint(e.raw_os_error()?)
}

/// Hints for the errnos that a user can do something about.
fn errno_hint(errno: i32) -> Option<String> {
    use rustix::io::Errno;
    let text = match Errno::from_raw_os_error(errno) {
        Errno::ROFS => {
            "the filesystem is read-only: write to another place (what Onggi itself keeps can be moved with --root and --runroot)"
        }
        Errno::NOSPC | Errno::DQUOT => "the disk is full: remove containers and images that are not needed",
        Errno::ACCESS | Errno::PERM => {
            "you lack the permission: run as root, or choose your own directories with --root and --runroot"
        }
        Errno::MFILE => "too many open files: raise the limit with ulimit -n",
        _ => return None,
    };
    Some(text.to_owned())
}

//! One operation of a verb, and what it does in words. [`super::by_hand`] has the lines of sh that do the same.

use std::path::PathBuf;

use onggi_spec::{Digest, quantity::human_size, signal::signal_name};
use serde::Serialize;

/// An operation of a verb, in the order in which it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum VerbOp {
    /// A record of ours that says who works on what right now.
    HoldIntent {
        /// The file, locked while the verb works and removed after it.
        path: PathBuf,
    },
    /// A signal by pidfd.
    Signal {
        /// The container's first process.
        pid: i32,
        /// The signal.
        signal: i32,
    },
    /// Waits for the end, and kills when it does not come.
    WaitThenKill {
        /// The container's first process.
        pid: i32,
        /// Patience.
        seconds: u64,
        /// Where `onggi why` finds who killed it, and what is written there, as in [`VerbOp::Write`].
        #[serde(skip)]
        asked: (PathBuf, String),
    },
    /// Waits until the monitor has written the exit record and is gone.
    AwaitMonitor {
        /// Its lock.
        lock: PathBuf,
    },
    /// Makes a directory.
    MakeDir {
        /// Where.
        path: PathBuf,
        /// What for.
        what: String,
    },
    /// Writes a file.
    Write {
        /// Where.
        path: PathBuf,
        /// What it holds.
        what: String,
        /// Its whole text as sh expands it between double quotes, where it is short.
        #[serde(skip)]
        text: Option<String>,
    },
    /// The shell joins a control group.
    JoinGroup {
        /// Its directory.
        path: PathBuf,
    },
    /// Removes a file or a directory with everything in it; gone already is as good.
    Remove {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// Removes a control group, after ending what is left in it.
    RemoveCgroup {
        /// Its directory.
        path: PathBuf,
    },
    /// Takes a published port out of the firewall.
    Unpublish {
        /// The set of nftables.
        set: &'static str,
        /// The element's key.
        key: String,
    },
    /// A row of the database.
    Row {
        /// The database.
        database: PathBuf,
        /// What becomes of it.
        change: RowChange,
        /// Table.
        table: &'static str,
        /// Column and value of the key.
        key: (&'static str, String),
        /// What it is, in words.
        what: String,
        /// The statement that puts the row, where the values are known.
        #[serde(skip)]
        sql: Option<String>,
    },
    /// Asks a registry.
    Ask {
        /// Its URL.
        url: String,
        /// What for.
        what: String,
    },
    /// Fetches a blob that is not stored.
    Fetch {
        /// Which.
        digest: Digest,
        /// Compressed size.
        bytes: u64,
        /// What it is.
        what: String,
        /// From where.
        from: String,
    },
    /// A blob or a layer that is there already.
    Keep {
        /// Which.
        digest: Digest,
        /// What it is.
        what: String,
    },
    /// Unpacks a layer.
    Unpack {
        /// The blob.
        blob: PathBuf,
        /// The layer's directory.
        dir: PathBuf,
        /// ChainID.
        chain_id: Digest,
    },
    /// Sends a blob that the registry lacks.
    Send {
        /// Which.
        digest: Digest,
        /// Size.
        bytes: u64,
        /// What it is.
        what: String,
        /// To where.
        to: String,
    },
    /// Stops all processes of a container for a while, or lets them go on.
    Freeze {
        /// The runtime's state directory.
        oci_root: PathBuf,
        /// The container.
        id: String,
        /// Stop, rather than go on.
        stop: bool,
    },
    /// Writes what differs between two trees, or a whole tree, as a tar.
    Pack {
        /// The tree.
        from: PathBuf,
        /// What is below it.
        below: Vec<PathBuf>,
        /// With what is below, rather than without.
        whole: bool,
        /// Where the tar goes.
        to: String,
    },
    /// Joins namespaces of a process and becomes a command in them.
    Enter {
        /// The process.
        pid: i32,
        /// `mnt`, `net`, …
        kinds: Vec<String>,
        /// uid and gid.
        user: (u32, u32),
        /// Working directory inside.
        cwd: String,
        /// Environment.
        env: Vec<String>,
        /// Command.
        args: Vec<String>,
    },
    /// Runs a program outside of any container.
    Run {
        /// Program and arguments.
        args: Vec<String>,
        /// What for.
        what: String,
    },
    /// Packs files of this machine as the one layer of an image.
    Layer {
        /// The files, a directory before what is in it.
        files: Vec<PathBuf>,
        /// Its command.
        entrypoint: Vec<String>,
        /// Search path of the image.
        search: String,
        /// Name of the image.
        name: Option<String>,
    },
    /// Takes away what nothing refers to any more.
    Collect {
        /// In words.
        what: String,
    },
    /// Something that no command of a shell does.
    Note {
        /// In words.
        what: String,
    },
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowChange {
    /// A new one, or the old one replaced.
    Put,
    /// It goes.
    Delete,
}

impl VerbOp {
    /// One sentence.
    pub fn words(&self) -> String {
        match self {
            Self::HoldIntent { path } => {
                format!("hold {}, so that a crash is undone by the next command", path.display())
            }
            Self::Signal { pid, signal } => format!("send {} to process {pid}", signal_name(*signal)),
            Self::WaitThenKill { pid, seconds, .. } => {
                format!("wait up to {seconds} s for process {pid} to end; then send it SIGKILL")
            }
            Self::AwaitMonitor { lock } => {
                format!("wait until the monitor has written exit.json and let go of {}", lock.display())
            }
            Self::MakeDir { path, what } => format!("make the directory {}: {what}", path.display()),
            Self::Write { path, what, .. } => format!("write {}: {what}", path.display()),
            Self::JoinGroup { path } => format!("join the control group {}", path.display()),
            Self::Remove { path, what } => format!("remove {}: {what}", path.display()),
            Self::RemoveCgroup { path } => {
                format!("end what is left in the control group {} and remove it", path.display())
            }
            Self::Unpublish { set, key } => {
                format!("delete {{ {key} }} from the set {set} of the firewall table ip onggi")
            }
            Self::Row { change: RowChange::Put, table, key, what, .. } => {
                format!("put a row into the table {table} ({} {}): {what}", key.0, key.1)
            }
            Self::Row { change: RowChange::Delete, table, key, what, .. } => {
                format!("delete rows of the table {table} ({} {}): {what}", key.0, key.1)
            }
            Self::Ask { url, what } => format!("ask {url}: {what}"),
            Self::Fetch { digest, bytes, what, from } => {
                format!("fetch {what} {} ({}) from {from}", digest.short(), human_size(*bytes))
            }
            Self::Keep { digest, what } => format!("keep {what} {}: it is there already", digest.short()),
            Self::Unpack { blob, dir, .. } => format!("unpack {} into {}", blob.display(), dir.display()),
            Self::Send { digest, bytes, what, to } => {
                format!("send {what} {} ({}) to {to}, unless it is there", digest.short(), human_size(*bytes))
            }
            Self::Freeze { id, stop: true, .. } => format!("freeze the control group of container {id}"),
            Self::Freeze { id, stop: false, .. } => format!("thaw the control group of container {id}"),
            Self::Pack { from, to, whole: true, .. } => format!("write the tree {} as a tar to {to}", from.display()),
            Self::Pack { from, to, .. } => format!("write what {} changes as a tar to {to}", from.display()),
            Self::Enter { pid, kinds, user, cwd, args, .. } => format!(
                "join the {} namespaces of process {pid}, become {}:{} in {cwd} and execute {}",
                kinds.join(", "),
                user.0,
                user.1,
                args.join(" ")
            ),
            Self::Run { args, what } => format!("run {}: {what}", args.join(" ")),
            Self::Layer { files, .. } => format!("pack these {} files as the one layer of the image", files.len()),
            Self::Collect { what } | Self::Note { what } => what.clone(),
        }
    }
}

//! One option for each kind of namespace, as unshare(1) and nsenter(1) have them: alone, or with a file that keeps one.

use std::path::PathBuf;

use clap::Args;
use onggi_primitives::Kind;

use crate::error::CliError;

/// What stands for no file.
const NO_FILE: &str = "-";

/// `--net`, `--net=FILE` and so on.
#[derive(Debug, Args)]
pub(super) struct KindArgs {
    /// Mounts
    #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    mount: Option<PathBuf>,
    /// Host name
    #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    uts: Option<PathBuf>,
    /// System V IPC and POSIX message queues
    #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    ipc: Option<PathBuf>,
    /// Network
    #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    net: Option<PathBuf>,
    /// Process numbers; the first command in a new namespace is number 1
    #[arg(short, long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    pid: Option<PathBuf>,
    /// Users and capabilities
    #[arg(short = 'U', long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    user: Option<PathBuf>,
    /// Root of the control groups that are seen
    #[arg(short = 'C', long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    cgroup: Option<PathBuf>,
    /// Offsets of the monotonic and the boot clock
    #[arg(short = 'T', long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = NO_FILE)]
    time: Option<PathBuf>,
}

/// A kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    /// By its absolute path.
    pub(super) file: Option<PathBuf>,
}

impl KindArgs {
    /// Those that were asked for.
    pub(super) fn asked(self) -> Result<Vec<Asked>, CliError> {
        let all = [
            (self.mount, Kind::Mnt),
            (self.uts, Kind::Uts),
            (self.ipc, Kind::Ipc),
            (self.net, Kind::Net),
            (self.pid, Kind::Pid),
            (self.user, Kind::User),
            (self.cgroup, Kind::Cgroup),
            (self.time, Kind::Time),
        ];
        let mut asked = Vec::new();
        for (file, kind) in all {
            let Some(file) = file else { continue };
            let file = Some(file).filter(|file| file.as_os_str() != NO_FILE);
            let file = file.map(std::path::absolute).transpose().map_err(CliError::CurrentDirectory)?;
            asked.push(Asked { kind, file });
        }
        Ok(asked)
    }
}

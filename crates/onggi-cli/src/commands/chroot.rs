//! `onggi chroot`.

use std::path::{Path, PathBuf};

use clap::Args;
use onggi_engine::{Chosen, ChosenKind, program_files, user_in};
use onggi_primitives::{Bind, Caller, ChrootFacts, ChrootRequest, Kind, Source, SourceKind, UnsharePlan, User};
use onggi_spec::user::UserSpec;

use super::{explain::ExplainArg, plan};
use crate::{cli::GlobalArgs, error::CliError};

/// Shells that are looked for inside when no command is named.
const SHELLS: [&str; 4] = ["/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"];

/// Arguments of `chroot`.
#[derive(Debug, Args)]
pub(crate) struct ChrootArgs {
    /// First copy this program of the machine into it, with its loader and libraries; may be repeated
    #[arg(long = "with", value_name = "PROGRAM")]
    programs: Vec<String>,
    /// Only copy what --with names, and run nothing
    #[arg(long, conflicts_with = "command", requires = "programs")]
    fill_only: bool,
    /// Mount nothing: no /proc, /dev, /sys and resolv.conf
    #[arg(long)]
    bare: bool,
    /// The directory cannot be written
    #[arg(long)]
    read_only: bool,
    /// Show a file or directory of the machine inside; may be repeated
    #[arg(short, long, visible_alias = "volume", short_alias = 'v', value_name = "SOURCE[:TARGET[:ro]]")]
    bind: Vec<BindArg>,
    /// Who the command is: names are those inside
    #[arg(short, long, visible_alias = "userspec", value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// A host name of its own
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// See the processes of the machine
    #[arg(long)]
    host_pids: bool,
    /// New network
    #[arg(long)]
    net: bool,
    /// New System V IPC and POSIX message queues
    #[arg(long)]
    ipc: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// The directory that becomes the root
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Command and its arguments; a shell otherwise
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// `--bind`.
#[derive(Debug, Clone)]
struct BindArg(Bind);

impl std::str::FromStr for BindArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let source = parts.next().unwrap_or_default();
        let target = parts.next().unwrap_or(source);
        let read_only = match (parts.next(), parts.next()) {
            (None | Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => return Err("expected SOURCE[:TARGET[:ro]]".to_owned()),
        };
        if source.is_empty() || !target.starts_with('/') {
            return Err("the target is a path from the root inside, as in /srv:/mnt:ro".to_owned());
        }
        let source = std::path::absolute(source).map_err(|e| e.to_string())?;
        Ok(Self(Bind { source, target: target.into(), read_only }))
    }
}

impl ChrootArgs {
    /// Runs a command in a directory; the exit code is the command's.
    pub(crate) fn run(self, _global: &GlobalArgs) -> Result<u8, CliError> {
        let explain = self.explain;
        let caller = Caller { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let request = self.request()?;
        let facts = ChrootFacts {
            caller,
            resolv_conf: Path::new("/etc/resolv.conf").is_file() && request.dir.join("etc").is_dir(),
        };
        let plan = UnsharePlan::chroot(&request, facts);
        if explain.shown(&plan)? {
            return Ok(0);
        }
        plan::carry_out(&plan)
    }

    fn request(self) -> Result<ChrootRequest, CliError> {
        let unreadable = |source| CliError::ReadFile { path: self.dir.display().to_string(), source };
        let dir = self.dir.canonicalize().map_err(unreadable)?;
        if !dir.is_dir() {
            return Err(CliError::usage(
                format!("{} is no directory", dir.display()),
                "name one that becomes the root",
            ));
        }
        if dir == Path::new("/") {
            return Err(CliError::usage("/ is the root already", "onggi ns run runs a command in new namespaces"));
        }
        for BindArg(bind) in &self.bind {
            let missing = |source| CliError::ReadFile { path: bind.source.display().to_string(), source };
            std::fs::symlink_metadata(&bind.source).map_err(missing)?;
        }
        let chosen = if self.programs.is_empty() { Vec::new() } else { program_files(&self.programs)? };
        let command = match (self.fill_only, self.command.is_empty()) {
            (true, _) => Vec::new(),
            (false, false) => self.command,
            (false, true) => vec![shell(&dir, &chosen)?],
        };
        let user = self.user.map(|spec| user_in(&dir, &spec)).transpose()?;
        let kinds = [(self.net, Kind::Net), (self.ipc, Kind::Ipc)];
        Ok(ChrootRequest {
            fill: chosen.into_iter().map(source).collect(),
            bare: self.bare,
            read_only: self.read_only,
            binds: self.bind.into_iter().map(|BindArg(bind)| bind).collect(),
            user: user.map(|user| User { uid: user.uid, gid: user.gid, groups: user.additional_gids }),
            host_pids: self.host_pids,
            kinds: kinds.iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| *kind).collect(),
            hostname: self.hostname,
            workdir: self.workdir,
            command,
            dir,
        })
    }
}

fn source(chosen: Chosen) -> Source {
    let kind = match chosen.kind {
        ChosenKind::Directory { mode } => SourceKind::Directory { mode },
        ChosenKind::Link { target } => SourceKind::Link { target },
        ChosenKind::File => SourceKind::File,
    };
    Source { path: chosen.path, kind, named: chosen.named }
}

/// The user's shell where the directory has it or will have it, as chroot(1), else one that it has.
fn shell(dir: &Path, chosen: &[Chosen]) -> Result<String, CliError> {
    let own = std::env::var("SHELL").ok().filter(|shell| shell.starts_with('/'));
    let has = |path: &str| {
        let there = std::fs::symlink_metadata(dir.join(path.trim_start_matches('/'))).is_ok();
        let named = |c: &Chosen| c.path == Path::new(path) || c.named.iter().any(|name| name == Path::new(path));
        there || chosen.iter().any(named)
    };
    let found = own.into_iter().chain(SHELLS.map(str::to_owned)).find(|path| has(path));
    found.ok_or_else(|| {
        CliError::usage(
            format!("{} has no shell", dir.display()),
            "name a command, or copy a shell into it: --with bash",
        )
    })
}

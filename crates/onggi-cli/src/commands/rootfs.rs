//! `onggi rootfs bootstrap debian`.

use std::{fs, path::PathBuf, thread};

use clap::{Args, Subcommand, ValueEnum};
use onggi_engine::{Bootstrap, BootstrapTarget, BootstrapTool};
use onggi_spec::ImageReference;
use rustix::process::{Pid, Signal};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render};

/// From here on, what asks this program to end is handed on to the tool that it runs, which tidies up and ends: then this
/// program does, too.
fn hand_on_signals() -> Result<(), CliError> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(CliError::Signals)?;
    thread::spawn(move || {
        for signal in signals.forever().filter_map(Signal::from_named_raw) {
            for child in children() {
                // Fails only when it has just ended.
                let _ = rustix::process::kill_process(child, signal);
            }
        }
    });
    Ok(())
}

/// The children of every thread of this process; proc_pid_task(5), `children`.
fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

/// `onggi rootfs …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RootfsCommand {
    /// Make a distribution's root filesystem
    #[command(subcommand)]
    Bootstrap(BootstrapCommand),
}

/// `onggi rootfs bootstrap …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BootstrapCommand {
    /// Debian and its relatives, by mmdebstrap or debootstrap
    Debian(DebianArgs),
}

impl RootfsCommand {
    /// Runs the verb.
    pub(crate) fn dispatch(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Bootstrap(BootstrapCommand::Debian(args)) => args.run(global),
        }
    }
}

/// Arguments of `rootfs bootstrap debian`.
#[derive(Debug, Args)]
pub(crate) struct DebianArgs {
    /// Make an image of this name
    #[arg(short, long, value_name = "REPOSITORY[:TAG]", required_unless_present = "dir", conflicts_with = "dir")]
    tag: Option<String>,
    /// Release
    #[arg(short, long, default_value = "stable")]
    suite: String,
    /// Which packages are in it without being named: minbase, essential, apt, required, buildd, standard, custom, extract …
    /// [default: minbase]
    #[arg(long)]
    variant: Option<String>,
    /// Archive, or a line of sources.list; may be repeated [default: http://deb.debian.org/debian]
    #[arg(short, long, value_name = "URL")]
    mirror: Vec<String>,
    /// Further packages; may be repeated
    #[arg(short, long, value_name = "PACKAGE[,PACKAGE]", value_delimiter = ',')]
    include: Vec<String>,
    /// Parts of the archive [default: main]
    #[arg(long, value_name = "NAME[,NAME]", value_delimiter = ',')]
    components: Vec<String>,
    /// Architecture, as Debian calls it [default: this machine's]
    #[arg(short, long)]
    arch: Option<String>,
    /// Keys that the archive is signed with
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Which program makes it [default: what is installed, mmdebstrap first]
    #[arg(long)]
    tool: Option<ToolArg>,
    /// No file of an image is younger than this: seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    timestamp: u64,
    /// Only errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    explain: ExplainArg,
    /// Directory to fill, for `onggi run rootfs:DIR`
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// `--tool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ToolArg {
    /// mmdebstrap(1)
    Mmdebstrap,
    /// debootstrap(8)
    Debootstrap,
}

impl DebianArgs {
    /// Makes it; prints the image's id or the directory.
    fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let dir = self.dir.map(std::path::absolute).transpose().map_err(CliError::CurrentDirectory)?;
        let tag = self.tag.as_deref().map(ImageReference::given).transpose()?;
        let request = Bootstrap {
            suite: self.suite,
            variant: self.variant,
            mirrors: self.mirror,
            include: self.include,
            components: self.components,
            arch: self.arch,
            keyring: self.keyring.map(std::path::absolute).transpose().map_err(CliError::CurrentDirectory)?,
            tool: self.tool.map(|tool| match tool {
                ToolArg::Mmdebstrap => BootstrapTool::Mmdebstrap,
                ToolArg::Debootstrap => BootstrapTool::Debootstrap,
            }),
            timestamp: self.timestamp,
            quiet: self.quiet,
            target: dir.clone().map_or(BootstrapTarget::Image(tag), BootstrapTarget::Directory),
        };
        let engine = global.engine()?;
        if self.explain.explain.is_some() {
            self.explain.shown(&engine.explain_bootstrap(&request)?)?;
            return Ok(0);
        }
        hand_on_signals()?;
        let made = engine.bootstrap(&request);
        if let (Err(_), Some(dir)) = (&made, dir.as_ref().filter(|dir| dir.exists())) {
            // Not removed: a tool that was ended may have left something of this machine mounted in it.
            render::notes(&[format!("{0} is half made; to remove it: rm -r --one-file-system {0}", dir.display())])?;
        }
        let made = made?;
        render::line(&made.map_or_else(|| dir.unwrap_or_default().display().to_string(), |id| id.to_string()))?;
        Ok(0)
    }
}

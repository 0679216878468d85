//! The command line: global options, the verbs, the noun groups, exit codes.

mod docker;
pub(crate) mod early;
mod lenient;
mod quick;
mod roots;
mod usage;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};
use onggi_engine::{Engine, EngineError, EngineOptions};

use crate::{candidates, commands, error::CliError, traced};

/// What the cheapest command writes of its heap and its stack, in bytes: every page of it would be a page fault.
const EXPECTED_HEAP: usize = 96 << 10;
const EXPECTED_STACK: usize = 48 << 10;

/// Runs containers without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "onggi",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalArgs {
    /// Directory of images and containers [default: /var/lib/onggi, or $XDG_DATA_HOME/onggi]
    #[arg(long, global = true, help_heading = "Global options", value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory of what must not outlive a reboot [default: /run/onggi, or $XDG_RUNTIME_DIR/onggi]
    #[arg(long, global = true, help_heading = "Global options", value_name = "DIR")]
    runroot: Option<PathBuf>,
    /// How layers are kept: overlay, btrfs or vfs; a store keeps the one that it was made with
    #[arg(long, global = true, help_heading = "Global options", value_name = "DRIVER")]
    storage_driver: Option<String>,
    /// How much is logged to stderr: error, warn, info, debug, trace [default: warn]
    #[arg(long, global = true, help_heading = "Global options", value_name = "LEVEL")]
    log_level: Option<tracing::Level>,
}

impl GlobalArgs {
    /// The options again, for another run of this program.
    pub(crate) fn as_arguments(&self) -> Vec<OsString> {
        let dirs = [("--root", &self.root), ("--runroot", &self.runroot)];
        let dirs = dirs.into_iter().filter_map(|(name, dir)| Some([name.into(), dir.clone()?.into_os_string()]));
        let driver = self.storage_driver.iter().map(|driver| ["--storage-driver".into(), driver.into()]);
        dirs.chain(driver).flatten().collect()
    }

    /// Opens the engine on the chosen directories.
    pub(crate) fn engine(&self) -> Result<Engine, CliError> {
        let absolute = |dir: &Option<PathBuf>| dir.as_ref().map(std::path::absolute).transpose();
        let options = EngineOptions {
            root: absolute(&self.root).map_err(CliError::CurrentDirectory)?,
            runroot: absolute(&self.runroot).map_err(CliError::CurrentDirectory)?,
            driver: self.storage_driver.as_deref().map(str::parse).transpose().map_err(EngineError::from)?,
        };
        let mut engine = Engine::open(options)?;
        engine.trace(traced::format());
        Ok(engine)
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make a container from an image and run a command in it
    Run(Box<commands::run::RunArgs>),
    /// Make a container without starting it
    Create(Box<commands::create::CreateArgs>),
    /// List containers
    #[command(visible_alias = "ls")]
    Ps(commands::ps::PsArgs),
    /// Show where a container's ports are published
    Port(commands::port::PortArgs),
    /// Show what containers use
    Stats(commands::stats::StatsArgs),
    /// Show what a container wrote
    Logs(commands::logs::LogsArgs),
    /// Run a command in a running container
    Exec(commands::exec::ExecArgs),
    /// Ask containers to end, then kill them
    Stop(commands::stop::StopArgs),
    /// Send a signal to containers
    Kill(commands::kill::KillArgs),
    /// Have all processes of containers stand still
    Pause(commands::pause::PauseArgs),
    /// Let paused containers go on
    Unpause(commands::pause::UnpauseArgs),
    /// Start stopped containers
    Start(commands::start::StartArgs),
    /// Connect to a running container
    Attach(commands::attach::AttachArgs),
    /// Stop and start containers
    Restart(commands::restart::RestartArgs),
    /// Give a container another name
    Rename(commands::rename::RenameArgs),
    /// Change limits of containers
    Update(commands::update::UpdateArgs),
    /// Remove containers
    Rm(commands::rm::RmArgs),
    /// Wait until containers end and print their exit codes
    Wait(commands::wait::WaitArgs),
    /// Show everything about containers or images as JSON
    Inspect(commands::inspect::InspectArgs),
    /// Fetch an image from a registry
    Pull(commands::pull::PullArgs),
    /// Send an image to a registry
    Push(commands::push::PushArgs),
    /// Keep credentials for a registry
    Login(commands::login::LoginArgs),
    /// Forget credentials for a registry
    Logout(commands::login::LogoutArgs),
    /// Look for images in registries
    Search(commands::search::SearchArgs),
    /// List images
    Images(commands::images::ImagesArgs),
    /// Remove images
    Rmi(commands::rmi::RmiArgs),
    /// Give an image a further name
    Tag(commands::tag::TagArgs),
    /// Write images to an archive
    Save(commands::save::SaveArgs),
    /// Read images from an archive
    Load(commands::load::LoadArgs),
    /// Make an image of a root filesystem's archive
    Import(commands::import::ImportArgs),
    /// Show the steps that an image was made by
    History(commands::history::HistoryArgs),
    /// Copy files between this machine and a container
    Cp(commands::cp::CpArgs),
    /// Write a container's root filesystem to an archive
    Export(commands::export::ExportArgs),
    /// Make an image of a container's changes
    Commit(commands::commit::CommitArgs),
    /// Show what a container has changed
    Diff(commands::diff::DiffArgs),
    /// Show versions
    Version(commands::version::VersionArgs),
    /// Show the host and what is stored
    Info(commands::info::InfoArgs),
    /// Explain how a container ended, or why it did not start
    Why(commands::why::WhyArgs),
    /// Find out what a workload needs of the kernel
    #[command(subcommand)]
    Learn(commands::learn::LearnCommand),
    /// Check what this host offers, and print the fix for what it lacks
    Doctor(commands::doctor::DoctorArgs),
    /// Containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Images
    #[command(subcommand)]
    Image(commands::image::ImageCommand),
    /// Root filesystems of distributions
    #[command(subcommand)]
    Rootfs(commands::rootfs::RootfsCommand),
    /// Namespaces
    #[command(subcommand)]
    Ns(commands::ns::NsCommand),
    /// Run a command in another root directory, with mounts, processes and devices of its own
    Chroot(Box<commands::chroot::ChrootArgs>),
    /// Overlays: several directories seen as one
    #[command(subcommand)]
    Overlay(commands::overlay::OverlayCommand),
    /// Networks: what there is, veth pairs, bridges
    #[command(subcommand)]
    Net(commands::net::NetCommand),
    /// Control groups
    #[command(subcommand)]
    Cgroup(commands::cgroup::CgroupCommand),
    /// Show containers, control groups and pressure as they change, or list the processes of a container
    Top(commands::top::ContainersArgs),
    /// Run a command, or keep a process, within limits
    Limit(Box<commands::limit::LimitArgs>),
    /// The child of `limit`
    #[command(name = "__limit", hide = true)]
    LimitInside(commands::limit::InsideArgs),
    /// Capabilities
    #[command(subcommand)]
    Caps(commands::caps::CapsCommand),
    /// The store
    #[command(subcommand)]
    System(SystemCommand),
    /// Print the script that makes a shell complete commands and names
    Completion(commands::completion::CompletionArgs),
    /// Print a manual page, or write all of them
    Man(commands::man::ManArgs),
    /// What the monitor calls when nobody waits for a container
    #[command(name = "__cleanup", hide = true)]
    Cleanup(commands::cleanup::CleanupArgs),
    /// What holds the terminal of an `exec` from which the user has detached
    #[command(name = "__hold", hide = true)]
    Hold(commands::hold::HoldArgs),
    /// Where a crash test can end this program
    #[cfg(feature = "failpoints")]
    #[command(name = "__failpoints", hide = true)]
    Failpoints(commands::failpoints::FailpointsArgs),
}

/// `onggi system …`.
#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Show what images and containers occupy
    Df(commands::df::DfArgs),
    /// Remove what is not used
    Prune(commands::system::PruneArgs),
    /// Verify everything that is stored
    Check(commands::system::CheckArgs),
    /// Show the host and what is stored
    Info(commands::info::InfoArgs),
}

/// `onggi container …`.
#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// Make a container from an image and run a command in it
    Run(Box<commands::run::RunArgs>),
    /// Make a container without starting it
    Create(Box<commands::create::CreateArgs>),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(commands::ps::PsArgs),
    /// Show where a container's ports are published
    Port(commands::port::PortArgs),
    /// Show what containers use
    Stats(commands::stats::StatsArgs),
    /// Show what a container wrote
    Logs(commands::logs::LogsArgs),
    /// Run a command in a running container
    Exec(commands::exec::ExecArgs),
    /// Ask containers to end, then kill them
    Stop(commands::stop::StopArgs),
    /// Send a signal to containers
    Kill(commands::kill::KillArgs),
    /// Have all processes of containers stand still
    Pause(commands::pause::PauseArgs),
    /// Let paused containers go on
    Unpause(commands::pause::UnpauseArgs),
    /// Start stopped containers
    Start(commands::start::StartArgs),
    /// Connect to a running container
    Attach(commands::attach::AttachArgs),
    /// Stop and start containers
    Restart(commands::restart::RestartArgs),
    /// List the processes of a container
    Top(commands::top::ProcessesArgs),
    /// Give a container another name
    Rename(commands::rename::RenameArgs),
    /// Change limits of containers
    Update(commands::update::UpdateArgs),
    /// Remove containers
    #[command(visible_alias = "remove")]
    Rm(commands::rm::RmArgs),
    /// Remove containers that do not run
    Prune(commands::system::ContainerPruneArgs),
    /// Wait until containers end and print their exit codes
    Wait(commands::wait::WaitArgs),
    /// Show everything about containers as JSON
    Inspect(commands::inspect::NamedInspectArgs),
    /// Tell by the exit code whether there is a container
    Exists(commands::inspect::ExistsArgs),
    /// Copy files between this machine and a container
    Cp(commands::cp::CpArgs),
    /// Write a container's root filesystem to an archive
    Export(commands::export::ExportArgs),
    /// Make an image of a container's changes
    Commit(commands::commit::CommitArgs),
    /// Show what a container has changed
    Diff(commands::diff::DiffArgs),
}

/// Parses, dispatches, prints an error once; the exit code.
pub(crate) fn main() -> u8 {
    if candidates::answer() {
        return 0;
    }
    let args: Vec<OsString> = roots::meant(std::env::args_os().collect());
    early::ask(&args);
    onggi_sys::resident::expect_writes(EXPECTED_HEAP, EXPECTED_STACK);
    let cli = match quick::parse(&args).map_or_else(|| lenient::parse(args), Ok) {
        Ok(cli) => cli,
        Err(e) => return usage::answer(&e),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(cli.global.log_level.unwrap_or(tracing::Level::WARN))
        .with_writer(std::io::stderr);
    // Fails only when a subscriber exists already; nothing sets one before.
    let _ = subscriber.try_init();
    traced::install();
    let codes = codes(&cli.command);
    let result = cli.command.dispatch(&cli.global);
    match result {
        Ok(code) => code,
        Err(e) => {
            e.print();
            e.exit_code(codes)
        }
    }
}

/// Which exit code an error of the engine becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codes {
    /// 125, 126 or 127, so that it cannot be taken for the container's own (`run`).
    Run,
    /// 126 or 127 when the command could not be invoked, else 1 (`exec`, `start`).
    Invoke,
    /// 1.
    Plain,
}

fn codes(command: &Command) -> Codes {
    match command {
        Command::Run(_) | Command::Container(ContainerCommand::Run(_)) | Command::Chroot(_) => Codes::Run,
        Command::Limit(_) | Command::LimitInside(_) | Command::Learn(_) => Codes::Run,
        Command::Exec(_)
        | Command::Container(ContainerCommand::Exec(_))
        | Command::Ns(_)
        | Command::Caps(_)
        | Command::Cgroup(_) => Codes::Invoke,
        _ => Codes::Plain,
    }
}

impl Command {
    fn dispatch(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Run(args) => args.run(global),
            Self::Create(args) => args.run(global),
            Self::Ps(args) => args.run(global),
            Self::Port(args) => args.run(global),
            Self::Stats(args) => args.run(global),
            Self::Logs(args) => args.run(global),
            Self::Exec(args) => args.run(global),
            Self::Stop(args) => args.run(global),
            Self::Kill(args) => args.run(global),
            Self::Pause(args) => args.run(global),
            Self::Unpause(args) => args.run(global),
            Self::Start(args) => args.run(global),
            Self::Attach(args) => args.run(global),
            Self::Restart(args) => args.run(global),
            Self::Rename(args) => args.run(global),
            Self::Update(args) => args.run(global),
            Self::Rm(args) => args.run(global),
            Self::Wait(args) => args.run(global),
            Self::Inspect(args) => args.run(global),
            Self::Pull(args) => args.run(global),
            Self::Push(args) => args.run(global),
            Self::Login(args) => args.run(global),
            Self::Logout(args) => args.run(global),
            Self::Search(args) => args.run(global),
            Self::Images(args) => args.run(global),
            Self::Rmi(args) => args.run(global),
            Self::Tag(args) => args.run(global),
            Self::Save(args) => args.run(global),
            Self::Load(args) => args.run(global),
            Self::Import(args) => args.run(global),
            Self::History(args) => args.run(global),
            Self::Cp(args) => args.run(global),
            Self::Export(args) => args.run(global),
            Self::Commit(args) => args.run(global),
            Self::Diff(args) => args.run(global),
            Self::Version(args) => args.run(global),
            Self::Info(args) => args.run(global),
            Self::Why(args) => args.run(global),
            Self::Learn(command) => command.run(global),
            Self::Doctor(args) => args.run(global),
            Self::Container(command) => command.dispatch(global),
            Self::Image(command) => command.dispatch(global),
            Self::Rootfs(command) => command.dispatch(global),
            Self::Ns(command) => command.run(global),
            Self::Chroot(args) => args.run(global),
            Self::Overlay(command) => command.run(global),
            Self::Net(command) => command.run(global),
            Self::Cgroup(command) => command.run(global),
            Self::Top(args) => args.run(global),
            Self::Limit(args) => args.run(),
            Self::LimitInside(args) => args.run(),
            Self::Caps(command) => command.run(global),
            Self::System(command) => command.dispatch(global),
            Self::Completion(args) => args.run(),
            Self::Man(args) => args.run(),
            Self::Cleanup(args) => args.run(global),
            Self::Hold(args) => args.run(),
            #[cfg(feature = "failpoints")]
            Self::Failpoints(args) => args.run(global),
        }
    }
}

impl SystemCommand {
    fn dispatch(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Df(args) => args.run(global),
            Self::Prune(args) => args.run(global),
            Self::Check(args) => args.run(global),
            Self::Info(args) => args.run(global),
        }
    }
}

impl ContainerCommand {
    fn dispatch(self, global: &GlobalArgs) -> Result<u8, CliError> {
        match self {
            Self::Prune(args) => args.run(global),
            Self::Run(args) => args.run(global),
            Self::Create(args) => args.run(global),
            Self::Ls(args) => args.run(global),
            Self::Port(args) => args.run(global),
            Self::Stats(args) => args.run(global),
            Self::Logs(args) => args.run(global),
            Self::Exec(args) => args.run(global),
            Self::Top(args) => args.run(global),
            Self::Stop(args) => args.run(global),
            Self::Kill(args) => args.run(global),
            Self::Pause(args) => args.run(global),
            Self::Unpause(args) => args.run(global),
            Self::Start(args) => args.run(global),
            Self::Attach(args) => args.run(global),
            Self::Restart(args) => args.run(global),
            Self::Rename(args) => args.run(global),
            Self::Update(args) => args.run(global),
            Self::Rm(args) => args.run(global),
            Self::Wait(args) => args.run(global),
            Self::Inspect(args) => args.run(global, commands::inspect::Kind::Container),
            Self::Exists(args) => args.run(global),
            Self::Cp(args) => args.run(global),
            Self::Export(args) => args.run(global),
            Self::Commit(args) => args.run(global),
            Self::Diff(args) => args.run(global),
        }
    }
}

/// The whole command tree, for manual pages, completion and tests.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn verbs_and_noun_groups_parse() {
        for line in [
            "onggi ps -a -q --no-trunc --filter status=exited --format json",
            "onggi --root /r --runroot /q __cleanup abc",
            "onggi container ls",
            "onggi container ps",
            "onggi image ls -q",
            "onggi image rm -f a b",
            "onggi logs -f --tail 5 -t x",
            "onggi stop -t 3 a b",
            "onggi kill -s HUP a",
            "onggi rm -fv a",
            "onggi inspect -f {{.Id}} a",
            "onggi exec -it -u 1:2 -w / -e A=b c sh -c true",
            "onggi run --rm -it -p 80:80 -v /a:/b:ro -h name -m 6m --cpus .5 host: sh -c -x",
            "onggi run --explain=json --net host nginx",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err().map(|e| e.to_string()));
        }
    }

    #[test]
    fn options_after_the_image_belong_to_the_command() {
        let Ok(Cli { command: Command::Run(args), .. }) = parse("onggi run --rm alpine ls --rm -it --name x") else {
            panic!("does not parse");
        };
        assert_eq!(args.container.image_and_command, ["alpine", "ls", "--rm", "-it", "--name", "x"]);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in [
            "onggi run",
            "onggi run --nope alpine",
            "onggi frobnicate",
            "onggi tag a",
            "onggi ps extra",
            "onggi exec c",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

//! `rootfs bootstrap debian`: a distribution's root filesystem, by the distribution's own tool.
//!
//! mmdebstrap(1), or debootstrap(8) where that is what there is, makes the tree; Onggi says which arguments (`plan.rs`),
//! lets its messages through, and makes an image of it. The same packages make the same image: nothing in it is younger
//! than the timestamp, and this machine's own files are left out. The tools are found in fixed directories.

mod plan;
mod settle;

use std::{
    fs::{DirBuilder, File},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use onggi_spec::{Digest, ImageReference, image::Platform};
use onggi_state::files::Lock;
use rustix::process::Signal;

use crate::{Engine, EngineError, ImportOptions, LoadFrom, create, names, transfer::FormatError};

pub use plan::{BootstrapOp, BootstrapPlan};

/// Where the tools are looked for.
const DIRS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What the tools may know of the caller's environment.
const PASSED_ON: [&str; 6] = ["http_proxy", "https_proxy", "no_proxy", "all_proxy", "HOME", "TMPDIR"];

/// For a tool that was asked to end: removing half a Debian takes seconds on a slow disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// What makes the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// mmdebstrap(1).
    Mmdebstrap,
    /// debootstrap(8).
    Debootstrap,
}

impl Tool {
    /// Its program and its Debian package.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mmdebstrap => "mmdebstrap",
            Self::Debootstrap => "debootstrap",
        }
    }
}

/// What becomes of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// It stays in this directory, for `rootfs:DIR`.
    Directory(PathBuf),
    /// An image, with a name or without.
    Image(Option<ImageReference>),
}

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// `stable`, `bookworm`, …
    pub suite: String,
    /// Which packages without being named; `minbase` when absent.
    pub variant: Option<String>,
    /// URLs, or lines of sources.list for mmdebstrap; Debian's when empty.
    pub mirrors: Vec<String>,
    /// Further packages.
    pub include: Vec<String>,
    /// Parts of the archive; `main` when empty.
    pub components: Vec<String>,
    /// Debian's name of an architecture; this machine's when absent.
    pub arch: Option<String>,
    /// Keys that the archive is signed with.
    pub keyring: Option<PathBuf>,
    /// Which tool; what there is when absent, mmdebstrap first.
    pub tool: Option<Tool>,
    /// No file is younger; seconds since 1970.
    pub timestamp: u64,
    /// Only errors are said.
    pub quiet: bool,
    /// What becomes of it.
    pub target: Target,
}

impl Bootstrap {
    /// Debian's stable, with nothing but what it needs.
    pub fn new(target: Target) -> Self {
        Self {
            suite: "stable".to_owned(),
            variant: None,
            mirrors: Vec::new(),
            include: Vec::new(),
            components: Vec::new(),
            arch: None,
            keyring: None,
            tool: None,
            timestamp: 0,
            quiet: false,
            target,
        }
    }
}

impl Engine {
    /// Makes the tree, and the image of it; returns the image's id.
    ///
    /// # Errors
    /// No tool is installed, an argument is none, the tool fails (it says why itself), or the disk is full.
    pub fn bootstrap(&self, request: &Bootstrap) -> Result<Option<Digest>, EngineError> {
        let plan = self.explain_bootstrap(request)?;
        if let Target::Directory(dir) = &request.target {
            refuse_filled(dir)?;
        }
        // A tool that cannot stream works below the store; nobody collects that meanwhile.
        self.spool_dir()?;
        let _keep = Lock::shared(&self.images_lock()?)?;
        let mut made = Ok(None);
        let (mut stream, mut scratch) = (None, None);
        for op in &plan.ops {
            let done = match op {
                BootstrapOp::MakeDirectory { path } => locked(path).map(|lock| scratch = Some(lock)),
                BootstrapOp::RemoveDirectory { path } => std::fs::remove_dir_all(path)
                    .or_else(|e| gone(Err(e)))
                    .map_err(|source| EngineError::WriteFile { path: path.clone(), source }),
                _ if made.is_err() => continue,
                BootstrapOp::Run { program, args, timestamp, streams: true } => {
                    Tooling::start(program, args, *timestamp).map(|tool| stream = Some(tool))
                }
                BootstrapOp::Run { program, args, timestamp, streams: false } => {
                    run(command(program, args, *timestamp), request.quiet)
                }
                BootstrapOp::Settle { dir, timestamp } => settle::settle(dir, *timestamp)
                    .map_err(|source| EngineError::WriteFile { path: dir.clone(), source }),
                BootstrapOp::Import { from, .. } => {
                    self.import_tree(request, from.as_deref(), stream.take()).map(|id| made = Ok(Some(id)))
                }
            };
            if let Err(e) = done {
                made = made.and(Err(e));
            }
        }
        drop(scratch);
        made
    }

    /// What [`Self::bootstrap`] would do.
    ///
    /// # Errors
    /// No tool is installed, or an argument is none.
    pub fn explain_bootstrap(&self, request: &Bootstrap) -> Result<BootstrapPlan, EngineError> {
        let (tool, program) = find(request.tool)?;
        let scratch = self.paths().root.join(format!("tmp/bootstrap-{}", names::random_id()?.short()));
        Ok(BootstrapPlan::new(request, tool, &program, &scratch)?)
    }

    fn import_tree(
        &self,
        request: &Bootstrap,
        from: Option<&Path>,
        stream: Option<Tooling>,
    ) -> Result<Digest, EngineError> {
        let timestamp = i64::try_from(request.timestamp).unwrap_or(i64::MAX);
        let options = ImportOptions {
            changes: vec!["CMD [\"bash\"]".to_owned(), format!("ENV PATH={}", DIRS.join(":"))],
            message: Some(format!("bootstrapped from Debian {}", request.suite)),
            platform: request.arch.as_deref().map(platform),
            created: Some(create::timestamp(timestamp.saturating_mul(1_000_000_000))),
            origin: "bootstrap".to_owned(),
        };
        let name = match &request.target {
            Target::Image(name) => name.as_ref(),
            Target::Directory(_) => None,
        };
        match (from, stream) {
            (Some(dir), _) => {
                let mut archive = tempfile::tempfile_in(self.spool_dir()?)
                    .map_err(|source| FormatError::Stream { action: "write a temporary file", source })?;
                let tree = onggi_storage::diff::Tree::open([dir])?;
                onggi_storage::diff::write_tree(&mut archive, &tree)?;
                io::Seek::rewind(&mut archive)
                    .map_err(|source| FormatError::Stream { action: "read a temporary file", source })?;
                Ok(self.import(LoadFrom::Stream(Box::new(archive), "the tree"), name, &options)?.id)
            }
            (None, Some(stream)) => {
                let (status, program) = (Arc::clone(&stream.status), stream.program.clone());
                let imported = self.import(LoadFrom::Stream(Box::new(stream), "the tool's archive"), name, &options);
                let status = *status.lock().unwrap_or_else(PoisonError::into_inner);
                match status {
                    Some(status) if !status.success() => Err(EngineError::ToolFailed { program, status }),
                    _ => Ok(imported?.id),
                }
            }
            (None, None) => Err(EngineError::ToolFailed { program: PathBuf::new(), status: ExitStatus::default() }),
        }
    }
}

/// What is not there need not be removed.
fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A directory that is locked until the last process that inherits the descriptor has ended: a tool whose caller was killed
/// goes on for a moment. Like everything in the store's `tmp/` it is collected when nobody holds the lock.
fn locked(path: &Path) -> Result<OwnedFd, EngineError> {
    let failed = |source| EngineError::MakeDir { path: path.to_owned(), source };
    // Its mode becomes that of the image's root; what is around it is closed to others.
    DirBuilder::new().mode(0o755).create(path).map_err(failed)?;
    let dir = File::open(path).map_err(failed)?;
    dir.lock().map_err(failed)?;
    rustix::io::fcntl_setfd(&dir, rustix::io::FdFlags::empty()).map_err(|e| failed(e.into()))?;
    Ok(dir.into())
}

fn find(wanted: Option<Tool>) -> Result<(Tool, PathBuf), EngineError> {
    let tools = wanted.map_or(vec![Tool::Mmdebstrap, Tool::Debootstrap], |tool| vec![tool]);
    for tool in &tools {
        let program = DIRS.iter().map(|dir| Path::new(dir).join(tool.name())).find(|path| path.is_file());
        if let Some(program) = program {
            return Ok((*tool, program));
        }
    }
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    Err(EngineError::Unsupported {
        what: "bootstrapping Debian".to_owned(),
        reason: format!("{} is not installed", names.join(" or ")),
        hint: format!("install the package: apt-get install {}", names[0]),
    })
}

/// A tool would unpack over what is there.
fn refuse_filled(dir: &Path) -> Result<(), EngineError> {
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(EngineError::Unsupported {
            what: format!("bootstrapping into {}", dir.display()),
            reason: "the directory is not empty".to_owned(),
            hint: "name one that does not exist yet, or --tag for an image".to_owned(),
        }),
        Ok(false) => Ok(()),
        Err(e) => gone(Err(e)).map_err(|source| EngineError::ReadFile { path: dir.to_owned(), source }),
    }
}

fn command(program: &Path, args: &[String], timestamp: u64) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", DIRS.join(":")).env("LC_ALL", "C.UTF-8");
    command.env("SOURCE_DATE_EPOCH", timestamp.to_string()).stdin(Stdio::null());
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    onggi_sys::tool::tie_to_us(&mut command);
    command
}

fn run(mut command: Command, quiet: bool) -> Result<(), EngineError> {
    let program = PathBuf::from(command.get_program());
    // Whatever the tool says is for the user; our own output is the result alone.
    let said = if quiet { Stdio::null() } else { io::stderr().into() };
    let status = command.stdout(said).status();
    match status.map_err(|source| EngineError::ReadFile { path: program.clone(), source })? {
        status if status.success() => Ok(()),
        status => Err(EngineError::ToolFailed { program, status }),
    }
}

/// A tool whose output is the archive. Its end is an error unless the tool succeeded: half a tree is no image.
struct Tooling {
    child: Child,
    out: ChildStdout,
    program: PathBuf,
    status: Arc<Mutex<Option<ExitStatus>>>,
}

impl Tooling {
    fn start(program: &Path, args: &[String], timestamp: u64) -> Result<Self, EngineError> {
        let failed = |source| EngineError::ReadFile { path: program.to_owned(), source };
        let mut child = command(program, args, timestamp).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let out = child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { child, out, program: program.to_owned(), status: Arc::default() })
    }
}

impl Read for Tooling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.out.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        let status = self.child.wait()?;
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        if status.success() { Ok(0) } else { Err(io::Error::other(format!("the tool ended with {status}"))) }
    }
}

impl Drop for Tooling {
    fn drop(&mut self) {
        // Ended already, unless reading was given up. Asked to, it removes the tree that it has made so far.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(LOOK),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's names of architectures in the words of images.
fn platform(arch: &str) -> Platform {
    let (architecture, variant) = match arch {
        "i386" => ("386", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v5")),
        "ppc64el" => ("ppc64le", None),
        "mips64el" => ("mips64le", None),
        other => (other, None),
    };
    let mut platform = onggi_image::native_platform();
    platform.architecture = architecture.to_owned();
    platform.variant = variant.map(str::to_owned);
    platform
}

//! What programs of this machine need to run somewhere else: an image of them, or a directory that becomes a root.
//!
//! The programs, what their ELF headers name (loader, libraries, and what those need), interpreters of scripts, and every
//! symbolic link on the way. It is found by reading files, never by running them.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
};

use onggi_spec::{
    ParseError,
    elf::{Needs, loader_cache, needs},
    monitor::OverlayMount,
    user::{ResolvedUser, UserSpec},
};

use crate::{EngineError, transfer::FormatError};

/// Where a program without a slash in its name is looked for.
pub(crate) const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Where the loader looks last.
const LIBRARY_DIRS: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// What the C library loads by itself to look names up.
const NSS: [&str; 2] = ["libnss_files.so.2", "libnss_dns.so.2"];
const NSS_FILES: [&str; 3] = ["/etc/nsswitch.conf", "/etc/passwd", "/etc/group"];
/// Symbolic links on the way to one file: the kernel's own limit.
const MAX_LINKS: usize = 40;
/// A program or library beyond this is not read: larger than any that is linked.
const MAX_FILE: u64 = 4 << 30;

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Names or paths of programs.
    pub(crate) programs: &'a [String],
    /// Further files and directories.
    pub(crate) with: &'a [PathBuf],
    /// Also what the C library loads to look up users and hosts.
    pub(crate) nss: bool,
}

/// One file that programs need, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its path, here and there.
    pub path: PathBuf,
    /// In words.
    pub reason: String,
    /// What it is.
    pub kind: ChosenKind,
    /// Other names, by which programs look it up: links lead from them to the path.
    pub named: Vec<PathBuf>,
}

/// What a chosen file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChosenKind {
    /// A directory.
    Directory {
        /// Its permissions.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it leads.
        target: PathBuf,
    },
    /// Anything else.
    File,
}

/// The files so far.
#[derive(Debug, Default)]
struct Files {
    chosen: BTreeMap<PathBuf, String>,
    /// Names that links lead from, and where to.
    named: BTreeMap<PathBuf, PathBuf>,
    /// What lies in directories of `--with`: nobody has said that it is run, so what it needs and is not here may be absent.
    data: HashSet<PathBuf>,
    notes: Vec<String>,
    todo: VecDeque<(PathBuf, Vec<PathBuf>)>,
    cache: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The files that programs of this machine need, a directory before what is in it.
///
/// # Errors
/// A program or a library is not on this machine.
pub fn program_files(programs: &[String]) -> Result<Vec<Chosen>, EngineError> {
    Ok(choose(Wanted { programs, with: &[], nss: false })?.files)
}

/// Who `spec` (`USER[:GROUP]`) is by the passwd and group files below a directory.
///
/// # Errors
/// The name is unknown there, or a file cannot be read.
pub fn user_in(dir: &Path, spec: &UserSpec) -> Result<ResolvedUser, EngineError> {
    let mount = OverlayMount {
        lower: vec![dir.to_owned()],
        upper: dir.to_owned(),
        work: PathBuf::new(),
        userxattr: false,
        volatile: false,
        submounts: Vec::new(),
        hidden: Vec::new(),
    };
    onggi_storage::resolve_user(&mount, Some(spec), &[]).map_err(|e| match e {
        // There is no container, whose root filesystem the store would speak of.
        onggi_storage::StorageError::NoSuchAccount { what, name } => {
            let file = dir.join(if what == "group" { "etc/group" } else { "etc/passwd" });
            ParseError::new(what, &name, format!("no such {what} in {}", file.display()))
                .hint("a number will do too")
                .into()
        }
        other => other.into(),
    })
}

/// What [`choose`] has found.
pub(crate) struct Choice {
    /// Every file, a directory before what is in it.
    pub(crate) files: Vec<Chosen>,
    /// The path of the first program.
    pub(crate) first: PathBuf,
    /// What would not run, or not find its data, in a root of these files alone.
    pub(crate) notes: Vec<String>,
}

/// Everything that the programs need.
///
/// # Errors
/// A program or a library is not on this machine.
pub(crate) fn choose(request: Wanted<'_>) -> Result<Choice, EngineError> {
    let mut files =
        Files { cache: loader_cache(&fs::read("/etc/ld.so.cache").unwrap_or_default()), ..Files::default() };
    let mut first = None;
    for name in request.programs {
        let path = find_program(name)?;
        files.add(&path, "a program that was asked for", Vec::new())?;
        first.get_or_insert(path);
    }
    for path in request.with {
        let path = std::path::absolute(path).map_err(read_failed(path))?;
        files.add_all(&path)?;
    }
    for name in request.programs {
        files.data.remove(&find_program(name)?);
    }
    for (program, library) in request.programs.iter().filter_map(|name| Some((name, python_library(name)?))) {
        if !files.chosen.contains_key(&library) {
            let dir = library.display();
            files.notes.push(format!("{program} reads {dir} when it runs: add it by --with {dir}"));
        }
    }
    if request.nss {
        for file in NSS_FILES.iter().map(Path::new).filter(|f| f.exists()) {
            files.add(file, "where users and hosts are looked up", Vec::new())?;
        }
    }
    files.resolve()?;
    if request.nss {
        let model = first.as_deref().and_then(|p| read_needs(p).ok().flatten()).unwrap_or_default();
        for name in NSS {
            if let Some(path) = files.find_library(name.as_bytes(), &model, Path::new("/"), &[]) {
                files.add(&path, "loaded by the C library to look up users and hosts", Vec::new())?;
            }
        }
        files.resolve()?;
    }
    let none = || FormatError::Location { text: String::new(), reason: "no program was named" };
    let first = first.ok_or_else(none)?;
    let notes = std::mem::take(&mut files.notes);
    Ok(Choice { files: files.list()?, first, notes })
}

/// Where a Python has its modules: without them it does not start. No header of the program names that directory.
fn python_library(name: &str) -> Option<PathBuf> {
    let real = fs::canonicalize(find_program(name).ok()?).ok()?;
    let version = real.file_name()?.to_str().filter(|name| name.starts_with("python3."))?;
    let library = real.parent()?.parent()?.join("lib").join(version);
    library.is_dir().then_some(library)
}

pub(crate) fn read_failed(path: &Path) -> impl FnOnce(std::io::Error) -> FormatError {
    let path = path.to_owned();
    move |source| FormatError::File { action: "read", path, source }
}

fn find_program(name: &str) -> Result<PathBuf, EngineError> {
    let wrong = |reason: &str, hint: &str| ParseError::new("program", name, reason).hint(hint);
    if !name.contains('/') {
        let found = PATH.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
        let reason = format!("it is in none of {}", PATH.join(", "));
        return Ok(found.ok_or_else(|| wrong(&reason, "write its path when it is somewhere else"))?);
    }
    let path = std::path::absolute(name).map_err(read_failed(Path::new(name)))?;
    match fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => {
            Err(wrong("it is a directory", "files and directories beside the programs are given by --with").into())
        }
        Ok(meta) if meta.mode() & 0o111 == 0 => {
            Err(wrong("it is not executable", "chmod +x makes it so; data is given by --with").into())
        }
        Ok(_) => Ok(path),
        Err(e) => Err(read_failed(&path)(e).into()),
    }
}

/// What an ELF file needs; `None` for anything else.
fn read_needs(path: &Path) -> Result<Option<Needs>, FormatError> {
    let mut file = File::open(path).map_err(read_failed(path))?;
    let mut head = [0; 4];
    let n = file.read(&mut head).map_err(read_failed(path))?;
    if head[..n] != *b"\x7fELF" {
        return Ok(None);
    }
    let mut bytes = head.to_vec();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(read_failed(path))?;
    Ok(needs(&bytes))
}

impl Files {
    /// With what each of them is.
    fn list(self) -> Result<Vec<Chosen>, EngineError> {
        let mut all = Vec::with_capacity(self.chosen.len());
        for (path, reason) in self.chosen {
            let meta = fs::symlink_metadata(&path).map_err(read_failed(&path))?;
            let kind = match meta.file_type() {
                t if t.is_symlink() => ChosenKind::Link { target: fs::read_link(&path).map_err(read_failed(&path))? },
                t if t.is_dir() => ChosenKind::Directory { mode: meta.mode() & 0o7777 },
                _ => ChosenKind::File,
            };
            let named = self.named.iter().filter(|(_, real)| **real == path).map(|(name, _)| name.clone()).collect();
            all.push(Chosen { path, reason, kind, named });
        }
        Ok(all)
    }

    /// Adds a file, the directories above it and every link on the way; returns nothing new for a known one.
    fn add(&mut self, path: &Path, reason: &str, rpath: Vec<PathBuf>) -> Result<(), EngineError> {
        let mut links = 0;
        let mut left: VecDeque<PathBuf> = parts(path);
        let mut at = PathBuf::from("/");
        while let Some(part) = left.pop_front() {
            if part.as_os_str() == ".." {
                at.pop();
                continue;
            }
            at.push(&part);
            let meta = fs::symlink_metadata(&at).map_err(read_failed(&at))?;
            if meta.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(read_failed(path)(std::io::Error::from_raw_os_error(40)).into());
                }
                let target = fs::read_link(&at).map_err(read_failed(&at))?;
                self.chosen.entry(at.clone()).or_insert_with(|| format!("a link to {}", target.display()));
                at = if target.is_absolute() {
                    PathBuf::from("/")
                } else {
                    at.parent().map(Path::to_owned).unwrap_or_default()
                };
                for part in parts(&target).into_iter().rev() {
                    left.push_front(part);
                }
            } else if meta.is_dir() {
                self.chosen.entry(at.clone()).or_insert_with(|| "a directory".to_owned());
            } else if !self.chosen.contains_key(&at) {
                self.chosen.insert(at.clone(), reason.to_owned());
                self.todo.push_back((at.clone(), rpath.clone()));
            }
        }
        if links > 0 && at.is_file() {
            self.named.insert(path.to_owned(), at);
        }
        Ok(())
    }

    /// A file, or a directory with everything in it.
    fn add_all(&mut self, path: &Path) -> Result<(), EngineError> {
        self.add(path, "asked for with --with", Vec::new())?;
        if fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            for entry in fs::read_dir(path).map_err(read_failed(path))? {
                let entry = entry.map_err(read_failed(path))?.path();
                self.data.insert(entry.clone());
                match fs::symlink_metadata(&entry).is_ok_and(|m| m.is_symlink()) && !entry.exists() {
                    true => self.dangling(&entry)?,
                    false => self.add_all(&entry)?,
                }
            }
        }
        Ok(())
    }

    /// A link to nothing is in the image what it is here.
    fn dangling(&mut self, link: &Path) -> Result<(), EngineError> {
        let target = fs::read_link(link).map_err(read_failed(link))?;
        self.chosen.insert(link.to_owned(), format!("a link to {}, which is not there", target.display()));
        Ok(())
    }

    /// Adds what the files so far need, until nothing is missing.
    fn resolve(&mut self) -> Result<(), EngineError> {
        while let Some((path, inherited)) = self.todo.pop_front() {
            let done = match read_needs(&path)? {
                Some(needs) => self.elf(&path, &needs, inherited),
                None => self.script(&path),
            };
            match done {
                Err(e) if self.data.contains(&path) => {
                    self.notes.push(format!("{} will not run there: {}", path.display(), crate::error_chain(&e)));
                }
                other => other?,
            }
        }
        Ok(())
    }

    fn elf(&mut self, path: &Path, needs: &Needs, inherited: Vec<PathBuf>) -> Result<(), EngineError> {
        let shown = path.display();
        if let Some(loader) = &needs.interpreter {
            self.add(&to_path(loader), &format!("the loader of {shown}"), Vec::new())?;
        }
        let own = |list: &[Vec<u8>]| list.iter().map(|p| expand(p, path)).collect::<Vec<_>>();
        // RPATH counts for libraries of libraries too; RUNPATH only for one's own, and it silences RPATH.
        let rpath = if needs.runpath.is_empty() { [own(&needs.rpath), inherited].concat() } else { Vec::new() };
        for name in &needs.libraries {
            let dirs = [rpath.clone(), own(&needs.runpath)].concat();
            let missing = || {
                let library = String::from_utf8_lossy(name);
                let reason = format!("{shown} needs it, and the loader of this machine would not find it");
                ParseError::new("library", &library, reason).hint(format!("`ldd {shown}` shows where others are"))
            };
            let found = self.find_library(name, needs, path, &dirs).ok_or_else(missing)?;
            self.add(&found, &format!("a library of {shown}"), rpath.clone())?;
        }
        Ok(())
    }

    /// The library that the loader would take: of the same word size and processor.
    fn find_library(&self, name: &[u8], model: &Needs, of: &Path, dirs: &[PathBuf]) -> Option<PathBuf> {
        if name.contains(&b'/') {
            return Some(expand(name, of));
        }
        let file = to_path(name);
        let cached = self.cache.iter().filter(|(n, _)| n == name).map(|(_, path)| to_path(path));
        let candidates = dirs.iter().map(|d| d.join(&file)).chain(cached);
        let mut candidates = candidates.chain(LIBRARY_DIRS.iter().map(|d| Path::new(d).join(&file)));
        let fits = |path: &PathBuf| {
            let own = read_needs(path).ok().flatten();
            own.is_some_and(|n| model.machine == 0 || (n.wide, n.machine) == (model.wide, model.machine))
        };
        candidates.find(|path| path.is_file() && fits(path))
    }

    /// `#!`: the interpreter, and what `env` looks up.
    fn script(&mut self, path: &Path) -> Result<(), EngineError> {
        let mut head = vec![0; 256];
        let n = File::open(path).and_then(|mut f| f.read(&mut head)).map_err(read_failed(path))?;
        let line = head[..n].split(|b| *b == b'\n').next().unwrap_or_default();
        let Some(line) = line.strip_prefix(b"#!") else { return Ok(()) };
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.split_whitespace();
        let Some(interpreter) = words.next() else { return Ok(()) };
        if !Path::new(interpreter).exists() {
            let reason = format!("its interpreter {interpreter} is not on this machine");
            let wrong = ParseError::new("script", &path.display().to_string(), reason);
            return Err(wrong.hint("install the interpreter, or correct the first line of the script").into());
        }
        let reason = format!("the interpreter of {}", path.display());
        self.add(Path::new(interpreter), &reason, Vec::new())?;
        let looked_up = words.find(|w| !w.starts_with('-') && !w.contains('='));
        match looked_up {
            Some(name) if interpreter.ends_with("/env") => self.add(&find_program(name)?, &reason, Vec::new()),
            _ => Ok(()),
        }
    }
}

fn parts(path: &Path) -> VecDeque<PathBuf> {
    let kept = |c: Component<'_>| match c {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().filter_map(kept).collect()
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// `$ORIGIN` is the directory of the file that says it; `$LIB` and `$PLATFORM` as Debian's loader has them.
fn expand(path: &[u8], of: &Path) -> PathBuf {
    let origin = fs::canonicalize(of).unwrap_or_else(|_| of.to_owned());
    let origin = origin.parent().map(|p| p.display().to_string()).unwrap_or_default();
    let text = String::from_utf8_lossy(path).into_owned();
    let text = text.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
    let lib = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let text = text.replace("${LIB}", &lib).replace("$LIB", &lib);
    PathBuf::from(text.replace("${PLATFORM}", std::env::consts::ARCH).replace("$PLATFORM", std::env::consts::ARCH))
}

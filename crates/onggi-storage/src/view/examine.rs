//! A command looked at from all sides, for people who ask why it did not start: where it was searched, what it is run
//! through, which libraries it needs and which of them are missing. Reads only; runs nothing.

use std::collections::{BTreeSet, VecDeque};

use onggi_spec::{
    elf::{self, Needs, loader_cache, needs},
    monitor::OverlayMount,
};

use super::executable::{ExecutableProblem, ExecutableQuery, find_executable, searched};
use super::overlay::View;
use crate::error::{Result, shown};
use crate::limits::{MAX_EXEC_HEAD, MAX_INTERPRETERS};

/// Libraries that are followed: programs have tens; what an image claims beyond that is not read.
const MAX_LIBRARIES: usize = 300;
/// Longest program or library that is read.
const MAX_ELF: u64 = 512 << 20;
/// Longest `/etc/ld.so.cache` that is read.
const MAX_CACHE: u64 = 16 << 20;
/// Where the loaders of glibc and musl look last (ld.so(8)).
const LIBRARY_DIRS: [&str; 9] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];

/// What was found out about a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// Paths at which it was looked for, in order, up to the one that is there.
    pub searched: Vec<String>,
    /// Where it is.
    pub program: Option<String>,
    /// What it is run through, in order: a script's interpreter, a program's loader.
    pub interpreters: Vec<Interpreter>,
    /// Why it cannot start.
    pub problem: Option<ExecutableProblem>,
    /// The libraries that it and they need.
    pub libraries: Vec<Library>,
}

/// One step on the way to a program that the kernel can load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// As the file names it; a carriage return at its end is shown as such.
    pub path: String,
    /// The file that names it.
    pub of: String,
    /// It is there.
    pub present: bool,
}

/// A shared library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// `DT_NEEDED`.
    pub name: String,
    /// The file that needs it.
    pub of: String,
    /// Where it is; `None` when it is missing.
    pub path: Option<String>,
}

impl Examination {
    /// The libraries that are not there.
    pub fn missing_libraries(&self) -> impl Iterator<Item = &Library> {
        self.libraries.iter().filter(|library| library.path.is_none())
    }
}

/// Looks at a command.
///
/// # Errors
/// A directory or file of the root filesystem cannot be read.
pub fn examine_command(mount: &OverlayMount, query: &ExecutableQuery<'_>) -> Result<Examination> {
    let view = View::open(mount)?;
    let mut out = Examination::default();
    for candidate in searched(query) {
        out.searched.push(candidate.clone());
        if view.lookup(candidate.as_bytes()).ok().flatten().is_some_and(|found| found.is_file()) {
            out.program = Some(candidate);
            break;
        }
    }
    out.problem = find_executable(mount, query)?.err();
    if let Some(program) = out.program.clone() {
        let last = follow(&view, &program, &mut out)?;
        libraries(&view, &last, &mut out)?;
    }
    Ok(out)
}

/// Follows `#!` lines and loaders; returns the path of the last ELF program on the way.
fn follow(view: &View, program: &str, out: &mut Examination) -> Result<String> {
    let mut at = program.to_owned();
    let mut elf = at.clone();
    for _ in 0..MAX_INTERPRETERS {
        let Some(found) = view.lookup(at.as_bytes()).ok().flatten() else { break };
        let head = found.read(at.as_bytes(), MAX_EXEC_HEAD)?;
        let script = head.strip_prefix(b"#!");
        let next = match script {
            Some(line) => script_interpreter(line),
            None => elf::interpreter_within(&head),
        };
        elf.clone_from(&at);
        let Some(next) = next else { break };
        let present = view.lookup(&next).ok().flatten().is_some_and(|f| f.is_file());
        let path = shown(&next);
        out.interpreters.push(Interpreter { path: path.clone(), of: at, present });
        // A loader has no libraries of its own: the program that names it has.
        if !present || script.is_none() {
            break;
        }
        at = path;
    }
    Ok(elf)
}

fn script_interpreter(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.split(|b| *b == b'\n').next()?;
    line.split(|b| matches!(b, b' ' | b'\t' | b'\0')).find(|word| !word.is_empty()).map(<[u8]>::to_vec)
}

/// One file whose libraries are to be found.
struct Todo {
    path: String,
    rpath: Vec<String>,
}

fn libraries(view: &View, program: &str, out: &mut Examination) -> Result<()> {
    let cache = loader_cache(&view.read(b"/etc/ld.so.cache", MAX_CACHE).ok().flatten().unwrap_or_default());
    let mut todo = VecDeque::from([Todo { path: program.to_owned(), rpath: Vec::new() }]);
    let mut known = BTreeSet::new();
    while let Some(Todo { path, rpath }) = todo.pop_front() {
        let Some(own) = read_needs(view, &path) else { continue };
        let dirs = |list: &[Vec<u8>]| list.iter().map(|dir| expand(dir, &path)).collect::<Vec<_>>();
        // RPATH counts for libraries of libraries too; RUNPATH only for one's own, and it silences RPATH.
        let inherited = if own.runpath.is_empty() { [dirs(&own.rpath), rpath].concat() } else { Vec::new() };
        let mut places = [inherited.clone(), dirs(&own.runpath)].concat();
        places.extend(LIBRARY_DIRS.map(str::to_owned));
        for name in &own.libraries {
            if out.libraries.len() >= MAX_LIBRARIES || !known.insert(name.clone()) {
                continue;
            }
            let found = find_library(view, name, &own, &places, &cache);
            if let Some(path) = &found {
                todo.push_back(Todo { path: path.clone(), rpath: inherited.clone() });
            }
            out.libraries.push(Library { name: shown(name), of: path.clone(), path: found });
        }
    }
    Ok(())
}

/// The library that the loader would take: of the same word size and processor.
fn find_library(
    view: &View,
    name: &[u8],
    model: &Needs,
    places: &[String],
    cache: &[(Vec<u8>, Vec<u8>)],
) -> Option<String> {
    let file = String::from_utf8_lossy(name).into_owned();
    if file.contains('/') {
        return is_file(view, &file).then_some(file);
    }
    let (own, last) = places.split_at(places.len() - LIBRARY_DIRS.len());
    let cached = cache.iter().filter(|(n, _)| n == name).map(|(_, path)| String::from_utf8_lossy(path).into_owned());
    let own = own.iter().map(|dir| format!("{dir}/{file}"));
    let mut candidates = own.chain(cached).chain(last.iter().map(|dir| format!("{dir}/{file}")));
    // The musl loader is its own C library: its file has no dynamic section to compare.
    candidates.find(|path| {
        is_file(view, path) && read_needs(view, path).is_none_or(|n| (n.wide, n.machine) == (model.wide, model.machine))
    })
}

fn is_file(view: &View, path: &str) -> bool {
    view.lookup(path.as_bytes()).ok().flatten().is_some_and(|found| found.is_file())
}

fn read_needs(view: &View, path: &str) -> Option<Needs> {
    needs(&view.read(path.as_bytes(), MAX_ELF).ok().flatten()?)
}

/// `$ORIGIN` is the directory of the file that says it; `$LIB` as Debian's loader has it.
fn expand(dir: &[u8], of: &str) -> String {
    let origin = of.rsplit_once('/').map_or("", |(dir, _)| dir);
    let text = String::from_utf8_lossy(dir).into_owned();
    let text = text.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    let lib = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    text.replace("${LIB}", &lib).replace("$LIB", &lib)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use super::*;

    fn examine(root: &Path, argv0: &str) -> Examination {
        let mount = OverlayMount {
            lower: Vec::new(),
            upper: root.to_owned(),
            work: root.to_owned(),
            userxattr: false,
            volatile: false,
            submounts: Vec::new(),
            hidden: Vec::new(),
        };
        examine_command(&mount, &ExecutableQuery { argv0, path: "/usr/bin:/bin", cwd: "/" }).expect("it is readable")
    }

    fn put(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories are made");
        fs::write(&path, bytes).expect("a file is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode is set");
    }

    #[test]
    fn a_script_without_its_interpreter_is_followed_to_what_is_missing() {
        let dir = tempfile::tempdir().expect("a directory");
        put(dir.path(), "bin/tool", b"#!/usr/bin/python9 -E\nprint(1)\n");
        let found = examine(dir.path(), "tool");
        assert_eq!(found.searched, ["/usr/bin/tool", "/bin/tool"]);
        assert_eq!(found.program.as_deref(), Some("/bin/tool"));
        let missing = Interpreter { path: "/usr/bin/python9".into(), of: "/bin/tool".into(), present: false };
        assert_eq!(found.interpreters, [missing]);
        assert!(matches!(found.problem, Some(ExecutableProblem::MissingInterpreter { .. })), "{found:?}");
    }

    #[test]
    fn missing_libraries_of_a_program_and_of_its_libraries_are_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let program = fs::read("/bin/ls").expect("read /bin/ls");
        let loader = needs(&program).and_then(|n| n.interpreter).expect("a dynamic program");
        let loader = String::from_utf8(loader).expect("a path");
        put(dir.path(), "bin/ls", &program);
        put(dir.path(), &loader[1..], &fs::read(&loader).expect("read the loader"));
        let found = examine(dir.path(), "/bin/ls");
        assert_eq!(found.problem, None);
        assert!(found.missing_libraries().any(|l| l.name == "libc.so.6" && l.of == "/bin/ls"), "{found:?}");
        let selinux = ["/lib/x86_64-linux-gnu/libselinux.so.1", "/usr/lib/x86_64-linux-gnu/libselinux.so.1"];
        if let Some(bytes) = selinux.iter().find_map(|p| fs::read(p).ok()) {
            put(dir.path(), "lib/libselinux.so.1", &bytes);
            let found = examine(dir.path(), "/bin/ls");
            assert!(found.missing_libraries().any(|l| l.of == "/lib/libselinux.so.1"), "{found:?}");
        }
    }

    #[test]
    fn what_is_nowhere_was_searched_everywhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let found = examine(dir.path(), "ghost");
        assert_eq!((found.searched.len(), found.program), (2, None));
        assert!(matches!(found.problem, Some(ExecutableProblem::NotFound { .. })));
    }
}

//! Looking the program up and executing it, both inside the container's root; and saying why it failed.

use std::{
    ffi::{CStr, CString, OsStr},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use onggi_spec::elf;
use onggi_sys::{Errno, SysError, process};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};

use super::Child;
use crate::error::{EXIT_CANNOT_INVOKE, EXIT_NOT_FOUND, Result, StartFailureError};

/// Used when the container's environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories of PATH that are searched.
const MAX_PATH_ENTRIES: usize = 256;
/// Bytes of a program that are looked at for `#!`; the kernel's BINPRM_BUF_SIZE.
const HEAD: usize = 256;

/// What is at a candidate's path.
enum Found {
    Program,
    Nothing,
    Refused(StartFailureError),
}

impl Child {
    /// Finds the program, as root; a failure that only the user has shows up at exec.
    pub(super) fn check_command(&mut self) -> Result<()> {
        if !self.entered {
            // The working directory could not be entered yet: a relative name means nothing here.
            return self.collect_candidates().map(drop);
        }
        let mut refused = None;
        let mut programs = Vec::new();
        let searched = !self.name().to_bytes().contains(&b'/');
        for candidate in self.collect_candidates()? {
            match look_at(&candidate, searched) {
                Found::Program => programs.push(candidate),
                Found::Nothing => {}
                Found::Refused(e) => refused = refused.or(Some(e)),
            }
        }
        if programs.is_empty() {
            return Err(refused.unwrap_or_else(|| self.not_found()));
        }
        self.candidates = programs;
        Ok(())
    }

    fn name(&self) -> &CStr {
        self.prepared.argv.strings().first().map_or(c"", CString::as_c_str)
    }

    fn search_path(&self) -> &str {
        self.prepared.search_path.as_deref().unwrap_or(DEFAULT_PATH)
    }

    fn collect_candidates(&mut self) -> Result<Vec<CString>> {
        let name = self.name().to_owned();
        let all: Vec<CString> = if name.is_empty() {
            Vec::new()
        } else if name.as_bytes().contains(&b'/') {
            vec![name]
        } else {
            let absolute = self.search_path().split(':').filter(|d| d.starts_with('/')).take(MAX_PATH_ENTRIES);
            absolute
                .filter_map(|dir| {
                    let full = [dir.trim_end_matches('/').as_bytes(), b"/", name.as_bytes()].concat();
                    CString::new(full).ok()
                })
                .collect()
        };
        self.candidates.clone_from(&all);
        Ok(all)
    }

    /// Engines recognise the failure by these words, which are those of Go's exec package and thereby runc's.
    fn not_found(&self) -> StartFailureError {
        let name = self.name().to_string_lossy();
        let failure = if name.contains('/') {
            StartFailureError::new(format!("exec: {name:?}: stat {name}: no such file or directory"))
                .hint("there is no such file in the root filesystem")
        } else {
            StartFailureError::new(format!("exec: {name:?}: executable file not found in $PATH"))
                .hint(format!("searched {}; give the program's full path, or set PATH", self.search_path()))
        };
        failure.exit_code(EXIT_NOT_FOUND)
    }

    /// As the user, with the capabilities that the program will have. Where the check itself is not possible
    /// (no such call, or a filter forbids it), exec will tell.
    pub(super) fn check_access(&self) -> Result<()> {
        let refused = |candidate: &CString| {
            let checked = rustix::fs::accessat(CWD, candidate, Access::EXEC_OK, AtFlags::EACCESS);
            checked == Err(Errno::ACCESS)
        };
        match self.candidates.first() {
            Some(first) if self.entered && self.candidates.iter().all(refused) => {
                Err(refuse(first, "permission denied"))
            }
            _ => Ok(()),
        }
    }

    /// Executes the best candidate that the kernel accepts. Returns only with a failure.
    pub(super) fn execute(&self) -> StartFailureError {
        let mut first: Option<(SysError, &CString)> = None;
        for candidate in &self.candidates {
            let e = process::exec(candidate, &self.prepared.argv, &self.prepared.envp);
            let absent = matches!(e.errno, Errno::NOENT | Errno::ACCESS | Errno::NOTDIR);
            let better = first.as_ref().is_none_or(|(f, _)| f.errno == Errno::NOENT && e.errno != Errno::NOENT);
            if better {
                first = Some((e, candidate));
            }
            if !absent {
                break;
            }
        }
        match first {
            Some((e, candidate)) => diagnose(candidate, &e).unwrap_or_else(|| self.not_found()),
            None => self.not_found(),
        }
    }
}

fn refuse(candidate: &CStr, why: &str) -> StartFailureError {
    let name = candidate.to_string_lossy();
    StartFailureError::new(format!("exec: {name:?}: {why}"))
        .exit_code(EXIT_CANNOT_INVOKE)
        .hint("name a program that may be executed (chmod +x), or run it through an interpreter such as sh")
}

fn look_at(candidate: &CStr, searched: bool) -> Found {
    match rustix::fs::stat(candidate) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            // Engines give 126 for the last words; not all of them know those of EISDIR.
            FileType::Directory => Found::Refused(refuse(candidate, "is a directory: permission denied")),
            FileType::RegularFile if stat.st_mode & 0o111 == 0 => {
                Found::Refused(refuse(candidate, "permission denied: it is not executable"))
            }
            FileType::RegularFile => Found::Program,
            _ => Found::Refused(refuse(candidate, "permission denied: it is not a regular file")),
        },
        Err(Errno::NOENT) => Found::Nothing,
        // In the search through PATH what is no directory holds nothing.
        Err(Errno::NOTDIR) if searched => Found::Nothing,
        Err(e) => {
            let why = onggi_sys::error::text(e.raw_os_error());
            Found::Refused(refuse(candidate, &format!("stat {}: {why}", candidate.to_string_lossy())))
        }
    }
}

/// Why the kernel refused an existing program; `None` when it does not exist. The text begins as runc's does:
/// `exec NAME: strerror`.
fn diagnose(program: &CStr, e: &SysError) -> Option<StartFailureError> {
    let name = program.to_string_lossy();
    let failure = |more: &str| {
        let more = if more.is_empty() { String::new() } else { format!(": {more}") };
        let text = format!("exec {name}: {}{more}", onggi_sys::error::text(e.raw()));
        StartFailureError::from_sys(text, e).exit_code(EXIT_CANNOT_INVOKE)
    };
    let head = read_head(program);
    match e.errno {
        Errno::NOENT => {
            rustix::fs::stat(program).ok()?;
            let interpreter = head.as_deref().and_then(|h| interpreter(program, h));
            let what = match &interpreter {
                Some(i) => format!("interpreter {i:?} of {name:?} not found in the container"),
                None => format!("interpreter of {name:?} not found in the container"),
            };
            let hint = match head.as_deref() {
                Some(h) if h.starts_with(b"#!") => "install the interpreter, or fix the script's first line (CRLF?)",
                _ => "the program is dynamically linked and its loader is missing: wrong C library or architecture?",
            };
            Some(failure(&what).exit_code(EXIT_NOT_FOUND).hint(hint))
        }
        Errno::NOEXEC => Some(match head.as_deref().and_then(elf::machine) {
            Some(machine) if !elf::runs_here(machine) => {
                failure(&format!("{name:?} is a program for {}", elf::machine_name(machine)))
                    .hint(format!("this machine is {}; use an image for it", elf::machine_name(elf::NATIVE)))
            }
            Some(_) => failure(&format!("{name:?} is a damaged program")),
            None => failure(&format!("{name:?} is neither a program nor a script with #!"))
                .hint("begin the script with #!/bin/sh, or run it with sh"),
        }),
        Errno::ACCESS | Errno::PERM => {
            Some(failure("").hint("check its permissions, those of its directories, and noexec mounts"))
        }
        _ => Some(failure("")),
    }
}

fn read_head(program: &CStr) -> Option<Vec<u8>> {
    let file = rustix::fs::open(program, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
    let mut buf = vec![0u8; HEAD];
    let n = rustix::io::pread(file.as_fd(), &mut buf, 0).ok()?;
    buf.truncate(n);
    Some(buf)
}

/// The interpreter that `#!` or the ELF header names.
fn interpreter(program: &CStr, head: &[u8]) -> Option<String> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|b| *b == b'\n').next()?;
        let word = line.split(|b| matches!(b, b' ' | b'\t')).find(|w| !w.is_empty())?;
        return Some(Path::new(OsStr::from_bytes(word)).display().to_string());
    }
    let file = rustix::fs::open(program, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let found = elf::interpreter(head, |offset, buf| rustix::io::pread(&file, buf, offset).ok())?;
    Some(String::from_utf8_lossy(&found).into_owned())
}

//! Carries the plan out: first everything that is named is opened, then one operation after the other is done.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use onggi_sys::{Errno, SysError, cred, ns, process::pidfd_open, trace};
use rustix::fs::{Mode, OFlags};

use super::{EnterOp, EnterPlan, facts, show};
use crate::PrimitiveError;

/// What the caller has to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Program and arguments.
    pub command: Vec<String>,
    /// In a child.
    pub fork: bool,
    /// With this environment instead of the caller's.
    pub environment: Option<Vec<(OsString, OsString)>>,
}

/// What an operation needs of the place where the caller was.
enum Opened {
    Nothing,
    /// A pidfd, a namespace, a directory.
    Fd(OwnedFd),
    /// Where the label of the next execve(2) is written, and what.
    Label(File, String),
    Environment(Vec<(OsString, OsString)>),
}

/// Enters. The calling process must have one thread.
///
/// # Errors
/// What is named is gone or may not be entered.
pub fn enter(plan: &EnterPlan) -> Result<Entered, PrimitiveError> {
    let opened: Vec<Opened> = plan.ops.iter().map(open).collect::<Result<_, _>>()?;
    let mut entered = Entered { command: Vec::new(), fork: false, environment: None };
    for (op, opened) in plan.ops.iter().zip(opened) {
        trace::step("primitives", || show::words(op), || one(op, opened, &mut entered))?;
    }
    Ok(entered)
}

fn open(op: &EnterOp) -> Result<Opened, PrimitiveError> {
    Ok(match op {
        EnterOp::Context { pid } => label(*pid)?,
        EnterOp::Environment { pid } => Opened::Environment(environment(*pid)?),
        EnterOp::Join { pid, .. } => Opened::Fd(pidfd(*pid)?),
        EnterOp::JoinFile { file, .. } => Opened::Fd(facts::open(file)?.0),
        EnterOp::Root { dir } | EnterOp::Workdir { dir } => Opened::Fd(directory(dir)?),
        EnterOp::Inside { .. } | EnterOp::Become { .. } | EnterOp::Fork | EnterOp::Execute { .. } => Opened::Nothing,
    })
}

fn one(op: &EnterOp, opened: Opened, entered: &mut Entered) -> Result<(), PrimitiveError> {
    let failed = |source| PrimitiveError::Sys { operation: show::tried(op), source };
    match (op, opened) {
        (EnterOp::Join { kinds, .. }, Opened::Fd(fd)) => {
            let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
            ns::join(fd.as_fd(), flags).map_err(failed)?;
        }
        (EnterOp::JoinFile { kind, .. }, Opened::Fd(fd)) => ns::join(fd.as_fd(), kind.flag()).map_err(failed)?,
        (EnterOp::Root { .. }, Opened::Fd(fd)) => {
            let call = |call| move |e| failed(SysError::new(call, ".", e));
            rustix::process::fchdir(&fd).map_err(call("fchdir"))?;
            rustix::process::chroot(".").map_err(call("chroot"))?;
        }
        (EnterOp::Workdir { .. }, Opened::Fd(fd)) => {
            rustix::process::fchdir(&fd).map_err(|e| failed(SysError::new("fchdir", "", e)))?;
        }
        (EnterOp::Inside { dir }, _) => {
            rustix::process::chdir(dir).map_err(|e| failed(SysError::new("chdir", format!("{dir:?}"), e)))?;
        }
        (EnterOp::Context { .. }, Opened::Label(mut file, text)) => {
            file.write_all(text.as_bytes()).map_err(|e| failed(SysError::new("write", &text, errno(&e))))?;
        }
        (EnterOp::Environment { .. }, Opened::Environment(all)) => entered.environment = Some(all),
        (EnterOp::Become { uid, gid }, _) => become_user(*uid, *gid).map_err(failed)?,
        (EnterOp::Fork, _) => entered.fork = true,
        (EnterOp::Execute { command }, _) => entered.command.clone_from(command),
        // `open` gives each operation what it needs.
        _ => {}
    }
    Ok(())
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}

fn pidfd(pid: i32) -> Result<OwnedFd, PrimitiveError> {
    match pidfd_open(pid) {
        Ok(fd) => Ok(fd),
        Err(e) if matches!(e.errno, Errno::SRCH | Errno::INVAL) => Err(PrimitiveError::NoProcess { pid }),
        Err(source) => Err(PrimitiveError::Sys { operation: format!("open process {pid}"), source }),
    }
}

fn directory(dir: &Path) -> Result<OwnedFd, PrimitiveError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty());
    opened.map_err(|e| PrimitiveError::Read { path: dir.to_owned(), source: e.into() })
}

fn environment(pid: i32) -> Result<Vec<(OsString, OsString)>, PrimitiveError> {
    let path = format!("/proc/{pid}/environ");
    let bytes = fs::read(&path).map_err(|source| PrimitiveError::Read { path: path.into(), source })?;
    let pair = |line: &[u8]| {
        let at = line.iter().position(|b| *b == b'=').filter(|at| *at > 0)?;
        Some((OsStr::from_bytes(&line[..at]).to_owned(), OsStr::from_bytes(&line[at + 1..]).to_owned()))
    };
    Ok(bytes.split(|b| *b == 0).filter_map(pair).collect())
}

/// The label of a process, and where that of the next execve(2) is written (apparmor(7), selinux(8)).
fn label(pid: i32) -> Result<Opened, PrimitiveError> {
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y");
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    let (current, exec) = match (apparmor, selinux) {
        (true, _) => ("attr/apparmor/current", "attr/apparmor/exec"),
        (false, true) => ("attr/current", "attr/exec"),
        (false, false) => {
            return Err(PrimitiveError::Refused {
                message: format!("process {pid} has no label: neither AppArmor nor SELinux is active here"),
                hint: "leave --follow-context out".to_owned(),
            });
        }
    };
    let path = format!("/proc/{pid}/{current}");
    let text = fs::read_to_string(&path).map_err(|source| PrimitiveError::Read { path: path.into(), source })?;
    let text = text.trim_matches(['\0', '\n', ' ']);
    let path = format!("/proc/thread-self/{exec}");
    let file = OpenOptions::new().write(true).open(&path);
    let file = file.map_err(|source| PrimitiveError::Read { path: path.into(), source })?;
    Ok(Opened::Label(file, if apparmor { format!("exec {}", profile(text)) } else { text.to_owned() }))
}

/// `docker-default` of `docker-default (enforce)`.
fn profile(label: &str) -> &str {
    label.rsplit_once(" (").map_or(label, |(name, _)| name)
}

/// As nsenter(1): further groups go when the group changes.
fn become_user(uid: Option<u32>, gid: Option<u32>) -> Result<(), SysError> {
    if let Some(gid) = gid {
        match cred::set_groups(&[]) {
            // A user namespace without that right leaves the groups as they are.
            Err(e) if e.errno != Errno::PERM => return Err(e),
            _ => {}
        }
        cred::set_gid(gid)?;
    }
    uid.map_or(Ok(()), cred::set_uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_read_as_the_process_got_it() {
        let own = environment(std::process::id().cast_signed()).expect("it is ours");
        assert!(own.iter().any(|(name, _)| name == "PATH"), "{own:?}");
        assert!(matches!(environment(i32::MAX), Err(PrimitiveError::Read { .. })));
    }

    #[test]
    fn a_profile_is_named_without_its_mode() {
        assert_eq!(["a (enforce)", "unconfined", "a (b) (complain)"].map(profile), ["a", "unconfined", "a (b)"]);
    }

    #[test]
    fn without_anything_to_enter_the_command_is_left() {
        let plan = EnterPlan { ops: vec![EnterOp::Execute { command: vec!["id".into()] }] };
        let expected = Entered { command: vec!["id".into()], fork: false, environment: None };
        assert_eq!(enter(&plan).expect("nothing is done"), expected);
    }
}

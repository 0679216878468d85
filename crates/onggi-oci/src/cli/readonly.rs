//! Makes sure that this program runs from something that cannot be written through /proc/PID/exe (I4,
//! CVE-2019-5736): a read-only mount, else a sealed copy in memory. It re-executes itself once.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use onggi_sandbox::StartFailureError;
use onggi_sys::{mount, process::CStrings};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

use super::CliError;

const SELF: &str = "/proc/self/exe";

/// Returns when the executable is safe; otherwise replaces the process.
pub(super) fn ensure(argv: &[OsString]) -> Result<(), CliError> {
    if safe() {
        return Ok(());
    }
    let again = mount::read_only_file(Path::new(SELF)).ok().or_else(|| sealed_copy().ok());
    let Some(file) = again else {
        // Without privilege the program can only harm what its own user may change anyway.
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let text = "make this program's executable read-only: neither a mount nor a copy in memory is possible";
        let failure = StartFailureError::new(text);
        return Err(match rustix::fs::access(SELF, rustix::fs::Access::READ_OK) {
            Ok(()) => failure,
            Err(_) => failure.hint("/proc is not there: mount it with `mount -t proc proc /proc`"),
        }
        .into());
    };
    let env: Vec<Vec<u8>> = std::env::vars_os().map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat()).collect();
    let prepare = |e| StartFailureError::from_sys("re-execute this program", &e);
    let argv = CStrings::new(argv.iter().map(|a| a.as_bytes())).map_err(prepare)?;
    let envp = CStrings::new(env.iter().map(Vec::as_slice)).map_err(prepare)?;
    Err(prepare(onggi_sys::process::exec_fd(file.as_fd(), &argv, &envp)).into())
}

fn safe() -> bool {
    let read_only = |fs: rustix::fs::StatVfs| fs.f_flag.contains(StatVfsMountFlags::RDONLY);
    rustix::fs::statvfs(SELF).is_ok_and(read_only) || sealed()
}

fn sealed() -> bool {
    let Ok(file) = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return false };
    rustix::fs::fcntl_get_seals(&file).is_ok_and(|s| s.contains(SealFlags::WRITE))
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let mut from = std::fs::File::open(SELF)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut to = std::fs::File::from(rustix::fs::memfd_create("onggi-oci", flags)?);
    io::copy(&mut from, &mut to)?;
    rustix::fs::fcntl_add_seals(&to, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(to.into())
}

//! Keeps the runtime's own file out of a container's reach (I4, CVE-2019-5736).
//!
//! A process that enters a container is, until it executes the workload, this program: `/proc/PID/exe` then
//! leads to its file. Executed from a read-only clone of its mount, that link cannot be opened for writing,
//! whoever is root inside.

use std::{ffi::OsString, os::{fd::AsFd, unix::ffi::OsStrExt}, path::Path};

use onggi_sys::{
    mount::read_only_file,
    process::{CStrings, exec_fd},
};
use rustix::fs::StatVfsMountFlags;

use super::Failure;

/// Set for the second execution, so that an unexpected kernel cannot make a loop of it.
const MARK: &str = "_ONGGI_OCI_PROTECTED=1";

/// Executes this program again from a read-only mount, unless it runs from one already.
pub(crate) fn executable(args: &[OsString]) -> Result<(), Failure> {
    let own = Path::new("/proc/self/exe");
    let marked = std::env::var_os("_ONGGI_OCI_PROTECTED").is_some();
    let read_only = rustix::fs::statvfs(own).is_ok_and(|v| v.f_flag.contains(StatVfsMountFlags::RDONLY));
    // Without root the file belongs to somebody else, or the user could change it anyway.
    if marked || read_only || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // A root without CAP_SYS_ADMIN cannot clone mounts; neither can what it starts remount anything.
    let Ok(file) = read_only_file(own) else { return Ok(()) };
    let environment: Vec<Vec<u8>> = std::env::vars_os()
        .map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat())
        .chain([MARK.as_bytes().to_vec()])
        .collect();
    let strings = |items: Vec<&[u8]>| CStrings::new(items).map_err(|e| Failure::new(format!("execute onggi-oci again: {e}")));
    let argv = strings(args.iter().map(|a| a.as_bytes()).collect())?;
    let envp = strings(environment.iter().map(Vec::as_slice).collect())?;
    let failed = exec_fd(file.as_fd(), &argv, &envp);
    Err(Failure::new(format!("execute onggi-oci from a read-only mount: {failed}")))
}

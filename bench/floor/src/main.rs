//! `onggi-floor ROOTFS PROGRAM`: one container by bare system calls, and nothing around it.
//!
//! It makes six namespaces with one `clone3`, binds the root filesystem, mounts proc and a tmpfs, pivots,
//! and executes the program; then it waits. No limits, no capabilities, no seccomp, no state: no runtime can
//! be faster, so the ratio to this program says how much a runtime adds. Never part of an installation.

use std::{env, ffi::CString, io, process::exit, ptr};

/// The second argument of `clone3`, first version (64 bytes), from clone(2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

fn main() {
    let args: Vec<CString> = env::args().map(|arg| CString::new(arg).expect("arguments have no NUL")).collect();
    let [_, rootfs, program] = args.as_slice() else {
        eprintln!("usage: onggi-floor ROOTFS PROGRAM");
        exit(125);
    };
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let clone = CloneArgs {
        flags: u64::from(namespaces.cast_unsigned()),
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    // SAFETY: `clone` outlives the call and its size is passed with it; it asks for no shared memory and no
    // stack, so the child returns here on a copy of this one, as after fork; the process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of::<CloneArgs>()) };
    match pid {
        -1 => fail("clone3"),
        0 => contain(rootfs, program),
        pid => wait(pid as libc::pid_t),
    }
}

fn fail(call: &str) -> ! {
    eprintln!("onggi-floor: {call}: {}", io::Error::last_os_error());
    exit(125)
}

fn check(call: &str, result: i32) {
    if result != 0 {
        fail(call);
    }
}

fn mount(source: &std::ffi::CStr, target: &std::ffi::CStr, kind: &std::ffi::CStr, flags: libc::c_ulong) {
    // SAFETY: all three strings end with NUL and outlive the call; no filesystem here takes data.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null()) };
    check("mount", result);
}

fn contain(rootfs: &std::ffi::CStr, program: &std::ffi::CStr) -> ! {
    mount(c"", c"/", c"", libc::MS_REC | libc::MS_PRIVATE);
    mount(rootfs, rootfs, c"", libc::MS_BIND | libc::MS_REC);
    // SAFETY: the path ends with NUL and outlives the call.
    let result = unsafe { libc::chdir(rootfs.as_ptr()) };
    check("chdir", result);
    mount(c"proc", c"proc", c"proc", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
    mount(c"tmpfs", c"dev", c"tmpfs", libc::MS_NOSUID);
    // SAFETY: both paths end with NUL and are constants.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    check("pivot_root", if result == 0 { 0 } else { -1 });
    // SAFETY: the path ends with NUL and is a constant.
    let result = unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) };
    check("umount2", result);
    let argv = [program.as_ptr(), ptr::null()];
    let envp = [ptr::null()];
    // SAFETY: the path ends with NUL; both arrays end with a null pointer; all outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    fail("execve")
}

fn wait(pid: libc::pid_t) -> ! {
    let mut status = 0;
    // SAFETY: `status` is writable for the length of the call.
    let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if result != pid {
        fail("waitpid");
    }
    exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}

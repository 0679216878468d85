//! Programs of the machine that work for us: they are asked to end when we do, and what they mount ends with them.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use rustix::{
    mount::MountPropagationFlags,
    process::{Signal, getpid, getppid, set_parent_process_death_signal},
};

/// The program gets SIGTERM when the thread that starts it ends. Where the kernel lets us, which is for root, it has a mount
/// namespace of its own: mounts of the host still arrive there, its own leave with its last process.
pub fn tie_to_us(command: &mut Command) {
    let us = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // We may have ended before: then nobody sends it any more.
        if getppid() != Some(us) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: unshare takes an integer; CLONE_NEWNS changes which mounts this process sees and implies CLONE_FS, and
        // neither the memory nor the descriptors of another task.
        let own = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
        if own {
            rustix::mount::mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where a lock that another thread held stays locked: it makes system
    // calls (prctl, getppid, unshare, mount) and nothing else, takes no lock and allocates nothing; its errors are numbers.
    unsafe { command.pre_exec(before_exec) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("/bin/sleep");
            command.arg("1000").stdin(Stdio::null());
            tie_to_us(&mut command);
            command.spawn().expect("sleep starts")
        })
        .join()
        .expect("the thread ends");
        let ended = child.wait().expect("it can be waited for");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(libc::SIGTERM));
    }

    #[test]
    fn root_what_it_mounts_is_its_own() {
        let dir = std::env::temp_dir().join(format!("onggi-tool-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "mount -t tmpfs none \"$0\" && touch \"$0\"/x && ls \"$0\""]).arg(&dir);
        tie_to_us(&mut command);
        let done = command.output().expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&done.stdout), "x\n", "{done:?}");
        assert!(!dir.join("x").exists(), "the mount is seen outside");
        std::fs::remove_dir(&dir).expect("nothing is mounted there");
    }
}

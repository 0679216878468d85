//! The init of `--init`: PID 1 forks; the child goes on to the program, PID 1 reaps and forwards signals.
//!
//! A fork in place instead of a second executable: nothing of ours has to be visible in the container, and
//! the executable behind /proc/1/exe lies on a read-only mount (I4). PID 1 takes the program's credentials,
//! closes every descriptor and is not dumpable.

use std::{convert::Infallible, os::fd::AsFd};

use onggi_sys::{
    path,
    process::{self, CloneRequest, Cloned},
    signal::{self, number},
};

use super::Child;
use crate::{
    error::{EXIT_ENGINE, Result, Step},
    plan::ProcessOp,
};

impl Child {
    pub(super) fn fork_init(&mut self, done: &[ProcessOp], rest: &[ProcessOp]) -> Result<()> {
        match process::clone_process(CloneRequest::default()).step(|| "fork the init".into())? {
            Cloned::Child => Ok(()),
            Cloned::Parent { pid, .. } => self.be_init(pid, done, rest),
        }
    }

    fn be_init(&mut self, program: i32, done: &[ProcessOp], rest: &[ProcessOp]) -> ! {
        let profile = done.iter().find_map(|op| match op {
            ProcessOp::AppArmor { profile } => Some(profile),
            _ => None,
        });
        // Opened while that is allowed; written last, because the profile need not allow what comes before.
        let confinement = profile.map(|name| (name, self.open_own("attr/apparmor/current")));
        let own = rest.iter().filter(|op| {
            matches!(
                op,
                ProcessOp::NoNewPrivileges
                    | ProcessOp::BoundingSet { .. }
                    | ProcessOp::Credentials { .. }
                    | ProcessOp::Capabilities(_)
                    | ProcessOp::Umask { .. }
                    | ProcessOp::DieWithParent
            )
        });
        for op in own {
            if self.process_one(op).is_err() {
                // The program's own credentials fail in the same way, and it says so.
                process::exit_now(EXIT_ENGINE);
            }
        }
        let _ = process::set_dumpable(false);
        let _ = process::set_name(c"onggi-init");
        // The arguments of the monitor are nobody's business in the container.
        let _ = process::set_command_line(b"onggi-init");
        let _ = rustix::process::chdir(c"/");
        null_stdio();
        if let Some((name, file)) = confinement {
            let request = format!("changeprofile {name}");
            let confined = file.is_ok_and(|fd| path::write_once(fd.as_fd(), request.as_bytes(), "current").is_ok());
            if !confined {
                // The kernel ends the program with its PID 1: unconfined it must not go on.
                process::exit_now(EXIT_ENGINE);
            }
        }
        process::close_all_and(3, || reap_forever(program))
    }
}

/// The streams belong to the program: a reader must see their end when it closes them.
fn null_stdio() {
    use rustix::fs::{Mode, OFlags};
    let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else { return };
    for n in 0..3 {
        let _ = onggi_sys::spawn::install_stdio(null.as_fd(), n);
    }
}

/// Ends with the program's exit code; the kernel then kills what is left in the pid namespace.
fn reap_forever(program: i32) -> Infallible {
    let _ = signal::block_all();
    loop {
        while let Ok(Some((pid, exit))) = process::reap_any() {
            if pid == program {
                process::exit_now(exit.code());
            }
        }
        match signal::wait_any() {
            Ok(number::CHLD) => {}
            // A stop of the terminal's session is the program's business, PID 1 itself never stops.
            Ok(n) => drop(process::kill(program, n)),
            Err(_) => process::exit_now(EXIT_ENGINE),
        }
    }
}

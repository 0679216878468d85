//! A private machine for one test.
//!
//! The test's process replaces itself by `unshare`, which starts the same test again as PID 1 of new
//! network, mount and pid namespaces; that one starts it a third time as an ordinary child and reaps
//! orphans meanwhile, as an init does. When the test ends, the kernel ends whatever is left in there.
//!
//! It relies on one process per test, which nextest gives; with `cargo test` all tests that are not
//! filtered out run in the first one's namespaces, one after the other.

use std::{
    env,
    os::unix::process::CommandExt,
    process::{Command, exit},
};

use rustix::process::{Pid, WaitOptions, wait};

use crate::machine;

/// Ends a test whose name begins with `vm_` on any other machine than the guest of `cargo xtask vm`, before it has made
/// anything: it changes the machine's own control groups, units and profiles.
#[track_caller]
pub(crate) fn refuse_outside_of_the_guest() {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let test = name.rsplit("::").next().unwrap_or(name);
    let guest = || std::fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("onggi.guest"));
    assert!(!test.starts_with("vm_") || guest(), "{test} runs in the virtual machine alone: cargo xtask vm {test}");
}

const STAGE: &str = "ONGGI_E2E_STAGE";

/// Returns inside the private machine, with its network up. Must be the first thing that a test does.
pub fn isolated() {
    refuse_outside_of_the_guest();
    match env::var(STAGE).as_deref() {
        Err(_) => enter(),
        Ok("init") => init(),
        Ok(_) => machine::set_up_once(),
    }
}

fn this_test() -> Command {
    let mut command = Command::new(env::current_exe().expect("find this program"));
    command.args(env::args_os().skip(1));
    command
}

fn enter() {
    let test = this_test();
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]);
    unshare.arg("--").arg(test.get_program()).args(test.get_args()).env(STAGE, "init");
    panic!("start unshare (util-linux): {}", unshare.exec());
}

/// PID 1: waits for the test and reaps everything else.
#[expect(clippy::zombie_processes, reason = "the loop below waits for this child and for every other one")]
fn init() {
    let child = this_test().env(STAGE, "test").spawn().expect("start the test");
    let child = Pid::from_child(&child);
    loop {
        let (pid, status) = match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(error) => panic!("wait for the test: {error}"),
        };
        if pid == child {
            exit(status.exit_status().unwrap_or(101));
        }
    }
}

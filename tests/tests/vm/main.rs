//! The installed programs on a machine with systemd, pure cgroup version 2 and AppArmor: run by `cargo xtask vm`.
//!
//! Each test has a private machine (network, mounts, processes) and an empty store; the kernel's control groups and
//! profiles are shared. Those of `systemd` have the machine's own /run, where the buses are.

mod apparmor;
mod cgroup;
mod insight;
mod limits;
mod options;
mod systemd;

use onggi_tests::{Onggi, Ran, isolated};

/// A private machine and an empty store.
struct Stage {
    onggi: Onggi,
}

impl Stage {
    fn new() -> Stage {
        isolated();
        Stage { onggi: Onggi::new() }
    }

    /// `run --rm --network none OPTIONS host: sh -c SCRIPT`.
    fn try_script(&self, options: &[&str], script: &str) -> Ran {
        let image = ["host:", "sh", "-c", script];
        self.onggi.run(&[&["run", "--rm", "--network", "none"], options, &image].concat())
    }

    /// The same; it must end with 0. Its output.
    #[track_caller]
    fn script(&self, options: &[&str], script: &str) -> String {
        let ran = self.try_script(options, script);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    /// `run -d --network none OPTIONS host: sh -c 'wait for ever'`; its id.
    #[track_caller]
    fn start(&self, options: &[&str]) -> String {
        let image = ["host:", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"];
        self.onggi.ok(&[&["run", "-d", "--network", "none"], options, &image].concat())
    }

    /// One field of `inspect` as JSON.
    #[track_caller]
    fn inspect(&self, name: &str, pointer: &str) -> serde_json::Value {
        let text = self.onggi.ok(&["inspect", name]);
        let all: serde_json::Value = serde_json::from_str(&text).expect("inspect prints JSON");
        all[0].pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {text}")).clone()
    }
}

//! Control groups of one test, made by `onggi cgroup` below a name that no other test has.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use crate::{Onggi, eventually, isolated, machine::sh};

/// A name for groups, which go with this value; it is an error when one of them stays.
pub struct Lab {
    /// The program, with a store of its own.
    pub onggi: Onggi,
    /// The topmost group's path; nothing has made it yet.
    pub name: String,
}

impl Lab {
    /// In a private machine.
    pub fn new(word: &str) -> Lab {
        isolated();
        Lab::shared(word)
    }

    /// Among the machine's own processes: systemd's tools ask process 1 where the tree begins.
    pub fn shared(word: &str) -> Lab {
        let onggi = Onggi::new();
        let unique = onggi.dir().file_name().unwrap_or_default().to_string_lossy().replace("onggi-e2e-", "");
        Lab { onggi, name: format!("onggi-test-{word}-{unique}") }
    }

    /// The topmost group, or one below it.
    pub fn path(&self, below: &str) -> String {
        if below.is_empty() { self.name.clone() } else { format!("{}/{below}", self.name) }
    }

    /// `cgroup ARGUMENTS`, which must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.onggi.ok(&[&["cgroup"], arguments].concat())
    }

    /// What `cgroup ARGUMENTS` says when it is refused.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let ran = self.onggi.run(&[&["cgroup"], arguments].concat());
        assert_eq!(ran.code, Some(1), "{ran}");
        ran.stderr
    }

    /// The topmost group's directory in a hierarchy of version 1; that of version 2 has no name (`""`).
    pub fn dir(&self, hierarchy: &str) -> PathBuf {
        PathBuf::from("/sys/fs/cgroup").join(hierarchy).join(&self.name)
    }

    /// A file of the topmost group, or of one below it.
    #[track_caller]
    pub fn read(&self, hierarchy: &str, file: &str) -> String {
        let path = self.dir(hierarchy).join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
    }

    /// A process that waits in the group.
    pub fn sleeper(&self, group: &str) -> Child {
        let mut command = self.onggi.command(&["cgroup", "exec", group, "--", "sleep", "300"]);
        let child = command.stdout(Stdio::null()).spawn().expect("start a process");
        eventually("the process is in its group", || {
            let command = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap_or_default();
            (command.trim() == "sleep").then_some(())
        });
        child
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.onggi.run(&["cgroup", "rm", "-r", "--kill", "--force", &self.name]);
        let left = sh(&format!("find /sys/fs/cgroup -type d -name '{}' 2> /dev/null || true", self.name));
        assert!(std::thread::panicking() || left.is_empty(), "left: {left}");
    }
}

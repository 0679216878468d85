//! Labels of security modules on a kernel that has one. Run in the VM.

use std::{fs, os::unix::fs::symlink, process::Command};

use serde_json::json;

use super::harness::Bundle;

const LOOK: &str = "cat /proc/self/attr/current; cat /etc/denied 2>/dev/null || echo denied";

/// A loaded profile that goes with this value; it denies one file, so that it can be told from its name alone.
struct Profile(String);

impl Profile {
    fn load(b: &Bundle) -> Self {
        let this = Self(format!("onggi-test-{}", b.id));
        let flags = "flags=(attach_disconnected, mediate_deleted)";
        let rules = "file, capability, network, mount, umount, signal, ptrace, deny /etc/denied r,";
        this.parser("--replace", &format!("profile {} {flags} {{ {rules} }}", this.0));
        fs::write(b.root().join("etc/denied"), "read\n").unwrap();
        this
    }

    fn parser(&self, action: &str, text: &str) {
        let script = format!("printf '%s\\n' \"$1\" | apparmor_parser {action} --skip-cache");
        let status = Command::new("sh").args(["-c", &script, "sh", text]).status().unwrap();
        assert!(status.success(), "apparmor_parser {action}: {status}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove", &format!("profile {} {{ }}", self.0));
    }
}

/// CVE-2023-28642, the benign twin: the label is the kernel's, for `run` and for `exec`.
#[test]
fn vm_cve_2023_28642_benign_a_label_is_the_processes_and_is_enforced() {
    let mut b = Bundle::new(&format!("{LOOK}; sleep 60"));
    let profile = Profile::load(&b);
    b.config["process"]["apparmorProfile"] = json!(profile.0);
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    let expected = format!("{} (enforce)\ndenied\n", profile.0);
    b.until("the label", |b| b.output() == expected);
    assert_eq!(b.exec(&[], &["sh", "-c", LOOK]).out, expected);
    let other = b.exec(&["--apparmor", "unconfined"], &["sh", "-c", LOOK]).out;
    assert!(other == "unconfined\nread\n" || other == expected, "{other}");
}

/// CVE-2023-28642: whatever the image and the mounts make of /proc, the program never runs under another label.
#[test]
fn vm_cve_2023_28642_a_label_that_is_not_the_kernels_is_no_container() {
    // What a write to a file of the image, to a volume, or to another file of procfs would look like.
    let swallow = |b: &mut Bundle, how: usize| match how {
        0 => {
            for dir in ["proc/self/attr/apparmor", "fake/self/attr/apparmor"] {
                let _ = fs::remove_dir(b.root().join("proc"));
                fs::create_dir_all(b.root().join(dir)).unwrap();
            }
            fs::remove_dir_all(b.root().join("proc")).unwrap();
            symlink("/fake", b.root().join("proc")).unwrap();
            fs::write(b.root().join("fake/self/attr/apparmor/exec"), "").unwrap();
        }
        1 => {
            fs::create_dir_all(b.dir.join("volume/self/attr/apparmor")).unwrap();
            fs::write(b.dir.join("volume/self/attr/apparmor/exec"), "").unwrap();
            b.add_mount(json!({ "destination": "/proc", "type": "bind", "source": "volume", "options": ["rbind"] }));
        }
        n => {
            let at = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec", "/proc/self/attr", "/proc/thread-self"];
            b.add_mount(
                json!({ "destination": at[n - 2], "type": "bind", "source": "/proc/self/sched", "options": ["bind"] }),
            );
        }
    };
    for how in 0..6 {
        let mut b = Bundle::new(LOOK);
        let profile = Profile::load(&b);
        b.config["process"]["apparmorProfile"] = json!(profile.0);
        swallow(&mut b, how);
        let done = b.run();
        assert!(done.code == 1 && done.out.is_empty() && !done.err.is_empty(), "way {how}: {done:?}");
    }
}

/// A container that may mount covers the files by which labels are set, then somebody enters.
#[test]
fn vm_cve_2023_28642_exec_is_labelled_whatever_covers_the_containers_proc() {
    let mut b = Bundle::new("");
    let profile = Profile::load(&b);
    let cover = "mount -t tmpfs fake /proc && for n in self thread-self 1 2 3 4 5 6 7 8 9; do \
        mkdir -p /proc/$n/attr/apparmor; : > /proc/$n/attr/apparmor/exec; : > /proc/$n/attr/exec; done; echo ready; sleep 60";
    b.args(&["sh", "-c", cover]);
    for set in ["bounding", "effective", "permitted"] {
        b.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
    }
    b.config["process"]["apparmorProfile"] = json!(profile.0);
    assert_eq!(b.run_detached(&[]).code, 0, "{}", b.output());
    b.until("/proc is covered", |b| b.output().contains("ready"));
    let done = b.exec(&[], &["sh", "-c", "cat /etc/denied 2>/dev/null || echo denied"]);
    assert!(done.out == "denied\n" || done.code != 0 && done.out.is_empty(), "{done:?}");
}

/// A profile that is not loaded is an error that names it and says what to do; nothing has run.
#[test]
fn vm_cve_2023_28642_a_profile_that_is_not_loaded_is_an_error() {
    let mut b = Bundle::new("echo ran");
    b.config["process"]["apparmorProfile"] = json!(format!("onggi-test-missing-{}", b.id));
    let done = b.run();
    assert!(done.code == 1 && done.out.is_empty(), "{done:?}");
    assert!(done.err.contains("profile not loaded") && done.err.contains("hint="), "{}", done.err);
}

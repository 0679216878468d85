//! I5: what is mounted over a path is the device or terminal that is meant, checked on its own descriptor.

use std::os::unix::fs::symlink;

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::{Host, Jar};

/// Masks are the real /dev/null, else nothing runs.
const CHECK_MASK: &str = "test \"$(stat -c %t:%T /proc/keys)\" = 1:3 || exit 42";

#[test]
fn root_cve_2025_31133_a_redirected_dev_null_never_becomes_a_mask() {
    isolated();
    for target in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "../proc/sys/kernel/core_pattern", "zero"] {
        let mut jar = Jar::new(CHECK_MASK);
        jar.remove_mount("/dev");
        jar.remove_mount("/dev/pts");
        jar.link("dev/null", target);
        let host = Host::look(&jar);
        jar.run().refused();
        host.assert_unchanged(&jar);
    }
    // A plain file, and a bind over it.
    let mut jar = Jar::new(CHECK_MASK);
    jar.remove_mount("/dev");
    jar.remove_mount("/dev/pts");
    jar.write("rootfs/dev/null", "secret");
    jar.run().refused();
    // A /dev that comes ready-made: nothing is refused there before masks are made, and they are the host's.
    for target in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "nowhere"] {
        let mut jar = Jar::new(&format!("{CHECK_MASK}; echo masked"));
        jar.remove_mount("/dev");
        jar.remove_mount("/dev/pts");
        symlink(target, jar.make_dir("dev").join("null")).expect("make a link");
        jar.bind("dev", "/dev");
        let host = Host::look(&jar);
        jar.run().printed("masked\n");
        host.assert_unchanged(&jar);
    }
    let mut jar = Jar::new(CHECK_MASK);
    jar.bind("decoy/null", "/dev/null");
    let host = Host::look(&jar);
    jar.run().inside();
    host.assert_unchanged(&jar);
}

#[test]
fn root_cve_2025_31133_benign_a_dev_null_of_the_image_is_fine() {
    isolated();
    let mut jar = Jar::new(&format!("{CHECK_MASK}; cat /proc/keys; echo x > /dev/null && echo ok"));
    jar.remove_mount("/dev");
    jar.remove_mount("/dev/pts");
    let node = jar.root().join("dev/null");
    let char_device = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &node, char_device, mode, rustix::fs::makedev(1, 3)).expect("make a node");
    jar.run().printed("ok\n");
}

#[test]
fn root_cve_2025_52565_a_redirected_terminal_is_refused() {
    isolated();
    let script = "test \"$(stat -L -c %t /dev/console)\" = 88 || exit 42";
    // /dev/pts/ptmx leads to another devpts; /dev/pts leads away; there is none.
    for (at, target) in [("dev/pts/ptmx", "/dev/pts/ptmx"), ("dev/pts", "/proc/sys"), ("dev/pts", "/decoy")] {
        let mut jar = Jar::new(script);
        jar.remove_mount("/dev");
        jar.remove_mount("/dev/pts");
        jar.link(at, target);
        jar.config["process"]["terminal"] = json!(true);
        let host = Host::look(&jar);
        jar.run().refused();
        host.assert_unchanged(&jar);
    }
    // /dev/console leads into /proc: nothing may be covered there.
    for target in ["/proc/sys/kernel/core_pattern", "/proc/self/attr/exec", "/proc/sysrq-trigger"] {
        let mut jar = Jar::new(script);
        jar.remove_mount("/dev");
        jar.make_dir("rootfs/dev/pts");
        jar.link("dev/console", target);
        jar.config["process"]["terminal"] = json!(true);
        let host = Host::look(&jar);
        jar.run().refused();
        host.assert_unchanged(&jar);
    }
    // To the host: taken inside the root.
    let mut jar = Jar::new(script);
    jar.remove_mount("/dev");
    jar.make_dir("rootfs/dev/pts");
    jar.link("dev/console", jar.decoy().join("console"));
    jar.config["process"]["terminal"] = json!(true);
    let host = Host::look(&jar);
    jar.run().inside();
    host.assert_unchanged(&jar);
}

#[test]
fn root_cve_2025_52565_benign_a_terminal_is_the_console() {
    isolated();
    let mut jar = Jar::new("tty; stat -L -c %t /dev/console; test -w /dev/tty && echo controlling");
    jar.config["process"]["terminal"] = json!(true);
    let done = jar.run();
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(done.out.replace('\r', ""), "/dev/pts/0\n88\ncontrolling\n");
}

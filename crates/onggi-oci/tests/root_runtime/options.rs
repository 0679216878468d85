//! Every option of a mount that the specification lists (config.md, "Linux mount options"): what the kernel shows of a
//! mount that was asked for it, where the source has the contrary.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use serde_json::json;

use crate::harness::{Bundle, Done};

/// Options, the source that they are given, and what the kernel shows of the mount and of the one below it.
type Row = (&'static [&'static str], &'static str, &'static str, &'static str);

const STRICT: &str = "ro,nosuid,nodev,noexec,noatime,nosymfollow";
const PLAIN: &str = "rw,relatime";

/// A word of its own and after its contrary; any of them makes a bind lose the words that it was not given.
const TOP: [Row; 20] = [
    (&["ro"], "plain", "ro,relatime", PLAIN),
    (&["ro", "rw"], "strict", "rw,noatime", STRICT),
    (&["nosuid"], "plain", "rw,nosuid,relatime", PLAIN),
    (&["nosuid", "suid"], "strict", "rw,noatime", STRICT),
    (&["nodev"], "plain", "rw,nodev,relatime", PLAIN),
    (&["nodev", "dev"], "strict", "rw,noatime", STRICT),
    (&["noexec"], "plain", "rw,noexec,relatime", PLAIN),
    (&["noexec", "exec"], "strict", "rw,noatime", STRICT),
    (&["nosymfollow"], "plain", "rw,relatime,nosymfollow", PLAIN),
    (&["nosymfollow", "symfollow"], "strict", "rw,noatime", STRICT),
    (&["noatime"], "plain", "rw,noatime", PLAIN),
    (&["noatime", "atime", "relatime"], "strict", "rw,relatime", STRICT),
    (&["relatime"], "strict", "rw,relatime", STRICT),
    (&["noatime", "relatime", "norelatime"], "plain", "rw,noatime", PLAIN),
    (&["strictatime"], "plain", "rw", PLAIN),
    (&["noatime", "strictatime", "nostrictatime"], "plain", "rw,noatime", PLAIN),
    (&["nodiratime"], "plain", "rw,nodiratime,relatime", PLAIN),
    (&["nodiratime", "diratime", "relatime"], "strict", "rw,relatime", STRICT),
    (&["defaults"], "strict", STRICT, STRICT),
    (&["remount"], "strict", STRICT, STRICT),
];

const RECURSIVE: [Row; 19] = [
    (&["rro"], "plain", "ro,relatime", "ro,relatime"),
    (&["rrw"], "strict", "rw,nosuid,nodev,noexec,noatime,nosymfollow", "rw,nosuid,nodev,noexec,noatime,nosymfollow"),
    (&["rnosuid"], "plain", "rw,nosuid,relatime", "rw,nosuid,relatime"),
    (&["rsuid"], "strict", "ro,nodev,noexec,noatime,nosymfollow", "ro,nodev,noexec,noatime,nosymfollow"),
    (&["rnodev"], "plain", "rw,nodev,relatime", "rw,nodev,relatime"),
    (&["rdev"], "strict", "ro,nosuid,noexec,noatime,nosymfollow", "ro,nosuid,noexec,noatime,nosymfollow"),
    (&["rnoexec"], "plain", "rw,noexec,relatime", "rw,noexec,relatime"),
    (&["rexec"], "strict", "ro,nosuid,nodev,noatime,nosymfollow", "ro,nosuid,nodev,noatime,nosymfollow"),
    (&["rnosymfollow"], "plain", "rw,relatime,nosymfollow", "rw,relatime,nosymfollow"),
    (&["rsymfollow"], "strict", "ro,nosuid,nodev,noexec,noatime", "ro,nosuid,nodev,noexec,noatime"),
    (&["rnoatime"], "plain", "rw,noatime", "rw,noatime"),
    (
        &["ratime"],
        "strict",
        "ro,nosuid,nodev,noexec,relatime,nosymfollow",
        "ro,nosuid,nodev,noexec,relatime,nosymfollow",
    ),
    (
        &["rrelatime"],
        "strict",
        "ro,nosuid,nodev,noexec,relatime,nosymfollow",
        "ro,nosuid,nodev,noexec,relatime,nosymfollow",
    ),
    (&["rnorelatime"], "strict", STRICT, STRICT),
    (&["rstrictatime"], "plain", "rw", "rw"),
    (&["rstrictatime", "rnostrictatime"], "plain", PLAIN, PLAIN),
    (&["rnodiratime"], "plain", "rw,nodiratime,relatime", "rw,nodiratime,relatime"),
    (&["rnodiratime", "rdiratime"], "plain", PLAIN, PLAIN),
    (&["ro", "rrw"], "plain", PLAIN, PLAIN),
];

/// What the kernel shows of peers, of the mount and of the one below it.
const PROPAGATION: [Row; 8] = [
    (&["private"], "shared", "", "master"),
    (&["rprivate"], "shared", "", ""),
    (&["slave"], "shared", "master", "master"),
    (&["rslave"], "shared", "master", "master"),
    (&["shared"], "plain", "shared", ""),
    (&["rshared"], "plain", "shared", "shared"),
    (&["unbindable"], "plain", "unbindable", ""),
    (&["runbindable"], "plain", "unbindable", "unbindable"),
];

/// Words for the filesystem, and what it has of them.
const OF_FILESYSTEM: [(&[&str], &[&str]); 13] = [
    (&["sync"], &["sync"]),
    (&["sync", "async"], &[]),
    (&["dirsync"], &["dirsync"]),
    (&["lazytime"], &["lazytime"]),
    (&["lazytime", "nolazytime"], &[]),
    (&["mand"], &["mand"]),
    (&["mand", "nomand"], &[]),
    (&["iversion"], &[]),
    (&["noiversion"], &[]),
    (&["silent"], &[]),
    (&["loud"], &[]),
    (&["acl"], &[]),
    (&["noacl"], &[]),
];

/// Runs a bundle after it was given its sources, each a tmpfs with another one below it.
fn run_with_sources(b: &Bundle) -> Done {
    b.write_config();
    let script = format!(
        "set -e; mount --make-rprivate /
        for kind in plain strict shared; do
            mount -t tmpfs source $1/$kind; mkdir $1/$kind/sub; mount -t tmpfs source $1/$kind/sub
        done
        for at in strict strict/sub; do mount -o remount,bind,{STRICT} $1/$at; done
        mount --make-rshared $1/shared
        shift; exec \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(&b.dir).arg(env!("CARGO_BIN_EXE_onggi-oci"));
    command.arg("--root").arg(b.dir.join("state")).args(["run", "-b"]).arg(&b.dir).arg(&b.id);
    command.output().unwrap().into()
}

/// Mounts the rows one beside the other; the lines of mountinfo by destination.
fn look(rows: &[Row]) -> Vec<[Line; 2]> {
    look_below(rows, None)
}

/// The same in a root with this `rootfsPropagation`.
fn look_below(rows: &[Row], root: Option<&str>) -> Vec<[Line; 2]> {
    let mut b = Bundle::new("cat /proc/self/mountinfo");
    b.config["linux"]["rootfsPropagation"] = json!(root);
    for kind in ["plain", "strict", "shared"] {
        fs::create_dir(b.dir.join(kind)).unwrap();
    }
    for (number, (options, source, ..)) in rows.iter().enumerate() {
        let options = [&["rbind"], *options].concat();
        b.add_mount(json!({ "destination": format!("/m/{number}"), "source": source, "options": options }));
    }
    let done = run_with_sources(&b);
    let line = |at: String| Line::of(&done, &at);
    (0..rows.len()).map(|n| [line(format!("/m/{n}")), line(format!("/m/{n}/sub"))]).collect()
}

struct Line {
    attributes: String,
    peers: String,
    filesystem: String,
}

impl Line {
    fn of(done: &Done, at: &str) -> Line {
        let line = done.out.lines().find(|l| l.split(' ').nth(4) == Some(at));
        let line = line.unwrap_or_else(|| panic!("no {at}: {} {}", done.out, done.err));
        let (mount, filesystem) = line.split_once(" - ").unwrap();
        let peers = mount.split(' ').skip(6).filter_map(|p| p.split(':').next()).collect::<Vec<_>>().join(" ");
        let attributes = mount.split(' ').nth(5).unwrap().to_owned();
        Line { attributes, peers, filesystem: filesystem.split(' ').nth(2).unwrap_or_default().to_owned() }
    }
}

#[test]
fn root_every_attribute_option_is_what_the_kernel_shows_of_the_mount_and_not_of_those_below() {
    for ((options, source, top, sub), shown) in TOP.iter().zip(look(&TOP)) {
        assert_eq!(shown.map(|line| line.attributes), [*top, *sub], "{options:?} of {source}");
    }
}

#[test]
fn root_every_recursive_option_is_what_the_kernel_shows_of_all_mounts() {
    for ((options, source, top, sub), shown) in RECURSIVE.iter().zip(look(&RECURSIVE)) {
        assert_eq!(shown.map(|line| line.attributes), [*top, *sub], "{options:?} of {source}");
    }
}

#[test]
fn root_every_propagation_option_is_what_the_kernel_shows() {
    for ((options, source, top, sub), shown) in PROPAGATION.iter().zip(look(&PROPAGATION)) {
        assert_eq!(shown.map(|line| line.peers), [*top, *sub], "{options:?} of {source}");
    }
}

#[test]
fn root_what_a_container_mounts_reaches_the_host_only_when_the_root_is_shared_with_it_too() {
    let asked: [Row; 2] = [(&["shared"], "shared", "", ""), (&["rslave"], "shared", "", "")];
    // Of the mount that asks to be shared, of the one below it, and of the one that asks to be a slave.
    let roots = [
        (None, ["shared master", "master", "master"]),
        (Some("rslave"), ["shared master", "master", "master"]),
        (Some("rprivate"), ["shared", "", ""]),
        // Not recursive: the host's root mount is private or a slave, and that is not where the sources are.
        (Some("private"), ["shared", "shared", "master"]),
        (Some("slave"), ["shared", "shared", "master"]),
        (Some("shared"), ["shared", "shared", "master"]),
        (Some("rshared"), ["shared", "shared", "shared master"]),
    ];
    for (root, expected) in roots {
        let shown = look_below(&asked, root);
        let [[top, sub], [slave, _]] = &shown[..] else { panic!("{}", shown.len()) };
        assert_eq!([&top.peers[..], &sub.peers, &slave.peers], expected, "{root:?}");
    }
}

#[test]
fn root_a_source_on_the_hosts_root_mount_is_what_a_root_alone_is_asked_to_be() {
    for (root, expected) in [("private", "shared"), ("slave", "shared master"), ("shared", "shared")] {
        let mut b = Bundle::new("cat /proc/self/mountinfo");
        b.config["linux"]["rootfsPropagation"] = json!(root);
        fs::create_dir(b.dir.join("source")).unwrap();
        b.add_mount(json!({ "destination": "/m", "source": "source", "options": ["bind", "shared"] }));
        b.write_config();
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "shared", env!("CARGO_BIN_EXE_onggi-oci"), "--root"]);
        command.arg(b.dir.join("state")).args(["run", "-b"]).arg(&b.dir).arg(&b.id);
        let done: Done = command.output().unwrap().into();
        // Where bundles are on a mount of their own, that one stays shared.
        let on_root = fs::metadata(&b.dir).unwrap().dev() == fs::metadata("/").unwrap().dev();
        assert_eq!(Line::of(&done, "/m").peers, if on_root { expected } else { "shared" }, "{root}: {}", done.err);
    }
}

#[test]
fn root_every_option_for_the_filesystem_arrives_there_or_is_accepted() {
    let mut b = Bundle::new("cat /proc/self/mountinfo");
    for (number, (options, _)) in OF_FILESYSTEM.iter().enumerate() {
        let at = format!("/m/{number}");
        b.add_mount(json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": options }));
    }
    let done = b.run();
    for (number, (options, expected)) in OF_FILESYSTEM.iter().enumerate() {
        let line = Line::of(&done, &format!("/m/{number}"));
        let words: Vec<&str> = ["sync", "dirsync", "lazytime", "mand"]
            .into_iter()
            .filter(|word| line.filesystem.split(',').any(|shown| shown == *word))
            .collect();
        assert_eq!(words, *expected, "{options:?}: {}", line.filesystem);
    }
}

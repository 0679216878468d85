//! config.md, `root` and `mounts`: what is mounted where, with which options, in the container's mountinfo.

use std::{fs, os::unix::fs::symlink, process::Command};

use onggi_tests::Bundle;
use serde_json::{Value, json};

use crate::compare::{Known, known, same_output, same_output_but, same_view};

/// Shows what is mounted below /mnt and what can be done there.
const LOOK: &str = "echo '== mountinfo'; grep ' /mnt' /proc/self/mountinfo; echo '== files'; ls -R /mnt";

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// A source directory of the bundle with a file in it.
fn source(bundle: &Bundle) -> String {
    bundle.file("source/file", 0o644, "content\n");
    bundle.path().join("source").display().to_string()
}

fn same_mount(kind: &str, options: &[&str]) {
    same_output(LOOK, |bundle| {
        let source = if kind == "bind" { source(bundle) } else { kind.to_owned() };
        bundle.mount(mount("/mnt", kind, &source, options));
    });
}

#[test]
fn conformance_root_readonly() {
    for readonly in [true, false] {
        same_view(|bundle| bundle.config["root"]["readonly"] = json!(readonly));
        same_output("echo x > /file && cat /file; echo $?; echo y > /tmp/file; echo $?", |bundle| {
            bundle.config["root"]["readonly"] = json!(readonly);
        });
    }
    // What the host's mount refuses, the container's does.
    const KEPT: [Known; 1] = [known("output", "ro,nosuid,nodev,noatime", "D-root-flags")];
    same_output_but(&KEPT, "grep ' / / ' /proc/self/mountinfo | cut -d' ' -f6", |bundle| {
        let root = bundle.tmpfs("root", "nosuid,nodev,noatime,mode=755");
        let copy = Command::new("cp").arg("-aT").args([bundle.rootfs(), root]).status();
        assert!(copy.expect("start cp").success());
        bundle.config["root"] = json!({ "path": "root", "readonly": true });
    });
}

#[test]
fn conformance_root_path_absolute_relative_linked_or_missing() {
    same_output("ls /", |bundle| bundle.config["root"]["path"] = json!(bundle.rootfs()));
    same_output("ls /", |bundle| bundle.config["root"]["path"] = json!("./rootfs/"));
    same_output("ls /", |bundle| {
        symlink("rootfs", bundle.path().join("link")).unwrap();
        bundle.config["root"]["path"] = json!("link");
    });
    same_output("ls /", |bundle| bundle.config["root"]["path"] = json!("not-there"));
    same_output("ls /", |bundle| bundle.config["root"]["path"] = json!(""));
    same_output("ls /", |bundle| {
        bundle.config.as_object_mut().unwrap().remove("root");
    });
    same_output("ls /", |bundle| {
        bundle.file("rootfs-file", 0o644, "no directory");
        bundle.config["root"]["path"] = json!("rootfs-file");
    });
}

#[test]
fn conformance_mounts_bind_of_directory_and_file() {
    same_mount("bind", &["bind"]);
    same_mount("bind", &["rbind"]);
    same_mount("bind", &["bind", "ro"]);
    same_mount("bind", &["rbind", "ro", "nosuid", "nodev", "noexec"]);
    same_output(
        "echo '== mountinfo'; grep ' /etc/bound' /proc/self/mountinfo; echo '== rest'; cat /etc/bound; stat -c '%F %a' /etc/bound",
        |bundle| {
            let source = format!("{}/file", source(bundle));
            bundle.mount(mount("/etc/bound", "bind", &source, &["bind"]));
        },
    );
}

#[test]
fn conformance_mounts_bind_is_told_by_option_or_type() {
    same_output(LOOK, |bundle| {
        let source = source(bundle);
        bundle.mount(mount("/mnt", "none", &source, &["bind"]));
    });
    same_output(LOOK, |bundle| {
        let source = source(bundle);
        bundle.mount(json!({ "destination": "/mnt", "source": source, "options": ["rbind", "rw"] }));
    });
    // The type alone: runc and crun look for a filesystem named "bind" and fail.
    const BY_TYPE: [Known; 3] = [
        known("exit", "Some(0)", "D-bind-type"),
        known("files", "/mnt:\nfile", "D-bind-type"),
        known("bound", "BUNDLE/source", "D-bind-type"),
    ];
    let script = "echo '== bound'; grep ' /mnt' /proc/self/mountinfo | cut -d' ' -f4; echo '== files'; ls -R /mnt";
    same_output_but(&BY_TYPE, script, |bundle| {
        let source = source(bundle);
        bundle.mount(json!({ "destination": "/mnt", "type": "bind", "source": source }));
    });
    // A link of the image leads nowhere but into the image.
    const INSIDE: [Known; 2] =
        [known("exit", "Some(1)", "D-source-link"), known("output", "(absent)", "D-source-link")];
    same_output_but(&INSIDE, "cat /mnt/file", |bundle| {
        symlink(source(bundle), bundle.rootfs().join("link")).unwrap();
        bundle.mount(mount("/mnt", "bind", "rootfs/link", &["bind"]));
    });
    // Relative ones begin in the bundle, and `..` leads out of the root filesystem again.
    for relative in ["source", "./source", "rootfs/../source", "rootfs/bin/../../source"] {
        same_output(LOOK, |bundle| {
            source(bundle);
            bundle.mount(mount("/mnt", "bind", relative, &["bind"]));
        });
    }
}

#[test]
fn conformance_mounts_attribute_options() {
    for options in [
        &["bind", "ro", "rw"][..],
        &["bind", "nosuid", "suid"],
        &["bind", "noexec"],
        &["bind", "nodev", "dev"],
        &["bind", "noatime"],
        &["bind", "nodiratime"],
        &["bind", "relatime"],
        &["bind", "strictatime"],
        &["bind", "nosymfollow"],
        &["rbind", "rro"],
        &["rbind", "rnosuid", "rnodev", "rnoexec"],
        &["bind", "defaults"],
    ] {
        same_mount("bind", options);
    }
}

#[test]
fn conformance_mounts_propagation_options() {
    for option in ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"] {
        same_mount("bind", &["rbind", option]);
    }
}

#[test]
fn conformance_mounts_tmpfs_options() {
    same_mount("tmpfs", &[]);
    same_mount("tmpfs", &["size=64k", "mode=1770", "uid=7", "gid=8", "nr_inodes=20"]);
    same_mount("tmpfs", &["size=64k,mode=1770", "uid=7,gid=8,nr_inodes=20"]);
    same_mount("tmpfs", &["nosuid", "nodev", "noexec", "ro"]);
    same_mount("tmpfs", &["no-such-option"]);
    same_mount("tmpfs", &["sync", "dirsync", "lazytime"]);
    same_mount("tmpfs", &["rprivate", "noswap"]);
}

#[test]
fn conformance_mounts_tmpfs_on_an_existing_directory_keeps_its_mode() {
    same_output("stat -c '%a %u:%g' /data; ls /data", |bundle| {
        bundle.file("rootfs/data/old", 0o644, "");
        fs::set_permissions(bundle.rootfs().join("data"), std::os::unix::fs::PermissionsExt::from_mode(0o710)).unwrap();
        bundle.mount(mount("/data", "tmpfs", "tmpfs", &[]));
    });
}

#[test]
fn conformance_mounts_tmpcopyup() {
    same_output(
        "echo '== mountinfo'; grep ' /data' /proc/self/mountinfo; echo '== rest'; cat /data/dir/old; stat -c '%a %u:%g' /data/dir/old",
        |bundle| {
            bundle.file("rootfs/data/dir/old", 0o640, "copied\n");
            bundle.mount(mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]));
        },
    );
    // Who owns the directory may write to it before and after; runc and crun give it to root.
    const OWNER: [Known; 1] = [known("output", "755 33:44\n640 33:44", "D-copyup-owner")];
    same_output_but(&OWNER, "stat -c '%a %u:%g' /data /data/own", |bundle| {
        let file = bundle.file("rootfs/data/own", 0o640, "");
        for path in [file.as_path(), &bundle.rootfs().join("data")] {
            std::os::unix::fs::chown(path, Some(33), Some(44)).expect("give it to a user");
        }
        bundle.mount(mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]));
    });
    // Nothing is there to begin with.
    same_output("stat -c '%a %u:%g' /absent /absent/deep; ls -A /absent/deep", |bundle| {
        bundle.mount(mount("/absent/deep", "tmpfs", "tmpfs", &["tmpcopyup"]));
    });
}

#[test]
fn conformance_mounts_of_kernel_filesystems() {
    for kind in ["proc", "sysfs", "mqueue", "devpts", "tmpfs"] {
        same_output("echo '== mountinfo'; grep ' /mnt' /proc/self/mountinfo", |bundle| {
            bundle.mount(mount("/mnt", kind, kind, &["nosuid", "noexec", "nodev"]));
        });
    }
    same_output("true", |bundle| {
        bundle.mount(mount("/mnt", "no-such-filesystem", "x", &[]));
    });
}

#[test]
fn conformance_mounts_of_the_same_place_stack_in_order() {
    same_output(LOOK, |bundle| {
        let source = source(bundle);
        bundle.mount(mount("/mnt", "tmpfs", "one", &[]));
        bundle.mount(mount("/mnt/inner", "bind", &source, &["bind"]));
        bundle.mount(mount("/mnt/inner/file", "bind", &format!("{source}/file"), &["bind", "ro"]));
    });
    same_output(LOOK, |bundle| {
        bundle.mount(mount("/mnt", "tmpfs", "one", &["size=4k"]));
        bundle.mount(mount("/mnt", "tmpfs", "two", &["size=8k"]));
    });
}

#[test]
fn conformance_mounts_destination_is_made_in_the_rootfs() {
    same_output(
        "echo '== mountinfo'; grep ' /a/b/c' /proc/self/mountinfo; echo '== rest'; stat -c '%a %u:%g' /a /a/b",
        |bundle| {
            bundle.mount(mount("/a/b/c", "tmpfs", "tmpfs", &[]));
        },
    );
    same_output("echo '== mountinfo'; grep ' /mnt/relative' /proc/self/mountinfo", |bundle| {
        bundle.mount(mount("mnt/relative", "tmpfs", "tmpfs", &[]));
    });
    same_output("echo '== mountinfo'; grep ' /mnt/normal' /proc/self/mountinfo", |bundle| {
        bundle.mount(mount("/mnt/../mnt/./normal/", "tmpfs", "tmpfs", &[]));
    });
    same_output("cat /new/file; stat -c '%F %a' /new", |bundle| {
        let source = format!("{}/file", source(bundle));
        bundle.mount(mount("/new/file", "bind", &source, &["bind"]));
    });
}

#[test]
fn conformance_mounts_destination_through_links_stays_in_the_rootfs() {
    for target in ["/mnt", "../../../../mnt", "/not-there-yet", "mnt/deep"] {
        same_output("echo '== mountinfo'; grep -e ' /mnt' -e not-there /proc/self/mountinfo", |bundle| {
            symlink(target, bundle.rootfs().join("link")).unwrap();
            bundle.mount(mount("/link", "tmpfs", "tmpfs", &[]));
        });
    }
}

#[test]
fn conformance_mounts_that_cannot_be_are_refused() {
    same_output("true", |bundle| {
        bundle.mount(mount("/mnt", "bind", "/no/such/source", &["bind"]));
    });
    same_output("true", |bundle| {
        let source = source(bundle);
        bundle.mount(mount("/etc/passwd", "bind", &source, &["bind"]));
    });
    same_output("true", |bundle| {
        let source = format!("{}/file", source(bundle));
        bundle.mount(mount("/mnt", "bind", &source, &["bind"]));
    });
    same_output("true", |bundle| {
        bundle.mount(mount("", "tmpfs", "tmpfs", &[]));
    });
}

#[test]
fn conformance_mounts_over_proc_and_sys() {
    same_output("cat /proc/uptime", |bundle| {
        let source = format!("{}/file", source(bundle));
        bundle.mount(mount("/proc/uptime", "bind", &source, &["bind"]));
    });
    for destination in ["/proc", "/proc/self", "/proc/sys/kernel", "/sys"] {
        same_output("ls /sys /proc/sys/kernel | head -3", |bundle| {
            let source = source(bundle);
            bundle.mount(mount(destination, "bind", &source, &["bind"]));
        });
    }
}

#[test]
fn conformance_mounts_none_at_all() {
    // runc needs /proc to close its descriptors, crun the field; ours needs neither.
    const BARE: [Known; 2] = [
        known("exit", "Some(0)", "D-no-mounts"),
        known("output", "/bin /dev /etc /mnt /proc /root /sys /tmp", "D-no-mounts"),
    ];
    same_output_but(&BARE, "echo /*", |bundle| {
        bundle.config.as_object_mut().unwrap().remove("mounts");
        bundle.config["linux"]["maskedPaths"] = json!([]);
        bundle.config["linux"]["readonlyPaths"] = json!([]);
    });
    same_output("true", |bundle| {
        // Without /proc, but with paths to mask and nothing to mask in.
        bundle.config["mounts"] = json!([]);
    });
}

#[test]
fn conformance_mounts_nested_sources_bring_their_submounts_only_with_rbind() {
    for option in ["bind", "rbind"] {
        same_output("echo '== mountinfo'; grep ' /mnt' /proc/self/mountinfo; ls /mnt/sub", |bundle| {
            let sub = bundle.tmpfs("tree/sub", "mode=755");
            fs::write(sub.join("inner"), "").unwrap();
            bundle.mount(mount("/mnt", "bind", &bundle.path().join("tree").display().to_string(), &[option, "ro"]));
        });
    }
}

#[test]
fn conformance_mounts_bind_keeps_locked_flags_of_its_source() {
    same_output("echo '== mountinfo'; grep ' /mnt' /proc/self/mountinfo", |bundle| {
        let flags = bundle.tmpfs("flags", "nosuid,nodev,noexec,noatime");
        bundle.mount(mount("/mnt", "bind", &flags.display().to_string(), &["bind", "ro"]));
    });
}

#[test]
fn conformance_mounts_dev_as_bind_is_left_alone() {
    same_output("ls -l /dev/null | cut -c1; ls /dev | head -3", |bundle| {
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        bundle.mount(mount("/dev", "bind", "/dev", &["rbind", "rprivate"]));
    });
}

/// runc and crun need a null device in there, to give it to the container's user.
#[test]
fn conformance_mounts_dev_as_bind_without_devices() {
    const STARTS: [Known; 2] = [known("exit", "Some(0)", "D-dev-bind"), known("output", "file", "D-dev-bind")];
    same_output_but(&STARTS, "ls /dev", |bundle| {
        let mounts = bundle.config["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"].as_str().is_some_and(|at| !at.starts_with("/dev")));
        let from = source(bundle);
        bundle.mount(mount("/dev", "bind", &from, &["rbind"]));
    });
}

#[test]
fn conformance_mounts_cgroup() {
    // Its own group is the top, it is in it, and `ro` is what decides whether it may be changed.
    let look = "for c in memory pids cpu; do cd /sys/fs/cgroup/$c; grep -c '^1$' tasks; mkdir inner 2>&1 && rmdir inner; \
                grep \" /sys/fs/cgroup/$c \" /proc/self/mountinfo | cut -d' ' -f4,6 | tail -n1; done; cat /proc/self/cgroup | cut -d: -f3 | sort -u";
    for writable in ["ro", "rw"] {
        same_output(look, |bundle| {
            bundle.namespace(json!({ "type": "cgroup" }));
            let options = ["nosuid", "noexec", "nodev", "relatime", writable];
            bundle.mount(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
        });
    }
}

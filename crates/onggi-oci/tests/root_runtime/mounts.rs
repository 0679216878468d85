//! Mounts, devices and masks as the specification and runc have them.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::harness::{Bundle, Done};

const OFFSET: u32 = 100_000;

/// The container gets a user namespace whose root is the host's uid 100000.
pub(crate) fn in_user_namespace(b: &mut Bundle) {
    b.add_namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": OFFSET, "size": 65_536 }]);
    b.config["linux"]["uidMappings"] = map.clone();
    b.config["linux"]["gidMappings"] = map;
    give_away(&b.root(), OFFSET);
    fs::set_permissions(&b.dir, fs::Permissions::from_mode(0o711)).unwrap();
}

fn give_away(at: &Path, id: u32) {
    std::os::unix::fs::lchown(at, Some(id), Some(id)).unwrap();
    if at.is_dir() && !at.is_symlink() {
        for entry in fs::read_dir(at).unwrap().flatten() {
            give_away(&entry.path(), id);
        }
    }
}

/// Runs the bundle in a mount namespace of the test's own, after `script` (its `$1` is the bundle).
fn run_after(b: &Bundle, script: &str) -> Done {
    b.write_config();
    let whole = format!("set -e; mount --make-rprivate /; {script}; shift; exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &whole, "sh"]).arg(&b.dir).arg(env!("CARGO_BIN_EXE_onggi-oci"));
    command.arg("--root").arg(b.dir.join("state")).args(["run", "-b"]).arg(&b.dir).arg(&b.id);
    command.output().unwrap().into()
}

fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

/// Options of a bind of `host`, a mount with the options `on_host`; as /proc/self/mounts has them.
fn bound(on_host: &str, options: &str, user: bool) -> Result<Vec<String>, String> {
    let mut b = Bundle::new("grep ' /mnt ' /proc/self/mounts");
    fs::create_dir(b.dir.join("host")).unwrap();
    b.add_mount(bind("host", "/mnt", &options.split(',').collect::<Vec<_>>()));
    if user {
        in_user_namespace(&mut b);
    }
    let make = "mount -t tmpfs -o rw,suid,dev,exec,diratime,strictatime tmpfs $1/host; \
        mount -o remount,bind,diratime,strictatime $1/host";
    let done = run_after(&b, &format!("{make}; mount -o remount,bind,{on_host} $1/host"));
    match done.code {
        // Newer kernels, or other builds, show the inode numbers of a tmpfs as an option.
        0 => {
            Ok(done.out.split(' ').nth(3).unwrap().split(',').filter(|o| *o != "inode64").map(str::to_owned).collect())
        }
        _ => Err(done.err),
    }
}

#[test]
fn root_a_bind_takes_the_flags_it_is_given_and_clears_the_others() {
    let cases = [
        ("ro,noexec,nosymfollow,nodiratime", "bind", "ro,noexec,nodiratime,relatime,nosymfollow"),
        ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "rw,nodiratime,relatime"),
        ("ro", "bind,nosuid,nodev,rprivate", "rw,nosuid,nodev"),
        ("nosuid,nodev,noexec,noatime", "bind,dev,suid,exec,atime", "rw,noatime"),
        ("noatime", "bind,relatime", "rw,relatime"),
        ("noatime", "bind,nodiratime", "rw,nodiratime,relatime"),
        ("nodiratime", "bind,strictatime", "rw"),
    ];
    for (on_host, options, expected) in cases {
        assert_eq!(bound(on_host, options, false).unwrap().join(","), expected, "{on_host} → {options}");
    }
}

#[test]
fn root_a_bind_in_a_user_namespace_keeps_what_is_locked_or_fails() {
    let kept = [
        ("ro,noexec,nosymfollow,nodiratime", "bind,dev", "ro,noexec,nodiratime,relatime"),
        ("ro", "bind,nosuid,nodev,rprivate", "ro,nosuid,nodev"),
        ("rw,nodev,nosuid,noexec,noatime", "bind,ro", "ro,nosuid,nodev,noexec,noatime"),
        ("rw,nodev,nosymfollow", "bind,rw", "rw,nodev"),
        ("noatime,nodiratime", "bind,atime", "rw,noatime,nodiratime"),
    ];
    for (on_host, options, expected) in kept {
        assert_eq!(bound(on_host, options, true).unwrap().join(","), expected, "{on_host} → {options}");
    }
    let refused =
        [("ro", "bind,rw"), ("nodev", "bind,dev"), ("relatime", "bind,strictatime"), ("noatime", "bind,relatime")];
    for (on_host, options) in refused {
        let why = bound(on_host, options, true).unwrap_err();
        assert!(why.to_lowercase().contains("operation not permitted"), "{on_host} → {options}: {why}");
    }
}

/// Later binds may take what earlier ones have put into the root filesystem, also where the child of the clone may
/// not look for itself.
#[test]
fn root_a_source_in_the_root_filesystem_is_what_earlier_mounts_made_of_it() {
    for (user, mapped) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut b = Bundle::new("cat /final/x/deep/file");
        for sub in ["a/x", "b/deep"] {
            fs::create_dir_all(b.dir.join("src").join(sub)).unwrap();
        }
        fs::write(b.dir.join("src/b/deep/file"), "found").unwrap();
        fs::set_permissions(b.dir.join("src"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::create_dir(b.root().join("mnt")).unwrap();
        let root = b.root().display().to_string();
        b.add_mount(bind("src/a", "/mnt", &["bind"]));
        b.add_mount(bind("src/b", "/mnt/x", &["bind"]));
        let mut last = bind(&format!("{root}/mnt"), &format!("{root}/final"), &["rbind", "rprivate"]);
        if mapped {
            let map = json!([{ "containerID": 0, "hostID": OFFSET, "size": 65_536 }]);
            last["uidMappings"] = map.clone();
            last["gidMappings"] = map;
        }
        b.add_mount(last);
        if user {
            in_user_namespace(&mut b);
        }
        let done = b.run();
        assert_eq!(done.out, "found", "user namespace {user}, mapped {mapped}: {}", done.err);
    }
}

#[test]
fn root_id_mapped_mounts_take_their_own_ids_or_the_containers() {
    let script = "stat -c %u:%g /m/f /m/sub/f";
    let cases: [(&[&str], bool, &str); 4] = [
        (&["rbind", "idmap"], false, "200000:200000\n0:0\n"),
        (&["rbind", "ridmap"], false, "200000:200000\n200000:200000\n"),
        (&["rbind", "idmap"], true, "0:0\n65534:65534\n"),
        (&["rbind", "ridmap"], true, "0:0\n0:0\n"),
    ];
    for (options, user, expected) in cases {
        let mut b = Bundle::new(script);
        fs::create_dir_all(b.dir.join("data/sub")).unwrap();
        fs::create_dir(b.dir.join("other")).unwrap();
        fs::write(b.dir.join("data/f"), "").unwrap();
        fs::write(b.dir.join("other/f"), "").unwrap();
        let mut mount = bind("data", "/m", options);
        if user {
            in_user_namespace(&mut b);
        } else {
            let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 1000 }]);
            mount["uidMappings"] = map.clone();
            mount["gidMappings"] = map;
        }
        b.add_mount(mount);
        let done = run_after(&b, "mount --bind $1/other $1/data/sub");
        assert_eq!(done.out, expected, "{options:?}, user namespace {user}: {}", done.err);
    }
}

#[test]
fn root_mounts_that_contradict_themselves_are_invalid() {
    let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    let cases = [
        (
            json!({ "destination": "/m", "source": "rootfs", "options": ["bind"], "uidMappings": map }),
            "both uid and gid",
        ),
        (json!({ "destination": "/m", "source": "rootfs", "options": ["bind", "idmap"] }), "both uid and gid"),
        (
            json!({ "destination": "/m", "type": "tmpfs", "source": "t", "uidMappings": map, "gidMappings": map }),
            "only supported for bind-mounts",
        ),
        (json!({ "destination": "/m", "source": "rootfs" }), "neither a type nor the option bind"),
        (json!({ "destination": "/proc/self", "source": "rootfs", "options": ["bind"] }), "inside /proc"),
        (json!({ "destination": "/proc", "source": "rootfs", "options": ["bind"] }), "not of type proc"),
    ];
    for (mount, text) in cases {
        let mut b = Bundle::new("true");
        b.add_mount(mount.clone());
        let done = b.run();
        assert!(done.code != 0 && done.err.contains(text), "{mount}: {} {}", done.code, done.err);
    }
}

#[test]
fn root_a_tmpfs_has_the_mode_of_what_it_covers_unless_told_otherwise() {
    for (options, existing, expected) in
        [(json!([]), true, "710"), (json!(["mode=1500"]), true, "1500"), (json!([]), false, "1777")]
    {
        let mut b = Bundle::new("stat -c %a /t");
        if existing {
            fs::create_dir(b.root().join("t")).unwrap();
            fs::set_permissions(b.root().join("t"), fs::Permissions::from_mode(0o710)).unwrap();
        }
        b.add_mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options }));
        assert_eq!(b.run().out.trim(), expected);
        let left = fs::metadata(b.root().join("t")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(left, if existing { 0o710 } else { 0o755 }, "what is covered stays as it was");
    }
}

#[test]
fn root_a_read_only_dev_still_has_its_devices_and_what_is_mounted_below() {
    let mut b = Bundle::new(
        "grep '^tmpfs /dev ' /proc/self/mounts; touch /dev/x || echo ro; echo y > /dev/null && ls /dev/pts",
    );
    b.config["mounts"][1]["options"].as_array_mut().unwrap().push(json!("ro"));
    let done = b.run();
    assert!(done.out.contains(" ro,") && done.out.contains("ro\nptmx\n"), "{} {}", done.out, done.err);
}

#[test]
fn root_flags_of_filesystems_arrive() {
    let mut b = Bundle::new("grep ' /t ' /proc/self/mountinfo");
    let options = ["sync", "dirsync", "lazytime", "iversion", "silent", "noatime", "nosymfollow"];
    b.add_mount(json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options }));
    let out = b.run().out;
    let flags = [" rw,noatime,nosymfollow ", "sync", "dirsync", "lazytime"];
    assert!(flags.iter().all(|flag| out.contains(flag)), "{out}");
}

#[test]
fn root_a_mount_may_cover_the_root_itself() {
    let mut b = Bundle::new("ls /; touch /new");
    let other = b.dir.join("other");
    for dir in ["bin", "proc", "dev", "sys"] {
        fs::create_dir_all(other.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", other.join("bin/busybox")).unwrap();
    for applet in ["sh", "ls", "touch"] {
        symlink("busybox", other.join("bin").join(applet)).unwrap();
    }
    b.config["mounts"].as_array_mut().unwrap().insert(0, bind("other", "/", &["bind"]));
    let done = b.run();
    assert_eq!(done.out, "bin\ndev\nproc\nsys\n", "{}", done.err);
    assert!(other.join("new").exists() && !b.root().join("new").exists());
}

#[test]
fn root_binds_of_special_files_and_of_links_themselves() {
    let mut b = Bundle::new("stat -c %F /fifo; readlink /target; readlink /a/copy; cat /through");
    Command::new("mkfifo").arg(b.dir.join("fifo")).status().unwrap();
    fs::write(b.dir.join("file"), "content").unwrap();
    symlink("file", b.dir.join("link")).unwrap();
    symlink("nowhere", b.root().join("target")).unwrap();
    symlink("/deep/down/file", b.root().join("through")).unwrap();
    b.add_mount(bind("fifo", "/fifo", &["bind", "rro"]));
    b.add_mount(bind("link", "/target", &["bind", "dest-nofollow", "src-nofollow"]));
    b.add_mount(bind("link", "/a/copy", &["bind", "copy-symlink"]));
    b.add_mount(bind("file", "/through", &["bind"]));
    let done = b.run();
    assert_eq!(done.out, "fifo\nfile\nfile\ncontent", "{}", done.err);
    assert!(b.root().join("deep/down/file").is_file(), "a dangling link is followed inside the root");
}

#[test]
fn root_a_relative_destination_is_taken_from_the_root_with_a_warning() {
    let mut b = Bundle::new("cat /etc/one");
    fs::write(b.dir.join("one"), "1").unwrap();
    b.add_mount(json!({ "destination": "etc/one", "source": "one", "options": ["bind"] }));
    let done = b.run();
    assert_eq!(done.out, "1", "{}", done.err);
    assert!(done.err.contains("etc/one is not absolute"), "{}", done.err);
}

#[test]
fn root_proc_must_be_mounted_on_an_ordinary_directory() {
    let b = Bundle::new("true");
    fs::remove_dir(b.root().join("proc")).unwrap();
    symlink("/elsewhere", b.root().join("proc")).unwrap();
    let done = b.run();
    assert!(done.code != 0 && done.err.contains("must be mounted on ordinary directory"), "{}", done.err);
}

#[test]
fn root_propagation_of_the_root_is_as_asked() {
    let cases = [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("slave", "master:"),
        ("unbindable", "unbindable"),
        ("private", ""),
    ];
    for (asked, tag) in cases {
        let mut b = Bundle::new("grep ' / / ' /proc/self/mountinfo || cat /proc/self/mountinfo");
        b.config["linux"]["rootfsPropagation"] = json!(asked);
        b.write_config();
        let done = run_after(&b, "mount --bind $1/rootfs $1/rootfs; mount --make-shared $1/rootfs");
        let line =
            done.out.lines().find(|l| l.split(' ').nth(4) == Some("/")).unwrap_or_else(|| panic!("{}", done.err));
        let optional = line.split(' ').skip(6).take_while(|w| *w != "-").collect::<Vec<_>>().join(" ");
        let right = if tag.is_empty() { optional.is_empty() } else { optional.contains(tag) };
        assert!(right, "{asked}: {line}");
    }
    let mut b = Bundle::new("true");
    b.config["linux"]["rootfsPropagation"] = json!("sideways");
    assert!(b.run().err.contains("rootfsPropagation=sideways is not supported"));
}

#[test]
fn root_devices_may_be_anywhere_and_ptmx_stays_the_containers_own() {
    let mut b = Bundle::new("stat -c '%F %t:%T %a %u:%g' /sub/disk /dev/pipe; readlink /dev/ptmx");
    b.config["linux"]["devices"] = json!([
        { "path": "/sub/disk", "type": "b", "major": 1, "minor": 5, "fileMode": 0o157, "uid": 10, "gid": 11 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o660, "uid": 1, "gid": 2 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }
    ]);
    let done = b.run();
    assert_eq!(done.out, "block special file 1:5 157 10:11\nfifo 0:0 660 1:2\npts/ptmx\n", "{}", done.err);
    assert!(fs::metadata(b.root().join("sub/disk")).unwrap().file_type().is_block_device());
}

#[test]
fn root_a_device_that_the_host_does_not_have_can_be_given_to_a_user_namespace() {
    let mut b = Bundle::new(
        "stat -c '%F %t:%T %a %u:%g' /dev/mine; cat /dev/mine | head -c 0; echo x > /dev/mine && echo works",
    );
    b.config["linux"]["devices"] = json!([
        { "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o662, "uid": 10, "gid": 11 }
    ]);
    in_user_namespace(&mut b);
    let done = b.run();
    assert_eq!(done.out, "character special file 1:3 662 10:11\nworks\n", "{}", done.err);
}

#[test]
fn root_a_file_that_is_not_the_device_is_an_error() {
    let mut b = Bundle::new("true");
    fs::write(b.root().join("disk"), "").unwrap();
    b.config["linux"]["devices"] = json!([{ "path": "/disk", "type": "b", "major": 1, "minor": 5 }]);
    let done = b.run();
    assert!(done.code != 0 && done.err.contains("/disk"), "{}", done.err);
}

#[test]
fn root_sys_of_the_host_stands_in_where_a_new_one_is_not_allowed() {
    let mut b = Bundle::new("ls -d /sys/class; touch /sys/x || echo ro");
    b.remove_namespace("network");
    in_user_namespace(&mut b);
    let done = b.run();
    assert_eq!(done.out, "/sys/class\nro\n", "{}", done.err);
}

#[test]
fn root_a_mount_label_without_selinux_is_an_error_that_names_it() {
    assert!(!Path::new("/sys/fs/selinux/enforce").exists(), "this test is for machines without SELinux");
    let mut b = Bundle::new("true");
    b.config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    let done = b.run();
    assert!(done.code != 0 && done.err.contains("linux.mountLabel"), "{}", done.err);
}

#[test]
fn root_a_bind_of_a_file_on_a_directory_or_the_reverse_says_so_in_the_words_that_engines_look_for() {
    for (from_file, onto) in [(true, "/tmp"), (false, "/etc/passwd")] {
        let mut b = Bundle::new("echo ran");
        fs::create_dir_all(b.root().join("tmp")).unwrap();
        fs::create_dir_all(b.root().join("etc")).unwrap();
        fs::write(b.root().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        let source = if from_file { b.root().join("etc/passwd") } else { b.root().join("bin") };
        b.add_mount(json!({ "destination": onto, "type": "bind", "source": source, "options": ["rbind"] }));
        let done = b.run();
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{onto}: {}", done.err);
        let told = ["error mounting", onto, "not a directory", "hint="].iter().all(|t| done.err.contains(t));
        assert!(told, "{onto}: {}", done.err);
    }
    let mut b = Bundle::new("echo ran");
    fs::create_dir_all(b.root().join("etc")).unwrap();
    fs::write(b.root().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    b.add_mount(json!({ "destination": "/etc/passwd", "type": "tmpfs", "source": "tmpfs" }));
    let done = b.run();
    let told = ["error mounting", "/etc/passwd", "not a directory"].iter().all(|t| done.err.contains(t));
    assert!(done.code == 1 && told, "{}", done.err);
}

//! Images and configurations that try to get out, each with a benign twin.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use crate::harness::{Bundle, tree};

/// CVE-2019-5736: the image's entrypoint is the runtime itself, then somebody writes to it.
#[test]
fn root_cve_2019_5736_the_runtime_cannot_be_overwritten_through_proc() {
    let before = fs::read(env!("CARGO_BIN_EXE_onggi-oci")).unwrap();
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&["--init"]).code, 0);
    // As the container's root, with its capabilities: PID 1 is the runtime's own image.
    let script = "for i in 1 2 3 4 5 6 7 8 9; do for p in /proc/[0-9]*; do echo x >> $p/exe; done; done; true";
    let done = b.exec(&[], &["sh", "-c", script]);
    assert_eq!(done.code, 0);
    // From the host's side, with all rights: the mount itself refuses.
    let open = fs::OpenOptions::new().append(true).open(format!("/proc/{}/exe", b.pid()));
    assert!(open.is_err(), "the runtime's executable is writable through /proc");
    let mut twin = Bundle::new("true");
    twin.args(&["/proc/self/exe", "--version"]);
    let _ = twin.run();
    assert!(before == fs::read(env!("CARGO_BIN_EXE_onggi-oci")).unwrap());
}

/// CVE-2024-21626: the working directory leads through a leaked descriptor of the host.
#[test]
fn root_cve_2024_21626_a_working_directory_outside_the_root_is_refused() {
    for n in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 32] {
        let mut b = Bundle::new("ls; cat ../../../../../../etc/hostname");
        b.config["process"]["cwd"] = json!(format!("/proc/self/fd/{n}"));
        let done = b.run();
        assert_ne!(done.code, 0, "fd {n}: {}", done.out);
        assert_eq!(done.out, "");
    }
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    for n in [3, 4, 5, 6, 7, 8] {
        let cwd = format!("/proc/self/fd/{n}");
        assert_ne!(b.exec(&["--cwd", &cwd], &["pwd"]).code, 0, "exec, fd {n}");
    }
    assert_eq!(b.exec(&["--cwd", "/proc/self"], &["true"]).code, 0, "an ordinary link must keep working");
}

/// I3: a program sees its streams and nothing else.
#[test]
fn root_no_descriptor_of_the_host_reaches_the_program() {
    let b = Bundle::new("ls /proc/self/fd; sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    b.until("list", |b| b.output().lines().count() >= 4);
    // The last one is the directory that ls itself reads.
    assert_eq!(b.output(), "0\n1\n2\n3\n");
    assert_eq!(b.exec(&[], &["ls", "/proc/self/fd"]).out, "0\n1\n2\n3\n");
}

/// I3: not even the process that waits for start, nor a hook, holds what the caller had open.
#[test]
fn root_a_leaked_descriptor_of_the_caller_is_closed_before_anything_of_the_container_runs() {
    let mut b = Bundle::new("true");
    fs::write(b.dir.join("secret"), "x").unwrap();
    // dup(2) does not set close-on-exec: a careless caller.
    let leaked = rustix::io::dup(fs::File::open(b.dir.join("secret")).unwrap()).unwrap();
    let list = format!("ls -l /proc/self/fd > {}", b.dir.join("hook-fds").display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", list] }]);
    b.config["hooks"] = json!({ "createRuntime": hook, "createContainer": hook });
    assert_eq!(b.create().code, 0);
    let waiting = fs::read_dir(format!("/proc/{}/fd", b.pid())).unwrap().flatten();
    let targets: Vec<_> = waiting.filter_map(|e| fs::read_link(e.path()).ok()).collect();
    assert!(!targets.iter().any(|t| t.ends_with("secret")), "{targets:?}");
    assert!(!fs::read_to_string(b.dir.join("hook-fds")).unwrap().contains("secret"));
    drop(leaked);
}

/// CVE-2021-30465 and its class: a mount's destination is a symbolic link to the host.
#[test]
fn root_cve_2021_30465_mounts_on_links_stay_inside_the_root() {
    let mut b = Bundle::new("cat /inside/marker; grep -c onggi-decoy /proc/self/mountinfo");
    let decoy = b.dir.join("onggi-decoy");
    fs::create_dir_all(decoy.join("sub")).unwrap();
    fs::create_dir(b.dir.join("data")).unwrap();
    fs::write(b.dir.join("data/marker"), "data\n").unwrap();
    symlink(&decoy, b.root().join("absolute")).unwrap();
    symlink("../../../../../../../../etc", b.root().join("relative")).unwrap();
    fs::create_dir(b.root().join("real")).unwrap();
    symlink("/real", b.root().join("inside")).unwrap();
    for at in ["/absolute/sub", "/relative/onggi-test", "/inside"] {
        b.add_mount(json!({ "destination": at, "type": "bind", "source": "data", "options": ["bind"] }));
    }
    let before = tree(&decoy);
    let done = b.run();
    assert!(done.out.starts_with("data\n"), "{} {}", done.out, done.err);
    assert_eq!(before, tree(&decoy));
    assert!(!std::path::Path::new("/etc/onggi-test").exists());
    assert!(b.root().join("etc/onggi-test").is_dir(), "the twin inside the root is made");
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains("onggi-decoy"));
}

/// CVE-2021-30465: another container renames the destination while mounts are made.
#[test]
fn root_cve_2021_30465_a_racing_destination_never_reaches_the_host() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut b = Bundle::new("true");
    fs::create_dir_all(b.root().join("a/sub")).unwrap();
    symlink("/", b.root().join("b")).unwrap();
    b.add_mount(json!({ "destination": "/a/sub", "type": "tmpfs", "source": "onggi-race", "options": [] }));
    b.write_config();
    let stop = AtomicBool::new(false);
    let root = b.root();
    std::thread::scope(|s| {
        s.spawn(|| {
            let dir = rustix::fs::open(&root, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(&dir, "a", &dir, "b", rustix::fs::RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..40 {
            let _ = b.run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("onggi-race"));
    assert!(!std::path::Path::new("/sub").exists());
}

/// CVE-2019-19921: /proc itself is a link.
#[test]
fn root_cve_2019_19921_proc_and_sys_must_not_be_links() {
    for name in ["proc", "sys"] {
        let b = Bundle::new("true");
        fs::remove_dir(b.root().join(name)).unwrap();
        symlink("/tmp", b.root().join(name)).unwrap();
        let done = b.run();
        assert_eq!(done.code, 1);
        assert!(done.err.contains("symbolic link"), "{}", done.err);
    }
}

/// CVE-2019-16884: a volume over /proc.
#[test]
fn root_cve_2019_16884_volumes_over_proc_are_refused_but_lxcfs_files_are_not() {
    for at in ["/proc", "/proc/self", "/proc/sys", "/proc/1/attr"] {
        let mut b = Bundle::new("true");
        b.add_mount(json!({ "destination": at, "type": "bind", "source": "/tmp", "options": ["bind"] }));
        assert_eq!(b.run().code, 1, "{at}");
    }
    let mut twin = Bundle::new("cat /proc/uptime");
    fs::write(twin.dir.join("uptime"), "fake\n").unwrap();
    twin.add_mount(json!({ "destination": "/proc/uptime", "type": "bind", "source": "uptime", "options": ["bind"] }));
    assert_eq!(twin.run().out, "fake\n");
}

/// CVE-2026-41579: /dev of the image is a link to somewhere else.
#[test]
fn root_cve_2026_41579_a_linked_dev_is_taken_inside_the_root() {
    let b = Bundle::new("test -c /dev/null && echo ok");
    let decoy = b.dir.join("decoy");
    fs::create_dir(&decoy).unwrap();
    fs::write(decoy.join("ptmx"), "untouched").unwrap();
    fs::remove_dir(b.root().join("dev")).unwrap();
    symlink(&decoy, b.root().join("dev")).unwrap();
    let before = tree(&decoy);
    let done = b.run();
    assert_eq!(before, tree(&decoy));
    assert_eq!(done.out, "ok\n", "{}", done.err);
}

/// CVE-2025-31133: /dev/null is something else when paths are masked. The source is the host's verified node,
/// so an image (or a bind over /dev/null) cannot choose it.
#[test]
fn root_cve_2025_31133_masks_do_not_come_from_the_image() {
    let mut b = Bundle::new("cat /proc/keys");
    fs::write(b.dir.join("secret"), "secret\n").unwrap();
    b.add_mount(json!({ "destination": "/dev/null", "type": "bind", "source": "secret", "options": ["bind"] }));
    let done = b.run();
    assert!(!done.out.contains("secret"), "{}", done.out);
    let mut twin = Bundle::new("cat /proc/keys | wc -c");
    twin.config["linux"]["maskedPaths"] = json!(["/proc/keys"]);
    assert_eq!(twin.run().out, "0\n");
}

/// CVE-2025-52565: /dev/console or /dev/pts of the image redirects the terminal.
#[test]
fn root_cve_2025_52565_a_terminal_ignores_links_of_the_image() {
    let mut b = Bundle::new("tty");
    let decoy = b.dir.join("decoy");
    fs::create_dir(&decoy).unwrap();
    b.config["process"]["terminal"] = json!(true);
    // No devpts: the image's own /dev/pts/ptmx is a link to the host's.
    b.config["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev/pts" && m["destination"] != "/dev");
    fs::create_dir(b.root().join("dev/pts")).unwrap();
    symlink("/dev/pts/ptmx", b.root().join("dev/pts/ptmx")).unwrap();
    let done = b.run();
    assert_eq!(done.code, 1);
    assert!(done.err.contains("open a terminal"), "{}", done.err);
}

/// CVE-2022-0811: a sysctl key or value that smuggles another.
#[test]
fn root_cve_2022_0811_sysctls_cannot_smuggle_others() {
    for (key, value) in [
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=x"),
        ("kernel.shm_rmid_forced=1+kernel.core_pattern", "x"),
        ("net/../kernel/core_pattern", "x"),
        ("net.ipv4.conf", "1"),
    ] {
        let mut b = Bundle::new("true");
        b.config["linux"]["sysctl"] = json!({ key: value });
        assert_eq!(b.run().code, 1, "{key}");
    }
}

/// CVE-2022-29162 and its class.
#[test]
fn root_cve_2022_29162_exec_and_run_have_no_inheritable_capabilities() {
    let b = Bundle::new("grep -E 'CapInh|CapAmb' /proc/self/status; sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    b.until("status", |b| b.output().lines().count() == 2);
    let exec = b.exec(&[], &["grep", "-E", "CapInh|CapAmb", "/proc/self/status"]).out;
    for text in [b.output(), exec] {
        assert_eq!(text, "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n");
    }
}

/// CVE-2021-43784: maps that overflow their message.
#[test]
fn root_cve_2021_43784_absurd_id_maps_are_refused() {
    let mut b = Bundle::new("true");
    b.add_namespace(json!({ "type": "user" }));
    let map: Vec<_> = (0..70_000u32).map(|n| json!({ "containerID": n, "hostID": n, "size": 1 })).collect();
    b.config["linux"]["uidMappings"] = json!(map);
    b.config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let done = b.run();
    assert_eq!(done.code, 1);
    assert!(done.err.contains("id mappings"), "{}", done.err);
}

//! Reading a root filesystem without mounting it: what it says must be what the kernel's overlay shows, and nothing in an
//! image may hang it, fill memory or make it look outside.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Tar, chain};
use onggi_spec::ContainerId;
use onggi_spec::monitor::OverlayMount;
use onggi_spec::user::UserSpec;
use onggi_storage::extract::{ExtractOptions, Privilege, extract};
use onggi_storage::{
    ExecutableProblem, ExecutableQuery, HostMounts, InRootProblem, StorageError, find_executable, host_snapshot,
    read_in_root, resolve_user,
};
use onggi_sys::fs;

/// A root filesystem of layers, topmost first, with an empty upper directory.
struct Root {
    dir: tempfile::TempDir,
    mount: OverlayMount,
}

fn root(layers: &[Vec<u8>]) -> Root {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: String| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let lower: Vec<PathBuf> = layers
        .iter()
        .enumerate()
        .map(|(n, tar)| {
            let path = make(format!("lower{n}"));
            let options = ExtractOptions::new(Privilege::of_this_process());
            extract(tar.as_slice(), fs::open_dir(&path).unwrap(), options).unwrap();
            path
        })
        .collect();
    let (upper, work) = (make("upper".into()), make("work".into()));
    let mount =
        OverlayMount { lower, upper, work, userxattr: false, volatile: false, submounts: vec![], hidden: vec![] };
    Root { dir, mount }
}

fn read(root: &Root, path: &str) -> Result<Option<String>, StorageError> {
    Ok(read_in_root(&root.mount, path, 1000)?.map(|data| String::from_utf8(data).unwrap()))
}

fn problem(e: StorageError) -> InRootProblem {
    match e {
        StorageError::InRoot { problem, .. } => problem,
        other => panic!("{}", chain(&other)),
    }
}

/// Three layers with everything that overlayfs merges or hides.
fn merged() -> Root {
    let bottom = Tar::default()
        .file("a", "bottom")
        .file("hidden", "bottom")
        .file("dir/low", "low")
        .file("dir/both", "low")
        .file("opaque/low", "low")
        .file("replaced/low", "low")
        .file("was-file", "low")
        .file("usr/lib/x", "x")
        .sym("lib", "usr/lib")
        .sym("abs", "/usr/lib/x")
        .sym("up", "../../../../a")
        .sym("loop", "loop")
        .end();
    let middle = Tar::default()
        .file(".wh.hidden", "")
        .file("dir/both", "middle")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/mid", "mid")
        .file("replaced", "now a file")
        .file("was-file/inside", "inside")
        .file("dir/.wh.gone", "")
        .end();
    let top = Tar::default().file("a", "top").file("usr/lib/y", "y").dir("opaque").file("opaque/top", "top").end();
    root(&[top, middle, bottom])
}

const PATHS: [&str; 22] = [
    "/a",
    "a",
    "/hidden",
    "/dir/low",
    "/dir/both",
    "/dir/gone",
    "/opaque/low",
    "/opaque/mid",
    "/opaque/top",
    "/replaced",
    "/replaced/low",
    "/was-file/inside",
    "/usr/lib/x",
    "/lib/x",
    "/lib/y",
    "/abs",
    "/up",
    "/lib/../lib/x",
    "/../../a",
    "/dir/./../dir/both",
    "/nothing",
    "/usr/lib/../../dir/low",
];

#[test]
fn whiteouts_opaque_directories_and_links_are_respected_across_layers() {
    let root = merged();
    let want = [
        Some("top"),
        Some("top"),
        None,
        Some("low"),
        Some("middle"),
        None,
        None,
        Some("mid"),
        Some("top"),
        Some("now a file"),
        None,
        Some("inside"),
        Some("x"),
        Some("x"),
        Some("y"),
        Some("x"),
        Some("top"),
        Some("x"),
        Some("top"),
        Some("middle"),
        None,
        Some("low"),
    ];
    for (path, want) in PATHS.iter().zip(want) {
        assert_eq!(read(&root, path).unwrap().as_deref(), want, "{path}");
    }
    assert_eq!(problem(read(&root, "/loop").unwrap_err()), InRootProblem::LinkLoop);
    assert_eq!(problem(read(&root, "/dir").unwrap_err()), InRootProblem::NotRegular);
    for bad in ["", "/a\0b"] {
        assert_eq!(problem(read(&root, bad).unwrap_err()), InRootProblem::BadPath);
    }
}

/// Runs a script in a mount namespace of its own.
fn in_mount_namespace(script: &str) -> String {
    let out = Command::new("unshare").args(["-m", "sh", "-ec", script]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn mount_command(mount: &OverlayMount, at: &Path) -> String {
    let lower: Vec<_> = mount.lower.iter().map(|p| p.to_str().unwrap()).collect();
    let (upper, work) = (mount.upper.display(), mount.work.display());
    format!(
        "mount -t overlay overlay -o lowerdir={},upperdir={upper},workdir={work} {}\n",
        lower.join(":"),
        at.display()
    )
}

#[test]
fn root_the_kernels_overlay_shows_the_same() {
    let root = merged();
    let at = root.dir.path().join("merged");
    std::fs::create_dir(&at).unwrap();
    let mut script = mount_command(&root.mount, &at);
    for path in PATHS {
        // Resolved with the overlay as root, as in the container.
        script.push_str(&format!("chroot_read {path}\n"));
    }
    let reader = format!(
        "chroot_read() {{ python3 -c 'import os,sys\nos.chroot(\"{}\")\nos.chdir(\"/\")\ntry: print(open(sys.argv[1]).read())\nexcept OSError: print(\"-\")' \"$1\"; }}\n",
        at.display()
    );
    let shown = in_mount_namespace(&(reader + &script));
    let ours: Vec<String> = PATHS.iter().map(|p| read(&root, p).unwrap().unwrap_or_else(|| "-".to_owned())).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), ours);
}

#[test]
fn root_a_view_of_the_host_can_be_mounted_written_and_hides_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let id = ContainerId::from_random([7; 32]);
    for name in ["tmp", "containers"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    let mount = host_snapshot(dir.path(), &id, HostMounts { all: &[], real: &[] }, &[]).unwrap();
    assert_eq!(mount.lower, [PathBuf::from("/")]);
    assert_eq!(mount.hidden, [dir.path()]);
    let passwd = std::fs::read("/etc/passwd").unwrap();
    assert_eq!(read_in_root(&mount, "/etc/passwd", 1 << 20).unwrap().unwrap(), passwd);
    let own = mount.upper.join("x");
    assert_eq!(read_in_root(&mount, own.to_str().unwrap(), 10).unwrap(), None);
    let at = dir.path().join("merged");
    std::fs::create_dir(&at).unwrap();
    let script = mount_command(&mount, &at);
    let shown = in_mount_namespace(&format!("{script}echo x > {0}/etc/onggi-test; cat {0}/etc/passwd", at.display()));
    assert_eq!(shown.as_bytes(), passwd);
    assert!(mount.upper.join("etc/onggi-test").exists());
    assert!(!Path::new("/etc/onggi-test").exists());
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\nwww:x:33:34::/var/www:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww:x:34:\nmail:x:8:www,other\ndocker:x:99:www\n77:x:0:www\n";

fn resolve(root: &Root, user: &str) -> Result<(u32, u32, Vec<u32>, String), StorageError> {
    let spec: Option<UserSpec> = (!user.is_empty()).then(|| user.parse().unwrap());
    let found = resolve_user(&root.mount, spec.as_ref(), &[])?;
    Ok((found.uid, found.gid, found.additional_gids, found.home))
}

#[test]
fn users_are_resolved_as_docker_does() {
    let root = root(&[Tar::default().file("etc/passwd", PASSWD).file("etc/group", GROUP).end()]);
    for (user, want) in [
        ("", (0, 0, vec![0], "/root")),
        ("www", (33, 34, vec![0, 8, 34, 99], "/var/www")),
        ("33", (33, 34, vec![0, 8, 34, 99], "/var/www")),
        ("www:mail", (33, 8, vec![8], "/var/www")),
        ("www:5", (33, 5, vec![5], "/var/www")),
        ("12345", (12345, 0, vec![0], "/")),
        ("12345:12345", (12345, 12345, vec![12345], "/")),
    ] {
        let (uid, gid, groups, home) = want;
        assert_eq!(resolve(&root, user).unwrap(), (uid, gid, groups, home.to_owned()), "{user}");
    }
    for (user, what) in [("nobody", "user"), ("www:nogroup", "group")] {
        let e = resolve(&root, user).unwrap_err();
        assert!(matches!(&e, StorageError::NoSuchAccount { what: w, .. } if *w == what), "{user}: {e}");
        assert!(e.hint().is_some());
    }
}

#[test]
fn cve_2016_3697_cve_2026_30892_a_number_is_never_a_name() {
    let root = root(&[Tar::default().file("etc/passwd", PASSWD).file("etc/group", GROUP).end()]);
    assert_eq!(resolve(&root, "1000").unwrap().0, 1000);
    assert_eq!(resolve(&root, "1000:77").unwrap().1, 77);
}

#[test]
fn cve_2022_36109_the_primary_group_is_among_the_supplementary_ones() {
    let root = root(&[Tar::default().file("etc/passwd", PASSWD).end()]);
    for user in ["", "www", "33", "5", "5:6"] {
        let (_, gid, groups, _) = resolve(&root, user).unwrap();
        assert!(groups.contains(&gid), "{user}");
    }
}

#[test]
fn cve_2024_9676_account_files_of_every_wrong_kind_end_with_a_named_error() {
    let kinds: [(&str, Tar); 5] = [
        ("fifo", {
            let mut t = Tar::default();
            t.raw(common::H::new(b'6', "etc/passwd"), []);
            t
        }),
        ("device", {
            let mut t = Tar::default();
            t.raw(common::H::new(b'3', "etc/passwd").device(1, 5), []);
            t
        }),
        ("directory", {
            let mut t = Tar::default();
            t.dir("etc/passwd");
            t
        }),
        ("link loop", {
            let mut t = Tar::default();
            t.sym("etc/passwd", "passwd");
            t
        }),
        ("link to a fifo", {
            let mut t = Tar::default();
            t.sym("etc/passwd", "/etc/fifo").raw(common::H::new(b'6', "etc/fifo"), []);
            t
        }),
    ];
    for (kind, mut tar) in kinds {
        if kind == "device" && !common::is_root() {
            continue;
        }
        let root = root(&[tar.end()]);
        for user in ["0", "1000:1000", "www"] {
            let got = problem(resolve(&root, user).unwrap_err());
            assert!(matches!(got, InRootProblem::NotRegular | InRootProblem::LinkLoop), "{kind}: {got:?}");
        }
    }
}

#[test]
fn account_files_behind_links_are_read_in_root_only() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "evil:x:0:0::/:\n").unwrap();
    let escape = root(&[Tar::default().sym("etc/passwd", outside.path().to_str().unwrap()).end()]);
    assert!(matches!(resolve(&escape, "evil"), Err(StorageError::NoSuchAccount { .. })));
    let dots = format!("../../../../../../../..{}", outside.path().display());
    let escape = root(&[Tar::default().sym("etc/passwd", dots).end()]);
    assert!(matches!(resolve(&escape, "evil"), Err(StorageError::NoSuchAccount { .. })));
    let twin = root(&[Tar::default().sym("etc/passwd", "/run/passwd").file("run/passwd", PASSWD).end()]);
    assert_eq!(resolve(&twin, "www").unwrap().0, 33);
}

#[test]
fn cve_2026_47262_an_enormous_group_file_is_refused_without_reading_it() {
    let root = root(&[Tar::default().file("etc/passwd", PASSWD).end()]);
    std::fs::create_dir(root.mount.upper.join("etc")).unwrap();
    let file = std::fs::File::create(root.mount.upper.join("etc/group")).unwrap();
    file.set_len(1 << 30).unwrap();
    assert_eq!(problem(resolve(&root, "www").unwrap_err()), InRootProblem::TooLarge);
    file.set_len(1 << 20).unwrap();
    assert!(matches!(resolve(&root, "www"), Err(StorageError::AccountLine { .. })));
}

fn find(root: &Root, argv0: &str) -> Result<String, ExecutableProblem> {
    let query = ExecutableQuery { argv0, path: "/usr/local/bin:/usr/bin:/bin", cwd: "/srv" };
    find_executable(&root.mount, &query).unwrap().map(|e| e.path)
}

/// A minimal 64-bit ELF with an optional interpreter.
fn elf(machine: u16, interpreter: &str) -> Vec<u8> {
    let mut out = vec![0u8; 64];
    out[..6].copy_from_slice(b"\x7fELF\x02\x01");
    out[18..20].copy_from_slice(&machine.to_le_bytes());
    out[32..40].copy_from_slice(&64u64.to_le_bytes());
    out[54..56].copy_from_slice(&56u16.to_le_bytes());
    out[56..58].copy_from_slice(&u16::from(!interpreter.is_empty()).to_le_bytes());
    let mut header = vec![0u8; 56];
    header[..4].copy_from_slice(&3u32.to_le_bytes());
    header[8..16].copy_from_slice(&120u64.to_le_bytes());
    header[32..40].copy_from_slice(&(interpreter.len() as u64 + 1).to_le_bytes());
    out.extend(header);
    out.extend(interpreter.as_bytes());
    out.push(0);
    out
}

#[test]
fn commands_that_cannot_start_are_told_apart() {
    let mut tar = Tar::default();
    let add = |t: &mut Tar, name: &str, mode: u64, data: &[u8]| {
        t.raw(common::H::new(b'0', name).mode(mode).size(data.len() as u64), data);
    };
    let native = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    add(&mut tar, "bin/static", 0o755, &elf(native, ""));
    add(&mut tar, "lib/ld.so", 0o755, &elf(native, ""));
    add(&mut tar, "bin/dynamic", 0o755, &elf(native, "/lib/ld.so"));
    add(&mut tar, "bin/musl", 0o755, &elf(native, "/lib/ld-musl.so"));
    add(&mut tar, "bin/foreign", 0o755, &elf(20, ""));
    add(&mut tar, "bin/script", 0o755, b"#! /bin/static -x\necho");
    add(&mut tar, "bin/orphan", 0o755, b"#!/bin/nothing\r\n");
    add(&mut tar, "bin/text", 0o755, b"echo hello");
    add(&mut tar, "bin/plain", 0o644, &elf(native, ""));
    add(&mut tar, "bin/self", 0o755, b"#!/bin/self\n");
    add(&mut tar, "srv/run", 0o755, &elf(native, ""));
    tar.dir("bin/dir").sym("usr/bin/link", "/bin/static").sym("usr/bin/dangling", "/nothing");
    let root = root(&[tar.end()]);
    for (argv0, path) in [
        ("static", "/bin/static"),
        ("dynamic", "/bin/dynamic"),
        ("script", "/bin/script"),
        ("link", "/usr/bin/link"),
        ("/bin/static", "/bin/static"),
        ("./run", "/srv/./run"),
        ("../bin/static", "/srv/../bin/static"),
    ] {
        assert_eq!(find(&root, argv0).as_deref(), Ok(path), "{argv0}");
    }
    for (argv0, code, words) in [
        ("nothing", 127, "is not in the container's PATH"),
        ("/nothing", 127, "is not in the container's filesystem"),
        ("run", 127, "PATH"),
        ("dangling", 127, "PATH"),
        ("", 127, "PATH"),
        ("plain", 126, "not marked executable"),
        ("dir", 126, "not a regular file"),
        ("text", 126, "neither a program nor a script"),
        ("foreign", 126, "is a program for ppc64"),
        ("musl", 127, "needs the interpreter \"/lib/ld-musl.so\""),
        ("orphan", 127, "needs the interpreter \"/bin/nothing\\r\""),
        ("self", 126, "too many interpreters"),
    ] {
        let e = find(&root, argv0).unwrap_err();
        assert_eq!(e.exit_code(), code, "{argv0}: {e}");
        assert!(e.to_string().contains(words), "{argv0}: {e}");
    }
}

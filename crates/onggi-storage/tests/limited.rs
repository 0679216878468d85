//! Without root: what may be unpacked is, the rest is counted, and the kernel's overlay in a user namespace agrees.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::{H, Tar, tree};
use onggi_storage::extract::{ExtractOptions, Privilege, extract};
use onggi_sys::fs;

/// nobody and nogroup on Debian.
const NOBODY: &str = "65534";

/// Runs `body` as an ordinary user: at once when we are one, else in a copy of this test program.
fn as_ordinary_user(test: &str, body: impl FnOnce()) {
    if !common::is_root() {
        return body();
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let copy = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let out = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all"])
        .arg(&copy)
        .args(["--exact", test])
        .env("TMPDIR", dir.path())
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn an_ordinary_user_unpacks_what_it_may_and_counts_the_rest() {
    as_ordinary_user("an_ordinary_user_unpacks_what_it_may_and_counts_the_rest", || {
        assert_eq!(Privilege::of_this_process(), Privilege::Limited);
        let archive = Tar::default()
            .raw(H::new(b'0', "owned").owner(12, 34).mode(0o4755), [])
            .raw(H::new(b'3', "null").device(1, 3), [])
            .raw(H::new(b'6', "fifo"), [])
            .raw(H::new(b'5', "closed").mode(0), [])
            .file("closed/x", "x")
            .pax(&[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")])
            .file("ping", "")
            .file(".wh.hidden", "")
            .dir("opaque")
            .file("opaque/.wh..wh..opq", "")
            .end();
        let dir = tempfile::tempdir().unwrap();
        let options = ExtractOptions::new(Privilege::of_this_process());
        let done = extract(archive.as_slice(), fs::open_dir(dir.path()).unwrap(), options).unwrap();
        assert_eq!((done.skipped_devices, done.skipped_owners), (1, 1));
        let closed = dir.path().join("closed");
        assert_eq!(closed.metadata().unwrap().mode() & 0o7777, 0);
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        let have: Vec<String> = tree(dir.path()).into_iter().map(|(p, w)| format!("{p} {w}")).collect();
        let want = [
            "closed d 700",
            "closed/x f 644 x",
            "fifo p 644",
            "hidden w",
            "opaque d! 755",
            "owned f 4755",
            "ping f 644",
        ];
        assert_eq!(have, want);
    });
}

#[test]
fn an_overlay_in_a_user_namespace_respects_our_whiteouts() {
    as_ordinary_user("an_overlay_in_a_user_namespace_respects_our_whiteouts", || {
        let dir = tempfile::tempdir().unwrap();
        let layers = [
            ("low", Tar::default().file("gone", "").file("kept", "").file("opaque/low", "").end()),
            ("high", Tar::default().file(".wh.gone", "").file("opaque/.wh..wh..opq", "").file("opaque/high", "").end()),
        ];
        for (name, archive) in layers {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let options = ExtractOptions::new(Privilege::of_this_process());
            extract(archive.as_slice(), fs::open_dir(&path).unwrap(), options).unwrap();
        }
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(mounted(dir.path()), "kept\nopaque\nopaque/high\n");
    });
}

/// Names in the overlay of `high` on `low`, mounted in a new user and mount namespace.
fn mounted(dir: &Path) -> String {
    let script = "mount -t overlay overlay -o userxattr,lowerdir=high:low,upperdir=upper,workdir=work merged
                  cd merged && find . -mindepth 1 -printf '%P\\n' | sort";
    let out = Command::new("unshare").args(["-Urm", "sh", "-ec", script]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

//! I13: there is no helper that does for a stranger what the stranger may not do.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::{Jar, runtime};

/// The whole installation.
fn installed() -> Vec<std::path::PathBuf> {
    fn walk(at: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(at).expect("list the installation").flatten() {
            let path = entry.path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    let prefix = runtime().ancestors().nth(3).expect("a prefix").to_path_buf();
    walk(&prefix, &mut found);
    found
}

#[test]
fn root_cve_2017_5985_2018_6556_2022_47952_2026_39402_nothing_is_installed_with_rights_of_its_own() {
    let files = installed();
    assert!(files.iter().any(|f| f.ends_with("onggi-oci")), "{files:?}");
    for file in files {
        let mode = fs::metadata(&file).expect("look at a file").permissions().mode();
        assert_eq!(mode & 0o6000, 0, "{} is set-user-ID or set-group-ID", file.display());
        let mut value = [0_u8; 64];
        let caps = rustix::fs::getxattr(&file, "security.capability", &mut value);
        assert_eq!(caps, Err(rustix::io::Errno::NODATA), "{} has capabilities", file.display());
    }
}

/// A stranger's namespace is refused by the kernel, and what is said does not depend on what only root can see.
#[test]
fn root_cve_2017_5985_2018_6556_2022_47952_2026_39402_a_foreign_network_namespace_is_refused_uniformly() {
    isolated();
    let mut jar = Jar::small("exit 42");
    jar.by_user(54_321);
    let secret = jar.make_dir("secret");
    fs::write(secret.join("exists"), "x").expect("write a file");
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).expect("close the directory");
    let mut words = Vec::new();
    for name in ["exists", "missing"] {
        jar.remove_namespace("network");
        let path = secret.join(name).display().to_string();
        jar.add_namespace(json!({ "type": "network", "path": path }));
        let done = jar.run();
        done.refused();
        // Without the time of the line.
        let words_of = done.err.split_once("msg=").map_or(done.err.as_str(), |(_, message)| message);
        words.push(words_of.replace(&path, "PATH"));
    }
    assert_eq!(words[0], words[1], "the error tells what only root may know");
    jar.remove_namespace("network");
    jar.add_namespace(json!({ "type": "network", "path": "/proc/1/ns/net" }));
    jar.run().refused();
}

#[test]
fn root_cve_2017_5985_2018_6556_2022_47952_2026_39402_benign_ones_own_network_namespace_is_joined() {
    isolated();
    let mut jar = Jar::small("readlink /proc/self/ns/net");
    let mut holder = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().expect("start unshare");
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = fs::read_link("/proc/self/ns/net").expect("our own namespace");
    let other = || fs::read_link(&path).ok().filter(|link| *link != own);
    let wanted = onggi_tests::eventually("the other namespace exists", other);
    jar.add_namespace(json!({ "type": "network", "path": path }));
    let done = jar.run();
    holder.kill().expect("end the holder");
    holder.wait().expect("end the holder");
    done.printed(&format!("{}\n", wanted.display()));
}

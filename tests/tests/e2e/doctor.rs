//! `doctor` on a real machine.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Command};

use onggi_tests::{Onggi, isolated, machine::sh};
use serde_json::Value;

fn findings(text: &str) -> BTreeMap<String, Value> {
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("one JSON object a line"));
    rows.map(|row| (row["Name"].as_str().unwrap_or_default().to_owned(), row)).collect()
}

#[test]
fn e2e_the_host_is_described_as_the_kernel_describes_itself() {
    isolated();
    let onggi = Onggi::new();
    let ran = onggi.run(&["doctor", "--format", "json"]);
    let found = findings(&ran.stdout);
    let failed = found.values().any(|f| f["Level"] == "fail");
    assert_eq!(ran.code, Some(i32::from(failed)), "{ran}");
    assert!(!failed, "the tests run containers here: {ran}");
    let text = |name: &str| found[name]["Found"].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("version"), sh("uname -r").trim());
    assert!(text("pid-max").ends_with(sh("cat /proc/sys/kernel/pid_max").trim()));
    assert!(!text("dns").is_empty());
    let fstype = sh(&format!("stat -f -c %T {}", onggi.root().display()));
    assert!(text("filesystem").starts_with(&fstype.trim()[..3]), "{} {fstype}", text("filesystem"));
    for finding in found.values().filter(|f| f["Level"] != "ok") {
        assert!(finding["Fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{finding}");
    }
    let words = onggi.run(&["doctor"]).stdout;
    assert!(words.contains("that keep containers from starting"), "{words}");
    let only = onggi.run(&["doctor", "-q", "--format", "{{.Level}}"]).stdout;
    assert!(!only.lines().any(|level| level == "ok"), "{only}");
    assert!(!onggi.root().join("state.db").exists(), "looking makes nothing");
}

/// A directory that everybody can reach, with the programs in it.
fn public_programs(onggi: &Onggi) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("onggi-doctor-").tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode is set");
    for name in ["bin", "libexec/onggi", "home", "run"] {
        fs::create_dir_all(dir.path().join(name)).expect("a directory is made");
    }
    fs::copy(onggi.program(), dir.path().join("bin/onggi")).expect("the program is copied");
    fs::copy(onggi.runtime(), dir.path().join("libexec/onggi/onggi-oci")).expect("the runtime is copied");
    dir
}

#[test]
fn e2e_an_ordinary_user_gets_the_view_of_an_ordinary_user() {
    isolated();
    let onggi = Onggi::new();
    let dir = public_programs(&onggi);
    let path = |name: &str| dir.path().join(name).display().to_string();
    sh(&format!("chown 65534:65534 {} {}; chmod 700 {}", path("home"), path("run"), path("run")));
    let asked = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"])
        .args([path("bin/onggi").as_str(), "doctor", "--format", "json"])
        .env_clear()
        .env("HOME", path("home"))
        .env("XDG_RUNTIME_DIR", path("run"))
        .output()
        .expect("start setpriv");
    let stdout = String::from_utf8_lossy(&asked.stdout).into_owned();
    let found = findings(&stdout);
    for name in ["subuid", "subgid", "newuidmap", "delegation", "user-namespaces"] {
        assert!(found.contains_key(name), "{name}: {stdout}{}", String::from_utf8_lossy(&asked.stderr));
    }
    assert!(!found.contains_key("nftables"), "root's alone: {stdout}");
    let failed = found.values().any(|f| f["Level"] == "fail");
    assert_eq!(asked.status.code(), Some(i32::from(failed)), "{stdout}");
    let root = findings(&onggi.run(&["doctor", "--rootless", "--format", "json"]).stdout);
    assert!(root.contains_key("subuid") && !root.contains_key("nftables"), "root may ask for that view too");
}

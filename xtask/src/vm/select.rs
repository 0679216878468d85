//! Which tests run in the VM: those named `vm_…`, wherever they are, and the tests of the runtime and its
//! control groups that need root, since they prove the same promises on a pure version 2 machine.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::protocol::Test;
use crate::{
    Outcome,
    process::{cargo, line, read},
    test::FEATURES,
};

/// Packages whose `root_…` tests run here too.
const ALSO_ROOT: &[&str] = &["onggi-cgroup", "onggi-oci"];

/// Of these, what is not run here: races and careless callers, which are about paths and processes and need many
/// turns, which emulation makes too slow; an observer that must keep up with the monitor; groups of single version 1 controllers; what a kernel
/// without AppArmor says; and mount options as another kernel shows them.
const NOT_HERE: &[&str] = &[
    "hostile::root_cve_2021_30465_a_racing_destination_never_reaches_the_host",
    "abuse::",
    "cgroups::root_a_container_in_a_container_without_a_cgroup_namespace_gets_its_groups_below",
    "root_a_client_that_never_reads_holds_nothing_up",
    "life::root_exec_enters_the_sub_cgroup_that_it_is_told",
    "process::root_what_this_kernel_lacks_is_named",
    "mounts::root_a_bind_takes_the_flags_it_is_given_and_clears_the_others",
    "mounts::root_a_bind_in_a_user_namespace_keeps_what_is_locked_or_fails",
];

/// A test binary as cargo built it.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    path: String,
    package: String,
    package_dir: String,
}

/// Builds the test binaries and picks this tier's tests.
pub(super) fn select(packages: &[String], filters: &[String]) -> Outcome<Vec<Test>> {
    let mut build = cargo();
    build.args(["test", "--locked", "--no-run", "--message-format", "json-render-diagnostics"]);
    if packages.is_empty() {
        // As the other tiers do, so that nothing is built twice.
        build.args(["--workspace", "--features", FEATURES]);
    }
    for package in packages {
        build.args(["-p", package]);
    }
    println!("$ {}", line(&build));
    let mut tests = Vec::new();
    for binary in binaries(&read(&mut build)?) {
        let list = read(Command::new(&binary.path).args(["--list", "--format", "terse"]).stdin(Stdio::null()))?;
        let ignored = Command::new(&binary.path).args(["--list", "--format", "terse", "--ignored"]).output();
        let ignored = ignored.map_err(|e| format!("start {}: {e}", binary.path))?.stdout;
        let ignored: BTreeSet<&str> =
            std::str::from_utf8(&ignored).map(names).unwrap_or_default().into_iter().collect();
        let wanted = |name: &&str| {
            let filtered = filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
            !ignored.contains(name) && filtered && belongs_here(&binary.package, name)
        };
        tests.extend(names(&list).into_iter().filter(wanted).map(|name| Test {
            binary: binary.path.clone(),
            name: name.to_owned(),
            package_dir: binary.package_dir.clone(),
        }));
    }
    Ok(tests)
}

/// True when the last part of a test's name, or a module's, has the prefix of this tier.
fn belongs_here(package: &str, name: &str) -> bool {
    let has = |prefix: &str| name.split("::").any(|part| part.starts_with(prefix));
    let also = || ALSO_ROOT.contains(&package) && has("root_") && !NOT_HERE.iter().any(|part| name.starts_with(part));
    has("vm_") || also()
}

/// The names in libtest's terse list.
fn names(list: &str) -> Vec<&str> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).collect()
}

/// The test binaries in cargo's messages, one JSON object per line.
fn binaries(messages: &str) -> Vec<Binary> {
    let mut found = Vec::new();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let is_test = message["profile"]["test"].as_bool() == Some(true);
        let (Some(path), Some(manifest)) = (message["executable"].as_str(), message["manifest_path"].as_str()) else {
            continue;
        };
        if !is_test {
            continue;
        }
        let dir = Path::new(manifest).parent().unwrap_or(Path::new("/"));
        let package = package_name(message["package_id"].as_str().unwrap_or_default(), dir);
        found.push(Binary { path: path.to_owned(), package, package_dir: dir.display().to_string() });
    }
    found
}

/// `path+file:///a/onggi-oci#0.1.0` or `path+file:///a/tests#onggi-tests@0.1.0`.
fn package_name(id: &str, dir: &Path) -> String {
    let named = id.rsplit_once('#').and_then(|(_, rest)| rest.split_once('@')).map(|(name, _)| name.to_owned());
    named.unwrap_or_else(|| dir.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_counts_at_the_start_of_a_part() {
        assert!(belongs_here("onggi-engine", "cgroup::vm_memory_is_limited"));
        assert!(belongs_here("onggi-oci", "root_run"));
        assert!(!belongs_here("onggi-image", "root_run"));
        assert!(!belongs_here("onggi-oci", "a_vm_is_no_container"));
    }

    #[test]
    fn only_test_binaries_are_taken_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/deps/root-1","#,
            r#""manifest_path":"/c/onggi-oci/Cargo.toml","package_id":"path+file:///c/onggi-oci#0.1.0"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/onggi","manifest_path":"/c/x"}"#,
            "\n{\"reason\":\"build-finished\"}\n"
        );
        let path = "/t/deps/root-1".to_owned();
        let binary = Binary { path, package: "onggi-oci".into(), package_dir: "/c/onggi-oci".into() };
        assert_eq!(binaries(messages), [binary]);
        assert_eq!(package_name("path+file:///a/tests#onggi-tests@0.1.0", Path::new("/a/tests")), "onggi-tests");
    }
}

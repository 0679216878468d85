//! Every page of `docs/labs` runs as it is printed, in both languages alike, and the table of commands tells the truth.
//!
//! A page whose test is not in this list fails `labs_every_page_is_a_test`.

use std::{collections::BTreeSet, fs};

use onggi_tests::labs::{self, coverage};

macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() {
                labs::carry_out($page);
            }
        )*
    };
}

pages! {
    root_lab_chroot: "01-chroot",
    root_lab_pid_namespace: "02-pid-namespace",
    root_lab_network_namespace: "03-network-namespace",
    root_lab_mount_namespace: "04-mount-namespace",
    root_lab_uts_namespace: "05-uts-namespace",
    root_lab_user_namespace: "06-user-namespace",
    root_lab_ipc_namespace: "07-ipc-namespace",
    vm_lab_cgroup_namespace: "08-cgroup-namespace",
    root_lab_time_namespace: "09-time-namespace",
    root_lab_namespace_system_calls: "10-namespace-system-calls",
    root_lab_cpu_by_hand: "11-cpu-by-hand",
    root_lab_cgroup_v1_cpu: "12-cgroup-v1-cpu",
    root_lab_cgroup_v1_memory: "13-cgroup-v1-memory",
    vm_lab_cgroup_v2_cpu: "14-cgroup-v2-cpu",
    vm_lab_cgroup_v2_memory: "15-cgroup-v2-memory",
    root_lab_fork_bomb: "16-fork-bomb",
    root_lab_cgsnapshot: "17-cgsnapshot",
    vm_lab_systemd_run: "18-systemd-run",
    root_lab_capabilities: "19-capabilities",
    root_lab_handmade_container: "20-handmade-container",
    root_lab_oci_bundle: "21-oci-bundle",
    root_lab_veth_and_bridge: "22-veth-and-bridge",
    root_lab_nat: "23-nat",
    root_lab_overlay: "24-overlay",
    root_lab_overlay_layers: "25-overlay-layers",
    root_lab_btrfs: "26-btrfs",
    root_lab_docker_store: "27-docker-store",
    root_lab_pid_1: "28-pid-1",
    root_lab_readonly_bind: "29-readonly-bind",
}

fn names(language: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(labs::docs().join(language)).expect("read the directory of pages");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.map(|name| name.trim_end_matches(".md").to_owned()).collect()
}

#[test]
fn labs_every_page_is_a_test() {
    let tested: BTreeSet<String> = PAGES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(names("en"), tested);
}

#[test]
fn labs_both_languages_have_the_same_commands_and_outputs() {
    assert_eq!(names("en"), names("ko"));
    for name in PAGES {
        let (en, ko) = (labs::read("en", name), labs::read("ko", name));
        assert_eq!((en.place, &en.packages), (ko.place, &ko.packages), "{name}");
        for (ours, theirs) in en.steps_without_lines().iter().zip(&ko.steps_without_lines()) {
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(en.steps.len(), ko.steps.len(), "{name}");
    }
}

#[test]
fn labs_every_page_says_below_its_title_what_it_needs() {
    for language in ["en", "ko"] {
        for name in PAGES {
            let text = fs::read_to_string(labs::docs().join(language).join(format!("{name}.md"))).expect("a page");
            let page = labs::read(language, name);
            let packages: Vec<String> = page.packages.iter().map(|package| format!("`{package}`")).collect();
            let title = text.lines().position(|line| line.starts_with("# ")).expect("a title");
            let needs = text.lines().nth(title + 2).unwrap_or_default();
            assert!(needs.contains(&packages.join(" ")) && needs.contains("`onggi`"), "{language}/{name}: {needs:?}");
            assert_eq!(needs.contains("v2"), page.place == labs::page::Place::Vm, "{language}/{name}: {needs:?}");
        }
    }
}

#[test]
fn labs_every_finished_row_of_the_table_names_a_command_of_its_page() {
    let rows = coverage::read("README.md");
    assert!(!rows.is_empty(), "the table is empty");
    let wrong: Vec<String> = rows.iter().filter_map(|row| row.complaint()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn labs_both_tables_are_the_same() {
    assert_eq!(coverage::read("README.md"), coverage::read("README.ko.md"));
}

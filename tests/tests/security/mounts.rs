//! I1: no path of a root filesystem leads a mount, a directory or a file to the host.

use std::{fs, os::unix::fs::PermissionsExt};

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::{Host, Jar};

/// Links of every shape that lead, were they followed on the host, to the decoy.
fn hostile_links(jar: &Jar) -> Vec<String> {
    let decoy = jar.decoy();
    jar.link("absolute", &decoy);
    jar.link("relative", format!("../../../../../../../..{}", decoy.display()));
    jar.link("first", "/second");
    jar.link("second", &decoy);
    jar.link("dangling", decoy.join("not-there"));
    jar.link("file", decoy.join("new-file"));
    ["/absolute", "/absolute/sub", "/relative/sub/new", "/first/new", "/dangling", "/dangling/a/b", "/file"]
        .map(str::to_owned)
        .into()
}

#[test]
fn root_cve_2015_1335_2021_30465_mounts_on_links_never_touch_the_host() {
    isolated();
    for kind in ["tmpfs", "directory", "file"] {
        let mut jar = Jar::new("grep -c -e tagged -e /data /proc/self/mountinfo");
        fs::write(jar.make_dir("data").join("marker"), "data\n").expect("write a file");
        jar.write("data-file", "data\n");
        let targets = hostile_links(&jar);
        for at in &targets {
            match kind {
                "tmpfs" => jar.tmpfs("tagged", at),
                "directory" => jar.bind("data", at),
                _ => jar.bind("data-file", &format!("{at}.file")),
            }
        }
        let host = Host::look(&jar);
        let done = jar.run();
        host.assert_unchanged(&jar);
        done.printed(&format!("{}\n", targets.len()));
    }
}

#[test]
fn root_cve_2015_1335_2021_30465_benign_links_inside_the_root_are_followed() {
    isolated();
    let mut jar = Jar::new("cat /run/secrets/marker /var/run/secrets/marker /deep/here/marker /etc/resolv.conf");
    fs::write(jar.make_dir("data").join("marker"), "data\n").expect("write a file");
    jar.write("resolv", "nameserver\n");
    jar.make_dir("rootfs/run");
    // As Debian, Alpine and systemd have them.
    jar.link("var/run", "/run");
    jar.link("deep", "var/../srv");
    jar.make_dir("rootfs/srv");
    jar.link("etc/resolv.conf", "../run/stub/resolv.conf");
    jar.bind("data", "/var/run/secrets");
    jar.bind("data", "/deep/here");
    jar.bind("resolv", "/etc/resolv.conf");
    jar.run().printed("data\ndata\ndata\nnameserver\n");
}

#[test]
fn root_cve_2015_1331_a_planted_state_directory_is_not_used() {
    isolated();
    let jar = Jar::small("true");
    jar.make_dir("state");
    std::os::unix::fs::symlink(jar.decoy(), jar.path("state").join(&jar.id)).expect("plant a link");
    let host = Host::look(&jar);
    jar.run().refused();
    let _ = jar.verb("delete");
    host.assert_unchanged(&jar);
}

#[test]
fn root_cve_2015_1331_benign_states_are_private_to_their_owner() {
    isolated();
    let jar = Jar::small("sleep 60");
    jar.running();
    let mode = |path| fs::metadata(path).expect("the state exists").permissions().mode() & 0o077;
    assert_eq!(mode(jar.path("state").join(&jar.id)) & 0o066, 0, "others cannot list or write it");
    assert_eq!(mode(jar.path("state")) & 0o066, 0, "others cannot list or write it");
}

#[test]
fn root_cve_2019_19921_2023_27561_a_linked_proc_or_sys_is_refused() {
    isolated();
    for name in ["proc", "sys"] {
        for target in ["/tmp", "tmp", "/evil/proc", "../../../../proc", "/proc/self/root/proc", "."] {
            let mut jar = Jar::new("true");
            // The volume of another container, which could be changed at any moment.
            jar.make_dir("shared/proc/self/attr");
            jar.bind("shared", "/evil");
            let mounts = jar.config["mounts"].as_array_mut().expect("a list");
            mounts.rotate_right(1);
            jar.link(name, target);
            let host = Host::look(&jar);
            let done = jar.run();
            done.refused();
            assert!(done.err.contains("symbolic link"), "{name} -> {target}: {}", done.err);
            host.assert_unchanged(&jar);
        }
    }
}

#[test]
fn root_cve_2019_19921_2023_27561_benign_proc_and_sys_are_made_where_the_image_has_none() {
    isolated();
    let jar = Jar::new("test -e /proc/self/status && test -d /sys/kernel && echo ok");
    fs::remove_dir(jar.root().join("proc")).expect("remove a directory");
    fs::remove_dir(jar.root().join("sys")).expect("remove a directory");
    jar.run().printed("ok\n");
}

#[test]
fn root_cve_2024_45310_missing_parents_are_never_made_on_the_host() {
    isolated();
    let mut jar = Jar::small("grep -c tagged /proc/self/mountinfo");
    let shared = jar.make_dir("shared");
    jar.bind("shared", "/vol");
    for (name, target) in [
        ("a", jar.decoy().display().to_string()),
        ("b", format!("../../../../../../..{}", jar.decoy().display())),
        ("c", format!("{}/gone/further", jar.decoy().display())),
    ] {
        std::os::unix::fs::symlink(target, shared.join(name)).expect("make a link");
        jar.tmpfs("tagged", &format!("/vol/{name}/x/y/z"));
        // Where everything but the last directory is there, on the host.
        jar.tmpfs("tagged", &format!("/vol/{name}/sub/made"));
    }
    jar.config["process"]["cwd"] = json!("/vol/a/made/for/me");
    let host = Host::look(&jar);
    let done = jar.run();
    host.assert_unchanged(&jar);
    done.printed("6\n");
}

#[test]
fn root_cve_2024_45310_benign_missing_parents_are_made_in_a_volume() {
    isolated();
    let mut jar = Jar::small("pwd; test -d /vol/x/y/z && echo made");
    let shared = jar.make_dir("shared");
    jar.bind("shared", "/vol");
    jar.tmpfs("tagged", "/vol/x/y/z");
    jar.config["process"]["cwd"] = json!("/vol/task/here");
    jar.run().printed("/vol/task/here\nmade\n");
    assert!(shared.join("x/y/z").is_dir() && shared.join("task/here").is_dir());
}

#[test]
fn root_cve_2025_24965_an_injected_file_whose_path_is_a_link_stays_inside() {
    isolated();
    let mut jar = Jar::new("cat /etc/hosts /.config.json /etc/resolv.conf");
    jar.write("injected", "injected\n");
    jar.link("etc/hosts", jar.decoy().join("hosts"));
    jar.link(".config.json", jar.decoy().join("file"));
    jar.link("etc/resolv.conf", format!("../../../../..{}", jar.decoy().join("resolv.conf").display()));
    for at in ["/etc/hosts", "/.config.json", "/etc/resolv.conf"] {
        jar.bind("injected", at);
    }
    let host = Host::look(&jar);
    let done = jar.run();
    host.assert_unchanged(&jar);
    done.printed("injected\ninjected\ninjected\n");
}

#[test]
fn root_cve_2025_24965_benign_an_injected_file_covers_that_of_the_image() {
    isolated();
    let mut jar = Jar::new("cat /etc/hosts /etc/hostname");
    jar.write("injected", "injected\n");
    jar.write("rootfs/etc/hosts", "the image's\n");
    jar.bind("injected", "/etc/hosts");
    jar.bind("injected", "/etc/hostname");
    jar.run().printed("injected\ninjected\n");
    let own = fs::read_to_string(jar.root().join("etc/hosts")).expect("read a file");
    assert_eq!(own, "the image's\n", "the image's own file is covered, not written");
}

#[test]
fn root_cve_2026_41579_2026_47766_a_linked_dev_does_not_redirect_devices() {
    isolated();
    for terminal in [false, true] {
        for with_tmpfs in [false, true] {
            for (relative, empty) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut jar = Jar::new("test -c /dev/null && test -c /dev/zero && test -L /dev/ptmx && echo ok");
                // Where names are taken, and where a node could be made.
                let decoy = if empty { jar.decoy().join("sub/deep") } else { jar.decoy() };
                let target = if relative {
                    format!("../../../../../..{}", decoy.display())
                } else {
                    decoy.display().to_string()
                };
                jar.link("dev", target);
                if !with_tmpfs {
                    jar.remove_mount("/dev");
                }
                jar.config["process"]["terminal"] = json!(terminal);
                let host = Host::look(&jar);
                let done = jar.run();
                host.assert_unchanged(&jar);
                assert!(done.code != 0 || done.out.trim_end() == "ok", "{done:?}");
            }
        }
    }
}

#[test]
fn root_cve_2026_41579_2026_47766_benign_devices_are_made_in_a_dev_of_the_image() {
    isolated();
    let script = "test -c /dev/null && test -c /dev/full && test -L /dev/stdin && test -L /dev/ptmx && echo ok";
    let jar = Jar::new(script);
    jar.run().printed("ok\n");
    let mut jar = Jar::new(script);
    jar.make_dir("rootfs/devices");
    jar.link("dev", "/devices");
    jar.remove_mount("/dev");
    jar.run().printed("ok\n");
}

#[test]
fn root_cve_2025_62161_2025_62596_links_under_masks_devices_and_proc_are_refused_or_harmless() {
    isolated();
    // The masks' source, the terminal and procfs redirected at once, as an image can do it.
    for dev in [true, false] {
        let mut jar = Jar::new("test \"$(stat -c %t:%T /proc/keys)\" = 1:3 || exit 42");
        if dev {
            jar.remove_mount("/dev");
            jar.remove_mount("/dev/pts");
            jar.link("dev/null", "/proc/sys/kernel/core_pattern");
            jar.link("dev/pts", jar.decoy());
            jar.link("dev/console", jar.decoy().join("console"));
        }
        jar.link("attr", "/proc/self/attr");
        if !dev {
            jar.bind("decoy", "/attr");
        }
        let host = Host::look(&jar);
        jar.run().refused();
        host.assert_unchanged(&jar);
    }
}

#[test]
fn root_cve_2025_62161_2025_62596_benign_masks_hide_what_they_name() {
    isolated();
    let jar = Jar::new("cat /proc/keys | wc -c; ls /sys/firmware | wc -l; stat -c %t:%T /proc/keys");
    jar.run().printed("0\n0\n1:3\n");
}

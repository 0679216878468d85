//! I15: devices are denied unless allowed, and a read-only cgroupfs is read-only.

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::Jar;

/// Makes nodes of devices that every machine has and opens them. What must not open prints its name.
const OPEN: &str = "mknod /tmp/mem c 1 1; mknod /tmp/loop b 7 0; mknod /tmp/console c 5 1; mknod /tmp/kmsg c 1 11; \
                    for d in mem loop console kmsg; do \
                    ( exec 9< /tmp/$d ) 2>/dev/null && echo OPENED $d; done; echo done";

fn with_mknod() -> Jar {
    let mut jar = Jar::new(OPEN);
    jar.add_cap("CAP_MKNOD");
    jar
}

#[test]
fn root_cve_ghsa_g54h_m393_cpwq_devices_are_denied_by_default() {
    isolated();
    // Without limits, without rules, with an empty list, and with a list that only names what is allowed.
    let only_null = json!([{ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }]);
    let without = [json!(null), json!({}), json!({ "devices": [] }), json!({ "devices": null })];
    for resources in without.into_iter().chain([json!({ "devices": only_null })]) {
        let mut jar = with_mknod();
        jar.config["linux"]["resources"] = resources;
        jar.run().printed("done\n");
    }
}

#[test]
fn root_cve_ghsa_g54h_m393_cpwq_a_list_denies_what_it_does_not_name() {
    isolated();
    let mut jar = with_mknod();
    jar.config["linux"]["resources"] = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm" },
        { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm" }
    ] });
    let done = jar.run();
    assert!(done.out.ends_with("done\n") && !done.out.contains("OPENED"), "{done:?}");
    // The same for what is executed later.
    let mut jar = with_mknod();
    jar.config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    jar.script("sleep 60");
    jar.running();
    let done = jar.exec(&[], &["sh", "-c", OPEN]);
    assert!(done.out.ends_with("done\n") && !done.out.contains("OPENED"), "{done:?}");
}

#[test]
fn root_cve_ghsa_g54h_m393_cpwq_benign_usual_and_allowed_devices_work() {
    isolated();
    let mut jar = Jar::new(
        "echo x > /dev/null && head -c 1 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c && \
         mknod /tmp/loop b 7 0 && ( exec 9< /tmp/loop ) && echo ok",
    );
    jar.add_cap("CAP_MKNOD");
    jar.config["linux"]["resources"] = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "rwm" }
    ] });
    jar.run().printed("1\n2\nok\n");
}

/// Tries to make groups and to change those that are there, everywhere below the mount. Says what worked.
const WRITE_CGROUPS: &str = "cd /sys/fs/cgroup 2>/dev/null || { echo none; exit; }; \
     for d in . */; do mkdir $d/onggi-test 2>/dev/null && { rmdir $d/onggi-test; echo MADE $d; }; \
     test -e $d/cgroup.procs && echo 0 > $d/cgroup.procs && echo WROTE $d; done 2>/dev/null; echo tried";

/// Directories that are not on a read-only mount: there the kernel refuses before it looks at permissions.
const WRITABLE: &str = "cd /sys/fs/cgroup 2>/dev/null || exit 0; for d in . */; do \
     mkdir $d/onggi-test 2>&1 | grep -q -e Read-only -e 'No such' || echo writable $d; done";

fn with_cgroups(cgroupns: bool, sys: &str, options: &[&str]) -> Jar {
    let mut jar = Jar::new(WRITE_CGROUPS);
    if !cgroupns {
        jar.remove_namespace("cgroup");
    }
    if sys == "bind" {
        // What `runc spec --rootless` writes.
        jar.remove_mount("/sys");
        jar.add_mount(json!({ "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] }));
        jar.remove_namespace("network");
    }
    jar.add_mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }));
    jar
}

#[test]
fn root_cve_2023_25809_a_read_only_cgroupfs_is_read_only_for_an_ordinary_user_too() {
    isolated();
    for user in [false, true] {
        for cgroupns in [true, false] {
            for sys in ["sysfs", "bind"] {
                let mut jar = with_cgroups(cgroupns, sys, &["nosuid", "noexec", "nodev", "relatime", "ro"]);
                if user {
                    jar.by_user(54_321);
                    if sys == "sysfs" {
                        // A new sysfs belongs to a new network namespace.
                        jar.config["linux"]["maskedPaths"] = json!([]);
                    }
                }
                let done = jar.run();
                let case = format!("user={user} cgroupns={cgroupns} sys={sys}: {done:?}");
                assert_eq!(done.code, 0, "{case}");
                assert!(done.out == "tried\n" || done.out == "none\n", "{case}");
                // Not only for want of permission: whoever has it later must not be able to write either.
                jar.script(WRITABLE);
                let done = jar.run();
                assert_eq!(
                    (done.code, done.out.as_str()),
                    (0, ""),
                    "user={user} cgroupns={cgroupns} sys={sys}: {done:?}"
                );
            }
        }
    }
}

#[test]
fn root_cve_2023_25809_benign_a_writable_cgroupfs_is_the_containers_own() {
    isolated();
    let jar = with_cgroups(true, "sysfs", &["nosuid", "noexec", "nodev", "relatime", "rw"]);
    let done = jar.run();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("MADE") && done.out.contains("WROTE"), "{done:?}");
}

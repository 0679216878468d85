//! I2: what the runtime writes to /proc reaches the file that is meant, whatever lies over it.

use std::fs;

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::{Host, Jar};

#[test]
fn root_cve_2019_16884_volumes_over_proc_are_refused() {
    isolated();
    for at in ["/proc", "/proc/", "/proc/self", "/proc/sys", "/proc/1/attr", "//proc/./self/attr", "proc/self/attr"] {
        let mut jar = Jar::new("true");
        jar.bind("decoy", at);
        jar.run().refused();
        let mut jar = Jar::new("true");
        jar.tmpfs("tagged", at);
        jar.run().refused();
    }
    // The same by a link of the image.
    for target in ["/proc", "/proc/self/attr", "/proc/self", "../../proc/1"] {
        let mut jar = Jar::new("true");
        jar.link("volume", target);
        jar.bind("decoy", "/volume");
        jar.run().refused();
    }
}

#[test]
fn root_cve_2019_16884_benign_single_files_of_proc_may_be_covered() {
    isolated();
    let mut jar = Jar::new("cat /proc/uptime /proc/meminfo");
    jar.write("fake", "fake\n");
    jar.bind("fake", "/proc/uptime");
    jar.bind("fake", "/proc/meminfo");
    jar.run().printed("fake\nfake\n");
}

#[test]
fn root_cve_2023_28642_a_linked_proc_never_swallows_a_label() {
    isolated();
    for label in ["apparmorProfile", "selinuxLabel"] {
        let mut jar = Jar::new("exit 42");
        jar.make_dir("rootfs/fake/self/attr/apparmor");
        jar.write("rootfs/fake/self/attr/exec", "");
        jar.write("rootfs/fake/self/attr/apparmor/exec", "");
        jar.link("proc", "/fake");
        jar.config["process"][label] = json!("confined");
        jar.run().refused();
        assert_eq!(fs::read_to_string(jar.root().join("fake/self/attr/exec")).expect("read a file"), "");
        assert_eq!(fs::read_to_string(jar.root().join("fake/self/attr/apparmor/exec")).expect("read a file"), "");
    }
}

#[test]
fn root_cve_2023_28642_a_label_that_does_not_take_is_no_container() {
    isolated();
    // No policy has this name, and a kernel without the module has none at all.
    for label in ["apparmorProfile", "selinuxLabel"] {
        let mut jar = Jar::new("exit 42");
        jar.config["process"][label] = json!("onggi-test-no-such-label");
        jar.run().refused();
        let mut jar = Jar::new("sleep 60");
        jar.running();
        jar.config["process"][label] = json!("onggi-test-no-such-label");
        jar.args(&["sh", "-c", "exit 42"]);
        let process = jar.write("process.json", jar.config["process"].to_string());
        jar.exec(&["--process", process.to_str().expect("a UTF-8 path")], &[]).refused();
    }
}

#[test]
fn root_cve_2023_28642_benign_an_empty_label_asks_for_nothing() {
    isolated();
    let mut jar = Jar::new("echo ok");
    jar.config["process"]["apparmorProfile"] = json!("");
    jar.config["process"]["selinuxLabel"] = json!("");
    jar.run().printed("ok\n");
}

#[test]
fn root_cve_2025_52881_mounts_never_lead_writes_to_another_file_of_proc() {
    isolated();
    let redirects = ["/proc/self/attr/exec", "/proc/self/attr", "/proc/self/oom_score_adj", "/proc/thread-self/attr"];
    for at in redirects.into_iter().chain(["/proc/sys/net/ipv4/ip_forward", "/proc/1/oom_score_adj"]) {
        for source in ["/proc/self/sched", "/proc/sys/kernel/core_pattern"] {
            for through_link in [false, true] {
                let mut jar = Jar::new("exit 42");
                let destination = if through_link { "/harmless" } else { at };
                if through_link {
                    jar.link("harmless", at);
                }
                jar.bind(source, destination);
                jar.config["process"]["oomScoreAdj"] = json!(500);
                jar.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
                let host = Host::look(&jar);
                let done = jar.run();
                host.assert_unchanged(&jar);
                done.refused();
            }
        }
    }
}

/// A container that may mount covers its /proc; what is then executed there is still what was asked for.
#[test]
fn root_cve_2025_52881_2015_1334_exec_does_not_trust_the_containers_proc() {
    isolated();
    let script = "mount -t tmpfs fake /proc && mkdir -p /proc/self/attr /proc/1 && touch /proc/self/oom_score_adj && \
                  for n in $(awk 'BEGIN { for (i = 1; i < 200; i++) print i }'); do mkdir -p /proc/$n/attr; \
                  echo 0 > /proc/$n/oom_score_adj; done; echo ready; sleep 60";
    let mut jar = Jar::new(script);
    jar.add_cap("CAP_SYS_ADMIN");
    jar.running();
    jar.until("/proc is covered", |out| out.contains("ready"));
    jar.config["process"]["oomScoreAdj"] = json!(731);
    jar.script("sleep 60");
    let process = jar.write("process.json", jar.config["process"].to_string());
    let pid_file = jar.path("pid");
    let words = ["--detach", "--pid-file", pid_file.to_str().expect("UTF-8"), "--process"];
    let done = jar.exec_detached(&[&words[..], &[process.to_str().expect("UTF-8")]].concat());
    assert_eq!(done.code, 0, "{}", done.err);
    let pid = fs::read_to_string(pid_file).expect("the pid file is written");
    let value = fs::read_to_string(format!("/proc/{}/oom_score_adj", pid.trim())).expect("the process lives");
    assert_eq!(value.trim(), "731", "the kernel was told, not a file of the container");
}

#[test]
fn root_cve_2025_52881_2015_1334_benign_values_arrive_at_create_and_exec() {
    isolated();
    let mut jar = Jar::new("cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward; sleep 60");
    jar.config["process"]["oomScoreAdj"] = json!(500);
    jar.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    jar.link("volume", "/data");
    jar.make_dir("rootfs/data");
    jar.bind("decoy", "/volume");
    jar.running();
    jar.until("the values", |out| out == "500\n1\n");
    jar.exec(&[], &["cat", "/proc/self/oom_score_adj"]).printed("500\n");
}

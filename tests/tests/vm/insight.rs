//! The commands that look and explain, on a kernel with pure version 2, systemd, AppArmor and, before Linux 6.14, no
//! tracepoint for capabilities.

use std::{collections::BTreeSet, fs};

use onggi_tests::machine::sh;
use serde_json::Value;

use crate::Stage;

impl Stage {
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.onggi.ok(arguments);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
    }

    fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.onggi.ok(arguments);
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {l}"))).collect()
    }
}

#[test]
fn vm_doctor_describes_this_machine() {
    let stage = Stage::new();
    let found = stage.json_lines(&["doctor", "--format", "json"]);
    let text = |name: &str| {
        let row = found.iter().find(|row| row["Name"] == name).unwrap_or_else(|| panic!("no {name} in {found:?}"));
        (row["Level"].as_str().unwrap_or_default().to_owned(), row["Found"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(text("version").1, sh("uname -r").trim());
    assert!(text("layout").1.contains("v2") || text("layout").1.contains("version 2"), "{:?}", text("layout"));
    let controllers = text("controllers");
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        assert!(controllers.1.contains(controller), "{controllers:?}");
    }
    assert_eq!((controllers.0.as_str(), text("apparmor").0.as_str()), ("ok", "ok"), "{found:?}");
    assert!(!found.iter().any(|row| row["Level"] == "fail"), "containers run here: {found:?}");
}

#[test]
fn vm_why_explains_ends_by_what_version_2_counts() {
    let stage = Stage::new();
    let cases: [(&[&str], &[&str], &str, &str); 3] = [
        (&["-m", "16m"], &["tail", "/dev/zero"], "out-of-memory", "16MiB"),
        (
            &["--pids-limit", "5"],
            &["busybox", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done; wait"],
            "pids-limit",
            "5",
        ),
        (&[], &["sh", "-c", "echo last words >&2; exit 3"], "exit-code", "last words"),
    ];
    for (options, command, cause, part) in cases {
        let ran =
            stage.onggi.run(&[&["run", "--name", "box", "--network", "none"], options, &["host:"], command].concat());
        let told = stage.json(&["why", "--format", "json", "box"]);
        assert_eq!(told["ExitCode"].as_i64(), ran.code.map(i64::from), "{ran}\n{told}");
        assert!(told["Cause"] == cause && told.to_string().contains(part), "{command:?}: {told}");
        stage.onggi.ok(&["rm", "-f", "box"]);
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_the_kernels_page_namespaces_groups_and_top_of_a_container_agree_with_the_tools() {
    let stage = Stage::new();
    let id = stage.start(&["--name", "web", "-m", "48m", "--pids-limit", "50", "--cpus", "0.5"]);
    let pid = stage.inspect("web", "/State/Pid").to_string();
    let page = stage.json(&["inspect", "--kernel", "--format", "json", "web"]);
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let words = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.filter(|l| !l.is_empty()).collect()
    };
    let namespaces = page["namespaces"].as_array().expect("a list").iter();
    let ours: BTreeSet<String> = namespaces.map(|n| format!("{} {}", text(&n["kind"]), text(&n["inode"]))).collect();
    assert_eq!(ours, words(&sh(&format!("lsns --noheadings --output TYPE,NS -p {pid}"))));
    assert!(page.to_string().contains("onggi-default"), "AppArmor's label: {page}");
    let values = page["cgroups"][0]["values"].as_array().expect("a list");
    let limit = |name: &str| text(&values.iter().find(|v| v["name"] == name).expect(name)["limit"][1]);
    assert_eq!((limit("memory"), limit("tasks")), ((48 << 20).to_string(), "50".to_owned()));
    // Namespaces of the machine: all of its process are there, and the container owns some.
    let listed = stage.onggi.ok(&["ns", "ls"]);
    for line in sh(&format!("lsns --noheadings --output NS -p {pid}")).lines() {
        assert!(listed.contains(line.trim()), "{line} is not in {listed}");
    }
    assert!(listed.contains("web"), "{listed}");
    // A container by its name is its group.
    let get = |word: &str| stage.onggi.ok(&["cgroup", "get", "-v", word, "memory", "pids", "cpus"]);
    assert_eq!(get("web"), "48M\n50\n0.5");
    assert_eq!((get("container:web"), get(&id[..12])), (get("web"), get("web")));
    let top = stage.onggi.ok(&["top", "-n", "1", "-d", "0.2", "--format", "{{.Name}} {{.Limit}} {{.Group}}"]);
    assert!(top.lines().any(|l| l.starts_with("web 48MiB /") && l.contains(&id)), "{top}");
    let group = stage.onggi.ok(&["cgroup", "top", "-n", "1", "-d", "0.2", "web", "--format", "{{.Name}}"]);
    assert_eq!(group.lines().next(), Some("web"), "{group}");
    stage.onggi.ok(&["cgroup", "set", "-q", "web", "pids=60"]);
    assert!(sh(&format!("cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup)/pids.max")).starts_with("60"));
    stage.onggi.ok(&["rm", "-f", "web"]);
    assert!(stage.onggi.run(&["cgroup", "get", "web"]).stderr.contains("there is no control group web"));
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_net_ls_shows_the_bridge_the_pair_and_the_published_port() {
    let stage = Stage::new();
    let command = ["host:", "busybox", "httpd", "-f", "-p", "80"];
    stage.onggi.ok(&[&["run", "-d", "--name", "web", "-p", "8080:80"], &command[..]].concat());
    let address = stage.onggi.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let told = stage.onggi.ok(&["net", "ls"]);
    for part in ["onggi0", "web", &address, "8080"] {
        assert!(!part.is_empty() && told.contains(part), "{part:?} is not in\n{told}");
    }
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_capabilities_are_learned_and_audited_without_a_tracepoint() {
    let stage = Stage::new();
    let tracepoint =
        sh("mount -t tracefs tracefs /mnt; ls -d /mnt/events/capability 2> /dev/null || true; umount /mnt");
    assert_eq!(tracepoint, "", "this kernel has the tracepoint, which other tests cover");
    let dir = stage.onggi.dir().join("learned").display().to_string();
    let workload = ["host:", "busybox", "sh", "-c", "touch /var/made; busybox chown 5 /var/made; cat /etc/hostname"];
    let learn = ["learn", "run", "--output", &dir, "--network", "none"];
    let ran = stage.onggi.run(&[&learn, &workload[..]].concat());
    assert_eq!(ran.code, Some(0), "{ran}");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(format!("{dir}/report.json")).expect("a report")).expect("JSON");
    let names: Vec<&str> =
        report["Capabilities"].as_array().expect("they are known").iter().filter_map(Value::as_str).collect();
    assert!(
        names.contains(&"CAP_CHOWN") && !names.contains(&"CAP_NET_RAW") && !names.contains(&"CAP_KILL"),
        "{report}"
    );
    assert_eq!(report["LostEvents"], 0, "{report}");
    // What was learned is enough, and nothing beyond it.
    let flags = fs::read_to_string(format!("{dir}/flags")).expect("flags");
    let flags: Vec<&str> = flags.lines().collect();
    let run =
        |command: &[&str]| stage.onggi.run(&[&["run", "--rm", "--network", "none"], &flags[..], command].concat());
    assert_eq!(run(&workload).code, Some(0), "{flags:?}");
    let outside = run(&["host:", "busybox", "sh", "-c", "kill -0 1; busybox ping -c 1 127.0.0.1"]);
    assert_ne!(outside.code, Some(0), "{outside}");
    // The audit of one that runs.
    let caps = ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "NET_RAW", "--cap-add", "KILL"];
    let script = "touch /tmp/x; while :; do busybox chown 7:8 /tmp/x; sleep 0.1; done";
    let start = ["run", "-d", "--network", "none", "--name", "box"];
    stage.onggi.ok(&[&start[..], &caps, &["host:", "busybox", "sh", "-c", script]].concat());
    let rows = ["--format", "{{.Name}} {{.Granted}} {{if .Used}}used{{else}}unused{{end}}"];
    let seen = stage.onggi.ok(&[&["caps", "audit", "--for", "4"], &rows[..], &["box"]].concat());
    for line in ["cap_chown yes used", "cap_net_raw yes unused", "cap_kill yes unused"] {
        assert!(seen.lines().any(|found| found == line), "{line:?} is missing in\n{seen}");
    }
    assert!(!seen.contains("cap_sys_admin"), "mapping memory is no use of it:\n{seen}");
    let words = stage.onggi.ok(&["caps", "audit", "--explain", "--for", "1", "box"]);
    assert!(words.contains("p:onggi/cap_asked cap_capable") && !words.contains("events/capability"), "{words}");
    let script = stage.onggi.dir().join("script");
    fs::write(&script, stage.onggi.ok(&["caps", "audit", "--explain=sh", "--for", "1", "box"])).expect("write");
    // Its numbers are those of the first pid namespace; that it runs to its end and leaves nothing is seen below.
    sh(&format!("sed -i 's/^for p in .*/:/' {0}; unshare -m sh {0}", script.display()));
    let learned = stage.onggi.ok(&["learn", "run", "--explain", "host:", "true"]);
    assert!(learned.contains("p:onggi/cap_asked cap_capable"), "{learned}");
    let failed = stage.onggi.run(&["caps", "audit", "box", "sh", "-c", "exit 3"]);
    assert_eq!(failed.code, Some(3), "{failed}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    let left = sh("mount -t tracefs tracefs /mnt; ls /mnt/instances; cat /mnt/kprobe_events; umount /mnt");
    assert!(!left.contains("onggi"), "{left}");
    stage.onggi.assert_nothing_left();
}

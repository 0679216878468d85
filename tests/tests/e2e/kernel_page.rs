//! `inspect --kernel` beside lsns, findmnt, /proc, capsh and ss.

use std::collections::BTreeSet;

use onggi_tests::machine::sh;
use serde_json::Value;

use crate::Stage;

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|l| !l.is_empty()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn rows(page: &Value, section: &str, fields: &[&str]) -> BTreeSet<String> {
    let all = page[section].as_array().expect("a list");
    all.iter().map(|row| fields.iter().map(|f| text(&row[*f])).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn e2e_the_page_of_a_container_agrees_with_the_tools_that_people_know() {
    let stage = Stage::new();
    let options =
        ["run", "-d", "--name", "web", "-m", "48m", "--pids-limit", "50", "--cpus", "0.5", "--hostname", "jar"];
    stage.onggi.ok(&[&options[..], &[&stage.busybox, "httpd", "-f", "-p", "8080"]].concat());
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    // The server listens as soon as it has started.
    sh(&format!("for i in $(seq 100); do nsenter -t {pid} -n ss -Hlnt | grep -q 8080 && break; sleep 0.05; done"));
    let page: Value =
        serde_json::from_str(&stage.onggi.ok(&["inspect", "--kernel", "--format", "json", "web"])).expect("JSON");
    let theirs = lines(&sh(&format!("lsns --noheadings --output TYPE,NS -p {pid}")));
    assert_eq!(rows(&page, "namespaces", &["kind", "inode"]), theirs);
    let shared: BTreeSet<String> = page["namespaces"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|n| n["shared"] == true)
        .map(|n| text(&n["kind"]))
        .collect();
    assert_eq!(shared, ["time", "user"].map(str::to_owned).into());
    let theirs = lines(&sh(&format!("findmnt --task {pid} --list --noheadings --output TARGET,FSTYPE")));
    assert_eq!(rows(&page, "mounts", &["target", "fstype"]), theirs);
    let status = sh(&format!("cat /proc/{pid}/status"));
    let field = |name: &str| {
        status.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim_start_matches(':').trim().to_owned())
    };
    for (name, key) in
        [("CapEff", "effective"), ("CapPrm", "permitted"), ("CapInh", "inheritable"), ("CapBnd", "bounding")]
    {
        assert_eq!(Some(text(&page["capabilities"][key])), field(name), "{name}");
    }
    assert_eq!(Some(page["seccomp"]["filters"].to_string()), field("Seccomp_filters"));
    assert_eq!(page["seccomp"]["mode"], "filter");
    let value = |controller: &str, name: &str, key: &str| {
        let groups = page["cgroups"].as_array().expect("a list");
        let group = groups.iter().find(|g| text(&g["controllers"]).split(',').any(|c| c == controller));
        let values = group.expect(controller)["values"].as_array().cloned().unwrap_or_default();
        text(&values.iter().find(|v| v["name"] == name).expect(name)[key][1])
    };
    let v1 = page["cgroups"].as_array().expect("a list").iter().any(|g| g["controllers"] == "memory");
    let (memory, tasks) = if v1 { ("memory", "pids") } else { ("unified", "unified") };
    assert_eq!(value(memory, "memory", "limit"), (48 << 20).to_string());
    assert_eq!((value(tasks, "tasks", "usage"), value(tasks, "tasks", "limit")), ("1".to_owned(), "50".to_owned()));
    let limits = rows(&page, "limits", &["name", "soft", "hard"]);
    let theirs = sh(&format!("prlimit --pid {pid} --nofile --raw --noheadings --output SOFT,HARD"));
    assert!(
        limits.contains(&format!("open files {}", theirs.split_whitespace().collect::<Vec<_>>().join(" "))),
        "{limits:?}"
    );
    let listens = sh(&format!("nsenter -t {pid} -n ss -Hlntu | awk '{{print $1, $5}}'"));
    let ours: BTreeSet<String> = rows(&page, "sockets", &["kind", "state", "local"])
        .into_iter()
        .filter(|s| s.starts_with("tcp LISTEN"))
        .collect();
    assert!(ours.iter().any(|s| s.ends_with(":8080")) && listens.contains(":8080"), "{ours:?} {listens}");
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_filter_of_a_container_is_decoded_as_it_decides() {
    let stage = Stage::new();
    stage.onggi.ok(&["run", "-d", "--name", "box", "--network", "none", &stage.busybox, "sleep", "300"]);
    let page: Value =
        serde_json::from_str(&stage.onggi.ok(&["inspect", "--kernel", "--format", "json", "box"])).expect("JSON");
    let filter = &page["seccomp"]["decoded"][0];
    assert!(filter["instructions"].as_u64().is_some_and(|n| n > 10), "{}", page["seccomp"]);
    let verdict = |call: &str| {
        let verdicts = filter["verdicts"].as_object().expect("an object");
        verdicts
            .iter()
            .find(|(_, names)| names.as_array().is_some_and(|n| n.iter().any(|n| n == call)))
            .map(|(v, _)| v.clone())
    };
    assert_eq!(verdict("read").as_deref(), Some("allow"));
    for call in ["kexec_load", "add_key", "bpf"] {
        assert!(verdict(call).is_some_and(|v| v.starts_with("errno(")), "{call}: {:?}", verdict(call));
    }
    assert_eq!(verdict("personality").as_deref(), Some("depends on arguments"));
    assert_eq!(stage.onggi.ok(&["inspect", "-f", "{{.State.Status}}", "box"]), "running", "it goes on");
    let words = stage.onggi.ok(&["inspect", "--kernel", "box"]);
    for part in [
        "namespaces    $ lsns -p",
        "mounts    $ findmnt",
        "cgroups    $",
        "capabilities    $",
        "sockets    $",
        "filter 0:",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let left = stage.onggi.ok(&["inspect", "--kernel", "--no-stop", "--format", "{{.seccomp.note}}", "box"]);
    assert!(left.contains("not asked for"), "{left}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    assert_eq!(stage.onggi.run(&["inspect", "--kernel", "box"]).code, Some(1));
    stage.onggi.assert_nothing_left();
}

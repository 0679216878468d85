//! `--explain` of the verbs: it changes nothing, and what it names is what the verb then does.

use std::{collections::BTreeSet, fs, path::Path};

use onggi_tests::{Ran, onggi::collect};
use serde_json::Value;

use crate::Stage;

/// Every file below the two roots with its size, but for what looking itself touches (the database's log, locks).
fn tree(dir: &Path, out: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, meta) = (entry.path(), entry.metadata());
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("state.db") || path.ends_with("locks") || path.ends_with("intents") {
            continue;
        }
        let Ok(meta) = meta else { continue };
        out.insert(format!("{} {}", path.display(), if meta.is_dir() { 0 } else { meta.len() }));
        if meta.is_dir() {
            tree(&path, out);
        }
    }
}

fn state(stage: &Stage) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    tree(&stage.onggi.root(), &mut out);
    tree(&stage.onggi.runroot(), &mut out);
    out
}

/// Explains in three forms, without changing anything; the operations.
#[track_caller]
fn explained(stage: &Stage, verb: &[&str], rest: &[&str]) -> Vec<Value> {
    let before = state(stage);
    let words = stage.onggi.ok(&[verb, &["--explain"], rest].concat());
    let script = stage.onggi.ok(&[verb, &["--explain=sh"], rest].concat());
    let json = stage.onggi.ok(&[verb, &["--explain=json"], rest].concat());
    assert!(words.lines().count() > 1, "{verb:?}: {words}");
    let mut sh = std::process::Command::new("sh");
    sh.args(["-n", "-c", &script]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let checked: Ran = collect(sh.spawn().expect("start sh"), "sh -n".to_owned());
    assert_eq!(checked.code, Some(0), "{checked}\n{script}");
    assert_eq!(state(stage), before, "{verb:?} --explain changed something");
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    let plans = json.as_array().cloned().unwrap_or_else(|| vec![json]);
    plans.iter().flat_map(|plan| plan["operations"].as_array().cloned().unwrap_or_default()).collect()
}

fn of<'v>(operations: &'v [Value], op: &str) -> Vec<&'v Value> {
    operations.iter().filter(|o| o["op"] == op).collect()
}

#[test]
fn e2e_verbs_on_containers_name_what_they_then_do() {
    let stage = Stage::new();
    let options = ["run", "-d", "--name", "web", "-p", "8091:80", "--hostname", "jar"];
    stage.onggi.ok(&[&options[..], &[&stage.busybox, "sleep", "300"]].concat());
    let pid: i64 = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]).parse().expect("a number");
    let stop = explained(&stage, &["stop"], &["-t", "1", "web"]);
    let signal = of(&stop, "signal");
    assert!(signal.len() == 1 && signal[0]["pid"] == pid && signal[0]["signal"] == 15, "{stop:?}");
    assert_eq!(of(&stop, "wait_then_kill")[0]["seconds"], 1);
    assert_eq!(of(&stop, "unpublish")[0]["key"], "tcp . 8091");
    let cgroups: Vec<String> =
        of(&stop, "remove_cgroup").iter().map(|o| o["path"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(!cgroups.is_empty() && cgroups.iter().all(|dir| Path::new(dir).is_dir()), "{cgroups:?}");
    let kill = explained(&stage, &["kill"], &["-s", "HUP", "web"]);
    assert_eq!(of(&kill, "signal")[0]["signal"], 1);
    let exec = explained(&stage, &["exec"], &["-u", "1000", "-w", "/tmp", "web", "id"]);
    let enter = of(&exec, "enter")[0];
    assert!(
        enter["user"][0] == 1000 && enter["cwd"] == "/tmp" && enter["kinds"].to_string().contains("net"),
        "{enter}"
    );
    let commit = explained(&stage, &["commit"], &["web", "new:1"]);
    assert_eq!(of(&commit, "freeze").len(), 2, "{commit:?}");
    explained(&stage, &["restart"], &["web"]);
    explained(&stage, &["export"], &["-o", "/nowhere/x.tar", "web"]);
    let refused = stage.onggi.run(&["rm", "--explain", "web"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("it is running"), "{refused}");
    let removed = explained(&stage, &["rm"], &["-f", "web"]);
    let paths: Vec<String> =
        of(&removed, "remove").iter().map(|o| o["path"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(paths.iter().all(|path| Path::new(path).exists()), "what is to be removed is there: {paths:?}");
    stage.onggi.ok(&["stop", "-t", "0", "web"]);
    assert!(cgroups.iter().all(|dir| !Path::new(dir).exists()), "what was named is gone: {cgroups:?}");
    let again = explained(&stage, &["stop"], &["web"]);
    assert!(again.is_empty(), "a stopped container needs nothing: {again:?}");
    explained(&stage, &["start"], &["web"]);
    explained(&stage, &["create"], &["--name", "other", &stage.busybox, "true"]);
    assert_eq!(of(&explained(&stage, &["container", "prune"], &[]), "row").len(), 1);
    stage.onggi.ok(&["rm", "web"]);
    assert!(paths.iter().all(|path| !Path::new(path).exists()), "what was named is gone: {paths:?}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_verbs_on_images_name_what_they_then_do() {
    let stage = Stage::new();
    let pull = explained(&stage, &["pull"], &[&stage.busybox]);
    let fetched = of(&pull, "fetch");
    assert!(fetched.len() == 2 && fetched.iter().all(|o| o["bytes"].as_u64().is_some_and(|n| n > 50)), "{pull:?}");
    let unpacked: Vec<String> =
        of(&pull, "unpack").iter().map(|o| o["dir"].as_str().unwrap_or_default().to_owned()).collect();
    stage.onggi.ok(&["pull", &stage.busybox]);
    assert!(unpacked.len() == 2 && unpacked.iter().all(|dir| Path::new(dir).is_dir()), "{unpacked:?}");
    let again = explained(&stage, &["pull"], &[&stage.busybox]);
    assert_eq!((of(&again, "fetch").len(), of(&again, "keep").len()), (0, 4), "{again:?}");
    assert_eq!(of(&explained(&stage, &["tag"], &[&stage.busybox, "mine:1"]), "row").len(), 1);
    stage.onggi.ok(&["tag", &stage.busybox, "mine:1"]);
    let one = explained(&stage, &["rmi"], &["mine:1"]);
    assert!(one.len() == 1 && one[0]["table"] == "names", "{one:?}");
    assert_eq!(explained(&stage, &["image", "untag"], &["mine:1"]).len(), 2);
    assert_eq!(of(&explained(&stage, &["push"], &[&stage.busybox]), "send").len(), 4);
    explained(&stage, &["save"], &["-o", "/nowhere/x.tar", "mine:1"]);
    explained(&stage, &["load"], &["-i", "/nowhere/x.tar"]);
    explained(&stage, &["import"], &["/nowhere/x.tar", "made:1"]);
    explained(&stage, &["image", "copy"], &["mine:1", "oci:/nowhere"]);
    explained(&stage, &["image", "from-binary"], &["/bin/true"]);
    explained(&stage, &["login"], &["registry.example"]);
    explained(&stage, &["logout"], &["registry.example"]);
    stage.onggi.ok(&["rmi", "mine:1"]);
    let all = explained(&stage, &["image", "prune"], &["-a"]);
    explained(&stage, &["system", "prune"], &["-a"]);
    let paths: Vec<String> =
        of(&all, "remove").iter().map(|o| o["path"].as_str().unwrap_or_default().to_owned()).collect();
    assert!(paths.len() >= 5 && paths.iter().all(|path| Path::new(path).exists()), "{paths:?}");
    stage.onggi.ok(&["image", "prune", "-a", "-f"]);
    assert!(paths.iter().all(|path| !Path::new(path).exists()), "what was named is gone: {paths:?}");
    stage.onggi.assert_nothing_left();
}

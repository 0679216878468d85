//! `ONGGI_TRACE`: operations with their times, from every part, in the order in which they are done.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::Stage;

#[test]
fn e2e_every_part_tells_what_it_does_and_when() {
    let stage = Stage::new();
    let pulled = stage.onggi.finish(stage.onggi.command(&["pull", "-q", &stage.busybox]).env("ONGGI_TRACE", "1"));
    assert!(pulled.stderr.contains(" storage: unpack layer"), "{pulled}");
    let args = ["run", "--rm", "-p", "8092:80", &stage.busybox, "sh", "-c", "echo out; echo err >&2"];
    let ran = stage.onggi.finish(stage.onggi.command(&args).env("ONGGI_TRACE", "json"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "out\n"), "{ran}");
    let told: Vec<Value> = ran.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let parts: BTreeSet<&str> = told.iter().filter_map(|e| e["onggi_trace"].as_str()).collect();
    assert_eq!(parts, BTreeSet::from(["engine", "network", "sandbox", "storage"]), "{ran}");
    for event in &told {
        assert!(event["at"].as_f64().is_some_and(|at| at > 0.0) && event["took"].as_f64().is_some(), "{event}");
    }
    let sandbox: Vec<f64> =
        told.iter().filter(|e| e["onggi_trace"] == "sandbox").filter_map(|e| e["at"].as_f64()).collect();
    assert!(sandbox.len() > 20 && sandbox.is_sorted(), "{sandbox:?}");
    let what = |part: &str| {
        told.iter().filter(|e| e["onggi_trace"] == part).map(|e| e["what"].to_string()).collect::<String>()
    };
    assert!(what("sandbox").contains("execute") && what("network").contains("8092"), "{ran}");
    // The container has none of it.
    let others: Vec<&str> = ran.stderr.lines().filter(|l| !l.starts_with('{') && !l.contains("note:")).collect();
    assert_eq!(others, ["err"], "{ran}");
    let words =
        stage.onggi.finish(stage.onggi.command(&["run", "--rm", &stage.busybox, "true"]).env("ONGGI_TRACE", "1"));
    assert!(words.stderr.lines().any(|l| l.starts_with("onggi-trace ") && l.contains(" sandbox: ")), "{words}");
    let alone = stage.onggi.finish(stage.onggi.command(&["ns", "run", "--uts", "true"]).env("ONGGI_TRACE", "1"));
    assert!(alone.stderr.contains(" primitives: "), "{alone}");
    let quiet =
        stage.onggi.finish(stage.onggi.command(&["run", "--rm", &stage.busybox, "true"]).env("ONGGI_TRACE", "0"));
    assert!(!quiet.stderr.contains("trace"), "{quiet}");
    stage.onggi.assert_nothing_left();
}

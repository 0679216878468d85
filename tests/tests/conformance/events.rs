//! `events`: the members of statistics and their values, and the event of a process that was killed for memory.
//! crun has no such command.

use std::{collections::BTreeSet, fs};

use onggi_tests::{Bundle, Instance, Runtime, eventually};
use serde_json::{Value, json};

use crate::{compare::same, lifecycle::Steps, probe::View};

fn limited(instance: &Instance, script: &str) -> (Bundle, String) {
    let mut bundle = Bundle::script(script);
    bundle.config["linux"]["resources"] = json!({
        "memory": { "limit": 33_554_432, "swap": 33_554_432 },
        "pids": { "limit": 25 },
        "cpu": { "quota": 50_000, "period": 100_000 },
    });
    let id = instance.id("events");
    instance.start(&bundle, &id);
    (bundle, id)
}

/// The paths of all members; what varies by device or processor is one path.
fn members(at: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                members(&format!("{at}/{name}"), value, found);
            }
        }
        // What the kernel reports once there is something to report.
        _ if ["blkio", "network_interfaces", "intel_rdt", "throttling"].iter().any(|part| at.contains(part)) => {}
        _ => drop(found.insert(at.to_owned())),
    }
}

fn only_runc_and_ours(observe: impl Fn(&Instance) -> View + Sync) {
    same(|instance| if instance.runtime() == Runtime::Crun { View::new() } else { observe(instance) });
}

#[test]
fn conformance_events_stats_have_the_same_members_and_limits() {
    only_runc_and_ours(|instance| {
        let mut steps = Steps::new(instance);
        let (_bundle, id) = limited(instance, "sleep 1000 & echo up; wait");
        instance.wait_stdout(&id, "up\n");
        let ran = steps.run("events", &["events", "--stats", &id]);
        let stats: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let mut found = BTreeSet::new();
        members("", &stats, &mut found);
        // The kernel's own names of memory.stat are the same for both; here what a runtime chooses.
        for member in found.iter().filter(|member| !member.contains("/raw/")) {
            steps.see(&format!("member {member}"), "there");
        }
        let raw: BTreeSet<_> = found.iter().filter(|member| member.contains("/raw/")).cloned().collect();
        steps.see("raw members", format!("{raw:?}"));
        steps.see("type", &stats["type"]);
        steps.see("the id", stats["id"] == json!(id));
        for value in ["/data/pids/current", "/data/pids/limit", "/data/memory/usage/limit", "/data/memory/swap/limit"] {
            steps.see(value, stats.pointer(value).unwrap_or(&Value::Null));
        }
        let some = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64).is_some_and(|n| n > 0);
        steps.see("memory is used", some("/data/memory/usage/usage"));
        steps.see("time is used", some("/data/cpu/usage/total"));
        steps.see("lines", ran.stdout.lines().count());
        steps.run("of nobody", &["events", "--stats", &instance.id("nobody")]);
        steps.run("bad interval", &["events", "--interval", "0s", &id]);
        steps.view
    });
}

#[test]
fn conformance_events_tell_of_a_kill_for_memory_until_the_container_ends() {
    only_runc_and_ours(|instance| {
        let mut steps = Steps::new(instance);
        let wait = |file: &str| format!("until [ -e /tmp/{file} ]; do sleep 0.05; done");
        let script = format!("{}; (tail -c 100000000 /dev/zero); {}", wait("eat"), wait("end"));
        let (bundle, id) = limited(instance, &script);
        let out = instance.dir().join("events");
        let mut command = instance.command(&["events", "--interval", "1s", &id]);
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(instance.dir().join("why")).unwrap());
        let mut events = command.spawn().unwrap();
        let lines = || -> Vec<Value> {
            let text = fs::read_to_string(&out).unwrap_or_default();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        let kinds = |wanted: &str| lines().iter().any(|event| event["type"] == wanted);
        eventually("statistics come by themselves", || kinds("stats").then_some(()));
        fs::write(bundle.rootfs().join("tmp/eat"), "").unwrap();
        eventually("the kill is told", || kinds("oom").then_some(()));
        let oom = lines().into_iter().find(|event| event["type"] == "oom").unwrap_or_default();
        steps.see("oom id", oom["id"] == json!(id));
        steps.see("oom members", format!("{:?}", oom.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>())));
        fs::write(bundle.rootfs().join("tmp/end"), "").unwrap();
        instance.wait_status(&id, "stopped");
        // runc hears of the end when the control group goes.
        instance.remove(&id);
        let ended = eventually("the command ends with the container", || events.try_wait().unwrap());
        steps.see("exit", format!("{:?}", ended.code()));
        steps.view
    });
}

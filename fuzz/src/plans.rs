//! Documents that become a plan.

use std::path::Path;

use onggi_sandbox::plan::{MountOptions, ParentOp, PlanInput, ProcessOp, SandboxFacts, SandboxPlan, plan};
use onggi_spec::{
    facts::{CgroupLayout, V1Hierarchy},
    monitor::RootFs,
    oci::runtime::{Process, Spec},
};
use serde_json::{Value, json};

/// Printed bytes per byte of input: words repeat a path a few times and escape it.
const BYTES_PER_BYTE: usize = 64;
/// What every plan has besides.
const BYTES_ALWAYS: usize = 64 * 1024;

fn layouts() -> [CgroupLayout; 3] {
    let controllers = ["cpu", "memory", "pids", "devices", "cpuset", "blkio", "hugetlb", "net_cls", "freezer"];
    let v1 = controllers.map(|c| V1Hierarchy {
        controllers: vec![c.to_owned()],
        mount: format!("/sys/fs/cgroup/{c}"),
        own: "/".to_owned(),
    });
    let v2 = CgroupLayout::V2 {
        mount: "/sys/fs/cgroup".to_owned(),
        controllers: ["cpu", "memory", "pids", "io", "cpuset", "hugetlb"].map(str::to_owned).into(),
        own: "/".to_owned(),
    };
    [CgroupLayout::None, CgroupLayout::V1 { hierarchies: v1.into(), unified: None }, v2]
}

fn plan_on(config: &Spec, layout: CgroupLayout, privileged: bool) -> Option<SandboxPlan> {
    let input = PlanInput::new("fuzz", Path::new("/bundle"), config, &RootFs::Path);
    plan(&input, &SandboxFacts::new(layout, privileged)).ok()
}

/// `config.json`: parsed, planned, printed in every form.
///
/// # Panics
/// When a promise about every plan is broken.
pub fn config(data: &[u8]) {
    let Ok(config) = Spec::from_slice(data) else { return };
    for layout in layouts() {
        for privileged in [true, false] {
            let Some(plan) = plan_on(&config, layout.clone(), privileged) else { continue };
            check(&plan, data.len());
        }
    }
}

fn check(plan: &SandboxPlan, input: usize) {
    let bound = BYTES_ALWAYS + BYTES_PER_BYTE * input;
    let words = plan.words().join("\n");
    assert!(words.len() <= bound, "{} bytes of words for {input} bytes", words.len());
    assert!(plan.script().len() <= bound, "the script is long");
    let json = serde_json::to_vec(plan).expect("a plan is JSON");
    let again: SandboxPlan = serde_json::from_slice(&json).expect("and can be read again");
    assert_eq!(again, *plan);
    assert!(matches!(plan.process.last(), Some(ProcessOp::Exec { .. })), "the last thing is the program");
}

/// A configuration that is fine but for one member.
fn with(change: impl FnOnce(&mut Value)) -> Option<Spec> {
    let mut config = json!({
        "ociVersion": "1.2.0",
        "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] }
    });
    change(&mut config);
    serde_json::from_value(config).ok()
}

/// Id mappings: JSON, or triples of numbers. What is accepted covers no id twice over 2^32 and is what was asked.
///
/// # Panics
/// When a promise about every plan is broken.
pub fn mappings(data: &[u8]) {
    let list: Value = match serde_json::from_slice(data) {
        Ok(json) => json,
        Err(_) => data
            .chunks_exact(12)
            .map(|c| {
                let number = |at: usize| u32::from_le_bytes([c[at], c[at + 1], c[at + 2], c[at + 3]]);
                json!({ "containerID": number(0), "hostID": number(4), "size": number(8) })
            })
            .collect(),
    };
    let changed = with(|config| {
        config["linux"]["uidMappings"] = list.clone();
        config["linux"]["gidMappings"] = list.clone();
        config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "user" }]);
    });
    let Some(config) = changed else { return };
    for privileged in [true, false] {
        let Some(plan) = plan_on(&config, CgroupLayout::None, privileged) else { continue };
        check(&plan, data.len());
        let asked = &config.linux.as_ref().expect("it was set").uid_mappings;
        let written =
            plan.after.iter().find_map(|op| if let ParentOp::WriteIdMaps { uid, .. } = op { Some(uid) } else { None });
        let maps = written.expect("the ids of a new user namespace are mapped");
        assert!(!maps.is_empty() && maps.len() <= 340, "{} mappings are written", maps.len());
        // Without any, root is who called.
        assert!(maps == asked || (asked.is_empty() && maps.len() == 1), "{asked:?} became {maps:?}");
        for map in maps {
            assert!(map.size > 0 && map.host_id.checked_add(map.size).is_some(), "{map:?}");
            assert!(map.container_id.checked_add(map.size).is_some(), "{map:?}");
        }
    }
}

/// Mount options, separated by commas; a mount that has them, planned.
///
/// # Panics
/// When a promise about every plan is broken.
pub fn mount_options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let options: Vec<String> = text.split(',').map(str::to_owned).collect();
    let parsed = MountOptions::parse(&options);
    assert_eq!(parsed.set & parsed.clear, 0, "what is set is not cleared as well");
    for kind in ["bind", "tmpfs", "proc", "cgroup"] {
        let mount = json!({ "destination": "/mnt", "type": kind, "source": "/srv", "options": options });
        let changed = with(|config| config["mounts"] = json!([mount]));
        let Some(config) = changed else { continue };
        for layout in layouts() {
            if let Some(plan) = plan_on(&config, layout, true) {
                check(&plan, data.len());
            }
        }
    }
}

/// `process.json` of exec: parsed, and planned as the process of a container, which is the same code.
///
/// # Panics
/// When a promise about every plan is broken.
pub fn process(data: &[u8]) {
    let Ok(process) = serde_json::from_slice::<Process>(data) else { return };
    let Some(mut config) = with(|_| {}) else { return };
    config.process = Some(process);
    for privileged in [true, false] {
        if let Some(plan) = plan_on(&config, CgroupLayout::None, privileged) {
            check(&plan, data.len());
        }
    }
}

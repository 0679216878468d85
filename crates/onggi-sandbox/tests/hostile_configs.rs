//! A thousand configurations that were damaged on purpose, against the planner: an answer every time, never a panic,
//! and a plan whose size follows from the configuration's. The generator is deterministic: a number names a mutant.

use std::path::Path;

use onggi_sandbox::plan::{PlanInput, SandboxFacts, SandboxPlan, plan};
use onggi_spec::{
    facts::{CgroupLayout, V1Hierarchy},
    monitor::RootFs,
    oci::runtime::Spec,
};
use serde_json::{Map, Value, json};

const MUTANTS: u64 = 1000;
/// Printed bytes per byte of configuration: words repeat a path a few times and escape it.
const BYTES_PER_BYTE: usize = 64;
/// What every plan has besides.
const BYTES_ALWAYS: usize = 64 * 1024;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Every member that the specification has, with a value that means something.
fn everything() -> Value {
    let hook = json!([{ "path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 1 }]);
    let caps = json!(["CAP_CHOWN", "CAP_KILL"]);
    json!({
        "ociVersion": "1.2.0",
        "hostname": "jar", "domainname": "example",
        "annotations": { "org.example": "x" },
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "terminal": true, "consoleSize": { "height": 24, "width": 80 },
            "user": { "uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4] },
            "args": ["sh", "-c", "exit"], "env": ["PATH=/bin", "A=b"], "cwd": "/srv",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512 }],
            "noNewPrivileges": true, "oomScoreAdj": 100,
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 4 },
            "scheduler": { "policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755", "size=64k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"] },
            { "destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro", "rslave"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }
        ],
        "hooks": { "prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
                   "poststart": hook, "poststop": hook },
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" },
                           { "type": "network", "path": "/run/netns/x" }, { "type": "cgroup" }, { "type": "user" }],
            "uidMappings": [{ "containerID": 0, "hostID": 100000, "size": 65536 }],
            "gidMappings": [{ "containerID": 0, "hostID": 100000, "size": 65536 }],
            "devices": [{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0 }],
            "cgroupsPath": "/onggi/web",
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "r" }],
                "memory": { "limit": 1_048_576, "reservation": 4096, "swap": -1, "swappiness": 10, "disableOOMKiller": false },
                "cpu": { "shares": 1024, "quota": 10_000, "period": 100_000, "cpus": "0-1", "mems": "0" },
                "pids": { "limit": 64 },
                "blockIO": { "weight": 100, "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1024 }] },
                "hugepageLimits": [{ "pageSize": "2MB", "limit": 2_097_152 }],
                "network": { "classID": 1, "priorities": [{ "name": "lo", "priority": 1 }] }
            },
            "sysctl": { "net.ipv4.ip_forward": "1", "kernel.shmmax": "1" },
            "seccomp": { "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
                { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW",
                  "args": [{ "index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" }] }] },
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn hostile_text(random: &mut Random) -> String {
    let texts = [
        "",
        "/",
        ".",
        "..",
        "../../../../etc/passwd",
        "/proc/self/fd/3",
        "/proc/self/attr/exec",
        "//proc//./self/",
        "a\0b",
        "a\nb",
        "a=b\nLD_PRELOAD=x",
        "x;reboot",
        "$(reboot)",
        "`reboot`",
        "'\"\\",
        "%s%n",
        "-1",
        "18446744073709551616",
        "\u{202e}\u{200b}\u{feff}",
        "SCMP_ACT_NOTIFY",
        "CAP_ALL",
        "kernel.core_pattern",
        "a *:* rwm",
        "user",
        "rshared",
        "p",
    ];
    match random.below(8) {
        0 => "x".repeat(random.below(70_000)),
        1 => "/a".repeat(random.below(4_000)),
        2 => "é😀".repeat(random.below(100)),
        _ => texts[random.below(texts.len())].to_owned(),
    }
}

fn hostile_value(random: &mut Random) -> Value {
    match random.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX >> random.below(64)),
        5 => json!(i64::MIN >> random.below(64)),
        6 => json!(1.5e308),
        7 => json!({}),
        8 => json!([]),
        9 => json!((0..random.below(700)).collect::<Vec<_>>()),
        10 => (0..random.below(40)).fold(Value::Null, |inner, _| json!([inner])),
        _ => Value::String(hostile_text(random)),
    }
}

/// Goes down at random and damages what it comes to.
fn mutate(value: &mut Value, random: &mut Random) {
    let stop = random.below(16) == 0;
    match value {
        Value::Object(map) if !map.is_empty() && !stop => mutate_object(map, random),
        Value::Array(list) if !list.is_empty() && !stop => {
            let at = random.below(list.len());
            match random.below(8) {
                0 => {
                    list.remove(at);
                }
                1 => {
                    let copies = vec![list[at].clone(); random.below(400)];
                    list.extend(copies);
                }
                2 => list.push(hostile_value(random)),
                _ => mutate(&mut list[at], random),
            }
        }
        // Mostly of the right type: the others do not come beyond the parser.
        Value::String(text) if random.below(6) > 0 => *text = hostile_text(random),
        Value::Number(_) if random.below(6) > 0 => {
            let sign = [1, -1][random.below(2)];
            *value = json!((random.next() >> random.below(64)).cast_signed().wrapping_mul(sign));
        }
        Value::Bool(yes) if random.below(6) > 0 => *yes = !*yes,
        other => *other = hostile_value(random),
    }
}

fn mutate_object(map: &mut Map<String, Value>, random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let key = &keys[random.below(keys.len())];
    match random.below(10) {
        0 => {
            map.remove(key);
        }
        1 => {
            let value = hostile_value(random);
            map.insert(hostile_text(random), value);
        }
        _ => {
            if let Some(inner) = map.get_mut(key) {
                mutate(inner, random);
            }
        }
    }
}

fn mutant(number: u64) -> Value {
    let mut random = Random(number);
    let mut config = everything();
    for _ in 0..=random.below(3) {
        mutate(&mut config, &mut random);
    }
    config
}

fn machines() -> Vec<SandboxFacts> {
    let v1 = ["cpu", "cpuset", "memory", "pids", "devices", "blkio", "hugetlb", "net_cls,net_prio", "freezer"];
    let hierarchies = v1.map(|c| V1Hierarchy {
        controllers: c.split(',').map(str::to_owned).collect(),
        mount: format!("/sys/fs/cgroup/{c}"),
        own: "/".to_owned(),
    });
    let v2 = CgroupLayout::V2 {
        mount: "/sys/fs/cgroup".to_owned(),
        controllers: ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"].map(str::to_owned).into(),
        own: "/".to_owned(),
    };
    let layouts = [CgroupLayout::V1 { hierarchies: hierarchies.into(), unified: None }, v2, CgroupLayout::None];
    layouts.into_iter().flat_map(|l| [SandboxFacts::new(l.clone(), true), SandboxFacts::new(l, false)]).collect()
}

fn make(config: &Spec, facts: &SandboxFacts) -> Result<SandboxPlan, String> {
    let input = PlanInput::new("mutant", Path::new("/bundle"), config, &RootFs::Path);
    plan(&input, facts).map_err(|e| e.to_string())
}

#[test]
fn a_thousand_hostile_configurations_are_answered_within_bounds() {
    let machines = machines();
    let (mut refused, mut planned) = (0, 0);
    for number in 0..MUTANTS {
        let text = serde_json::to_vec(&mutant(number)).unwrap();
        let Ok(config) = Spec::from_slice(&text) else {
            refused += 1;
            continue;
        };
        let bound = BYTES_ALWAYS + BYTES_PER_BYTE * text.len();
        for facts in &machines {
            match make(&config, facts) {
                Err(why) => assert!(!why.is_empty() && why.len() <= bound, "mutant {number}: {why}"),
                Ok(plan) => {
                    planned += 1;
                    let words = plan.words().join("\n");
                    assert!(words.len() <= bound, "mutant {number}: {} bytes of words", words.len());
                    assert!(plan.script().len() <= bound, "mutant {number}: a long script");
                    let json = serde_json::to_string(&plan).unwrap();
                    assert!(json.len() <= bound, "mutant {number}: {} bytes of JSON", json.len());
                }
            }
        }
    }
    // Neither a parser that refuses everything nor a planner that accepts everything would be a test.
    assert!(refused > 50 && planned > 100, "{refused} refused, {planned} planned");
}

#[test]
fn the_undamaged_configuration_is_planned() {
    let config: Spec = serde_json::from_value(everything()).unwrap();
    make(&config, &machines()[0]).unwrap();
}

/// What is too long for the kernel is refused there; the planner hands it on whole.
#[test]
fn huge_paths_are_never_shortened() {
    for size in [65_535, 65_536, 70_000] {
        let path: String = format!("/{}", "a/".repeat(size / 2)).chars().take(size).collect();
        let clean = path.trim_end_matches('/');
        for member in ["cwd", "masked", "source", "root", "hostname"] {
            let mut config = everything();
            match member {
                "cwd" => config["process"]["cwd"] = json!(path),
                "masked" => config["linux"]["maskedPaths"] = json!([path]),
                "source" => config["mounts"][3]["source"] = json!(path),
                "hostname" => config["hostname"] = json!(path),
                _ => config["root"]["path"] = json!(path),
            }
            let config: Spec = serde_json::from_value(config).unwrap();
            let whole = match make(&config, &machines()[0]) {
                Err(_) => continue,
                Ok(plan) => serde_json::to_string(&plan).unwrap(),
            };
            assert!(whole.contains(clean), "{member} of {size} bytes was shortened");
        }
    }
}

#[test]
fn more_mappings_than_the_kernel_takes_are_an_error() {
    for (size, fits) in [(1_u32, true), (340, true), (341, false), (65_535, false), (65_536, false), (70_000, false)] {
        let mut config = everything();
        let map: Vec<_> = (0..size).map(|n| json!({ "containerID": n, "hostID": n, "size": 1 })).collect();
        config["linux"]["uidMappings"] = json!(map);
        config["linux"]["gidMappings"] = json!(map);
        let config: Spec = serde_json::from_value(config).unwrap();
        assert_eq!(make(&config, &machines()[0]).is_ok(), fits, "{size} mappings");
    }
}

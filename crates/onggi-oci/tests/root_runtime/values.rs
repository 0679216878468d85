//! Fields with a list of values: each value, as the process finds it.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::harness::{Bundle, Done, field};

/// The kinds of limits (getrlimit(2)), their names in /proc/PID/limits, and values that no machine has by default.
const LIMITS: [(&str, &str, u64); 16] = [
    ("RLIMIT_AS", "Max address space", 1 << 33),
    ("RLIMIT_CORE", "Max core file size", 11),
    ("RLIMIT_CPU", "Max cpu time", 501),
    ("RLIMIT_DATA", "Max data size", 3 << 32),
    ("RLIMIT_FSIZE", "Max file size", 1 << 31),
    ("RLIMIT_LOCKS", "Max file locks", 12),
    ("RLIMIT_MEMLOCK", "Max locked memory", 12_288),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size", 7_777),
    ("RLIMIT_NICE", "Max nice priority", 13),
    ("RLIMIT_NOFILE", "Max open files", 201),
    ("RLIMIT_NPROC", "Max processes", 301),
    ("RLIMIT_RSS", "Max resident set", 1 << 32),
    ("RLIMIT_RTPRIO", "Max realtime priority", 14),
    ("RLIMIT_RTTIME", "Max realtime timeout", 1_500_000),
    ("RLIMIT_SIGPENDING", "Max pending signals", 401),
    ("RLIMIT_STACK", "Max stack size", 6 << 20),
];

#[test]
fn root_every_kind_of_limit_is_the_programs() {
    let mut b = Bundle::new("cat /proc/self/limits");
    let limit = |(kind, _, value): &(&str, &str, u64)| json!({ "type": kind, "soft": value, "hard": value + 1 });
    b.config["process"]["rlimits"] = LIMITS.iter().map(limit).collect();
    let done = b.run();
    for (kind, name, value) in LIMITS {
        let line = done.out.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {done:?}"));
        let shown: Vec<&str> = line.split_whitespace().take(2).collect();
        let set = shown == [value.to_string(), (value + 1).to_string()];
        // These begin with 0, and only who has CAP_SYS_RESOURCE may raise them.
        let kept = ["RLIMIT_NICE", "RLIMIT_RTPRIO"].contains(&kind) && done.err.contains(&format!("{kind} stays at 0"));
        assert!(set || kept, "{kind}: {line} {}", done.err);
    }
}

/// Nice value, real-time priority and policy of a process: fields 19, 40 and 41 of proc_pid_stat(5).
fn scheduling(of: &str) -> [i64; 3] {
    let fields: Vec<&str> = of.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // The state, field 3, follows the name.
    [19, 40, 41].map(|number| fields[number - 3].parse().unwrap())
}

#[test]
fn root_every_policy_of_a_scheduler_is_the_processes() {
    for (scheduler, shown) in [
        (json!({ "policy": "SCHED_OTHER", "nice": -20 }), [-20, 0, 0]),
        (json!({ "policy": "SCHED_OTHER", "nice": 19 }), [19, 0, 0]),
        (json!({ "policy": "SCHED_FIFO", "priority": 1 }), [0, 1, 1]),
        (json!({ "policy": "SCHED_RR", "priority": 99 }), [0, 99, 2]),
        (json!({ "policy": "SCHED_BATCH", "nice": 3 }), [3, 0, 3]),
        (json!({ "policy": "SCHED_IDLE" }), [0, 0, 5]),
        // The kernel takes the policy for one of the parameters.
        (json!({ "policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_KEEP_POLICY"] }), [3, 0, 0]),
        (json!({ "policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_KEEP_PARAMS"] }), [0, 0, 0]),
    ] {
        let mut b = Bundle::new("cat /proc/self/stat");
        b.config["process"]["scheduler"] = scheduler.clone();
        // A group of version 1 has no real-time time unless it is given some.
        if fs::exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").unwrap() {
            b.config["linux"]["resources"] = json!({ "cpu": { "realtimeRuntime": 10_000 } });
        }
        b.write_config();
        let run = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
        // Whatever the tests are run with.
        let mut usual = Command::new("sh");
        usual.args(["-c", "renice -n 0 -p $$ > /dev/null; exec \"$@\"", "sh"]).arg(run.get_program());
        let done: Done = usual.args(run.get_args()).output().unwrap().into();
        assert_eq!(done.code, 0, "{scheduler}: {}", done.err);
        assert_eq!(scheduling(&done.out), shown, "{scheduler}");
    }
    for (scheduler, why) in [
        (json!({ "policy": "SCHED_FIFO" }), "invalid argument"),
        (json!({ "policy": "SCHED_RR", "priority": 100 }), "invalid argument"),
        // Reserved: no kernel has it.
        (json!({ "policy": "SCHED_ISO" }), "invalid argument"),
        (json!({ "policy": "SCHED_OTHER", "nice": -21 }), "invalid scheduler.nice: -21"),
    ] {
        let mut b = Bundle::new("true");
        b.config["process"]["scheduler"] = scheduler.clone();
        let done = b.run();
        assert!(done.code == 1 && done.err.contains(why), "{scheduler}: {}", done.err);
    }
}

#[test]
fn root_capabilities_that_one_set_keeps_out_of_another_are_left_out_with_a_warning() {
    let kill = json!(["CAP_KILL"]);
    let both = json!(["CAP_KILL", "CAP_CHOWN"]);
    for (sets, shown, words) in [
        (
            json!({ "bounding": both, "permitted": kill, "effective": both }),
            ["0", "20", "20", "21", "0"],
            "[CAP_CHOWN] cannot be effective: they are not permitted",
        ),
        (
            json!({ "bounding": kill, "permitted": both, "effective": kill, "inheritable": both }),
            ["20", "21", "20", "20", "0"],
            "[CAP_CHOWN] cannot be inheritable: they are not in the bounding set",
        ),
        (
            json!({ "bounding": both, "permitted": kill, "effective": kill, "inheritable": both, "ambient": both }),
            ["21", "20", "20", "21", "20"],
            "can't raise ambient capability CAP_CHOWN: ",
        ),
    ] {
        let mut b = Bundle::new("true");
        b.config["process"]["capabilities"] = sets.clone();
        // Before its program runs: to execute one gives root what the bounding set has.
        let done = b.create();
        assert!(done.code == 0 && done.err.contains(words), "{sets}: {}", done.err);
        let status = fs::read_to_string(format!("/proc/{}/status", b.pid())).unwrap();
        let mask = |name| field(&status, name).trim_start_matches('0').to_owned();
        let masks = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(mask);
        assert_eq!(masks.map(|m| if m.is_empty() { "0".to_owned() } else { m }), shown, "{sets}");
        assert_eq!(done.err.lines().count(), 1, "{sets}: {}", done.err);
    }
}

/// All sets as some engines write them, of a runtime that lacks one: no set may be what fails.
#[test]
fn root_an_inheritable_capability_that_the_runtime_lacks_is_left_out_with_a_warning() {
    let mut b = Bundle::new("");
    b.args(&["cat", "/proc/self/status"]);
    let caps = json!(["CAP_KILL", "CAP_SYS_RESOURCE"]);
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        b.config["process"]["capabilities"][set] = caps.clone();
    }
    b.write_config();
    let run = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
    let mut without = Command::new("setpriv");
    without.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", "--"]);
    let done: Done = without.arg(run.get_program()).args(run.get_args()).output().unwrap().into();
    assert_eq!(done.code, 0, "{}", done.err);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&done.out, set), "0000000000000020", "{set}");
    }
    assert!(done.err.contains("[CAP_SYS_RESOURCE] cannot be granted"), "{}", done.err);
}

#[test]
fn root_a_score_that_nobody_asks_for_is_the_callers() {
    for (asked, shown) in [(Value::Null, "321"), (json!(345), "345"), (json!(1000), "1000")] {
        let mut b = Bundle::new("cat /proc/self/oom_score_adj");
        b.config["process"]["oomScoreAdj"] = asked.clone();
        b.write_config();
        let run = b.oci(&["run", "-b", b.dir.to_str().unwrap(), &b.id]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo 321 > /proc/self/oom_score_adj; exec \"$@\"", "sh"]);
        let done: Done = shell.arg(run.get_program()).args(run.get_args()).output().unwrap().into();
        assert_eq!(done.out.trim(), shown, "{asked}: {}", done.err);
    }
}

#[test]
fn root_a_mask_of_file_modes_is_what_the_process_has() {
    for (asked, shown) in [(Value::Null, "0022"), (json!(0), "0000"), (json!(0o777), "0777"), (json!(0o1057), "0057")] {
        let mut b = Bundle::new("umask");
        b.config["process"]["user"]["umask"] = asked.clone();
        assert_eq!(b.run().out.trim(), shown, "{asked}");
    }
}

/// Every architecture, action and comparison that `features` lists can be written into a policy.
#[test]
fn root_whatever_features_lists_for_filters_is_accepted() {
    let b = Bundle::new("true");
    let features: Value = serde_json::from_slice(&b.oci(&["features"]).output().unwrap().stdout).unwrap();
    let list = |name: &str| features["linux"]["seccomp"][name].as_array().cloned().expect("a list");
    let (mut archs, flags) = (list("archs"), list("supportedFlags"));
    for newer in ["SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_RISCV64"] {
        assert!(archs.contains(&json!(newer)), "{newer} of specification 1.3 is missing");
    }
    archs.sort_by_key(|arch| arch != "SCMP_ARCH_X86_64");
    let rule = |(number, action): (usize, &Value)| {
        let value = 0x1000 + number;
        json!({ "names": ["personality"], "action": action, "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
    };
    let mut rules: Vec<Value> =
        list("actions").iter().filter(|action| *action != "SCMP_ACT_NOTIFY").enumerate().map(rule).collect();
    for (number, op) in list("operators").iter().enumerate() {
        let names = [["mkdir", "rmdir", "link", "unlink", "symlink", "mknod", "rename"][number]];
        rules.push(json!({ "names": names, "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 5, "value": 1, "valueTwo": 1, "op": op }] }));
    }
    let mut b = Bundle::new("grep Seccomp: /proc/self/status");
    b.config["linux"]["seccomp"] =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": archs, "flags": flags, "syscalls": rules });
    let done = b.run();
    assert_eq!((done.code, done.out.as_str()), (0, "Seccomp:\t2\n"), "{}", done.err);
}

//! `process` and the settings of one process: what the program finds when it starts, and what is refused.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::harness::{Bundle, field};

#[test]
fn root_an_environment_has_each_name_once_with_its_last_value() {
    let mut b = Bundle::new("");
    b.args(&["env"]);
    b.config["process"]["env"] = json!(["PATH=/bin", "ONE=two", "NL=\n", "ONE=three", "HOME=/over"]);
    assert_eq!(b.run().out, "PATH=/bin\nNL=\n\nONE=three\nHOME=/over\n");
}

#[test]
fn root_home_comes_from_the_containers_passwd_when_nobody_sets_it() {
    let passwd = "root:x:0:0:root:/root-home:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n";
    let cases = [
        (json!(["PATH=/bin"]), 0, "/root-home"),
        (json!(["PATH=/bin", "HOME="]), 0, "/root-home"),
        (json!(["PATH=/bin", "HOME=/x", "HOME="]), 1000, "/home/u"),
        (json!(["PATH=/bin"]), 7, "/"),
        (json!(["PATH=/bin", "HOME=/x"]), 0, "/x"),
    ];
    for (env, uid, home) in cases {
        let mut b = Bundle::new("echo $HOME");
        fs::write(b.root().join("etc/passwd"), passwd).unwrap();
        b.config["process"]["env"] = env.clone();
        b.config["process"]["user"] = json!({ "uid": uid, "gid": uid });
        let done = b.run();
        assert_eq!(done.out.trim(), home, "{env} {}", done.err);
    }
}

#[test]
fn root_a_passwd_that_is_no_file_or_leads_out_of_the_root_is_no_passwd() {
    for kind in ["fifo", "link", "directory"] {
        let mut b = Bundle::new("echo $HOME");
        b.config["process"]["env"] = json!(["PATH=/bin"]);
        let at = b.root().join("etc/passwd");
        match kind {
            "fifo" => {
                let path = rustix::fs::CWD;
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                rustix::fs::mknodat(path, &at, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            "link" => {
                fs::write(b.dir.join("outside"), "root:x:0:0::/outside:\n").unwrap();
                std::os::unix::fs::symlink(b.dir.join("outside"), &at).unwrap();
            }
            _ => fs::create_dir(&at).unwrap(),
        }
        assert_eq!(b.run().out.trim(), "/", "{kind}");
    }
}

#[test]
fn root_a_personality_makes_the_machine_look_32_bit_for_run_and_exec() {
    for (domain, machine) in [("LINUX32", "i686"), ("LINUX", "x86_64")] {
        let mut b = Bundle::new("busybox uname -m; sleep 60");
        b.config["linux"]["personality"] = json!({ "domain": domain, "flags": [] });
        // The call comes before the filter.
        b.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["personality"], "action": "SCMP_ACT_ERRNO" }]
        });
        assert_eq!(b.run_detached(&[]).code, 0);
        b.until("output", |b| !b.output().is_empty());
        assert_eq!(b.output().trim(), machine);
        assert_eq!(b.exec(&[], &["busybox", "uname", "-m"]).out.trim(), machine);
    }
}

#[test]
fn root_flags_of_a_personality_are_ignored_with_a_warning() {
    let mut b = Bundle::new("true");
    b.config["linux"]["personality"] = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] });
    let done = b.run();
    assert_eq!(done.code, 0);
    assert!(done.err.contains("linux.personality.flags"), "{}", done.err);
}

#[test]
fn root_a_memory_policy_is_what_numa_maps_shows() {
    let show = "head -n 1 /proc/self/numa_maps | busybox cut -d ' ' -f 2";
    let cases = [
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), "interleave:0"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), "bind=static:0"),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }), "prefer=relative:0"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0-0, 0" }), "bind:0"),
        (json!({ "mode": "MPOL_LOCAL" }), "local"),
        (json!({ "mode": "MPOL_DEFAULT" }), "default"),
        (json!({}), "default"),
    ];
    for (policy, shown) in cases {
        let mut b = Bundle::new(&format!("{show}; sleep 60"));
        b.config["linux"]["memoryPolicy"] = policy.clone();
        let done = b.run_detached(&[]);
        assert_eq!(done.code, 0, "{policy} {}", done.out);
        b.until("output", |b| !b.output().is_empty());
        assert_eq!(b.output().trim(), shown, "{policy}");
        let done = b.exec(&[], &["sh", "-c", show]);
        assert_eq!(done.out.trim(), shown, "exec {policy} {}", done.err);
    }
}

#[test]
fn root_a_memory_policy_that_the_kernel_refuses_is_an_error() {
    for (policy, why) in [
        (json!({ "mode": "INTERLEAVE", "nodes": "0" }), "invalid memory policy mode"),
        (json!({ "nodes": "0" }), "invalid memory policy mode"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NEW"] }), "invalid memory policy flag"),
        (json!({ "mode": "MPOL_BIND", "nodes": "x" }), "invalid memory policy node"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0-9876543210" }), "invalid memory policy node"),
        (json!({ "mode": "MPOL_BIND", "nodes": "1-0" }), "invalid memory policy node"),
        // Without nodes there is nothing to bind to.
        (json!({ "mode": "MPOL_BIND" }), "set_mempolicy"),
        (json!({ "mode": "MPOL_LOCAL", "nodes": "0" }), "set_mempolicy"),
    ] {
        let mut b = Bundle::new("true");
        b.config["linux"]["memoryPolicy"] = policy.clone();
        let done = b.run();
        assert!(done.code == 1 && done.err.contains(why), "{policy}: {}", done.err);
    }
    let mut b = Bundle::new("true");
    let flags = ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"];
    b.config["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_DEFAULT", "nodes": "0-7", "flags": flags });
    let done = b.run();
    assert_ne!(done.code, 0);
    assert!(done.err.contains("set_mempolicy") && done.err.contains("invalid argument"), "{}", done.err);
}

#[test]
fn root_scheduler_and_io_priority_are_the_processes_and_execs() {
    let mut b = Bundle::new("sleep 60");
    b.config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 19, "priority": 0 });
    b.config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 });
    let done = b.run_detached(&[]);
    assert_eq!(done.code, 0, "{}", done.out);
    let policy = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<String> = stat.rsplit_once(')').unwrap().1.split_whitespace().map(str::to_owned).collect();
        // Fields 19 (nice) and 41 (policy) of proc_pid_stat(5), counted after the name.
        (fields[16].clone(), fields[38].clone())
    };
    assert_eq!(policy(b.pid()), ("19".into(), "3".into()));
    let ionice = |pid: i32| {
        let out = std::process::Command::new("ionice").args(["-p", &pid.to_string()]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(ionice(b.pid()).trim(), "best-effort: prio 4");
    let done = b.exec(&[], &["sh", "-c", "busybox ionice; busybox cut -d ' ' -f 19,41 /proc/self/stat"]);
    assert_eq!(done.out.trim(), "best-effort: prio 4\n19 3", "{}", done.err);
    let file = b.dir.join("process.json");
    let document = json!({
        "args": ["busybox", "ionice"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        "ioPriority": { "class": "IOPRIO_CLASS_IDLE" }
    });
    fs::write(&file, document.to_string()).unwrap();
    let done = b.exec(&["--process", file.to_str().unwrap()], &[]);
    assert!(done.out.starts_with("idle"), "{} {}", done.out, done.err);
}

#[test]
fn root_a_scheduler_that_breaks_the_rules_is_refused() {
    let cases = [
        (json!({ "policy": "SCHED_OTHER", "nice": 20 }), "invalid scheduler.nice"),
        (json!({ "policy": "SCHED_OTHER", "priority": 1 }), "can only be specified for SCHED_FIFO or SCHED_RR"),
        (json!({ "policy": "SCHED_OTHER", "period": 1 }), "can only be specified for SCHED_DEADLINE"),
        (json!({ "policy": "SCHED_NEW" }), "invalid scheduler policy"),
        (json!({ "policy": "" }), "scheduler policy is required"),
        (json!({ "policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_NEW"] }), "invalid scheduler flag"),
        (json!({ "policy": "SCHED_FIFO", "priority": -1 }), "invalid scheduler.priority"),
        (json!({ "policy": "SCHED_DEADLINE", "deadline": 9 }), "sched_setattr: `SCHED_DEADLINE` requires `runtime`"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 2048 }), "sched_setattr: `SCHED_DEADLINE` requires `deadline`"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 1023, "deadline": 9999 }), "must be between"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 1_u64 << 63, "deadline": 1_u64 << 63 }), "must be between"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 4096, "deadline": 2048 }), "must be <= deadline"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 2048, "deadline": 4096, "period": 3000 }), "must be <= period"),
    ];
    for (scheduler, text) in cases {
        let mut b = Bundle::new("true");
        b.config["process"]["scheduler"] = scheduler;
        let done = b.run();
        assert!(done.code != 0 && done.err.contains(text), "{}", done.err);
    }
}

#[test]
fn root_deadlines_and_flags_of_a_scheduler_are_what_the_kernel_shows() {
    let deadline =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000 });
    // Without a period it is the deadline.
    let short = json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000 });
    let flagged = json!({ "policy": "SCHED_BATCH", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    for (scheduler, shown) in [
        (deadline, &["SCHED_DEADLINE", "1000000/10000000/20000000"][..]),
        (short, &["SCHED_DEADLINE", "1000000/10000000/10000000"]),
        (flagged, &["SCHED_BATCH|SCHED_RESET_ON_FORK"]),
    ] {
        let mut b = Bundle::new("");
        // A shell could not fork: a child of a process with a deadline has none, and may not be made.
        b.args(&["sleep", "60"]);
        b.config["process"]["scheduler"] = scheduler.clone();
        let done = b.run_detached(&[]);
        assert_eq!(done.code, 0, "{scheduler}: {}", done.out);
        let chrt = std::process::Command::new("chrt").args(["-p", &b.pid().to_string()]).output().unwrap();
        let text = String::from_utf8_lossy(&chrt.stdout).into_owned();
        assert!(shown.iter().all(|s| text.contains(s)), "{scheduler}: {text}");
    }
}

#[test]
fn root_io_priorities_of_every_class_are_set_and_others_refused() {
    for (priority, shown) in [
        (json!({ "class": "IOPRIO_CLASS_IDLE" }), "idle"),
        (json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 7 }), "idle"),
        (json!({ "class": "IOPRIO_CLASS_BE" }), "best-effort: prio 0"),
        (json!({ "class": "IOPRIO_CLASS_BE", "priority": 7 }), "best-effort: prio 7"),
        (json!({ "class": "IOPRIO_CLASS_RT", "priority": 2 }), "realtime: prio 2"),
    ] {
        let mut b = Bundle::new("busybox ionice");
        b.config["process"]["ioPriority"] = priority.clone();
        let done = b.run();
        assert_eq!(done.out.trim(), shown, "{priority}: {}", done.err);
    }
    for (priority, why) in [
        (json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }), "invalid ioPriority.Priority"),
        (json!({ "class": "IOPRIO_CLASS_BE", "priority": -1 }), "invalid ioPriority.Priority"),
        (json!({ "class": "IOPRIO_CLASS_NONE" }), "invalid ioPriority.Class"),
        (json!({ "class": "" }), "invalid ioPriority.Class"),
        (json!({ "priority": 1 }), "missing field `class`"),
    ] {
        let mut b = Bundle::new("true");
        b.config["process"]["ioPriority"] = priority.clone();
        let done = b.run();
        assert!(done.code == 1 && done.err.contains(why), "{priority}: {}", done.err);
    }
}

#[test]
fn root_the_callers_cpu_affinity_is_not_the_containers() {
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let all = allowed(&fs::read_to_string("/proc/self/status").unwrap());
    assert_ne!(cpus.trim(), "0", "this test needs two CPUs");
    let b = Bundle::new("grep Cpus_allowed_list: /proc/self/status; sleep 60");
    b.write_config();
    let mut run = std::process::Command::new("taskset");
    run.args(["-c", "0", env!("CARGO_BIN_EXE_onggi-oci"), "--root"]).arg(b.dir.join("state"));
    run.args(["run", "-d", "-b", b.dir.to_str().unwrap(), &b.id]);
    let out = fs::File::create(b.dir.join("out")).unwrap();
    assert!(run.stdout(out).status().unwrap().success());
    b.until("output", |b| !b.output().is_empty());
    assert_eq!(allowed(&b.output()), all);
    let mut exec = std::process::Command::new("taskset");
    exec.args(["-c", "0", env!("CARGO_BIN_EXE_onggi-oci"), "--root"]).arg(b.dir.join("state"));
    let done = exec.args(["exec", &b.id, "cat", "/proc/self/status"]).output().unwrap();
    assert_eq!(allowed(&String::from_utf8_lossy(&done.stdout)), all);
}

#[test]
fn root_exec_runs_on_the_cpus_that_the_process_asks_for() {
    for wrong in
        [json!({ "initial": "x" }), json!({ "final": "1-0" }), json!({ "final": "99999" }), json!({ "initial": "," })]
    {
        let mut b = Bundle::new("true");
        b.config["process"]["execCPUAffinity"] = wrong.clone();
        let done = b.run();
        assert!(done.code == 1 && done.err.contains("process.execCPUAffinity."), "{wrong}: {}", done.err);
    }
    let mut b = Bundle::new("sleep 60");
    b.config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "1" });
    assert_eq!(b.run_detached(&[]).code, 0);
    let status = b.exec(&[], &["cat", "/proc/self/status"]).out;
    assert_eq!(allowed(&status), "1");
    let first = fs::read_to_string(format!("/proc/{}/status", b.pid())).unwrap();
    assert_ne!(allowed(&first), "1", "it is for exec alone");
    let file = b.dir.join("process.json");
    for (affinity, text) in
        [(json!({ "final": "x" }), "execCPUAffinity.final"), (json!({ "initial": "9999" }), "execCPUAffinity.initial")]
    {
        let document = json!({ "args": ["true"], "cwd": "/", "execCPUAffinity": affinity });
        fs::write(&file, document.to_string()).unwrap();
        let done = b.exec(&["--process", file.to_str().unwrap()], &[]);
        assert!(done.code != 0 && done.err.contains(text), "{}", done.err);
    }
}

fn allowed(status: &str) -> String {
    field(status, "Cpus_allowed_list").to_owned()
}

#[test]
fn root_unknown_capabilities_are_ignored_with_a_warning() {
    let mut b = Bundle::new("cat /proc/self/status");
    b.config["process"]["capabilities"]["bounding"] = json!(["CAP_UNKNOWN", "UNKNOWN_CAP", "CAP_KILL"]);
    let done = b.run();
    assert_eq!(field(&done.out, "CapBnd"), "0000000000000020");
    assert!(done.err.contains("CAP_UNKNOWN, UNKNOWN_CAP"), "{}", done.err);
}

#[test]
fn root_a_process_without_capabilities_has_none() {
    let mut b = Bundle::new("cat /proc/self/status; sleep 60");
    b.config["process"].as_object_mut().unwrap().remove("capabilities");
    assert_eq!(b.run_detached(&[]).code, 0);
    b.until("output", |b| b.output().contains("CapAmb"));
    for status in [b.output(), b.exec(&[], &["cat", "/proc/self/status"]).out] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{set}");
        }
    }
}

#[test]
fn root_a_short_process_document_gives_exec_no_more_than_the_container_has() {
    let mut b = Bundle::new("sleep 60");
    b.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    assert_eq!(b.run_detached(&[]).code, 0);
    let file = b.dir.join("process.json");
    fs::write(&file, json!({ "args": ["/bin/sh", "-c", "cat /proc/self/status; ulimit -n"], "cwd": "/" }).to_string())
        .unwrap();
    let done = b.exec(&["--process", file.to_str().unwrap()], &[]);
    assert_eq!(field(&done.out, "CapBnd"), "00000000800405fb", "{}", done.err);
    assert!(done.out.ends_with("100\n"), "{}", done.out);
}

#[test]
fn root_capabilities_the_runtime_lacks_are_left_out_with_a_warning() {
    let mut b = Bundle::new("cat /proc/self/status");
    let caps = json!(["CAP_KILL", "CAP_SYS_RESOURCE"]);
    for set in ["bounding", "effective", "permitted"] {
        b.config["process"]["capabilities"][set] = caps.clone();
    }
    b.write_config();
    // Without CAP_SYS_RESOURCE, as on machines whose root lacks it.
    let mut run = std::process::Command::new("setpriv");
    run.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", "--"]);
    run.arg(env!("CARGO_BIN_EXE_onggi-oci")).arg("--root").arg(b.dir.join("state"));
    let done = run.args(["run", "-b", b.dir.to_str().unwrap(), &b.id]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(field(&out, "CapEff"), "0000000000000020", "{err}");
    assert!(err.contains("CAP_SYS_RESOURCE"), "{err}");
}

#[test]
fn root_create_fails_when_the_user_may_not_execute_the_program() {
    let mut b = Bundle::new("true");
    fs::copy("/bin/busybox", b.root().join("bin/private")).unwrap();
    fs::set_permissions(b.root().join("bin/private"), fs::Permissions::from_mode(0o700)).unwrap();
    b.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    // CAP_DAC_OVERRIDE would let it.
    b.config["process"]["capabilities"] = json!({});
    b.args(&["/bin/private", "true"]);
    let done = b.create();
    assert_ne!(done.code, 0);
    assert!(done.err.contains("exec: \"/bin/private\": permission denied"), "{}", done.err);
    assert_eq!(b.status(), "absent");
}

#[test]
fn root_a_created_process_has_the_rights_of_its_program_already() {
    let mut b = Bundle::new("echo ran");
    b.config["process"]["user"] = json!({ "uid": 1000, "gid": 100 });
    b.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let done = b.create();
    assert_eq!(done.code, 0, "{}", done.err);
    let status = fs::read_to_string(format!("/proc/{}/status", b.pid())).unwrap();
    assert_eq!(field(&status, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!((field(&status, "CapEff"), field(&status, "Seccomp")), ("00000000800405fb", "2"));
    assert_eq!(b.verb("start", &[]).code, 0);
    b.until("output", |b| b.output() == "ran\n");
}

#[test]
fn root_start_says_that_the_waiting_process_has_died() {
    let b = Bundle::new("true");
    assert_eq!(b.create().code, 0);
    let pid = rustix::process::Pid::from_raw(b.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    b.until("stopped", |b| b.status() == "stopped");
    assert_ne!(b.verb("start", &[]).code, 0);
}

#[test]
fn root_two_starts_at_once_run_the_program_once() {
    let b = Bundle::new("echo ran; sleep 60");
    assert_eq!(b.create().code, 0);
    let mut both = [b.oci(&["start", &b.id]).spawn().unwrap(), b.oci(&["start", &b.id]).spawn().unwrap()];
    let codes: Vec<bool> = both.iter_mut().map(|c| c.wait().unwrap().success()).collect();
    assert_eq!(codes.iter().filter(|ok| **ok).count(), 1);
    b.until("output", |b| b.output() == "ran\n");
}

#[test]
fn root_a_start_hook_runs_with_the_rights_of_the_program_and_sees_a_created_container() {
    let mut b = Bundle::new("cat /tmp/hook");
    fs::set_permissions(b.root().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    b.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let script = "cat > /tmp/state; (grep -e Uid -e CapEff /proc/self/status; grep -o '\"status\":\"[a-z]*\"' /tmp/state) > /tmp/hook";
    b.config["hooks"] =
        json!({ "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }] });
    let done = b.run();
    assert_eq!(field(&done.out, "Uid"), "1000\t1000\t1000\t1000", "{}", done.err);
    assert_eq!(field(&done.out, "CapEff"), "0000000000000000");
    assert!(done.out.contains("\"status\":\"created\""), "{}", done.out);
}

#[test]
fn root_sysctls_of_the_host_are_refused_in_the_words_of_runc() {
    let cases = [
        ("ipc", "kernel.shmmax", "is not allowed in the hosts ipc namespace"),
        ("network", "net.ipv4.ip_forward", "not allowed in host network namespace"),
        ("uts", "kernel.domainname", "is not in a separate kernel namespace"),
        ("", "kernel.hostname", "conflicts with the OCI \"hostname\" field"),
        ("", "vm.swappiness", "is not in a separate kernel namespace"),
    ];
    for (without, key, text) in cases {
        let mut b = Bundle::new("true");
        b.remove_namespace(without);
        if without == "uts" {
            b.config.as_object_mut().unwrap().remove("hostname");
        }
        b.config["linux"]["sysctl"] = json!({ key: "1" });
        let done = b.run();
        assert!(done.code != 0 && done.err.contains(text), "{key}: {}", done.err);
    }
}

#[test]
fn root_sysctls_may_be_written_with_slashes() {
    let mut b =
        Bundle::new("cat /proc/sys/net/ipv4/conf/lo/forwarding /proc/sys/kernel/msgmax /proc/sys/kernel/domainname");
    b.config["linux"]["sysctl"] =
        json!({ "net/ipv4/conf/lo/forwarding": "1", "kernel/msgmax": "65536", "kernel.domainname": "jar.example" });
    let done = b.run();
    assert_eq!(done.out, "1\n65536\njar.example\n", "{}", done.err);
}

#[test]
fn root_exec_has_the_session_keyring_of_its_container_and_not_the_callers() {
    for (flags, own) in [(&[][..], true), (&["--no-new-keyring"][..], false)] {
        let mut b = Bundle::new("cat /proc/keys; echo end; sleep 60");
        b.config["linux"]["maskedPaths"] = json!([]);
        assert_eq!(b.run_detached(flags).code, 0);
        b.until("output", |b| b.output().ends_with("end\n"));
        let serial = |keys: &str| {
            let name = format!("_ses.{}", b.id);
            keys.lines().find(|l| l.contains(&name)).map(|l| l.split(' ').next().unwrap().to_owned())
        };
        assert_eq!(serial(&b.output()).is_some(), own);
        let done = b.exec(&[], &["cat", "/proc/keys"]);
        assert_eq!(serial(&done.out), serial(&b.output()), "{}", done.out);
    }
}

#[test]
fn root_what_this_kernel_lacks_is_named() {
    let cases = [
        ("/linux", "intelRdt", json!({ "l3CacheSchema": "L3:0=f" }), "Intel RDT"),
        ("/linux", "mountLabel", json!("a:b:c"), "SELinux"),
        ("/process", "selinuxLabel", json!("a:b:c"), "SELinux"),
        ("/process", "apparmorProfile", json!("x"), "AppArmor"),
    ];
    for (parent, member, value, lacking) in cases {
        let mut b = Bundle::new("true");
        b.config.pointer_mut(parent).unwrap()[member] = value;
        let done = b.run();
        assert!(done.code != 0 && done.err.contains(lacking) && done.err.contains(member), "{}", done.err);
    }
}

#[test]
fn root_empty_labels_are_no_labels() {
    let mut b = Bundle::new("true");
    b.config["process"]["selinuxLabel"] = json!("");
    b.config["process"]["apparmorProfile"] = json!("");
    b.config["linux"]["mountLabel"] = json!("");
    let done = b.run();
    assert_eq!(done.code, 0, "{}", done.err);
}

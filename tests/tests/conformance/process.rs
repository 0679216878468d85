//! config.md, `process` and the fields beside it: each is set and read back by the process itself.

use std::process::Command;

use onggi_tests::Bundle;
use serde_json::{Value, json};

use crate::{
    compare::{Known, known, same_but, same_output, same_output_but, same_view},
    lifecycle::Steps,
    probe::View,
};

#[test]
fn conformance_process_args_and_env_arrive_as_given() {
    same_view(|bundle| {
        bundle.config["process"]["env"] =
            json!(["PATH=/bin", "HOME=/elsewhere", "EMPTY=", "WITH=a=b c", "TWICE=1", "TWICE=2", "NEWLINE=a\nb"]);
        let args = bundle.config["process"]["args"].as_array_mut().unwrap();
        args.extend([json!(""), json!("three four"), json!("-x"), json!("ä")]);
    });
}

#[test]
fn conformance_process_env_without_home_gets_one() {
    for uid in [0, 1000, 4242] {
        same_output("env | sort", |bundle| {
            bundle.config["process"]["env"] = json!(["PATH=/bin"]);
            bundle.config["process"]["user"] = json!({ "uid": uid, "gid": 0 });
        });
    }
}

#[test]
fn conformance_process_env_absent_or_strange() {
    same_output("/bin/env | sort", |bundle| {
        bundle.config["process"]["env"] = json!(["NOEQUALS", "PATH=/bin", "A=1"]);
    });
    same_output("/bin/env | sort", |bundle| {
        bundle.config["process"].as_object_mut().unwrap().remove("env");
        bundle.args(&["/bin/sh", "-c", "/bin/env | /bin/sort"]);
    });
}

#[test]
fn conformance_process_args_are_found_in_the_containers_path() {
    same_output("true", |bundle| {
        bundle.file("rootfs/opt/tool", 0o755, "#!/bin/sh\necho tool $0\n");
        bundle.config["process"]["env"] = json!(["PATH=/nowhere:/opt:/bin"]);
        bundle.args(&["tool"]);
    });
    same_output("true", |bundle| {
        bundle.file("rootfs/opt/here/tool", 0o755, "#!/bin/sh\necho relative $0\n");
        bundle.config["process"]["cwd"] = json!("/opt/here");
        bundle.args(&["./tool"]);
    });
}

#[test]
fn conformance_process_args_that_cannot_be_executed_fail_alike() {
    for args in
        [&["/not/there"][..], &["not-there"], &["/etc/passwd"], &["/bin"], &[""], &["/bin/bad"], &["/etc/passwd/x"]]
    {
        same_output("true", |bundle| {
            bundle.file("rootfs/bin/bad", 0o755, "#!/no/interpreter\n");
            bundle.args(args);
        });
    }
}

/// What only execve(2) finds out. The `start` of runc and crun has ended by then.
#[test]
fn conformance_process_args_that_the_kernel_refuses() {
    let known =
        ["text", "interpreter", "filter"].map(|what| known(what, "create Some(0), start Some(1)", "D-start-exec"));
    same_but(&known, |instance| {
        let look = |name: &str, edit: fn(&mut Bundle)| {
            let mut bundle = Bundle::new(&["/bin/bad"]);
            edit(&mut bundle);
            let id = instance.id(name);
            let created = instance.make(&bundle, &id, "create", &[]);
            let started = instance.run(&["start", &id]);
            instance.remove(&id);
            (name.to_owned(), format!("create {:?}, start {:?}", created.code, started.code))
        };
        View::from([
            look("text", |bundle| drop(bundle.file("rootfs/bin/bad", 0o755, "echo\n"))),
            look("interpreter", |bundle| drop(bundle.file("rootfs/bin/bad", 0o755, "#!/no/interpreter\n"))),
            look("filter", |bundle| {
                bundle.args(&["/bin/true"]);
                let rule = json!({ "names": ["execve"], "action": "SCMP_ACT_ERRNO" });
                bundle.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
            }),
        ])
    });
}

#[test]
fn conformance_process_args_without_a_path_to_search() {
    const FOUND: [Known; 2] = [known("exit", "Some(0)", "D-default-path"), known("output", "found", "D-default-path")];
    same_output_but(&FOUND, "true", |bundle| {
        bundle.args(&["echo", "found"]);
        bundle.config["process"]["env"] = json!(["A=b"]);
    });
}

#[test]
fn conformance_process_cwd_is_entered_and_made() {
    same_view(|bundle| bundle.config["process"]["cwd"] = json!("/tmp"));
    same_output("pwd; stat -c '%a %u:%g' . ..", |bundle| bundle.config["process"]["cwd"] = json!("/new/dir"));
    same_output("pwd", |bundle| bundle.config["process"]["cwd"] = json!("relative"));
    same_output("pwd", |bundle| bundle.config["process"]["cwd"] = json!(""));
    same_output("pwd -P", |bundle| {
        std::os::unix::fs::symlink("/tmp", bundle.rootfs().join("link")).unwrap();
        bundle.config["process"]["cwd"] = json!("/link");
    });
    same_output("pwd", |bundle| bundle.config["process"]["cwd"] = json!("/etc/passwd"));
}

#[test]
fn conformance_process_cwd_that_only_the_user_may_enter() {
    same_output("id -u; /bin/pwd", |bundle| {
        std::fs::create_dir_all(bundle.rootfs().join("home/user")).unwrap();
        std::os::unix::fs::chown(bundle.rootfs().join("home/user"), Some(1000), Some(1000)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(bundle.rootfs().join("home/user"), mode).unwrap();
        bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        bundle.config["process"]["cwd"] = json!("/home/user");
        bundle.config["process"]["capabilities"] = json!({});
    });
}

#[test]
fn conformance_process_user_ids_groups_and_umask() {
    same_view(|bundle| {
        bundle.config["process"]["user"] =
            json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 2000, 1001], "umask": 0o27 });
    });
    same_view(|bundle| bundle.config["process"]["user"] = json!({ "uid": 12345, "gid": 54321 }));
}

#[test]
fn conformance_process_capability_sets() {
    let all = [
        json!({}),
        json!({ "bounding": ["CAP_CHOWN", "CAP_KILL"] }),
        json!({ "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"] }),
        json!({ "bounding": ["CAP_CHOWN"], "effective": [], "permitted": ["CAP_CHOWN"] }),
        json!({
            "bounding": ["CAP_NET_RAW"], "effective": ["CAP_NET_RAW"], "permitted": ["CAP_NET_RAW"],
            "inheritable": ["CAP_NET_RAW"], "ambient": ["CAP_NET_RAW"]
        }),
    ];
    for uid in [0, 1000] {
        for capabilities in &all {
            same_output("grep ^Cap /proc/self/status", |bundle| {
                bundle.config["process"]["capabilities"] = capabilities.clone();
                bundle.config["process"]["user"] = json!({ "uid": uid, "gid": 0 });
                // The process itself, without a shell's exec in between.
                bundle.args(&["grep", "^Cap", "/proc/self/status"]);
            });
        }
    }
}

#[test]
fn conformance_process_capabilities_absent_or_unknown() {
    same_output("grep ^Cap /proc/self/status", |bundle| {
        bundle.config["process"].as_object_mut().unwrap().remove("capabilities");
    });
    same_output("grep ^Cap /proc/self/status", |bundle| {
        let set = json!(["CAP_CHOWN", "CAP_NO_SUCH_THING"]);
        bundle.config["process"]["capabilities"] = json!({ "bounding": set, "effective": set, "permitted": set });
    });
    same_output("grep ^Cap /proc/self/status", |bundle| {
        let set = json!(["cap_chown", "CHOWN"]);
        bundle.config["process"]["capabilities"] = json!({ "bounding": set, "effective": set, "permitted": set });
    });
}

#[test]
fn conformance_process_no_new_privileges_on_and_off() {
    for flag in [true, false] {
        same_view(|bundle| bundle.config["process"]["noNewPrivileges"] = json!(flag));
    }
}

#[test]
fn conformance_process_rlimits_are_set() {
    same_view(|bundle| {
        let limit = |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
        bundle.config["process"]["rlimits"] = json!([
            limit("RLIMIT_NOFILE", 512, 1024),
            limit("RLIMIT_CORE", 0, 0),
            limit("RLIMIT_CPU", 100, 200),
            limit("RLIMIT_FSIZE", 1 << 30, 1 << 31),
            limit("RLIMIT_STACK", 4 << 20, 8 << 20),
            limit("RLIMIT_AS", 1 << 33, 1 << 34),
            limit("RLIMIT_NPROC", 500, 600),
        ]);
    });
}

#[test]
fn conformance_process_rlimits_that_are_wrong_are_refused() {
    let limit = |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    for limits in [
        json!([limit("RLIMIT_NO_SUCH", 1, 1)]),
        json!([limit("RLIMIT_NOFILE", 2048, 1024)]),
        json!([limit("RLIMIT_NOFILE", 10, 20), limit("RLIMIT_NOFILE", 30, 40)]),
    ] {
        same_output("ulimit -n; ulimit -Hn", |bundle| bundle.config["process"]["rlimits"] = limits.clone());
    }
}

#[test]
fn conformance_process_oom_score_adj() {
    for adj in [0, 500, 1000] {
        same_view(|bundle| bundle.config["process"]["oomScoreAdj"] = json!(adj));
    }
    same_output("cat /proc/self/oom_score_adj", |bundle| bundle.config["process"]["oomScoreAdj"] = json!(2000));
}

/// By a runtime without CAP_SYS_RESOURCE, as on machines whose root lacks it.
fn by_a_weak_runtime(known: &[Known], script: &str, field: &str, value: &Value) {
    same_but(known, |instance| {
        let mut steps = Steps::new(instance);
        let mut bundle = Bundle::script(script);
        bundle.config["process"][field] = value.clone();
        bundle.write();
        let run = instance.command(&["run", "--bundle"]);
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", "--"]);
        command.arg(run.get_program()).args(run.get_args()).arg(bundle.path()).arg(instance.id("weak"));
        let ran = instance.finish(&mut command);
        steps.ran("run", &ran);
        steps.see("output", ran.stdout.trim());
        steps.view
    });
}

#[test]
fn conformance_process_what_the_runtime_may_not_give() {
    let fine = |output: &'static str| {
        [known("run exit", "Some(0)", "D-not-granted"), known("output", output, "D-not-granted")]
    };
    let limit = |soft: u64, hard: u64| json!([{ "type": "RLIMIT_NICE", "soft": soft, "hard": hard }]);
    by_a_weak_runtime(
        &fine("0"),
        "ulimit -Hn > /dev/null; grep -o 'nice priority *[0-9]*' /proc/self/limits | tr -dc 0-9",
        "rlimits",
        &limit(3, 3),
    );
    by_a_weak_runtime(&fine("0"), "cat /proc/self/oom_score_adj", "oomScoreAdj", &json!(-500));
    let show = "grep CapEff /proc/self/status | tail -c 3";
    let both = json!(["CAP_KILL", "CAP_SYS_RESOURCE"]);
    by_a_weak_runtime(
        &fine("20"),
        show,
        "capabilities",
        &json!({ "bounding": both, "effective": both, "permitted": both }),
    );
    let kill = json!(["CAP_KILL"]);
    for sets in [
        json!({ "bounding": kill, "permitted": kill, "effective": ["CAP_CHOWN"] }),
        json!({ "bounding": kill, "permitted": kill, "effective": kill, "inheritable": ["CAP_CHOWN"] }),
    ] {
        by_a_weak_runtime(&fine("20"), show, "capabilities", &sets);
    }
}

#[test]
fn conformance_process_security_labels_without_a_module() {
    same_output("cat /proc/self/attr/current", |bundle| {
        bundle.config["process"]["apparmorProfile"] = json!("no-such-profile");
    });
    same_output("echo in", |bundle| {
        bundle.config["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0:c1,c2");
    });
    same_output("echo in", |bundle| bundle.config["process"]["apparmorProfile"] = json!(""));
}

#[test]
fn conformance_process_fields_that_are_missing() {
    for field in ["args", "cwd", "user"] {
        same_output("id; pwd", |bundle| {
            bundle.config["process"].as_object_mut().unwrap().remove(field);
        });
    }
    same_output("true", |bundle| {
        bundle.args(&[]);
    });
    same_output("true", |bundle| {
        bundle.config.as_object_mut().unwrap().remove("process");
    });
}

#[test]
fn conformance_process_personality() {
    same_view(|bundle| bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    same_output("cat /proc/self/personality; uname -m", |bundle| {
        bundle.config["linux"]["personality"] = json!({ "domain": "LINUX" });
    });
}

#[test]
fn conformance_hostname_is_set_or_left() {
    same_view(|bundle| bundle.config["hostname"] = json!("another-name.example"));
    same_output("cat /proc/sys/kernel/hostname", |bundle| {
        bundle.config.as_object_mut().unwrap().remove("hostname");
        bundle.without_namespace("uts");
    });
    same_output("cat /proc/sys/kernel/hostname", |bundle| {
        bundle.without_namespace("uts");
    });
}

#[test]
fn conformance_terminal_false_gives_the_callers_streams() {
    same_view(|bundle| bundle.config["process"]["terminal"] = json!(false));
}

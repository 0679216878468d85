//! runc's other commands: exec, list, ps, pause, update, events, spec, features, and their flags.

use std::fs;

use onggi_tests::{Bundle, Instance, eventually};
use serde_json::{Value, json};

use crate::{
    compare::{known, known_beside_a_race, same, same_but},
    lifecycle::Steps,
    probe::{self, SCRIPT, View, normalise},
    resources::values,
};

fn running(instance: &Instance, edit: impl Fn(&mut Bundle)) -> (Bundle, String) {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    edit(&mut bundle);
    let id = instance.id("box");
    instance.start(&bundle, &id);
    // crun's `start` does not wait for the program, and before that nobody may enter.
    let comm = format!("/proc/{}/comm", instance.pid(&id));
    eventually("the program runs", || fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n").then_some(()));
    (bundle, id)
}

/// What a probe sees that was executed with these flags.
fn exec_view(instance: &Instance, flags: &[&str], edit: impl Fn(&mut Bundle)) -> View {
    let (bundle, id) = running(instance, edit);
    let mut args = vec!["exec"];
    args.extend(flags);
    args.extend([id.as_str(), "sh", "-c", SCRIPT, "probe", "one", "two words"]);
    let ran = instance.run(&args);
    let mut view = probe::parse(&ran.stdout, &bundle, &id);
    view.insert("exit".to_owned(), format!("{:?}", ran.code));
    view.insert("~why".to_owned(), ran.stderr);
    view
}

#[test]
fn conformance_exec_sees_the_container_as_its_process_does() {
    same(|instance| exec_view(instance, &[], |_| {}));
    // What the container's process has, its executed processes have.
    let known = [
        known("status Umask", "0077", "D-exec-umask"),
        known_beside_a_race("process.rlimits Max open files", "100 200 files", "D-exec-nofile"),
    ];
    same_but(&known, |instance| {
        exec_view(instance, &[], |bundle| {
            bundle.config["process"]["user"] =
                json!({ "uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 0o77 });
            bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
            bundle.config["process"]["oomScoreAdj"] = json!(123);
            bundle.config["process"]["cwd"] = json!("/tmp");
            bundle.config["process"]["noNewPrivileges"] = json!(false);
        })
    });
}

#[test]
fn conformance_exec_in_a_user_namespace() {
    same(|instance| {
        exec_view(instance, &[], |bundle| {
            bundle.user_namespace(300_000);
        })
    });
}

#[test]
fn conformance_exec_flags() {
    for flags in [
        &["--user", "1000"][..],
        &["--user", "1000:1001"],
        &["--user", "0:5"],
        &["--cwd", "/tmp"],
        &["--env", "A=1", "--env", "B=two words"],
        &["-e", "PATH=/bin:/other"],
        &["--additional-gids", "7", "--additional-gids", "8"],
        &["--cap", "CAP_NET_RAW"],
        &["--cap", "CAP_SYS_ADMIN", "--user", "1000"],
        &["--no-new-privs"],
        // Without their modules: errors.
        &["--apparmor", "no-such-profile"],
        &["--process-label", "system_u:system_r:container_t:s0"],
    ] {
        same(|instance| {
            exec_view(instance, flags, |bundle| bundle.config["process"]["noNewPrivileges"] = json!(false))
        });
    }
}

#[test]
fn conformance_exec_process_file() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let (bundle, id) = running(instance, |_| {});
        let process = json!({
            "args": ["sh", "-c", "id; pwd; env | sort; umask"], "cwd": "/tmp", "env": ["PATH=/bin", "FROM=file"],
            "user": { "uid": 1000, "gid": 1000, "additionalGids": [2000] }
        });
        let file = bundle.file("process.json", 0o644, &process.to_string());
        let path = file.display().to_string();
        let ran = steps.run("exec", &["exec", "--process", &path, &id]);
        steps.see("output", normalise(&ran.stdout, &bundle, &id));
        steps.run("no file", &["exec", "--process", "/no/such/file", &id]);
        bundle.file("process.json", 0o644, "{");
        steps.run("bad file", &["exec", "--process", &path, &id]);
        steps.view
    });
}

#[test]
fn conformance_exec_exit_codes() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let (_bundle, id) = running(instance, |_| {});
        steps.run("true", &["exec", &id, "true"]);
        steps.run("exit 7", &["exec", &id, "sh", "-c", "exit 7"]);
        steps.run("killed", &["exec", &id, "sh", "-c", "kill -KILL $$"]);
        steps.run("terminated", &["exec", &id, "sh", "-c", "kill -TERM $$"]);
        steps.run("missing", &["exec", &id, "/not/there"]);
        steps.run("not in PATH", &["exec", &id, "not-there"]);
        steps.run("not executable", &["exec", &id, "/etc/passwd"]);
        // Found, and not taken by the kernel.
        for (program, content) in [("garbage", "x"), ("nowhere", "#!/no/such/interpreter\n")] {
            steps.run(
                "write",
                &[
                    "exec",
                    &id,
                    "sh",
                    "-c",
                    &format!("printf %s '{content}' > /tmp/{program}; chmod 755 /tmp/{program}"),
                ],
            );
            steps.run(program, &["exec", &id, &format!("/tmp/{program}")]);
        }
        steps.run("no command", &["exec", &id]);
        steps.run("bad user", &["exec", "--user", "nobody-at-all", &id, "true"]);
        steps.run("bad cwd", &["exec", "--cwd", "/etc/passwd", &id, "true"]);
        steps.run("unknown flag", &["exec", "--no-such-flag", &id, "true"]);
        steps.view
    });
}

#[test]
fn conformance_exec_in_created_and_paused_containers() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let id = instance.id("created");
        let bundle = Bundle::new(&["sleep", "1000"]);
        instance.create(&bundle, &id);
        let ran = steps.run("created", &["exec", &id, "echo", "in"]);
        steps.see("created output", ran.stdout);
        instance.ok(&["start", &id]);
        instance.ok(&["pause", &id]);
        steps.run("paused", &["exec", &id, "true"]);
        steps.run("pause twice", &["pause", &id]);
        instance.ok(&["resume", &id]);
        steps.view
    });
}

#[test]
fn conformance_exec_stdin_is_the_callers() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let (_bundle, id) = running(instance, |_| {});
        let input = instance.dir().join("input");
        fs::write(&input, "line one\nline two\n").unwrap();
        let mut command = instance.command(&["exec", &id, "wc", "-l"]);
        command.stdin(fs::File::open(&input).unwrap());
        let ran = instance.finish(&mut command);
        steps.ran("exec", &ran);
        steps.see("output", ran.stdout.trim().to_owned());
        steps.view
    });
}

#[test]
fn conformance_list_in_every_format() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let (_bundle, id) = running(instance, |bundle| bundle.config["annotations"] = json!({ "a": "b" }));
        let quiet = steps.run("list -q", &["list", "--quiet"]);
        steps.see("quiet", normalise(&quiet.stdout, &_bundle, &id));
        let table = steps.run("list", &["list"]);
        let header = table.stdout.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        steps.see("header", header);
        let json = steps.run("list json", &["list", "--format", "json"]);
        let list: Value = serde_json::from_str(&json.stdout).unwrap_or_default();
        for field in ["id", "status", "bundle"] {
            steps.see(&format!("json {field}"), normalise(&list[0][field].to_string(), &_bundle, &id));
        }
        steps.see("json pid", list[0]["pid"] == json!(instance.pid(&id)));
        steps.see("json created", list[0]["created"].is_string());
        steps.run("bad format", &["list", "--format", "xml"]);
        steps.view
    });
}

#[test]
fn conformance_list_of_nothing() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        // A --root that is not there is an error since runc 1.2.
        fs::create_dir_all(instance.root()).unwrap();
        let quiet = steps.run("list -q", &["list", "-q"]);
        steps.see("quiet", quiet.stdout);
        let json = steps.run("list json", &["list", "--format", "json"]);
        steps.see("json", json.stdout.trim().to_owned());
        steps.view
    });
}

#[test]
fn conformance_ps_lists_the_containers_processes() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let id = instance.id("ps");
        let bundle = Bundle::script("sleep 1000 & echo up; wait");
        instance.start(&bundle, &id);
        instance.wait_stdout(&id, "up\n");
        let table = steps.run("ps", &["ps", &id]);
        steps.see("lines", table.stdout.lines().count());
        let header = table.stdout.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        steps.see("header", header);
        let json = steps.run("ps json", &["ps", "--format", "json", &id]);
        let pids: Vec<u32> = serde_json::from_str(&json.stdout).unwrap_or_default();
        steps.see("pids", pids.len());
        steps.see("has the first", pids.contains(&instance.pid(&id)));
        steps.run("bad format", &["ps", "--format", "xml", &id]);
        steps.view
    });
}

/// Memory and swap together that are less than the memory alone.
const REFUSED: &[&str] = &["--memory", "67108864", "--memory-swap", "33554432"];

#[test]
fn conformance_update_changes_what_the_kernel_holds() {
    let files = [
        "memory/memory.limit_in_bytes",
        "memory/memory.soft_limit_in_bytes",
        "memory/memory.memsw.limit_in_bytes",
        "cpu/cpu.shares",
        "cpu/cpu.cfs_quota_us",
        "cpu/cpu.cfs_period_us",
        "cpuset/cpuset.cpus",
        "cpuset/cpuset.mems",
        "pids/pids.max",
        "cpu/cpu.rt_runtime_us",
        "cpu/cpu.rt_period_us",
        "blkio/blkio.bfq.weight",
        "memory/memory.kmem.tcp.limit_in_bytes",
    ];
    for flags in [
        &["--memory", "67108864"][..],
        &["--cpu-share", "300"],
        &["--cpu-quota", "30000", "--cpu-period", "60000"],
        &["--pids-limit", "42"],
        &["--memory-reservation", "16777216"],
        &["--memory", "-1"],
        &["--memory", "67108864", "--memory-swap", "134217728"],
        &["--cpuset-cpus", "0"],
        &["--cpuset-mems", "0"],
        &["--cpu-quota", "-1"],
        &["--cpu-rt-period", "500000", "--cpu-rt-runtime", "20000"],
        &["--blkio-weight", "300"],
        &["--kernel-memory", "67108864"],
        &["--kernel-memory-tcp", "67108864"],
        &["--memory-reservation", "16M", "--memory", "24M"],
        // Nothing is asked for.
        &["--memory", "0", "--cpu-share", "0", "--cpu-quota", "0", "--cpu-period", "0"],
        &["--cpuset-cpus", "", "--cpuset-mems", ""],
        &[],
        // What is no number, no size, out of range, or less than what it is to include.
        &["--pids-limit", "x"],
        &["--memory", "x"],
        &["--cpu-period", "99999999"],
        &["--cpuset-cpus", "999"],
        REFUSED,
    ] {
        let whole = [known("memory/memory.limit_in_bytes", "33554432", "D-refused-update")];
        same_but(if flags == REFUSED { &whole } else { &[] }, |instance| {
            let mut steps = Steps::new(instance);
            let (_bundle, id) = running(instance, |bundle| {
                bundle.config["linux"]["resources"] = json!({ "memory": { "limit": 33_554_432 }, "cpu": { "shares": 100, "quota": 10000, "period": 50000 }, "pids": { "limit": 20 } });
            });
            let mut args = vec!["update"];
            args.extend(flags);
            args.push(&id);
            steps.run("update", &args);
            steps.view.extend(values(instance.pid(&id), &files));
            steps.view
        });
    }
}

#[test]
fn conformance_update_from_a_file() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let (bundle, id) = running(instance, |bundle| {
            bundle.config["linux"]["resources"] = json!({ "memory": { "limit": 33_554_432 }, "pids": { "limit": 20 } });
        });
        let resources = json!({ "memory": { "limit": 50_331_648 }, "pids": { "limit": 33 } });
        let file = bundle.file("resources.json", 0o644, &resources.to_string()).display().to_string();
        steps.run("update", &["update", "--resources", &file, &id]);
        let files = ["memory/memory.limit_in_bytes", "pids/pids.max"];
        steps.view.extend(values(instance.pid(&id), &files));
        bundle.file("resources.json", 0o644, "{");
        steps.run("bad", &["update", "--resources", &file, &id]);
        steps.run("none", &["update", "--memory", "1000000", &instance.id("nobody")]);
        steps.view
    });
}

#[test]
fn conformance_spec_writes_a_bundle_that_every_runtime_runs() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let mut bundle = Bundle::new(&["true"]);
        let path = bundle.path().display().to_string();
        let ran = if instance.runtime() == onggi_tests::Runtime::Crun {
            let mut command = instance.command(&["spec"]);
            command.current_dir(bundle.path());
            instance.finish(&mut command)
        } else {
            instance.run(&["spec", "--bundle", &path])
        };
        steps.ran("spec", &ran);
        let text = fs::read_to_string(bundle.path().join("config.json")).unwrap_or_default();
        let mut config: Value = serde_json::from_str(&text).unwrap_or_default();
        steps.see("args", &config["process"]["args"]);
        steps.see("terminal", &config["process"]["terminal"]);
        steps.see("cwd", &config["process"]["cwd"]);
        steps.see("readonly", &config["root"]["readonly"]);
        steps.see("no new privileges", &config["process"]["noNewPrivileges"]);
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["echo", "ran"]);
        bundle.config = config;
        let ran = instance.run_bundle(&bundle, &instance.id("spec"));
        steps.ran("run", &ran);
        steps.see("output", ran.stdout);
        steps.view
    });
}

#[test]
fn conformance_spec_has_the_namespaces_and_mounts_of_runc() {
    for flags in [&[][..], &["--rootless"]] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let bundle = Bundle::new(&["true"]);
            let mut command = instance.command(&[&["spec"], flags].concat());
            steps.ran("spec", &instance.finish(command.current_dir(bundle.path())));
            let text = fs::read_to_string(bundle.path().join("config.json")).unwrap_or_default();
            let config: Value = serde_json::from_str(&text).unwrap_or_default();
            let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
            for (i, namespace) in list(&config["linux"]["namespaces"]).iter().enumerate() {
                steps.see(&format!("namespace {i}"), namespace);
            }
            for (i, mount) in list(&config["mounts"]).iter().enumerate() {
                let what = ["destination", "type", "source"].map(|key| mount[key].to_string()).join(" ");
                steps.see(&format!("mount {i}"), what);
                // Ours are read-only all the way down.
                let options = list(&mount["options"]).into_iter().filter(|option| option != "rro").collect::<Vec<_>>();
                steps.see(&format!("options {i}"), Value::from(options));
            }
            steps.see("resources", &config["linux"]["resources"]);
            steps.view
        });
    }
}

#[test]
fn conformance_spec_does_not_overwrite() {
    same(|instance| {
        let mut steps = Steps::new(instance);
        let bundle = Bundle::new(&["true"]);
        bundle.write();
        let mut command = instance.command(&["spec"]);
        command.current_dir(bundle.path());
        let ran = instance.finish(&mut command);
        steps.see("refused", ran.code != Some(0));
        steps.view
    });
}

#[test]
fn conformance_command_line_errors() {
    for args in [
        &["no-such-command"][..],
        &["state"],
        &["state", "a", "b"],
        &["start"],
        &["create"],
        &["create", "--no-such-flag", "x"],
        &["kill"],
        &["delete"],
        &["--no-such-flag", "list"],
        &["--log-format", "xml", "list"],
        &["--version"],
        &["--help"],
        &["help"],
        &["create", "--help"],
    ] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let ran = instance.finish(instance.bare().arg("--root").arg(instance.root()).args(args));
            steps.ran("command", &ran);
            steps.see("prints", !ran.stdout.is_empty());
            steps.view
        });
    }
}

#[test]
fn conformance_log_goes_to_the_file_and_to_stderr() {
    for format in ["json", "text"] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let log = instance.dir().join("own-log");
            let mut command = instance.bare();
            command.arg("--root").arg(instance.root()).arg("--log").arg(&log).args(["--log-format", format]);
            let ran = instance.finish(command.args(["state", "nobody"]));
            steps.ran("state", &ran);
            let text = fs::read_to_string(&log).unwrap_or_default();
            steps.see("the log has a record", !text.trim().is_empty());
            steps.see("the log is JSON", serde_json::from_str::<Value>(text.lines().last().unwrap_or("")).is_ok());
            steps.see("stderr has the message", !ran.stderr.trim().is_empty());
            // What is there is kept.
            let mut command = instance.bare();
            command.arg("--root").arg(instance.root()).arg("--log").arg(&log).args(["--log-format", format]);
            instance.finish(command.args(["state", "nobody"]));
            let again = fs::read_to_string(&log).unwrap_or_default();
            steps.see("the log is appended to", again.starts_with(&text) && again.len() > text.len());
            steps.view
        });
    }
}

#[test]
fn conformance_preserved_fds_arrive() {
    for (preserve, shell) in [("0", ""), ("2", "3</etc/hostname 4</etc/passwd")] {
        same(|instance| {
            let mut steps = Steps::new(instance);
            let bundle = Bundle::new(&["sh", "-c", "for f in 3 4 5; do [ -e /proc/$$/fd/$f ] && echo $f; done"]);
            bundle.write();
            let run = instance.command(&["run", "--preserve-fds", preserve, "--bundle"]);
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &format!("exec \"$@\" {shell}"), "sh"]).arg(run.get_program()).args(run.get_args());
            command.arg(bundle.path()).arg(instance.id("fds"));
            let ran = instance.finish(&mut command);
            steps.ran("run", &ran);
            steps.see("open", ran.stdout);
            steps.view
        });
    }
}

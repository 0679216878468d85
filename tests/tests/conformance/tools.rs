//! The shared tools themselves: each runtime can be driven through them and leaves nothing behind.

use onggi_tests::{Bundle, Runtime, isolated};
use serde_json::Value;

use crate::{compare::same, probe::View};

#[test]
fn conformance_tools_drive_every_runtime_through_a_life_and_clean_up() {
    isolated();
    for runtime in Runtime::ALL {
        let instance = runtime.instance();
        let bundle = Bundle::script("echo out; echo err >&2; exit 7");
        let ran = instance.run_bundle(&bundle, &instance.id("run"));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "out\n"), "{}", instance.explain(&ran));
        assert!(ran.stderr.contains("err\n"), "{ran}");

        let bundle = Bundle::script("echo up; sleep 1000");
        let id = instance.id("life");
        instance.create(&bundle, &id);
        assert_eq!(instance.status(&id).as_deref(), Some("created"), "{runtime}");
        instance.ok(&["start", &id]);
        instance.wait_stdout(&id, "up\n");
        assert_eq!(instance.exec(&id, &["echo", "in"]).stdout, "in\n", "{runtime}");
        assert!(!instance.cgroups().is_empty(), "{runtime} made no cgroup with the id's prefix");
        instance.ok(&["kill", &id, "KILL"]);
        instance.wait_status(&id, "stopped");
        instance.ok(&["delete", &id]);
        assert_eq!(instance.status(&id), None, "{runtime}");

        let forgotten = instance.id("forgotten");
        let bundle = Bundle::new(&["sleep", "1000"]);
        instance.start(&bundle, &forgotten);
        let pid = instance.pid(&forgotten);
        drop(instance);
        assert!(!std::path::Path::new(&format!("/proc/{pid}/root/bin")).exists(), "{runtime} left its container");
    }
}

#[test]
fn conformance_log_is_what_engines_read() {
    // An engine shows its user the last record of the JSON log: level, msg and time.
    same(|instance| {
        let mut bundle = Bundle::new(&["true"]);
        bundle.args(&["/not/there"]);
        let ran = instance.run_bundle(&bundle, &instance.id("log"));
        let records: Vec<Value> = instance.log().lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let errors: Vec<_> = records.iter().filter(|r| r["level"] == "error").collect();
        let last = errors.last().expect("an error record");
        View::from([
            ("exit".to_owned(), format!("{}", ran.code != Some(0))),
            ("msg is text".to_owned(), last["msg"].is_string().to_string()),
            ("time is text".to_owned(), last["time"].is_string().to_string()),
        ])
    });
}

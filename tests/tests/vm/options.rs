//! The other security options, where nothing else restricts.

use std::fs;

use crate::Stage;

#[test]
fn vm_no_new_privileges_can_be_turned_on_for_root_and_off_for_users() {
    let stage = Stage::new();
    let script = "grep NoNewPrivs /proc/self/status | tr -d '\\t'";
    assert_eq!(stage.script(&[], script), "NoNewPrivs:0");
    assert_eq!(stage.script(&["--security-opt", "no-new-privileges"], script), "NoNewPrivs:1");
    assert_eq!(stage.script(&["-u", "1000"], script), "NoNewPrivs:1");
    assert_eq!(stage.script(&["-u", "1000", "--security-opt", "no-new-privileges=false"], script), "NoNewPrivs:0");
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_seccomp_can_be_replaced_or_left_out() {
    let stage = Stage::new();
    let mode = "grep '^Seccomp:' /proc/self/status | tr -d '\\t'";
    assert_eq!(stage.script(&[], mode), "Seccomp:2");
    assert_eq!(stage.script(&["--security-opt", "seccomp=unconfined"], mode), "Seccomp:0");
    let file = stage.onggi.dir().join("profile.json");
    let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }] }"#;
    fs::write(&file, text).expect("write the profile");
    let option = format!("seccomp={}", file.display());
    let out = stage.script(&["--security-opt", &option], "mkdir /tmp/x 2>&1 || true; touch /tmp/y && echo made");
    assert!(out.contains("No space left on device") && out.ends_with("made"), "{out}");
    stage.onggi.assert_nothing_left();
}

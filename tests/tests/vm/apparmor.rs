//! The default AppArmor profile, and profiles by name.

use onggi_tests::machine::sh;

use crate::Stage;

const LABEL: &str = "cat /proc/self/attr/current";

/// Of two writers into one profile of the kernel, the tests' names must differ.
fn unique(word: &str) -> String {
    format!("onggi-test-{word}-{}", std::process::id())
}

/// A profile of an administrator, which goes with this value.
struct Profile(String);

impl Profile {
    fn load(word: &str, rules: &str) -> Profile {
        let name = unique(word);
        let profile = Profile(name.clone());
        sh(&format!(
            "echo 'profile {name} flags=(attach_disconnected, mediate_deleted) {{ {rules} }}' | apparmor_parser --replace --skip-cache"
        ));
        profile
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        sh(&format!("echo 'profile {} {{ }}' | apparmor_parser --remove", self.0));
    }
}

#[test]
fn vm_a_container_runs_under_the_default_profile_and_so_does_exec() {
    let stage = Stage::new();
    let id = stage.start(&["--name", "web"]);
    let pid = stage.inspect("web", "/State/Pid");
    assert_eq!(sh(&format!("cat /proc/{pid}/attr/current")).trim(), "onggi-default (enforce)");
    for options in [&[][..], &["-u", "1000"]] {
        let label = stage.onggi.ok(&[&["exec"], options, &["web", "cat", "/proc/self/attr/current"]].concat());
        assert_eq!(label, "onggi-default (enforce)", "{options:?}");
    }
    assert_eq!(stage.inspect(&id, "/AppArmorProfile"), "onggi-default");
    assert!(sh("cat /sys/kernel/security/apparmor/profiles").contains("onggi-default (enforce)"));
    // A confined process still hears the engine.
    stage.onggi.ok(&["stop", "web"]);
    assert_eq!(stage.inspect("web", "/State/ExitCode"), 3);
    stage.onggi.ok(&["rm", "web"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_users_without_privileges_and_init_are_confined_too() {
    let stage = Stage::new();
    assert_eq!(stage.script(&["-u", "1000"], LABEL), "onggi-default (enforce)");
    assert_eq!(stage.script(&["--init"], LABEL), "onggi-default (enforce)");
    assert_eq!(stage.script(&["--security-opt", "no-new-privileges"], LABEL), "onggi-default (enforce)");
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_the_default_profile_denies_mounts_and_the_kernels_switches_even_with_the_capability() {
    let stage = Stage::new();
    // With CAP_SYS_ADMIN the read-only view of /proc/sys can be taken away; the profile is what is left.
    let script = "mount -t tmpfs none /mnt 2>/dev/null && echo mounted
        umount /proc/sys && cat /proc/sys/kernel/printk_ratelimit > /tmp/v
        (cat /tmp/v > /proc/sys/kernel/printk_ratelimit) 2>&1 && echo written
        umount /proc/sysrq-trigger 2>/dev/null
        (: < /proc/kcore) 2>/dev/null && echo read
        hostname other && echo named";
    let options = ["--cap-add", "SYS_ADMIN"];
    let confined = stage.script(&options, script);
    assert!(confined.contains("Permission denied"), "{confined}");
    assert!(!confined.contains("mounted") && !confined.contains("written"), "{confined}");
    assert!(confined.ends_with("named"), "what belongs to the container stays possible: {confined}");
    let free = stage.script(&[&options[..], &["--security-opt", "apparmor=unconfined"]].concat(), script);
    assert!(free.contains("mounted") && free.contains("written"), "the benign twin: {free}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_processes_of_one_container_may_trace_and_signal_each_other() {
    let stage = Stage::new();
    let script = "sleep 60 & kill -STOP $! && kill -CONT $! && kill -TERM $!; wait $!; echo $?
        strace -e trace=none true && echo traced";
    let out = stage.script(&["--cap-add", "SYS_PTRACE"], script);
    assert!(out.starts_with("143") && out.ends_with("traced"), "{out}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_unconfined_is_unconfined_and_shown() {
    let stage = Stage::new();
    let id = stage.start(&["--security-opt", "apparmor=unconfined"]);
    let label = stage.onggi.ok(&["exec", &id, "cat", "/proc/self/attr/current"]);
    assert_eq!(label, "unconfined");
    assert_eq!(stage.inspect(&id, "/AppArmorProfile"), "unconfined");
    assert_eq!(stage.inspect(&id, "/HostConfig/SecurityOpt/0"), "apparmor=unconfined");
    stage.onggi.ok(&["rm", "-f", &id]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_an_administrators_profile_is_used_by_name() {
    let stage = Stage::new();
    let profile = Profile::load("named", "file, capability, network, signal, deny /etc/hostname r,");
    let option = format!("apparmor={}", profile.0);
    let script = format!("{LABEL}; cat /etc/hostname 2>/dev/null || echo denied");
    let out = stage.script(&["--security-opt", &option], &script);
    assert_eq!(out, format!("{} (enforce)\ndenied", profile.0));
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_a_profile_that_is_not_loaded_is_an_error_by_name() {
    let stage = Stage::new();
    let name = unique("missing");
    let ran = stage.try_script(&["--security-opt", &format!("apparmor={name}")], "echo ran");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(125), ""), "{ran}");
    assert!(ran.stderr.contains(&name) && ran.stderr.contains("hint:"), "{ran}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_the_plan_names_the_profile() {
    let stage = Stage::new();
    let plan = stage.onggi.ok(&["run", "--explain", "--network", "none", "host:", "true"]);
    assert!(plan.contains("AppArmor profile onggi-default"), "{plan}");
    let free = ["run", "--explain", "--security-opt", "apparmor=unconfined", "--network", "none", "host:", "true"];
    assert!(!stage.onggi.ok(&free).contains("AppArmor"));
}

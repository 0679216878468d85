//! config-linux.md: namespaces, mappings, devices, paths, propagation, sysctl, seccomp.

use std::{fs, os::unix::fs::FileTypeExt};

use onggi_tests::{Bundle, machine};
use serde_json::{Value, json};

use crate::compare::{Known, known, same_output, same_output_but, same_view};

#[test]
fn conformance_linux_namespaces_left_out_are_the_hosts() {
    for kind in ["network", "ipc", "pid", "uts"] {
        same_view(|bundle| {
            bundle.without_namespace(kind);
            if kind == "uts" {
                bundle.config.as_object_mut().unwrap().remove("hostname");
            }
            if kind == "ipc" {
                bundle.config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "mqueue");
            }
        });
    }
}

#[test]
fn conformance_linux_namespaces_cgroup() {
    same_output("cut -d: -f3 /proc/self/cgroup | sort -u; readlink /proc/self/ns/cgroup | cut -d: -f1", |bundle| {
        bundle.namespace(json!({ "type": "cgroup" }));
    });
}

#[test]
fn conformance_linux_namespaces_by_path() {
    // Of this test itself: what is joined is seen as `host`.
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        same_view(|bundle| {
            bundle.namespace(json!({ "type": kind, "path": format!("/proc/{}/ns/{file}", std::process::id()) }));
            if kind == "uts" {
                bundle.config.as_object_mut().unwrap().remove("hostname");
            }
        });
    }
}

#[test]
fn conformance_linux_namespaces_wrong_path_or_type_or_twice() {
    same_output("true", |bundle| {
        bundle.namespace(json!({ "type": "network", "path": "/no/such/file" }));
    });
    same_output("true", |bundle| {
        bundle.namespace(json!({ "type": "network", "path": "/proc/self/ns/uts" }));
    });
    same_output("true", |bundle| {
        bundle.namespace(json!({ "type": "no-such-namespace" }));
    });
    same_output("echo ran", |bundle| {
        let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.push(json!({ "type": "network" }));
    });
}

#[test]
fn conformance_linux_user_namespace_with_mappings() {
    same_view(|bundle| {
        bundle.user_namespace(100_000);
    });
    same_view(|bundle| {
        bundle.user_namespace(200_000);
        bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000] });
    });
}

#[test]
fn conformance_linux_user_namespace_without_mappings_and_mappings_without_it() {
    same_output("cat /proc/self/uid_map /proc/self/gid_map", |bundle| {
        bundle.namespace(json!({ "type": "user" }));
        for mount in bundle.config["mounts"].as_array_mut().unwrap() {
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|o| o != "gid=5");
            }
        }
    });
    const REFUSED: [Known; 2] =
        [known("exit", "Some(1)", "D-mappings-without-user"), known("output", "(absent)", "D-mappings-without-user")];
    same_output_but(&REFUSED, "cat /proc/self/uid_map", |bundle| {
        let mapping = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
        bundle.config["linux"]["uidMappings"] = mapping.clone();
        bundle.config["linux"]["gidMappings"] = mapping;
    });
}

#[test]
fn conformance_linux_devices_are_made() {
    same_view(|bundle| {
        bundle.config["linux"]["devices"] = json!([
            { "path": "/dev/custom", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6 },
            { "path": "/dev/plain", "type": "c", "major": 1, "minor": 5 },
            { "path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3, "fileMode": 0o666 },
            { "path": "/dev/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o640 },
            { "path": "/dev/fifo", "type": "p", "fileMode": 0o640 },
            { "path": "/dev/deep/er/node", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666 },
            { "path": "/dev/typed", "type": "c", "major": 1, "minor": 3, "fileMode": 0o020_640 },
            { "path": "/dev/odd", "type": "c", "major": 1, "minor": 3, "fileMode": 0o4666 },
            { "path": "/dev/nobodys", "type": "c", "major": 1, "minor": 3, "fileMode": 0 },
            { "path": "/tmp/../dev/./dotted", "type": "c", "major": 1, "minor": 3 },
        ]);
    });
}

#[test]
fn conformance_linux_devices_wrong_ones_are_refused() {
    for device in [
        json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }),
        json!({ "path": "/dev/x", "major": 1, "minor": 3 }),
        json!({ "path": "", "type": "c", "major": 1, "minor": 3 }),
    ] {
        same_output("ls /dev", |bundle| bundle.config["linux"]["devices"] = json!([device]));
    }
    // The specification: what is at the path already and is another device is an error.
    const TAKEN: [Known; 2] =
        [known("exit", "Some(1)", "D-device-taken"), known("output", "(absent)", "D-device-taken")];
    let device = |minor: u32| json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": minor });
    same_output_but(&TAKEN, "echo ran", |bundle| bundle.config["linux"]["devices"] = json!([device(3), device(5)]));
    same_output("stat -c %t:%T /dev/x", |bundle| bundle.config["linux"]["devices"] = json!([device(3), device(3)]));
}

#[test]
fn conformance_linux_devices_replace_default_ones() {
    same_output("stat -c '%a %t:%T %u' /dev/null; echo x > /dev/null; echo $?", |bundle| {
        bundle.config["linux"]["devices"] =
            json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o622, "uid": 3 }]);
    });
}

#[test]
fn conformance_linux_devices_leave_what_is_mounted_at_their_paths() {
    let mounts = |bundle: &mut Bundle| {
        bundle.file("rootfs/etc/empty", 0o644, "");
        let file = bundle.rootfs().join("etc/empty").display().to_string();
        for (from, to) in [("/dev/urandom", "/dev/random"), (&file, "/dev/zero")] {
            bundle.mount(json!({ "destination": to, "type": "bind", "source": from, "options": ["bind"] }));
        }
    };
    let script = "stat -c '%n %F %t:%T' /dev/random /dev/zero /dev/null";
    same_output(script, mounts);
    same_output(script, |bundle| {
        mounts(bundle);
        bundle.config["linux"]["devices"] = json!([
            { "path": "/dev/random", "type": "c", "major": 1, "minor": 8 },
            { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 },
        ]);
    });
}

/// Nobody drives these numbers: "No such device" is told to who may open them, "not permitted" to who may not.
const TRY_DEVICES: &str =
    "t() { n=$1; shift; \"$@\" 2>&1 | grep -o -e 'No such device' -e 'not permitted' | sed \"s/^/$n: /\"; }; cd /tmp
    mknod c c 240 99; mknod c2 c 240 98; mknod b b 240 99; chmod 666 c c2 b
    for d in c c2 b; do t \"$d read\" dd if=$d count=0; t \"$d write\" dd if=/dev/null of=$d conv=notrunc; done
    t both sh -c ': <> c'; mknod other c 241 1 && echo made; echo x > /dev/null && echo null";

#[test]
fn conformance_linux_device_rules_deny_what_is_not_allowed() {
    let none = json!({ "allow": false, "access": "rwm" });
    let one = |access: &str| json!({ "allow": true, "type": "c", "major": 240, "minor": 99, "access": access });
    for rules in [
        json!([none]),
        json!([none, one("r")]),
        json!([none, one("w")]),
        json!([none, one("rw")]),
        json!([none, one("m")]),
        json!([none, { "allow": true, "type": "c", "major": 240, "access": "rw" }]),
        json!([none, { "allow": true, "type": "b", "major": 240, "minor": 99, "access": "rw" }]),
        json!([none, { "allow": true, "type": "a", "access": "rwm" }]),
        json!([{ "allow": true, "access": "rwm" }]),
        json!([{ "allow": true, "type": "a", "access": "rwm" }, { "allow": false, "type": "c", "major": 240, "minor": 98, "access": "rw" }]),
        // Letters that do not exist.
        json!([none, { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwa" }]),
    ] {
        same_output(TRY_DEVICES, |bundle| {
            for set in ["bounding", "effective", "permitted"] {
                bundle.config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_MKNOD"));
            }
            bundle.config["linux"]["resources"]["devices"] = rules.clone();
        });
    }
}

#[test]
fn conformance_linux_masked_paths() {
    let script = "cat /secret/file; ls /secret/dir; echo $?; echo x > /secret/file; echo $?; cat /link; ls /proc/scsi";
    same_output(script, |bundle| {
        bundle.file("rootfs/secret/file", 0o644, "secret\n");
        bundle.file("rootfs/secret/dir/inner", 0o644, "secret\n");
        std::os::unix::fs::symlink("secret/file", bundle.rootfs().join("link")).unwrap();
        bundle.config["linux"]["maskedPaths"] = json!(["/secret/file", "/secret/dir", "/proc/scsi", "/not/there"]);
    });
    // "A file in place of a directory" is "not there" as well: nothing can be read by that path.
    const BELOW_A_FILE: [Known; 2] =
        [known("exit", "Some(0)", "D-mask-below-file"), known("output", "ran", "D-mask-below-file")];
    same_output_but(&BELOW_A_FILE, "echo ran", |bundle| {
        bundle.config["linux"]["maskedPaths"] = json!(["/etc/passwd/not/a/dir"]);
    });
    same_output("cat /secret", |bundle| {
        bundle.file("rootfs/secret", 0o644, "secret\n");
        bundle.config["linux"]["maskedPaths"] = json!(["secret"]);
    });
}

#[test]
fn conformance_linux_readonly_paths() {
    let script = "echo x > /data/file; echo $?; echo x > /etc/passwd; echo $?; grep ' /data' /proc/self/mountinfo | cut -d' ' -f6";
    same_output(script, |bundle| {
        bundle.file("rootfs/data/file", 0o644, "");
        bundle.config["linux"]["readonlyPaths"] = json!(["/data", "/etc/passwd", "/not/there"]);
    });
    same_output("echo x > /data/file; echo $?", |bundle| {
        bundle.file("rootfs/data/file", 0o644, "");
        bundle.config["linux"]["readonlyPaths"] = json!(["data"]);
    });
}

#[test]
fn conformance_linux_rootfs_propagation() {
    // runc and crun bind /dev/null from the root filesystem, which unbindable forbids; ours binds nothing from there.
    const UNBINDABLE: [Known; 2] =
        [known("exit", "Some(0)", "D-unbindable"), known("output", "rw,relatime unbindable", "D-unbindable")];
    for propagation in ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable", ""]
    {
        let known = if propagation == "runbindable" { &UNBINDABLE[..] } else { &[] };
        same_output_but(
            known,
            "grep 'rootfs / ' /proc/self/mountinfo | cut -d' ' -f6- | sed 's/:[0-9]*//; s/ - .*//'",
            |bundle| {
                bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
            },
        );
    }
    same_output("true", |bundle| bundle.config["linux"]["rootfsPropagation"] = json!("sideways"));
}

/// As below systemd, and as engines ask for it when a volume is to be shared. runc leaves its root private.
#[test]
fn conformance_linux_rootfs_propagation_where_the_hosts_mounts_are_shared() {
    let script = "grep 'rootfs / ' /proc/self/mountinfo | cut -d' ' -f7- | sed 's/ - .*//; s/:[0-9]*//g'";
    for propagation in ["private", "shared", "rshared", "slave", "rslave"] {
        same_output(script, |bundle| {
            machine::sh("mount --make-rshared /");
            bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
        });
    }
}

#[test]
fn conformance_linux_sysctl() {
    same_output("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/kernel/domainname", |bundle| {
        bundle.config["linux"]["sysctl"] =
            json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "123456", "kernel.domainname": "example" });
    });
    for (key, value) in [
        ("kernel.pid_max", "100000"),
        ("kernel.hostname", "x"),
        ("vm.swappiness", "1"),
        ("net.ipv4.no_such_thing", "1"),
        ("net.ipv4.ip_forward", "not a number"),
        ("net/ipv4/ip_forward", "1"),
        ("fs.mqueue.msg_max", "20"),
    ] {
        same_output("cat /proc/sys/net/ipv4/ip_forward /proc/sys/fs/mqueue/msg_max", |bundle| {
            bundle.config["linux"]["sysctl"] = json!({ key: value });
        });
    }
}

#[test]
fn conformance_linux_sysctl_of_a_namespace_that_is_the_hosts_is_refused() {
    same_output("true", |bundle| {
        bundle.without_namespace("network");
        bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    });
    same_output("true", |bundle| {
        bundle.without_namespace("ipc");
        bundle.config["linux"]["sysctl"] = json!({ "kernel.shmmax": "123456" });
    });
}

#[test]
fn conformance_linux_field_missing() {
    same_output("id -u", |bundle| {
        bundle.config.as_object_mut().unwrap().remove("linux");
    });
    same_output("true", |bundle| {
        bundle.without_namespace("mount");
    });
}

fn seccomp(default: &str, rules: Value) -> Value {
    json!({ "defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules })
}

#[test]
fn conformance_seccomp_actions() {
    let script = "mkdir /tmp/d; echo $?; uname -s; sync; echo $?; grep -e ^Seccomp: /proc/self/status";
    let one = |action: &str, extra: Value| {
        let mut rule = json!({ "names": ["mkdir", "mkdirat"], "action": action });
        if let (Value::Object(rule), Value::Object(extra)) = (&mut rule, extra) {
            rule.extend(extra);
        }
        seccomp("SCMP_ACT_ALLOW", json!([rule]))
    };
    for policy in [
        one("SCMP_ACT_ERRNO", json!({})),
        one("SCMP_ACT_ERRNO", json!({ "errnoRet": 13 })),
        one("SCMP_ACT_ERRNO", json!({ "errnoRet": 0 })),
        one("SCMP_ACT_KILL", json!({})),
        one("SCMP_ACT_KILL_PROCESS", json!({})),
        one("SCMP_ACT_KILL_THREAD", json!({})),
        one("SCMP_ACT_TRAP", json!({})),
        one("SCMP_ACT_LOG", json!({})),
        one("SCMP_ACT_TRACE", json!({ "errnoRet": 1 })),
        one("SCMP_ACT_ALLOW", json!({})),
        one("SCMP_ACT_NO_SUCH", json!({})),
        // The specification: an error beside an action that has none.
        one("SCMP_ACT_KILL", json!({ "errnoRet": 13 })),
        one("SCMP_ACT_ALLOW", json!({ "errnoRet": 13 })),
    ] {
        for no_new_privileges in [true, false] {
            same_output(script, |bundle| {
                bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
                bundle.config["linux"]["seccomp"] = policy.clone();
            });
        }
    }
}

#[test]
fn conformance_seccomp_arguments_and_operators() {
    // personality(2) by `setarch`-like applets: its only argument tells the operators apart.
    let script = "linux32 true; echo $?; linux64 true; echo $?; nice -n 3 true; echo $?; nice -n 5 true; echo $?";
    let rule = |op: &str, value: u64, two: u64| {
        seccomp(
            "SCMP_ACT_ALLOW",
            json!([
                { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                  "args": [{ "index": 0, "value": value, "valueTwo": two, "op": op }] },
            ]),
        )
    };
    for (op, value, two) in [
        ("SCMP_CMP_EQ", 8, 0),
        ("SCMP_CMP_NE", 8, 0),
        ("SCMP_CMP_LT", 8, 0),
        ("SCMP_CMP_LE", 8, 0),
        ("SCMP_CMP_GT", 0, 0),
        ("SCMP_CMP_GE", 8, 0),
        ("SCMP_CMP_MASKED_EQ", 8, 8),
        ("SCMP_CMP_MASKED_EQ", 0xff, 8),
    ] {
        same_output(script, |bundle| bundle.config["linux"]["seccomp"] = rule(op, value, two));
    }
}

#[test]
fn conformance_seccomp_several_arguments_of_one_and_of_two_rules() {
    let script = "linux32 true; echo $?; linux64 true; echo $?";
    let equal = |value: u64| json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" });
    let rule = |args: Value| json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": args });
    for rules in [
        json!([rule(json!([equal(0), equal(8)]))]),
        json!([rule(json!([equal(0)])), rule(json!([equal(8)]))]),
        json!([rule(json!([equal(8)])), { "names": ["no_such_syscall"], "action": "SCMP_ACT_ERRNO" }]),
    ] {
        same_output(script, |bundle| bundle.config["linux"]["seccomp"] = seccomp("SCMP_ACT_ALLOW", rules.clone()));
    }
}

#[test]
fn conformance_seccomp_default_action_and_its_errno() {
    let allowed = [
        "execve",
        "exit_group",
        "exit",
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "mprotect",
        "getuid",
        "setuid",
        "write",
        "getpid",
        "rt_sigaction",
        "rt_sigprocmask",
        "fstat",
        "newfstatat",
        "mmap",
        "munmap",
        "close",
        "prctl",
        "uname",
        "ioctl",
        "futex",
        "fcntl",
        "getppid",
        "geteuid",
        "getegid",
        "getgid",
        "stat",
        "getcwd",
        "openat",
        "read",
        "capset",
        "capget",
        "setgid",
        "setgroups",
        "setresuid",
        "setresgid",
        "chdir",
        "fchdir",
        "faccessat",
        "faccessat2",
        "access",
        "sched_yield",
        "nanosleep",
        "sigaltstack",
        "umask",
        "epoll_ctl",
        "epoll_pwait",
        "getdents64",
        "fstatfs",
        "statfs",
        "seccomp",
        "rt_sigreturn",
        "tgkill",
        "gettid",
        "lseek",
        "dup",
        "dup2",
        "dup3",
        "close_range",
        "setsid",
        "fchown",
        "execveat",
        "madvise",
        "clock_gettime",
        "clone",
        "wait4",
        "openat2",
        "keyctl",
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "pread64",
        "poll",
        "ppoll",
        "pidfd_send_signal",
        "sched_getaffinity",
        "open",
        "statx",
        "writev",
        "pipe2",
        "eventfd2",
        "epoll_create1",
        "timerfd_create",
        "signalfd4",
        "sched_setaffinity",
    ];
    for errno in [Value::Null, json!(38)] {
        same_output("echo in; mkdir /tmp/d", |bundle| {
            let mut policy =
                seccomp("SCMP_ACT_ERRNO", json!([{ "names": allowed.as_slice(), "action": "SCMP_ACT_ALLOW" }]));
            if !errno.is_null() {
                policy["defaultErrnoRet"] = errno.clone();
            }
            bundle.config["linux"]["seccomp"] = policy;
            bundle.args(&["sh", "-c", "echo in; mkdir /tmp/d 2>&1"]);
        });
    }
}

#[test]
fn conformance_seccomp_architectures_and_flags() {
    for (architectures, flags) in [
        (json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]), json!([])),
        (json!([]), json!([])),
        (json!(["SCMP_ARCH_AARCH64"]), json!([])),
        (json!(["SCMP_ARCH_NO_SUCH"]), json!([])),
        (json!(["SCMP_ARCH_X86_64"]), json!(["SECCOMP_FILTER_FLAG_TSYNC"])),
        (json!(["SCMP_ARCH_X86_64"]), json!(["SECCOMP_FILTER_FLAG_LOG"])),
        (json!(["SCMP_ARCH_X86_64"]), json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"])),
        (json!(["SCMP_ARCH_X86_64"]), json!(["SECCOMP_FILTER_FLAG_NO_SUCH"])),
    ] {
        same_output("mkdir /tmp/d; echo $?; grep -i '^speculation_store' /proc/self/status", |bundle| {
            let rule = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]);
            let mut policy = seccomp("SCMP_ACT_ALLOW", rule);
            policy["architectures"] = architectures.clone();
            policy["flags"] = flags.clone();
            bundle.config["linux"]["seccomp"] = policy;
        });
    }
}

#[test]
fn conformance_seccomp_absent_or_empty() {
    same_output("grep ^Seccomp: /proc/self/status", |bundle| {
        bundle.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    });
    same_output("grep ^Seccomp: /proc/self/status", |bundle| bundle.config["linux"]["seccomp"] = json!({}));
}

#[test]
fn conformance_linux_default_devices_and_links_when_dev_comes_from_the_image() {
    // No tmpfs on /dev: the nodes are made in the root filesystem itself.
    same_output("ls /dev; stat -c '%F %a %t:%T' /dev/null /dev/tty", |bundle| {
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        assert!(!fs::metadata(bundle.rootfs().join("dev")).unwrap().file_type().is_char_device());
    });
}

#[test]
fn conformance_linux_intel_rdt_without_the_hardware() {
    same_output("echo in", |bundle| {
        bundle.config["linux"]["intelRdt"] = json!({ "closID": "guaranteed", "l3CacheSchema": "L3:0=7f0" });
    });
}

#[test]
fn conformance_linux_mount_label_without_selinux() {
    same_output("grep ' /dev/shm ' /proc/self/mountinfo | cut -d' ' -f6-", |bundle| {
        bundle.config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
    });
}

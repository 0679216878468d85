//! The engine's limits on pure cgroup version 2.

use std::{fs, path::PathBuf};

use onggi_tests::{machine, machine::http_get};

use crate::Stage;

/// The container's group: the only directory with its id.
fn group(id: &str) -> PathBuf {
    let found = machine::sh(&format!("find /sys/fs/cgroup -type d -name '*{id}*'"));
    let dirs: Vec<&str> = found.lines().collect();
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    PathBuf::from(dirs[0])
}

#[test]
fn vm_limits_of_run_are_in_the_kernel_and_everything_goes_with_the_container() {
    let stage = Stage::new();
    let id = stage.start(&["--name", "web", "-m", "64m", "--cpus", "0.5", "--pids-limit", "32"]);
    let dir = group(&id);
    let read = |file: &str| fs::read_to_string(dir.join(file)).expect(file).trim().to_owned();
    assert_eq!(read("memory.max"), (64 << 20).to_string());
    assert_eq!(read("memory.swap.max"), (64 << 20).to_string(), "as much swap as memory");
    assert_eq!(read("memory.oom.group"), "1");
    assert_eq!(read("cpu.max"), "50000 100000");
    assert_eq!(read("pids.max"), "32");
    let pid = stage.inspect("web", "/State/Pid").to_string();
    assert!(read("cgroup.procs").lines().any(|line| line == pid), "{pid} is not in {}", dir.display());
    let seen = stage.onggi.ok(&["exec", "web", "cat", "/sys/fs/cgroup/memory.max", "/proc/self/cgroup"]);
    assert_eq!(seen, format!("{}\n0::/", 64 << 20));
    assert!(stage.onggi.ok(&["ps"]).contains("web"));
    stage.onggi.ok(&["stop", "web"]);
    assert_eq!(stage.inspect("web", "/State/ExitCode"), 3);
    stage.onggi.ok(&["rm", "web"]);
    assert!(!dir.exists());
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_a_container_beyond_its_memory_is_flagged_and_ends_with_137() {
    let stage = Stage::new();
    let ran =
        stage.onggi.run(&["run", "--name", "big", "--network", "none", "-m", "16m", "host:", "tail", "/dev/zero"]);
    assert_eq!(ran.code, Some(137), "{ran}");
    assert_eq!(stage.inspect("big", "/State/OOMKilled"), true);
    stage.onggi.ok(&["rm", "big"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_a_fork_bomb_stays_inside() {
    let stage = Stage::new();
    let ran = stage.try_script(&["--pids-limit", "20"], "i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done");
    assert_ne!(ran.code, Some(0), "sixty processes were made: {ran}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn vm_a_published_port_answers() {
    let stage = Stage::new();
    let script = "mkdir /tmp/w; echo page > /tmp/w/index.html; exec busybox httpd -f -p 80 -h /tmp/w";
    stage.onggi.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "host:", "sh", "-c", script]);
    let page = onggi_tests::eventually("the page", || {
        http_get(machine::HOST_ADDRESS, 8080, "/").ok().filter(|answer| answer.ends_with("page\n"))
    });
    assert!(page.starts_with("HTTP/1."), "{page}");
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

//! What somebody who comes from Docker does every day, and what he is told when it cannot be.

use crate::Stage;

#[test]
fn e2e_a_frozen_container_is_paused_everywhere_and_exec_says_so() {
    let stage = Stage::new();
    stage.onggi.ok(&["run", "-d", "--name", "ice", "--network", "none", &stage.busybox, "sleep", "100"]);
    stage.onggi.ok(&["cgroup", "freeze", "ice"]);
    let of = |args: &[&str]| stage.onggi.ok(args);
    let status = of(&["ps", "--format", "{{.State}} {{.Status}}"]);
    assert!(status.starts_with("paused Up ") && status.ends_with(" (Paused)"), "{status}");
    let fields = "{{.State.Status}} {{.State.Running}} {{.State.Paused}}";
    assert_eq!(of(&["inspect", "-f", fields, "ice"]), "paused true true");
    assert_eq!(of(&["ps", "-q", "--filter", "status=running"]), "");
    assert_eq!(of(&["ps", "--filter", "status=paused", "--format", "{{.Names}}"]), "ice");
    assert_eq!(of(&["info", "-f", "{{.ContainersRunning}} {{.ContainersPaused}}"]), "0 1");
    let exec = stage.onggi.run(&["exec", "ice", "true"]);
    assert_eq!(exec.code, Some(1), "{exec}");
    assert!(exec.stderr.contains("ice: it is paused") && exec.stderr.contains("hint: "), "{exec}");
    assert!(exec.stderr.contains("onggi cgroup thaw ice"), "{exec}");
    of(&["cgroup", "thaw", "ice"]);
    assert_eq!(of(&["inspect", "-f", fields, "ice"]), "running true false");
    of(&["exec", "ice", "true"]);
    of(&["rm", "-f", "ice"]);
    stage.onggi.assert_nothing_left();
}

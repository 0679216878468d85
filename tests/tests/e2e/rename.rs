//! `rename`: Docker's rules for names, and nothing of a container but its name changes.

use std::process::Stdio;

use onggi_tests::assert_refused;

use crate::Stage;

#[test]
fn e2e_rename_a_running_container_has_the_new_name_everywhere() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "--name", "old", "-p", "8091:80", &stage.busybox, "sleep", "300"]);
    let pid = stage.onggi.ok(&["inspect", "-f", "{{.State.Pid}}", "old"]);
    let words = stage.onggi.ok(&["rename", "--explain", "old", "new"]);
    assert!(words.contains("called new"), "{words}");
    assert_eq!(stage.onggi.ok(&["ps", "--format", "{{.Names}}"]), "old", "nothing was done");
    assert_eq!(stage.onggi.ok(&["rename", "old", "new"]), "", "as Docker, it says nothing");
    assert_eq!(stage.onggi.ok(&["ps", "--format", "{{.Names}}", "--filter", "name=^new$"]), "new");
    assert_eq!(
        stage.onggi.ok(&["inspect", "-f", "{{.Name}} {{.Id}} {{.State.Pid}}", "new"]),
        format!("/new {id} {pid}")
    );
    assert_eq!(stage.onggi.run(&["inspect", "old"]).code, Some(1));
    assert_eq!(stage.onggi.ok(&["exec", "new", "echo", "hi"]), "hi");
    // The name is free again, and the port is said to be the container's that has it.
    let other = stage.onggi.run(&["run", "-d", "--name", "old", "-p", "8091:80", &stage.busybox, "sleep", "300"]);
    assert!(other.code == Some(125) && other.stderr.contains("already used by container new"), "{other}");
    stage.onggi.ok(&["container", "rename", &id[..12], "/again"]);
    stage.onggi.ok(&["restart", "-t", "0", "again"]);
    assert_eq!(stage.onggi.ok(&["ps", "--format", "{{.Names}}"]), "again");
    stage.onggi.ok(&["rm", "-f", "again", "old"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_rename_refuses_names_that_are_taken_wrong_or_its_own() {
    let stage = Stage::new();
    for name in ["one", "two"] {
        stage.onggi.ok(&["create", "--name", name, "--network", "none", &stage.busybox, "true"]);
    }
    let rename = |old: &str, new: &str| stage.onggi.run(&["rename", old, new]);
    assert_refused(&rename("one", "two"), 1, &["two"]);
    assert_refused(&rename("one", "one"), 1, &["one", "already"]);
    assert_refused(&rename("none", "three"), 1, &["none"]);
    for bad in ["", "-x", "a b", "ä", "../x", "x"] {
        assert_refused(&stage.onggi.run(&["rename", "one", "--", bad]), 1, &["invalid container name"]);
    }
    assert_refused(&stage.onggi.run(&["rename", "--explain", "one", "two"]), 1, &["two"]);
    assert_eq!(stage.onggi.ok(&["ps", "-a", "--format", "{{.Names}}"]), "two\none");
    stage.onggi.ok(&["rm", "one", "two"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_rename_of_two_at_a_time_gives_the_name_to_one() {
    let stage = Stage::new();
    for name in ["one", "two"] {
        stage.onggi.ok(&["create", "--name", name, "--network", "none", &stage.busybox, "true"]);
    }
    for _ in 0..10 {
        let start = |old: &str| {
            let mut command = stage.onggi.command(&["rename", old, "both"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start onggi")
        };
        let mut children = ["one", "two"].map(start);
        let codes = children.each_mut().map(|child| child.wait().expect("it ends").code());
        assert!(codes == [Some(0), Some(1)] || codes == [Some(1), Some(0)], "{codes:?}");
        let winner = if codes[0] == Some(0) { "one" } else { "two" };
        stage.onggi.ok(&["rename", "both", winner]);
    }
    stage.onggi.ok(&["rm", "one", "two"]);
    stage.onggi.assert_nothing_left();
}

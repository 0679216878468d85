//! `-v`, `-e` and the engine's own files of /etc, as Docker's test suite expects them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use onggi_tests::machine::sh;

use crate::Stage;

#[test]
fn e2e_a_volume_on_etc_is_below_the_engines_files_and_a_file_of_ones_own_replaces_one() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().join("etc");
    let outside = stage.onggi.dir().join("outside");
    fs::create_dir(&dir).expect("make a directory");
    fs::write(dir.join("own"), "mine\n").expect("write a file");
    fs::write(&outside, "untouched\n").expect("write a file");
    // A link in the volume leads where the container would find it, never to the host's file.
    symlink(&outside, dir.join("hosts")).expect("make a link");
    let volume = format!("{}:/etc", dir.display());
    let show = "cat /etc/own /etc/hostname; grep -c localhost /etc/hosts; test -e /etc/resolv.conf";
    let seen = stage.script(&["-v", &volume, "-h", "web"], show);
    assert_eq!(seen, "mine\nweb\n2");
    assert_eq!(fs::read_to_string(&outside).expect("read"), "untouched\n");
    let made = fs::metadata(dir.join("resolv.conf")).expect("its mount point was made");
    assert_eq!((made.len(), made.permissions().mode() & 0o777), (0, 0o644));

    fs::remove_file(dir.join("hosts")).expect("remove the link");
    let own = format!("{}:/etc/hosts", outside.display());
    let seen = stage.script(&["-v", &own, "-v", &volume, "-h", "web"], "cat /etc/hosts /etc/hostname");
    assert_eq!(seen, "untouched\nweb");

    fs::remove_file(dir.join("hostname")).expect("remove a mount point");
    let ran = stage.onggi.run(&["run", "--rm", "-v", &format!("{volume}:ro"), &stage.busybox, "true"]);
    assert_eq!(ran.code, Some(125), "{ran}");
    assert!(ran.stderr.contains("/etc/hostname") && ran.stderr.contains("hint: make it"), "{ran}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_read_only_root_has_read_only_files_of_etc() {
    let stage = Stage::new();
    let script = "for f in hosts hostname resolv.conf; do (echo x >> /etc/$f) 2> /dev/null && echo $f; done; true";
    assert_eq!(stage.script(&["--read-only"], script), "");
    assert_eq!(stage.script(&[], script), "hosts\nhostname\nresolv.conf");
    let own = stage.onggi.dir().join("hosts");
    fs::write(&own, "").expect("write a file");
    assert_eq!(stage.script(&["--read-only", "-v", &format!("{}:/etc/hosts", own.display())], script), "hosts");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_device_file_that_is_mounted_can_be_opened_and_one_in_a_volume_cannot() {
    let stage = Stage::new();
    let empty = "dd if=/etc/motd count=1 2> /dev/null | wc -c; echo x > /etc/motd && echo written";
    assert_eq!(stage.script(&["-v", "/dev/null:/etc/motd"], empty), "0\nwritten");

    let dir = stage.onggi.dir().join("volume");
    fs::create_dir(&dir).expect("make a directory");
    sh(&format!("mknod -m 666 {0}/null c 1 3; mknod -m 666 {0}/mem c 1 1", dir.display()));
    sh(&format!("cp /bin/busybox {}/id", dir.display()));
    let with = |options: &str, script: &str| {
        let volume = format!("{}:/vol{options}", dir.display());
        stage.script(&["-v", volume.as_str(), "-u", "1000"], &format!("exec 2> /dev/null; {script} || echo refused"))
    };
    assert_eq!(with("", "cat /vol/null"), "refused");
    assert_eq!(with(":dev", "cat /vol/null"), "");
    assert_eq!(with(":dev", "cat /vol/mem"), "refused");
    let nosuid = "grep -c ' /vol .*nosuid' /proc/mounts";
    assert_eq!(with("", nosuid), "1");
    assert_eq!(with(":suid", nosuid), "0\nrefused");
    assert_eq!(with(":exec", "/vol/id -u"), "1000");
    assert_eq!(with(":noexec", "/vol/id -u"), "refused");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_full_host_name_and_its_first_label_are_in_hosts() {
    let stage = Stage::new();
    let script = "hostname; cat /etc/hostname; tail -n 1 /etc/hosts; busybox hostname -f; busybox hostname -s";
    let seen = stage.script(&["-h", "foobar.example.com"], script);
    let full = "foobar.example.com";
    assert_eq!(seen, format!("{full}\n{full}\n127.0.0.1\t{full} foobar\n{full}\nfoobar"));
}

#[test]
fn e2e_a_name_without_a_value_erases_the_images_variable_in_run_exec_and_commit() {
    let stage = Stage::new();
    let dir = stage.onggi.dir();
    let (program, root, runroot) = (stage.onggi.program(), stage.onggi.root(), stage.onggi.runroot());
    stage.onggi.ok(&[
        "run",
        "--name",
        "base",
        "--network",
        "none",
        "-e",
        "FOO=bar",
        "-e",
        "KEPT=1",
        &stage.busybox,
        "true",
    ]);
    stage.onggi.ok(&["commit", "base", "with-foo"]);
    let onggi = format!("env -i {} --root {} --runroot {}", program.display(), root.display(), runroot.display());
    let run = |options: &str| sh(&format!("{onggi} run --rm --network none {options} with-foo /bin/env | sort"));
    let keys = |text: &str| text.lines().filter_map(|l| l.split('=').next()).collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&run("")), "FOO HOME HOSTNAME KEPT PATH");
    assert_eq!(keys(&run("-e FOO -e HOSTNAME")), "HOME KEPT PATH");
    assert_eq!(keys(&run("-e PATH -e HOME -e FOO=2")), "FOO HOME HOSTNAME KEPT");
    std::fs::write(dir.join("env"), "FOO\nOTHER=1\n").expect("write a file");
    assert_eq!(keys(&run(&format!("--env-file {}/env", dir.display()))), "FOO HOME HOSTNAME KEPT OTHER PATH");

    sh(&format!("{onggi} run -d --name web --network none -e KEPT with-foo sleep 100"));
    let exec = sh(&format!("{onggi} exec -e FOO web /bin/env | sort"));
    assert_eq!(keys(&exec), "HOME HOSTNAME PATH");
    stage.onggi.ok(&["commit", "web", "without"]);
    assert_eq!(stage.onggi.ok(&["image", "inspect", "-f", "{{.Config.Env}}", "without"]).matches("KEPT").count(), 0);
    stage.onggi.ok(&["rm", "-f", "web", "base"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_volume_said_twice_is_one_and_two_on_one_target_are_refused() {
    let stage = Stage::new();
    let counted = stage.script(&["-v", "/srv:/srv", "-v", "/srv:/srv/"], "grep -c ' /srv ' /proc/mounts");
    assert_eq!(counted, "1");
    for other in ["/tmp:/srv", "/srv:/srv:ro"] {
        let ran = stage.onggi.run(&["run", "--rm", "-v", "/srv:/srv", "-v", other, &stage.busybox, "true"]);
        assert!(ran.code == Some(125) && ran.stderr.contains("Duplicate mount point: /srv"), "{ran}");
    }
    stage.onggi.assert_nothing_left();
}

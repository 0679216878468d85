//! `--userns auto`: containers of root whose ids are nobody's outside.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use onggi_tests::{
    assert_refused, eventually,
    image::{Compression, Flavour, ImageBuilder, busybox_tree},
    machine::http_get,
    tarball::Tarball,
};

use crate::Stage;

const AUTO: [&str; 4] = ["run", "--rm", "--userns", "auto"];

fn run(stage: &Stage, options: &[&str], script: &str) -> String {
    stage.onggi.ok(&[&AUTO[..], options, &[&stage.busybox, "sh", "-c", script]].concat())
}

/// Host id of the container's root, and how many ids there are.
fn block(map: &str) -> (u32, u32) {
    let fields: Vec<u32> = map.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let [0, start, size] = fields[..] else { panic!("one range from 0 was expected: {map:?}") };
    (start, size)
}

#[test]
fn e2e_root_in_the_container_is_nobody_outside() {
    let stage = Stage::new();
    let id = stage.onggi.ok(&["run", "-d", "--userns", "auto", &stage.busybox, "sleep", "100"]);
    let other = stage.onggi.ok(&["run", "-d", "--userns", "auto", &stage.busybox, "sleep", "100"]);
    let outside = |id: &str| {
        let pid = stage.onggi.ok(&["inspect", "--format", "{{.State.Pid}}", id]);
        let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("read the map");
        assert_eq!(map, fs::read_to_string(format!("/proc/{pid}/gid_map")).expect("read the map"));
        let uid = fs::metadata(format!("/proc/{pid}")).expect("the process lives").uid();
        (block(&map), uid)
    };
    let ((start, size), uid) = outside(&id);
    assert_eq!((uid, size), (start, 65536));
    assert!(start >= 0x6000_0000, "{start}");
    assert_ne!(outside(&other).1, start, "two containers have different ids");
    assert_eq!(stage.onggi.ok(&["inspect", "--format", "{{.HostConfig.UsernsMode}}", &id]), "auto");
    // A second process gets the same ids, and no more capabilities than the first.
    let inside =
        stage.onggi.ok(&["exec", &id, "sh", "-c", "id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status"]);
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!((lines[0], block(lines[1]).0), ("0", start));
    assert_eq!(lines[2], "CapEff:\t00000000800405fb");
    assert_eq!(stage.onggi.ok(&["exec", "-u", "1000", &id, "id", "-u"]), "1000");
    stage.onggi.ok(&["rm", "-f", &id, &other]);
    let host = stage.onggi.ok(&["create", &stage.busybox, "true"]);
    assert_eq!(stage.onggi.ok(&["inspect", "--format", "{{.HostConfig.UsernsMode}}", &host]), "host");
    stage.onggi.ok(&["rm", &host]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_files_of_every_layer_and_of_volumes_keep_their_owners() {
    let stage = Stage::new();
    let above = Tarball::new().directory("data", 0o755).owned_by(1000, 2000).file("data/two", 0o600, b"2");
    let image = ImageBuilder::new(Flavour::Oci)
        .layer(&busybox_tree().finish(), Compression::Gzip)
        .layer(&above.finish(), Compression::Gzip)
        .build();
    let name = stage.registry.serve("layers", "v1", &image);
    let volume = tempfile::tempdir().expect("make a directory");
    fs::write(volume.path().join("theirs"), "x").expect("write a file");
    let of = format!("{}:/v", volume.path().display());
    let script = "stat -c '%u:%g %n' /bin/busybox /data/two /v/theirs /etc/hosts
        touch /new /v/mine; chown 7:8 /v/mine; rm /data/two; cat /etc/hosts > /dev/null && echo read";
    let seen = stage.onggi.ok(&[&AUTO[..], &["-v", &of, &name, "sh", "-c", script]].concat());
    assert_eq!(seen, "0:0 /bin/busybox\n1000:2000 /data/two\n0:0 /v/theirs\n0:0 /etc/hosts\nread");
    let mine = fs::metadata(volume.path().join("mine")).expect("the container made it");
    assert_eq!((mine.uid(), mine.gid()), (7, 8), "what a container writes belongs to the same ids on disk");
    // Written without a user namespace, read with one, and back.
    let kept = stage.onggi.ok(&["create", "--userns", "auto", &name, "sh", "-c", "touch /a; stat -c %u /a /new"]);
    let upper = stage.onggi.root().join("containers").join(&kept).join("upper");
    stage.onggi.run(&["start", "-a", &kept]);
    assert_eq!(fs::metadata(upper.join("a")).expect("the container made it").uid(), 0);
    stage.onggi.ok(&["rm", &kept]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_every_network_works_in_a_user_namespace() {
    let stage = Stage::new();
    let server = "ls /sys/class/net; mkdir -p /www; echo page > /www/x; exec httpd -f -p 80 -u 1000 -h /www";
    let args = ["-d", "--userns", "auto", "-p", "127.0.0.1:8080:80", &stage.busybox, "sh", "-c", server];
    let id = stage.onggi.ok(&[&["run"], &args[..]].concat());
    let answered = || http_get("127.0.0.1", 8080, "/x").is_ok_and(|page| page.ends_with("page\n"));
    eventually("an ordinary user serves port 80", || answered().then_some(()));
    assert_eq!(stage.onggi.ok(&["logs", &id]), "eth0\nlo", "the container sees its own devices, not the host's");
    stage.onggi.ok(&["rm", "-f", &id]);
    let none = run(
        &stage,
        &["--network", "none", "--cap-add", "NET_ADMIN"],
        "ls /sys/class/net; ip link set lo down && echo own",
    );
    assert_eq!(none, "lo\nown");
    assert_eq!(run(&stage, &["--network", "host"], "id -u"), "0");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_init_terminal_host_view_and_read_only_root_work_in_a_user_namespace() {
    let stage = Stage::new();
    assert_eq!(run(&stage, &["--init"], "cat /proc/1/comm"), "onggi-init");
    assert!(run(&stage, &["--read-only"], "touch /x 2>&1; true").contains("Read-only file system"));
    assert_eq!(run(&stage, &["-u", "1000"], "echo text > /dev/stdout; id -u"), "text\n1000");
    let host =
        stage
            .onggi
            .ok(&[&AUTO[..], &["host:", "sh", "-c", "touch /root/new && stat -c %u /root/new /etc/passwd"]].concat());
    assert_eq!(host, "0\n0");
    assert!(!Path::new("/root/new").exists());
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_what_means_nothing_in_a_user_namespace_is_refused() {
    let stage = Stage::new();
    let image = stage.busybox.as_str();
    let refused = stage.onggi.run(&[&AUTO[..], &["--cap-add", "NET_ADMIN", image, "true"]].concat());
    assert_refused(&refused, 125, &["CAP_NET_ADMIN", "bridge"]);
    let refused = stage.onggi.run(&[&AUTO[..], &["-u", "70000", image, "true"]].concat());
    assert_refused(&refused, 125, &["70000"]);
    let refused = stage.onggi.run(&["run", "--userns", "private", image, "true"]);
    assert_refused(&refused, 125, &["private"]);
    let refused = stage.onggi.run(&["run", "--userns", "auto", "--explain=sh", image, "true"]);
    assert_refused(&refused, 125, &["--explain=sh"]);
    let words = stage.onggi.ok(&["run", "--userns", "auto", "--explain", image, "true"]);
    assert!(words.contains("ids mapped to the container's"), "{words}");
    stage.onggi.assert_nothing_left();
}

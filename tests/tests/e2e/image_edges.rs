//! Images at the edges: a pull that is interrupted, a blob that is lost, indexes in indexes, every platform at once, what
//! file systems keep beside content, the other drivers, and many hands on one store.

use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use onggi_tests::{
    Onggi, eventually,
    gate::{Act, Gate},
    image::{self, Blob, Compression, Flavour, ImageBuilder, busybox_tree},
    isolated,
    machine::sh,
    registry::Registry,
    tarball::Tarball,
};
use serde_json::{Value, json};

use crate::Stage;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn e2e_a_pull_that_is_interrupted_at_the_keyboard_goes_on_where_it_was() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    let layer = Tarball::new().file("noise", 0o644, &noise(600_000)).finish();
    let image = ImageBuilder::new(Flavour::Oci).layer(&layer, Compression::Gzip).build();
    registry.push("app", &image);
    let blob = image.layers[0].digest();
    let count = Arc::new(AtomicUsize::new(0));
    let (asked, name) = (Arc::clone(&count), blob.clone());
    let gate = Gate::new(registry.port(), move |request| {
        match request.method == "GET" && request.target.ends_with(&name) {
            true => match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Act::Cut(200_000),
                // The one that goes on; nobody waits for its end.
                1 => Act::Late(Duration::from_secs(60)),
                _ => Act::Forward,
            },
            false => Act::Forward,
        }
    });
    let mut pull = onggi.command(&["pull", &gate.name("app:latest")]);
    let mut pull = pull.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start onggi");
    eventually("the download goes on after the break", || (count.load(Ordering::SeqCst) >= 2).then_some(()));
    let pid = rustix::process::Pid::from_child(&pull);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("interrupt it");
    let status = pull.wait().expect("wait for it");
    assert!(!status.success(), "{status}");
    assert_eq!(onggi.ok(&["images", "-q"]), "", "what was not finished is not there");
    onggi.ok(&["pull", &gate.name("app:latest")]);
    let ranges: Vec<String> =
        gate.seen().iter().map(|a| a.header("range").to_owned()).filter(|r| !r.is_empty()).collect();
    assert_eq!(ranges.last().map(String::as_str), Some("bytes=200000-"), "{ranges:?}");
    assert_eq!(fs::read_dir(onggi.root().join("tmp")).expect("tmp").count(), 0, "nothing is left of it");
    onggi.ok(&["system", "check"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_push_whose_blob_is_lost_says_which_and_what_to_do() {
    let stage = Stage::new();
    let (onggi, registry) = (&stage.onggi, Registry::new());
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let target = format!("{}/app:1", registry.host());
    onggi.ok(&["tag", &stage.busybox, &target]);
    let digest = image::busybox(Flavour::Oci).layers[0].digest();
    fs::remove_file(onggi.root().join("blobs/sha256").join(&digest[7..])).expect("lose the blob");
    let lost = onggi.run(&["push", &target]);
    assert!(lost.code == Some(1) && lost.stderr.contains(&digest[..19]) && lost.stderr.contains("hint:"), "{lost}");
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &target, "echo", "runs"]), "runs", "the layer is there");
    assert_eq!(onggi.run(&["system", "check"]).code, Some(1));
    onggi.ok(&["system", "check", "--repair"]);
    onggi.ok(&["system", "check"]);
    onggi.ok(&["push", &target]);
    onggi.assert_nothing_left();
}

/// An index of two platforms, and one that holds it; the reference of the outer one and its bytes.
fn nested(stage: &Stage) -> (String, Vec<u8>) {
    let entry = |media_type: &str, bytes: &[u8], platform: Option<&str>| {
        let mut entry = json!({ "mediaType": media_type, "digest": image::digest(bytes), "size": bytes.len() });
        if let Some(architecture) = platform {
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        }
        entry
    };
    let mut entries = Vec::new();
    for architecture in ["amd64", "s390x"] {
        let layer = busybox_tree().file(architecture, 0o644, architecture.as_bytes()).finish();
        let built = ImageBuilder::new(Flavour::Oci).architecture(architecture).layer(&layer, Compression::Gzip).build();
        stage.registry.serve("nested", architecture, &built);
        entries.push(entry(&built.manifest.media_type, &built.manifest.bytes, Some(architecture)));
    }
    let route = |selector: &str, bytes: &[u8]| {
        let blob = Blob { media_type: INDEX.to_owned(), bytes: bytes.to_vec() };
        stage.registry.route(&format!("/v2/nested/manifests/{selector}"), blob);
    };
    let index = |manifests: Vec<Value>| {
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into_bytes()
    };
    let inner = index(entries);
    route(&image::digest(&inner), &inner);
    let outer = index(vec![entry(INDEX, &inner, None)]);
    route(&image::digest(&outer), &outer);
    route("latest", &outer);
    (format!("{}:latest", stage.registry.name("nested")), outer)
}

#[test]
fn e2e_an_index_in_an_index_is_pulled_run_and_pushed_whole() {
    let stage = Stage::new();
    let (onggi, registry) = (&stage.onggi, Registry::new());
    let (source, outer) = nested(&stage);
    onggi.ok(&["pull", "-q", "--all-platforms", &source]);
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &source, "cat", "/amd64"]), "amd64");
    let target = format!("{}/nested:1", registry.host());
    onggi.ok(&["tag", &source, &target]);
    onggi.ok(&["push", "--all-platforms", &target]);
    let there = sh(&format!("skopeo inspect --raw --tls-verify=false docker://{target}"));
    assert_eq!(there.as_bytes(), outer, "byte for byte");
    let other = Onggi::new();
    other.ok(&["pull", "-q", "--platform", "linux/s390x", &target]);
    assert_eq!(other.ok(&["image", "inspect", "-f", "{{.Architecture}}", &target]), "s390x");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_copy_all_takes_every_platform_and_copy_the_one_of_this_machine() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let (source, _) = nested(&stage);
    let at = |name: &str| onggi.dir().join(name);
    let from = format!("docker://{source}");
    let layers = |dir: &str| {
        let find = format!(
            "for f in {}/blobs/sha256/*; do gzip -dc < $f 2>/dev/null | tar -t 2>/dev/null || true; done",
            at(dir).display()
        );
        let listed = sh(&find);
        ["amd64", "s390x"].map(|name| listed.lines().any(|line| line == name))
    };
    onggi.ok(&["image", "copy", "--all", &from, &format!("oci:{}:x", at("all").display())]);
    assert_eq!(layers("all"), [true, true]);
    onggi.ok(&["image", "copy", &from, &format!("oci:{}:x", at("one").display())]);
    assert_eq!(layers("one"), [true, false]);
    let registry = Registry::new();
    let target = format!("docker://{}/copied:1", registry.host());
    onggi.ok(&["image", "copy", "--all", &format!("oci:{}:x", at("all").display()), &target]);
    for architecture in ["amd64", "s390x"] {
        let seen = sh(&format!(
            "skopeo inspect --tls-verify=false --override-arch {architecture} --format '{{{{.Architecture}}}}' {target}"
        ));
        assert_eq!(seen.trim(), architecture);
    }
    onggi.assert_nothing_left();
}

/// Gives a file an ACL, a capability with a newline in it and an attribute; makes a sparse one.
const ATTRIBUTES: &str = r#"
import os, struct, sys
top = sys.argv[1]
f = top + "/kept"
open(f, "w").write("x")
os.chown(f, 7, 8)
os.chmod(f, 0o640)
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in
    [(1, 6, 0xffffffff), (2, 4, 1234), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)])
os.setxattr(f, "system.posix_acl_access", acl)
os.setxattr(f, "security.capability", struct.pack("<IIIII", 0x02000001, 0x0a << 8 | 0x0a, 0, 0, 0))
os.setxattr(f, "user.note", b"\x00\xff binary")
os.utime(f, ns=(0, 1_600_000_000_123_456_789))
with open(top + "/sparse", "wb") as s:
    s.seek(3 << 20); s.write(b"middle"); s.truncate(64 << 20)
"#;

/// What the script above set, as text.
const READ: &str = r#"
import os, sys
top = sys.argv[1]
f, s = top + "/kept", os.stat(top + "/sparse")
m = os.stat(f)
print(m.st_uid, m.st_gid, oct(m.st_mode), m.st_mtime_ns)
for name in ["system.posix_acl_access", "security.capability", "user.note"]:
    print(name, os.getxattr(f, name).hex())
h = open(top + "/sparse", "rb"); h.seek(3 << 20)
print(s.st_size, h.read(6), s.st_blocks * 512 < 4 << 20)
"#;

fn python(script: &str, dir: &str) -> String {
    let output = std::process::Command::new("python3").args(["-c", script, dir]).output().expect("start python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn e2e_acls_capabilities_attributes_holes_and_times_survive_commit_save_and_load() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    // A file system that keeps attributes of users, whatever /tmp is on.
    let disk = onggi.dir().join("disk.img");
    sh(&format!(
        "truncate -s 200M {0}; mkfs.ext4 -q {0}; mount -o loop {0} {1}",
        disk.display(),
        onggi.root().display()
    ));
    let id = onggi.ok(&["run", "-d", "--name", "box", "--network", "none", &stage.busybox, "true"]);
    onggi.ok(&["wait", "box"]);
    let upper = onggi.root().join("containers").join(id).join("upper");
    python(ATTRIBUTES, upper.to_str().expect("a name"));
    let wanted = python(READ, upper.to_str().expect("a name"));
    assert!(wanted.contains("1600000000123456789") && wanted.ends_with("67108864 b'middle' True\n"), "{wanted}");
    onggi.ok(&["commit", "box", "kept:1"]);
    let archive = onggi.dir().join("kept.tar");
    onggi.ok(&["save", "-o", archive.to_str().expect("a name"), "kept:1"]);
    let digest = onggi.ok(&["image", "inspect", "-f", "{{.Id}}", "kept:1"]);
    onggi.ok(&["rm", "box"]);
    onggi.ok(&["image", "prune", "-af"]);
    onggi.ok(&["load", "-i", archive.to_str().expect("a name")]);
    assert_eq!(onggi.ok(&["image", "inspect", "-f", "{{.Id}}", "kept:1"]), digest);
    let seen = onggi.ok(&["image", "mount", "kept:1"]);
    assert_eq!(python(READ, &seen), wanted);
    onggi.ok(&["image", "unmount", "kept:1"]);
    onggi.ok(&["rmi", "kept:1"]);
    sh(&format!("umount {}", onggi.root().display()));
    onggi.assert_nothing_left();
}

/// A container changes, deletes and replaces; the image of it has exactly that.
fn commit_with(stage: &Stage, driver: &str) -> String {
    let onggi = &stage.onggi;
    onggi.ok(&["--storage-driver", driver, "pull", "-q", &stage.busybox]);
    let script =
        "rm /etc/group; echo changed > /etc/passwd; rm -r /var; mkdir /var; echo new > /var/new; ln /etc/passwd /link";
    onggi.ok(&["run", "--name", "box", "--network", "none", &stage.busybox, "sh", "-c", script]);
    let changes = onggi.ok(&["diff", "box"]);
    onggi.ok(&["commit", "box", "made:1"]);
    let look = "ls /etc/group 2>/dev/null; cat /etc/passwd /var/new /link; ls /var";
    assert_eq!(
        onggi.ok(&["run", "--rm", "--network", "none", "made:1", "sh", "-c", look]),
        "changed\nnew\nchanged\nnew"
    );
    assert_eq!(onggi.ok(&["diff", "made:1", "box"]), "", "the image has what the container has");
    onggi.ok(&["system", "check"]);
    onggi.ok(&["rm", "box"]);
    onggi.ok(&["image", "prune", "-af"]);
    changes
}

#[test]
fn e2e_commit_holds_the_same_with_every_driver() {
    let stage = Stage::new();
    let overlay = commit_with(&stage, "overlay");
    for (driver, mkfs) in [("vfs", "mkfs.ext4 -q"), ("btrfs", "mkfs.btrfs -q")] {
        let root = stage.onggi.root();
        let image = stage.onggi.dir().join("disk.img");
        sh(&format!(
            "rm -f {0}; truncate -s 300M {0}; {mkfs} {0}; mount -o loop {0} {1}",
            image.display(),
            root.display()
        ));
        assert_eq!(commit_with(&stage, driver), overlay, "{driver}");
        sh(&format!("umount {}", root.display()));
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_pulls_removals_and_prunes_at_once_leave_a_sound_store() {
    let stage = Stage::new();
    let names: Vec<String> = (0..3)
        .map(|number| {
            let own = Tarball::new().file(&format!("own{number}"), 0o644, &noise(20_000 + number)).finish();
            let builder = ImageBuilder::new(Flavour::Oci).layer(&busybox_tree().finish(), Compression::Gzip);
            stage.registry.serve(&format!("image{number}"), "latest", &builder.layer(&own, Compression::Gzip).build())
        })
        .collect();
    let fine = ["no such image", "No such image", "is not stored", "not found", "has several names"];
    let round = |at: usize| {
        for turn in 0..4 {
            let name = names[(at + turn) % names.len()].as_str();
            let ran = match (at + turn) % 4 {
                0 | 1 => stage.onggi.run(&["pull", "-q", name]),
                2 => stage.onggi.run(&["rmi", name]),
                _ => stage.onggi.run(&["image", "prune", "-af"]),
            };
            assert!(!ran.stderr.contains("panicked"), "{ran}");
            assert!(ran.code == Some(0) || fine.iter().any(|text| ran.stderr.contains(text)), "{ran}");
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|at| scope.spawn(move || round(at))).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("no worker panics"));
    });
    let check = stage.onggi.run(&["system", "check"]);
    assert_eq!(check.code, Some(0), "{check}");
    for name in &names {
        stage.onggi.ok(&["pull", "-q", name]);
        assert_eq!(stage.onggi.ok(&["run", "--rm", "--network", "none", name, "echo", "runs"]), "runs");
    }
    stage.onggi.ok(&["image", "prune", "-af"]);
    let left = sh(&format!("find {0}/layers {0}/tmp {0}/blobs/sha256 -mindepth 1", stage.onggi.root().display()));
    assert_eq!(left, "");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_manifest_inside_an_index_belongs_to_the_image_and_is_never_made_up() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let (name, _) = nested(&stage);
    onggi.ok(&["pull", "-q", &name]);
    let dir = onggi.dir().join("copy");
    let copy = format!("dir:{}", dir.display());
    onggi.ok(&["image", "copy", "-q", &name, &copy]);
    let own = sh(&format!("sha256sum < {}/manifest.json", dir.display()));
    let blob = onggi.root().join("blobs/sha256").join(&own[..64]);
    assert!(blob.is_file(), "the manifest of the image itself, not another");
    for damage in ["rm", "truncate -s 10"] {
        sh(&format!("rm -rf {}; {damage} {}", dir.display(), blob.display()));
        let check = onggi.run(&["system", "check"]);
        assert!(check.code == Some(1) && check.stdout.contains(&format!(": blob sha256:{}", &own[..64])), "{check}");
        let archive = format!("{}", onggi.dir().join("saved.tar").display());
        for verb in [
            vec!["image", "copy", &name, &copy],
            vec!["save", "--format", "oci-archive", "-o", &archive, &name],
            vec!["push", &name],
        ] {
            let lost = onggi.run(&verb);
            let says = lost.stderr.contains(&own[..64]) && lost.stderr.contains("system check --repair");
            assert!(lost.code == Some(1) && says, "{lost}");
        }
        let before = stage.registry.asked().len();
        let repaired = onggi.run(&["system", "check", "--repair"]);
        assert_eq!(repaired.code, Some(0), "{repaired}");
        let asked = stage.registry.asked().split_off(before);
        assert!(asked.iter().any(|path| path.ends_with(&own[..64])), "fetched by its digest: {asked:?}");
        onggi.ok(&["system", "check"]);
        onggi.ok(&["image", "copy", "-q", &name, &copy]);
    }
    onggi.assert_nothing_left();
}

#[test]
fn e2e_an_image_whose_manifest_carries_a_blob_that_is_missing_is_pulled_and_copied() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let built = image::busybox(Flavour::Oci);
    stage.registry.serve("carried", "whole", &built);
    fs::write(onggi.dir().join("config"), &built.config.bytes).expect("write the configuration");
    let data = sh(&format!("base64 -w0 {}/config", onggi.dir().display()));
    let mut manifest: Value = serde_json::from_slice(&built.manifest.bytes).expect("a manifest");
    manifest["config"]["data"] = json!(data.trim());
    let manifest = Blob { media_type: built.manifest.media_type.clone(), bytes: manifest.to_string().into_bytes() };
    stage.registry.route("/v2/carried/manifests/latest", manifest.clone());
    stage.registry.route(&format!("/v2/carried/manifests/{}", manifest.digest()), manifest.clone());
    stage.registry.break_answers(&built.config.digest(), onggi_tests::fake_registry::Fault::WrongContent);
    let name = format!("{}:latest", stage.registry.name("carried"));
    let dir = format!("dir:{}", onggi.dir().join("copy").display());
    assert_eq!(onggi.ok(&["image", "copy", &format!("docker://{name}"), &dir]), manifest.digest());
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &name, "echo", "runs"]), "runs");
    onggi.ok(&["system", "check"]);
    onggi.assert_nothing_left();
}

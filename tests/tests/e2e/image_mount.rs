//! `image mount`: an image's files without a container.

use std::{fs, path::Path, process::Command};

use onggi_tests::{
    Onggi,
    image::{Compression, Flavour, ImageBuilder, busybox_tree},
    machine::sh,
    tarball::Tarball,
};

use crate::Stage;

/// A layer that deletes and changes something of the one below.
fn serve_changed(stage: &Stage) -> String {
    let top = Tarball::new().file("etc/.wh.group", 0o644, b"").file("etc/passwd", 0o644, b"changed\n").finish();
    let image = ImageBuilder::new(Flavour::Oci)
        .layer(&busybox_tree().finish(), Compression::Gzip)
        .layer(&top, Compression::Gzip)
        .build();
    stage.registry.serve("changed", "latest", &image)
}

fn mounted(onggi: &Onggi) -> String {
    onggi.ok(&["image", "mounts", "--format", "{{.Repositories}} {{.Users}} {{.Mountpoint}}"])
}

#[test]
fn e2e_a_mounted_image_shows_its_files_read_only_until_its_last_user_is_gone() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let image = serve_changed(&stage);
    onggi.ok(&["pull", &image]);
    let path = onggi.ok(&["image", "mount", &image]);
    assert_eq!(fs::read_to_string(format!("{path}/etc/passwd")).expect("a file of the top layer"), "changed\n");
    assert!(!Path::new(&format!("{path}/etc/group")).exists(), "what a layer deletes is not shown");
    assert!(Path::new(&format!("{path}/bin/busybox")).exists(), "a file of the layer below");
    assert!(fs::write(format!("{path}/new"), "x").is_err_and(|e| e.kind() == std::io::ErrorKind::ReadOnlyFilesystem));
    let options = sh(&format!("findmnt -no OPTIONS {path}"));
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    // Another process mounts it again: one mount, two users.
    assert_eq!(onggi.ok(&["image", "mount", &image]), path);
    assert!(mounted(onggi).ends_with(&format!("changed:latest 2 {path}")), "{}", mounted(onggi));
    for args in [&["rmi", &image][..], &["rmi", &image, "extra"]] {
        let refused = onggi.run(args);
        assert!(refused.code != Some(0) && refused.stderr.contains("mounted on"), "{refused}");
        assert!(refused.stderr.contains("hint: onggi image unmount"), "{refused}");
    }
    onggi.ok(&["image", "prune", "-af"]);
    assert_eq!(onggi.ok(&["images", "-q"]).lines().count(), 1, "prune keeps what is mounted");
    let id = onggi.ok(&["image", "unmount", &image]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert!(Path::new(&format!("{path}/bin/busybox")).exists(), "its other user still has it");
    onggi.ok(&["image", "umount", &path]);
    assert!(!Path::new(&path).exists() && mounted(onggi).is_empty());
    let again = onggi.run(&["image", "unmount", &image]);
    assert!(again.code != Some(0) && again.stderr.contains("not mounted"), "{again}");
    onggi.ok(&["rmi", &image]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_an_image_is_mounted_on_a_directory_of_ones_own_and_a_busy_one_stays() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    let dir = onggi.dir().join("view");
    let text = dir.to_str().expect("a name");
    let missing = onggi.run(&["image", "mount", &stage.busybox, text]);
    assert!(missing.code != Some(0) && missing.stderr.contains("hint: make the directory first"), "{missing}");
    fs::create_dir(&dir).expect("make the directory");
    assert_eq!(onggi.ok(&["image", "mount", &stage.busybox, text]), text);
    let twice = onggi.run(&["image", "mount", &stage.busybox, text]);
    assert!(twice.code != Some(0) && twice.stderr.contains("mounted there already"), "{twice}");
    let own = onggi.ok(&["image", "mount", &stage.busybox]);
    assert_eq!(mounted(onggi).lines().count(), 2);
    let mut user = Command::new("sleep").arg("1000").current_dir(&dir).spawn().expect("start sleep");
    let busy = onggi.run(&["image", "unmount", text]);
    assert!(busy.code != Some(0) && busy.stderr.contains("--force"), "{busy}");
    onggi.ok(&["image", "unmount", "--force", text]);
    assert!(fs::read_dir(&dir).expect("the directory stays").next().is_none());
    user.kill().and_then(|()| user.wait()).expect("end sleep");
    assert!(Path::new(&own).join("bin").exists());
    // Force takes the views along with the image.
    onggi.ok(&["rmi", "-f", &stage.busybox]);
    assert_eq!(mounted(onggi), "");
    assert_eq!(sh(&format!("ls {}/layers", onggi.root().display())), "");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_what_mount_explains_as_a_script_does_the_same_by_hand() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    let words = onggi.ok(&["image", "mount", "--explain", &stage.busybox]);
    assert!(words.contains("read-only tree") && mounted(onggi).is_empty(), "{words}");
    let json = onggi.ok(&["image", "mount", "--explain=json", &stage.busybox]);
    assert!(json.contains("\"op\": \"overlay\"") && json.contains("layers/"), "{json}");
    let script = onggi.ok(&["image", "mount", "--explain=sh", &stage.busybox]);
    sh(&script);
    let target = script.split_whitespace().last().expect("the script ends with the place").to_owned();
    let by_hand = sh(&format!("cd {target}; find . | sort; findmnt -no VFS-OPTIONS ."));
    sh(&format!("umount {target}"));
    onggi.ok(&["image", "mount", &stage.busybox]);
    assert_eq!(sh(&format!("cd {target}; find . | sort; findmnt -no VFS-OPTIONS .")), by_hand);
    let undo = onggi.ok(&["image", "unmount", "--explain=sh", &stage.busybox]);
    sh(&undo);
    // What others unmounted is gone from the list; check names it, prune forgets it.
    assert_eq!(mounted(onggi), "");
    let check = onggi.run(&["system", "check"]);
    assert!(check.code == Some(0) && check.stdout.contains("gone: mount of image"), "{check}");
    onggi.ok(&["image", "prune", "-f"]);
    assert!(!onggi.ok(&["system", "check"]).contains("gone:"));
    onggi.ok(&["rmi", &stage.busybox]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_mount_of_another_mount_namespace_protects_the_image_while_that_lives() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    let script = format!(
        "{} --root {} --runroot {} image mount {} >&2; echo ready; read line",
        onggi.program().display(),
        onggi.root().display(),
        onggi.runroot().display(),
        stage.busybox
    );
    let mut other = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start unshare");
    let mut line = String::new();
    let stdout = other.stdout.take().expect("stdout is a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("read");
    assert_eq!(line, "ready\n");
    assert_eq!(onggi.ok(&["image", "mounts", "--format", "{{.Here}}"]), "false");
    for args in [&["rmi", "-f", &stage.busybox][..], &["image", "unmount", &stage.busybox]] {
        let refused = onggi.run(args);
        assert!(refused.code != Some(0), "{refused}");
    }
    drop(other.stdin.take());
    other.wait().expect("wait for unshare");
    assert_eq!(onggi.ok(&["image", "mounts", "-q"]), "");
    onggi.ok(&["rmi", &stage.busybox]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_without_root_an_image_is_mounted_in_a_namespace_of_ones_own() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    // nobody's store.
    let layout = onggi.dir().join("layout");
    onggi_tests::image::busybox(Flavour::Oci).write_layout(&layout);
    sh(&format!("mkdir {0}/user; chown -R 65534 {0}/user {0}/layout; chmod 711 {0}", onggi.dir().display()));
    let base =
        format!("{} --root {1}/user/root --runroot {1}/user/run", onggi.program().display(), onggi.dir().display());
    let user = |command: &str| {
        sh(&format!(
            "cd /; HOME={}/user setpriv --reuid 65534 --regid 65534 --clear-groups {command}",
            onggi.dir().display()
        ))
    };
    user(&format!("{base} load -i {}", layout.display()));
    let id = user(&format!("{base} images -q")).trim().to_owned();
    let refused = user(&format!("{base} image mount {id} 2>&1 || true"));
    assert!(refused.contains("hint: open a shell") && refused.contains("ns run --map-root-user --mount"), "{refused}");
    let inside = format!("at=$({base} image mount {id}); ls $at/bin/busybox; {base} image unmount {id}");
    let seen = user(&format!("{} ns run --map-root-user --mount sh -c '{inside}'", onggi.program().display()));
    assert!(seen.contains("/bin/busybox\nsha256:"), "{seen}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_the_driver_vfs_shows_an_image_by_a_bind_mount() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let image = serve_changed(&stage);
    onggi.ok(&["--storage-driver", "vfs", "pull", &image]);
    let path = onggi.ok(&["image", "mount", &image]);
    assert_eq!(fs::read_to_string(format!("{path}/etc/passwd")).expect("a file"), "changed\n");
    assert!(!Path::new(&format!("{path}/etc/group")).exists());
    assert!(fs::write(format!("{path}/new"), "x").is_err());
    onggi.ok(&["image", "unmount", "--all"]);
    assert_eq!(mounted(onggi), "");
    onggi.ok(&["rmi", &image]);
    onggi.assert_nothing_left();
}

//! `cp` with a container that works against it: what is copied is the container's, and the host stays as it is.

use std::{fs, path::Path};

use onggi_tests::{Onggi, image::busybox_tree, isolated};

use crate::archives::{look, sentinel};

/// Copies in each direction while a name is exchanged.
const COPIES: usize = 150;

/// A store with a container `box` that sleeps, and a file of this machine that says `copied`.
fn stage(options: &[&str]) -> (Onggi, String) {
    isolated();
    let onggi = Onggi::new();
    let tree = onggi.dir().join("tree.tar");
    fs::write(&tree, busybox_tree().finish()).expect("write an archive");
    onggi.ok(&["import", tree.to_str().expect("a name"), "box:1"]);
    let run = ["run", "-d", "--name", "box", "--network", "none"];
    onggi.ok(&[&run[..], options, &["box:1", "sleep", "1000"]].concat());
    let file = onggi.dir().join("file");
    fs::write(&file, "copied").expect("write");
    (onggi, file.display().to_string())
}

fn inside(onggi: &Onggi, script: &str) -> String {
    onggi.ok(&["exec", "box", "sh", "-c", script])
}

fn end(onggi: &Onggi) {
    onggi.ok(&["rm", "-f", "box"]);
    onggi.assert_nothing_left();
}

fn copied(onggi: &Onggi, from: &str, to: &str) -> bool {
    onggi.run(&["cp", from, to]).code == Some(0)
}

/// The file that a copy out of the container makes here, if it made one.
fn taken(onggi: &Onggi, from: &str) -> Option<String> {
    let out = onggi.dir().join("out");
    let _ = fs::remove_file(&out);
    let done = onggi.run(&["cp", "-L", from, &out.display().to_string()]).code == Some(0);
    done.then(|| fs::read_to_string(&out).expect("it was copied"))
}

#[test]
fn root_cve_2018_15664_2026_41568_2026_42306_a_name_that_is_exchanged_leads_nowhere_else() {
    let (onggi, file) = stage(&[]);
    let aim = sentinel();
    let before = look(aim.path());
    let at = aim.path().display().to_string();
    // Inside, the same path leads to a directory of the container, and the link in its place to where the host's is.
    let swap = format!(
        "mkdir -p {at}; echo inside > {at}/file; touch /ready; while :; do mv {at} {at}-; ln -s ../../../../../..{at} {at}; \
         rm {at}; mv {at}- {at}; done"
    );
    onggi.ok(&["exec", "-d", "box", "sh", "-c", &swap]);
    onggi_tests::eventually("it swaps", || {
        (onggi.run(&["exec", "box", "test", "-e", "/ready"]).code == Some(0)).then_some(())
    });
    let (mut read, mut written) = (0, 0);
    for _ in 0..COPIES {
        if let Some(text) = taken(&onggi, &format!("box:{at}/file")) {
            assert!(text == "inside\n" || text == "copied", "{text:?} is not the container's");
            read += 1;
        }
        written += usize::from(copied(&onggi, &file, &format!("box:{at}/file")));
        copied(&onggi, &file, &format!("box:{at}/new"));
    }
    assert!(read > 0 && written > 0, "the container won every time: {read} read, {written} written");
    assert_eq!(look(aim.path()), before);
    end(&onggi);
}

#[test]
fn root_cve_2018_15664_2026_41568_2026_42306_volumes_of_a_stopped_container_are_mounted_in_its_root() {
    let volume = tempfile::tempdir().expect("make a directory");
    fs::write(volume.path().join("given"), "given").expect("write");
    let (onggi, file) = stage(&["-v", &format!("{}:/a/data", volume.path().display())]);
    let aim = sentinel();
    let before = look(aim.path());
    let at = aim.path().display();
    // The place of the volume is what the next mount of it would follow.
    inside(
        &onggi,
        &format!("mkdir /b; ln -s {at} /b/abs; ln -s ../../../../../../../..{at} /b/rel; ln -s {at}/made /b/made"),
    );
    onggi.ok(&["stop", "-t", "0", "box"]);
    let upper = onggi.ok(&["inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "box"]);
    fs::remove_dir_all(Path::new(&upper).join("a")).expect("the place of the volume goes");
    std::os::unix::fs::symlink(aim.path(), Path::new(&upper).join("a")).expect("a link is in its place");
    for path in ["/b/abs/x", "/b/rel/x", "/b/made"] {
        copied(&onggi, &file, &format!("box:{path}"));
        let text = taken(&onggi, &format!("box:{path}"));
        assert!(text.as_deref().is_none_or(|text| text == "copied"), "{path}: {text:?}");
    }
    assert!(copied(&onggi, &file, "box:/ok"));
    assert_eq!(look(aim.path()), before);
    assert!(!mounts().contains(&onggi.root().display().to_string()), "something stays mounted");
    end(&onggi);
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("read")
}

#[test]
fn root_cve_2019_14271_no_library_of_the_container_is_loaded() {
    let (onggi, file) = stage(&[]);
    let script = "for d in /lib /usr/lib /lib64 /lib/x86_64-linux-gnu; do mkdir -p $d; for l in nss_files nss_compat c dl; do \
                  for v in 2 6; do echo '#!/bin/sh' > $d/lib$l.so.$v; done; done; done; \
                  mkdir -p /etc; echo 'passwd: evil' > /etc/nsswitch.conf; echo /evil > /etc/ld.so.preload; echo x > /x";
    inside(&onggi, script);
    for round in 0..2 {
        for archive in [&[][..], &["-a"]] {
            for (from, to) in [(file.as_str(), "box:/y"), ("box:/x", "out")] {
                let to = if to == "out" { onggi.dir().join("out").display().to_string() } else { to.to_owned() };
                let ran = onggi.run(&[&["cp"], archive, &[from, &to]].concat());
                assert_eq!(ran.code, Some(0), "{round}: {ran}");
            }
        }
        onggi.ok(&["stop", "-t", "0", "box"]);
    }
    end(&onggi);
}

#[test]
fn root_cve_2018_15664_2019_14271_2026_41568_2026_42306_benign_links_inside_are_followed() {
    let volume = tempfile::tempdir().expect("make a directory");
    fs::write(volume.path().join("given"), "given").expect("write");
    let (onggi, file) = stage(&["-v", &format!("{}:/a/data", volume.path().display())]);
    inside(
        &onggi,
        "mkdir /real; echo real > /real/x; ln -s /real /abs; ln -s real /rel; ln -s /abs/made /made; mv /bin/busybox /busybox; cp /busybox /bin/busybox",
    );
    for round in ["running", "stopped"] {
        for path in ["/abs/x", "/rel/x"] {
            assert_eq!(taken(&onggi, &format!("box:{path}")).as_deref(), Some("real\n"), "{round} {path}");
        }
        assert_eq!(taken(&onggi, "box:/a/data/given").as_deref(), Some("given"), "{round}");
        assert!(copied(&onggi, &file, "box:/made"), "{round}");
        assert_eq!(taken(&onggi, "box:/real/made").as_deref(), Some("copied"), "{round}");
        assert!(
            copied(&onggi, &file, &format!("box:/a/data/{round}")) && volume.path().join(round).exists(),
            "{round}"
        );
        onggi.ok(&["stop", "-t", "0", "box"]);
    }
    end(&onggi);
}

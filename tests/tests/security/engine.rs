//! What the engine itself does in a container's files: none of it leaves them, whatever image and container put there.

use std::path::Path;

use onggi_tests::{Onggi, Ran, image::busybox_tree, isolated, tarball::Tarball};

use crate::archives::{look, sentinel};

/// Exit code of a script that found itself where it must not be.
const ESCAPED: i32 = 42;

/// An image `box:1` of busybox and what `more` adds.
fn image(onggi: &Onggi, more: impl FnOnce(Tarball) -> Tarball) {
    let tree = onggi.dir().join("tree.tar");
    std::fs::write(&tree, more(busybox_tree()).finish()).expect("write an archive");
    onggi.ok(&["import", tree.to_str().expect("a name"), "box:1"]);
}

/// A directory of the host that a container is given.
fn volume(onggi: &Onggi) -> String {
    let dir = onggi.dir().join("volume");
    std::fs::create_dir(&dir).expect("make a directory");
    std::fs::write(dir.join("file"), "of the volume\n").expect("fill it");
    dir.display().to_string()
}

/// `run` with a volume at `at` and the working directory `cwd`, then the same container again.
fn twice(onggi: &Onggi, (at, cwd): (&str, &str), script: &str) -> [Ran; 2] {
    let mount = format!("{}:{at}", volume(onggi));
    let flags = ["run", "--name", "box", "--network", "none", "-v", &mount, "-w", cwd, "box:1", "sh", "-c", script];
    let first = onggi.run(&flags);
    let again = onggi.run(&["start", "-a", "box"]);
    onggi.ok(&["rm", "box"]);
    [first, again]
}

#[test]
fn root_cve_2015_3627_2015_3629_2015_3630_2015_3631_a_restart_trusts_nothing_that_the_container_left() {
    isolated();
    let onggi = Onggi::new();
    let aim = sentinel();
    let before = look(aim.path());
    image(&onggi, |tree| tree);
    let out = aim.path().display();
    let script = format!(
        "if test -e /ran; then test -e /a/old && exit {ESCAPED}; echo x > /a/data/new; echo x > new; exit 0; fi
         touch /ran; cat /a/data/file; cd /; mv /a /old-a; mv /w /old-w; ln -s {out} /a; ln -s {out} /w"
    );
    let [first, again] = twice(&onggi, ("/a/data", "/w/dir"), &script);
    assert_eq!((first.code, first.stdout.trim()), (Some(0), "of the volume"), "{first}");
    assert_ne!(again.code, Some(ESCAPED), "{again}");
    assert_eq!(look(aim.path()), before, "{again}");
    assert_eq!(std::fs::read_dir(aim.path()).expect("list it").count(), 2);
}

#[test]
fn root_cve_2015_3627_2015_3629_2015_3630_2015_3631_benign_a_restart_follows_links_inside() {
    isolated();
    let onggi = Onggi::new();
    image(&onggi, |tree| tree);
    let script = "if test -e /ran; then pwd; cat /a/data/file /new-a/data/file; exit 0; fi
         touch /ran; cd /; mv /a /new-a; mv /w /new-w; ln -s /new-a /a; ln -s new-w /w";
    let [first, again] = twice(&onggi, ("/a/data", "/w/dir"), script);
    assert_eq!(first.code, Some(0), "{first}");
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "/new-w/dir\nof the volume\nof the volume\n"), "{again}");
}

/// Every verb that makes or reads something in a container whose image has a link at `link`.
fn touch_everything(onggi: &Onggi, link: &str, secret: &Path) {
    let mount = format!("{}:{link}/volume", volume(onggi));
    let file = format!("{}/file:{link}/old", onggi.dir().join("volume").display());
    let cwd = format!("{link}/made/here");
    let script = format!("test -e {link}/secret && exit {ESCAPED}; echo x > {link}/new; exit 0");
    for flags in [&["-w", cwd.as_str()][..], &["-v", &mount], &["-v", &file], &[]] {
        let fixed = ["run", "--name", "box", "--network", "none"];
        let ran = onggi.run(&[&fixed, flags, &["box:1", "sh", "-c", &script]].concat());
        assert_ne!(ran.code, Some(ESCAPED), "{flags:?}: {ran}");
        onggi.run(&["diff", "box"]);
        let tar = onggi.dir().join("export.tar");
        onggi.run(&["export", "-o", tar.to_str().expect("a name"), "box"]);
        let exported = std::fs::read(&tar).unwrap_or_default();
        let text = std::fs::read(secret).expect("read the secret");
        assert!(!exported.windows(text.len()).any(|w| w == text), "{flags:?}: the host's file is in the export");
        onggi.run(&["commit", "box", "copy:1"]);
        onggi.run(&["rm", "-f", "box"]);
    }
    std::fs::remove_dir_all(onggi.dir().join("volume")).expect("remove it");
}

#[test]
fn root_cve_2026_55686_2019_10152_2019_18466_2023_0778_2025_9566_nothing_is_written_or_read_through_links() {
    isolated();
    let onggi = Onggi::new();
    let aim = sentinel();
    let secret = aim.path().join("secret");
    std::fs::write(&secret, "known to the host alone 5b1f").expect("write a file");
    let before = look(aim.path());
    let out = aim.path().display();
    image(&onggi, |tree| {
        let up = format!("../../../../../../../..{out}");
        tree.symlink("absolute", &out.to_string()).symlink("relative", &up).symlink("chain", "relative")
    });
    for link in ["/absolute", "/chain"] {
        touch_everything(&onggi, link, &secret);
        assert_eq!(look(aim.path()), before, "{link}");
        assert_eq!(std::fs::read_dir(aim.path()).expect("list it").count(), 3, "{link}");
    }
    onggi.assert_nothing_left();
}

#[test]
fn root_cve_2026_55686_2019_10152_2019_18466_2023_0778_2025_9566_benign_links_inside_are_followed() {
    isolated();
    let onggi = Onggi::new();
    image(&onggi, |tree| tree.directory("srv/", 0o755).symlink("in", "/srv").symlink("also", "in"));
    let mount = format!("{}:/also/volume", volume(&onggi));
    let fixed = ["run", "--name", "box", "--network", "none", "-w", "/in/made/here", "-v", &mount];
    let ran = onggi
        .run(&[&fixed[..], &["box:1", "sh", "-c", "pwd; cat /srv/volume/file; ls /srv; echo x > /in/new"]].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "/srv/made/here\nof the volume\nmade\nvolume\n"), "{ran}");
    let diff = onggi.ok(&["diff", "box"]);
    assert!(diff.lines().any(|l| l == "A /srv/new") && diff.lines().any(|l| l == "A /srv/made/here"), "{diff}");
    onggi.ok(&["rm", "box"]);
    onggi.assert_nothing_left();
}

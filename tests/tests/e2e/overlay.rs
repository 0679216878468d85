//! `overlay …`: beside mount(8), the tar that an engine loads, and sha256sum.

use onggi_tests::machine::sh;

use crate::Stage;

/// A directory on a filesystem of its own: the host's own may be an overlay.
fn ground(stage: &Stage) -> String {
    let dir = stage.onggi.dir().join("ground").display().to_string();
    sh(&format!("mkdir {dir}; mount -t tmpfs tmpfs {dir}"));
    dir
}

#[test]
fn e2e_overlays_are_mounted_as_mount_does_with_names_that_it_cannot() {
    let stage = Stage::new();
    let dir = ground(&stage);
    sh(&format!(
        "cd {dir}; mkdir a b 'c:d,e\\f' ours theirs; echo a > a/x; echo b > b/x; echo b > b/y; echo c > 'c:d,e\\f/z'"
    ));
    let at = |name: &str| format!("{dir}/{name}");
    let (upper, odd) = (at("up"), at("c:d,e\\f"));
    let arguments = ["--lower", &at("a"), "--lower", &at("b"), "--lower", &odd, "--upper", &upper, &at("ours")];
    let mount = |how: &[&str]| stage.onggi.ok(&[&["overlay", "mount"], how, &arguments].concat());
    let words = mount(&["--explain"]);
    assert!(words.contains("mount(2) an overlay on") && words.contains("up.work"), "{words}");
    assert_eq!(sh(&format!("ls {dir}")).trim(), "a\nb\nc:d,e\\f\nours\ntheirs", "nothing is done");
    let script = mount(&["--explain=sh"]).replace("/ours", "/theirs").replace("/up", "/up2");
    for _ in 0..2 {
        mount(&[]);
    }
    assert_eq!(sh(&format!("findmnt -rno TARGET -t overlay | grep -c {dir}")).trim(), "1", "safe to repeat");
    assert_eq!(sh(&format!("cd {dir}/ours; cat x y z")), "a\nb\nc\n");
    let layers = stage.onggi.ok(&["overlay", "layers", &at("ours"), "--format", "json"]);
    let layers: serde_json::Value = serde_json::from_str(&layers).expect("it is JSON");
    assert_eq!(layers["LowerDir"], serde_json::json!([at("a"), at("b"), odd]));
    assert_eq!(layers["UpperDir"], serde_json::json!(upper));
    for _ in 0..2 {
        stage.onggi.ok(&["overlay", "unmount", &at("ours")]);
    }
    sh(&script);
    assert_eq!(sh(&format!("cd {dir}/theirs; cat x y z; stat -c %a {dir}/up2")), "a\nb\nc\n755\n", "{script}");
    stage.onggi.ok(&["overlay", "unmount", &at("theirs")]);
    let many: Vec<String> = (0..300).map(|n| at(&format!("layer-with-a-long-name-{n}"))).collect();
    sh(&format!("mkdir {}; echo deep > {}/deep", many.join(" "), many[299]));
    let lower: Vec<&str> = many.iter().flat_map(|dir| ["--lower", dir.as_str()]).collect();
    stage.onggi.ok(&[&["overlay", "mount"], &lower[..], &[&at("ours")]].concat());
    assert_eq!(sh(&format!("cat {dir}/ours/deep; touch {dir}/ours/x 2>&1 || true")).lines().next(), Some("deep"));
    let plain = stage.onggi.run(&["overlay", "diff", &at("ours")]);
    assert!(plain.code == Some(0) && plain.stderr.contains("no upper directory"), "{plain}");
    stage.onggi.ok(&["overlay", "unmount", &at("ours")]);
    sh(&format!("umount {dir}"));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_overlays_that_cannot_be_say_why() {
    let stage = Stage::new();
    let dir = ground(&stage);
    sh(&format!("cd {dir}; mkdir a b m n over other; : > file; mount -t tmpfs tmpfs other; mkdir other/w"));
    let at = |name: &str| format!("{dir}/{name}");
    let (a, b, m) = (at("a"), at("b"), at("m"));
    let refuse = |arguments: &[&str], part: &str| {
        let refused = stage.onggi.run(&[&["overlay", "mount"], arguments].concat());
        assert!(
            refused.code == Some(1) && refused.stderr.contains(part) && refused.stderr.contains("hint:"),
            "{refused}"
        );
    };
    refuse(&["-l", &a, &m], "one lower directory alone");
    refuse(&["-l", &at("none"), "-l", &b, &m], "none is not there");
    refuse(&["-l", &at("file"), "-l", &b, &m], "file is no directory");
    refuse(&["-l", &a, "-u", &at("up"), "-w", &at("other/w"), &m], "are on different filesystems");
    refuse(&["-l", &a, "-u", &at("up"), "-w", &at("up/work"), &m], "lie in each other");
    refuse(&["-l", &a, "-l", &b, &at("file")], "file is no directory");
    stage.onggi.ok(&["overlay", "mount", "-l", &a, "-u", &at("up"), &m]);
    refuse(&["-l", &b, "-u", &at("up"), &at("n")], "belongs to the overlay on");
    refuse(&["-l", &b, "-u", &at("up2"), &m], "another overlay is mounted");
    refuse(&["-l", &a, "-u", &at("m/up"), &at("n")], "on an overlay itself");
    refuse(&["-l", &a, "-u", &at("up2"), "-o", "no_such=1", &at("n")], "no_such");
    let script = format!("cd {m}; exec {} overlay unmount {m}", stage.onggi.program().display());
    let busy = sh(&format!("( {script} ) 2>&1 || true"));
    assert!(busy.contains("is in use by process"), "{busy}");
    let other = stage.onggi.run(&["overlay", "unmount", &at("other")]);
    assert!(other.stderr.contains("is a mount of tmpfs, no overlay"), "{other}");
    stage.onggi.ok(&["overlay", "unmount", "--lazy", &m]);
    sh(&format!("umount {dir}/other {dir}"));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_an_overlays_changes_are_named_and_become_a_layer() {
    let stage = Stage::new();
    let dir = ground(&stage);
    sh(&format!(
        "cd {dir}; mkdir -p low/gone low/dir low/old m; echo 1 > low/keep; echo 1 > low/changed; echo 1 > low/deleted; \
         echo 1 > low/dir/inner; echo 1 > low/gone/inner; echo 1 > low/old/inner"
    ));
    let at = |name: &str| format!("{dir}/{name}");
    let m = at("m");
    stage.onggi.ok(&["overlay", "mount", "-l", &at("low"), "-u", &at("up"), "-o", "redirect_dir=on", &m]);
    sh(&format!(
        "cd {m}; echo 2 > changed; rm deleted; rm -r gone; rm -r dir; mkdir dir; echo 3 > dir/fresh; mv old renamed; echo 4 > new; chmod 600 keep; chmod 644 keep"
    ));
    let diff = stage.onggi.ok(&["overlay", "diff", &m, "--format", "{{.Letter}} {{.Path}} {{.From}}"]);
    let lines: Vec<&str> = diff.lines().map(str::trim_end).collect();
    for line in
        ["C /changed", "D /deleted", "D /gone", "O /dir", "D /dir/inner", "A /dir/fresh", "R /renamed old", "A /new"]
    {
        assert!(lines.contains(&line), "{line:?} is missing in\n{diff}");
    }
    assert!(!diff.contains("keep"), "what is as it was is no change:\n{diff}");
    let table = stage.onggi.ok(&["overlay", "diff", &m]);
    for part in ["character device 0:0", "opaque directory", "renamed (overlay.redirect)"] {
        assert!(table.contains(part), "{part:?} is missing in\n{table}");
    }
    let archive = at("layer.tar");
    let digest = stage.onggi.ok(&["overlay", "commit", &m, &archive]);
    assert_eq!(digest.trim_start_matches("sha256:"), &sh(&format!("sha256sum {archive}"))[..64]);
    let names = sh(&format!("tar tf {archive}"));
    for name in [".wh.deleted", ".wh.gone", "dir/.wh.inner", "dir/fresh", "renamed/inner", ".wh.old"] {
        assert!(names.lines().any(|line| line == name), "{name:?} is missing in\n{names}");
    }
    let script = stage.onggi.ok(&["overlay", "commit", "--explain=sh", &m, &at("hand.tar")]);
    sh(&script);
    assert!(sh(&format!("tar tf {dir}/hand.tar")).contains("./dir/.wh..wh..opq"), "{script}");
    stage.onggi.ok(&["overlay", "unmount", &m]);
    let none = stage.onggi.run(&["overlay", "diff", &m]);
    assert!(none.stderr.contains("no overlay is mounted"), "{none}");
    sh(&format!("umount {dir}"));
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_layers_of_a_container_are_where_they_are_said_to_be() {
    let stage = Stage::new();
    let script = "echo hi > /new; rm /bin/false 2>/dev/null; sleep 300";
    stage.onggi.ok(&["run", "-d", "--network", "none", "--name", "box", &stage.busybox, "sh", "-c", script]);
    let text = stage.onggi.ok(&["overlay", "layers", &stage.busybox]);
    let commands: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("= sha256 of: ")).collect();
    let image: serde_json::Value =
        serde_json::from_str(&stage.onggi.ok(&["overlay", "layers", &stage.busybox, "-f", "json"])).expect("JSON");
    let layers = image["Layers"].as_array().expect("a list");
    assert_eq!(commands.len() + 1, layers.len(), "{text}");
    for (layer, command) in layers.iter().skip(1).zip(&commands) {
        assert_eq!(format!("sha256:{}", &sh(command)[..64]), layer["ChainID"].as_str().expect("text"), "{command}");
    }
    assert!(layers.iter().all(|layer| std::path::Path::new(layer["Dir"].as_str().expect("text")).is_dir()));
    let shown = stage.onggi.ok(&["overlay", "layers", "box", "-f", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let container = &shown["Container"];
    let path = |key: &str| container[key].as_str().expect("text").to_owned();
    onggi_tests::eventually("the container has written", || {
        std::fs::read_to_string(format!("{}/new", path("UpperDir"))).ok().filter(|text| text == "hi\n")
    });
    assert_eq!(sh(&format!("cat {}/new", path("MergedDir"))), "hi\n");
    let diff = stage.onggi.ok(&["overlay", "diff", "box", "--format", "{{.Letter}} {{.Path}}"]);
    assert!(diff.lines().any(|line| line == "A /new") && !diff.contains("/dev"), "{diff}");
    let refused = stage.onggi.run(&["overlay", "diff", &stage.busybox]);
    assert_ne!(refused.code, Some(0), "{refused}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

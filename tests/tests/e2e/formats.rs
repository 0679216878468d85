//! `save`, `load`, `import`, `export`, `commit`, `diff`, `history`, `image copy`.

use std::{fs, process::Command};

use onggi_tests::{machine::sh, registry::Registry};

use crate::Stage;

/// Names of the members of an archive.
fn members(archive: &str) -> Vec<String> {
    let mut names: Vec<String> = sh(&format!("tar -tf {archive}")).lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// A container that has changed something of every kind.
const CHANGES: &str = "set -e; B=/bin/busybox; echo new > /new; rm /etc/not-executable; mkdir -p /d/e; echo y > /d/e/f; $B ln /d/e/f /d/g; \
    touch -d @1000000000 /d/e/f; $B ln -s nowhere /d/s; $B chmod 4755 /bin/no-interpreter; rm -rf /srv; mkdir /srv; \
    echo z > /srv/z; cat /etc/group > /tmp/g; cat /tmp/g > /etc/group; touch -r /etc/passwd /etc/group; $B mkfifo /p";

const DIFF: &str = "C /bin\nC /bin/no-interpreter\nA /d\nA /d/e\nA /d/e/f\nA /d/g\nA /d/s\nC /etc\nD /etc/not-executable\n\
    A /new\nA /p\nC /srv\nD /srv/layer\nA /srv/z\nC /tmp\nA /tmp/g";

#[test]
fn e2e_commit_holds_exactly_what_a_container_changed() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["run", "--name", "box1", "--network", "none", &stage.busybox, "sh", "-c", CHANGES]);
    assert_eq!(onggi.ok(&["diff", "box1"]), DIFF);
    let change = "CMD [\"cat\", \"/new\"]";
    let id = onggi.ok(&["commit", "-a", "A <a@b>", "-m", "why", "-c", change, "-c", "ENV X=1", "box1", "made:1"]);
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "made:1"]), "new");
    assert_eq!(onggi.ok(&["diff", "made:1"]), DIFF, "the topmost layer is what the container changed");
    assert_eq!(onggi.ok(&["diff", "made:1", &stage.busybox]), DIFF);
    assert_eq!(onggi.ok(&["diff", "made:1", "box1"]), "", "the image has what the container has");
    let history = onggi.ok(&["history", "--format", "{{.ID}} {{.Comment}}", "--no-trunc", "made:1"]);
    assert_eq!(history.lines().next(), Some(format!("{id} why").as_str()));
    assert_eq!(onggi.ok(&["image", "inspect", "-f", "{{.Author}} {{.Comment}}", "made:1"]), "A <a@b> why");
    let out = stage.onggi.dir().join("out");
    onggi.ok(&["save", "--format", "oci-dir", "-o", &out.to_string_lossy(), "made:1"]);
    // The layer on top, as GNU tar sees it.
    let top = onggi.ok(&["image", "inspect", "-f", "{{range .RootFS.Layers}}{{.}} {{end}}", "made:1"]);
    let diff_id = top.split_whitespace().next_back().expect("a layer").to_owned();
    let find = format!(
        "for f in {}/blobs/sha256/*; do [ \"sha256:$(gzip -dc < $f 2>/dev/null | sha256sum | cut -d' ' -f1)\" = {diff_id} ] \
         && gzip -dc < $f | tar -tvf - ; done; true",
        out.display()
    );
    let listed = sh(&find);
    assert!(listed.contains("-rwsr-xr-x") && listed.contains("d/g link to d/e/f"), "{listed}");
    for whiteout in ["etc/.wh.not-executable", "srv/.wh.layer"] {
        assert!(listed.contains(whiteout), "{whiteout}: {listed}");
    }
    assert!(!listed.contains("etc/group"), "copied up and the same as before:\n{listed}");
    onggi.ok(&["rm", "box1"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_without_changes_makes_no_layer() {
    let stage = Stage::new();
    stage.onggi.ok(&["run", "--name", "box1", "--network", "none", &stage.busybox, "true"]);
    assert_eq!(stage.onggi.ok(&["diff", "box1"]), "");
    stage.onggi.ok(&["commit", "box1", "same"]);
    let layers = |image: &str| stage.onggi.ok(&["image", "inspect", "-f", "{{json .RootFS.Layers}}", image]);
    assert_eq!(layers("same"), layers(&stage.busybox));
    stage.onggi.ok(&["rm", "box1"]);
}

#[test]
fn e2e_commit_of_a_running_container_lets_it_go_on() {
    let stage = Stage::new();
    let script = "i=0; while true; do i=$((i+1)); echo $i > /n; done";
    stage.onggi.ok(&["run", "-d", "--name", "box1", "--network", "none", &stage.busybox, "sh", "-c", script]);
    for pause in ["--pause=true", "--pause=false", "-p"] {
        stage.onggi.ok(&["commit", pause, "box1", "made"]);
        let (before, after) = ("exec", ["box1", "cat", "/n"]);
        let first = stage.onggi.ok(&[&[before][..], &after].concat());
        onggi_tests::eventually("the container goes on", || {
            (stage.onggi.ok(&[&[before][..], &after].concat()) != first).then_some(())
        });
    }
    stage.onggi.ok(&["rm", "-f", "box1"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_every_format_is_saved_and_loaded_as_the_same_image() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    onggi.ok(&["tag", &stage.busybox, "box:1"]);
    onggi.ok(&["tag", &stage.busybox, "box:2"]);
    let id = onggi.ok(&["images", "-q", "--no-trunc"]);
    for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
        let out = onggi.dir().join(format).to_string_lossy().into_owned();
        onggi.ok(&["save", "--format", format, "-o", &out, "box:1"]);
        onggi.ok(&["rmi", "-f", &id]);
        assert_eq!(onggi.ok(&["images", "-q"]), "");
        let loaded = onggi.ok(&["load", "-i", &out]);
        let named =
            if format == "docker-dir" { format!("Loaded image ID: {id}") } else { "Loaded image: box:1".to_owned() };
        assert_eq!(loaded, named, "{format}");
        assert_eq!(onggi.ok(&["images", "-q", "--no-trunc"]), id, "{format}");
        assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", &id[7..], "cat", "/srv/layer"]), "second layer");
        onggi.ok(&["tag", &id[7..], "box:1"]);
        onggi.ok(&["tag", &id[7..], "box:2"]);
    }
    onggi.assert_nothing_left();
}

#[test]
fn e2e_archives_are_read_from_streams_and_compressed_and_written_the_same_twice() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    onggi.ok(&["tag", &stage.busybox, "box:1"]);
    onggi.ok(&["tag", &stage.busybox, "box:2"]);
    let path = |name: &str| onggi.dir().join(name).to_string_lossy().into_owned();
    for name in ["a", "b"] {
        onggi.ok(&["save", "-o", &path(name), "box"]);
    }
    let out = fs::File::create(path("c")).expect("make a file");
    let saved = onggi.command(&["save", "box"]).stdout(out).status().expect("start onggi");
    assert!(saved.success());
    let read = |name: &str| fs::read(path(name)).expect("read the archive");
    assert!(read("a") == read("b") && read("a") == read("c"), "the same image makes the same archive");
    let tags = sh(&format!("tar -xOf {} manifest.json", path("a")));
    assert!(tags.contains(r#""RepoTags":["box:1","box:2"]"#), "a repository stands for all of its tags: {tags}");
    let id = onggi.ok(&["images", "-q", "--no-trunc"]);
    sh(&format!("gzip -k {0}; zstd -q {0}", path("a")));
    for file in ["a", "a.gz", "a.zst"] {
        onggi.ok(&["rmi", "-f", &id]);
        let mut load = onggi.command(&["load"]);
        load.stdin(fs::File::open(path(file)).expect("open the archive"));
        let ran = onggi.finish(&mut load);
        assert_eq!(ran.stdout, "Loaded image: box:1\nLoaded image: box:2\n", "{file}: {ran}");
        assert_eq!(onggi.ok(&["images", "-q", "--no-trunc"]), id);
    }
    // As with Docker and Podman: quiet about progress, not about what was loaded.
    assert_eq!(onggi.ok(&["load", "-q", "-i", &path("a")]), "Loaded image: box:1\nLoaded image: box:2");
}

#[test]
fn e2e_export_and_import_keep_every_file() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let path = |name: &str| onggi.dir().join(name).to_string_lossy().into_owned();
    onggi.ok(&["run", "--name", "box1", "--network", "none", &stage.busybox, "sh", "-c", CHANGES]);
    onggi.ok(&["export", "-o", &path("one"), "box1"]);
    let names = members(&path("one"));
    assert!(names.contains(&"srv/z".to_owned()) && !names.iter().any(|n| n.contains(".wh.") || n == "srv/layer"));
    let id = onggi.ok(&["import", "-m", "note", "-c", "CMD [\"cat\", \"/new\"]", &path("one"), "again:1"]);
    assert!(id.starts_with("sha256:"));
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "again:1"]), "new");
    assert_eq!(onggi.ok(&["history", "--format", "{{.Comment}}", "again:1"]), "note");
    onggi.ok(&["create", "--name", "box2", "--network", "none", "again:1"]);
    let out = onggi.finish(onggi.command(&["export", "-o", &path("two"), "box2"]).current_dir("/"));
    assert_eq!(out.code, Some(0), "{out}");
    assert!(fs::read(path("one")).unwrap() == fs::read(path("two")).unwrap(), "what is imported is exported again");
    let mut import = onggi.command(&["import", "--platform", "linux/arm64", "-"]);
    import.stdin(fs::File::open(path("one")).unwrap());
    let piped = onggi.finish(&mut import).stdout;
    assert_eq!(onggi.ok(&["image", "inspect", "-f", "{{.Architecture}}", piped.trim()]), "arm64");
    onggi.ok(&["rm", "box1", "box2"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_copy_goes_between_any_two_places_and_keeps_digests() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let registry = Registry::new();
    onggi.ok(&["pull", &stage.busybox]);
    let path = |name: &str| onggi.dir().join(name).to_string_lossy().into_owned();
    let remote =
        format!("docker://{}", registry.push("copied", &onggi_tests::image::busybox(onggi_tests::image::Flavour::Oci)));
    let other = remote.replace("copied", "elsewhere");
    let oci = format!("oci:{}:v1", path("oci"));
    let archive = format!("oci-archive:{}:v1", path("oci.tar"));
    let docker = format!("docker-archive:{}:box:1", path("docker.tar"));
    let dir = format!("dir:{}", path("dir"));
    let digest = onggi.ok(&["image", "copy", &remote, &oci]);
    for (from, to) in [(&oci, &archive), (&archive, &dir), (&dir, &other), (&other, &oci), (&oci, &docker)] {
        assert_eq!(onggi.ok(&["image", "copy", from, to]), digest, "{from} to {to}");
    }
    assert_eq!(onggi.ok(&["image", "copy", "--preserve-digests", &other, "onggi:in:1"]), digest);
    assert_eq!(onggi.ok(&["images", "--digests", "--format", "{{.Digest}}", "in"]), digest);
    let made = onggi.ok(&["image", "copy", &docker, "in:2"]);
    assert_ne!(made, digest, "such an archive has no manifests");
    assert_eq!(onggi.ok(&["images", "-q", "in:1"]), onggi.ok(&["images", "-q", "in:2"]), "it is the same image");
    let converted = onggi.ok(&["image", "copy", "--format", "docker", "in:1", &format!("{other}-d")]);
    assert_ne!(converted, digest);
    let back = onggi.ok(&["image", "copy", "--format", "oci", &format!("{other}-d"), &format!("oci:{}", path("back"))]);
    let ids = |place: &str| sh(&format!("skopeo inspect --config --tls-verify=false {place} | sha256sum"));
    assert_eq!(ids(&format!("oci:{}", path("back"))), ids(&oci), "{back}");
    // Docker's manifests in an OCI layout are found by nobody: they become OCI's, the images stay the same.
    let pushed = format!("{other}-d");
    for (number, from) in [&docker, &pushed].into_iter().enumerate() {
        let layout = path(&format!("from-docker-{number}"));
        onggi.ok(&["image", "copy", from, &format!("oci:{layout}:v1")]);
        assert!(sh(&format!("skopeo inspect oci:{layout}:v1")).contains("Layers"), "{from}");
        sh(&format!("umoci stat --image {layout}:v1"));
        onggi.ok(&["image", "copy", "--preserve-digests", from, &format!("oci:{layout}:kept")]);
    }
    let refused = onggi.run(&["image", "copy", "--preserve-digests", "--format", "docker", "in:1", &dir]);
    assert_eq!(refused.code, Some(1), "{refused}");
    let list = Command::new("ls").arg(onggi.root().join("tmp")).output().unwrap();
    assert!(list.stdout.is_empty(), "{list:?}");
}

#[test]
fn e2e_a_copy_that_cannot_be_what_was_asked_for_is_refused_and_leaves_nothing() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let registry = Registry::new();
    let image = onggi_tests::image::busybox(onggi_tests::image::Flavour::Oci);
    let here = registry.push("here", &image);
    let source = format!("docker://{here}");
    let path = |name: &str| onggi.dir().join(name).to_string_lossy().into_owned();
    let refuse = |args: &[&str], why: &str| {
        let ran = onggi.run(args);
        assert!(ran.code == Some(1) && ran.stderr.contains(why) && ran.stderr.contains("hint: "), "{ran}");
    };
    // A name with a digest is the name of one manifest.
    let there = |digest: &str| format!("docker://{}/there@{digest}", registry.host());
    let other = format!("sha256:{}", "5".repeat(64));
    refuse(&["image", "copy", &source, &there(&other)], &other);
    assert!(sh(&format!("curl -s http://{}/v2/there/tags/list", registry.host())).contains("NAME_UNKNOWN"));
    onggi.ok(&["image", "copy", &source, &there(&image.manifest.digest())]);
    refuse(&["image", "copy", "--format", "docker", &source, &there(&image.manifest.digest())], "but the manifest is");
    let archive = format!("docker-archive:{}:box:1", path("docker.tar"));
    refuse(&["image", "copy", "--preserve-digests", &source, &archive], "holds no manifest");
    assert!(!onggi.dir().join("docker.tar").exists());
    // An index of one is one of several, too.
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{ "mediaType": image.manifest.media_type, "digest": image.manifest.digest(),
            "size": image.manifest.bytes.len(), "platform": { "os": "linux", "architecture": "amd64" } }] });
    std::fs::write(path("index"), index.to_string()).expect("write the index");
    sh(&format!(
        "curl -sf -X PUT -H 'Content-Type: application/vnd.oci.image.index.v1+json' --data-binary @{} http://{}/v2/here/manifests/many",
        path("index"),
        registry.host()
    ));
    let many = source.replace(":latest", ":many");
    refuse(&["image", "copy", "--all", &many, &archive], "several platforms");
    refuse(&["image", "copy", "--all", &many, "stored:1"], "several platforms");
    onggi.ok(&["image", "copy", &many, &archive]);
    // Whatever was made for a copy that fails is gone again.
    let layout = path("broken");
    onggi.ok(&["image", "copy", &source, &format!("oci:{layout}:v1")]);
    std::fs::remove_file(format!("{layout}/blobs/sha256/{}", &image.layers[0].digest()[7..])).expect("break it");
    for kind in ["dir", "oci"] {
        let ran = onggi.run(&["image", "copy", &format!("oci:{layout}:v1"), &format!("{kind}:{}", path("target"))]);
        assert!(ran.code == Some(1) && !onggi.dir().join("target").exists(), "{ran}");
    }
    onggi.assert_nothing_left();
}

#[test]
fn e2e_inspect_computes_chain_ids_as_sha256sum_does_and_names_the_directory() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let field = |template: &str| stage.onggi.ok(&["image", "inspect", "-f", template, &stage.busybox]);
    let diff_ids: Vec<String> =
        field("{{range .RootFS.Layers}}{{.}} {{end}}").split_whitespace().map(str::to_owned).collect();
    let [first, second] = &diff_ids[..] else { panic!("two layers: {diff_ids:?}") };
    let chain = sh(&format!("printf '%s %s' {first} {second} | sha256sum | cut -d' ' -f1"));
    let chain = chain.trim();
    assert_eq!(field("{{range .Layers}}{{.ChainID}} {{end}}").trim(), format!("{first} sha256:{chain}"));
    let cache_id = field("{{(index .Layers 1).CacheID}}");
    let file = stage.onggi.root().join("layers").join(&cache_id).join("diff/srv/layer");
    assert_eq!(fs::read_to_string(file).expect("the layer's own directory"), "second layer\n");
    assert_eq!(field("{{.GraphDriver.Name}}"), "overlay");
}

#[test]
fn e2e_an_image_of_programs_has_what_they_need_and_runs() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let id = onggi.ok(&["image", "from-binary", "-t", "tools", "--entrypoint", "bash", "bash", "ls", "cat"]);
    assert_eq!(onggi.ok(&["image", "from-binary", "--entrypoint", "bash", "bash", "ls", "cat"]), id, "the same files");
    let ran = onggi.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "tools",
        "-c",
        "echo from $BASH; cat /proc/self/comm; ls -d /usr",
    ]);
    assert!(ran.contains("from ") && ran.ends_with("cat\n/usr"), "{ran}");
    let explained = onggi.ok(&["image", "from-binary", "--explain", "ls"]);
    assert!(explained.contains("the loader of") && explained.contains("libc.so.6"), "{explained}");
    // What the loader itself would take, as ldd tells it.
    for line in sh("ldd /bin/ls").lines().filter(|l| l.contains("=> /")) {
        let path = line.split_whitespace().nth(2).expect("a path");
        let real = fs::canonicalize(path).expect("it exists");
        assert!(explained.contains(&*real.to_string_lossy()), "{path}: {explained}");
    }
    let script = onggi.dir().join("script");
    fs::write(&script, "#!/usr/bin/env bash\necho scripted\n").unwrap();
    sh(&format!("chmod 755 {}", script.display()));
    onggi.ok(&["image", "from-binary", "-t", "script", &script.to_string_lossy()]);
    assert_eq!(onggi.ok(&["run", "--rm", "--network", "none", "script"]), "scripted");
    let missing = onggi.run(&["image", "from-binary", "no-such-program"]);
    assert_eq!(missing.code, Some(1), "{missing}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_images_are_untagged_looked_for_and_shown_as_a_tree() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", &stage.busybox]);
    onggi.ok(&["tag", &stage.busybox, "one"]);
    assert_eq!(onggi.run(&["image", "exists", "one"]).code, Some(0));
    assert_eq!(onggi.run(&["image", "exists", "two"]).code, Some(1));
    let tree = onggi.ok(&["image", "tree", "one"]);
    assert_eq!(tree.lines().filter(|l| l.contains("ID: ") && l.contains("──")).count(), 2, "{tree}");
    assert!(
        tree.lines().next_back().is_some_and(|l| l.contains("Top Layer of: [") && l.contains("one:latest")),
        "{tree}"
    );
    onggi.ok(&["image", "untag", "one", "one"]);
    assert_eq!(onggi.run(&["image", "exists", "one"]).code, Some(1));
    onggi.ok(&["image", "untag", &stage.busybox]);
    assert_eq!(onggi.ok(&["images", "--format", "{{.Repository}}"]), "<none>", "the image stays");
}

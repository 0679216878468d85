//! What people who come from Docker write about images, and what they expect to read.

use std::{fs, process::Stdio, thread, time::Duration};

use onggi_tests::assert_refused;
use serde_json::Value;

use crate::Stage;

/// The digest that the stored image was pulled by.
fn digest(stage: &Stage) -> String {
    let pulled = stage.onggi.ok(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &stage.busybox]);
    pulled.split_once('@').expect("a digest").1.to_owned()
}

#[test]
fn e2e_a_tag_beside_a_digest_is_not_a_second_image() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let both = format!("{}@{}", stage.busybox, digest(&stage));
    let by_digest = format!("{}@{}", stage.busybox.strip_suffix(":latest").expect("a tag"), digest(&stage));
    // As soon as the image is there it answers to its digest, also where no registry may be asked.
    let id = onggi.ok(&["inspect", "-f", "{{.Id}}", &stage.busybox]);
    assert_eq!(onggi.ok(&["inspect", "-f", "{{.Id}}", &by_digest]), id);
    assert_eq!(onggi.ok(&["run", "--rm", "--pull", "never", "--network", "none", &both, "echo", "ran"]), "ran");
    for name in [&both, &by_digest] {
        assert_eq!(onggi.ok(&["pull", "-q", name]), *name);
        let list = onggi.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        assert_eq!(list, stage.busybox, "one image, one line");
    }
    let with_digests = onggi.ok(&["images", "--digests", "--format", "{{.Tag}} {{.Digest}}"]);
    assert_eq!(with_digests, format!("latest {}", digest(&stage)));
    // An id is enough to remove it, and its tag takes the digest along.
    for name in [&id, &stage.busybox] {
        let gone = onggi.ok(&["rmi", name]);
        assert!(gone.contains(&format!("Untagged: {}\n", stage.busybox)), "{gone}");
        assert!(
            gone.contains(&format!("Untagged: {by_digest}\n")) && gone.contains(&format!("Deleted: {id}")),
            "{gone}"
        );
        assert_eq!(onggi.ok(&["images", "-q"]), "");
        onggi.ok(&["pull", "-q", &by_digest]);
        onggi.ok(&["pull", "-q", &stage.busybox]);
    }
    // A digest in another repository is another name.
    onggi.ok(&["tag", &stage.busybox, "other:1"]);
    assert_refused(&onggi.run(&["rmi", &id]), 1, &["several names", "other:1"]);
    assert_eq!(onggi.ok(&["rmi", &by_digest]), format!("Untagged: {by_digest}"));
    for command in [&["tag", &stage.busybox][..], &["image", "from-binary", "true", "-t"]] {
        let target = format!("x@{}", digest(&stage));
        let refused = onggi.run(&[command, &[&target]].concat());
        assert!(refused.code != Some(0) && refused.stderr.contains("x:latest"), "{refused}");
    }
}

#[test]
fn e2e_templates_name_what_an_image_does_not_set() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    for (template, want) in [
        ("[{{.Config.User}}{{.Config.WorkingDir}}{{.Config.StopSignal}}{{.Variant}}{{.DockerVersion}}]", "[]"),
        ("{{.Config.OnBuild}}{{.Config.Volumes}}{{json .Config.Healthcheck}}", "[]map[]null"),
        ("[{{index .Config.Labels \"nothing\"}}]", "[]"),
        ("{{range .Config.Entrypoint}}x{{end}}{{if .Config.Labels}}y{{end}}.", "."),
    ] {
        assert_eq!(onggi.ok(&["image", "inspect", "-f", template, &stage.busybox]), want, "{template}");
    }
    let twice = onggi.ok(&["inspect", "-f", "json", &stage.busybox, &stage.busybox]);
    let list: Value = serde_json::from_str(&twice).expect("a list");
    assert!(list[1]["Id"].is_string() && twice.lines().count() == 1, "{twice}");
    let row: Value = serde_json::from_str(&onggi.ok(&["images", "--format", "{{json .}}"])).expect("JSON");
    for field in ["Containers", "SharedSize", "UniqueSize", "VirtualSize", "CreatedAt", "Size", "Digest"] {
        assert!(row[field].is_string(), "{field}: {row}");
    }
    assert_eq!(onggi.ok(&["images", "-q", "--filter", "until=2000-01-01T00:00:00Z"]), "");
    assert_eq!(onggi.ok(&["images", "-q", "--filter", "until=2100-01-01T00:00:00Z"]), onggi.ok(&["images", "-q"]));
    onggi.ok(&["run", "--name", "box", "--network", "none", &stage.busybox, "sh", "-c", "echo 12345 > /made"]);
    let sizes = onggi.ok(&["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "box"]);
    let sizes: Vec<u64> = sizes.split(' ').map(|size| size.parse().expect("a number")).collect();
    let image = onggi.ok(&["inspect", "-s", "-f", "{{.Size}}", &stage.busybox]);
    assert!(sizes[0] >= 6, "what it occupies: {sizes:?}");
    assert_eq!(sizes[1], sizes[0] + image.parse::<u64>().expect("a number"));
    onggi.ok(&["rm", "box"]);
}

#[test]
fn e2e_what_is_gone_already_is_removed_by_force() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    assert_refused(&onggi.run(&["rmi", "nothing"]), 1, &["nothing"]);
    for option in ["-f", "--ignore"] {
        let ran = onggi.run(&["rmi", option, "nothing"]);
        assert!(ran.code == Some(0) && ran.stderr.contains("no such image: nothing"), "{ran}");
    }
    onggi.ok(&["create", "--name", "box", "--network", "none", &stage.busybox, "true"]);
    // What is there and cannot go is an error all the same.
    assert_refused(&onggi.run(&["rmi", "--ignore", "nothing", &stage.busybox]), 1, &["is used by container"]);
    onggi.ok(&["rm", "box"]);
    onggi.ok(&["rmi", "--no-prune", &stage.busybox]);
}

#[test]
fn e2e_what_cannot_be_read_or_reached_is_said_in_words() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let path = |name: &str| onggi.dir().join(name).display().to_string();
    onggi.ok(&["pull", "-q", &stage.busybox]);
    onggi.ok(&["save", "-o", &path("whole"), &stage.busybox]);
    let whole = fs::read(path("whole")).expect("the archive");
    fs::write(path("cut"), &whole[..whole.len() / 2]).expect("write");
    fs::write(path("empty"), "").expect("write");
    assert_refused(&onggi.run(&["load", "-i", &path("cut")]), 1, &["in the middle", "cut short"]);
    assert_refused(&onggi.run(&["load", "-i", &path("empty")]), 1, &["is empty"]);
    assert_refused(&onggi.run(&["pull", "127.0.0.1:1/x"]), 1, &["connection refused (ECONNREFUSED)"]);
    assert_refused(&onggi.run(&["import", "http://127.0.0.1:1/x"]), 1, &["connection refused (ECONNREFUSED)"]);
    // The beginning of an id is nobody's repository, however much it looks like a name.
    let id = onggi.ok(&["images", "-q"]);
    assert_refused(&onggi.run(&["push", &id]), 1, &["is the id of an image", "onggi push ID"]);
    onggi.ok(&["image", "copy", &stage.busybox, &format!("oci:{}:one", path("layout"))]);
    let wrong = onggi.run(&["image", "copy", &format!("oci:{}:two", path("layout")), &format!("dir:{}", path("dir"))]);
    assert_refused(&wrong, 1, &["no image \"two\"", "it has one"]);
    let nowhere = onggi.run(&["image", "copy", &format!("oci:{}", path("nowhere")), &format!("dir:{}", path("dir"))]);
    assert_refused(&nowhere, 1, &["not an OCI image layout", "no such directory"]);
    // No credentials are no mistake; broken ones are, with what to do.
    onggi.ok(&["pull", "-q", "--authfile", "/dev/null", &stage.busybox]);
    onggi.ok(&["pull", "-q", "--authfile", &path("empty"), &stage.busybox]);
    fs::write(path("broken"), "{").expect("write");
    let broken = onggi.run(&["pull", "-q", "--authfile", &path("broken"), &stage.busybox]);
    assert_refused(&broken, 1, &["malformed", "onggi login"]);
    // A file where the directory of the credentials would be.
    let mut login =
        onggi.command(&["login", "-u", "a", "-p", "b", stage.registry.name("x").split_once('/').expect("a host").0]);
    login.env("DOCKER_CONFIG", path("empty"));
    assert_refused(&onggi.finish(&mut login), 1, &["cannot change the stored credentials", "--authfile"]);
}

#[test]
fn e2e_what_lies_in_a_directory_of_data_need_not_run() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let data = onggi.dir().join("data");
    onggi_tests::machine::sh(&format!(
        "mkdir {0}; printf '#!/nowhere/python\\n' > {0}/script; chmod +x {0}/script; ln -s nothing {0}/link; echo x > {0}/file",
        data.display()
    ));
    let from_binary = |programs: &[&str], tag: &str| {
        let data = data.display().to_string();
        let rest = ["--with", data.as_str(), "-t", tag];
        onggi.run(&[&["image", "from-binary"], programs, &rest].concat())
    };
    let made = from_binary(&["ls"], "data:1");
    assert!(
        made.code == Some(0) && made.stderr.contains("note: ") && made.stderr.contains("/nowhere/python is not"),
        "{made}"
    );
    let path = data.display().to_string();
    let listed = onggi.ok(&["run", "--rm", "--network", "none", "data:1", &path]);
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["file", "link", "script"]);
    // A program that was asked for must run.
    let script = data.join("script").display().to_string();
    assert_refused(&from_binary(&[&script], "data:2"), 1, &["/nowhere/python is not on this machine"]);
    // What a Python cannot do without is no library, and cannot be seen in it.
    let python = from_binary(&["/usr/bin/python3"], "data:3");
    assert!(python.code == Some(0) && python.stderr.contains("add it by --with /usr/lib/python3"), "{python}");
}

#[test]
fn e2e_an_archive_that_is_stopped_while_it_is_written_leaves_nothing() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let fill = "head -c 80000000 /dev/urandom > /big";
    onggi.ok(&["run", "--name", "box", "--network", "none", &stage.busybox, "sh", "-c", fill]);
    onggi.ok(&["commit", "box", "big:1"]);
    let out = onggi.dir().join("out");
    fs::create_dir(&out).expect("make a directory");
    let (file, layout) = (out.join("big.tar").display().to_string(), out.join("layout").display().to_string());
    let (archive, oci) = (format!("docker-archive:{file}"), format!("oci:{layout}"));
    for args in [
        &["save", "-o", &file, "big:1"][..],
        &["export", "-o", &file, "box"],
        &["image", "copy", "big:1", &archive],
        &["image", "copy", "big:1", &oci],
    ] {
        let mut child = onggi.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start onggi");
        let open = format!("/proc/{}/fd", child.id());
        // Until a good part is written, or all of it.
        let grown = || {
            let fds = fs::read_dir(&open).into_iter().flatten().flatten();
            fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(&out)))
                .any(|fd| fs::metadata(fd.path()).is_ok_and(|m| m.len() > 1_000_000))
        };
        while child.try_wait().expect("look at it").is_none() && !grown() {
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("kill it");
        child.wait().expect("its end");
        let names = onggi_tests::machine::sh(&format!("find {} -name '.*.part' -size +0", out.display()));
        assert_eq!(names, "", "{args:?}");
        let _ = fs::remove_file(&file);
    }
    onggi.ok(&["rm", "box"]);
}

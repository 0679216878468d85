//! What scripts for Docker and Podman read of containers and images: fields of `inspect`, sizes, columns, filters.

use onggi_tests::{assert_refused, machine::sh};

use crate::Stage;

/// An image whose configuration says something, as `app:1`.
fn configured(stage: &Stage) {
    let tree = stage.onggi.dir().join("tree");
    let archive = stage.onggi.dir().join("app.tar");
    let (tree, archive) = (tree.display().to_string(), archive.display().to_string());
    sh(&format!("mkdir -p {tree}/bin && cp $(command -v busybox) {tree}/bin/sh && tar -C {tree} -cf {archive} ."));
    // An entry point takes arguments that were there before away.
    let changes =
        ["ENV A=b", "ENTRYPOINT [\"/bin/sh\"]", "CMD [\"-c\",\"exit 0\"]", "EXPOSE 90", "USER 5", "WORKDIR /srv"];
    let changes = changes.map(|change| ["-c", change]).concat();
    stage.onggi.ok(&[&["import"], &changes[..], &["-c", "STOPSIGNAL SIGINT", &archive, "app:1"]].concat());
}

#[test]
fn e2e_a_created_container_shows_what_image_and_options_give_together() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    configured(&stage);
    let id = onggi.ok(&["create", "--name", "plain", "--network", "none", "app:1"]);
    let own =
        ["--name", "own", "-w", "/tmp", "-u", "7", "-e", "X=1", "-h", "me", "-p", "18099:80", "--entrypoint", "true"];
    onggi.ok(&[&["create"], &own[..], &["app:1", "hi"]].concat());
    let fields = "{{.Config.WorkingDir}} {{.Config.User}} {{.Config.Hostname}} {{.Config.Cmd}} {{.Config.Entrypoint}} \
                  {{.Config.StopSignal}} {{json .Config.ExposedPorts}}";
    let before = onggi.ok(&["inspect", "-f", fields, "plain", "own"]);
    let short = &id[..12];
    assert_eq!(
        before.lines().collect::<Vec<_>>(),
        [
            &format!("/srv 5 {short} [-c exit 0] [/bin/sh] SIGINT {{\"90/tcp\":{{}}}}"),
            "/tmp 7 me [hi] [true] SIGINT {\"80/tcp\":{},\"90/tcp\":{}}",
        ]
    );
    let env = onggi.ok(&["inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}", "own"]);
    assert!(["A=b", "X=1", "HOSTNAME=me"].iter().all(|wanted| env.lines().any(|line| line == *wanted)), "{env}");
    // A start changes none of it.
    onggi.ok(&["start", "-a", "plain"]);
    assert_eq!(onggi.ok(&["inspect", "-f", fields, "plain", "own"]), before);
    onggi.ok(&["rm", "plain", "own"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_inspect_has_the_fields_that_scripts_for_docker_read() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let id =
        onggi.ok(&["create", "--name", "box", "--network", "none", "-m", "64m", "-l", "a=1", &stage.busybox, "true"]);
    for (template, want) in [
        ("{{.ID}}", id.as_str()),
        ("{{$c := .}}{{range .ExecIDs}}x{{end}}{{$c.ID}} {{len .ExecIDs}} {{json .ExecIDs}}", &format!("{id} 0 []")),
        (
            "[{{.HostConfig.PidMode}}{{.HostConfig.UTSMode}}{{.HostConfig.CgroupParent}}] {{.HostConfig.IpcMode}}",
            "[] private",
        ),
        (
            "{{.HostConfig.ShmSize}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}}",
            "67108864 134217728 0",
        ),
        ("{{.HostConfig.Ulimits}}{{.HostConfig.Devices}}{{.HostConfig.ExtraHosts}}{{.HostConfig.DNS}}", "[][][][]"),
        ("{{.HostConfig.Tmpfs}}{{.HostConfig.Sysctls}} {{.HostConfig.OomScoreAdj}}", "map[]map[] 0"),
        ("[{{.NetworkSettings.SandboxKey}}]", "[]"),
        ("{{.Config.Labels.a}} {{.Config.Labels.nope}} [{{index .Config.Labels \"nope\"}}]", "1 <no value> []"),
        ("{{with .Config.Labels.nope}}x{{else}}none{{end}} {{json .Config.Labels}}", "none {\"a\":\"1\"}"),
    ] {
        assert_eq!(onggi.ok(&["inspect", "-f", template, "box"]), want, "{template}");
    }
    let image = onggi.ok(&["image", "inspect", "-f", "{{.Id}}", &stage.busybox]);
    assert_eq!(onggi.ok(&["image", "inspect", "-f", "{{.ID}}", &stage.busybox]), image);
    for wrong in ["{{.Nope}}", "{{.Config.Nope}}", "{{.HostConfig.ID}}"] {
        assert_refused(&onggi.run(&["inspect", "-f", wrong, "box"]), 1, &["map has no entry for key"]);
    }
    onggi.ok(&["rm", "box"]);
    let up = onggi.ok(&["run", "-d", "--network", "none", &stage.busybox, "sleep", "1000"]);
    let key = onggi.ok(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", &up]);
    let links = sh(&format!("nsenter --net={key} readlink /proc/self/ns/net; readlink {key}"));
    let both: Vec<&str> = links.split_whitespace().collect();
    assert_eq!(both[0], both[1], "the namespace of the container");
    onggi.ok(&["rm", "-f", &up]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_system_df_promises_what_prune_gives() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let reclaimable = || {
        let text = onggi.ok(&["system", "df", "--format", "{{.Type}} {{.Reclaimable}}"]);
        text.lines().find_map(|line| line.strip_prefix("Images ")).expect("a line of images").to_owned()
    };
    configured(&stage);
    onggi.ok(&["create", "--name", "box", "--network", "none", "app:1"]);
    assert_eq!(reclaimable(), "0B (0%)", "the only image is used");
    onggi.ok(&["tag", "app:1", "app:2"]);
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let promised = reclaimable();
    let pruned = onggi.ok(&["image", "prune", "-a", "-f"]);
    let given = pruned.lines().find_map(|line| line.strip_prefix("Total reclaimed space: ")).expect("a sum");
    assert_eq!(promised.split(' ').next(), Some(given), "{pruned}");
    assert_eq!(reclaimable(), "0B (0%)");
    onggi.ok(&["rmi", "-f", "app:1", "app:2"]);
    assert_eq!(reclaimable(), "0B (0%)", "the container needs its layers still");
    onggi.ok(&["rm", "box"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_that_wrote_nothing_has_no_size() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["run", "--name", "idle", "--network", "none", &stage.busybox, "mkdir", "-p", "/a/b/c"]);
    onggi.ok(&["run", "--name", "wrote", "--network", "none", &stage.busybox, "sh", "-c", "printf 12345 > /made"]);
    assert_eq!(onggi.ok(&["inspect", "-s", "-f", "{{.SizeRw}}", "idle", "wrote"]), "0\n5");
    let rows = onggi.ok(&["ps", "-a", "--format", "{{.Names}} {{.Size}}"]);
    assert!(rows.contains("idle 0B (virtual ") && rows.contains("wrote 5B (virtual "), "{rows}");
    let table = onggi.ok(&["ps", "-as"]);
    assert!(table.lines().next().is_some_and(|head| head.ends_with("SIZE")), "{table}");
    assert!(table.contains("0B (virtual "), "{table}");
    onggi.ok(&["rm", "idle", "wrote"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_whose_tag_has_moved_is_listed_under_its_images_id() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    configured(&stage);
    let id = onggi.ok(&["create", "--name", "old", "--network", "none", "app:1"]);
    let shown = |more: &[&str]| onggi.ok(&[&["ps", "-a", "--format", "{{.Image}}"], more].concat());
    assert_eq!(shown(&[]), "app:1");
    let image = onggi.ok(&["image", "inspect", "-f", "{{.Id}}", "app:1"]);
    let short = &image["sha256:".len()..][..12];
    onggi.ok(&["pull", "-q", &stage.busybox]);
    onggi.ok(&["tag", &stage.busybox, "app:1"]);
    assert_eq!((shown(&[]), shown(&["--no-trunc"])), (short.to_owned(), image.clone()));
    let of = |ancestor: &str| onggi.ok(&["ps", "-aq", "--no-trunc", "-f", &format!("ancestor={ancestor}")]);
    assert_eq!((of("app:1"), of(&stage.busybox), of("nosuch")), (String::new(), String::new(), String::new()));
    assert_eq!((of(short), of(&image)), (id.clone(), id.clone()));
    // Another name of its image finds it; the name that it was made from may come back.
    onggi.ok(&["tag", short, "app:2"]);
    assert_eq!((of("app:2"), shown(&[])), (id.clone(), short.to_owned()));
    onggi.ok(&["tag", "app:2", "app:1"]);
    assert_eq!((of("app:1"), shown(&[])), (id.clone(), "app:1".to_owned()));
    let by_id = onggi.ok(&["create", "--name", "by-id", "--network", "none", short]);
    assert_eq!(shown(&["-f", "name=by-id"]), short);
    let lists = |filter: &str, id: &str| onggi.ok(&["ps", "-aq", "--no-trunc", "-f", filter]).contains(id);
    for filter in [
        format!("id=^{}", &id[..4]),
        format!("id={}", &id[..4]),
        "id=[0-9a-f]".to_owned(),
        format!("id={}$", &id[60..]),
    ] {
        assert!(lists(&filter, &id), "{filter}");
    }
    assert!(!lists(&format!("id=^{id}$"), &by_id) && lists(&format!("id={}", by_id.to_uppercase()), &by_id));
    assert_refused(&onggi.run(&["ps", "-f", "id=("]), 1, &["filter id"]);
    onggi.ok(&["rm", "old", "by-id"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_info_says_what_docker_says_of_the_machine() {
    let stage = Stage::new();
    let info = stage.onggi.ok(&["info", "-f", "{{.Architecture}} {{.CgroupVersion}}"]);
    let (machine, version) = info.split_once(' ').expect("two words");
    assert_eq!(machine, sh("uname -m").trim());
    assert!(["1", "2", "none"].contains(&version), "{version}");
    let text = stage.onggi.ok(&["info"]);
    assert!(text.contains(&format!("\nCgroup Version: {version}")), "{text}");
}

#[test]
fn e2e_lists_are_sorted_and_bare_as_podmans() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    configured(&stage);
    onggi.ok(&["pull", "-q", &stage.busybox]);
    onggi.ok(&["run", "--name", "bb", "--network", "none", &stage.busybox, "sh", "-c", "printf 123 > /made"]);
    onggi.ok(&["create", "--name", "aa", "--network", "none", "app:1"]);
    onggi.ok(&["create", "--name", "cc", "--network", "none", "app:1"]);
    let names = |sort: &[&str]| onggi.ok(&[&["ps", "-a", "--format", "{{.Names}}"], sort].concat()).replace('\n', " ");
    assert_eq!(names(&[]), "cc aa bb");
    for (field, want) in [("names", "aa bb cc"), ("created", "bb aa cc"), ("status", "cc aa bb"), ("size", "cc aa bb")]
    {
        assert_eq!(names(&["--sort", field]), want, "{field}");
    }
    let bare = onggi.ok(&["ps", "-a", "--noheading"]);
    assert!(bare.lines().count() == 3 && !bare.contains("CONTAINER ID"), "{bare}");
    onggi.ok(&["tag", "app:1", "app:0"]);
    let tags = onggi.ok(&["images", "--sort", "tag", "-n", "--format", "table {{.Tag}}"]);
    assert_eq!(tags.lines().collect::<Vec<_>>(), ["0", "1", "latest"]);
    let sizes = onggi.ok(&["images", "--sort", "size", "-q"]);
    let by_size = onggi.ok(&["inspect", "-f", "{{.Size}}", "app:1", &stage.busybox]);
    let (app, busybox) = by_size.split_once('\n').expect("two sizes");
    let app_first = app.parse::<u64>().expect("a number") <= busybox.parse().expect("a number");
    let app_id = onggi.ok(&["images", "-q", "app:1"]);
    assert_eq!(sizes.starts_with(&app_id), app_first, "{sizes}");
    for (verb, name, code) in
        [("container", "aa", 0), ("container", "app:1", 1), ("image", "app:1", 0), ("image", "aa", 1)]
    {
        let told = onggi.run(&[verb, "exists", name]);
        assert_eq!((told.code, told.stdout.as_str(), told.stderr.as_str()), (Some(code), "", ""), "{verb} {name}");
    }
    onggi.ok(&["rm", "aa", "bb", "cc"]);
    stage.onggi.assert_nothing_left();
}

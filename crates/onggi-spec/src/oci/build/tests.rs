//! Tests of the parent module.

mod asked;

use super::*;
use crate::{
    ImageSource, UserNamespace,
    facts::V1Hierarchy,
    image::ContainerConfig,
    mount::parse_volume,
    oci::runtime::Mount,
    request::Resources,
    security::{AppArmorChoice, SecurityOptions},
};

const ALL_CAPS: u64 = (1 << 41) - 1;

fn facts() -> HostFacts {
    HostFacts {
        euid: 0,
        egid: 0,
        effective_caps: ALL_CAPS,
        hostname: "machine".into(),
        kernel: "6.18".into(),
        architecture: "amd64".into(),
        cgroup: CgroupLayout::V1 {
            hierarchies: vec![V1Hierarchy {
                controllers: vec!["pids".into()],
                mount: "/sys/fs/cgroup/pids".into(),
                own: "/".into(),
            }],
            unified: None,
        },
        overlay: true,
        user_namespaces: true,
        nofile_hard: 1 << 20,
        mount_points: Vec::new(),
        submounts: vec![],
        resolv_conf: String::new(),
        cpus: 2,
        apparmor: false,
        seccomp: true,
    }
}

fn request() -> ContainerRequest {
    ContainerRequest::of(ImageSource::Host)
}

fn root() -> ResolvedUser {
    ResolvedUser { uid: 0, gid: 0, additional_gids: vec![], home: "/root".into() }
}

fn image(config: ContainerConfig) -> ImageConfig {
    ImageConfig { config, ..ImageConfig::default() }
}

fn build(
    request: &ContainerRequest,
    image: Option<&ImageConfig>,
    user: ResolvedUser,
    facts: &HostFacts,
) -> Result<Spec, BuildError> {
    let id = ContainerId::from_random([0xab; 32]);
    let dir = PathBuf::from("/var/lib/onggi/containers/x");
    let files = GeneratedFiles {
        hosts: dir.join("hosts"),
        hostname: dir.join("hostname"),
        resolv_conf: dir.join("resolv.conf"),
    };
    build_oci_spec(&SpecInput {
        request,
        image,
        user,
        facts,
        id: &id,
        id_block: (request.userns == UserNamespace::Auto).then(|| "1610612736".parse().expect("a block")),
        netns_path: None,
        cgroups_path: "/onggi-x".into(),
        apparmor_profile: facts.apparmor.then_some("onggi-default"),
        files,
        device_sources: vec!["/dev/null".into()],
        block_devices: [("/dev/vda".to_owned(), (254, 0))].into(),
        devices: request.devices.iter().map(asked::host_device).collect(),
    })
}

fn built(request: &ContainerRequest) -> Spec {
    build(request, None, root(), &facts()).expect("builds")
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn destinations(spec: &Spec) -> Vec<&str> {
    spec.mounts.iter().map(|m| m.destination.as_str()).collect()
}

fn find<'a>(spec: &'a Spec, destination: &str) -> &'a Mount {
    spec.mounts.iter().find(|m| m.destination == destination).expect("is mounted")
}

#[test]
fn commands_combine_as_docker_does() {
    let img = image(ContainerConfig {
        entrypoint: Some(strings(&["e", "1"])),
        cmd: Some(strings(&["c"])),
        ..Default::default()
    });
    let only_cmd = image(ContainerConfig { cmd: Some(strings(&["c"])), ..Default::default() });
    let none = image(ContainerConfig::default());
    let command = |entrypoint: Option<&[&str]>, args: &[&str], img: Option<&ImageConfig>| {
        let mut r = request();
        r.entrypoint = entrypoint.map(strings);
        r.command = strings(args);
        effective_command(&r, img).map(|c| c.join(" "))
    };
    for (entrypoint, args, img, want) in [
        (None, &[] as &[&str], Some(&img), "e 1 c"),
        (None, &["x", "y"], Some(&img), "e 1 x y"),
        (Some(&["o"] as &[&str]), &[], Some(&img), "o"),
        (Some(&["o"]), &["x"], Some(&img), "o x"),
        (Some(&[]), &["x"], Some(&img), "x"),
        (None, &[], Some(&only_cmd), "c"),
        (None, &[], None, "/bin/sh"),
        (None, &["id"], None, "id"),
    ] {
        assert_eq!(command(entrypoint, args, img), Ok(want.to_owned()), "{entrypoint:?} {args:?}");
    }
    assert_eq!(command(None, &[], Some(&none)), Err(BuildError::NoCommand));
    assert_eq!(command(Some(&[]), &[], Some(&img)), Err(BuildError::NoCommand));
    assert!(matches!(command(None, &["a\0"], None), Err(BuildError::Text { .. })));
}

#[test]
fn environment_has_defaults_then_image_then_request() {
    let img = image(ContainerConfig {
        env: strings(&["PATH=/img", "A=1", "HOME=/img", "NOVALUE", "*", "=x"]),
        cmd: Some(strings(&["c"])),
        ..Default::default()
    });
    let mut r = request();
    r.env = strings(&["A=2", "B="]);
    r.tty = true;
    r.hostname = Some("h".into());
    let spec = build(&r, Some(&img), root(), &facts()).expect("builds");
    assert_eq!(spec.process.expect("process").env, ["PATH=/img", "HOSTNAME=h", "TERM=xterm", "A=2", "HOME=/img", "B="]);
    let plain = built(&request()).process.expect("process");
    assert_eq!(plain.env[1..], ["HOSTNAME=abababababab", "HOME=/root"]);
    assert!(plain.env[0].starts_with("PATH=/usr/local/sbin:"));
}

#[test]
fn a_bare_name_of_the_request_erases_whatever_set_it() {
    let img = image(ContainerConfig { env: strings(&["A=1", "HOME=/img"]), ..Default::default() });
    let mut r = request();
    (r.tty, r.command) = (true, strings(&["c"]));
    r.env = strings(&["A", "PATH", "HOSTNAME", "TERM", "HOME", "NEVER"]);
    let spec = build(&r, Some(&img), root(), &facts()).expect("builds");
    assert_eq!(spec.process.expect("process").env, ["HOME=/root"]);
}

#[test]
fn an_images_home_with_a_newline_is_refused_cve_2022_4318() {
    let img = image(ContainerConfig {
        env: strings(&["HOME=/a\nroot2::0:0"]),
        cmd: Some(strings(&["c"])),
        ..Default::default()
    });
    assert!(matches!(build(&request(), Some(&img), root(), &facts()), Err(BuildError::Text { .. })));
    let user = ResolvedUser { home: "/a\nb".into(), ..root() };
    let spec = build(&request(), None, user, &facts()).expect("builds");
    assert!(spec.process.expect("process").env.contains(&"HOME=/".to_owned()));
}

#[test]
fn root_has_eleven_capabilities_and_others_have_none() {
    let process = built(&request()).process.expect("process");
    let caps = process.capabilities.expect("capabilities");
    assert_eq!(caps.bounding.len(), 11);
    assert_eq!((&caps.effective, &caps.permitted), (&caps.bounding, &caps.bounding));
    assert!(caps.inheritable.is_empty() && caps.ambient.is_empty());
    assert!(!process.no_new_privileges);

    let user = ResolvedUser { uid: 33, gid: 33, additional_gids: vec![7], home: "/var/www".into() };
    let mut r = request();
    r.cap_add = strings(&["NET_ADMIN"]);
    let process = build(&r, None, user, &facts()).expect("builds").process.expect("process");
    let caps = process.capabilities.expect("capabilities");
    assert_eq!(caps.bounding.len(), 12);
    assert!(
        caps.effective.is_empty()
            && caps.permitted.is_empty()
            && caps.ambient.is_empty()
            && caps.inheritable.is_empty()
    );
    assert!(process.no_new_privileges);
    assert_eq!(process.user.additional_gids, [7, 33], "the primary group too: CVE-2022-2990");
}

#[test]
fn a_capability_that_the_caller_lacks_is_left_out_or_refused_when_named() {
    let facts = HostFacts { effective_caps: ALL_CAPS & !(1 << 24), ..facts() };
    let mut r = request();
    r.cap_add = strings(&["ALL"]);
    let spec = build(&r, None, root(), &facts).expect("builds");
    let bounding = spec.process.and_then(|p| p.capabilities).expect("capabilities").bounding;
    assert_eq!(bounding.len(), 40);
    r.cap_add = strings(&["sys_resource"]);
    let want = BuildError::CapabilityNotHeld { capability: "CAP_SYS_RESOURCE".into() };
    assert_eq!(build(&r, None, root(), &facts), Err(want));
}

#[test]
fn namespaces_follow_the_network_mode() {
    let types = |spec: Spec| {
        spec.linux.expect("linux").namespaces.iter().map(|n| n.typ.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(types(built(&request())), "pid ipc uts mount cgroup network");
    let mut r = request();
    r.network = NetworkMode::Host;
    let spec = built(&r);
    assert!(spec.linux.as_ref().expect("linux").sysctl.is_empty());
    assert_eq!(types(spec), "pid ipc uts mount cgroup");
}

#[test]
fn mounts_come_in_order_and_volumes_shallow_first() {
    let mut r = request();
    for v in ["/h1:/data/deep/er", "/h2:/data:ro", "/h3:/dev/shm", "/h4:/etc/hosts"] {
        r.mounts.push(parse_volume(v).expect("parses"));
    }
    let spec = built(&r);
    assert_eq!(
        destinations(&spec),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/data",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/dev/shm",
            "/etc/hosts",
            "/data/deep/er"
        ]
    );
    assert_eq!(
        find(&spec, "/data").options,
        ["rbind", "rprivate", "nosuid", "rnosuid", "nodev", "rnodev", "ro", "rro"]
    );
    assert!(find(&spec, "/sys").options.contains(&"ro".to_owned()));
    assert!(find(&spec, "/etc/hostname").options.contains(&"nosymfollow".to_owned()));
}

#[test]
fn a_volume_on_etc_does_not_hide_the_engines_files_and_a_volume_on_one_replaces_it() {
    let mut r = request();
    for v in ["/h1:/etc/hosts", "/h2:/etc", "/h3:/etc/resolv.conf/"] {
        r.mounts.push(parse_volume(v).expect("parses"));
    }
    let spec = built(&r);
    let in_etc: Vec<_> = destinations(&spec).into_iter().filter(|d| d.starts_with("/etc")).collect();
    assert_eq!(in_etc, ["/etc", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
    assert_eq!(find(&spec, "/etc/hosts").source.as_deref(), Some("/h1"));
}

#[test]
fn a_read_only_root_has_read_only_files_of_the_engine() {
    let mut r = request();
    let read_only = |r: &ContainerRequest| {
        let spec = built(r);
        ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].map(|f| find(&spec, f).options.contains(&"ro".to_owned()))
    };
    assert_eq!(read_only(&r), [false; 3]);
    r.read_only = true;
    assert_eq!(read_only(&r), [true; 3]);
}

#[test]
fn volumes_have_no_devices_and_no_set_user_id_programs_unless_asked_for() {
    let options = |volume: &str| {
        let mut r = request();
        r.mounts = vec![parse_volume(volume).expect("parses")];
        find(&built(&r), "/t").options[2..].join(",")
    };
    assert_eq!(options("/h:/t"), "nosuid,rnosuid,nodev,rnodev,rw");
    assert_eq!(options("/h:/t:dev,suid,exec"), "suid,dev,exec,rw");
    assert_eq!(options("/h:/t:noexec"), "nosuid,rnosuid,nodev,rnodev,noexec,rnoexec,rw");
    assert_eq!(options("/dev/null:/t"), "nosuid,rnosuid,rw");
    assert_eq!(options("/dev/null:/t:nodev"), "nosuid,rnosuid,nodev,rnodev,rw");
}

#[test]
fn volumes_that_collide_with_the_runtime_or_each_other_are_refused() {
    for targets in [&["/a", "/a"] as &[&str], &["/proc"], &["/proc/sys"], &["/dev"]] {
        let mut r = request();
        r.mounts = targets.iter().map(|t| parse_volume(&format!("/h:{t}")).expect("parses")).collect();
        assert!(build(&r, None, root(), &facts()).is_err(), "{targets:?}");
    }
}

#[test]
fn the_hardened_profile_masks_and_limits() {
    let mut r = request();
    r.resources = Resources { nano_cpus: Some(1_500_000_000), memory: Some(64 << 20), ..Resources::default() };
    let linux = built(&r).linux.expect("linux");
    for path in [
        "/proc/kcore",
        "/proc/kallsyms",
        "/sys/firmware",
        "/sys/kernel/debug",
        "/sys/devices/system/cpu/cpu1/thermal_throttle",
    ] {
        assert!(linux.masked_paths.iter().any(|p| p == path), "{path}");
    }
    assert!(linux.readonly_paths.contains(&"/proc/sys".to_owned()));
    let res = linux.resources.expect("resources");
    assert_eq!(res.pids.and_then(|p| p.limit), Some(4096));
    assert_eq!(res.memory.and_then(|m| m.limit), Some(64 << 20));
    assert_eq!(res.cpu.map(|c| (c.quota, c.period)), Some((Some(150_000), Some(100_000))));
    assert!(!res.devices[0].allow && res.unified.is_empty());
    assert_eq!(linux.sysctl.get("net.ipv4.ping_group_range").map(String::as_str), Some("0 2147483647"));
    assert!(linux.seccomp.is_some());
    r.resources.nano_cpus = Some(2_500_000_000);
    let want = BuildError::TooManyCpus { wanted: "2.5".into(), available: 2 };
    assert_eq!(build(&r, None, root(), &facts()), Err(want));
}

#[test]
fn nofile_is_bounded_by_the_host() {
    let low = HostFacts { nofile_hard: 512, ..facts() };
    let rlimits = |f: &HostFacts| build(&request(), None, root(), f).expect("builds").process.expect("process").rlimits;
    assert_eq!((rlimits(&facts())[0].soft, rlimits(&facts())[0].hard), (1024, 524_288));
    assert_eq!((rlimits(&low)[0].soft, rlimits(&low)[0].hard), (512, 512));
}

#[test]
fn rootless_maps_one_id_and_asks_for_nothing_privileged() {
    let user_facts = HostFacts { euid: 1000, egid: 1001, effective_caps: 0, ..facts() };
    let mut r = request();
    r.network = NetworkMode::Host;
    let spec = build(&r, None, root(), &user_facts).expect("builds");
    let linux = spec.linux.as_ref().expect("linux");
    assert_eq!(
        (linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id, linux.uid_mappings[0].size),
        (1000, 1001, 1)
    );
    assert_eq!(linux.namespaces[0].typ, LinuxNamespaceType::User);
    assert!(linux.resources.is_none());
    assert_eq!(find(&spec, "/sys").typ.as_deref(), Some("bind"));
    assert!(find(&spec, "/sys").options.contains(&"rro".to_owned()), "CVE-2023-25809");
    assert!(!destinations(&spec).contains(&"/sys/fs/cgroup"));
    assert!(!find(&spec, "/dev/pts").options.contains(&"gid=5".to_owned()));

    let other = ResolvedUser { uid: 33, gid: 33, additional_gids: vec![], home: "/".into() };
    assert_eq!(build(&r, None, other, &user_facts), Err(BuildError::RootlessUser { uid: 33, gid: 33 }));
    r.resources.memory = Some(1 << 30);
    assert_eq!(build(&r, None, root(), &user_facts), Err(BuildError::RootlessLimit { option: "--memory" }));
}

#[test]
fn working_directories_are_absolute_and_without_dot_dot() {
    let cwd = |own: Option<&str>, from_image: &str| {
        let img =
            image(ContainerConfig { working_dir: from_image.into(), cmd: Some(strings(&["c"])), ..Default::default() });
        let mut r = request();
        r.workdir = own.map(str::to_owned);
        build(&r, Some(&img), root(), &facts()).map(|s| s.process.expect("process").cwd)
    };
    for (own, img, want) in
        [(None, "", "/"), (None, "/srv//x/", "/srv/x"), (None, "srv", "/srv"), (Some("/o"), "/srv", "/o")]
    {
        assert_eq!(cwd(own, img), Ok(want.to_owned()));
    }
    assert!(cwd(Some("rel"), "").is_err());
    assert!(cwd(None, "/a/../../b").is_err());
}

#[test]
fn no_label_of_an_image_changes_the_configuration_cve_2026_53488() {
    let plain = image(ContainerConfig { cmd: Some(strings(&["c"])), ..Default::default() });
    let mut labelled = plain.clone();
    for key in [
        "onggi.rootfs",
        "io.containerd.runc.v2",
        "com.docker.log.uri",
        "io.kubernetes.cri-o.Devices",
        "run.oci.handler",
    ] {
        labelled.config.labels.insert(key.into(), "binary:///bin/sh".into());
    }
    let spec = |img| build(&request(), Some(img), root(), &facts());
    assert_eq!(spec(&plain), spec(&labelled));
}

#[test]
fn the_profile_of_apparmor_is_the_processs_label() {
    let with = HostFacts { apparmor: true, ..facts() };
    let spec = build(&request(), None, root(), &with).expect("builds");
    assert_eq!(spec.process.expect("has a process").apparmor_profile.as_deref(), Some("onggi-default"));
    assert_eq!(built(&request()).process.expect("has a process").apparmor_profile, None);
}

#[test]
fn security_options_replace_the_defaults_one_by_one() {
    let mut asked = request();
    asked.security = SecurityOptions { no_new_privileges: Some(true), ..SecurityOptions::default() };
    let spec = built(&asked);
    assert!(spec.process.expect("has a process").no_new_privileges);
    assert!(spec.linux.expect("is for Linux").seccomp.is_some());

    let user = ResolvedUser { uid: 7, ..root() };
    asked.security.no_new_privileges = Some(false);
    asked.security.seccomp = SeccompChoice::Unconfined;
    asked.security.apparmor = AppArmorChoice::Unconfined;
    let spec = build(&asked, None, user, &facts()).expect("builds");
    assert!(!spec.process.expect("has a process").no_new_privileges);
    assert!(spec.linux.expect("is for Linux").seccomp.is_none());
}

#[test]
fn a_seccomp_profile_is_resolved_for_the_container_or_refused() {
    let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "excludes": { "caps": ["CAP_CHOWN"] } },
        { "names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "includes": { "caps": ["CAP_CHOWN"] } } ] }"#;
    let profile = crate::seccomp_profile::SeccompProfile::parse("p", text).expect("parses");
    let mut asked = request();
    asked.security.seccomp = SeccompChoice::Profile(Box::new(profile));
    let policy = built(&asked).linux.expect("is for Linux").seccomp.expect("is confined");
    assert_eq!(policy.syscalls.iter().flat_map(|s| &s.names).collect::<Vec<_>>(), ["rmdir"]);
    let without = HostFacts { seccomp: false, ..facts() };
    assert_eq!(build(&asked, None, root(), &without), Err(BuildError::NoSeccomp));
}

fn in_user_namespace(network: NetworkMode) -> ContainerRequest {
    ContainerRequest { userns: UserNamespace::Auto, network, ..request() }
}

#[test]
fn a_user_namespace_maps_a_block_and_mounts_map_it_back() {
    let mut request = in_user_namespace(NetworkMode::Bridge);
    request.mounts = vec![parse_volume("/srv:/srv").expect("a volume")];
    let spec = built(&request);
    let linux = spec.linux.as_ref().expect("linux");
    let whole = vec![LinuxIdMapping { container_id: 0, host_id: 0x6000_0000, size: 65536 }];
    assert_eq!((&linux.uid_mappings, &linux.gid_mappings), (&whole, &whole));
    assert!(linux.namespaces.iter().any(|n| n.typ == LinuxNamespaceType::User));
    assert!(find(&spec, "/etc/hosts").options.contains(&"idmap".to_owned()));
    assert!(find(&spec, "/srv").options.contains(&"ridmap".to_owned()));
    // The engine makes them together with the namespace, which the container's root does not own.
    assert_eq!(linux.sysctl, BTreeMap::new());
    let ping = ("net.ipv4.ping_group_range".to_owned(), "1610612736 1610678271".to_owned());
    assert!(bridge_sysctls(&request, Some("1610612736".parse().expect("a block"))).contains(&ping));
}

#[test]
fn without_a_bridge_the_container_owns_its_network_namespace() {
    let spec = built(&in_user_namespace(NetworkMode::None));
    let sysctl = &spec.linux.as_ref().expect("linux").sysctl;
    assert_eq!(sysctl.get("net.ipv4.ping_group_range").map(String::as_str), Some("0 65535"));
    let host = built(&in_user_namespace(NetworkMode::Host));
    assert_eq!(find(&host, "/sys").typ.as_deref(), Some("bind"));
}

#[test]
fn what_has_no_meaning_in_a_user_namespace_is_refused() {
    let mut request = in_user_namespace(NetworkMode::Bridge);
    request.cap_add = strings(&["NET_ADMIN"]);
    let refused = build(&request, None, root(), &facts());
    assert_eq!(refused, Err(BuildError::CapabilityOverNetwork { capability: "CAP_NET_ADMIN" }));
    request.network = NetworkMode::None;
    assert!(build(&request, None, root(), &facts()).is_ok());
    let far = ResolvedUser { uid: 65_536, ..root() };
    let refused = build(&in_user_namespace(NetworkMode::None), None, far, &facts());
    assert_eq!(refused, Err(BuildError::UserOutsideMap { uid: 65_536, gid: 0 }));
}

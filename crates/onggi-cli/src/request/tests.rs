//! Tests of the parent module.

use clap::Parser;

use onggi_spec::NetworkMode;

use super::*;

#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Only {
    #[command(flatten)]
    args: ContainerArgs,
}

fn request(words: &[&str]) -> Result<ContainerRequest, CliError> {
    let only = Only::try_parse_from(["run"].iter().chain(words)).expect("arguments parse");
    let variable = |key: &str| (key == "HAVE").then(|| OsString::from("it"));
    only.args.request(&Caller { variable: &variable, directory: PathBuf::from("/cwd") })
}

#[test]
fn every_option_arrives_in_the_request() {
    let r = request(&[
        "-it",
        "--rm",
        "--name",
        "web",
        "-p",
        "8080:80",
        "-p",
        "9000-9001:9000-9001/udp",
        "-v",
        "/a:/b:ro",
        "-v",
        "./x:/y",
        "-v",
        "/a:/b/:ro",
        "-e",
        "A=1",
        "-e",
        "HAVE",
        "-e",
        "HAVENOT",
        "-u",
        "1:2",
        "-w",
        "/w",
        "--entrypoint",
        "e",
        "--network",
        "none",
        "-h",
        "h",
        "--cpus",
        "1.5",
        "-m",
        "64m",
        "--pids-limit",
        "-1",
        "--read-only",
        "--cap-add",
        "net_admin,SYS_TIME",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "apparmor=unconfined",
        "--security-opt",
        "no-new-privileges",
        "--init",
        "-l",
        "k=v",
        "nginx",
        "sh",
        "-c",
        "x",
    ])
    .expect("is a request");
    assert_eq!(r.image, ImageSource::Image("nginx".parse().expect("reference")));
    assert_eq!(r.command, ["sh", "-c", "x"]);
    assert_eq!(r.env, ["A=1", "HAVE=it", "HAVENOT"]);
    assert_eq!(r.ports.len(), 3);
    assert_eq!(r.security.words(), ["apparmor=unconfined", "no-new-privileges=true"]);
    assert_eq!((r.mounts[1].source.as_str(), r.mounts.len()), ("/cwd/x", 2));
    assert!(r.mounts[0].read_only && r.tty && r.interactive && r.remove && r.read_only && r.init);
    assert_eq!(r.cap_add, ["net_admin", "SYS_TIME"]);
    assert_eq!(
        (r.resources.nano_cpus, r.resources.memory, r.resources.pids),
        (Some(1_500_000_000), Some(64 << 20), Some(-1))
    );
    assert_eq!(r.entrypoint, Some(vec!["e".to_owned()]));
    assert_eq!(r.labels.get("k").map(String::as_str), Some("v"));
    assert_eq!((r.hostname.as_deref(), r.workdir.as_deref(), r.network), (Some("h"), Some("/w"), NetworkMode::None));
}

#[test]
fn sources_other_than_images() {
    assert_eq!(request(&["host:"]).expect("host").image, ImageSource::Host);
    assert_eq!(request(&["rootfs:dir"]).expect("rootfs").image, ImageSource::Rootfs("/cwd/dir".into()));
    assert_eq!(request(&["--entrypoint", "", "a"]).expect("empty").entrypoint, Some(vec![]));
}

#[test]
fn bad_values_are_refused_with_a_hint_or_reason() {
    for words in [
        &["-p", "x", "a"] as &[&str],
        &["-v", "named:/x", "a"],
        &["-u", "-1", "a"],
        &["-m", "1", "a"],
        &["-w", "rel", "a"],
        &["--network", "foo", "a"],
        &["--network", "container:", "a"],
        &["--cap-add", "NOPE", "a"],
        &["--name", "-x", "a"],
        &["UPPER/Case"],
        &["rootfs:"],
        &["-p", "80:80", "-p", "80:81", "a"],
        &["--env-file", "/nonexistent", "a"],
    ] {
        assert!(request(words).is_err(), "{words:?}");
    }
    let shared = request(&["--network", "container:web", "a"]).expect("is a request");
    assert_eq!((shared.network, shared.network_of.as_deref()), (NetworkMode::Container, Some("web")));
}

#[test]
fn limits_and_settings_arrive_in_the_request() {
    let words = "-c 512 --cpu-period 10000 --cpu-quota -1 --cpuset-cpus 0 --cpuset-mems 0 -m 64m --memory-swap -1 \
        --memory-reservation 32m --memory-swappiness 0 --oom-kill-disable --oom-score-adj -5 --blkio-weight 300 \
        --blkio-weight-device /dev/a:10 --device-read-bps /dev/a:1m --device-write-iops /dev/b:7 --ulimit nofile=1:2 \
        --ulimit nofile=3 --shm-size 1g --sysctl net.core.somaxconn=5 --group-add 7 --group-add audio --stop-signal INT \
        --stop-timeout -1 --domainname d --annotation a=b a";
    let r = request(&words.split_whitespace().collect::<Vec<_>>()).expect("is a request");
    let l = &r.resources;
    assert_eq!((l.cpu_shares, l.cpu_period, l.cpu_quota), (Some(512), Some(10_000), Some(-1)));
    assert_eq!((l.cpuset_cpus.as_deref(), l.cpuset_mems.as_deref()), (Some("0"), Some("0")));
    assert_eq!((l.memory_swap, l.memory_reservation, l.memory_swappiness), (Some(-1), Some(32 << 20), Some(0)));
    assert_eq!((l.oom_kill_disable, r.oom_score_adj, l.blkio_weight), (true, Some(-5), Some(300)));
    assert_eq!(l.block_devices.iter().map(|b| b.value).collect::<Vec<_>>(), [10, 1 << 20, 7]);
    assert_eq!(r.ulimits.iter().map(|u| (u.soft, u.hard)).collect::<Vec<_>>(), [(3, 3)]);
    assert_eq!((r.shm_size, r.sysctls["net.core.somaxconn"].as_str()), (Some(1 << 30), "5"));
    assert_eq!(r.group_add.iter().map(ToString::to_string).collect::<Vec<_>>(), ["7", "audio"]);
    assert_eq!((r.stop.signal.as_deref(), r.stop.timeout), (Some("INT"), Some(-1)));
    assert_eq!((r.domainname.as_deref(), r.annotations["a"].as_str()), (Some("d"), "b"));
    for bad in [
        &["--cpu-shares", "x", "a"] as &[&str],
        &["--cpus", "1", "--cpu-quota", "5000", "a"],
        &["--memory-swap", "1g", "a"],
        &["--ulimit", "x=1", "a"],
        &["--sysctl", "kernel.panic=1", "a"],
        &["--group-add", "", "a"],
        &["--stop-signal", "NOPE", "a"],
        &["--oom-score-adj", "1001", "a"],
        &["--label-file", "/nonexistent", "a"],
    ] {
        assert!(request(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn devices_namespaces_and_names_arrive_in_the_request() {
    let r = request(&[
        "--tmpfs",
        "/run:size=1m",
        "--mount",
        "type=tmpfs,target=/t",
        "--mount",
        "type=bind,src=x,dst=/x,ro",
        "-v",
        "/a:/b",
        "--device",
        "/dev/null:/dev/n:r",
        "--device-cgroup-rule",
        "c 1:* rwm",
        "--privileged",
        "--pid",
        "host",
        "--ipc=host",
        "--uts",
        "host",
        "--cgroupns",
        "host",
        "--add-host",
        "db:10.0.0.1",
        "--dns",
        "1.1.1.1",
        "--dns-search",
        "a.b",
        "--dns-opt",
        "rotate",
        "--expose",
        "80",
        "--expose",
        "90-91/udp",
        "-P",
        "a",
    ])
    .expect("is a request");
    assert_eq!(r.tmpfs.iter().map(|t| t.target.as_str()).collect::<Vec<_>>(), ["/run", "/t"]);
    assert_eq!(r.mounts.iter().map(|m| m.source.as_str()).collect::<Vec<_>>(), ["/a", "/cwd/x"]);
    assert_eq!((r.devices[0].target.as_str(), r.device_rules[0].major), ("/dev/n", Some(1)));
    assert!(r.privileged && r.publish_all && r.shared.pid && r.shared.ipc && r.shared.uts && r.shared.cgroup);
    assert_eq!((r.extra_hosts[0].name.as_str(), r.dns.servers.len(), r.dns.options[0].as_str()), ("db", 1, "rotate"));
    assert_eq!(r.expose, ["80/tcp", "90/udp", "91/udp"]);
    let own = request(&["--pid", "private", "--ipc", "shareable", "--uts=", "a"]).expect("is a request");
    assert!(!own.shared.pid && !own.shared.ipc && !own.shared.uts);
    for bad in [
        &["--pid", "container:x", "a"] as &[&str],
        &["--uts", "shareable", "a"],
        &["--tmpfs", "run", "a"],
        &["--mount", "type=volume,source=v,target=/v", "a"],
        &["--device", "null", "a"],
        &["--add-host", "db", "a"],
        &["--dns", "localhost", "a"],
        &["--expose", "80:80", "a"],
    ] {
        assert!(request(bad).is_err(), "{bad:?}");
    }
}

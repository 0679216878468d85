//! `port`: where a container's ports are published, as Docker prints it.

use onggi_tests::assert_refused;

use crate::Stage;

#[test]
fn e2e_port_lists_all_or_one_of_them() {
    let stage = Stage::new();
    let ports = ["-p", "8092:80", "-p", "127.0.0.1:8093:80", "-p", "8053:53/udp", "-p", "9000"];
    let run = ["run", "-d", "--name", "web"];
    stage.onggi.ok(&[&run[..], &ports, &[&stage.busybox, "sleep", "300"]].concat());
    let all = stage.onggi.ok(&["port", "web"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines[..3], ["53/udp -> 0.0.0.0:8053", "80/tcp -> 0.0.0.0:8092", "80/tcp -> 127.0.0.1:8093"]);
    assert!(lines.len() == 4 && lines[3].starts_with("9000/tcp -> 0.0.0.0:"), "{all}");
    assert_eq!(stage.onggi.ok(&["port", "web", "80"]), "0.0.0.0:8092\n127.0.0.1:8093");
    assert_eq!(stage.onggi.ok(&["container", "port", "web", "53/udp"]), "0.0.0.0:8053");
    assert_eq!(stage.onggi.ok(&["port", "--format", "{{.HostPort}}", "web", "53/UDP"]), "8053");
    assert_refused(&stage.onggi.run(&["port", "web", "53"]), 1, &["53/tcp", "web"]);
    for bad in ["x", "80/icmp", "0", "70000"] {
        assert_refused(&stage.onggi.run(&["port", "web", bad]), 1, &["invalid port"]);
    }
    assert_eq!(stage.onggi.run(&["port", "nothing"]).code, Some(1));
    stage.onggi.ok(&["pause", "web"]);
    assert_eq!(stage.onggi.ok(&["port", "web"]), all, "a paused container has its ports");
    stage.onggi.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(stage.onggi.ok(&["port", "web"]), "");
    assert_refused(&stage.onggi.run(&["port", "web", "80"]), 1, &["exited", "onggi start web"]);
    stage.onggi.ok(&["rm", "web"]);
    stage.onggi.assert_nothing_left();
}

//! The main job: an unmodified nginx image from a real registry serves its page on a published port.

use onggi_tests::{
    Onggi, eventually, isolated,
    machine::{CLIENT_ADDRESS, Client, HOST_ADDRESS, http_get},
    nginx,
    registry::Registry,
};

#[test]
fn e2e_nginx_from_a_registry_serves_its_page_on_a_published_port_and_leaves_nothing() {
    let layout = nginx::layout();
    isolated();
    let registry = Registry::new();
    let image = registry.push_layout("nginx", &layout);
    let client = Client::new();
    let onggi = Onggi::new();

    let id = onggi.ok(&["run", "-d", "--name", "web", "-p", "8080:80", &image]);
    assert_eq!(id.len(), 64, "run -d prints the id: {id:?}");
    let page = eventually("nginx answers on the loopback", || http_get("127.0.0.1", 8080, "/").ok());
    assert!(page.ends_with(nginx::PAGE), "{page}");
    let page = http_get(HOST_ADDRESS, 8080, "/").expect("nginx answers on the host's address");
    assert!(page.ends_with(nginx::PAGE), "{page}");
    let page = client.sh(&format!("curl -fsS http://{HOST_ADDRESS}:8080/"));
    assert_eq!(page, nginx::PAGE, "nginx answers another machine");

    let logs = eventually("the access log arrives", || {
        let logs = onggi.ok(&["logs", "web"]);
        (logs.matches("GET / HTTP/1").count() == 3).then_some(logs)
    });
    assert!(logs.contains(CLIENT_ADDRESS), "the client's own address is seen, not the bridge's: {logs}");
    assert_eq!(onggi.ok(&["exec", "web", "cat", "/proc/1/comm"]), "nginx");
    assert!(onggi.ok(&["ps"]).contains("0.0.0.0:8080->80/tcp"));
    let state = onggi.ok(&["inspect", "--format", "{{.State.Status}} {{.State.Running}}", "web"]);
    assert_eq!(state, "running true");

    assert_eq!(onggi.ok(&["stop", "web"]), "web");
    assert!(http_get("127.0.0.1", 8080, "/").is_err(), "a stopped container answers no more");
    assert_eq!(onggi.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web"]), "exited 0");
    assert!(onggi.ok(&["logs", "web"]).contains("GET / HTTP/1"), "logs outlive the container");
    onggi.ok(&["start", "web"]);
    eventually("nginx answers again after a start", || http_get("127.0.0.1", 8080, "/").ok());
    assert_eq!(onggi.ok(&["rm", "-f", "web"]), "web");
    onggi.assert_nothing_left();
    onggi.ok(&["rmi", &image]);
    assert_eq!(onggi.ok(&["images", "-q"]), "");
    for dir in ["layers", "blobs/sha256"] {
        let left = std::fs::read_dir(onggi.root().join(dir)).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "{dir} is empty after the last image went");
    }
}

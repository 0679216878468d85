//! Bridge, NAT, published ports, names.

use onggi_tests::{
    eventually,
    machine::{CLIENT_ADDRESS, Client, HOST_ADDRESS, http_get, sh},
};

use crate::Stage;

/// busybox's web server in the foreground, with one page that names the container.
const SERVER: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -f -v -p 80 -h /www";

impl Stage {
    fn server(&self, name: &str, publish: &[&str]) -> String {
        let ports: Vec<&str> = publish.iter().flat_map(|port| ["-p", *port]).collect();
        let image = [self.busybox.as_str(), "sh", "-c", SERVER];
        self.onggi.ok(&[&["run", "-d", "--name", name], &ports[..], &image].concat())
    }
}

fn answers(address: &str, port: u16) -> bool {
    http_get(address, port, "/").is_ok_and(|answer| answer.ends_with("page\n"))
}

#[track_caller]
fn wait_for(address: &str, port: u16) {
    eventually(&format!("{address}:{port} answers"), || answers(address, port).then_some(()));
}

#[test]
fn e2e_published_ports_answer_where_they_were_published_and_nowhere_else() {
    let stage = Stage::new();
    let client = Client::new();
    stage.server("all", &["8080:80"]);
    stage.server("local", &["127.0.0.1:8081:80"]);
    stage.server("host", &[&format!("{HOST_ADDRESS}:8082:80")]);
    wait_for("127.0.0.1", 8080);
    wait_for("127.0.0.1", 8081);
    wait_for(HOST_ADDRESS, 8082);
    assert!(answers(HOST_ADDRESS, 8080));
    assert!(!answers(HOST_ADDRESS, 8081), "a port of the loopback is not published on another address");
    assert!(!answers("127.0.0.1", 8082), "a port of one address is not published on the loopback");
    let fetch = |port: u16| client.sh(&format!("curl -sS -m 2 http://{HOST_ADDRESS}:{port}/ || echo refused"));
    assert_eq!(fetch(8080), "page\n");
    assert!(fetch(8081).ends_with("refused\n"));
    assert_eq!(fetch(8082), "page\n");
    assert!(stage.onggi.ok(&["logs", "all"]).is_empty() || !stage.onggi.run(&["logs", "all"]).stderr.is_empty());
    let seen = stage.onggi.run(&["logs", "all"]).stderr;
    assert!(seen.contains(CLIENT_ADDRESS), "the client's own address is seen: {seen}");
    stage.onggi.ok(&["rm", "-f", "all", "local", "host"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_random_port_is_free_and_shown() {
    let stage = Stage::new();
    stage.server("web", &["80"]);
    let ports = stage.onggi.ok(&["ps", "--format", "{{.Ports}}"]);
    let port = ports.split("->").next().and_then(|left| left.rsplit(':').next()).expect("a mapping");
    wait_for("127.0.0.1", port.parse().expect("a port number"));
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_datagrams_are_published_too() {
    let stage = Stage::new();
    // Debian's busybox cannot do datagrams; its perl can, and `host:` has it.
    let echo = "socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(53, INADDR_ANY)); \
                while ($from = recv(S, $text, 99, 0)) { send(S, $text, 0, $from) }";
    stage.onggi.ok(&["run", "-d", "--name", "echo", "-p", "5353:53/udp", "host:", "perl", "-MSocket", "-e", echo]);
    for address in ["127.0.0.1", HOST_ADDRESS] {
        eventually(&format!("{address} echoes"), || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
            socket.set_read_timeout(Some(std::time::Duration::from_millis(300))).ok()?;
            socket.send_to(b"hello", (address, 5353)).ok()?;
            let mut answer = [0; 16];
            let (length, from) = socket.recv_from(&mut answer).ok()?;
            (&answer[..length] == b"hello" && from.port() == 5353).then_some(())
        });
    }
    stage.onggi.ok(&["rm", "-f", "echo"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_containers_reach_each_other_the_world_and_their_own_published_port() {
    let stage = Stage::new();
    let mut client = Client::new();
    let site = stage.onggi.dir().join("site");
    std::fs::create_dir(&site).expect("make the site");
    std::fs::write(site.join("index.html"), "world\n").expect("write the page");
    client.serve(&site, 7000);
    stage.server("web", &["8080:80"]);
    wait_for("127.0.0.1", 8080);
    let address = stage.onggi.ok(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web"]);
    // A static glibc's wget needs files of the host to look a name up, even an address; nc does not.
    let fetch = |address: &str, port: u16| {
        format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port} | tail -n 1")
    };
    let from_another = |script: &str| stage.onggi.ok(&["run", "--rm", &stage.busybox, "sh", "-c", script]);
    assert_eq!(from_another(&fetch(&address, 80)), "page", "one container reaches another");
    assert_eq!(from_another(&fetch(HOST_ADDRESS, 8080)), "page", "and its published port");
    let own = stage.onggi.ok(&["exec", "web", "sh", "-c", &fetch(HOST_ADDRESS, 8080)]);
    assert_eq!(own, "page", "a container reaches itself by its published port");
    // The other machine knows only the host: answers find their way back by NAT.
    assert_eq!(from_another(&fetch(CLIENT_ADDRESS, 7000)), "world", "containers reach other machines");
    stage.onggi.ok(&["rm", "-f", "web"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_flushed_firewall_heals_with_the_next_container() {
    let stage = Stage::new();
    stage.server("web", &["8080:80"]);
    wait_for("127.0.0.1", 8080);
    sh("nft flush ruleset");
    stage.server("other", &["8081:80"]);
    wait_for("127.0.0.1", 8081);
    wait_for("127.0.0.1", 8080);
    let finding = || stage.onggi.run(&["doctor", "--format", "{{.Name}} {{.Level}} {{.Fix}}"]).stdout;
    assert!(finding().contains("firewall ok"), "{}", finding());
    sh("nft flush ruleset");
    assert!(finding().contains("firewall fail onggi net repair"), "{}", finding());
    let words = stage.onggi.ok(&["net", "repair", "--explain"]);
    assert!(words.contains("restoring 2 published ports"), "{words}");
    sh(&stage.onggi.ok(&["net", "repair", "--explain=sh"]));
    wait_for("127.0.0.1", 8080);
    assert_eq!(stage.onggi.ok(&["net", "repair"]), "nothing is missing", "the script did the same");
    sh("nft delete table ip onggi");
    assert!(stage.onggi.ok(&["net", "repair"]).contains("whole again"));
    wait_for("127.0.0.1", 8081);
    assert!(finding().contains("firewall ok"), "{}", finding());
    stage.onggi.ok(&["rm", "-f", "web", "other"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_number_of_firewall_rules_does_not_grow_with_containers() {
    let stage = Stage::new();
    let rules = || sh("nft -a list ruleset | grep -c '# handle'").trim().parse::<u32>().expect("a number");
    stage.server("c0", &["9000:80"]);
    let with_one = rules();
    for at in 1..5 {
        stage.server(&format!("c{at}"), &[&format!("{}:80", 9000 + at)]);
    }
    assert_eq!(rules(), with_one);
    for at in 0..5 {
        stage.onggi.ok(&["rm", "-f", &format!("c{at}")]);
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_hosts_resolver_and_host_name_files_are_written() {
    let stage = Stage::new();
    let text = stage.onggi.ok(&[
        "run",
        "--rm",
        "--hostname",
        "jar",
        &stage.busybox,
        "sh",
        "-c",
        "cat /etc/hosts /etc/hostname; ip -4 addr show eth0",
    ]);
    assert!(text.contains("127.0.0.1") && text.contains("localhost"), "{text}");
    let own = text.lines().find(|line| line.ends_with("jar") && line.starts_with("10.")).expect("a line for itself");
    let address = own.split_whitespace().next().expect("an address");
    assert!(text.contains(&format!("inet {address}/")), "{text}");
    assert!(text.lines().any(|line| line == "jar"), "{text}");
    stage.onggi.ok(&["run", "--rm", &stage.busybox, "test", "-r", "/etc/resolv.conf"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_container_without_a_network_has_only_its_loopback() {
    let stage = Stage::new();
    let text = stage.script(&[], "ls /sys/class/net; ip -4 addr show lo");
    assert!(text.starts_with("lo\n") && text.contains("127.0.0.1/8"), "{text}");
    let host =
        stage.onggi.ok(&["run", "--rm", "--network", "host", &stage.busybox, "ip", "-4", "addr", "show", "eth0"]);
    assert!(host.contains(HOST_ADDRESS), "{host}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_v4_only_network_has_no_v6() {
    let stage = Stage::new();
    let text = stage.onggi.ok(&["run", "--rm", &stage.busybox, "sh", "-c", "grep eth0 /proc/net/if_inet6; echo done"]);
    assert_eq!(text, "done");
    stage.onggi.assert_nothing_left();
}

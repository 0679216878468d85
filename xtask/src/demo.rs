//! `cargo xtask demo`: both programs, built and shown at work with what the machine already has.
//!
//! No image, registry or network is needed: the containers run on `host:`, a throw-away copy-on-write view
//! of this machine. The demo has a store of its own in a temporary directory and removes whatever it makes.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Outcome, build, leaks,
    process::{find, is_root, line, read, run_quietly},
};

/// Hidden verb: this very program is the demo's server, so that no other one has to be installed.
pub(crate) const SERVE_VERB: &str = "__serve";

const SERVER_PORT: u16 = 8000;
const PATIENCE: Duration = Duration::from_secs(10);

/// What the first container says about itself.
const TOUR: &str = r#"
echo "I am process $$ on host $(cat /proc/sys/kernel/hostname), user $(id -un), and I see these processes:"
for p in /proc/[0-9]*; do printf '  %-4s %s\n' "${p#/proc/}" "$(tr '\0\n' '  ' < $p/cmdline | cut -c1-60)"; done
echo "my namespaces:"
for n in pid net mnt uts ipc cgroup user; do printf '  %-7s %s\n' $n "$(readlink /proc/self/ns/$n)"; done
echo "my limits:"
for f in memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us memory.max pids.max cpu.max; do
  [ -r /sys/fs/cgroup/$f ] && printf '  %-28s %s\n' $f "$(cat /sys/fs/cgroup/$f)"
done
grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | sed 's/^/  /'
echo "my addresses:"
grep -B1 'host LOCAL' /proc/net/fib_trie | grep -oE '[0-9]+(\.[0-9]+){3}' | sort -u | grep -v '\.0$' | sed 's/^/  /'
echo "what I write stays mine:"
echo hello > /etc/onggi-demo && ls -l /etc/onggi-demo | sed 's/^/  /'
"#;

/// Builds and shows.
pub(crate) fn main(_args: &[String]) -> Outcome {
    say("Building both programs (the first time takes some minutes)");
    let programs = build::dist()?;
    let before = leaks::Snapshot::take();
    let demo = Demo::new(programs.onggi)?;
    let shown = demo.show();
    let cleaned = demo.clean_up(&before);
    shown.and(cleaned)?;
    say("Done: nothing was left behind. Next: `cargo xtask install`, then `onggi run --rm -it host: sh`");
    Ok(())
}

fn say(text: &str) {
    println!("\n=== {text}");
}

struct Demo {
    onggi: PathBuf,
    dir: PathBuf,
}

impl Demo {
    fn new(onggi: PathBuf) -> Outcome<Demo> {
        let dir = std::env::temp_dir().join(format!("onggi-demo-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
        Ok(Demo { onggi, dir })
    }

    fn onggi(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.onggi);
        command.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.dir.join("run"));
        command.args(args);
        command
    }

    /// Prints the command as a user would type it.
    fn echo(&self, command: &Command) {
        let options = format!("--root {0}/root --runroot {0}/run ", self.dir.display());
        let text = line(command).replace(&options, "").replace(&self.onggi.display().to_string(), "onggi");
        // The script speaks for itself; what matters here is the command around it.
        let shown = text.split_once(" -c '\n").map_or(text.clone(), |(head, _)| format!("{head} -c '…'"));
        println!("$ {shown}");
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let mut command = self.onggi(args);
        self.echo(&command);
        run_quietly(&mut command)
    }

    fn show(&self) -> Outcome {
        let network = if is_root() { "bridge" } else { "none" };
        say("A container on a copy-on-write view of this machine looks around");
        let limits = ["run", "--rm", "--hostname", "jar", "--network", network];
        // Limits of an ordinary user need a delegated cgroup, which this machine may not have.
        let with_limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "100"];
        let limits = [&limits[..], if is_root() { &with_limits } else { &[] }].concat();
        self.run(&[&limits[..], &["host:", "sh", "-c", TOUR]].concat())?;
        if Path::new("/etc/onggi-demo").exists() {
            return Err("the container wrote to the host's own /etc".to_owned());
        }
        println!("(and indeed this machine has no /etc/onggi-demo)");

        say("What would that command do to the kernel? --explain says so and does nothing");
        self.explain(&["run", "--explain", "--rm", "--network", network, "host:", "true"])?;
        if !is_root() {
            say("Not root: publishing a port needs root so far, so the demo ends here");
            return Ok(());
        }
        self.show_published_port()
    }

    fn explain(&self, args: &[&str]) -> Outcome {
        const SHOWN: usize = 25;
        let mut command = self.onggi(args);
        self.echo(&command);
        let text = read(&mut command)?;
        for line in text.lines().take(SHOWN) {
            println!("{line}");
        }
        println!("… {} more lines", text.lines().count().saturating_sub(SHOWN));
        Ok(())
    }

    fn show_published_port(&self) -> Outcome {
        say("A server in a container, published on a port of this machine");
        let port = free_port()?;
        let server = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
        let mount = format!("{}:/usr/local/bin/demo-server:ro", server.display());
        let publish = format!("{port}:{SERVER_PORT}");
        let inside = SERVER_PORT.to_string();
        let mut args = vec!["run", "-d", "--name", "demo", "-p", &publish, "-v", &mount, "host:"];
        args.extend(["/usr/local/bin/demo-server", SERVE_VERB, &inside]);
        self.run(&args)?;
        let mut addresses = vec![Ipv4Addr::LOCALHOST];
        addresses.extend(host_address());
        for address in addresses {
            let body = fetch(SocketAddr::from((address, port)))?;
            println!("http://{address}:{port}/ answered: {}", body.trim());
        }
        self.run(&["ps"])?;
        self.run(&["logs", "demo"])?;
        self.run(&["exec", "demo", "cat", "/proc/1/comm"])?;
        self.run(&["stop", "-t", "1", "demo"])?;
        self.run(&["rm", "demo"])
    }

    fn clean_up(&self, before: &leaks::Snapshot) -> Outcome {
        say("Cleaning up");
        let mut rm = self.onggi(&["rm", "-f", "demo"]);
        // It is normally gone; what counts is the look at the machine below.
        let _ = rm.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        let removed = fs::remove_dir_all(&self.dir).map_err(|e| format!("remove {}: {e}", self.dir.display()));
        // The bridge and the firewall table stay for the next container, as docker0 does; they go if they
        // are the demo's own.
        let added = leaks::Snapshot::take().added_since(before);
        if added.iter().any(|name| name == "link onggi0") {
            run_quietly(tool("ip")?.args(["link", "delete", "onggi0"]))?;
        }
        if added.iter().any(|name| name == "nft table table ip onggi") {
            run_quietly(tool("nft")?.args(["delete", "table", "ip", "onggi"]))?;
        }
        removed.and(leaks::nothing_added_since(before))
    }
}

fn tool(name: &str) -> Outcome<Command> {
    find(name).map(Command::new).ok_or(format!("{name} is missing; the demo's bridge or firewall table stays"))
}

fn free_port() -> Outcome<u16> {
    let socket = TcpListener::bind("0.0.0.0:0").map_err(|e| format!("find a free port: {e}"))?;
    socket.local_addr().map(|address| address.port()).map_err(|e| format!("find a free port: {e}"))
}

/// The address from which this machine would speak to the world. Connecting a datagram socket sends nothing.
fn host_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// Fetches `/`, until the server is up or patience ends.
fn fetch(address: SocketAddr) -> Outcome<String> {
    let start = Instant::now();
    loop {
        match try_fetch(address) {
            Ok(body) => return Ok(body),
            Err(e) if start.elapsed() > PATIENCE => return Err(format!("fetch http://{address}/: {e}")),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn try_fetch(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.filter(|body| !body.is_empty()).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// The server: answers every request with a line about where it runs, until it is stopped.
pub(crate) fn serve(args: &[String]) -> Outcome {
    let port: u16 = args.first().and_then(|port| port.parse().ok()).ok_or("a port is missing")?;
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(|e| format!("listen on port {port}: {e}"))?;
    println!("listening on port {port}");
    for stream in listener.incoming().flatten() {
        // A client that goes away early is its own affair.
        let _ = answer(stream);
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = String::new();
    BufReader::new(&stream).read_line(&mut request)?;
    println!("{} from {}", request.trim_end(), stream.peer_addr()?.ip());
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let body = format!(
        "hello from process {} on host {} at {}\n",
        std::process::id(),
        host.trim_end(),
        stream.local_addr()?.ip()
    );
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_answers_what_fetch_asks() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || answer(listener.accept().unwrap().0));
        let body = fetch(address).unwrap();
        server.join().unwrap().unwrap();
        assert!(body.starts_with("hello from process "), "{body}");
        assert!(body.ends_with(" at 127.0.0.1\n"), "{body}");
    }
}

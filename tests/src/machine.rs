//! The private machine's network as the tests see it: a host address, a second machine beside it, and small
//! helpers around `ip`, `nft` and HTTP.
//!
//! ```text
//! lo     127.0.0.1
//! eth0   192.0.2.10/24   the "host's address"; its peer 192.0.2.20 is in the network namespace of `client`
//! ```

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::Once,
    time::Duration,
};

/// The address by which other machines know this one.
pub const HOST_ADDRESS: &str = "192.0.2.10";
/// The address of the other machine.
pub const CLIENT_ADDRESS: &str = "192.0.2.20";

static SET_UP: Once = Once::new();

/// Brings the loopback up and gives the machine an address and a default route.
pub(crate) fn set_up_once() {
    SET_UP.call_once(|| {
        // `ip netns` and lock files of other programs must not meet those of tests beside this one.
        sh("mount -t tmpfs -o mode=755 tmpfs /run
            mkdir -p /run/lock
            ip link set lo up
            ip link add eth0 type veth peer name client0
            ip addr add 192.0.2.10/24 dev eth0
            ip link set eth0 up
            ip link set client0 up
            ip route add default via 192.0.2.1");
    });
}

/// Runs a shell script; panics with its output when it fails; returns what it printed.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).output().expect("start sh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "script failed with {}:\n{script}\n{text}{errors}", output.status);
    text
}

/// Shows this machine its control groups of version 1 alone, where it has both: some programs take a hybrid
/// machine for one of version 2, or its directory for one more controller. A machine of version 2 stays as it is.
pub fn without_unified_cgroups() {
    sh("test -d /sys/fs/cgroup/unified || exit 0
        mkdir /run/cgroup
        for dir in /sys/fs/cgroup/*/; do
            name=$(basename $dir)
            test $name = unified && continue
            mkdir /run/cgroup/$name
            mount --bind $dir /run/cgroup/$name
        done
        mount --rbind /run/cgroup /sys/fs/cgroup");
}

/// Another machine on the same wire, which lives until it is dropped.
pub struct Client {
    holder: std::process::Child,
    servers: Vec<std::process::Child>,
}

impl Client {
    /// Moves the far end of `eth0` into a network namespace of its own.
    pub fn new() -> Client {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut ready = [0; 5];
        holder.stdout.take().expect("stdout is a pipe").read_exact(&mut ready).expect("the client starts");
        let pid = holder.id();
        let client = Client { holder, servers: Vec::new() };
        sh(&format!("ip link set client0 netns {pid}"));
        client.sh("ip link set lo up; ip addr add 192.0.2.20/24 dev client0; ip link set client0 up");
        client
    }

    /// Serves a directory by HTTP over there until the client is dropped.
    pub fn serve(&mut self, dir: &Path, port: u16) {
        let mut server = Command::new("nsenter");
        server.args(["--net", "--target", &self.holder.id().to_string(), "busybox", "httpd", "-f", "-p"]);
        server.arg(port.to_string()).arg("-h").arg(dir).stdin(Stdio::null());
        self.servers.push(server.spawn().expect("start nsenter"));
    }

    /// Runs a script over there.
    pub fn sh(&self, script: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--net", "--target", &self.holder.id().to_string(), "sh", "-ec", script])
            .stdin(Stdio::null())
            .output()
            .expect("start nsenter");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "script failed on the client: {script}\n{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Already gone is as good.
        for process in self.servers.iter_mut().chain([&mut self.holder]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The whole answer (head and body) to `GET path`.
pub fn http_get(address: &str, port: u16, path: &str) -> io::Result<String> {
    let patience = Duration::from_secs(5);
    let address: SocketAddr = format!("{address}:{port}").parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

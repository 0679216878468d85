//! Debian's docker-registry on a loopback port, filled by skopeo.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{eventually, image::Image, machine};

/// A running registry; it ends when it is dropped.
pub struct Registry {
    process: Child,
    dir: TempDir,
    port: u16,
    /// The loopback address, an IPv6 one in brackets.
    address: &'static str,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// Starts one with an empty store.
    pub fn new() -> Registry {
        Self::with(IPV4, "", |_| String::new())
    }

    /// Starts one that wants the user `alice` with the password `s:ecret`.
    pub fn with_password() -> Registry {
        Self::with(IPV4, "", passwords)
    }

    /// The same on `[::1]` and nowhere else.
    pub fn on_ipv6() -> Registry {
        Self::with("[::1]", "", passwords)
    }

    /// Starts one with the certificates of a directory: `server.crt`, `server.key`, and `ca.crt`, which clients must
    /// have theirs from.
    pub fn with_tls(certificates: &Path) -> Registry {
        let at = |name: &str| certificates.join(name).display().to_string();
        let tls = format!(
            ", tls: {{ certificate: {}, key: {}, clientcas: [{}] }}",
            at("server.crt"),
            at("server.key"),
            at("ca.crt")
        );
        Self::with(IPV4, &tls, |_| String::new())
    }

    /// Starts one with `server.crt` and `server.key` of a directory, which wants `alice` with her password.
    pub fn with_certificate(certificates: &Path) -> Registry {
        let at = |name: &str| certificates.join(name).display().to_string();
        let tls = format!(", tls: {{ certificate: {}, key: {} }}", at("server.crt"), at("server.key"));
        Self::with(IPV4, &tls, passwords)
    }

    /// `http` is added to the section of that name, `more` to the file.
    fn with(address: &'static str, http: &str, more: impl FnOnce(&Path) -> String) -> Registry {
        let dir = tempfile::Builder::new().prefix("onggi-e2e-registry-").tempdir().expect("make a directory");
        let free = TcpListener::bind(format!("{address}:0")).expect("bind a loopback port");
        let port = free.local_addr().expect("the port's address").port();
        drop(free);
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {}/data }} }}\n\
             http: {{ addr: '{address}:{port}'{http} }}\n{}",
            dir.path().display(),
            more(dir.path())
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).expect("write the registry's configuration");
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = serve.spawn().expect("start docker-registry (Debian package docker-registry)");
        let registry = Registry { process, dir, port, address };
        eventually("the registry listens", || std::net::TcpStream::connect(registry.host()).ok());
        registry
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`, `[::1]:PORT`.
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Pushes an image with skopeo; returns the reference to pull.
    pub fn push(&self, name: &str, image: &Image) -> String {
        let layout = self.dir.path().join(format!("layout-{}", name.replace('/', "-")));
        image.write_layout(&layout);
        self.push_layout(name, &layout)
    }

    /// Pushes an OCI layout with skopeo; returns the reference to pull.
    pub fn push_layout(&self, name: &str, layout: &Path) -> String {
        let reference = format!("127.0.0.1:{}/{name}:latest", self.port);
        machine::sh(&format!(
            "skopeo --insecure-policy copy -q --dest-creds alice:s:ecret --dest-tls-verify=false oci:{}:latest docker://{reference}",
            layout.display()
        ));
        reference
    }
}

const IPV4: &str = "127.0.0.1";

/// A section of the configuration, with the file that it names.
fn passwords(dir: &Path) -> String {
    let file = dir.join("htpasswd");
    let line = "alice:$2b$04$BAky2RTEzeCb5lmYSSBai.25P6WK1hGxgRfkuHK0oFrGARsxUuLn6\n";
    fs::write(&file, line).expect("write the registry's passwords");
    format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", file.display())
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

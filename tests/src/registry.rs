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
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// Starts one with an empty store.
    pub fn new() -> Registry {
        let dir = tempfile::Builder::new().prefix("onggi-e2e-registry-").tempdir().expect("make a directory");
        let free = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
        let port = free.local_addr().expect("the port's address").port();
        drop(free);
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {}/data }} }}\n\
             http: {{ addr: '127.0.0.1:{port}' }}\n",
            dir.path().display()
        );
        let file = dir.path().join("config.yml");
        fs::write(&file, config).expect("write the registry's configuration");
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = serve.spawn().expect("start docker-registry (Debian package docker-registry)");
        let registry = Registry { process, dir, port };
        eventually("the registry answers", || machine::http_get("127.0.0.1", port, "/v2/").ok());
        registry
    }

    /// Pushes an image with skopeo; returns the reference to pull.
    pub fn push(&self, name: &str, image: &Image) -> String {
        let layout = self.dir.path().join(format!("layout-{name}"));
        image.write_layout(&layout);
        self.push_layout(name, &layout)
    }

    /// Pushes an OCI layout with skopeo; returns the reference to pull.
    pub fn push_layout(&self, name: &str, layout: &Path) -> String {
        let reference = format!("127.0.0.1:{}/{name}:latest", self.port);
        machine::sh(&format!(
            "skopeo --insecure-policy copy -q --dest-tls-verify=false oci:{}:latest docker://{reference}",
            layout.display()
        ));
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

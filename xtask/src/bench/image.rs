//! The image of the benchmarks: Debian's static busybox in one layer, for every contender in its own way.
//!
//! ```text
//! DIR/rootfs/           the files
//! DIR/layout/           an OCI layout (one uncompressed layer, so its digest is its diff id)
//! DIR/archive.tar       a docker archive, made by skopeo where there is one
//! DIR/bundle-crun/…     OCI bundles of the bare runtimes
//! ```

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use serde_json::{Value, json};

use crate::{
    Outcome,
    process::{read, run_quietly},
};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The image in the directory where it was made.
pub(crate) struct Image {
    /// The files.
    pub(crate) rootfs: PathBuf,
    /// The OCI layout.
    layout: PathBuf,
    /// The manifest's digest.
    manifest: String,
    /// The layer's descriptor.
    layer: Value,
}

impl Image {
    /// Makes the root filesystem and the layout.
    pub(crate) fn make(dir: &Path) -> Outcome<Image> {
        let rootfs = dir.join("rootfs");
        make_rootfs(&rootfs)?;
        let layout = dir.join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| format!("make {}: {e}", blobs.display()))?;
        let tar = dir.join("layer.tar");
        let mut pack = Command::new("tar");
        pack.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]).arg(&tar).arg("-C").arg(&rootfs).arg(".");
        run_quietly(&mut pack)?;
        let layer = store(&blobs, fs::read(&tar).map_err(|e| format!("read {}: {e}", tar.display()))?, LAYER)?;
        let config = store(&blobs, config(&layer, "0"), CONFIG)?;
        let mut manifest = store(&blobs, manifest(&config, &layer), MANIFEST)?;
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        write(&layout.join("index.json"), index.to_string().as_bytes())?;
        write(&layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let manifest = manifest["digest"].as_str().unwrap_or_default().to_owned();
        Ok(Image { rootfs, layout, manifest, layer })
    }

    /// The uncompressed layer.
    pub(crate) fn layer(&self) -> PathBuf {
        let digest = self.layer["digest"].as_str().unwrap_or_default();
        self.layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// The configuration of an image that differs in a label.
    pub(crate) fn variant(&self, number: usize) -> Vec<u8> {
        config(&self.layer, &format!("v{number}"))
    }

    /// A docker archive named `onggi-bench:latest`.
    pub(crate) fn docker_archive(&self) -> Outcome<PathBuf> {
        let archive = self.layout.with_file_name("archive.tar");
        if archive.exists() {
            return Ok(archive);
        }
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "-q"]);
        copy.arg(format!("oci:{}:latest", self.layout.display()));
        copy.arg(format!("docker-archive:{}:onggi-bench:latest", archive.display()));
        run_quietly(&mut copy)?;
        Ok(archive)
    }

    /// Serves the image on a loopback port until we end; the reference to pull.
    pub(crate) fn serve(&self) -> Outcome<String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("bind a loopback port: {e}"))?;
        let address = listener.local_addr().map_err(|e| format!("bind a loopback port: {e}"))?;
        let (blobs, manifest) = (self.layout.join("blobs/sha256"), self.manifest.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away early is its own affair.
                let _ = answer(&stream, &blobs, &manifest);
            }
        });
        Ok(format!("{address}/onggi-bench:latest"))
    }
}

fn answer(mut stream: &TcpStream, blobs: &Path, manifest: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_tag = path.contains("/manifests/") && !last.starts_with("sha256:");
    let digest = if is_tag { manifest } else { last };
    let kind = if path.contains("/manifests/") { MANIFEST } else { "application/octet-stream" };
    let (status, body) = match fs::read(blobs.join(digest.trim_start_matches("sha256:"))) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nDocker-Content-Digest: {digest}\r\n\
         Connection: close\r\n\r\n"
    )?;
    if request.starts_with("HEAD") { Ok(()) } else { stream.write_all(&body) }
}

fn config(layer: &Value, variant: &str) -> Vec<u8> {
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": { "variant": variant } },
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    config.to_string().into_bytes()
}

fn manifest(config: &Value, layer: &Value) -> Vec<u8> {
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    manifest.to_string().into_bytes()
}

fn make_rootfs(rootfs: &Path) -> Outcome {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root"] {
        fs::create_dir_all(rootfs.join(dir)).map_err(|e| format!("make {}/{dir}: {e}", rootfs.display()))?;
    }
    let busybox = rootfs.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).map_err(|e| format!("copy /bin/busybox (Debian: busybox-static): {e}"))?;
    for applet in ["sh", "true", "sleep", "cat", "echo", "ls"] {
        let link = rootfs.join("bin").join(applet);
        symlink("busybox", &link).map_err(|e| format!("link {}: {e}", link.display()))?;
    }
    write(&rootfs.join("etc/passwd"), b"root:x:0:0:root:/root:/bin/sh\n")?;
    write(&rootfs.join("etc/group"), b"root:x:0:\n")
}

/// Writes a blob under its digest; its descriptor.
pub(super) fn store(blobs: &Path, bytes: Vec<u8>, media_type: &str) -> Outcome<Value> {
    let partial = blobs.join("partial");
    write(&partial, &bytes)?;
    let sum = read(Command::new("sha256sum").arg(&partial))?;
    let hex = sum.split(' ').next().unwrap_or_default();
    fs::rename(&partial, blobs.join(hex)).map_err(|e| format!("rename {}: {e}", partial.display()))?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() }))
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Outcome {
    fs::write(path, bytes).map_err(|e| format!("write {}: {e}", path.display()))
}

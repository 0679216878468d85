//! Images in memory: layers, a config, a manifest; written as an OCI layout for skopeo, or served by
//! [`FakeRegistry`](crate::fake_registry::FakeRegistry).

use std::{fs, io::Write, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tarball::Tarball;

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `…tar`
    Plain,
    /// `…tar+gzip`
    Gzip,
    /// `…tar+zstd`
    Zstd,
}

/// The family of media types of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// OCI image-spec.
    Oci,
    /// Docker schema 2; it has no zstd.
    Docker,
}

/// One blob with its type.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Media type.
    pub media_type: String,
    /// Content.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Its digest.
    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// A complete image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Manifest.
    pub manifest: Blob,
    /// Config.
    pub config: Blob,
    /// Layers, lowest first.
    pub layers: Vec<Blob>,
}

/// Collects what an image is made of.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    flavour: Flavour,
    layers: Vec<Blob>,
    diff_ids: Vec<String>,
    config: Value,
}

impl ImageBuilder {
    /// An image for this architecture without layers.
    pub fn new(flavour: Flavour) -> ImageBuilder {
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"] },
        });
        ImageBuilder { flavour, layers: Vec::new(), diff_ids: Vec::new(), config }
    }

    /// Adds a layer.
    #[must_use]
    pub fn layer(mut self, tar: &[u8], compression: Compression) -> ImageBuilder {
        self.diff_ids.push(digest(tar));
        let media_type = layer_type(self.flavour, compression).to_owned();
        self.layers.push(Blob { media_type, bytes: compress(tar, compression) });
        self
    }

    /// Sets one key of the container's config (`Cmd`, `User`, `Entrypoint` …).
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> ImageBuilder {
        self.config["config"][key] = value;
        self
    }

    /// Sets the architecture.
    #[must_use]
    pub fn architecture(mut self, name: &str) -> ImageBuilder {
        self.config["architecture"] = json!(name);
        self
    }

    /// The image.
    pub fn build(mut self) -> Image {
        self.config["rootfs"] = json!({ "type": "layers", "diff_ids": self.diff_ids });
        let (manifest_type, config_type) = match self.flavour {
            Flavour::Oci => ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"),
            Flavour::Docker => (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            ),
        };
        let config = Blob { media_type: config_type.to_owned(), bytes: self.config.to_string().into_bytes() };
        let layers: Vec<Value> = self.layers.iter().map(Blob::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor(), "layers": layers,
        });
        let manifest = Blob { media_type: manifest_type.to_owned(), bytes: manifest.to_string().into_bytes() };
        Image { manifest, config, layers: self.layers }
    }
}

fn layer_type(flavour: Flavour, compression: Compression) -> &'static str {
    match (flavour, compression) {
        (Flavour::Oci, Compression::Plain) => "application/vnd.oci.image.layer.v1.tar",
        (Flavour::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (_, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        (Flavour::Docker, Compression::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
        (Flavour::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }
}

/// The tar as a layer stores it.
pub fn compress(tar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Plain => tar.to_vec(),
        Compression::Zstd => zstd::encode_all(tar, 1).expect("compress in memory"),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).and_then(|()| encoder.finish()).expect("compress in memory")
        }
    }
}

impl Image {
    /// Writes an OCI layout that `skopeo copy oci:DIR:latest …` reads.
    pub fn write_layout(&self, dir: &Path) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("make the layout's directory");
        for blob in self.layers.iter().chain([&self.manifest, &self.config]) {
            let name = blob.digest().replace("sha256:", "");
            fs::write(blobs.join(name), &blob.bytes).expect("write a blob");
        }
        let mut entry = self.manifest.descriptor();
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        fs::write(dir.join("index.json"), index).expect("write the index");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write the layout file");
    }
}

/// The files of a small system around Debian's static busybox.
pub fn busybox_tree() -> Tarball {
    let busybox = fs::read("/bin/busybox").expect("read /bin/busybox (Debian package busybox-static)");
    let mut tar = Tarball::new();
    for (name, mode) in [("bin/", 0o755), ("etc/", 0o755), ("root/", 0o700), ("tmp/", 0o1777), ("var/", 0o755)] {
        tar = tar.directory(name, mode);
    }
    tar = tar.file("bin/busybox", 0o755, &busybox);
    for applet in APPLETS.split_whitespace() {
        tar = tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    tar = tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n");
    tar = tar.file("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\nmore:x:2000:user\n");
    tar.file("etc/not-executable", 0o644, b"#!/bin/sh\necho never\n")
        .file("bin/no-interpreter", 0o755, b"#!/bin/nowhere\n")
        .file("bin/not-a-program", 0o755, &[0x7f, b'E', b'L', b'F', 9, 9, 9, 9])
}

/// Applets that the tests use.
const APPLETS: &str = "sh ash cat echo env false grep head hostname httpd id ip kill ls mkdir mount nc nslookup ping \
    ps pwd readlink rm route sed seq sleep sort stat stty sync tail tee test touch tr true tty umount uname wc wget yes";

/// A small image of the two layers: busybox, and one file above it.
pub fn busybox(flavour: Flavour) -> Image {
    let top = Tarball::new().directory("srv/", 0o755).file("srv/layer", 0o644, b"second layer\n").finish();
    let builder = ImageBuilder::new(flavour).layer(&busybox_tree().finish(), Compression::Gzip);
    builder.layer(&top, Compression::Gzip).build()
}

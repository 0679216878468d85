//! An image of Debian's nginx, made by mmdebstrap and kept between runs.
//!
//! ```text
//! target/test-cache/nginx-v1/          an OCI layout; written under another name, then renamed
//! ```
//! Delete the directory to have it made again.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    image::{Compression, Flavour, ImageBuilder},
    tarball::Tarball,
};

/// What the server's first page says.
pub const PAGE: &str = "<h1>nginx in a jar</h1>\n";

/// The OCI layout of the image; the first call on a machine takes about a minute.
pub fn layout() -> PathBuf {
    let cache = cache_dir();
    let layout = cache.join("nginx-v1");
    fs::create_dir_all(&cache).expect("make the cache directory");
    let lock = fs::File::create(cache.join("lock")).expect("make the cache's lock file");
    lock.lock().expect("lock the cache");
    if !layout.is_dir() {
        let partial = cache.join(format!("partial-{}", std::process::id()));
        build(&partial);
        fs::rename(&partial, &layout).expect("publish the image in the cache");
    }
    layout
}

fn cache_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("test-cache")
}

fn build(layout: &Path) {
    let base = debian_tree();
    // As Docker's own image does: the log files are the container's streams.
    let site = Tarball::new()
        .file("var/www/html/index.html", 0o644, PAGE.as_bytes())
        .symlink("var/log/nginx/access.log", "/dev/stdout")
        .symlink("var/log/nginx/error.log", "/dev/stderr")
        .file("var/www/html/.wh.index.nginx-debian.html", 0o644, b"")
        .finish();
    let image = ImageBuilder::new(Flavour::Oci)
        .layer(&base, Compression::Gzip)
        .layer(&site, Compression::Gzip)
        .config("Cmd", json!(["nginx", "-g", "daemon off;"]))
        .config("StopSignal", json!("SIGQUIT"))
        .config("ExposedPorts", json!({ "80/tcp": {} }))
        .build();
    image.write_layout(layout);
}

/// Runs mmdebstrap in the host's own network: the private one of a test has no way out.
fn debian_tree() -> Vec<u8> {
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=essential", "--include=nginx-light"]);
    for tree in ["man", "locale", "doc"] {
        make.arg(format!("--dpkgopt=path-exclude=/usr/share/{tree}/*"));
    }
    make.args(["bookworm", "-", "http://deb.debian.org/debian"]);
    let output = make.stdin(Stdio::null()).output().expect("start mmdebstrap (Debian package mmdebstrap)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mmdebstrap failed with {}:\n{errors}", output.status);
    output.stdout
}

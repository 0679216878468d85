//! A registry in a thread, on loopback, that misbehaves on demand; and images made by hand.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use onggi_image::{
    BlobStore, ImageError, LayerReady, PullOptions, PulledImage, RemoteOptions, RetryPolicy, Timeouts, digest_of, pull,
};
use onggi_spec::{Digest, ImageReference, image::media_type, progress::Silent};
use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
    /// The same, as it came.
    pub bytes: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As announced.
    Whole,
    /// The connection is closed after so many bytes.
    CutAfter(usize),
    /// Content-Length says something else; then everything is sent.
    Announce(u64),
    /// Chunked, then the body again and again until the client leaves.
    Endless,
    /// Nothing more after so many bytes, with the connection open.
    StallAfter(usize),
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub delivery: Delivery,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), delivery: Delivery::Whole }
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    pub fn error(status: u16, code: &str) -> Self {
        Self::new(status).body(format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#))
    }
}

/// Content of a repository: `(manifest selector → (type, bytes))` and blobs.
#[derive(Default, Clone)]
pub struct Content {
    pub manifests: HashMap<String, (String, Vec<u8>)>,
    pub blobs: HashMap<Digest, Vec<u8>>,
}

type Hook = dyn Fn(&Seen, usize) -> Option<Reply> + Send + Sync;

struct Shared {
    content: Mutex<Content>,
    hook: Box<Hook>,
    log: Mutex<Vec<Seen>>,
    ended: AtomicBool,
}

pub struct FakeRegistry {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeRegistry {
    /// Serves what is put into it.
    pub fn start() -> Self {
        Self::with_hook(|_, _| None)
    }

    /// `hook` sees every request with the number of earlier requests for the same method and path, and may answer itself.
    pub fn with_hook(hook: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", hook)
    }

    pub fn at(address: &str, hook: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("bind a loopback port");
        let address = listener.local_addr().expect("own address");
        let shared = Arc::new(Shared {
            content: Mutex::default(),
            hook: Box::new(hook),
            log: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if server.ended.load(Ordering::Relaxed) {
                    return;
                }
                let server = Arc::clone(&server);
                thread::spawn(move || converse(&server, stream));
            }
        });
        Self { address, shared }
    }

    pub fn reference(&self, tail: &str) -> ImageReference {
        format!("{}/{tail}", self.address).parse().expect("a reference")
    }

    pub fn put(&self, tag: &str, image: &TestImage) {
        let mut content = self.shared.content.lock().expect("content");
        content.manifests.insert(tag.to_owned(), (image.manifest_type.clone(), image.manifest.clone()));
        content
            .manifests
            .insert(digest_of(&image.manifest).to_string(), (image.manifest_type.clone(), image.manifest.clone()));
        content.blobs.extend(image.blobs.iter().map(|b| (digest_of(b), b.clone())));
    }

    pub fn put_manifest(&self, selector: &str, media: &str, bytes: &[u8]) {
        let mut content = self.shared.content.lock().expect("content");
        content.manifests.insert(selector.to_owned(), (media.to_owned(), bytes.to_vec()));
    }

    pub fn put_blob(&self, digest: &Digest, bytes: &[u8]) {
        self.shared.content.lock().expect("content").blobs.insert(digest.clone(), bytes.to_vec());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.log.lock().expect("log").clone()
    }

    /// `METHOD path` of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.seen().iter().map(|s| format!("{} {}", s.method, s.path())).collect()
    }

    pub fn forget(&self) {
        self.shared.log.lock().expect("log").clear();
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(shared: &Shared, stream: TcpStream) {
    // Header and body are two writes: without this, every answer waits for a delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read_request(&mut reader) {
        let before = {
            let mut log = shared.log.lock().expect("log");
            let before = log.iter().filter(|s| s.method == seen.method && s.path() == seen.path()).count();
            log.push(seen.clone());
            before
        };
        let reply = (shared.hook)(&seen, before).unwrap_or_else(|| serve(shared, &seen));
        if !send(&mut writer, &seen, &reply) {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|v: &String| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, target, headers, body: String::from_utf8_lossy(&body).into_owned(), bytes: body })
}

fn serve(shared: &Shared, seen: &Seen) -> Reply {
    let content = shared.content.lock().expect("content");
    let (_, kind, name) = split_target(seen.path());
    match kind {
        "manifests" => match content.manifests.get(name) {
            Some((media, bytes)) => Reply::new(200)
                .header("Content-Type", media)
                .header("Docker-Content-Digest", digest_of(bytes).to_string())
                .body(bytes.clone()),
            None => Reply::error(404, "MANIFEST_UNKNOWN"),
        },
        "blobs" => match name.parse().ok().and_then(|d: Digest| content.blobs.get(&d)) {
            Some(bytes) => ranged(seen, bytes),
            None => Reply::error(404, "BLOB_UNKNOWN"),
        },
        "tags" if !content.manifests.is_empty() => Reply::new(200).body("{}"),
        _ => Reply::error(404, "NAME_UNKNOWN"),
    }
}

/// `/v2/<repository>/<kind>/<name>`
fn split_target(path: &str) -> (&str, &str, &str) {
    let (head, name) = path.rsplit_once('/').unwrap_or_default();
    let (repository, kind) = head.rsplit_once('/').unwrap_or_default();
    (repository, kind, name)
}

pub fn ranged(seen: &Seen, bytes: &[u8]) -> Reply {
    let start =
        seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.trim_end_matches('-').parse::<usize>().ok());
    match start {
        Some(start) if start < bytes.len() => Reply::new(206)
            .header("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
            .body(&bytes[start..]),
        _ => Reply::new(200).body(bytes),
    }
}

/// False when the connection is at its end.
fn send(writer: &mut TcpStream, seen: &Seen, reply: &Reply) -> bool {
    let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match reply.delivery {
        Delivery::Endless => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
        Delivery::Announce(n) => head.push_str(&format!("Content-Length: {n}\r\n\r\n")),
        _ => head.push_str(&format!("Content-Length: {}\r\n\r\n", reply.body.len())),
    }
    if writer.write_all(head.as_bytes()).is_err() {
        return false;
    }
    if seen.method == "HEAD" {
        return true;
    }
    match reply.delivery {
        Delivery::Whole | Delivery::Announce(_) => {
            writer.write_all(&reply.body).is_ok() && reply.delivery == Delivery::Whole
        }
        Delivery::CutAfter(n) => {
            let _ = writer.write_all(&reply.body[..n]);
            false
        }
        Delivery::StallAfter(n) => {
            let _ = writer.write_all(&reply.body[..n]);
            // Until the client leaves.
            let _ = writer.read(&mut [0; 1]);
            false
        }
        Delivery::Endless => {
            while write!(writer, "{:x}\r\n", reply.body.len()).is_ok()
                && writer.write_all(&reply.body).is_ok()
                && writer.write_all(b"\r\n").is_ok()
            {}
            false
        }
    }
}

/// An image: what a registry would hold of it.
#[derive(Debug, Clone)]
pub struct TestImage {
    pub manifest_type: String,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// Configuration and layers.
    pub blobs: Vec<Vec<u8>>,
    pub layers: Vec<Vec<u8>>,
}

pub fn descriptor(media: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media, "digest": digest_of(bytes).to_string(), "size": bytes.len()})
}

pub fn config_json(architecture: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| digest_of(l).to_string()).collect();
    let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    config.to_string().into_bytes()
}

/// An OCI image with plain layers of this content (nothing here unpacks them).
pub fn image(layers: &[&[u8]]) -> TestImage {
    image_for("amd64", layers)
}

pub fn image_for(architecture: &str, layers: &[&[u8]]) -> TestImage {
    let layers: Vec<Vec<u8>> = layers.iter().map(|l| l.to_vec()).collect();
    let config = config_json(architecture, &layers);
    let listed: Vec<Value> = layers.iter().map(|l| descriptor(media_type::OCI_LAYER, l)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, &config), "layers": listed});
    let blobs = std::iter::once(config.clone()).chain(layers.clone()).collect();
    let manifest = manifest.to_string().into_bytes();
    TestImage { manifest_type: media_type::OCI_MANIFEST.to_owned(), manifest, config, blobs, layers }
}

pub fn index(entries: &[(&str, &TestImage)]) -> Vec<u8> {
    let manifests: Vec<Value> = entries
        .iter()
        .map(|(architecture, image)| {
            let mut entry = descriptor(&image.manifest_type, &image.manifest);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests}).to_string().into_bytes()
}

/// Quick to give up, for tests.
pub fn options() -> PullOptions {
    let platform = onggi_spec::image::Platform {
        architecture: "amd64".into(),
        os: "linux".into(),
        variant: None,
        os_version: None,
    };
    PullOptions { platform, remote: remote(), ..PullOptions::default() }
}

/// Quick options with a change to how the registry is talked to.
pub fn with(change: impl FnOnce(&mut RemoteOptions)) -> PullOptions {
    let mut options = options();
    change(&mut options.remote);
    options
}

/// Quick to give up.
pub fn remote() -> RemoteOptions {
    RemoteOptions {
        retry: RetryPolicy { attempts: 3, base: Duration::from_millis(5), longest: Duration::from_secs(1) },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(5),
            read: Duration::from_millis(500),
        },
        ..RemoteOptions::default()
    }
}

pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: BlobStore,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = BlobStore::open(&dir.path().join("root")).expect("a store");
        Self { dir, store }
    }

    pub fn pull(&self, reference: &ImageReference) -> Result<PulledImage, ImageError> {
        self.pull_with(reference, options())
    }

    pub fn pull_with(&self, reference: &ImageReference, options: PullOptions) -> Result<PulledImage, ImageError> {
        pull(&self.store, reference, options, &Silent, &|_: LayerReady<'_>| ControlFlow::Continue(()))
    }

    /// Blobs in the store, and whether a temporary is left.
    pub fn stored(&self) -> Vec<Digest> {
        let left: Vec<_> = std::fs::read_dir(self.dir.path().join("root/tmp")).expect("tmp").collect();
        assert!(left.is_empty(), "temporaries are left: {left:?}");
        self.store.list().expect("a list").into_iter().map(|(digest, _)| digest).collect()
    }
}

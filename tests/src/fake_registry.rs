//! A registry that can lie: serves images from memory, and breaks answers where a test asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::image::{Blob, Image};

/// How an answer is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The last byte is another one.
    WrongContent,
    /// The connection ends after half of the promised bytes.
    Truncated,
    /// 500 for this request, every time.
    ServerError,
    /// 429 the first time only.
    TooManyRequestsOnce,
}

#[derive(Default)]
struct State {
    /// Path → answer.
    routes: BTreeMap<String, Blob>,
    faults: BTreeMap<String, Fault>,
    asked: Vec<String>,
    once: BTreeSet<String>,
}

/// A registry on a loopback port, until the test ends.
#[derive(Clone)]
pub struct FakeRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Default for FakeRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeRegistry {
    /// Starts an empty one.
    pub fn new() -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
        let address = listener.local_addr().expect("the port's address");
        let registry = FakeRegistry { address, state: Arc::default() };
        let server = registry.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A client that goes away is its own affair.
                thread::spawn(move || server.answer(&stream).ok());
            }
        });
        registry
    }

    /// `127.0.0.1:PORT/name`.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Serves an image under `name:tag` and its digest; returns the reference to pull.
    pub fn serve(&self, name: &str, tag: &str, image: &Image) -> String {
        let mut state = self.state.lock().expect("the registry's threads do not panic");
        let manifests = format!("/v2/{name}/manifests");
        state.routes.insert(format!("{manifests}/{tag}"), image.manifest.clone());
        state.routes.insert(format!("{manifests}/{}", image.manifest.digest()), image.manifest.clone());
        for blob in image.layers.iter().chain([&image.config]) {
            let path = format!("/v2/{name}/blobs/{}", blob.digest());
            let media_type = "application/octet-stream".to_owned();
            state.routes.insert(path, Blob { media_type, bytes: blob.bytes.clone() });
        }
        drop(state);
        format!("{}:{tag}", self.name(name))
    }

    /// Serves any answer at a path.
    pub fn route(&self, path: &str, blob: Blob) {
        self.state.lock().expect("the registry's threads do not panic").routes.insert(path.to_owned(), blob);
    }

    /// Breaks the answers to every path that ends with `ending`.
    pub fn break_answers(&self, ending: &str, fault: Fault) {
        self.state.lock().expect("the registry's threads do not panic").faults.insert(ending.to_owned(), fault);
    }

    /// Answers truthfully from now on.
    pub fn repair(&self) {
        self.state.lock().expect("the registry's threads do not panic").faults.clear();
    }

    /// Every path that was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().expect("the registry's threads do not panic").asked.clone()
    }

    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, blob, fault) = self.find(path);
        write_answer(stream, method == "HEAD", status, &blob, fault)
    }

    fn find(&self, path: &str) -> (&'static str, Blob, Option<Fault>) {
        let error = |text: &str| Blob { media_type: "application/json".to_owned(), bytes: text.into() };
        let mut state = self.state.lock().expect("the registry's threads do not panic");
        state.asked.push(path.to_owned());
        let fault = state.faults.iter().find(|(ending, _)| path.ends_with(ending.as_str())).map(|(_, fault)| *fault);
        match fault {
            Some(Fault::ServerError) => return ("500 Internal Server Error", error("{}"), None),
            Some(Fault::TooManyRequestsOnce) if state.once.insert(path.to_owned()) => {
                return ("429 Too Many Requests", error("{}"), None);
            }
            _ => {}
        }
        match state.routes.get(path) {
            Some(blob) => ("200 OK", blob.clone(), fault),
            None if path == "/v2/" => ("200 OK", error("{}"), None),
            None => ("404 Not Found", error(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#), None),
        }
    }
}

fn write_answer(
    mut stream: &TcpStream,
    head: bool,
    status: &str,
    blob: &Blob,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let mut body = blob.bytes.clone();
    let length = body.len();
    match fault {
        Some(Fault::WrongContent) => {
            if let Some(last) = body.last_mut() {
                *last ^= 1;
            }
        }
        Some(Fault::Truncated) => body.truncate(length / 2),
        _ => {}
    }
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {length}\r\nDocker-Content-Digest: {}\r\n\
         Docker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\n\r\n",
        blob.media_type,
        blob.digest(),
    )?;
    if head { Ok(()) } else { stream.write_all(&body) }
}

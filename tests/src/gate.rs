//! An HTTP server of a few lines that answers as a test wants, or passes requests on to a real registry and breaks them
//! on the way: token services, search, redirects, connections that end too early. Plain std, one request a connection.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
    /// Earlier requests of the same method and path.
    pub before: usize,
}

impl Asked {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// It goes to the registry behind.
    Forward,
    /// It goes there, and the connection ends after so many bytes of the answer's body.
    Cut(usize),
    /// It goes there, and the answer comes so much later.
    Late(Duration),
    /// This is the answer: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// An answer that never ends: one byte now and then.
    Endless,
}

impl Act {
    /// An answer of JSON.
    pub fn json(status: u16, body: &serde_json::Value) -> Act {
        Act::Answer(status, vec![("Content-Type", "application/json".to_owned())], body.to_string().into_bytes())
    }

    /// A redirect.
    pub fn redirect(status: u16, to: &str) -> Act {
        Act::Answer(status, vec![("Location", to.to_owned())], Vec::new())
    }

    /// 401 with a challenge.
    pub fn challenge(challenge: &str) -> Act {
        Act::Answer(401, vec![("WWW-Authenticate", challenge.to_owned())], b"{}".to_vec())
    }
}

type Rule = dyn Fn(&Asked) -> Act + Send + Sync;

/// A server on a loopback address, until the test ends.
pub struct Gate {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Gate {
    /// Serves on 127.0.0.1; `behind` is the port of the registry that requests are passed on to.
    pub fn new(behind: u16, rule: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Gate {
        Self::at("127.0.0.1:0", behind, rule)
    }

    /// Serves on an address: another one of loopback is another host.
    pub fn at(address: &str, behind: u16, rule: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Gate {
        let listener = TcpListener::bind(address).expect("bind a loopback port");
        let gate = Gate { address: listener.local_addr().expect("the port's address"), seen: Arc::default() };
        let (seen, rule): (_, Arc<Rule>) = (Arc::clone(&gate.seen), Arc::new(rule));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, rule) = (Arc::clone(&seen), Arc::clone(&rule));
                // A client that goes away is its own affair.
                thread::spawn(move || serve(stream, behind, &seen, &*rule).ok());
            }
        });
        gate
    }

    /// `127.0.0.1:PORT/name`.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Asked> {
        self.seen.lock().expect("no thread panics with it").clone()
    }

    /// `METHOD path` of every request so far that contains the text.
    pub fn asked(&self, text: &str) -> Vec<String> {
        let all = self.seen().into_iter().map(|a| format!("{} {}", a.method, a.target));
        all.filter(|line| line.contains(text)).collect()
    }
}

fn serve(stream: TcpStream, behind: u16, seen: &Mutex<Vec<Asked>>, rule: &Rule) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(mut asked) = read(&mut reader)? else { return Ok(()) };
    {
        let mut seen = seen.lock().expect("no thread panics with it");
        asked.before = seen.iter().filter(|a| a.method == asked.method && a.path() == asked.path()).count();
        seen.push(asked.clone());
    }
    let mut out = stream;
    match rule(&asked) {
        Act::Answer(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} X\r\nDocker-Distribution-Api-Version: registry/2.0\r\n");
            headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
            head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
            out.write_all(head.as_bytes())?;
            if asked.method == "HEAD" { Ok(()) } else { out.write_all(&body) }
        }
        Act::Endless => {
            out.write_all(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")?;
            loop {
                out.write_all(b"1\r\nx\r\n")?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        Act::Forward => pass(&asked, behind, &mut out, usize::MAX),
        Act::Cut(after) => pass(&asked, behind, &mut out, after),
        Act::Late(wait) => {
            thread::sleep(wait);
            pass(&asked, behind, &mut out, usize::MAX)
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Asked { method, target, headers, body, before: 0 }))
}

/// The request to the registry behind, its answer back, the body up to `limit` bytes.
fn pass(asked: &Asked, behind: u16, out: &mut TcpStream, limit: usize) -> io::Result<()> {
    let mut registry = TcpStream::connect(("127.0.0.1", behind))?;
    let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
    for (name, value) in asked.headers.iter().filter(|(name, _)| *name != "connection" && *name != "authorization") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    registry.write_all(head.as_bytes())?;
    registry.write_all(&asked.body)?;
    let mut answer = BufReader::new(registry);
    loop {
        let mut line = String::new();
        answer.read_line(&mut line)?;
        out.write_all(line.as_bytes())?;
        if line.trim_end().is_empty() {
            break;
        }
    }
    io::copy(&mut answer.take(limit as u64), out).map(drop)
}

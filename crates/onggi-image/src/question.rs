//! What does a tag stand for? Asked at once and listened to later, so that whoever asks can do something else while
//! the registry thinks, without a thread for it.
//!
//! Only a registry at an address of this machine is asked this way: nothing is looked up, no proxy stands between, and
//! plain HTTP comes first there anyhow ([`crate::exchange`]). The answer is a digest or nothing. Whatever else the registry may
//! have said (a challenge, a redirect, TLS, an error) is left to the client proper, which asks again.
//! RFC 9112 (messages), distribution-spec 1.1 ("Checking if content exists").

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use onggi_spec::{Digest, ImageReference, image::media_type};

use crate::{http::USER_AGENT, options::RemoteOptions, pull::PullOptions, url};

/// Longest header of an answer that is read; registries send some 400 bytes.
const MAX_ANSWER: usize = 16 << 10;
/// Room for the usual answer.
const USUAL_ANSWER: usize = 1 << 10;
/// The port of plain HTTP.
const PORT: u16 = 80;

/// A request that was sent and whose answer was not read.
#[derive(Debug)]
pub struct Question {
    stream: TcpStream,
    until: Instant,
}

impl Question {
    /// Asks the first source of a pull. `None` when that is no registry of this kind, when it wants credentials, when the
    /// reference is a digest, which needs no question, or when nobody is there.
    pub fn send(reference: &ImageReference, options: &PullOptions) -> Option<Self> {
        let own = (options.location.as_ref().unwrap_or(reference), &options.remote);
        let (name, remote) = options.mirrors.first().map_or(own, |mirror| (&mirror.reference, &mirror.remote));
        let place = address(name.registry())?;
        let RemoteOptions { credentials: None, identity: None, timeouts, .. } = remote else { return None };
        if name.digest().is_some() {
            return None;
        }
        let until = Instant::now() + timeouts.response;
        let mut stream = TcpStream::connect_timeout(&place, timeouts.connect).ok()?;
        stream.write_all(request(name).as_bytes()).ok()?;
        Some(Self { stream, until })
    }

    /// The digest that the registry tells; waits for it.
    pub fn answer(mut self) -> Option<Digest> {
        let mut header = Vec::with_capacity(USUAL_ANSWER);
        let mut part = [0; USUAL_ANSWER];
        while header.len() < MAX_ANSWER {
            let left = self.until.saturating_duration_since(Instant::now());
            // A timeout of zero would be none.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).ok()?;
            let count = self.stream.read(&mut part).ok().filter(|count| *count > 0 && !left.is_zero())?;
            header.extend_from_slice(&part[..count]);
            if let Some(end) = header.windows(4).position(|four| four == b"\r\n\r\n") {
                return told(std::str::from_utf8(&header[..end]).ok()?);
            }
        }
        None
    }
}

/// The address of `127.0.0.1:5000` or `[::1]`.
fn address(registry: &str) -> Option<SocketAddr> {
    let whole = registry.parse::<SocketAddr>().ok();
    let place = whole.or_else(|| Some(SocketAddr::new(url::address(registry)?, PORT)))?;
    place.ip().is_loopback().then_some(place)
}

/// The same question as [`Remote::head`](crate::Remote::head) asks, of a connection for nothing else. What it is made of follows the
/// grammar of references.
fn request(name: &ImageReference) -> String {
    format!(
        "HEAD /v2/{}/manifests/{} HTTP/1.1\r\nhost: {}\r\nuser-agent: {USER_AGENT}\r\naccept: {}\r\nconnection: close\r\n\r\n",
        name.repository(),
        name.selector(),
        name.registry(),
        media_type::ACCEPTED.join(", "),
    )
}

/// The digest in the header of an answer, if it says without any doubt that this is the one.
fn told(header: &str) -> Option<Digest> {
    let mut lines = header.split("\r\n");
    let mut status = lines.next()?.split(' ');
    if !matches!(status.next(), Some("HTTP/1.1" | "HTTP/1.0")) || status.next() != Some("200") {
        return None;
    }
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("docker-content-digest").then(|| value.trim().parse::<Digest>().ok())
    };
    let mut digests = lines.filter_map(value);
    let digest = digests.next()??;
    digests.all(|other| other.as_ref() == Some(&digest)).then_some(digest)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn digest() -> Digest {
        DIGEST.parse().unwrap()
    }

    /// Asks a listener that sends these pieces, and shows what it was asked.
    fn asked(pieces: Vec<String>) -> (String, Option<Digest>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{}/some/app:one", listener.local_addr().unwrap()).parse().unwrap();
        let registry = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).unwrap();
            for piece in pieces {
                // Whoever has heard enough goes away.
                let _ = stream.write_all(piece.as_bytes());
                thread::sleep(Duration::from_millis(5));
            }
            String::from_utf8(request[..count].to_vec()).unwrap()
        });
        let answer = Question::send(&name, &PullOptions::default()).expect("a registry here is asked").answer();
        (registry.join().unwrap(), answer)
    }

    #[test]
    fn only_a_registry_at_an_address_of_this_machine_is_asked_ahead() {
        for (registry, found) in [
            ("127.0.0.1:5000", Some("127.0.0.1:5000")),
            ("127.3.2.1", Some("127.3.2.1:80")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("[::1]", Some("[::1]:80")),
            ("localhost:5000", None),
            ("10.0.0.1:5000", None),
            ("127.0.0.1.example:5000", None),
            ("docker.io", None),
        ] {
            assert_eq!(address(registry).map(|a| a.to_string()).as_deref(), found, "{registry}");
        }
    }

    #[test]
    fn the_digest_is_taken_from_a_whole_header_in_however_many_pieces() {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nDOCKER-content-digest:  {DIGEST} \r\n\r\n");
        let (request, answer) = asked(vec![text.clone()]);
        assert_eq!(answer, Some(digest()));
        assert!(request.starts_with("HEAD /v2/some/app/manifests/one HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
        assert!(request.contains("application/vnd.oci.image.index.v1+json") && request.ends_with("\r\n\r\n"));
        let (first, second) = text.split_at(text.len() - 3);
        assert_eq!(asked(vec![first.to_owned(), second.to_owned()]).1, Some(digest()));
    }

    #[test]
    fn whatever_is_not_plainly_an_answer_is_none() {
        let with = |status: &str, lines: &str| vec![format!("{status}\r\n{lines}\r\n")];
        let line = format!("docker-content-digest: {DIGEST}\r\n");
        let second = format!("{line}Docker-Content-Digest: {}\r\n", DIGEST.replace("aaaa", "bbbb"));
        for pieces in [
            with("HTTP/1.1 304 Not Modified", &line),
            with("HTTP/1.1 401 Unauthorized", "www-authenticate: Basic realm=x\r\n"),
            with("HTTP/1.1 404 Not Found", &line),
            with("HTTP/1.1 307 Temporary Redirect", &format!("location: http://127.0.0.1:1/\r\n{line}")),
            with("HTTP/1.1 200 OK", ""),
            with("HTTP/1.1 200 OK", "docker-content-digest: sha256:short\r\n"),
            with("HTTP/1.1 200 OK", &second),
            with("SSH-2.0-x 200", &line),
            // Cut off before its end.
            vec![format!("HTTP/1.1 200 OK\r\n{line}")],
            vec!["x".repeat(MAX_ANSWER + USUAL_ANSWER)],
            vec![],
        ] {
            assert_eq!(asked(pieces.clone()).1, None, "{pieces:?}");
        }
    }

    #[test]
    fn a_registry_that_says_nothing_is_not_waited_for_longer_than_any_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = format!("{}/app:one", listener.local_addr().unwrap()).parse().unwrap();
        let mut options = PullOptions::default();
        options.remote.timeouts.response = Duration::from_millis(50);
        let before = Instant::now();
        assert_eq!(Question::send(&name, &options).unwrap().answer(), None);
        assert!(before.elapsed() >= Duration::from_millis(40) && before.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_digest_credentials_and_an_empty_port_are_no_question() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let tag: ImageReference = format!("{place}/app:one").parse().unwrap();
        assert!(Question::send(&tag, &PullOptions::default()).is_some());
        let by_digest = format!("{place}/app@{DIGEST}").parse().unwrap();
        assert!(Question::send(&by_digest, &PullOptions::default()).is_none());
        let mut options = PullOptions::default();
        options.remote.credentials = Some(crate::Credentials::IdentityToken("secret".to_owned()));
        assert!(Question::send(&tag, &options).is_none());
        drop(listener);
        assert!(Question::send(&tag, &PullOptions::default()).is_none());
    }
}

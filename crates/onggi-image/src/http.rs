//! One HTTP request at a time on top of `ureq`: the only module that knows that library's configuration.
//!
//! It follows no redirect, treats no status as an error, adds no credentials, reads no environment, and gives
//! every phase a time limit.

use std::{io::Read as _, time::Duration};

use ureq::{
    Agent, AsSendBody, Body, Error, Proxy, SendBody, Timeout,
    config::AutoHeaderValue,
    http::{Method, Request, Response, Uri, request::Builder},
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector as _, TcpConnector},
    },
};

use crate::{
    content::Content,
    error::{FailureKind, ImageError, TransportError, innermost},
    lookup::Names,
    options::ClientIdentity,
    tls::Tls,
    url::{self, Origin},
};

/// What we say that we are.
pub(crate) const USER_AGENT: &str = concat!("onggi/", env!("CARGO_PKG_VERSION"));
/// Socket buffer of the client library. It is filled with zeros for each connection, also for one that only asks for a
/// digest, so it is no larger than a blob needs: a read of 64 KiB costs many times what the call itself does.
const INPUT_BUFFER: usize = 64 << 10;
/// The same for uploads.
const OUTPUT_BUFFER: usize = 64 << 10;
/// The same where only questions are sent; a whole request header fits, token included.
const QUESTION_BUFFER: usize = 40 << 10;
/// Largest response header, in bytes: signed URLs and tokens stay below 16 KiB (I12).
const MAX_HEADER: usize = 64 << 10;
/// The C library can load what the machine looks names up with.
const LOADS_MODULES: bool = !cfg!(target_feature = "crt-static");
/// How std begins what it says when a name cannot be resolved.
const LOOKUP: &str = "failed to lookup address information";
/// A registry that got the last byte of a blob may hash it once more before it answers.
const AFTER_UPLOAD: Duration = Duration::from_secs(300);

/// Time limits of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, and (separately) TCP and TLS handshake.
    pub connect: Duration,
    /// From the request to the end of the response's header.
    pub response: Duration,
    /// Between two arrivals of body bytes.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(8), response: Duration::from_secs(30), read: Duration::from_secs(30) }
    }
}

/// Proxies as the caller found them in its environment; loopback registries never use one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// For `https` URLs: `HTTPS_PROXY`.
    pub https: Option<String>,
    /// For `http` URLs: `HTTP_PROXY`.
    pub http: Option<String>,
    /// Comma-separated hosts to reach directly: `NO_PROXY`.
    pub no_proxy: String,
}

impl ProxySettings {
    /// From variables looked up by the caller; lower-case names win, as in curl.
    pub fn from_vars(var: &dyn Fn(&str) -> Option<String>) -> Self {
        let get = |lower: &str, upper: &str| var(lower).or_else(|| var(upper)).filter(|v| !v.is_empty());
        Self {
            https: get("https_proxy", "HTTPS_PROXY").or_else(|| get("all_proxy", "ALL_PROXY")),
            http: get("http_proxy", "HTTP_PROXY").or_else(|| get("all_proxy", "ALL_PROXY")),
            no_proxy: get("no_proxy", "NO_PROXY").unwrap_or_default(),
        }
    }
}

/// What a request carries.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'c> {
    /// No body at all.
    None,
    /// A body of no bytes.
    Empty,
    /// An encoded form.
    Form(&'c str),
    /// A document.
    Document {
        /// Its media type.
        media_type: &'c str,
        /// It.
        bytes: &'c [u8],
    },
    /// Bytes of a blob.
    Part {
        /// The blob.
        content: &'c dyn Content,
        /// First byte.
        from: u64,
        /// How many.
        length: u64,
    },
}

/// Sends requests, directly or through the proxy of the URL's scheme. Connections are reused.
#[derive(Debug)]
pub(crate) struct HttpClient {
    direct: Agent,
    https: Agent,
    http: Agent,
}

impl HttpClient {
    /// `authorities` are PEM texts that are trusted beside the system's own; `uploads` tells whether blobs are sent.
    pub(crate) fn new(
        uploads: bool,
        tls_verify: bool,
        authorities: &[String],
        identity: Option<&ClientIdentity>,
        timeouts: Timeouts,
        proxies: &ProxySettings,
    ) -> Result<Self, ImageError> {
        let tls = Tls::new(tls_verify, authorities, identity)?;
        let direct = agent(uploads, &tls, timeouts, None);
        let through = |setting: &Option<String>| match setting {
            Some(url) => proxy(url, &proxies.no_proxy).map(|p| agent(uploads, &tls, timeouts, Some(p))),
            None => Ok(direct.clone()),
        };
        Ok(Self { https: through(&proxies.https)?, http: through(&proxies.http)?, direct: direct.clone() })
    }

    /// Sends one request.
    pub(crate) fn send(
        &self,
        method: &'static str,
        uri: &Uri,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<Response<Body>, TransportError> {
        let fail = |source| TransportError {
            method,
            url: url::display(uri),
            kind: classify(&source),
            source: innermost(source),
        };
        let agent = match Origin::of(uri) {
            Some(origin) if origin.is_loopback() => &self.direct,
            Some(origin) if origin.tls => &self.https,
            _ => &self.http,
        };
        let mut request = Request::builder().method(verb(method)).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match payload {
            Payload::None => run(agent, request, (), None),
            Payload::Empty => run(agent, request, &[][..], None),
            Payload::Form(form) => {
                run(agent, request.header("content-type", "application/x-www-form-urlencoded"), form, None)
            }
            Payload::Document { media_type, bytes } => {
                run(agent, request.header("content-type", media_type), bytes, None)
            }
            Payload::Part { content, from, length } => {
                let mut reader = content.open(from).map_err(|e| fail(e.into()))?.take(length);
                let request =
                    request.header("content-type", "application/octet-stream").header("content-length", length);
                run(agent, request, SendBody::from_reader(&mut reader), Some(AFTER_UPLOAD))
            }
        }
        .map_err(fail)
    }
}

fn verb(method: &str) -> Method {
    match method {
        "HEAD" => Method::HEAD,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        _ => Method::GET,
    }
}

fn run(
    agent: &Agent,
    request: Builder,
    body: impl AsSendBody,
    patience: Option<Duration>,
) -> Result<Response<Body>, Error> {
    let request = request.body(body)?;
    // Looking a name up within a time limit takes a thread, which an address is spared.
    let address = agent.config().proxy().is_none() && is_address(request.uri());
    if patience.is_none() && !address {
        return agent.run(request);
    }
    let mut request = agent.configure_request(request);
    if address {
        request = request.timeout_resolve(None);
    }
    if let Some(wait) = patience {
        request = request.timeout_recv_response(Some(wait)).timeout_per_read(Some(wait));
    }
    agent.run(request.build())
}

/// The host is a number, not a name.
fn is_address(uri: &Uri) -> bool {
    url::address(uri.host().unwrap_or_default()).is_some()
}

fn agent(uploads: bool, tls: &Tls, timeouts: Timeouts, proxy: Option<Proxy>) -> Agent {
    let config = Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(USER_AGENT)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .max_response_header_size(MAX_HEADER)
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(if uploads { OUTPUT_BUFFER } else { QUESTION_BUFFER })
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_recv_response(Some(timeouts.response))
        .timeout_per_read(Some(timeouts.read))
        .timeout_per_write(Some(timeouts.response))
        .build();
    let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls.clone());
    match LOADS_MODULES {
        true => Agent::with_parts(config, connector, DefaultResolver::default()),
        false => Agent::with_parts(config, connector, Names::default()),
    }
}

fn proxy(setting: &str, no_proxy: &str) -> Result<Proxy, ImageError> {
    let fail = |source| ImageError::Setup { what: "the configured proxy".to_owned(), source: Box::new(source) };
    let parsed = Proxy::new(setting).map_err(fail)?;
    let mut builder = Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
    if let Some(user) = parsed.username() {
        builder = builder.username(user);
    }
    if let Some(password) = parsed.password() {
        builder = builder.password(password);
    }
    for entry in no_proxy.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        builder = builder.no_proxy(entry);
    }
    builder.build().map_err(fail)
}

/// The class of a failure, for retry decisions and hints.
pub(crate) fn classify(error: &Error) -> FailureKind {
    use std::io::ErrorKind as Io;
    match error {
        Error::HostNotFound => FailureKind::Resolve,
        Error::Timeout(Timeout::Resolve) => FailureKind::Resolve,
        Error::Timeout(_) => FailureKind::Timeout,
        Error::TlsRequired => FailureKind::Tls,
        Error::Protocol(_) | Error::LargeResponseHeader(..) => FailureKind::Protocol,
        Error::InvalidProxyUrl | Error::ConnectProxyFailed(_) => FailureKind::Proxy,
        Error::Io(e) => match e.kind() {
            Io::ConnectionRefused
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::AddrNotAvailable => FailureKind::Connect,
            Io::TimedOut | Io::WouldBlock => FailureKind::Timeout,
            // rustls reports what a non-TLS peer sends this way.
            Io::InvalidData => FailureKind::Tls,
            // getaddrinfo(3) has error numbers of its own, for which std has this text alone.
            _ if e.raw_os_error().is_none() && e.to_string().starts_with(LOOKUP) => FailureKind::Resolve,
            _ => FailureKind::Broken,
        },
        Error::ConnectionFailed => FailureKind::Connect,
        _ => FailureKind::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_found_as_curl_finds_them() {
        let vars = |pairs: &'static [(&str, &str)]| {
            ProxySettings::from_vars(&move |n: &str| pairs.iter().find(|(k, _)| *k == n).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(vars(&[]), ProxySettings::default());
        assert_eq!(vars(&[("HTTPS_PROXY", "a"), ("https_proxy", "b")]).https.as_deref(), Some("b"));
        let all = vars(&[("ALL_PROXY", "c"), ("HTTP_PROXY", "d"), ("NO_PROXY", "x,y"), ("https_proxy", "")]);
        assert_eq!((all.https.as_deref(), all.http.as_deref(), &*all.no_proxy), (Some("c"), Some("d"), "x,y"));
    }

    #[test]
    fn an_address_is_told_from_a_name() {
        for (url, address) in [
            ("http://127.0.0.1:5000/v2/", true),
            ("https://[::1]:5000/v2/", true),
            ("https://[fe80::1]/", true),
            ("http://localhost:5000/v2/", false),
            ("https://registry-1.docker.io/v2/", false),
            ("https://127.0.0.1.example/", false),
        ] {
            assert_eq!(is_address(&url.parse().unwrap()), address, "{url}");
        }
    }

    #[test]
    fn a_name_without_an_address_is_told_from_a_broken_connection() {
        use std::net::ToSocketAddrs;
        let unknown = ("nothing.invalid", 443).to_socket_addrs().expect_err("RFC 6761: there is no such host");
        assert_eq!(classify(&Error::Io(unknown)), FailureKind::Resolve);
        assert_eq!(classify(&Error::Timeout(Timeout::Resolve)), FailureKind::Resolve);
        assert_eq!(classify(&Error::Io(std::io::ErrorKind::ConnectionReset.into())), FailureKind::Broken);
    }

    #[test]
    fn malformed_settings_are_errors_that_name_themselves() {
        let proxies = ProxySettings { https: Some("http://[".to_owned()), ..ProxySettings::default() };
        let error =
            HttpClient::new(false, true, &[], None, Timeouts::default(), &proxies).expect_err("a malformed proxy");
        assert_eq!(error.to_string(), "the configured proxy cannot be used");
        let pem = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".to_owned();
        let error = HttpClient::new(false, true, &[pem], None, Timeouts::default(), &ProxySettings::default());
        assert_eq!(error.expect_err("a malformed certificate").to_string(), "a certificate authority cannot be used");
    }
}

//! Answers a registry's 401: bearer tokens (distribution's token specification) and Basic.
//!
//! Credentials leave this module only towards the registry's own origin or a token service that belongs to it,
//! and never in the clear unless the registry itself may be used in the clear (I18; CVE-2019-10214,
//! CVE-2020-15157). A challenge is answered only when it came from the registry's origin: redirect targets and
//! other hosts are never authenticated to. Tokens live in memory, one per client.

use std::{
    io::Read,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use onggi_sys::jail;
use serde::Deserialize;
use ureq::{
    Body,
    http::{Response, Uri},
};

use crate::{
    challenge::{Challenge, parse_challenges},
    credentials::Credentials,
    error::ImageError,
    http::{HttpClient, Payload},
    options::RemoteOptions,
    retry::{Again, Failure, after_transport, parse_retry_after},
    url::{self, Origin, encode_query},
};

/// Largest answer of a token service that is read.
const MAX_TOKEN_ANSWER: u64 = 256 << 10;
/// Longest token that is sent on; servers take headers of 8 to 64 KiB.
const MAX_TOKEN: usize = 32 << 10;
/// Lifetime of a token that states none (token specification).
const DEFAULT_LIFETIME: u64 = 60;
/// Tokens are renewed this long before they end.
const RENEW_EARLY: u64 = 10;
/// Longest realm shown in an error.
const SHOWN_REALM: usize = 128;

/// The authorisation of one client towards one registry.
#[derive(Debug)]
pub(crate) struct Auth {
    registry: String,
    repository: String,
    /// What is asked of a token service: `repository:NAME:pull`.
    scopes: Vec<String>,
    credentials: Option<Credentials>,
    trusted_realms: Vec<String>,
    /// The lock is kept during a token request, so that parallel transfers make only one.
    grant: Mutex<Option<Grant>>,
    /// Ask for a refresh token too (`login`).
    wants_identity: AtomicBool,
    identity: Mutex<Option<String>>,
    /// The registry's TLS is verified, so that nobody else can have named the token service.
    verified: bool,
}

#[derive(Debug)]
struct Grant {
    header: String,
    ends: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<String>,
}

impl Auth {
    pub(crate) fn new(registry: String, repository: String, scopes: Vec<String>, options: &RemoteOptions) -> Self {
        let (credentials, trusted_realms) = (options.credentials.clone(), options.trusted_realms.clone());
        Self {
            registry,
            repository,
            scopes,
            credentials,
            trusted_realms,
            grant: Mutex::default(),
            wants_identity: AtomicBool::new(false),
            identity: Mutex::default(),
            verified: options.tls_verify,
        }
    }

    /// The `Authorization` to send to the registry's origin, if one is known and still valid.
    pub(crate) fn header(&self) -> Option<String> {
        let grant = self.grant.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let grant = grant.as_ref()?;
        grant.ends.is_none_or(|end| Instant::now() < end).then(|| grant.header.clone())
    }

    /// Asks for an identity token with the next token.
    pub(crate) fn want_identity(&self) {
        self.wants_identity.store(true, Ordering::Relaxed);
    }

    /// The identity token that came.
    pub(crate) fn identity(&self) -> Option<String> {
        self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// True when there is something to log in with.
    pub(crate) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// Obtains an `Authorization` after a 401 from `origin` to a request that carried `refused`.
    pub(crate) fn answer(
        &self,
        http: &HttpClient,
        origin: &Origin,
        response: &Response<Body>,
        refused: Option<&str>,
    ) -> Result<String, Failure> {
        let mut known = self.grant.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(grant) = &*known
            && Some(grant.header.as_str()) != refused
        {
            return Ok(grant.header.clone());
        }
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .take(8)
            .filter_map(|v| v.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let grant = match challenges.iter().find(|c| c.scheme == "bearer") {
            Some(bearer) => self.bearer(http, origin, bearer)?,
            None if challenges.iter().any(|c| c.scheme == "basic") => self.basic(refused)?,
            None => return Err(self.unauthorized(refused.is_some()).into()),
        };
        let header = grant.header.clone();
        *known = Some(grant);
        Ok(header)
    }

    fn basic(&self, refused: Option<&str>) -> Result<Grant, ImageError> {
        let header = self.credentials.as_ref().and_then(Credentials::basic_header);
        match header {
            Some(header) if refused != Some(&header) => Ok(Grant { header, ends: None }),
            sent => Err(self.unauthorized(sent.is_some())),
        }
    }

    fn bearer(&self, http: &HttpClient, origin: &Origin, challenge: &Challenge) -> Result<Grant, Failure> {
        let realm_text = challenge.param("realm").unwrap_or_default();
        let refuse = |reason| ImageError::UnsafeRealm {
            registry: self.registry.clone(),
            realm: realm_text.split('?').next().unwrap_or_default().chars().take(SHOWN_REALM).collect(),
            reason,
        };
        let realm = url::parse_absolute(realm_text).ok_or_else(|| refuse("it is not an http or https URL"))?;
        let realm_origin = Origin::of(&realm).ok_or_else(|| refuse("it has no origin"))?;
        check_realm(origin, &realm_origin).map_err(refuse)?;
        // A registry that proved its name by TLS could have had the credentials by a Basic challenge: whom it names
        // over TLS may have them too. In the clear anybody could have named the realm.
        let named_by_itself = self.verified && origin.tls && realm_origin.tls;
        let may_have = named_by_itself
            || belongs_to(&origin.host, &realm_origin.host)
            || self.trusted_realms.contains(&realm_origin.host);
        let credentials = self.credentials.as_ref().filter(|_| may_have);
        let service = challenge.param("service").unwrap_or_default();
        let asked = self.ask(http, &realm, service, credentials);
        let response = asked.map_err(|source| {
            let again = after_transport(source.kind, self.header().is_some());
            Failure::new(ImageError::RegistryUnreachable { registry: realm_origin.host.clone(), source }, again)
        })?;
        self.read_token(&realm, response, credentials.is_some())
    }

    /// Asks the token service: GET with Basic, or POST with a refresh token (OAuth2 form).
    fn ask(
        &self,
        http: &HttpClient,
        realm: &Uri,
        service: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Response<Body>, crate::error::TransportError> {
        let service = encode_query(service);
        if let Some(Credentials::IdentityToken(token)) = credentials {
            let scope = match &self.scopes[..] {
                [] => String::new(),
                // RFC 6749, 3.3: one parameter, separated by spaces.
                some => format!("&scope={}", encode_query(&some.join(" "))),
            };
            let token = encode_query(token);
            let form =
                format!("grant_type=refresh_token&client_id=onggi&service={service}{scope}&refresh_token={token}");
            return http.send("POST", realm, &[], Payload::Form(&form));
        }
        let joiner = if realm.query().is_some() { '&' } else { '?' };
        let mut query = format!("{realm}{joiner}service={service}");
        for scope in &self.scopes {
            query.push_str(&format!("&scope={}", encode_query(scope)));
        }
        if let (true, Some(Credentials::Basic { username, .. })) =
            (self.wants_identity.load(Ordering::Relaxed), credentials)
        {
            query.push_str(&format!("&offline_token=true&client_id=onggi&account={}", encode_query(username)));
        }
        // The realm was parsed and the rest is percent-encoded, so this cannot fail; if it did, the registry would
        // refuse the request without scope.
        let target = url::parse_absolute(&query).unwrap_or_else(|| realm.clone());
        let basic = credentials.and_then(Credentials::basic_header);
        let headers: Vec<_> = basic.iter().map(|b| ("authorization", b.as_str())).collect();
        http.send("GET", &target, &headers, Payload::None)
    }

    fn read_token(&self, realm: &Uri, response: Response<Body>, sent: bool) -> Result<Grant, Failure> {
        let bad =
            |reason: String| ImageError::BadToken { registry: self.registry.clone(), url: url::display(realm), reason };
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return Err(self.unauthorized(sent).into()),
            429 => return Err(rate_limited(&self.registry, &response)),
            status @ 500.. => return Err(Failure::new(bad(format!("it answered {status}")), Again::Often)),
            status => return Err(bad(format!("it answered {status}")).into()),
        }
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(MAX_TOKEN_ANSWER + 1).read_to_end(&mut bytes);
        read.map_err(|e| Failure::new(bad(format!("its answer broke off: {}", e.kind())), Again::Often))?;
        if bytes.len() as u64 > MAX_TOKEN_ANSWER {
            return Err(bad(format!("its answer is larger than {MAX_TOKEN_ANSWER} bytes")).into());
        }
        let answer: TokenAnswer =
            jail::parse(|| serde_json::from_slice(&bytes)).map_err(|_| bad("its answer is malformed".to_owned()))?;
        let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).unwrap_or_default();
        if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("its token is empty, too long or not plain text".to_owned()).into());
        }
        if self.wants_identity.load(Ordering::Relaxed) {
            let plain = |t: &String| !t.is_empty() && t.len() <= MAX_TOKEN && t.bytes().all(|b| b.is_ascii_graphic());
            *self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                answer.refresh_token.filter(plain);
        }
        let lifetime = answer.expires_in.unwrap_or(DEFAULT_LIFETIME).saturating_sub(RENEW_EARLY).max(1);
        let ends = Instant::now().checked_add(Duration::from_secs(lifetime));
        Ok(Grant { header: format!("Bearer {token}"), ends })
    }

    pub(crate) fn unauthorized(&self, sent: bool) -> ImageError {
        ImageError::Unauthorized { registry: self.registry.clone(), repository: self.repository.clone(), sent }
    }
}

/// A 429 as a failure that waits as long as it asks.
pub(crate) fn rate_limited(registry: &str, response: &Response<Body>) -> Failure {
    let retry_after = retry_after(response);
    let error = ImageError::RateLimited { registry: registry.to_owned(), retry_after };
    Failure::new(error, retry_after.map_or(Again::Often, Again::After))
}

/// How long an answer asks to wait.
pub(crate) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    parse_retry_after(header("retry-after")?, header("date"), now)
}

/// A token service may be asked at all (with or without credentials).
fn check_realm(registry: &Origin, realm: &Origin) -> Result<(), &'static str> {
    if !realm.tls && registry.tls {
        return Err("it is not protected by TLS, the registry is");
    }
    if !realm.tls && !realm.is_loopback() && realm.host != registry.host {
        return Err("it is not protected by TLS and on another host");
    }
    if realm.is_loopback() && !registry.is_loopback() {
        return Err("it points to this machine");
    }
    Ok(())
}

/// The token service is run by those who run the registry, as far as names can tell: the same host, one below
/// it, its parent domain or a sibling (`registry.example.com` and `auth.example.com`). A parent domain has at
/// least two labels, and addresses have no relatives.
fn belongs_to(registry: &str, realm: &str) -> bool {
    if registry == realm {
        return true;
    }
    let is_address = |h: &str| h.parse::<std::net::IpAddr>().is_ok();
    if is_address(registry) || is_address(realm) {
        return false;
    }
    let below = |host: &str, domain: &str| host.strip_suffix(domain).is_some_and(|head| head.ends_with('.'));
    let parent = registry.split_once('.').map(|(_, parent)| parent).filter(|parent| parent.contains('.'));
    below(realm, registry) || parent.is_some_and(|parent| realm == parent || below(realm, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn token_services_of_known_registries_belong_to_them() {
        for (registry, realm) in [
            ("registry-1.docker.io", "auth.docker.io"),
            ("ghcr.io", "ghcr.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("registry.example.com", "auth.example.com"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert!(belongs_to(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn cve_2020_15157_foreign_hosts_do_not_belong_to_a_registry() {
        for (registry, realm) in [
            ("registry-1.docker.io", "evil.io"),
            ("registry-1.docker.io", "docker.io.evil.io"),
            ("registry-1.docker.io", "evildocker.io"),
            ("ghcr.io", "evil.io"),
            ("ghcr.io", "io"),
            ("10.0.0.1", "10.0.0.2"),
            ("10.0.0.1", "0.0.1"),
            ("localhost", "evil.localhost.com"),
        ] {
            assert!(!belongs_to(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn cve_2019_10214_a_token_service_without_tls_is_refused() {
        let table = [
            ("https://r.example", "https://auth.example", true),
            ("https://r.example", "http://auth.example", false),
            ("https://r.example", "http://r.example", false),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001", true),
            ("http://127.0.0.1:5000", "http://auth.example", false),
            ("http://127.0.0.1:5000", "https://auth.example", true),
            ("https://r.example", "https://127.0.0.1", false),
            ("http://r.example", "http://r.example:81", true),
        ];
        for (registry, realm, ok) in table {
            assert_eq!(check_realm(&origin(registry), &origin(realm)).is_ok(), ok, "{registry} {realm}");
        }
    }
}

//! One logical request to a registry: choose the scheme once, attach authorisation for the registry's own origin,
//! answer one 401, follow redirects by hand.
//!
//! Nothing is decided here about what a status means; that is the caller's. `Authorization` never goes to another
//! origin than the registry's (I18), and a redirect leads neither out of TLS nor into this machine.

use std::{io::Read, sync::OnceLock};

use onggi_spec::{progress::Progress, reference::DEFAULT_REGISTRY};
use onggi_sys::jail;
use ureq::{
    Body,
    http::{Response, Uri},
};

use crate::{
    auth::{Auth, rate_limited, retry_after},
    error::{FailureKind, ImageError, TransportError, innermost},
    http::{HttpClient, Payload},
    lists::next_link,
    options::RemoteOptions,
    retry::{Again, Failure, RetryPolicy, after_transport},
    url::{self, Origin},
};

/// Where `docker.io` really is.
const HUB_HOST: &str = "registry-1.docker.io";
/// Redirects that are followed for one request; CDNs use one or two.
const MAX_REDIRECTS: usize = 5;
/// Largest error document that is read.
const MAX_ERROR_BODY: u64 = 64 << 10;
/// Longest message of a registry that is shown.
const SHOWN_MESSAGE: usize = 256;

/// A registry's origin and our standing with it. Shared by threads.
pub(crate) struct Exchange<'a> {
    /// The registry's name as people write it.
    registry: String,
    host: String,
    tls_verify: bool,
    /// Whether the registry speaks TLS; found out by the first answer.
    tls: OnceLock<bool>,
    http: HttpClient,
    auth: Auth,
    retry: RetryPolicy,
    progress: &'a dyn Progress,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(crate) enum Target<'c> {
    /// A path (and query) of the registry, from `/` on.
    Path(&'c str),
    /// A URL that the registry gave.
    Url(&'c Uri),
}

/// A request as its caller knows it.
#[derive(Clone, Copy)]
pub(crate) struct Call<'c> {
    /// The HTTP method.
    pub(crate) method: &'static str,
    /// Where to.
    pub(crate) target: Target<'c>,
    /// Further headers.
    pub(crate) headers: &'c [(&'c str, &'c str)],
    /// The body.
    pub(crate) payload: Payload<'c>,
}

impl<'c> Call<'c> {
    /// A request without body or special headers for a path.
    pub(crate) fn new(method: &'static str, path: &'c str) -> Self {
        Self { method, target: Target::Path(path), headers: &[], payload: Payload::None }
    }
}

impl<'a> Exchange<'a> {
    /// A client of `registry` that asks token services for these scopes. `repository` is for messages.
    pub(crate) fn new(
        registry: &str,
        repository: &str,
        scopes: Vec<String>,
        uploads: bool,
        options: &RemoteOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let RemoteOptions { tls_verify, authorities, identity, timeouts, proxies, retry, .. } = options;
        Ok(Self {
            registry: registry.to_owned(),
            host: host_of(registry).to_owned(),
            tls_verify: *tls_verify,
            tls: OnceLock::new(),
            http: HttpClient::new(uploads, *tls_verify, authorities, identity.as_ref(), *timeouts, proxies)?,
            auth: Auth::new(registry.to_owned(), repository.to_owned(), scopes, options),
            retry: *retry,
            progress,
        })
    }

    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    pub(crate) fn progress(&self) -> &'a dyn Progress {
        self.progress
    }

    /// The error for a 401 that stayed.
    pub(crate) fn unauthorized(&self) -> ImageError {
        self.auth.unauthorized(self.auth.has_credentials())
    }

    /// The answer to a request, after scheme choice, authentication and redirects; of any status.
    pub(crate) fn request(&self, call: Call<'_>) -> Result<Response<Body>, Failure> {
        if let Some(&tls) = self.tls.get() {
            return self.authorised(call, tls);
        }
        let schemes: &[bool] = match (url::is_loopback_host(self.bare_host()), self.tls_verify) {
            (true, _) => &[false, true],
            (false, false) => &[true, false],
            (false, true) => &[true],
        };
        let (&first, others) = schemes.split_first().unwrap_or((&true, &[]));
        let result = self.authorised(call, first);
        if let (true, Some(&second)) = (speaks_otherwise(&result, first), others.first()) {
            let answer = self.authorised(call, second);
            if answer.is_ok() && !speaks_otherwise(&answer, second) {
                let _ = self.tls.set(second);
                return answer;
            }
            // Plain HTTP is answered by a complaint: the peer speaks TLS, and that is where the problem is.
            if second && result.is_ok() {
                return answer;
            }
        }
        if result.is_ok() {
            let _ = self.tls.set(first);
        }
        result
    }

    /// One exchange that answers a 401 of the registry's own origin once.
    fn authorised(&self, call: Call<'_>, tls: bool) -> Result<Response<Body>, Failure> {
        let home_uri = self.own_uri("/v2/", tls)?;
        let home = Origin::of(&home_uri).ok_or_else(|| self.bad_redirect(&home_uri, "it has no origin"))?;
        let uri = match call.target {
            Target::Path(path) => self.own_uri(path, tls)?,
            Target::Url(uri) => uri.clone(),
        };
        let first = self.auth.header();
        let (response, own) = self.follow(call, &uri, &home, first.as_deref())?;
        if response.status() != 401 || !own {
            return Ok(response);
        }
        let header = self.auth.answer(&self.http, &home, &response, first.as_deref())?;
        // Read to its end so that the connection can be used again.
        let _ = error_document(response);
        let (response, own) = self.follow(call, &uri, &home, Some(&header))?;
        if response.status() == 401 && own {
            return Err(self.unauthorized().into());
        }
        Ok(response)
    }

    /// Sends and follows redirects. The flag tells whether the answer came from the registry's own origin.
    fn follow(
        &self,
        call: Call<'_>,
        uri: &Uri,
        home: &Origin,
        auth: Option<&str>,
    ) -> Result<(Response<Body>, bool), Failure> {
        let mut target = uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&target).ok_or_else(|| self.bad_redirect(&target, "it has no origin"))?;
            let own = origin == *home;
            let mut headers = call.headers.to_vec();
            headers.extend(auth.filter(|_| own).map(|a| ("authorization", a)));
            let sent = self.http.send(call.method, &target, &headers, call.payload);
            let response = sent.map_err(|source| self.unreachable(source))?;
            let again = match response.status().as_u16() {
                307 | 308 => true,
                // For other methods these mean "look there with GET", which is no answer to an upload.
                301..=303 => matches!(call.method, "GET" | "HEAD"),
                _ => false,
            };
            if !again {
                return Ok((response, own));
            }
            target = self.redirect(&target, &response, home)?;
        }
        Err(self.bad_redirect(&target, "there were too many redirects").into())
    }

    fn redirect(&self, from: &Uri, response: &Response<Body>, home: &Origin) -> Result<Uri, ImageError> {
        let location = response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let target = url::resolve(from, location);
        let target = target.ok_or_else(|| self.bad_redirect(from, "its Location is not an http or https URL"))?;
        let origin = Origin::of(&target).ok_or_else(|| self.bad_redirect(&target, "it has no origin"))?;
        check_redirect(home, &origin, self.tls_verify).map_err(|reason| self.bad_redirect(&target, reason))?;
        Ok(target)
    }

    /// From now on, token services are asked for an identity token too.
    pub(crate) fn want_identity(&self) {
        self.auth.want_identity();
    }

    /// The identity token that a token service gave.
    pub(crate) fn identity(&self) -> Option<String> {
        self.auth.identity()
    }

    /// The page after this one. It is on the registry's own origin, or the list is refused.
    pub(crate) fn next_page(&self, from: Target<'_>, response: &Response<Body>) -> Result<Option<Uri>, ImageError> {
        let header = response.headers().get("link").and_then(|v| v.to_str().ok());
        let Some(link) = header.and_then(next_link) else { return Ok(None) };
        let tls = self.tls.get() != Some(&false);
        let base = match from {
            Target::Path(path) => self.own_uri(path, tls)?,
            Target::Url(uri) => uri.clone(),
        };
        let target = url::resolve(&base, link);
        let target = target.ok_or_else(|| self.bad_redirect(&base, "its next page is not an http or https URL"))?;
        if Origin::of(&target) != Origin::of(&base) {
            return Err(self.bad_redirect(&target, "the next page of a list is on another host"));
        }
        Ok(Some(target))
    }

    /// The URL to go on at that an answer to an upload names (distribution-spec, "Pushing blobs"), under the rules
    /// of redirects.
    pub(crate) fn location(&self, response: &Response<Body>) -> Result<Uri, ImageError> {
        let own = self.own_uri("/v2/", self.tls.get() != Some(&false))?;
        let home = Origin::of(&own).ok_or_else(|| self.bad_redirect(&own, "it has no origin"))?;
        self.redirect(&own, response, &home)
    }

    fn own_uri(&self, path: &str, tls: bool) -> Result<Uri, ImageError> {
        let scheme = if tls { "https" } else { "http" };
        // The parts follow the reference grammar, so this does not fail.
        url::parse_absolute(&format!("{scheme}://{}{path}", self.host)).ok_or_else(|| ImageError::Invalid {
            what: format!("registry address {:?}", self.host),
            reason: "it makes no URL".to_owned(),
        })
    }

    /// The URL of a path for a message, without its query.
    pub(crate) fn shown(&self, target: Target<'_>) -> String {
        match target {
            Target::Url(uri) => url::display(uri),
            Target::Path(path) => {
                self.own_uri(path, self.tls.get() != Some(&false)).map(|u| url::display(&u)).unwrap_or_default()
            }
        }
    }

    /// What every caller makes of the statuses that may pass.
    pub(crate) fn transient(&self, call: Call<'_>, response: &Response<Body>) -> Option<Failure> {
        let status = response.status().as_u16();
        let bad = || ImageError::BadStatus { registry: self.registry.clone(), status, url: self.shown(call.target) };
        match status {
            429 => Some(rate_limited(&self.registry, response)),
            503 => Some(Failure::new(bad(), retry_after(response).map_or(Again::Often, Again::After))),
            408 | 500.. => Some(Failure::new(bad(), Again::Often)),
            _ => None,
        }
    }

    /// A body of at most `limit` bytes.
    pub(crate) fn read_bounded(
        &self,
        call: Call<'_>,
        response: Response<Body>,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, Failure> {
        let too_large = || ImageError::TooLarge { what: what.to_owned(), limit };
        if response.body().content_length().is_some_and(|n| n > limit) {
            return Err(too_large().into());
        }
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|e| self.broken(call, e.into()))?;
        if bytes.len() as u64 > limit {
            return Err(too_large().into());
        }
        Ok(bytes)
    }

    fn bare_host(&self) -> &str {
        url::bare_host(&self.host)
    }

    fn bad_redirect(&self, target: &Uri, reason: &'static str) -> ImageError {
        ImageError::UnsafeRedirect { registry: self.registry.clone(), target: url::display(target), reason }
    }

    fn unreachable(&self, source: TransportError) -> Failure {
        let again = after_transport(source.kind, self.tls.get().is_some());
        Failure::new(ImageError::RegistryUnreachable { registry: self.registry.clone(), source }, again)
    }

    fn broken(&self, call: Call<'_>, source: ureq::Error) -> Failure {
        let kind = crate::http::classify(&source);
        let (method, url) = (call.method, self.shown(call.target));
        self.unreachable(TransportError { method, url, kind, source: innermost(source) })
    }
}

/// The host that is really asked for a registry's name.
fn host_of(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { HUB_HOST } else { registry }
}

/// A redirect leads neither out of TLS nor into this machine, unless the registry is there already.
fn check_redirect(home: &Origin, target: &Origin, tls_verify: bool) -> Result<(), &'static str> {
    if target.is_loopback() && !home.is_loopback() {
        return Err("it points to this machine");
    }
    let plain_allowed = !tls_verify || (target.is_loopback() && !home.tls);
    if !target.tls && !plain_allowed {
        return Err("it is not protected by TLS");
    }
    Ok(())
}

/// The peer seems to speak the other of TLS and plain HTTP.
fn speaks_otherwise(result: &Result<Response<Body>, Failure>, tls: bool) -> bool {
    match result {
        // Go's TLS servers answer a plain request so; a registry's own 400 names its API.
        Ok(response) => {
            !tls && response.status() == 400 && !response.headers().contains_key("docker-distribution-api-version")
        }
        Err(failure) => match &*failure.error {
            ImageError::RegistryUnreachable { source, .. } => {
                use FailureKind::{Broken, Connect, Protocol, Tls};
                matches!(source.kind, Tls | Protocol | Broken | Connect)
            }
            _ => false,
        },
    }
}

/// What a registry says about a refusal (distribution-spec, "Error codes").
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    /// `NAME_UNKNOWN`, `DENIED`.
    pub(crate) codes: Vec<String>,
    /// The first message, made printable and cut.
    pub(crate) message: String,
}

/// Reads an error document; empty when there is none.
pub(crate) fn error_document(response: Response<Body>) -> Refusal {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Code>,
    }
    #[derive(serde::Deserialize)]
    struct Code {
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut bytes = Vec::new();
    if response.into_body().into_reader().take(MAX_ERROR_BODY).read_to_end(&mut bytes).is_err() {
        return Refusal::default();
    }
    let Ok(parsed) = jail::parse(|| serde_json::from_slice::<Errors>(&bytes)) else { return Refusal::default() };
    let message = parsed.errors.first().map(|e| e.message.as_str()).unwrap_or_default();
    let message = message.chars().filter(|c| !c.is_control()).take(SHOWN_MESSAGE).collect();
    Refusal { message, codes: parsed.errors.into_iter().map(|e| e.code).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_registry_is_asked_at_its_real_host() {
        let host = |text: &str| host_of(text.parse::<onggi_spec::ImageReference>().unwrap().registry()).to_owned();
        assert_eq!(host("nginx"), "registry-1.docker.io");
        assert_eq!(host("127.0.0.1:5000/nginx"), "127.0.0.1:5000");
    }

    #[test]
    fn cve_2019_10214_a_redirect_never_leads_out_of_tls() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        let table = [
            ("https://r.example", "https://cdn.example", true, true),
            ("https://r.example", "http://cdn.example", true, false),
            ("https://r.example", "http://r.example", true, false),
            ("https://r.example", "http://cdn.example", false, true),
            ("https://r.example", "https://127.0.0.1", true, false),
            ("https://r.example", "http://localhost", false, false),
            ("https://127.0.0.1:5000", "http://127.0.0.1:5001", true, false),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001", true, true),
            ("http://127.0.0.1:5000", "http://cdn.example", true, false),
            ("http://127.0.0.1:5000", "https://cdn.example", true, true),
        ];
        for (home, target, verify, ok) in table {
            assert_eq!(check_redirect(&origin(home), &origin(target), verify).is_ok(), ok, "{home} {target} {verify}");
        }
    }
}

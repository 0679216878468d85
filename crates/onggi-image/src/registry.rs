//! A registry as seen by a pull: documents and blobs of one repository (distribution-spec 1.1, "pull").
//!
//! One logical request is: choose the scheme once, attach authorisation for the registry's own origin, answer
//! one 401, follow redirects by hand, map statuses to errors, repeat what is transient. Nothing is trusted for
//! its length or digest here except to fail early; the caller counts and hashes.

use std::{io::Read, sync::OnceLock};

use onggi_spec::{
    Digest, ImageReference,
    image::{MAX_DOCUMENT, media_type},
    progress::Progress,
    reference::DEFAULT_REGISTRY,
};
use ureq::{
    Body,
    http::{Response, Uri},
};

use crate::{
    auth::{Auth, rate_limited},
    error::{FailureKind, ImageError},
    http::HttpClient,
    pull::PullOptions,
    retry::{self, Again, Failure, RetryPolicy, after_transport},
    url::{self, Origin},
};

/// Where `docker.io` really is.
const HUB_HOST: &str = "registry-1.docker.io";
/// Redirects that are followed for one request; CDNs use one or two.
const MAX_REDIRECTS: usize = 5;
/// Largest error document that is read.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// The client for one repository. Shared by the threads of a pull.
pub(crate) struct Registry<'a> {
    reference: ImageReference,
    host: String,
    tls_verify: bool,
    /// Whether the registry speaks TLS; found out by the first answer.
    tls: OnceLock<bool>,
    http: HttpClient,
    auth: Auth,
    retry: RetryPolicy,
    progress: &'a dyn Progress,
}

/// A document as it came: unverified.
pub(crate) struct RawDocument {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: Option<String>,
}

/// What a request is for.
#[derive(Clone, Copy)]
pub(crate) enum Want<'a> {
    /// The manifest's digest only.
    Head(&'a str),
    /// A manifest or index by tag or digest.
    Manifest(&'a str),
    /// A blob, from this offset on.
    Blob(&'a Digest, u64),
    /// The first tag of the repository: tells an unknown repository from an unknown tag.
    Tags,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(
        reference: &ImageReference,
        options: &PullOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let registry = reference.registry();
        Ok(Self {
            reference: reference.clone(),
            host: host_of(registry).to_owned(),
            tls_verify: options.tls_verify,
            tls: OnceLock::new(),
            http: HttpClient::new(options.tls_verify, &options.authorities, options.timeouts, &options.proxies)?,
            auth: Auth::new(
                registry.to_owned(),
                reference.repository().to_owned(),
                options.credentials.clone(),
                options.trusted_realms.clone(),
            ),
            retry: options.retry,
            progress,
        })
    }

    pub(crate) fn name(&self) -> &str {
        self.reference.registry()
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    pub(crate) fn progress(&self) -> &'a dyn Progress {
        self.progress
    }

    /// The digest that a tag stands for now; `None` when the registry does not say so without the document.
    pub(crate) fn head(&self, selector: &str) -> Result<Option<Digest>, ImageError> {
        retry::run(&self.retry, self.progress, || {
            let response = self.request(Want::Head(selector))?;
            if response.status() != 200 {
                return Ok(None);
            }
            let header = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
            Ok(header.and_then(|text| text.parse().ok()))
        })
    }

    /// A manifest or index, at most `MAX_DOCUMENT` bytes.
    pub(crate) fn manifest(&self, selector: &str) -> Result<RawDocument, ImageError> {
        let what = || format!("manifest {selector} of {}", self.reference.familiar_name());
        retry::run(&self.retry, self.progress, || self.document(Want::Manifest(selector), &what()))
    }

    /// A small blob, at most `MAX_DOCUMENT` bytes.
    pub(crate) fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let what = || format!("configuration {digest}");
        retry::run(&self.retry, self.progress, || self.document(Want::Blob(digest, 0), &what())).map(|d| d.bytes)
    }

    /// One attempt at a blob from `offset` on: 200 or 206, the body unread.
    pub(crate) fn blob(&self, digest: &Digest, offset: u64) -> Result<Response<Body>, Failure> {
        let response = self.request(Want::Blob(digest, offset))?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            _ => Err(self.refused(Want::Blob(digest, offset), response)),
        }
    }

    fn document(&self, want: Want<'_>, what: &str) -> Result<RawDocument, Failure> {
        let response = self.request(want)?;
        if response.status() != 200 {
            return Err(self.refused(want, response));
        }
        let limit = MAX_DOCUMENT as u64;
        let too_large = || ImageError::TooLarge { what: what.to_owned(), limit };
        let announced = response.body().content_length();
        if announced.is_some_and(|n| n > limit) {
            return Err(too_large().into());
        }
        let content_type = response.headers().get("content-type").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let url = self.uri(want, self.tls.get() != Some(&false))?;
        let mut bytes = Vec::new();
        let read = response.into_body().into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|e| self.transport("GET", &url, ureq::Error::from(e)))?;
        if bytes.len() as u64 > limit {
            return Err(too_large().into());
        }
        Ok(RawDocument { bytes, content_type })
    }

    /// The answer to a request, after scheme choice, authentication and redirects; of any status.
    fn request(&self, want: Want<'_>) -> Result<Response<Body>, Failure> {
        if let Some(&tls) = self.tls.get() {
            return self.authorised(want, tls);
        }
        let schemes: &[bool] = match (url::is_loopback_host(self.bare_host()), self.tls_verify) {
            (true, _) => &[false, true],
            (false, false) => &[true, false],
            (false, true) => &[true],
        };
        let (&first, others) = schemes.split_first().unwrap_or((&true, &[]));
        let result = self.authorised(want, first);
        if let (true, Some(&second)) = (speaks_otherwise(&result, first), others.first()) {
            let answer = self.authorised(want, second);
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

    /// One exchange with the registry's own origin that answers a 401 once.
    fn authorised(&self, want: Want<'_>, tls: bool) -> Result<Response<Body>, Failure> {
        let uri = self.uri(want, tls)?;
        let origin = Origin::of(&uri).ok_or_else(|| self.bad_redirect(&uri, "it has no origin"))?;
        let first = self.auth.header();
        let (response, own) = self.follow(want, &uri, &origin, first.as_deref())?;
        if response.status() != 401 || !own {
            return Ok(response);
        }
        let header = self.auth.answer(&self.http, &origin, &response, first.as_deref())?;
        // Read to its end so that the connection can be used again.
        let _ = error_codes(response);
        let (response, own) = self.follow(want, &uri, &origin, Some(&header))?;
        if response.status() == 401 && own {
            return Err(self.auth.unauthorized(self.auth.has_credentials()).into());
        }
        Ok(response)
    }

    /// Sends and follows redirects. `Authorization` goes to the registry's origin only. The flag tells whether
    /// the answer came from there.
    fn follow(
        &self,
        want: Want<'_>,
        uri: &Uri,
        home: &Origin,
        auth: Option<&str>,
    ) -> Result<(Response<Body>, bool), Failure> {
        let method = if matches!(want, Want::Head(_)) { "HEAD" } else { "GET" };
        let accept = media_type::ACCEPTED.join(", ");
        let range = match want {
            Want::Blob(_, offset) if offset > 0 => Some(format!("bytes={offset}-")),
            _ => None,
        };
        let mut target = uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&target).ok_or_else(|| self.bad_redirect(&target, "it has no origin"))?;
            let own = origin == *home;
            let mut headers = Vec::with_capacity(3);
            if matches!(want, Want::Head(_) | Want::Manifest(_)) {
                headers.push(("accept", accept.as_str()));
            }
            headers.extend(range.as_deref().map(|r| ("range", r)));
            headers.extend(auth.filter(|_| own).map(|a| ("authorization", a)));
            let sent = self.http.send(method, &target, &headers, None);
            let response = sent.map_err(|source| self.unreachable(source))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
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

    fn uri(&self, want: Want<'_>, tls: bool) -> Result<Uri, ImageError> {
        let scheme = if tls { "https" } else { "http" };
        let repository = self.reference.repository();
        let tail = match want {
            Want::Head(selector) | Want::Manifest(selector) => format!("manifests/{selector}"),
            Want::Blob(digest, _) => format!("blobs/{digest}"),
            Want::Tags => "tags/list?n=1".to_owned(),
        };
        let text = format!("{scheme}://{}/v2/{repository}/{tail}", self.host);
        // The parts follow the reference grammar, so this does not fail.
        url::parse_absolute(&text).ok_or_else(|| ImageError::Invalid {
            what: format!("registry address {:?}", self.host),
            reason: "it makes no URL".to_owned(),
        })
    }

    /// Turns a status that is not success into an error.
    fn refused(&self, want: Want<'_>, response: Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let registry = self.name().to_owned();
        let repository = self.reference.repository().to_owned();
        let url = self.uri(want, true).map(|u| url::display(&u)).unwrap_or_default();
        let bad = ImageError::BadStatus { registry: registry.clone(), status, url };
        match status {
            429 => return rate_limited(&registry, &response),
            408 | 500.. => return Failure::new(bad, Again::Often),
            _ => {}
        }
        let codes = error_codes(response);
        let has = |code: &str| codes.iter().any(|c| c == code);
        match (status, want) {
            (401, _) => self.auth.unauthorized(self.auth.has_credentials()),
            (403, _) => ImageError::Denied { registry, repository },
            (404, Want::Blob(digest, _)) => ImageError::MissingBlob { registry, digest: digest.clone() },
            (404, _) if has("NAME_UNKNOWN") || self.lacks_repository() => {
                ImageError::UnknownImage { reference: Box::new(self.reference.clone()), registry, repository }
            }
            (404, Want::Head(selector) | Want::Manifest(selector)) => {
                ImageError::UnknownTag { reference: Box::new(self.reference.clone()), selector: selector.to_owned() }
            }
            _ => bad,
        }
        .into()
    }

    /// Asks for the repository's tags: some registries call every missing manifest just that.
    fn lacks_repository(&self) -> bool {
        self.request(Want::Tags).is_ok_and(|r| r.status() == 404)
    }

    fn bare_host(&self) -> &str {
        self.host.rsplit_once(':').map_or(&self.host, |(host, _)| host)
    }

    fn bad_redirect(&self, target: &Uri, reason: &'static str) -> ImageError {
        ImageError::UnsafeRedirect { registry: self.name().to_owned(), target: url::display(target), reason }
    }

    fn unreachable(&self, source: crate::error::TransportError) -> Failure {
        let again = after_transport(source.kind);
        Failure::new(ImageError::RegistryUnreachable { registry: self.name().to_owned(), source }, again)
    }

    fn transport(&self, method: &'static str, uri: &Uri, source: ureq::Error) -> Failure {
        let kind = crate::http::classify(&source);
        self.unreachable(crate::error::TransportError {
            method,
            url: url::display(uri),
            kind,
            source: Box::new(source),
        })
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

/// The codes of an error document (distribution-spec, "Error codes"); empty when there is none.
fn error_codes(response: Response<Body>) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Code>,
    }
    #[derive(serde::Deserialize)]
    struct Code {
        code: String,
    }
    let mut bytes = Vec::new();
    if response.into_body().into_reader().take(MAX_ERROR_BODY).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let parsed: Result<Errors, _> = serde_json::from_slice(&bytes);
    parsed.map(|e| e.errors.into_iter().map(|c| c.code).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_registry_is_asked_at_its_real_host() {
        let host = |text: &str| host_of(text.parse::<ImageReference>().unwrap().registry()).to_owned();
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

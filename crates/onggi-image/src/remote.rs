//! One repository of a registry, read and written: manifests, blobs, tags (distribution-spec 1.1).
//!
//! This is all that a copy needs and knows of no store: documents come back verified and bounded, blobs as readers
//! that fail at their end when the content is not what its digest says. Uploads are in [`crate::upload`], lists in
//! [`crate::lists`].

use std::io::{self, Read};

use onggi_spec::{
    Digest, ImageReference,
    image::{Descriptor, MAX_DOCUMENT, media_type},
    progress::Progress,
};
use sha2::{Digest as _, Sha256};
use ureq::{Body, http::Response};

use crate::{
    error::ImageError,
    exchange::{Call, Exchange, Target, error_document},
    http::Payload,
    options::RemoteOptions,
    retry::{self, Failure, RetryPolicy},
    store::digest_of,
};

/// What a client is going to do in a repository; decides what it asks a token service for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Pull,
    /// Read and write; blobs may be taken over from these repositories of the same registry.
    Push {
        /// Repositories to mount from.
        mount_from: Vec<String>,
    },
}

/// A manifest or index as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDocument {
    /// Its digest, computed from its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The registry's name for its type, without parameters.
    pub media_type: Option<String>,
}

/// The client of one repository. Shared by threads.
pub struct Remote<'a> {
    reference: ImageReference,
    pub(crate) exchange: Exchange<'a>,
}

/// What a request is for; decides what a refusal means.
#[derive(Clone, Copy)]
enum Want<'a> {
    /// A manifest or index by tag or digest.
    Manifest(&'a str),
    /// A blob.
    Blob(&'a Digest),
}

impl<'a> Remote<'a> {
    /// A client for the repository of `reference`; nothing is sent.
    ///
    /// # Errors
    /// A proxy or certificate of the options is malformed.
    pub fn new(
        reference: &ImageReference,
        access: &Access,
        options: &RemoteOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let (registry, repository) = (reference.registry(), reference.repository());
        let scopes = match access {
            Access::Pull => vec![format!("repository:{repository}:pull")],
            Access::Push { mount_from } => {
                let own = format!("repository:{repository}:pull,push");
                let others = mount_from.iter().map(|name| format!("repository:{name}:pull"));
                std::iter::once(own).chain(others).collect()
            }
        };
        let uploads = matches!(access, Access::Push { .. });
        let exchange = Exchange::new(registry, repository, scopes, uploads, options, progress)?;
        Ok(Self { reference: reference.clone(), exchange })
    }

    /// What the client was made for.
    pub fn reference(&self) -> &ImageReference {
        &self.reference
    }

    pub(crate) fn name(&self) -> &str {
        self.exchange.registry()
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        self.exchange.retry()
    }

    pub(crate) fn progress(&self) -> &'a dyn Progress {
        self.exchange.progress()
    }

    /// `/v2/<repository>/<tail>`.
    pub(crate) fn path(&self, tail: &str) -> String {
        format!("/v2/{}/{tail}", self.reference.repository())
    }

    /// The digest that a tag or digest stands for now; `None` when the registry has none, or does not say it
    /// without the document.
    ///
    /// # Errors
    /// The registry cannot be reached.
    pub fn head(&self, selector: &str) -> Result<Option<Digest>, ImageError> {
        let path = self.path(&format!("manifests/{selector}"));
        let accept = media_type::ACCEPTED.join(", ");
        let call = Call { headers: &[("accept", &accept)], ..Call::new("HEAD", &path) };
        self.retried(|| {
            let response = self.exchange.request(call)?;
            if response.status() != 200 {
                return Ok(None);
            }
            let header = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
            Ok(header.and_then(|text| text.parse().ok()))
        })
    }

    /// A manifest or index by tag or digest, at most `MAX_DOCUMENT` bytes; by digest, it is verified.
    ///
    /// # Errors
    /// It is not there, too large, or not what its digest says.
    pub fn manifest(&self, selector: &str) -> Result<RemoteDocument, ImageError> {
        let path = self.path(&format!("manifests/{selector}"));
        let accept = media_type::ACCEPTED.join(", ");
        let call = Call { headers: &[("accept", &accept)], ..Call::new("GET", &path) };
        let what = format!("manifest {selector} of {}", self.reference.familiar_name());
        let document = self.retried(|| self.document(call, Want::Manifest(selector), &what))?;
        match selector.parse::<Digest>() {
            Ok(expected) => self.verify(&expected, &document.digest).map(|()| document),
            Err(_) => Ok(document),
        }
    }

    /// A small blob (a configuration), at most `MAX_DOCUMENT` bytes, verified.
    ///
    /// # Errors
    /// It is not there, too large, or not what its digest says.
    pub fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.path(&format!("blobs/{digest}"));
        let what = format!("configuration {digest}");
        let document = self.retried(|| self.document(Call::new("GET", &path), Want::Blob(digest), &what))?;
        self.verify(digest, &document.digest)?;
        Ok(document.bytes)
    }

    /// The bytes of a blob in order. A broken connection is continued; the reader fails with
    /// `io::ErrorKind::InvalidData` at the end when length or digest are not those of the descriptor.
    pub fn open_blob(&self, blob: &Descriptor) -> BlobReader<'_, 'a> {
        BlobReader {
            remote: self,
            digest: blob.digest.clone(),
            size: blob.size,
            done: 0,
            failures: 0,
            hasher: Sha256::new(),
            body: None,
        }
    }

    /// The size of a blob that the repository has; `None` when it has not.
    ///
    /// # Errors
    /// The registry cannot be reached or refuses.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, ImageError> {
        let path = self.path(&format!("blobs/{digest}"));
        let call = Call::new("HEAD", &path);
        self.retried(|| {
            let response = self.exchange.request(call)?;
            match response.status().as_u16() {
                200 => Ok(Some(content_length(&response).unwrap_or(0))),
                404 => Ok(None),
                405 => self.first_byte(digest),
                _ => Err(self.refused(call, Want::Blob(digest), response)),
            }
        })
    }

    /// The same of a registry without HEAD: from the answer to a request for the first byte.
    fn first_byte(&self, digest: &Digest) -> Result<Option<u64>, Failure> {
        let path = self.path(&format!("blobs/{digest}"));
        let call = Call { headers: &[("range", "bytes=0-0")], ..Call::new("GET", &path) };
        let response = self.exchange.request(call)?;
        let total = || response.headers().get("content-range")?.to_str().ok()?.rsplit('/').next()?.parse().ok();
        match response.status().as_u16() {
            206 => Ok(Some(total().unwrap_or(0))),
            200 => Ok(Some(content_length(&response).unwrap_or(0))),
            // Nothing is no range: the blob is empty.
            416 => Ok(Some(0)),
            404 => Ok(None),
            _ => Err(self.refused(call, Want::Blob(digest), response)),
        }
    }

    /// One attempt at a blob from `offset` on: 200 or 206, the body unread.
    pub(crate) fn blob(&self, digest: &Digest, offset: u64) -> Result<Response<Body>, Failure> {
        let path = self.path(&format!("blobs/{digest}"));
        let range = format!("bytes={offset}-");
        let headers = [("range", range.as_str())];
        let call = Call { headers: if offset > 0 { &headers } else { &[] }, ..Call::new("GET", &path) };
        let response = self.exchange.request(call)?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            _ => Err(self.refused(call, Want::Blob(digest), response)),
        }
    }

    /// Repeats what is transient.
    pub(crate) fn retried<T>(&self, attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, ImageError> {
        retry::run(self.retry(), self.progress(), attempt)
    }

    fn document(&self, call: Call<'_>, want: Want<'_>, what: &str) -> Result<RemoteDocument, Failure> {
        let response = self.exchange.request(call)?;
        if response.status() != 200 {
            return Err(self.refused(call, want, response));
        }
        let header = response.headers().get("content-type").and_then(|v| v.to_str().ok());
        let media_type = header.map(|h| h.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = self.exchange.read_bounded(call, response, MAX_DOCUMENT as u64, what)?;
        Ok(RemoteDocument { digest: digest_of(&bytes), bytes, media_type })
    }

    fn verify(&self, expected: &Digest, actual: &Digest) -> Result<(), ImageError> {
        if actual == expected {
            return Ok(());
        }
        let (registry, expected, actual) = (self.name().to_owned(), expected.clone(), actual.clone());
        Err(ImageError::WrongDigest { registry, expected, actual })
    }

    /// Turns a status that is not success into an error.
    fn refused(&self, call: Call<'_>, want: Want<'_>, response: Response<Body>) -> Failure {
        if let Some(failure) = self.exchange.transient(call, &response) {
            return failure;
        }
        let status = response.status().as_u16();
        let registry = self.name().to_owned();
        let repository = self.reference.repository().to_owned();
        let refusal = error_document(response);
        let unknown = refusal.codes.iter().any(|c| c == "NAME_UNKNOWN");
        let reference = || Box::new(self.reference.clone());
        match (status, want) {
            (401, _) => self.exchange.unauthorized(),
            (403, _) => ImageError::Denied { registry, repository },
            (404, Want::Blob(digest)) => ImageError::MissingBlob { registry, digest: digest.clone() },
            (404, _) if unknown || self.lacks_repository() => {
                ImageError::UnknownImage { reference: reference(), registry, repository }
            }
            (404, Want::Manifest(selector)) => {
                ImageError::UnknownTag { reference: reference(), selector: selector.to_owned() }
            }
            _ => ImageError::BadStatus { registry, status, url: self.exchange.shown(call.target) },
        }
        .into()
    }

    /// Asks for the repository's tags: some registries call every missing manifest just that.
    fn lacks_repository(&self) -> bool {
        let path = self.path("tags/list?n=1");
        self.exchange.request(Call::new("GET", &path)).is_ok_and(|r| r.status() == 404)
    }

    /// Any other request of this repository.
    pub(crate) fn call(
        &self,
        method: &'static str,
        target: Target<'_>,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<Response<Body>, Failure> {
        self.exchange.request(Call { method, target, headers, payload })
    }
}

/// `Content-Length`, also of an answer to HEAD, which has no body.
pub(crate) fn content_length(response: &Response<Body>) -> Option<u64> {
    response.headers().get("content-length")?.to_str().ok()?.parse().ok()
}

/// First byte of `Content-Range: bytes a-b/c` (RFC 9110, 14.4).
pub(crate) fn content_range_start(response: &Response<Body>) -> Option<u64> {
    let header = response.headers().get("content-range")?.to_str().ok()?;
    header.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// A blob while it arrives; see [`Remote::open_blob`].
pub struct BlobReader<'r, 'a> {
    remote: &'r Remote<'a>,
    digest: Digest,
    size: u64,
    done: u64,
    failures: u32,
    hasher: Sha256,
    body: Option<Box<dyn Read + 'r>>,
}

impl BlobReader<'_, '_> {
    /// The connection for the next bytes.
    fn connect(&mut self) -> Result<(), Failure> {
        let response = self.remote.blob(&self.digest, self.done)?;
        let whole = response.status() == 200;
        if !whole && content_range_start(&response) != Some(self.done) {
            let reason = "the registry sent another range than was asked for".to_owned();
            return Err(ImageError::Invalid { what: format!("blob {}", self.digest), reason }.into());
        }
        let mut body = response.into_body().into_reader();
        if whole && self.done > 0 {
            // No ranges here: what is known already is read again and passed over.
            let skipped = io::copy(&mut body.by_ref().take(self.done), &mut io::sink()).unwrap_or(0);
            if skipped < self.done {
                return Err(Failure::new(self.truncated(), retry::Again::Often));
            }
        }
        self.body = Some(Box::new(body));
        Ok(())
    }

    fn truncated(&self) -> ImageError {
        let (registry, digest) = (self.remote.name().to_owned(), self.digest.clone());
        ImageError::Truncated { registry, digest, expected: self.size, received: self.done }
    }

    /// Waits, or gives up.
    fn pause(&mut self, failure: Failure) -> io::Result<()> {
        self.body = None;
        self.failures += 1;
        let paused = retry::pause(self.remote.retry(), self.remote.progress(), self.failures, failure);
        paused.map(drop).map_err(io::Error::other)
    }

    fn at_end(&mut self) -> io::Result<usize> {
        let actual = Digest::from_sha256(&std::mem::take(&mut self.hasher).finalize().into());
        match self.remote.verify(&self.digest, &actual) {
            Ok(()) => Ok(0),
            Err(wrong) => Err(io::Error::new(io::ErrorKind::InvalidData, wrong)),
        }
    }
}

impl Read for BlobReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.done == self.size && self.body.is_none() {
            return Ok(0);
        }
        loop {
            let Some(body) = &mut self.body else {
                if let Err(failure) = self.connect() {
                    self.pause(failure)?;
                }
                continue;
            };
            // One byte more than is missing would show a body that is too long.
            match body.read(buffer) {
                Ok(n) if n as u64 > self.size - self.done => {
                    let (registry, digest) = (self.remote.name().to_owned(), self.digest.clone());
                    let announced = self.done + n as u64;
                    let wrong = ImageError::WrongSize { registry, digest, expected: self.size, announced };
                    return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
                }
                Ok(n) if n > 0 => {
                    self.failures = 0;
                    self.hasher.update(&buffer[..n]);
                    self.done += n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ if self.done == self.size => {
                    self.body = None;
                    return self.at_end();
                }
                _ => {
                    let failure = Failure::new(self.truncated(), retry::Again::Often);
                    self.pause(failure)?;
                }
            }
        }
    }
}

//! Writing to a repository: blobs (mounted, in one piece, in chunks, continued after a break) and manifests
//! (distribution-spec 1.1, "Push").
//!
//! ```text
//! HEAD blob        there already: nothing is sent
//! POST ?mount=     the registry takes it over from another of its repositories
//! POST, PUT        small: one piece
//! POST, PATCH …, PUT   large: pieces; after a break the registry is asked how far it got
//! ```
//!
//! The registry checks the digest; what it answers to the last PUT is compared with ours.

use onggi_spec::{Digest, progress::ProgressEvent};
use ureq::{
    Body,
    http::{Response, Uri},
};

use crate::{
    content::Content,
    error::ImageError,
    exchange::{Call, Target, error_document},
    http::Payload,
    remote::Remote,
    retry::{self, Failure},
    url,
};

/// Blobs up to this size are sent in one piece, larger ones in pieces of it: what a break can cost.
const CHUNK: u64 = 32 << 20;
/// Most that a registry may ask for as the least size of a piece (`OCI-Chunk-Min-Length`).
const MAX_CHUNK: u64 = 1 << 30;
/// How often an upload is begun anew because the registry forgot it.
const FRESH_STARTS: u32 = 3;

/// How a blob came into the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    Exists,
    /// The registry took it over from this repository.
    Mounted(String),
    /// It was sent.
    Sent,
}

/// An upload session as the registry keeps it.
struct Session {
    location: Uri,
    /// Bytes that the registry has.
    offset: u64,
    /// Size of pieces.
    chunk: u64,
}

/// The registry no longer knows the session, or cannot say how far it got.
struct Forgotten(ImageError);

impl Remote<'_> {
    /// Brings a blob into the repository: finds it there, mounts it from one of `mount_from`, or sends it.
    ///
    /// # Errors
    /// The registry refuses or cannot be reached, or the content cannot be read.
    pub fn put_blob(
        &self,
        digest: &Digest,
        size: u64,
        content: &dyn Content,
        mount_from: &[String],
    ) -> Result<Uploaded, ImageError> {
        if self.blob_size(digest)?.is_some() {
            return Ok(Uploaded::Exists);
        }
        for repository in mount_from {
            if self.mount(digest, repository)? {
                return Ok(Uploaded::Mounted(repository.clone()));
            }
        }
        self.progress().event(ProgressEvent::Upload { digest: digest.clone(), total: size });
        let mut last = None;
        for _ in 0..FRESH_STARTS {
            let session = self.begin(size)?;
            match self.send(session, digest, size, content)? {
                Ok(()) => return Ok(Uploaded::Sent),
                Err(Forgotten(error)) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ImageError::Stopped))
    }

    /// Stores a manifest or index under a tag or its digest. Returns the digests of `subject` that the registry
    /// says it has understood (`OCI-Subject`).
    ///
    /// # Errors
    /// The registry refuses it, for instance because a blob is missing.
    pub fn put_manifest(&self, selector: &str, media_type: &str, bytes: &[u8]) -> Result<Option<Digest>, ImageError> {
        let path = self.path(&format!("manifests/{selector}"));
        let target = Target::Path(&path);
        self.retried(|| {
            let response = self.call("PUT", target, &[], Payload::Document { media_type, bytes })?;
            if response.status() != 201 {
                return Err(self.rejected("PUT", target, response));
            }
            let subject = response.headers().get("oci-subject").and_then(|v| v.to_str().ok());
            Ok(subject.and_then(|text| text.parse().ok()))
        })
    }

    /// Asks the registry to take a blob over. False when it does not; it then has begun an upload, which is
    /// given up here and which registries clean away.
    fn mount(&self, digest: &Digest, from: &str) -> Result<bool, ImageError> {
        let from = url::encode_query(from);
        let path = self.path(&format!("blobs/uploads/?mount={digest}&from={from}"));
        self.retried(|| {
            let response = self.call("POST", Target::Path(&path), &[], Payload::Empty)?;
            match response.status().as_u16() {
                201 => Ok(true),
                202 => {
                    if let Ok(location) = self.exchange.location(&response) {
                        // A courtesy; registries clean up by themselves too.
                        let _ = self.call("DELETE", Target::Url(&location), &[], Payload::None);
                    }
                    Ok(false)
                }
                _ => Err(self.rejected("POST", Target::Path(&path), response)),
            }
        })
    }

    fn begin(&self, size: u64) -> Result<Session, ImageError> {
        let path = self.path("blobs/uploads/");
        self.retried(|| {
            let response = self.call("POST", Target::Path(&path), &[], Payload::Empty)?;
            if response.status() != 202 {
                return Err(self.rejected("POST", Target::Path(&path), response));
            }
            let location = self.exchange.location(&response)?;
            let least = response.headers().get("oci-chunk-min-length").and_then(|v| v.to_str().ok()?.parse().ok());
            let chunk = least.unwrap_or(0).clamp(CHUNK, MAX_CHUNK);
            Ok(Session { location, offset: 0, chunk: chunk.min(size.max(1)) })
        })
    }

    /// All pieces, then the end.
    fn send(
        &self,
        mut session: Session,
        digest: &Digest,
        size: u64,
        content: &dyn Content,
    ) -> Result<Result<(), Forgotten>, ImageError> {
        let mut failures = 0;
        loop {
            let before = session.offset;
            let step = if size <= session.chunk || session.offset == size {
                self.finish(&session, digest, size, content).map(|()| true)
            } else {
                self.piece(&mut session, digest, size, content).map(|()| false)
            };
            let failure = match step {
                Ok(true) => return Ok(Ok(())),
                Ok(false) => continue,
                Err(failure) => failure,
            };
            if is_forgotten(&failure.error) {
                return Ok(Err(Forgotten(*failure.error)));
            }
            failures = if session.offset > before { 1 } else { failures + 1 };
            let cause = retry::pause(self.retry(), self.progress(), failures, failure)?;
            match self.ask_offset(&mut session, size) {
                // That it is forgotten only follows from what went wrong before.
                Err(Forgotten(error)) if is_forgotten(&error) => return Ok(Err(Forgotten(*cause))),
                Err(forgotten) => return Ok(Err(forgotten)),
                Ok(()) => {}
            }
        }
    }

    /// One PATCH.
    fn piece(&self, session: &mut Session, digest: &Digest, size: u64, content: &dyn Content) -> Result<(), Failure> {
        let (from, length) = (session.offset, session.chunk.min(size - session.offset));
        let range = format!("{from}-{}", from + length - 1);
        let target = Target::Url(&session.location);
        let counted = Counted { content, remote: self, digest, from };
        let payload = Payload::Part { content: &counted, from, length };
        let response = self.call("PATCH", target, &[("content-range", &range)], payload)?;
        if response.status() != 202 && response.status() != 201 {
            return Err(self.rejected("PATCH", target, response));
        }
        let location = self.exchange.location(&response)?;
        session.location = location;
        session.offset = from + length;
        Ok(())
    }

    /// The last PUT: with everything when nothing was sent before, else empty.
    fn finish(&self, session: &Session, digest: &Digest, size: u64, content: &dyn Content) -> Result<(), Failure> {
        let joiner = if session.location.query().is_some() { '&' } else { '?' };
        let url = format!("{}{joiner}digest={}", session.location, url::encode_query(digest.as_str()));
        let url = url::parse_absolute(&url).ok_or_else(|| ImageError::Invalid {
            what: format!("the upload location of registry {}", self.name()),
            reason: "it makes no URL together with a digest".to_owned(),
        })?;
        let counted = Counted { content, remote: self, digest, from: 0 };
        let payload = match size - session.offset {
            0 => Payload::Empty,
            length => Payload::Part { content: &counted, from: session.offset, length },
        };
        let response = self.call("PUT", Target::Url(&url), &[], payload)?;
        if response.status() != 201 && response.status() != 204 {
            return Err(self.rejected("PUT", Target::Url(&url), response));
        }
        let stored = response.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
        match stored.and_then(|text| text.parse::<Digest>().ok()) {
            Some(actual) if actual != *digest => {
                let (registry, expected) = (self.name().to_owned(), digest.clone());
                Err(ImageError::WrongDigest { registry, expected, actual }.into())
            }
            _ => Ok(()),
        }
    }

    /// Asks how far an upload got (distribution-spec, "GET upload status").
    fn ask_offset(&self, session: &mut Session, size: u64) -> Result<(), Forgotten> {
        let target = Target::Url(&session.location);
        let answer = self.retried(|| {
            let response = self.call("GET", target, &[], Payload::None)?;
            match response.status().as_u16() {
                204 => Ok(response),
                _ => Err(self.rejected("GET", target, response)),
            }
        });
        let response = answer.map_err(Forgotten)?;
        let offset = upload_range(&response).filter(|&offset| offset <= size);
        let offset = offset.ok_or_else(|| {
            Forgotten(ImageError::Invalid {
                what: format!("the upload status of registry {}", self.name()),
                reason: "its Range is not one of this upload".to_owned(),
            })
        })?;
        if let Ok(location) = self.exchange.location(&response) {
            session.location = location;
        }
        session.offset = offset;
        if size <= session.chunk && offset > 0 {
            // The rest goes as one piece, then the empty PUT.
            session.chunk = (size - offset).max(1);
        }
        Ok(())
    }

    /// Turns a status that is not success into an error.
    pub(crate) fn rejected(&self, method: &'static str, target: Target<'_>, response: Response<Body>) -> Failure {
        let call = Call { method, target, headers: &[], payload: Payload::None };
        if let Some(failure) = self.exchange.transient(call, &response) {
            return failure;
        }
        let status = response.status().as_u16();
        let registry = self.name().to_owned();
        let repository = self.reference().repository().to_owned();
        match status {
            401 => self.exchange.unauthorized(),
            403 => ImageError::Denied { registry, repository },
            _ => {
                let refusal = error_document(response);
                let url = self.exchange.shown(target);
                let code = refusal.codes.into_iter().next().unwrap_or_default();
                ImageError::Rejected { registry, method, url, status, code, message: refusal.message }
            }
        }
        .into()
    }
}

/// 404 and 416, and docker-registry's 400 for an upload whose bytes it lost count of.
fn is_forgotten(error: &ImageError) -> bool {
    match error {
        ImageError::Rejected { status: 404 | 416, .. } => true,
        ImageError::Rejected { code, .. } => code == "BLOB_UPLOAD_UNKNOWN" || code == "BLOB_UPLOAD_INVALID",
        _ => false,
    }
}

/// Bytes that the registry has, from `Range: 0-<last>`. docker-registry says `0-0` for none and for one.
fn upload_range(response: &Response<Body>) -> Option<u64> {
    let text = response.headers().get("range")?.to_str().ok()?;
    let last: u64 = text.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// Reports how far an upload is.
struct Counted<'c, 'a> {
    content: &'c dyn Content,
    remote: &'c Remote<'a>,
    digest: &'c Digest,
    from: u64,
}

impl Content for Counted<'_, '_> {
    fn open(&self, from: u64) -> std::io::Result<Box<dyn std::io::Read + '_>> {
        let inner = self.content.open(from)?;
        Ok(Box::new(Counting { inner, owner: self, done: from, reported: self.from }))
    }
}

/// Progress is reported every so many bytes.
const REPORT_EVERY: u64 = 1 << 20;

struct Counting<'c> {
    inner: Box<dyn std::io::Read + 'c>,
    owner: &'c Counted<'c, 'c>,
    done: u64,
    reported: u64,
}

impl std::io::Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.done += n as u64;
        if self.done - self.reported >= REPORT_EVERY {
            self.reported = self.done;
            let event = ProgressEvent::Advanced { digest: self.owner.digest.clone(), done: self.done };
            self.owner.remote.progress().event(event);
        }
        Ok(n)
    }
}

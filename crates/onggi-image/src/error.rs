//! What can go wrong between a reference and verified content, one variant per operation.
//!
//! Every variant names the object it is about; [`ImageError::hint`] says what to do about it. Credentials
//! never appear in an error: URLs are stripped of their query before they are stored here.

use std::{io, path::PathBuf, time::Duration};

use onggi_spec::{Digest, ImageReference, ParseError};

use crate::tls::{self, Distrust};

/// Why a registry could not be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The host name does not resolve.
    Resolve,
    /// Nothing answers at the address (refused, unreachable, no route).
    Connect,
    /// The TLS handshake failed or the certificate was not accepted.
    Tls,
    /// A time limit passed.
    Timeout,
    /// The connection broke in the middle of a message.
    Broken,
    /// The peer does not speak HTTP as it should.
    Protocol,
    /// The configured proxy refused or is malformed.
    Proxy,
}

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{method} {url}")]
pub struct TransportError {
    /// The HTTP method.
    pub method: &'static str,
    /// The URL without its query.
    pub url: String,
    /// The class of failure.
    pub kind: FailureKind,
    /// The kernel's account of it, or else the client library's.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What the kernel or TLS said, where the client library only passes that on.
pub(crate) fn innermost(error: ureq::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        ureq::Error::Io(source) => tls::in_words(source),
        other => Box::new(other),
    }
}

/// An operation on the local blob store that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct StoreError {
    /// What was tried, as a verb: `"write"`.
    pub operation: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

impl StoreError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free disk space (for instance `onggi rmi` of unused images), or choose another place with --root"
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the data root is on a read-only file system; choose another with --root"
            }
            io::ErrorKind::PermissionDenied => {
                "the data root belongs to another user; run as its owner or choose another with --root"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// A pull that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No answer from the registry.
    #[error("registry {registry} cannot be reached")]
    RegistryUnreachable {
        /// Its host.
        registry: String,
        /// What happened.
        #[source]
        source: TransportError,
    },
    /// The repository does not exist.
    #[error("image {reference} not found: registry {registry} has no repository {repository:?}")]
    UnknownImage {
        /// What was asked for.
        reference: Box<ImageReference>,
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
    },
    /// The repository exists, the tag or digest in it does not.
    #[error("image {reference} not found: its repository has no {selector:?}")]
    UnknownTag {
        /// What was asked for.
        reference: Box<ImageReference>,
        /// The tag or digest.
        selector: String,
    },
    /// A blob that the manifest names is not in the registry.
    #[error("registry {registry} lacks blob {digest} of the image")]
    MissingBlob {
        /// The registry.
        registry: String,
        /// The blob.
        digest: Digest,
    },
    /// Credentials are needed, or those given were refused.
    #[error("registry {registry} refuses access{}: {}", to(repository), if *.sent { "the credentials were not accepted" } else { "authentication is required" })]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// Credentials were sent.
        sent: bool,
    },
    /// The credentials are known but do not allow this.
    #[error("registry {registry} denies access{}", to(repository))]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
    },
    /// Too many requests, even after waiting.
    #[error("registry {registry} limits the number of requests")]
    RateLimited {
        /// The registry.
        registry: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry itself fails (5xx), or gives a status that has no meaning here.
    #[error("registry {registry} answered {status} to {url}")]
    BadStatus {
        /// The registry.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// The URL without its query.
        url: String,
    },
    /// The store lacks what is to be pushed.
    #[error("the store does not have all of {digest}: missing {}", missing.join(", "))]
    Incomplete {
        /// Manifest, index or layer.
        digest: Digest,
        /// What of it.
        missing: Vec<String>,
    },
    /// The registry does not accept what was pushed.
    #[error("registry {registry} rejects {method} {url}: {status}{}{}", shown_code(code), shown_code(message))]
    Rejected {
        /// The registry.
        registry: String,
        /// The HTTP method.
        method: &'static str,
        /// The URL without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The registry's first error code, may be empty.
        code: String,
        /// Its message, may be empty.
        message: String,
    },
    /// Content does not have the digest it was asked for by.
    #[error("registry {registry} served wrong content: expected {expected}, got {actual}")]
    WrongDigest {
        /// The registry.
        registry: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what arrived.
        actual: Digest,
    },
    /// The announced length is not the one in the manifest.
    #[error("registry {registry} announces {announced} bytes for {digest}, the manifest says {expected}")]
    WrongSize {
        /// The registry.
        registry: String,
        /// The blob.
        digest: Digest,
        /// Size in the manifest, bytes.
        expected: u64,
        /// Size announced or sent, bytes.
        announced: u64,
    },
    /// The connection ended early, every time.
    #[error("blob {digest} from registry {registry} is truncated: {received} of {expected} bytes")]
    Truncated {
        /// The registry.
        registry: String,
        /// The blob.
        digest: Digest,
        /// Size in the manifest, bytes.
        expected: u64,
        /// Bytes that arrived.
        received: u64,
    },
    /// The peer sends, but so slowly that it amounts to a stall.
    #[error("registry {registry} sends blob {digest} too slowly: {received} bytes in {seconds} s")]
    Stalled {
        /// The registry.
        registry: String,
        /// The blob.
        digest: Digest,
        /// Bytes that arrived.
        received: u64,
        /// In this many seconds.
        seconds: u64,
    },
    /// A document exceeds its bound.
    #[error("{what} is larger than the {limit} bytes allowed")]
    TooLarge {
        /// Which document.
        what: String,
        /// The bound in bytes.
        limit: u64,
    },
    /// A document breaks the grammar of its format or could be read in two ways (CVE-2021-41190).
    #[error("{what} is refused")]
    Malformed {
        /// Which document.
        what: String,
        /// Where and why.
        #[source]
        source: ParseError,
    },
    /// A file that is no registry's cannot be fetched.
    #[error("cannot fetch {url}: {reason}")]
    Fetch {
        /// Its URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// A document parses but breaks a rule of its format.
    #[error("{what} is not valid: {reason}")]
    Invalid {
        /// Which document.
        what: String,
        /// The rule.
        reason: String,
    },
    /// A media type that cannot be used here.
    #[error("{what} has the unsupported media type {media_type:?}")]
    UnsupportedMediaType {
        /// Manifest, config or layer.
        what: String,
        /// The type.
        media_type: String,
    },
    /// A layer that is to be fetched from a URL outside the registry.
    #[error("layer {digest} is a foreign layer, to be fetched from outside the registry; this is refused")]
    ForeignLayer {
        /// The layer.
        digest: Digest,
    },
    /// The image does not exist for the wanted platform.
    #[error("image {reference} is not available for {wanted}")]
    WrongArchitecture {
        /// What was asked for.
        reference: Box<ImageReference>,
        /// `os/architecture[/variant]`.
        wanted: String,
        /// The platforms it exists for.
        available: Vec<String>,
    },
    /// The registry names a token service that must not be used.
    #[error("registry {registry} names the token service {realm:?}, which is refused: {reason}")]
    UnsafeRealm {
        /// The registry.
        registry: String,
        /// The realm as sent, cut.
        realm: String,
        /// Why.
        reason: &'static str,
    },
    /// The token service did not give a token.
    #[error("the token service {url} of registry {registry} gave no token: {reason}")]
    BadToken {
        /// The registry.
        registry: String,
        /// The token service, without query.
        url: String,
        /// Why.
        reason: String,
    },
    /// A redirect that must not be followed.
    #[error("registry {registry} redirects to {target:?}, which is refused: {reason}")]
    UnsafeRedirect {
        /// The registry.
        registry: String,
        /// Where to, cut, without query.
        target: String,
        /// Why.
        reason: &'static str,
    },
    /// A configured proxy or certificate cannot be used.
    #[error("{what} cannot be used")]
    Setup {
        /// Which setting.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The local store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The receiver of layers asked to stop.
    #[error("the pull was stopped by the receiver of its layers")]
    Stopped,
}

impl ImageError {
    /// What the name stands for is no image: a signature, an attestation, a chart.
    pub fn is_no_image(&self) -> bool {
        match self {
            Self::UnsupportedMediaType { .. } => true,
            Self::WrongArchitecture { available, .. } => available.is_empty(),
            _ => false,
        }
    }

    /// No registry answered, or not in a usable way: what is stored may do instead.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::RegistryUnreachable { .. } | Self::BadStatus { status: 500.., .. } | Self::RateLimited { .. }
        )
    }

    /// What the user can do, in one sentence.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::RegistryUnreachable { registry, source } => return Some(unreachable_hint(registry, source)),
            Self::UnknownImage { .. } => "check the spelling; a private repository may also need credentials".to_owned(),
            Self::UnknownTag { reference, .. } if reference.digest().is_some() => {
                "check the digest; a registry may have forgotten an image that no tag names any more".to_owned()
            }
            Self::UnknownTag { reference, .. } => format!("check the tag; the tags of {} are listed by its registry", reference.familiar_name()),
            Self::Unauthorized { registry, sent: false, .. } => format!(
                "log in to {registry} (`onggi login {registry}`), or check the image name: some registries answer this way for names that do not exist"
            ),
            Self::Unauthorized { registry, sent: true, .. } => {
                format!("check user name and password, and log in again (`onggi login {registry}`)")
            }
            Self::Denied { registry, .. } => format!("ask the owner of the repository for access, or log in to {registry} as another user"),
            Self::RateLimited { retry_after: Some(wait), .. } => format!("try again in {} s, or log in to get a higher limit", wait.as_secs()),
            Self::RateLimited { .. } => "try again later, or log in to get a higher limit".to_owned(),
            Self::BadStatus { status: 500.., .. } => "the registry has a fault of its own; try again later".to_owned(),
            Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                "nothing was stored; the registry or something on the way alters content: do not trust it before this is explained".to_owned()
            }
            Self::Truncated { .. } | Self::Stalled { .. } => "check the network and pull again; what arrived is kept, and the pull goes on from there".to_owned(),
            Self::MissingBlob { .. } => "the image in the registry is incomplete; it must be pushed again".to_owned(),
            Self::Incomplete { .. } => "pull the image again, or let `onggi system check --repair` do so; for every platform of it, pull with --all-platforms".to_owned(),
            Self::WrongArchitecture { available, .. } if available.is_empty() => "the index names no image at all".to_owned(),
            Self::WrongArchitecture { available, .. } => format!("it is available for: {}", available.join(", ")),
            Self::Malformed { source, .. } if !source.hint.is_empty() => source.hint.clone(),
            Self::UnsupportedMediaType { .. } => "this may not be a container image, or it needs a newer Onggi".to_owned(),
            Self::ForeignLayer { .. } => "ask the publisher for an image whose layers are all in the registry".to_owned(),
            Self::UnsafeRealm { .. } | Self::UnsafeRedirect { .. } => {
                "credentials and content would leave the registry's own protected channel; contact its administrator".to_owned()
            }
            Self::Store(error) => return error.hint(),
            Self::Fetch { .. } => "check the URL (http or https), and that its server runs".to_owned(),
            Self::Invalid { .. } | Self::Malformed { .. } | Self::TooLarge { .. } => {
                "the image is damaged or hostile; it was not stored".to_owned()
            }
            Self::Rejected { code, .. } if code == "MANIFEST_BLOB_UNKNOWN" => {
                "a blob of the image was removed while it was pushed; push again".to_owned()
            }
            Self::Rejected { .. } | Self::BadStatus { .. } | Self::BadToken { .. } | Self::Setup { .. } | Self::Stopped => return None,
        };
        Some(hint)
    }
}

/// ` to repository`, or nothing when it is about the registry as a whole.
fn to(repository: &str) -> String {
    if repository.is_empty() { String::new() } else { format!(" to {repository}") }
}

/// ` word`, or nothing.
fn shown_code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" {text}") }
}

fn unreachable_hint(registry: &str, error: &TransportError) -> String {
    match error.kind {
        FailureKind::Resolve => format!("check the spelling of {registry} and this machine's DNS"),
        FailureKind::Connect => format!("check that {registry} is running and that no firewall is in between"),
        FailureKind::Tls => certificate_hint(registry, tls::distrust(&*error.source)),
        FailureKind::Timeout | FailureKind::Broken => "check the network and try again".to_owned(),
        FailureKind::Protocol => format!("{registry} does not answer like a registry; check the port"),
        FailureKind::Proxy => "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY".to_owned(),
    }
}

/// What can be done, first by who runs the registry. That nothing needs to be verified is only said where it may be meant well.
fn certificate_hint(registry: &str, why: Option<Distrust>) -> String {
    let last = "or use --tls-verify=false if you know what you are doing";
    match why {
        None => {
            format!("the certificate of {registry} is not trusted here; install its authority on this machine, {last}")
        }
        Some(Distrust::Unknown) => format!(
            "the certificate of {registry} is not trusted here; put that of its authority into /etc/containers/certs.d/{registry}/ca.crt, {last}"
        ),
        Some(Distrust::Authority) => format!(
            "if it is the right one, put exactly this certificate into /etc/containers/certs.d/{registry}/ca.crt, {last}"
        ),
        Some(Distrust::Expired) => {
            format!("the certificate of {registry} has expired; have it renewed, and check this machine's clock")
        }
        Some(Distrust::NotYet) => format!("the certificate of {registry} is not valid yet; check this machine's clock"),
        Some(Distrust::OtherName) => {
            format!(
                "use a name that the certificate is for, or have it made anew with this one in its subjectAltName, {last}"
            )
        }
        Some(Distrust::NoName) => format!(
            "a common name does not count; have the certificate of {registry} made anew with a name in it (openssl req … -addext subjectAltName=DNS:HOST or IP:ADDRESS)"
        ),
    }
}

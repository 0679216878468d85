//! Lists that a registry gives in pages: tags, repositories, referrers; and Docker Hub's search.
//!
//! Pages follow each other by `Link: <…>; rel="next"` (distribution-spec, "Listing tags"). Each page and the number of
//! pages and entries are bounded; a link that leads back or elsewhere ends the list or is refused.

use onggi_spec::{
    Digest,
    image::{Document, Index, MAX_DOCUMENT, media_type},
    progress::Progress,
};
use onggi_sys::jail;
use serde::{Deserialize, de::DeserializeOwned};
use ureq::{
    Body,
    http::{Response, Uri},
};

use crate::{
    credentials::Credentials,
    error::ImageError,
    exchange::{Call, Exchange, Target, error_document},
    http::Payload,
    options::RemoteOptions,
    remote::Remote,
    retry::{self, Failure},
    url,
};

/// Pages of one list that are asked for.
const MAX_PAGES: usize = 1000;
/// Entries of one list that are kept.
const MAX_ENTRIES: usize = 100_000;
/// Longest name in a list.
const MAX_NAME: usize = 512;
/// Entries of a page; registries may give fewer.
const PAGE: usize = 1000;

/// A registry without a repository: login, search, catalogue.
pub struct Host<'a> {
    exchange: Exchange<'a>,
}

/// One line of a search.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Repository.
    pub name: String,
    /// What its owner says of it.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default)]
    pub star_count: u64,
    /// One of Docker's own.
    #[serde(default)]
    pub is_official: bool,
    /// Built by Docker Hub (no longer a thing).
    #[serde(default)]
    pub is_automated: bool,
}

impl<'a> Host<'a> {
    /// A client for what is not in a repository. `scopes` as token services know them.
    ///
    /// # Errors
    /// A proxy or certificate of the options is malformed.
    pub fn new(
        registry: &str,
        scopes: &[&str],
        options: &RemoteOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let scopes = scopes.iter().map(|s| (*s).to_owned()).collect();
        Ok(Self { exchange: Exchange::new(registry, "", scopes, false, options, progress)? })
    }

    /// Shows the credentials to the registry (`GET /v2/`). Returns the identity token that its token service gives
    /// instead of the password, if it does.
    ///
    /// # Errors
    /// They are refused, or the registry cannot be reached.
    pub fn login(&self) -> Result<Option<Credentials>, ImageError> {
        self.exchange.want_identity();
        let call = Call::new("GET", "/v2/");
        retry::run(self.exchange.retry(), self.exchange.progress(), || {
            let response = self.exchange.request(call)?;
            match response.status().as_u16() {
                200 => Ok(()),
                401 => Err(self.exchange.unauthorized().into()),
                _ => Err(refused(&self.exchange, call, response)),
            }
        })?;
        Ok(self.exchange.identity().map(Credentials::IdentityToken))
    }

    /// Docker Hub's search (`/v1/search`), which some other registries have too. `None` when this one has not.
    ///
    /// # Errors
    /// The registry cannot be reached, or its answer is malformed.
    pub fn search(&self, term: &str, limit: usize) -> Result<Option<Vec<Found>>, ImageError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            results: Vec<Found>,
        }
        let path = format!("/v1/search?q={}&n={limit}", url::encode_query(term));
        let call = Call { headers: &[("accept", "application/json")], ..Call::new("GET", &path) };
        retry::run(self.exchange.retry(), self.exchange.progress(), || {
            let response = self.exchange.request(call)?;
            match response.status().as_u16() {
                200 => {
                    let answer: Answer = page(&self.exchange, call, response, "the search result")?;
                    Ok(Some(answer.results.into_iter().filter(|f| f.name.len() <= MAX_NAME).take(limit).collect()))
                }
                404 | 405 => Ok(None),
                _ => Err(refused(&self.exchange, call, response)),
            }
        })
    }

    /// Every repository (`/v2/_catalog`), in the registry's order.
    ///
    /// # Errors
    /// The registry has no catalogue, refuses, or cannot be reached.
    pub fn catalog(&self) -> Result<Vec<String>, ImageError> {
        #[derive(Deserialize)]
        struct Catalog {
            #[serde(default)]
            repositories: Option<Vec<String>>,
        }
        let first = format!("/v2/_catalog?n={PAGE}");
        collect(&self.exchange, &first, "the catalogue", |c: Catalog| c.repositories.unwrap_or_default())
    }
}

impl Remote<'_> {
    /// Every tag of the repository, in the registry's order.
    ///
    /// # Errors
    /// There is no such repository, or the registry cannot be reached.
    pub fn tags(&self) -> Result<Vec<String>, ImageError> {
        #[derive(Deserialize)]
        struct Tags {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let first = self.path(&format!("tags/list?n={PAGE}"));
        let what = "the list of tags";
        match collect(&self.exchange, &first, what, |t: Tags| t.tags.unwrap_or_default()) {
            Err(ImageError::Rejected { status: 404, .. }) => Err(ImageError::UnknownImage {
                reference: Box::new(self.reference().clone()),
                registry: self.name().to_owned(),
                repository: self.reference().repository().to_owned(),
            }),
            other => other,
        }
    }

    /// What refers to a manifest: signatures, attestations, bills of materials (distribution-spec, "Listing
    /// Referrers"), from the registry's own list or, where it has none, from the tag `sha256-<hex>`.
    ///
    /// # Errors
    /// The registry cannot be reached, or its list is malformed.
    pub fn referrers(&self, digest: &Digest) -> Result<Index, ImageError> {
        let path = self.path(&format!("referrers/{digest}"));
        let call = Call { headers: &[("accept", media_type::OCI_INDEX)], ..Call::new("GET", &path) };
        let what = format!("the list of referrers of {digest}");
        let listed = self.retried(|| {
            let response = self.exchange.request(call)?;
            match response.status().as_u16() {
                200 => Ok(Some(self.exchange.read_bounded(call, response, MAX_DOCUMENT as u64, &what)?)),
                400 | 404 | 405 => Ok(None),
                _ => Err(refused(&self.exchange, call, response)),
            }
        })?;
        let bytes = match listed {
            Some(bytes) => bytes,
            None => match self.manifest(&referrers_tag(digest)) {
                Ok(document) => document.bytes,
                Err(ImageError::UnknownTag { .. } | ImageError::UnknownImage { .. }) => return Ok(empty_index()),
                Err(error) => return Err(error),
            },
        };
        match jail::parse(|| Document::parse(&bytes, None)) {
            Ok(Document::Index(index)) => Ok(index),
            Ok(Document::Manifest(_)) => {
                Err(ImageError::Invalid { what, reason: "it is a manifest, not an index".to_owned() })
            }
            Err(source) => Err(ImageError::Malformed { what, source }),
        }
    }
}

/// The tag under which referrers are listed in registries without the API.
pub fn referrers_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// An index of nothing.
pub fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

/// All pages of a list.
fn collect<T: DeserializeOwned + Send>(
    exchange: &Exchange<'_>,
    first: &str,
    what: &str,
    entries: impl Fn(T) -> Vec<String>,
) -> Result<Vec<String>, ImageError> {
    let mut all: Vec<String> = Vec::new();
    let mut next: Option<Uri> = None;
    for _ in 0..MAX_PAGES {
        let target = next.as_ref().map_or(Target::Path(first), Target::Url);
        let call = Call { method: "GET", target, headers: &[], payload: Payload::None };
        let (parsed, link) = retry::run(exchange.retry(), exchange.progress(), || {
            let response = exchange.request(call)?;
            if response.status() != 200 {
                return Err(refused(exchange, call, response));
            }
            let link = exchange.next_page(call.target, &response)?;
            Ok((page::<T>(exchange, call, response, what)?, link))
        })?;
        let before = all.len();
        all.extend(entries(parsed).into_iter().filter(|name| name.len() <= MAX_NAME));
        if all.len() > MAX_ENTRIES {
            return Err(ImageError::Invalid {
                what: what.to_owned(),
                reason: format!("more than {MAX_ENTRIES} entries"),
            });
        }
        match link {
            // A page without entries that leads on would never end.
            Some(link) if all.len() > before => next = Some(link),
            _ => return Ok(all),
        }
    }
    Err(ImageError::Invalid { what: what.to_owned(), reason: format!("more than {MAX_PAGES} pages") })
}

/// A bounded JSON answer.
fn page<T: DeserializeOwned + Send>(
    exchange: &Exchange<'_>,
    call: Call<'_>,
    response: Response<Body>,
    what: &str,
) -> Result<T, Failure> {
    let bytes = exchange.read_bounded(call, response, MAX_DOCUMENT as u64, what)?;
    let malformed =
        |_| ImageError::Invalid { what: what.to_owned(), reason: "it is not the JSON it should be".to_owned() };
    Ok(jail::parse(|| serde_json::from_slice(&bytes)).map_err(malformed)?)
}

/// A status that is not success.
fn refused(exchange: &Exchange<'_>, call: Call<'_>, response: Response<Body>) -> Failure {
    if let Some(failure) = exchange.transient(call, &response) {
        return failure;
    }
    let status = response.status().as_u16();
    let (registry, url) = (exchange.registry().to_owned(), exchange.shown(call.target));
    let refusal = error_document(response);
    match status {
        401 => exchange.unauthorized(),
        403 => ImageError::Denied { registry, repository: refusal.message },
        _ => {
            let code = refusal.codes.into_iter().next().unwrap_or_default();
            ImageError::Rejected { registry, method: call.method, url, status, code, message: refusal.message }
        }
    }
    .into()
}

/// The target of `rel=next` in a Link header (RFC 8288). Anything else is no link.
pub(crate) fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, params) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = params.split(';').any(|p| matches!(p.trim(), "rel=next" | "rel=\"next\""));
        (next && target.len() <= url::MAX_URL).then_some(target)
    })
}

/// What a token service is asked for before a catalogue.
pub const CATALOG_SCOPE: &str = "registry:catalog:*";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_a_link_header() {
        assert_eq!(next_link(r#"</v2/_catalog?last=b&n=2>; rel="next""#), Some("/v2/_catalog?last=b&n=2"));
        assert_eq!(next_link(r#"<a>; rel="prev", <b>; rel=next"#), Some("b"));
        for other in ["", "a", "<a", r#"<a>; rel="last""#, "<a>"] {
            assert_eq!(next_link(other), None, "{other}");
        }
    }
}

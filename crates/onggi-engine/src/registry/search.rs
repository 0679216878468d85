//! `search`: Docker Hub's search where a registry has it, else its catalogue.

use onggi_image::{Access, Found, Host, Remote, closure, lists::CATALOG_SCOPE};
use onggi_spec::{ImageReference, image::Descriptor, progress::Silent, reference::DEFAULT_REGISTRY};

use super::{Registries, RegistryChoice, RegistryError};
use crate::{Engine, EngineError};

/// Where Docker Hub answers searches.
const HUB_SEARCH: &str = "index.docker.io";

/// One repository that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchHit {
    /// The registry that has it.
    pub registry: String,
    /// What is known of it.
    pub found: Found,
}

/// The tags of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList {
    /// The repository, as people write it.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

impl Engine {
    /// Repositories that match `[HOST[:PORT]/]TERM`, at most `limit` of each registry.
    ///
    /// # Errors
    /// The registry cannot be reached, or has neither search nor catalogue.
    pub fn search(&self, text: &str, limit: usize, choice: &RegistryChoice) -> Result<Vec<SearchHit>, EngineError> {
        let registries = Registries::gather(choice)?;
        let (hosts, term) = match text.split_once('/') {
            Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => (vec![host.to_owned()], term),
            _ if registries.conf.search_registries().is_empty() => (vec![DEFAULT_REGISTRY.to_owned()], text),
            _ => (registries.conf.search_registries().to_vec(), text),
        };
        let mut hits = Vec::new();
        for registry in hosts {
            let found = registries.search_one(&registry, term, limit)?;
            hits.extend(found.into_iter().map(|found| SearchHit { registry: registry.clone(), found }));
        }
        Ok(hits)
    }

    /// The tags of a repository, at most `limit`.
    ///
    /// # Errors
    /// There is no such repository, or the registry cannot be reached.
    pub fn search_tags(&self, name: &str, limit: usize, choice: &RegistryChoice) -> Result<TagList, EngineError> {
        let reference: ImageReference = name.parse()?;
        let (place, options) = Registries::gather(choice)?.target(&reference)?;
        let mut tags = Remote::new(&place, &Access::Pull, &options, &Silent)?.tags()?;
        tags.truncate(limit);
        Ok(TagList { name: reference.familiar_name(), tags })
    }
}

impl Engine {
    /// What refers to an image: signatures, attestations. With `stored`, what is known here without asking.
    ///
    /// # Errors
    /// There is no such image, or the registry cannot be reached.
    pub fn referrers(&self, name: &str, stored: bool, choice: &RegistryChoice) -> Result<Vec<Descriptor>, EngineError> {
        if stored {
            let image = self.find_image(name)?;
            let known = closure::referrers(&self.blobs()?, &image.manifest_digest)?;
            return Ok(known.map(|index| index.manifests).unwrap_or_default());
        }
        let reference = self.qualify(name, choice)?;
        let (place, options) = Registries::gather(choice)?.target(&reference)?;
        let remote = Remote::new(&place, &Access::Pull, &options, &Silent)?;
        let digest = match place.digest() {
            Some(digest) => digest.clone(),
            None => remote.manifest(place.selector())?.digest,
        };
        Ok(remote.referrers(&digest)?.manifests)
    }
}

impl Registries<'_> {
    fn search_one(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<Found>, EngineError> {
        let bad = || RegistryError::BadRegistry { name: registry.to_owned() };
        let reference: ImageReference = format!("{registry}/search").parse().map_err(|_| bad())?;
        let (place, options) = self.target(&reference)?;
        let host = if place.registry() == DEFAULT_REGISTRY { HUB_SEARCH } else { place.registry() };
        if let Some(found) = Host::new(host, &[], &options, &Silent)?.search(term, limit)? {
            return Ok(found);
        }
        let all = Host::new(host, &[CATALOG_SCOPE], &options, &Silent)?.catalog()?;
        let plain = |name: String| Found {
            name,
            description: String::new(),
            star_count: 0,
            is_official: false,
            is_automated: false,
        };
        Ok(all.into_iter().filter(|name| name.contains(term)).take(limit).map(plain).collect())
    }
}

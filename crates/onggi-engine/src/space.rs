//! What the store occupies, and making room: `system df`, the prunes, the budget of `onggi.toml`.
//!
//! Sizes are of layers (content, each once) and of stored blobs together. Nothing that a container refers to is ever
//! removed here: an image counts as used while one does.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use onggi_image::closure;
use onggi_spec::{ContainerId, Digest, ImageReference};
use onggi_state::ImageRecord;

use crate::{ContainerSummary, Engine, EngineError, ImageSummary, ListFilter, create, lost};

/// What each kind of thing occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images, each once, newest first, with their own share.
    pub images: Vec<ImageUsage>,
    /// Containers, newest first, with the bytes that each has written.
    pub containers: Vec<(ContainerSummary, u64)>,
    /// Bytes of all layers and blobs.
    pub image_bytes: u64,
    /// Bytes that `image prune -a` would give.
    pub reclaimable: u64,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image, under one of its names.
    pub summary: ImageSummary,
    /// Bytes of layers that other images have too.
    pub shared: u64,
    /// Bytes of layers that no other image has.
    pub unique: u64,
}

/// Which of the unused things are to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneFilter {
    /// Only what was made before: unix time in nanoseconds.
    pub until: Option<i64>,
    /// Only what has all of these labels: name, and value when it matters.
    pub with: Vec<(String, Option<String>)>,
    /// Only what has none of these.
    pub without: Vec<(String, Option<String>)>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Containers.
    pub containers: Vec<ContainerId>,
    /// Names of images.
    pub untagged: Vec<ImageReference>,
    /// Images.
    pub deleted: Vec<Digest>,
    /// Bytes.
    pub reclaimed: u64,
}

impl PruneFilter {
    pub(crate) fn takes<'a>(&self, created: i64, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let has = |(key, value): &(String, Option<String>)| match (label(key), value) {
            (Some(found), Some(wanted)) => found == wanted,
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        };
        self.until.is_none_or(|until| created < until) && self.with.iter().all(&has) && !self.without.iter().any(has)
    }
}

impl Engine {
    /// What images and containers occupy.
    ///
    /// # Errors
    /// The state or a container's directory cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        let mut summaries = self.images()?;
        let mut seen = HashSet::new();
        summaries.retain(|image| seen.insert(image.record.config_digest.clone()));
        let sizes = self.layer_sizes()?;
        let mut users: HashMap<&Digest, usize> = HashMap::new();
        for chain_id in summaries.iter().flat_map(|image| distinct(&image.record)) {
            *users.entry(chain_id).or_default() += 1;
        }
        let share = |image: &ImageSummary, shared: bool| -> u64 {
            let mine = distinct(&image.record).into_iter().filter(|id| (users[id] > 1) == shared);
            mine.filter_map(|id| sizes.get(id)).sum()
        };
        let images: Vec<ImageUsage> = summaries
            .iter()
            .map(|image| ImageUsage { summary: image.clone(), shared: share(image, true), unique: share(image, false) })
            .collect();
        let blobs: HashMap<Digest, u64> = self.blobs()?.list()?.into_iter().collect();
        let image_bytes = sizes.values().chain(blobs.values()).sum();
        let listed = self.list(&ListFilter { all: true, ..ListFilter::default() })?;
        let needed = self.needed(&summaries, &listed)?;
        let kept: u64 = needed.iter().filter_map(|id| sizes.get(id).or_else(|| blobs.get(id))).sum();
        let mut containers = Vec::new();
        for container in listed {
            // One that is being removed right now has nothing any more.
            let written = self.written(&container.record).unwrap_or_default();
            containers.push((container, written));
        }
        Ok(DiskUsage { images, containers, image_bytes, reclaimable: image_bytes.saturating_sub(kept) })
    }

    /// Layers and blobs that would be left of these without the images that no container uses and that are not mounted.
    fn needed(&self, images: &[ImageSummary], containers: &[ContainerSummary]) -> Result<HashSet<Digest>, EngineError> {
        let mounted = self.mounted_images()?;
        let stays = |image: &ImageRecord| mounted.iter().any(|m| m.image == image.config_digest);
        let kept = images.iter().filter(|image| image.containers > 0 || stays(&image.record));
        let records: HashSet<&Digest> = kept.map(|image| &image.record.config_digest).collect();
        // An image has a manifest for each of its names.
        let all = self.state()?.list_images()?;
        let kept: Vec<&ImageRecord> = all.iter().filter(|image| records.contains(&image.config_digest)).collect();
        let tops: Vec<Digest> = kept.iter().map(|image| image.manifest_digest.clone()).collect();
        let mut needed = closure::reachable(&self.blobs()?, &tops)?;
        for image in kept {
            needed.extend(image.chain_ids.iter().chain(&image.layer_digests).cloned());
            needed.insert(image.config_digest.clone());
        }
        // Their image may be gone, removed by force.
        for record in containers.iter().map(|container| &container.record) {
            needed.extend(record.chain_ids.iter().chain(&record.image_id).cloned());
        }
        needed.extend(mounted.into_iter().flat_map(|m| m.chain_ids));
        Ok(needed)
    }

    fn layer_sizes(&self) -> Result<HashMap<Digest, u64>, EngineError> {
        Ok(self.state()?.list_layers()?.into_iter().map(|layer| (layer.chain_id, layer.size)).collect())
    }

    /// Bytes of all layers and blobs.
    fn occupied(&self) -> Result<u64, EngineError> {
        let blobs: u64 = self.blobs()?.list()?.into_iter().map(|(_, size)| size).sum();
        Ok(self.layer_sizes()?.values().sum::<u64>() + blobs)
    }

    /// Removes containers that do not run.
    ///
    /// # Errors
    /// A removal failed; those before it are done.
    pub fn prune_containers(&self, filter: &PruneFilter) -> Result<Pruned, EngineError> {
        let mut pruned = Pruned::default();
        self.remove_unrecorded_containers()?;
        for container in self.list(&ListFilter { all: true, ..ListFilter::default() })? {
            let record = &container.record;
            let label = |key: &str| record.request.labels.get(key).map(String::as_str);
            if container.status.is_running() || !filter.takes(record.created_at, label) {
                continue;
            }
            let written = self.written(record).unwrap_or_default();
            match self.rm(record.id.as_str(), false) {
                Ok(_) => {
                    pruned.containers.push(record.id.clone());
                    pruned.reclaimed += written;
                }
                // Started or removed by somebody else since.
                Err(EngineError::WrongState { .. }) => {}
                Err(e) if e.is_no_such_container() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(pruned)
    }

    /// Removes directories of containers that the database does not know: a container is made without waiting for the
    /// disk, and a power cut may leave the one without the other. Those that are older than the database were in another one, which was
    /// lost: what they hold is nobody's to remove but the user's.
    pub(crate) fn remove_unrecorded_containers(&self) -> Result<usize, EngineError> {
        drop(self.state()?);
        let dir = self.paths.root.join("containers");
        let failed = |source| EngineError::ReadFile { path: dir.clone(), source };
        let mut removed = 0;
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<ContainerId>().ok()) else { continue };
            if lost::is_older_than_database(&self.paths.root, &dir.join(id.as_str())) {
                continue;
            }
            // Held by whoever makes it right now.
            let Some(intent) = self.intents()?.try_begin(id.as_str())? else { continue };
            let known = self.state()?.container_by_id(&id)?.is_some();
            if !known {
                onggi_storage::remove_container_dir(&self.paths.root, &id)?;
                removed += 1;
            }
            intent.complete()?;
        }
        Ok(removed)
    }

    /// Removes images without a name, or with `all` every image, that no container was made from.
    ///
    /// # Errors
    /// A removal failed; those before it are done.
    pub fn prune_images(&self, all: bool, filter: &PruneFilter) -> Result<Pruned, EngineError> {
        self.forget_lost_mounts()?;
        let before = self.occupied()?;
        let mut pruned = Pruned::default();
        let mut seen = HashSet::new();
        for image in self.images()? {
            let record = &image.record;
            let label = |key: &str| image.labels.get(key).map(String::as_str);
            let unwanted = (all || record.name.is_none()) && image.containers == 0;
            if unwanted && filter.takes(record.created, label) && seen.insert(record.config_digest.clone()) {
                pruned.take(self.remove_unused(&record.config_digest)?);
            }
        }
        // Also what earlier removals had to leave because a pull was under way.
        self.collect_garbage()?;
        // Half a download is room as well, and other commands leave it for a day.
        self.blobs()?.remove_parts(Duration::ZERO)?;
        pruned.reclaimed = before.saturating_sub(self.occupied()?);
        Ok(pruned)
    }

    /// `None` when somebody made a container of it, or removed it, meanwhile.
    fn remove_unused(&self, id: &Digest) -> Result<Option<onggi_state::RemovedImage>, EngineError> {
        use onggi_state::StateError;
        if self.mounted_images()?.iter().any(|mounted| mounted.image == *id) {
            return Ok(None);
        }
        let removed = self.state()?.remove_image(id, false);
        match removed {
            Ok(removed) => Ok(Some(removed)),
            Err(StateError::ImageInUse { .. } | StateError::ImageNotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Evicts unused images, least recently used first, until the store keeps the budget of the settings. `keep` was
    /// just pulled and stays. Returns what went; when only used images are left the budget stays exceeded.
    ///
    /// # Errors
    /// The state or the filesystem cannot be read, or a removal failed.
    pub fn keep_budget(&self, keep: &Digest) -> Result<Pruned, EngineError> {
        let mut pruned = Pruned::default();
        while let Some(excess) = self.excess()? {
            let Some(oldest) = self.state()?.least_recently_used_image(keep)? else {
                tracing::warn!(
                    "the store is {excess} bytes over its budget, and every image left is used or was just pulled"
                );
                return Ok(pruned);
            };
            let before = self.occupied()?;
            let removed = self.remove_unused(&oldest)?;
            if let Some(removed) = &removed {
                let names: Vec<String> = removed.untagged.iter().map(onggi_spec::ImageReference::familiar).collect();
                let (id, names) = (oldest.short(), names.join(", "));
                tracing::warn!("image {id} ({names}) is evicted: the store is {excess} bytes over its budget");
            }
            pruned.take(removed);
            self.collect_garbage()?;
            let freed = before.saturating_sub(self.occupied()?);
            pruned.reclaimed += freed;
            if freed == 0 {
                // A pull keeps the garbage for now, or everything was shared: evicting more would free no more.
                return Ok(pruned);
            }
        }
        Ok(pruned)
    }

    /// The image is there; a budget that could not be kept now is kept by the next pull.
    pub(crate) fn after_pull(&self, image: &ImageRecord) {
        if let Err(e) = self.keep_budget(&image.config_digest) {
            tracing::warn!("cannot keep the store's budget: {}", crate::error_chain(&e));
        }
    }

    /// Bytes over the budget.
    fn excess(&self) -> Result<Option<u64>, EngineError> {
        let mut excess = 0;
        if let Some(max) = self.settings.max_size {
            excess = self.occupied()?.saturating_sub(max);
        }
        if let Some(min_free) = self.settings.min_free {
            let path = &self.paths.root;
            let found = rustix::fs::statvfs(path)
                .map_err(|e| EngineError::ReadFile { path: path.clone(), source: e.into() })?;
            let free = found.f_bavail * found.f_frsize;
            excess = excess.max(min_free.bytes(found.f_blocks * found.f_frsize).saturating_sub(free));
        }
        Ok((excess > 0).then_some(excess))
    }
}

impl Pruned {
    fn take(&mut self, removed: Option<onggi_state::RemovedImage>) {
        if let Some(removed) = removed {
            self.untagged.extend(removed.untagged);
            self.deleted.extend(removed.deleted);
        }
    }
}

/// The moment so many nanoseconds ago, for filters.
pub fn ago(nanoseconds: i64) -> i64 {
    create::now().saturating_sub(nanoseconds)
}

fn distinct(image: &ImageRecord) -> HashSet<&Digest> {
    image.chain_ids.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compare_time_and_labels() {
        let labels = HashMap::from([("a", "1")]);
        let takes = |filter: &PruneFilter| filter.takes(100, |key| labels.get(key).copied());
        let label = |key: &str, value: Option<&str>| vec![(key.to_owned(), value.map(str::to_owned))];
        assert!(takes(&PruneFilter::default()));
        assert!(takes(&PruneFilter { until: Some(101), ..PruneFilter::default() }));
        assert!(!takes(&PruneFilter { until: Some(100), ..PruneFilter::default() }));
        assert!(takes(&PruneFilter { with: label("a", None), ..PruneFilter::default() }));
        assert!(!takes(&PruneFilter { with: label("a", Some("2")), ..PruneFilter::default() }));
        assert!(!takes(&PruneFilter { without: label("a", Some("1")), ..PruneFilter::default() }));
        assert!(takes(&PruneFilter { without: label("b", None), ..PruneFilter::default() }));
    }
}

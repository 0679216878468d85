//! `pull`: download, unpack while layers arrive, record.
//!
//! Order on disk: layers and blobs first, each committed by rename after a sync; the database row last. What
//! a power cut or a kill leaves is either unreferenced, and collected later, or whole.

mod again;
mod early;

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

use onggi_image::{
    Access, ImagePlan, LayerReady, Mirror, PulledImage, Puller, Question, Remote, RemoteOptions, closure,
};
use onggi_spec::{
    Digest, ImageReference,
    image::Platform,
    progress::{Progress, ProgressEvent},
};
use onggi_state::{ImageRecord, PulledParts, StateError, files::Lock};
use onggi_storage::{LayerInfo, Layers, Prepared, UnpackRequest};
use onggi_sys::trace;

pub(crate) use early::Asked;
pub use early::EarlyQuestion;

use crate::{
    Engine, EngineError, create, failpoint, names,
    registry::{Registries, RegistryChoice},
};

/// Blobs beyond the image itself that are fetched at the same time.
const PARALLEL: usize = 3;
/// How the intents of pulls begin; what follows is random.
pub(crate) const PULL_INTENT: &str = "pull-";

/// When a registry is asked for an image that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Every time.
    Always,
    /// Never, but for one that is not stored.
    #[default]
    Missing,
    /// Every time; a stored one is good enough when no registry can be reached.
    Newer,
    /// Never at all.
    Never,
}

/// What became of the tags of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllTags {
    /// The images.
    pub pulled: Vec<ImageReference>,
    /// What was passed over, and why.
    pub passed_over: Vec<String>,
}

/// How to pull.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// How registries are talked to.
    pub registry: RegistryChoice,
    /// The platform; this machine's when absent.
    pub platform: Option<Platform>,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// Also store every other platform of the image, without unpacking it.
    pub all_platforms: bool,
    /// Also store what refers to the image: signatures, attestations.
    pub referrers: bool,
}

impl Engine {
    /// Brings an image into the store, or up to date.
    ///
    /// # Errors
    /// The registry, the network, the disk or the image itself.
    pub fn pull(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ImageRecord, EngineError> {
        let reference = &reference.exact();
        // Where a registry is asked in any case, that comes first, and this is done meanwhile.
        if options.policy != PullPolicy::Always {
            self.recover_containers()?;
        }
        self.find_or_pull(reference, options, progress)
    }

    /// Pulls every tag of a repository. One that is no image is passed over, such as a list of signatures; an image that fails
    /// ends it.
    ///
    /// # Errors
    /// As for [`pull`](Self::pull), or no tag is an image.
    pub fn pull_all_tags(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<AllTags, EngineError> {
        self.recover_containers()?;
        let source = self.registries(&options.registry)?.sources(reference)?.pop();
        let Some(Mirror { reference: place, remote }) = source else { return Ok(AllTags::default()) };
        let tags = Remote::new(&place, &Access::Pull, &remote, progress)?.tags()?;
        let mut all = AllTags::default();
        let mut last = None;
        for tag in tags {
            let name = reference.with_tag(&tag)?;
            match self.find_or_pull(&name, options, progress) {
                Ok(_) => all.pulled.push(name),
                Err(EngineError::Image(e)) if e.is_no_image() => {
                    all.passed_over.push(format!("{} is passed over, it is no image: {e}", name.familiar()));
                    last = Some(e);
                }
                Err(e) => return Err(e),
            }
        }
        match last {
            Some(e) if all.pulled.is_empty() => Err(e.into()),
            _ => Ok(all),
        }
    }

    /// The stored image or the pulled one, as the policy says.
    pub(crate) fn find_or_pull(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ImageRecord, EngineError> {
        let reference = &reference.exact();
        if options.policy == PullPolicy::Always {
            return self.pull_image(reference, options, progress);
        }
        let by_name = self.image_under(reference)?;
        let stored = match by_name {
            Some(image) => Some(image),
            None => self.image_by_id(reference)?,
        };
        match (stored, options.policy) {
            (Some(image), PullPolicy::Newer) => match self.pull_image(reference, options, progress) {
                Ok(newer) => Ok(newer),
                Err(EngineError::Image(e)) if e.is_unreachable() => self.check_platform(image, reference, options),
                Err(e) => Err(e),
            },
            (Some(image), _) => self.check_platform(image, reference, options),
            (None, PullPolicy::Never) => Err(EngineError::NotPulled { image: reference.familiar() }),
            (None, _) => self.pull_image(reference, options, progress),
        }
    }

    /// A stored image is only what was asked for when its platform is.
    fn check_platform(
        &self,
        image: ImageRecord,
        name: &ImageReference,
        options: &PullOptions,
    ) -> Result<ImageRecord, EngineError> {
        let Some(wanted) = &options.platform else { return Ok(image) };
        let found = self.stored_config(&image.config_digest)?.platform();
        let variant_differs = wanted.variant.is_some() && wanted.variant != found.variant;
        if found.os == wanted.os && found.architecture == wanted.architecture && !variant_differs {
            return Ok(image);
        }
        let shown = |p: &Platform| format!("{}/{}", p.os, p.architecture);
        Err(EngineError::OtherPlatform { image: name.familiar(), found: shown(&found), wanted: shown(wanted) })
    }

    /// `run 3f4a9c…`, `run sha256:3f4a9c…`: what looks like a name may be the beginning of an id.
    fn image_by_id(&self, reference: &ImageReference) -> Result<Option<ImageRecord>, EngineError> {
        let text = written_id(reference).map_or_else(|| reference.familiar_name(), str::to_owned);
        if reference.digest().is_some() || text.len() < 4 {
            return Ok(None);
        }
        let mut found = self.state()?.images_by_id_prefix(&text)?;
        found.dedup_by(|a, b| a.config_digest == b.config_digest);
        Ok(if found.len() == 1 { found.pop() } else { None })
    }

    fn pull_image(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ImageRecord, EngineError> {
        if let Some(id) = written_id(reference).filter(|id| id.len() == 64) {
            return Err(StateError::ImageNotFound { reference: format!("sha256:{id}") }.into());
        }
        // The registry takes longest, so it is asked before anything is looked at here, where that is possible.
        let (registry, source, question) = match self.asked_early(reference, options) {
            Some(asked) => asked,
            None => {
                let (registry, source) = registry_options(&self.registries(&options.registry)?, reference, options)?;
                let question = Question::send(reference, &registry);
                (registry, source, question)
            }
        };
        self.paths.create(self.euid)?;
        let blobs = self.blobs()?;
        let puller = Puller::new(&blobs, reference, registry, progress)?;
        if let Some(image) = self.pulled_before(&puller, question, reference, options, progress)? {
            self.after_pull(&image);
            return Ok(image);
        }
        // A database that is made after the content would take this for what another one has lost.
        drop(self.state()?);
        let intent = self.intents()?.wait(&format!("{PULL_INTENT}{}", names::random_id()?.short()))?;
        // Shared with other pulls; a collection of garbage waits for none of us and takes nothing meanwhile.
        let keep = Lock::shared(&self.images_lock()?)?;
        let pulled = self.fetch_and_record(puller, &source, reference, options, progress);
        intent.complete()?;
        drop(keep);
        if let Ok(image) = &pulled {
            self.after_pull(image);
        }
        pulled
    }

    fn fetch_and_record(
        &self,
        puller: Puller<'_>,
        source: &Mirror,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ImageRecord, EngineError> {
        let plan =
            trace::step("engine", || format!("ask for the manifest of {}", reference.familiar()), || puller.plan())?;
        failpoint::hit("pull.resolved");
        let layers = LayerPlan::new(self.layers()?, &plan);
        let parts = again::parts(&plan, puller.platform());
        if !options.all_platforms
            && !options.referrers
            && let Some(image) = self.unchanged(reference, &plan, &layers, &parts)?
        {
            self.remember(reference, &parts);
            announce_present(&parts, progress);
            return Ok(image);
        }
        let prepared: Mutex<Vec<Option<Prepared>>> = Mutex::new(plan.layers.iter().map(|_| None).collect());
        let failed = Mutex::new(None);
        let fetch = |plan| {
            puller.fetch(plan, &|ready| {
                failpoint::hit("pull.layer-downloaded");
                let index = ready.index;
                match layers.prepare(ready, progress) {
                    Ok(layer) => {
                        unlocked(&prepared)[index] = Some(layer);
                        failpoint::hit("pull.layer-unpacked");
                        ControlFlow::Continue(())
                    }
                    Err(e) => {
                        unlocked(&failed).get_or_insert(e);
                        ControlFlow::Break(())
                    }
                }
            })
        };
        let pulled = onggi_storage::flushing_meanwhile(&self.paths.root, || fetch(plan));
        if let Some(e) = unlocked(&failed).take() {
            return Err(e);
        }
        let pulled = pulled?;
        self.fetch_more(source, &pulled, options, progress)?;
        failpoint::hit("pull.before-commit");
        let prepared = unlocked(&prepared).drain(..).flatten().collect();
        // Lowest first; one sync for all of them.
        let unpacked =
            trace::step("storage", || "sync and commit all layers".into(), || layers.store.commit_all(prepared))?;
        self.record_image(reference, pulled, &unpacked, &parts)
    }

    /// The stored image, when the name stands for it already and all of it is here. What was recorded once is on the
    /// disk, so nothing is to be flushed: one request and one look at each part is all that the pull costs.
    fn unchanged(
        &self,
        reference: &ImageReference,
        plan: &ImagePlan,
        layers: &LayerPlan,
        parts: &PulledParts,
    ) -> Result<Option<ImageRecord>, EngineError> {
        let Some(mut image) = self.state()?.image_by_name(reference)? else { return Ok(None) };
        let same = image.config_digest == plan.config_digest
            && image.manifest_digest == plan.repo_digest
            && image.chain_ids == layers.chain_ids
            && image.layer_digests.iter().eq(plan.layers.iter().map(|layer| &layer.digest));
        if !same || !self.is_whole(&image, parts)? {
            return Ok(None);
        }
        self.note_pull(&mut image)?;
        Ok(Some(image))
    }

    /// It only tells which image was used last: a full disk does not make the image less present.
    fn note_pull(&self, image: &mut ImageRecord) -> Result<(), EngineError> {
        image.pulled_at = create::now();
        if let Err(e) = self.state()?.pulled_again(&image.config_digest, image.pulled_at) {
            tracing::warn!("cannot note the pull of image {}: {e}", image.config_digest.short());
        }
        Ok(())
    }

    /// What was asked for beyond the image of one platform.
    fn fetch_more(
        &self,
        source: &Mirror,
        pulled: &PulledImage,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<(), EngineError> {
        if !options.all_platforms && !options.referrers {
            return Ok(());
        }
        let blobs = self.blobs()?;
        let remote = Remote::new(&source.reference, &Access::Pull, &source.remote, progress)?;
        if options.all_platforms {
            closure::fetch_whole(&blobs, &remote, &pulled.repo_digest, PARALLEL)?;
        }
        if options.referrers {
            for digest in BTreeSet::from([&pulled.repo_digest, &pulled.manifest_digest]) {
                closure::fetch_referrers(&blobs, &remote, digest, PARALLEL)?;
            }
        }
        Ok(())
    }

    /// The image exists from here on. The hold on its blobs ends after the row is there.
    fn record_image(
        &self,
        reference: &ImageReference,
        pulled: PulledImage,
        layers: &[LayerInfo],
        parts: &PulledParts,
    ) -> Result<ImageRecord, EngineError> {
        self.put_layers(layers)?;
        let record = ImageRecord {
            name: Some(reference.clone()),
            manifest_digest: pulled.repo_digest.clone(),
            config_digest: pulled.config_digest.clone(),
            chain_ids: layers.iter().map(|l| l.chain_id.clone()).collect(),
            layer_digests: pulled.layers.iter().map(|l| l.digest.clone()).collect(),
            size: layers.iter().map(|l| l.size).sum(),
            created: created(pulled.config.created.as_deref()),
            pulled_at: create::now(),
        };
        self.state()?.put_pulled(&record, parts)?;
        failpoint::hit("pull.committed");
        drop(pulled.hold);
        Ok(record)
    }
}

/// The hexadecimal digits of `sha256:3f4a9c…`, as ids are printed: by the grammar of names a repository and its tag.
fn written_id(reference: &ImageReference) -> Option<&str> {
    let digits = reference.tag().filter(|_| reference.digest().is_none() && reference.familiar_name() == "sha256")?;
    digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then_some(digits)
}

/// The events of a pull that finds every layer.
fn announce_present(parts: &PulledParts, progress: &dyn Progress) {
    let mut seen = BTreeSet::new();
    for (digest, _) in parts.layers.iter().filter(|(digest, _)| seen.insert(digest)) {
        progress.event(ProgressEvent::Exists { digest: digest.clone() });
    }
}

/// The layers of an image that is being pulled.
struct LayerPlan {
    store: Layers,
    /// Lowest first.
    chain_ids: Vec<Digest>,
}

impl LayerPlan {
    fn new(store: Layers, plan: &ImagePlan) -> Self {
        let diff_ids: Vec<Digest> = plan.layers.iter().map(|l| l.diff_id.clone()).collect();
        Self { store, chain_ids: onggi_storage::chain_ids(&diff_ids) }
    }

    /// Unpacks one layer; it becomes visible when all are there.
    fn prepare(&self, ready: LayerReady<'_>, progress: &dyn Progress) -> Result<Prepared, EngineError> {
        let ready_digest = &ready.layer.digest;
        let request = UnpackRequest {
            blob: ready.file,
            media_type: ready.layer.media_type.clone(),
            diff_id: ready.layer.diff_id.clone(),
            parent: ready.index.checked_sub(1).and_then(|i| self.chain_ids.get(i)).cloned(),
        };
        progress.event(ProgressEvent::Unpacking { digest: ready.layer.digest.clone() });
        let what = || format!("unpack layer {}", ready_digest.short());
        let prepared = trace::step("storage", what, || self.store.prepare(request))?;
        progress.event(ProgressEvent::Unpacked { digest: ready.layer.digest.clone() });
        Ok(prepared)
    }
}

/// Where the image is looked for and how; the registry itself a second time, for what is fetched beside it.
pub(crate) fn registry_options(
    registries: &Registries<'_>,
    reference: &ImageReference,
    options: &PullOptions,
) -> Result<(onggi_image::PullOptions, Mirror), EngineError> {
    let mut sources = registries.sources(reference)?;
    // `sources` ends with the registry itself; it is never empty.
    let own =
        sources.pop().unwrap_or_else(|| Mirror { reference: reference.clone(), remote: RemoteOptions::default() });
    let defaults = onggi_image::PullOptions::default();
    let pull = onggi_image::PullOptions {
        platform: options.platform.clone().unwrap_or(defaults.platform),
        remote: own.remote.clone(),
        location: Some(own.reference.clone()),
        mirrors: sources,
        ..onggi_image::PullOptions::default()
    };
    Ok((pull, own))
}

/// The image's own idea of when it was built; the epoch when it has none.
pub(crate) fn created(text: Option<&str>) -> i64 {
    let time = text.and_then(|t| t.parse::<jiff::Timestamp>().ok());
    time.map_or(0, |t| i64::try_from(t.as_nanosecond()).unwrap_or(0))
}

/// A panic of one download thread must not hide the error of another.
fn unlocked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

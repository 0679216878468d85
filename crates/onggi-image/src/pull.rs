//! Pull: reference → plan → missing layers, in parallel, verified, stored.
//!
//! ```text
//! Puller::ask       tag → digest: one HEAD, for those who may need no more
//! Puller::plan      the same, unless it was asked, then documents, from the store where it has them
//! Puller::fetch     layers; each is handed to the caller as soon as it is verified
//! pull              the two in a row
//! ```
//!
//! A layer is committed to disk while its receiver already reads it. Documents are stored after the last layer,
//! so that a stored manifest means a whole image.
//!
//! Locks, in the order in which they are waited for: the shared hold on the store; the turn of the image's base
//! layer, kept until [`PulledImage::hold`] is dropped; for each blob, its own while it is written.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    ops::ControlFlow,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use onggi_spec::{
    Digest, ImageReference,
    image::{ImageConfig, Platform},
    progress::{Progress, ProgressEvent},
};

use crate::{
    download::{self, Obtained, Wanted},
    error::{ImageError, StoreError},
    options::RemoteOptions,
    plan::{self, ImagePlan, LayerBlob, Source},
    platform::native_platform,
    question::Question,
    remote::{Access, Remote},
    store::{BlobStore, StoreHold, VerifiedBlob},
};

/// Layers that are downloaded at the same time, as Docker does; more only divide the bandwidth.
const PARALLEL: usize = 3;

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// What the image must run on.
    pub platform: Platform,
    /// How the registry is talked to.
    pub remote: RemoteOptions,
    /// The image's name in the registry, where it is another than the one it is to have here.
    pub location: Option<ImageReference>,
    /// Where to look before the registry itself, in order: the image's name there, and how to talk to it. A mirror
    /// that fails is passed over; what it serves is verified like anything else.
    pub mirrors: Vec<Mirror>,
    /// Layers at the same time, at least 1.
    pub parallel: usize,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: native_platform(),
            remote: RemoteOptions::default(),
            location: None,
            mirrors: Vec::new(),
            parallel: PARALLEL,
        }
    }
}

/// Another place for the same content.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// The image's name there.
    pub reference: ImageReference,
    /// How it is talked to.
    pub remote: RemoteOptions,
}

/// A layer that is complete and verified.
#[derive(Debug)]
pub struct LayerReady<'p> {
    /// Its place in [`ImagePlan::layers`].
    pub index: usize,
    /// What it is.
    pub layer: &'p LayerBlob,
    /// Its content from the start, for this receiver alone.
    pub file: File,
}

/// Called once for every layer of the image, in the order in which they become complete, from several threads.
/// May take its time (unpack there): the other downloads go on. `Break` ends the pull with
/// [`ImageError::Stopped`].
pub type OnLayer<'a> = dyn Fn(LayerReady<'_>) -> ControlFlow<()> + Sync + 'a;

/// An image whose every blob is in the store.
#[derive(Debug)]
pub struct PulledImage {
    /// What the reference stood for: an index or a manifest.
    pub repo_digest: Digest,
    /// The manifest for the platform.
    pub manifest_digest: Digest,
    /// The configuration: the image id.
    pub config_digest: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// Layers, lowest first.
    pub layers: Vec<LayerBlob>,
    /// Every blob, each once.
    pub blobs: Vec<Digest>,
    /// Keeps the blobs from being deleted and others from pulling on the same base layer; drop it after the image
    /// is recorded, and before this thread pulls again.
    pub hold: StoreHold,
}

/// One pull of one reference.
pub struct Puller<'a> {
    store: &'a BlobStore,
    reference: ImageReference,
    options: PullOptions,
    /// Mirrors in order, then the registry itself.
    sources: Vec<Remote<'a>>,
    /// The first of them that had the image.
    chosen: AtomicUsize,
    /// What the first of them has been asked already.
    asked: Mutex<Option<Result<Option<Digest>, ImageError>>>,
    progress: &'a dyn Progress,
    hold: StoreHold,
}

impl<'a> Puller<'a> {
    /// Prepares a pull; nothing is sent.
    ///
    /// # Errors
    /// The store cannot be locked or the proxy setting is malformed.
    pub fn new(
        store: &'a BlobStore,
        reference: &ImageReference,
        options: PullOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let own = (options.location.as_ref().unwrap_or(reference), &options.remote);
        let all = options.mirrors.iter().map(|m| (&m.reference, &m.remote)).chain([own]);
        let sources = all.map(|(name, remote)| Remote::new(name, &Access::Pull, remote, progress));
        let sources = sources.collect::<Result<_, _>>()?;
        let hold = store.hold()?;
        let (reference, chosen) = (reference.clone(), AtomicUsize::new(0));
        Ok(Self { store, reference, options, sources, chosen, asked: Mutex::new(None), progress, hold })
    }

    /// What the reference stands for now, by the first source. `None` when that does not say it or cannot be asked:
    /// [`plan`](Self::plan) goes on from there and tells why. May be called while another thread looks at the store.
    pub fn ask(&self) -> Option<Digest> {
        let first = self.sources.first()?;
        let answer = digest_at(first);
        let digest = answer.as_ref().ok().cloned().flatten();
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        digest
    }

    /// The same of a question that was sent before there was this `Puller`, with the same options. Asks anew where its answer
    /// says nothing.
    pub fn answered(&self, question: Question) -> Option<Digest> {
        let Some(digest) = question.answer() else { return self.ask() };
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ok(Some(digest.clone())));
        Some(digest)
    }

    /// The platform that is wanted.
    pub fn platform(&self) -> &Platform {
        &self.options.platform
    }

    /// Manifest and configuration for the wanted platform, verified, from the first source that has them.
    ///
    /// # Errors
    /// As the documents deserve; of several sources, those of the last, which is the registry itself.
    pub fn plan(&self) -> Result<ImagePlan, ImageError> {
        let last = self.sources.len().saturating_sub(1);
        for (at, remote) in self.sources.iter().enumerate() {
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
            match asked.unwrap_or_else(|| digest_at(remote)).and_then(|digest| self.plan_from(remote, digest)) {
                Ok(plan) => {
                    self.chosen.store(at, Ordering::Relaxed);
                    self.announce(&plan);
                    return Ok(plan);
                }
                Err(error) if at < last => {
                    let reason = format!("mirror {} is passed over: {error}", remote.name());
                    self.progress.event(ProgressEvent::Retry { reason });
                }
                Err(error) => return Err(error),
            }
        }
        // There is always at least the registry itself.
        Err(ImageError::Stopped)
    }

    fn announce(&self, plan: &ImagePlan) {
        self.progress.event(ProgressEvent::Resolved { digest: plan.repo_digest.clone() });
        for layer in &plan.layers {
            self.progress.event(ProgressEvent::Layer { digest: layer.digest.clone(), total: layer.size });
        }
    }

    fn plan_from(&self, remote: &Remote<'_>, digest: Option<Digest>) -> Result<ImagePlan, ImageError> {
        let source = Source { store: self.store, registry: Some(remote) };
        let plan = plan::build(&source, remote.reference(), digest.as_ref(), &self.options.platform)?;
        // `None` happens only without a registry.
        let plan = plan.ok_or(ImageError::Stopped)?;
        Ok(ImagePlan { reference: self.reference.clone(), ..plan })
    }

    /// Brings every layer into the store and hands each to `on_layer`.
    ///
    /// # Errors
    /// The first failure; the other downloads are stopped. Complete layers stay for the next attempt.
    pub fn fetch(self, plan: ImagePlan, on_layer: &OnLayer<'_>) -> Result<PulledImage, ImageError> {
        // Another pull of an image on the same base layer is under way.
        let waiting = || {
            let mut seen = HashSet::new();
            for layer in plan.layers.iter().filter(|layer| seen.insert(&layer.digest)) {
                self.progress.event(ProgressEvent::Waiting { digest: layer.digest.clone() });
            }
        };
        let turn = plan.layers.first().map(|base| self.store.turn(&base.diff_id, waiting)).transpose()?;
        for (digest, bytes) in &plan.carried {
            self.store.put_known(digest, bytes)?;
        }
        let mut places: HashMap<&Digest, Vec<usize>> = HashMap::new();
        let mut order: Vec<&LayerBlob> = Vec::new();
        for (index, layer) in plan.layers.iter().enumerate() {
            let indexes = places.entry(&layer.digest).or_default();
            if indexes.is_empty() {
                order.push(layer);
            }
            indexes.push(index);
        }
        let crew = Crew {
            store: self.store,
            sources: &self.sources[self.chosen.load(Ordering::Relaxed)..],
            plan: &plan,
            order: &order,
            places: &places,
            on_layer,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failed: Mutex::new(None),
        };
        crew.run(self.options.parallel);
        if let Some(error) = crew.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            // The content was refused: nobody goes on with the rest of such an image.
            if matches!(error, ImageError::Stopped | ImageError::WrongDigest { .. } | ImageError::WrongSize { .. }) {
                plan.layers.iter().for_each(|layer| self.store.remove_part(&layer.digest));
            }
            self.store.remove_part(&plan.config_digest);
            return Err(error);
        }
        for (digest, bytes) in &plan.documents {
            self.store.put_known(digest, bytes)?;
        }
        self.store.remove_part(&plan.config_digest);
        self.store.sync_names()?;
        let blobs = plan.blobs();
        let ImagePlan { repo_digest, manifest_digest, config_digest, config, layers, .. } = plan;
        Ok(PulledImage {
            repo_digest,
            manifest_digest,
            config_digest,
            config,
            layers,
            blobs,
            hold: self.hold.with_turn(turn),
        })
    }
}

/// A digest needs no request; a registry may tell a tag's only together with the document.
fn digest_at(remote: &Remote<'_>) -> Result<Option<Digest>, ImageError> {
    let name = remote.reference();
    match name.digest() {
        Some(digest) => Ok(Some(digest.clone())),
        None => remote.head(name.selector()),
    }
}

/// Pulls a reference: resolves it, downloads what is missing, hands every layer to `on_layer`.
/// When everything is stored already, one HEAD is all that is sent (none for a digest reference).
///
/// # Errors
/// Each cause has its variant of [`ImageError`], with a hint.
pub fn pull(
    store: &BlobStore,
    reference: &ImageReference,
    options: PullOptions,
    progress: &dyn Progress,
    on_layer: &OnLayer<'_>,
) -> Result<PulledImage, ImageError> {
    let puller = Puller::new(store, reference, options, progress)?;
    let plan = puller.plan()?;
    puller.fetch(plan, on_layer)
}

/// What the store alone knows of an image: its plan if all of its blobs are there, without any request.
///
/// # Errors
/// The store cannot be read, or its documents are not an image for this platform.
pub fn stored_image(
    store: &BlobStore,
    reference: &ImageReference,
    digest: &Digest,
    platform: &Platform,
) -> Result<Option<ImagePlan>, ImageError> {
    let source = Source { store, registry: None };
    let plan = plan::build(&source, reference, Some(digest), platform)?;
    Ok(plan.filter(|p| p.layers.iter().all(|l| store.has(&l.digest, Some(l.size)))))
}

/// The threads of one fetch and what they share.
struct Crew<'f, 'r> {
    store: &'f BlobStore,
    /// Where a layer is looked for, in order; never empty.
    sources: &'f [Remote<'r>],
    plan: &'f ImagePlan,
    order: &'f [&'f LayerBlob],
    places: &'f HashMap<&'f Digest, Vec<usize>>,
    on_layer: &'f OnLayer<'f>,
    next: AtomicUsize,
    stop: AtomicBool,
    failed: Mutex<Option<ImageError>>,
}

impl Crew<'_, '_> {
    /// The calling thread is one of the workers, so that a refused thread only costs speed.
    fn run(&self, parallel: usize) {
        let helpers = parallel.min(self.order.len()).saturating_sub(1);
        thread::scope(|scope| {
            for _ in 0..helpers {
                if thread::Builder::new().name("pull".to_owned()).spawn_scoped(scope, || self.work()).is_err() {
                    break;
                }
            }
            self.work();
        });
    }

    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(layer) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = self.layer(layer) {
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: ImageError) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        // The others then end with `Stopped`, which explains nothing.
        if failed.is_none() || matches!(*failed, Some(ImageError::Stopped)) {
            *failed = Some(error);
        }
    }

    fn layer(&self, layer: &LayerBlob) -> Result<(), ImageError> {
        let places = self.places.get(&layer.digest).map_or(&[][..], Vec::as_slice);
        match self.obtain(layer)? {
            Obtained::Present => {
                let files = places.iter().map(|_| self.open(layer)).collect::<Result<_, _>>()?;
                self.hand_over(places, files)
            }
            Obtained::Fresh(blob) => {
                let files = places.iter().map(|_| blob.reader()).collect::<Result<_, _>>()?;
                self.commit_while(blob, || self.hand_over(places, files))
            }
        }
    }

    /// From the source that had the documents, then from those after it.
    fn obtain(&self, layer: &LayerBlob) -> Result<Obtained, ImageError> {
        let (last, mirrors) = self.sources.split_last().ok_or(ImageError::Stopped)?;
        let wanted = Wanted { digest: &layer.digest, size: layer.size };
        for mirror in mirrors {
            match download::obtain(self.store, mirror, wanted, &self.stop) {
                Err(error) if !matches!(error, ImageError::Stopped | ImageError::Store(_)) => {
                    let reason = format!("mirror {} is passed over: {error}", mirror.name());
                    self.progress().event(ProgressEvent::Retry { reason });
                }
                result => return result,
            }
        }
        download::obtain(self.store, last, wanted, &self.stop)
    }

    fn progress(&self) -> &dyn Progress {
        self.sources[0].progress()
    }

    fn open(&self, layer: &LayerBlob) -> Result<File, StoreError> {
        let gone = || StoreError {
            operation: "open",
            path: self.store.path(&layer.digest),
            source: std::io::ErrorKind::NotFound.into(),
        };
        self.store.open_blob(&layer.digest)?.ok_or_else(gone)
    }

    /// Flushing to disk and the receiver's work (usually: unpacking) go on side by side. The blob's lock is
    /// released when it is on disk, however long the receiver takes.
    fn commit_while(
        &self,
        blob: VerifiedBlob,
        work: impl FnOnce() -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        thread::scope(|scope| {
            let commit = thread::Builder::new().name("commit".to_owned()).spawn_scoped(scope, || blob.commit_content());
            let worked = work();
            match commit.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(committed)) => committed?,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(source) => {
                    return Err(
                        StoreError { operation: "start a thread to flush", path: self.store.dir(), source }.into()
                    );
                }
            }
            worked
        })
    }

    fn hand_over(&self, places: &[usize], files: Vec<File>) -> Result<(), ImageError> {
        for (&index, file) in places.iter().zip(files) {
            let ready = LayerReady { index, layer: &self.plan.layers[index], file };
            if (self.on_layer)(ready).is_break() {
                return Err(ImageError::Stopped);
            }
        }
        Ok(())
    }
}

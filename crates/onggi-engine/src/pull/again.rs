//! A pull that finds what it found the last time: one request, one look at each part, no document parsed.
//!
//! The registry is asked what the name stands for, and while it thinks everything is looked at that the last pull brought:
//! documents are hashed again, blobs must have their lengths, layers their records. A registry at an address of this machine
//! was asked before any of this ([`Question`]), so that its answer is read when the look is done and no other thread is needed.
//! Another one is asked by this thread, because the answer is what takes longest, while a second one looks.
//! When the digest is the stored one, that is all. Anything else is left to the whole pull, which has the answer already.

use std::{convert::Infallible, panic::resume_unwind, thread};

use onggi_image::{ImagePlan, Puller, Question};
use onggi_spec::{
    Digest, ImageReference,
    image::{MAX_DOCUMENT, Platform},
    progress::{Progress, ProgressEvent},
};
use onggi_state::{
    ImageRecord, Pulled, PulledParts,
    memo::{self, Stamp},
};
use onggi_sys::trace;

use super::{PullOptions, announce_present};
use crate::{Engine, EngineError, create};

impl Engine {
    /// The stored image, when the registry says that the name stands for it now and all of it is here. `question` may be on its
    /// way to the registry already.
    pub(super) fn pulled_before(
        &self,
        puller: &Puller<'_>,
        question: Option<Question>,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Option<ImageRecord>, EngineError> {
        let look = || {
            self.recover_containers()?;
            match options.all_platforms || options.referrers {
                true => Ok(None),
                false => self.stored_whole(reference, puller.platform()),
            }
        };
        let what = || format!("ask for the digest of {}", reference.familiar());
        let (Ok(digest), stored) = match question {
            Some(question) => {
                let stored = look();
                (trace::step::<_, Infallible>("engine", what, || Ok(puller.answered(question))), stored)
            }
            None => beside(look, || trace::step::<_, Infallible>("engine", what, || Ok(puller.ask()))),
        };
        let Some((image, parts)) = stored? else { return Ok(None) };
        if digest.as_ref() != Some(&image.manifest_digest) {
            return Ok(None);
        }
        progress.event(ProgressEvent::Resolved { digest: image.manifest_digest.clone() });
        for (digest, total) in &parts.layers {
            progress.event(ProgressEvent::Layer { digest: digest.clone(), total: *total });
        }
        announce_present(&parts, progress);
        Ok(Some(image))
    }

    /// What is stored under a name and now noted as used, if the last pull of it was for this platform and nothing of it is missing or damaged.
    fn stored_whole(
        &self,
        reference: &ImageReference,
        wanted: &Platform,
    ) -> Result<Option<(ImageRecord, PulledParts)>, EngineError> {
        let now = create::now();
        let runroot = &self.paths.runroot;
        let recalled = Stamp::of(&self.paths.root).and_then(|stamp| memo::recall(runroot, &stamp, reference, now));
        let (found, stamp) = match recalled {
            Some(pulled) => (Some(pulled), None),
            None => self.state()?.pulled_for_good(reference, now)?,
        };
        let Some(pulled) = found else { return Ok(None) };
        if !describes(&pulled.parts, &pulled.image, wanted) || !self.is_whole(&pulled.image, &pulled.parts)? {
            return Ok(None);
        }
        if let Some(stamp) = stamp {
            memo::note(runroot, stamp, reference, &pulled, now);
        }
        let Pulled { mut image, parts, noted } = pulled;
        // Should the name stand for another image by now, this one is on its way out all the same.
        if noted {
            image.pulled_at = now;
        } else {
            self.note_pull(&mut image)?;
        }
        Ok(Some((image, parts)))
    }

    /// All of it is here: documents are what their digests say, blobs of layers have their lengths, layers are unpacked.
    pub(super) fn is_whole(&self, image: &ImageRecord, parts: &PulledParts) -> Result<bool, EngineError> {
        let (blobs, layers) = (self.blobs()?, self.layers()?);
        let document = |digest: &Digest| matches!(blobs.read_small(digest, MAX_DOCUMENT as u64), Ok(Some(_)));
        Ok(parts.documents.iter().all(document)
            && parts.layers.iter().all(|(digest, size)| blobs.has(digest, Some(*size)))
            && image.chain_ids.iter().all(|id| matches!(layers.get(id), Ok(Some(_)))))
    }

    /// The next pull of this name need not read its documents.
    pub(super) fn remember(&self, reference: &ImageReference, parts: &PulledParts) {
        let noted = self.state().and_then(|mut state| Ok(state.remember_parts(reference, parts)?));
        if let Err(e) = noted {
            tracing::warn!("cannot note what {} consists of: {}", reference.familiar(), crate::error_chain(&e));
        }
    }
}

/// Does `second` on this thread and `first` on another one, or afterwards where there can be none.
fn beside<A: Send, B>(first: impl Fn() -> A + Sync, second: impl FnOnce() -> B) -> (B, A) {
    thread::scope(|scope| {
        let other = thread::Builder::new().name("look".to_owned()).spawn_scoped(scope, &first);
        let done = second();
        let first = match other {
            Ok(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => first(),
        };
        (done, first)
    })
}

/// The name may stand for another image since (`tag`, `load`), or the pull have been for another platform.
fn describes(parts: &PulledParts, image: &ImageRecord, wanted: &Platform) -> bool {
    parts.platform == wanted.to_string()
        && parts.documents.first() == Some(&image.manifest_digest)
        && parts.documents.last() == Some(&image.config_digest)
        && image.chain_ids.len() == parts.layers.len()
        && image.layer_digests.iter().eq(parts.layers.iter().map(|(digest, _)| digest))
}

/// What a pull for `platform` has to bring.
pub(super) fn parts(plan: &ImagePlan, platform: &Platform) -> PulledParts {
    let layers: Vec<(Digest, u64)> = plan.layers.iter().map(|layer| (layer.digest.clone(), layer.size)).collect();
    let mut documents = plan.blobs();
    documents.retain(|digest| !layers.iter().any(|(layer, _)| layer == digest));
    PulledParts { platform: platform.to_string(), documents, layers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: &str) -> Digest {
        format!("sha256:{}", letter.repeat(64)).parse().unwrap()
    }

    fn image() -> ImageRecord {
        ImageRecord {
            name: Some("r.example/a:1".parse().unwrap()),
            manifest_digest: digest("1"),
            config_digest: digest("3"),
            chain_ids: vec![digest("a")],
            layer_digests: vec![digest("b")],
            size: 1,
            created: 0,
            pulled_at: 0,
        }
    }

    #[test]
    fn what_was_found_counts_only_for_the_same_digest_image_and_platform() {
        let platform = |text: &str| Platform {
            os: "linux".to_owned(),
            architecture: text.to_owned(),
            ..onggi_image::native_platform()
        };
        let parts = PulledParts {
            platform: platform("amd64").to_string(),
            documents: vec![digest("1"), digest("2"), digest("3")],
            layers: vec![(digest("b"), 7)],
        };
        assert!(describes(&parts, &image(), &platform("amd64")));
        assert!(!describes(&parts, &image(), &platform("arm64")));
        for change in [
            (|image: &mut ImageRecord| image.manifest_digest = digest("9")) as fn(&mut ImageRecord),
            |image| image.config_digest = digest("9"),
            |image| image.layer_digests = vec![digest("9")],
            |image| image.chain_ids.clear(),
        ] {
            let mut other = image();
            change(&mut other);
            assert!(!describes(&parts, &other, &platform("amd64")));
        }
    }
}

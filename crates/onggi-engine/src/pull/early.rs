//! A pull whose registry is asked before the command line is read: of the next pull of an image that is here, the answer is what
//! takes longest, and reading the arguments takes a tenth of the rest.

use std::sync::Arc;

use onggi_image::{Mirror, Question, registries::RegistriesConf};
use onggi_spec::ImageReference;

use super::{PullOptions, registry_options};
use crate::{
    Engine,
    registry::{Registries, RegistryChoice},
};

/// What was asked, and what had to be read for it. A pull of another image, or with other choices, ignores it.
#[derive(Debug)]
pub struct EarlyQuestion {
    conf: Arc<RegistriesConf>,
    asked: Asked,
}

/// The question on its way, and how its registry is talked to.
#[derive(Debug)]
pub(crate) struct Asked {
    reference: ImageReference,
    registry: onggi_image::PullOptions,
    source: Mirror,
    /// None where there was nobody to ask, or nothing that may be asked this way.
    question: Option<Question>,
}

impl EarlyQuestion {
    /// Asks what `name` stands for, with nothing chosen beside it, if that is a name of a registry at an address of this machine
    /// and the configuration is as it should be. Whatever is wrong with it is left to the pull, which says so; and so are helpers
    /// with credentials, which may ask the user.
    pub fn send(name: &str) -> Option<Self> {
        let choice = RegistryChoice::default();
        let registries = Registries::gather(&choice).ok()?;
        let [reference] = registries.candidates(name).ok()?.try_into().ok()?;
        if registries.needs_helper(&reference).ok()? {
            return None;
        }
        let (registry, source) = registry_options(&registries, &reference, &PullOptions::default()).ok()?;
        let question = Question::send(&reference, &registry);
        Some(Self { conf: registries.into_conf(), asked: Asked { reference, registry, source, question } })
    }
}

impl Engine {
    /// Takes over what was asked before this engine was opened.
    pub fn expect(&mut self, early: EarlyQuestion) {
        let EarlyQuestion { conf, asked } = early;
        self.registries_conf = conf.into();
        *self.asked.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(asked);
    }

    /// How the registry of a pull is talked to, and the question that it was asked already; once.
    pub(super) fn asked_early(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
    ) -> Option<(onggi_image::PullOptions, Mirror, Option<Question>)> {
        let asked = super::unlocked(&self.asked).take()?;
        let same = asked.reference == *reference && options.registry == RegistryChoice::default();
        let Asked { mut registry, source, question, .. } = asked;
        if let Some(platform) = &options.platform {
            registry.platform = platform.clone();
        }
        same.then_some((registry, source, question))
    }
}

//! Registries as this machine and user have configured them: where an image is looked for, and with which credentials,
//! certificates and proxies. Gathered once per verb from the environment and `registries.conf`; the rest is
//! [`onggi_image`]'s.

mod error;
mod helper;
pub(crate) mod login;
mod push;
mod search;

use std::{path::PathBuf, sync::Arc};

use onggi_image::{
    Credentials, Lookup, Mirror, ProxySettings, RemoteOptions,
    certificates::{self, HostCertificates},
    credentials,
    registries::{self, Place, RegistriesConf},
};
use onggi_spec::{
    ImageReference,
    progress::{Progress, Silent},
};

use crate::{Engine, EngineError};

pub use error::RegistryError;
pub use login::{LoginRequest, LoginResult};
pub use push::PushRequest;
pub use search::{SearchHit, TagList};

/// What the caller says about talking to registries; the rest comes from the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryChoice {
    /// Accept certificates that cannot be verified, and plain HTTP.
    pub insecure: bool,
    /// `--authfile`: the only file with credentials.
    pub auth_file: Option<PathBuf>,
    /// `--cert-dir`: certificates of whichever registry is asked.
    pub cert_dir: Option<PathBuf>,
    /// `--creds USER:PASSWORD`: used instead of any that are stored.
    pub credentials: Option<Credentials>,
}

impl RegistryChoice {
    /// Whether the file with credentials that the user named, here or with `REGISTRY_AUTH_FILE`, is one. For every verb
    /// but `login`, which makes it.
    ///
    /// # Errors
    /// It is not there, or a directory.
    pub fn check_auth_file(&self) -> Result<(), EngineError> {
        let named = self.auth_file.clone().or_else(|| credentials::named_file(&|name| std::env::var_os(name)));
        let checked = named.as_deref().map_or(Ok(()), credentials::check_named);
        checked.map_err(|source| EngineError::Credentials { source })
    }
}

/// The configuration of this machine and user.
pub(crate) struct Registries<'c> {
    choice: &'c RegistryChoice,
    conf: Arc<RegistriesConf>,
    credential_files: Vec<PathBuf>,
    certificate_dirs: Vec<PathBuf>,
    proxies: ProxySettings,
}

impl<'c> Registries<'c> {
    /// From the environment and the files that it points to.
    pub(crate) fn gather(choice: &'c RegistryChoice) -> Result<Self, EngineError> {
        Ok(Self::with(choice, Arc::new(configuration()?)))
    }

    /// With `registries.conf` as it was read before.
    fn with(choice: &'c RegistryChoice, conf: Arc<RegistriesConf>) -> Self {
        let env = |name: &str| std::env::var_os(name);
        Self {
            choice,
            conf,
            credential_files: login::read_files(choice),
            certificate_dirs: certificates::directories(&env),
            proxies: ProxySettings::from_vars(&|name| std::env::var(name).ok()),
        }
    }

    /// What was read of `registries.conf`.
    pub(crate) fn into_conf(self) -> Arc<RegistriesConf> {
        self.conf
    }

    /// How the registry of `reference` is talked to, as it stands (nothing is rewritten).
    pub(crate) fn remote(&self, reference: &ImageReference, insecure: bool) -> Result<RemoteOptions, EngineError> {
        let HostCertificates { authorities, identity } = match &self.choice.cert_dir {
            Some(dir) => certificates::read(dir),
            None => certificates::find(&self.certificate_dirs, reference.registry()),
        }
        .map_err(RegistryError::Certificates)?;
        Ok(RemoteOptions {
            tls_verify: !(insecure || self.choice.insecure),
            authorities,
            identity,
            credentials: self.credentials(reference)?,
            proxies: self.proxies.clone(),
            ..RemoteOptions::default()
        })
    }

    /// Where a push of `reference` goes, and how.
    pub(crate) fn target(&self, reference: &ImageReference) -> Result<(ImageReference, RemoteOptions), EngineError> {
        let Place { reference, insecure } = self.conf.places(reference).map_err(RegistryError::Configuration)?.own;
        let remote = self.remote(&reference, insecure)?;
        Ok((reference, remote))
    }

    /// Where a pull of `reference` looks, in order; the last is the registry itself.
    pub(crate) fn sources(&self, reference: &ImageReference) -> Result<Vec<Mirror>, EngineError> {
        let places = self.conf.places(reference).map_err(RegistryError::Configuration)?;
        let all = places.mirrors.into_iter().chain([places.own]);
        all.map(|p| Ok(Mirror { remote: self.remote(&p.reference, p.insecure)?, reference: p.reference })).collect()
    }

    /// Whether a program has to be asked for the credentials of one of the places where `reference` is looked for.
    pub(crate) fn needs_helper(&self, reference: &ImageReference) -> Result<bool, EngineError> {
        let places = self.conf.places(reference).map_err(RegistryError::Configuration)?;
        let mut all = places.mirrors.into_iter().chain([places.own]).map(|place| place.reference);
        let helper = |reference: ImageReference| {
            let found = credentials::find(&self.credential_files, &reference);
            found.map_or(true, |found| matches!(found, Lookup::Helper(_)))
        };
        Ok(self.choice.credentials.is_none() && all.any(helper))
    }

    fn credentials(&self, reference: &ImageReference) -> Result<Option<Credentials>, EngineError> {
        if let Some(given) = &self.choice.credentials {
            return Ok(Some(given.clone()));
        }
        let found = credentials::find(&self.credential_files, reference);
        Ok(match found.map_err(|source| EngineError::Credentials { source })? {
            Lookup::Found(credentials) => Some(credentials),
            Lookup::Helper(name) => helper::get(&name, reference.registry())?,
            Lookup::Absent => None,
        })
    }
}

/// `registries.conf` and its drop-ins.
fn configuration() -> Result<RegistriesConf, EngineError> {
    let conf = registries::files(&|name| std::env::var_os(name)).and_then(|files| registries::load(&files));
    Ok(conf.map_err(RegistryError::Configuration)?)
}

impl Engine {
    /// As [`Registries::gather`]; the files are read once for all that this engine does.
    pub(crate) fn registries<'c>(&self, choice: &'c RegistryChoice) -> Result<Registries<'c>, EngineError> {
        let conf = match self.registries_conf.get() {
            Some(conf) => conf.clone(),
            None => {
                let read = Arc::new(configuration()?);
                self.registries_conf.get_or_init(|| read).clone()
            }
        };
        Ok(Registries::with(choice, conf))
    }

    /// The image that a name as the user wrote it means: with a registry in it, that one; an alias of
    /// `registries.conf`; one that is stored; the first search registry that has it, if some are configured; else
    /// Docker's.
    ///
    /// # Errors
    /// It is no reference, or none of the search registries has it.
    pub fn qualify(&self, text: &str, choice: &RegistryChoice) -> Result<ImageReference, EngineError> {
        let candidates = self.registries(choice)?.candidates(text)?;
        if let [only] = &candidates[..] {
            return Ok(only.clone());
        }
        if let Some(own) = text.parse().ok().filter(|_| self.find_image(text).is_ok()) {
            return Ok(own);
        }
        for candidate in &candidates {
            if self.state()?.image_by_name(candidate)?.is_some() {
                return Ok(candidate.clone());
            }
        }
        self.qualify_fresh(text, choice)
    }

    /// Like [`qualify`](Self::qualify), but what is stored counts for nothing.
    ///
    /// # Errors
    /// As there.
    pub fn qualify_fresh(&self, text: &str, choice: &RegistryChoice) -> Result<ImageReference, EngineError> {
        let registries = self.registries(choice)?;
        let candidates = registries.candidates(text)?;
        if let [only] = &candidates[..] {
            return Ok(only.clone());
        }
        let mut failures = Vec::new();
        for candidate in candidates {
            match registries.has(&candidate, &Silent) {
                Ok(true) => return Ok(candidate),
                Ok(false) => failures.push(format!("{candidate}: not found")),
                Err(error) => failures.push(format!("{candidate}: {}", crate::error_chain(&error))),
            }
        }
        Err(RegistryError::NowhereFound { name: text.to_owned(), failures }.into())
    }
}

impl Registries<'_> {
    pub(crate) fn candidates(&self, text: &str) -> Result<Vec<ImageReference>, EngineError> {
        self.conf.candidates(text).map_err(RegistryError::from_name)
    }

    /// Whether a registry has an image under this name.
    fn has(&self, reference: &ImageReference, progress: &dyn Progress) -> Result<bool, EngineError> {
        use onggi_image::{Access, Remote};
        for source in self.sources(reference)? {
            let remote = Remote::new(&source.reference, &Access::Pull, &source.remote, progress)?;
            if remote.head(source.reference.selector())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

//! What can be wrong with the configuration of registries and with credential helpers.

use std::{io, path::PathBuf};

use onggi_image::{certificates::CertificatesError, registries::RegistriesError};
use thiserror::Error;

/// A registry verb that failed before or beside the registry.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// `registries.conf`.
    #[error("cannot use the configuration of registries")]
    Configuration(#[source] RegistriesError),
    /// `certs.d`.
    #[error("cannot use the certificates of the registry")]
    Certificates(#[source] CertificatesError),
    /// None of the search registries has the image.
    #[error("image {name} is in none of the search registries: {}", failures.join("; "))]
    NowhereFound {
        /// As written.
        name: String,
        /// What each said.
        failures: Vec<String>,
    },
    /// A credential helper is not installed.
    #[error("the credentials for {registry} are kept by docker-credential-{helper}, which is not in PATH")]
    NoHelper {
        /// The helper's name.
        helper: String,
        /// The registry.
        registry: String,
    },
    /// A credential helper's name is not one.
    #[error("{helper:?} is no name of a credential helper")]
    BadHelperName {
        /// As in the file.
        helper: String,
    },
    /// A credential helper cannot be run.
    #[error("cannot run {}", program.display())]
    RunHelper {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A credential helper failed.
    #[error("docker-credential-{helper} {verb} failed: {message}")]
    Helper {
        /// The helper's name.
        helper: String,
        /// `get`, `store`, `erase`.
        verb: &'static str,
        /// What it said.
        message: String,
    },
    /// An id names an image, but no repository.
    #[error("{image} is the id of an image, and says not where to push it")]
    NoPlace {
        /// As written.
        image: String,
    },
    /// There is nowhere to keep credentials.
    #[error("there is no file for credentials: neither HOME nor DOCKER_CONFIG nor REGISTRY_AUTH_FILE is set")]
    NoFile,
    /// There is no login to take away.
    #[error("not logged in to {registry}")]
    NotLoggedIn {
        /// The registry.
        registry: String,
    },
    /// What is to be pushed has no name of the kind.
    #[error("there is no image named {name}")]
    NothingToPush {
        /// As written.
        name: String,
    },
    /// A registry's name that is none.
    #[error("{name:?} is no name of a registry")]
    BadRegistry {
        /// As written.
        name: String,
    },
}

impl RegistryError {
    /// A name that is wrong by itself is the user's, not the configuration's.
    pub(crate) fn from_name(error: RegistriesError) -> crate::EngineError {
        match error {
            RegistriesError::Rewrite { from, to, source } if from == to => (*source).into(),
            other => Self::Configuration(other).into(),
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Configuration(RegistriesError::Blocked { .. }) => {
                "the administrator of this machine does not want it to be used"
            }
            Self::Configuration(_) => "see containers-registries.conf(5)",
            Self::Certificates(CertificatesError::Half { .. }) => {
                "NAME.cert and NAME.key are yours, and belong together; the key of the registry itself belongs to it alone"
            }
            Self::Certificates(CertificatesError::Read { source, .. })
                if source.kind() == io::ErrorKind::InvalidData =>
            {
                "certificates have to be text (PEM): openssl x509 -inform der -in FILE -out NEW.crt"
            }
            Self::Certificates(_) => "see docs/registries.md, \"TLS and proxies\"",
            Self::NowhereFound { .. } => "write the registry's name in front of the image's",
            Self::NoHelper { .. } => {
                "install it, or remove credsStore and credHelpers from the configuration and log in again"
            }
            Self::BadHelperName { .. } => "correct credsStore and credHelpers in the configuration",
            Self::NoPlace { .. } => "push it under a name: onggi push ID REGISTRY/NAME:TAG",
            Self::NoFile => "set one of them, or use --authfile",
            Self::NothingToPush { .. } => "name the image first: onggi tag IMAGE NAME",
            Self::BadRegistry { .. } => "write HOST or HOST:PORT",
            Self::RunHelper { .. } | Self::Helper { .. } | Self::NotLoggedIn { .. } => return None,
        };
        Some(text.to_owned())
    }
}

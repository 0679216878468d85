//! `login` and `logout`.

use std::{collections::BTreeSet, path::PathBuf};

use onggi_image::{Credentials, Host, credential_file, credentials};
use onggi_spec::{ImageReference, progress::Silent, reference::DEFAULT_REGISTRY};
use onggi_sys::trace;

use super::{Registries, RegistryChoice, RegistryError, helper};
use crate::{Engine, EngineError};

/// A login.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// `HOST[:PORT]`; Docker's when absent.
    pub registry: Option<String>,
    /// User name and password.
    pub credentials: Credentials,
}

/// What a login did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginResult {
    /// The file that knows of it now.
    pub file: PathBuf,
    /// The helper that keeps the secret.
    pub helper: Option<String>,
}

impl Engine {
    /// Shows credentials to a registry and, when it accepts them, keeps them.
    ///
    /// # Errors
    /// The registry refuses them or cannot be reached, or they cannot be kept.
    pub fn login(&self, request: &LoginRequest, choice: &RegistryChoice) -> Result<LoginResult, EngineError> {
        let (registry, reference) = registry_name(request.registry.as_deref())?;
        let file = file_for(&reference, choice)?;
        let shown = RegistryChoice { credentials: Some(request.credentials.clone()), ..choice.clone() };
        let remote = Registries::gather(&shown)?.target(&reference)?.1;
        let host = Host::new(&registry, &[], &remote, &Silent)?;
        let identity = trace::step("engine", || format!("show the credentials to {registry}"), || host.login())?;
        let accepted = identity.as_ref().unwrap_or(&request.credentials);
        let keep = |source| EngineError::KeepCredentials { source };
        let helper = credential_file::helper_for(&file, &registry).map_err(keep)?;
        if let Some(name) = &helper {
            helper::store(name, &registry, accepted)?;
        }
        let plain = helper.is_none().then_some(accepted);
        let written = || credential_file::store(&file, &registry, plain).map_err(keep);
        trace::step("engine", || format!("write {}", file.display()), written)?;
        Ok(LoginResult { file, helper })
    }

    /// The user name that is stored for a registry, as `login --get-login` shows it.
    ///
    /// # Errors
    /// There is none.
    pub fn login_of(&self, registry: Option<&str>, choice: &RegistryChoice) -> Result<String, EngineError> {
        match self.stored_login(registry, choice)? {
            Some(Credentials::Basic { username, .. }) => Ok(username),
            Some(Credentials::IdentityToken(_)) => Ok("<token>".to_owned()),
            None => Err(RegistryError::NotLoggedIn { registry: registry_name(registry)?.0 }.into()),
        }
    }

    /// The credentials that are stored for a registry.
    ///
    /// # Errors
    /// No such registry, or a file that cannot be used.
    pub fn stored_login(
        &self,
        registry: Option<&str>,
        choice: &RegistryChoice,
    ) -> Result<Option<Credentials>, EngineError> {
        let (_, reference) = registry_name(registry)?;
        Registries::gather(choice)?.credentials(&reference)
    }

    /// Forgets the credentials of a registry, in every file that they are looked for in.
    ///
    /// # Errors
    /// There are none, or they cannot be removed.
    pub fn logout(&self, registry: Option<&str>, choice: &RegistryChoice) -> Result<String, EngineError> {
        let (registry, _) = registry_name(registry)?;
        let keep = |source| EngineError::KeepCredentials { source };
        let mut known = false;
        for file in files(choice)? {
            if let Some(name) = credential_file::helper_for(&file, &registry).map_err(keep)? {
                helper::erase(&name, &registry)?;
            }
            known |= credential_file::erase(&file, &registry).map_err(keep)?;
        }
        match known {
            true => Ok(registry),
            false => Err(RegistryError::NotLoggedIn { registry }.into()),
        }
    }

    /// Forgets the credentials of every registry in the files; their names.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn logout_all(&self, choice: &RegistryChoice) -> Result<Vec<String>, EngineError> {
        known(choice)?.iter().map(|registry| self.logout(Some(registry), choice)).collect()
    }
}

/// A registry as people write it, and a reference in it. A scheme and a path are dropped, as Docker does.
fn registry_name(text: Option<&str>) -> Result<(String, ImageReference), EngineError> {
    let text = text.unwrap_or(DEFAULT_REGISTRY);
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = bare.split('/').next().unwrap_or_default();
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => DEFAULT_REGISTRY,
        other => other,
    };
    let bad = || RegistryError::BadRegistry { name: text.to_owned() };
    let reference: ImageReference = format!("{host}/login").parse().map_err(|_| bad())?;
    if reference.registry() != host {
        return Err(bad().into());
    }
    Ok((host.to_owned(), reference))
}

/// What `login` and `logout` change of a file.
pub(crate) struct Place {
    /// The registry.
    pub(crate) registry: String,
    /// The file that knows of its login.
    pub(crate) file: PathBuf,
    /// The helper that keeps the secret.
    pub(crate) helper: Option<String>,
}

/// What `login` writes.
pub(crate) fn place(registry: Option<&str>, choice: &RegistryChoice) -> Result<Place, EngineError> {
    let (registry, reference) = registry_name(registry)?;
    place_in(registry, file_for(&reference, choice)?)
}

/// What `logout` writes, where there is something.
pub(crate) fn places(registry: Option<&str>, choice: &RegistryChoice) -> Result<Vec<Place>, EngineError> {
    let (registry, _) = registry_name(registry)?;
    let all = files(choice)?.into_iter().map(|file| place_in(registry.clone(), file));
    all.filter(|place| place.as_ref().map_or(true, |p| p.file.exists())).collect()
}

fn place_in(registry: String, file: PathBuf) -> Result<Place, EngineError> {
    let helper = credential_file::helper_for(&file, &registry).map_err(|source| EngineError::Credentials { source })?;
    Ok(Place { registry, file, helper })
}

/// Every registry of the files.
pub(crate) fn known(choice: &RegistryChoice) -> Result<Vec<String>, EngineError> {
    let mut all = BTreeSet::new();
    for file in files(choice)? {
        all.extend(credential_file::registries(&file).map_err(|source| EngineError::Credentials { source })?);
    }
    Ok(all.into_iter().collect())
}

/// The file that a login is kept in when none is known yet.
fn file(choice: &RegistryChoice) -> Result<PathBuf, RegistryError> {
    let default = || credential_file::default_file(&|name| std::env::var_os(name));
    choice.auth_file.clone().or_else(default).ok_or(RegistryError::NoFile)
}

/// Where a login is kept: where one for the registry is already, or else what is found there first would count.
fn file_for(reference: &ImageReference, choice: &RegistryChoice) -> Result<PathBuf, EngineError> {
    let read = read_files(choice);
    let deciding = credentials::deciding(&read, reference).map_err(|source| EngineError::Credentials { source })?;
    Ok(deciding.map_or_else(|| file(choice), |path| Ok(path.to_owned()))?)
}

/// The files that credentials are looked for in.
pub(super) fn read_files(choice: &RegistryChoice) -> Vec<PathBuf> {
    match &choice.auth_file {
        Some(only) => vec![only.clone()],
        None => credentials::credential_files(&|name| std::env::var_os(name)),
    }
}

/// Those, and the one that a new login is kept in.
fn files(choice: &RegistryChoice) -> Result<Vec<PathBuf>, RegistryError> {
    let mut all = read_files(choice);
    let own = file(choice)?;
    if !all.contains(&own) {
        all.push(own);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_people_write_them() {
        let name = |text: Option<&str>| registry_name(text).map(|(host, _)| host).ok();
        assert_eq!(name(None).as_deref(), Some("docker.io"));
        assert_eq!(name(Some("https://index.docker.io/v1/")).as_deref(), Some("docker.io"));
        assert_eq!(name(Some("r.example:5000")).as_deref(), Some("r.example:5000"));
        assert_eq!(name(Some("http://127.0.0.1:5000/v2/")).as_deref(), Some("127.0.0.1:5000"));
        for bad in ["", "UPPER case", "user", "a:b:c"] {
            assert_eq!(name(Some(bad)), None, "{bad}");
        }
    }
}

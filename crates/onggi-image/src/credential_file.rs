//! Writing credentials into `~/.docker/config.json` or an `auth.json`, as `login` and `logout` do.
//!
//! The file keeps everything that is not ours to change. It is replaced by a rename, 0600 and flushed, so that there
//! is always a whole one; a lock on its directory keeps two logins from losing each other's entry.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use onggi_spec::reference::DEFAULT_REGISTRY;
use serde_json::{Map, Value, json};

use crate::credentials::{Credentials, CredentialsError, canonical, named_file};

/// Docker's key for its own registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Largest file that is rewritten.
const MAX_FILE: u64 = 1 << 20;

/// The key under which the credentials of a registry are kept, and the name by which helpers know it.
pub fn server_key(registry: &str) -> String {
    if registry == DEFAULT_REGISTRY { HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// What a file says about where credentials of a registry are to be kept.
///
/// # Errors
/// The file exists but cannot be used.
pub fn helper_for(path: &Path, registry: &str) -> Result<Option<String>, CredentialsError> {
    let file = read(path)?;
    let name = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let own = file.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
        helpers.iter().find(|(host, _)| canonical(host) == registry).and_then(|(_, helper)| name(helper))
    });
    Ok(own.or_else(|| file.get("credsStore").and_then(name)))
}

/// Stores credentials for a registry. With a helper in charge, call it with `None`: the entry then only says that
/// there is a login, as Docker writes it.
///
/// # Errors
/// The file cannot be read, understood or replaced.
pub fn store(path: &Path, registry: &str, credentials: Option<&Credentials>) -> Result<(), CredentialsError> {
    update(path, |auths| {
        auths.retain(|key, _| canonical(key) != registry);
        auths.insert(server_key(registry), credentials.map_or_else(|| json!({}), entry));
        true
    })
    .map(drop)
}

/// Removes a registry's entry. False when there was none.
///
/// # Errors
/// As for [`store`].
pub fn erase(path: &Path, registry: &str) -> Result<bool, CredentialsError> {
    if !path.exists() {
        return Ok(false);
    }
    update(path, |auths| {
        let before = auths.len();
        auths.retain(|key, _| canonical(key) != registry);
        auths.len() < before
    })
}

/// The registries that the file has entries for.
///
/// # Errors
/// The file exists but cannot be used.
pub fn registries(path: &Path) -> Result<Vec<String>, CredentialsError> {
    let file = read(path)?;
    let auths = file.get("auths").and_then(Value::as_object);
    Ok(auths.into_iter().flat_map(|a| a.keys()).map(|key| canonical(key)).collect())
}

fn entry(credentials: &Credentials) -> Value {
    match credentials {
        Credentials::Basic { username, password } => {
            json!({ "auth": BASE64_STANDARD.encode(format!("{username}:{password}")) })
        }
        Credentials::IdentityToken(token) => json!({ "identitytoken": token }),
    }
}

/// Reads, changes, and replaces the file when `change` says that it changed something.
fn update(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool, CredentialsError> {
    // A link to a file elsewhere (dotfiles) stays a link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| CredentialsError::Write { path, source }
    };
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail(dir))?;
    let lock = File::open(dir).map_err(fail(dir))?;
    lock.lock().map_err(fail(dir))?;
    let mut file = read(path)?;
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if auths.is_null() {
        *auths = json!({});
    }
    let Some(auths) = auths.as_object_mut() else {
        return Err(CredentialsError::NotAnObject { path: path.clone() });
    };
    if !change(auths) {
        return Ok(false);
    }
    let mut text = serde_json::to_string_pretty(&file)
        .map_err(|source| CredentialsError::Malformed { path: path.clone(), source })?;
    text.push('\n');
    replace(dir, path, text.as_bytes())?;
    lock.sync_all().map_err(fail(dir))?;
    Ok(true)
}

fn replace(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), CredentialsError> {
    let part = dir.join(format!(".{}.onggi-new", path.file_name().unwrap_or_default().to_string_lossy()));
    let fail = |source| CredentialsError::Write { path: part.clone(), source };
    // We hold the lock: what is there is left from a crash.
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&part, path).map_err(|source| CredentialsError::Write { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Map<String, Value>, CredentialsError> {
    let fail = |source| CredentialsError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(fail)?,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Map::new()),
        Err(source) => return Err(fail(source)),
    };
    if text.len() as u64 > MAX_FILE {
        return Err(CredentialsError::TooLarge { path: path.to_owned() });
    }
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let malformed = |source| CredentialsError::Malformed { path: path.to_owned(), source };
    match serde_json::from_str(&text).map_err(malformed)? {
        Value::Object(map) => Ok(map),
        _ => Err(CredentialsError::NotAnObject { path: path.to_owned() }),
    }
}

/// Where `login` writes: the file that the environment names for it, else Docker's.
pub fn default_file(env: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let path = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    named_file(env)
        .or_else(|| path("DOCKER_CONFIG").map(|d| d.join("config.json")))
        .or_else(|| path("HOME").map(|d| d.join(".docker/config.json")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::credentials::{Lookup, lookup};

    fn basic(user: &str) -> Credentials {
        Credentials::Basic { username: user.into(), password: "p:w".into() }
    }

    #[test]
    fn what_is_stored_is_found_and_the_rest_of_the_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.json");
        store(&path, "r.example:5000", Some(&basic("u"))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, r#"{"HttpHeaders":{"X":"y"},"auths":{"http://r.example:5000/v2/":{"auth":"b2xkOm9sZA=="},"o.example":{"auth":"x","future":1}},"psFormat":"t"}"#).unwrap();
        store(&path, "r.example:5000", Some(&basic("u"))).unwrap();
        store(&path, "docker.io", Some(&Credentials::IdentityToken("tok".into()))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["HttpHeaders"]["X"], "y");
        assert_eq!(value["auths"]["o.example"]["future"], 1);
        assert!(value["auths"].get("http://r.example:5000/v2/").is_none());
        assert_eq!(lookup(&text, &path, &"r.example:5000/a".parse().unwrap()).unwrap(), Lookup::Found(basic("u")));
        let hub = lookup(&text, &path, &"nginx".parse().unwrap()).unwrap();
        assert_eq!(hub, Lookup::Found(Credentials::IdentityToken("tok".into())));
        assert!(erase(&path, "docker.io").unwrap());
        assert!(!erase(&path, "docker.io").unwrap());
        assert_eq!(registries(&path).unwrap(), ["o.example", "r.example:5000"]);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn helpers_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(helper_for(&path, "r.example").unwrap(), None);
        fs::write(&path, r#"{"credsStore":"desktop","credHelpers":{"r.example":"pass"}}"#).unwrap();
        assert_eq!(helper_for(&path, "r.example").unwrap().as_deref(), Some("pass"));
        assert_eq!(helper_for(&path, "o.example").unwrap().as_deref(), Some("desktop"));
    }

    #[test]
    fn a_file_that_is_not_understood_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for text in ["[", "[]", r#"{"auths":3}"#] {
            fs::write(&path, text).unwrap();
            assert!(store(&path, "r.example", Some(&basic("u"))).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn logins_at_the_same_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::thread::scope(|scope| {
            for i in 0..8 {
                let path = &path;
                scope.spawn(move || store(path, &format!("r{i}.example"), Some(&basic("u"))).unwrap());
            }
        });
        assert_eq!(registries(&path).unwrap().len(), 8);
    }
}

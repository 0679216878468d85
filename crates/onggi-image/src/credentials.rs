//! Credentials from `~/.docker/config.json` and containers' `auth.json` (containers-auth.json(5)).
//!
//! [`lookup`] is pure: text and reference in, credentials out. [`find`] is the one place that knows where the
//! files are. Credential helper programs are named, never run. Nothing here prints a secret: `Debug` hides it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io,
    io::Read,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_STANDARD_NO_PAD};
use onggi_spec::{ImageReference, reference::DEFAULT_REGISTRY};
use rustix::process::getuid;
use serde::Deserialize;

/// Largest credential file that is read; real ones have a few kilobytes.
const MAX_FILE: u64 = 1 << 20;
/// Names under which Docker has stored the credentials of its own registry.
const HUB_NAMES: [&str; 4] = ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// What is shown to one registry, and to its token service.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password or access token.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// An OAuth2 refresh token, exchanged at the token service.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username:?}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

impl Credentials {
    /// The value of a Basic `Authorization` header; `None` for a token.
    pub(crate) fn basic_header(&self) -> Option<String> {
        match self {
            Self::Basic { username, password } => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))
            }
            Self::IdentityToken(_) => None,
        }
    }
}

/// What a credential file says about a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Use these.
    Found(Credentials),
    /// They are kept by the program `docker-credential-<name>`.
    Helper(String),
    /// Nothing.
    Absent,
}

/// A credential file that cannot be used. Its content is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The user named it, but it is not there, or no file.
    #[error("credential file {} is not accessible", path.display())]
    Inaccessible {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It exists but cannot be read.
    #[error("read credentials from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not the JSON it should be.
    #[error("credentials in {} are malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// An entry's `auth` is not base64 of `user:password`.
    #[error("the entry {entry:?} in {} is not base64 of \"user:password\"", path.display())]
    BadEntry {
        /// The file.
        path: PathBuf,
        /// The key.
        entry: String,
    },
    /// Not a JSON object where one belongs.
    #[error("credentials in {} are not as they should be: no JSON object", path.display())]
    NotAnObject {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("write credentials to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Larger than any real one.
    #[error("credentials in {} are larger than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    creds_store: String,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// Looks the credentials for a reference up in the text of a credential file. The most specific entry wins:
/// `host/namespace/repo`, then `host/namespace`, then `host`. Entries of other hosts are never used.
///
/// # Errors
/// The text is malformed; `path` is only for the message.
pub fn lookup(text: &str, path: &Path, reference: &ImageReference) -> Result<Lookup, CredentialsError> {
    // A file that was only touched, or /dev/null in its place, holds none; Docker takes it so too.
    if text.trim().is_empty() {
        return Ok(Lookup::Absent);
    }
    let file: ConfigFile =
        serde_json::from_str(text).map_err(|source| CredentialsError::Malformed { path: path.to_owned(), source })?;
    let registry = reference.registry();
    let helper = file.cred_helpers.iter().find(|(host, _)| canonical(host) == registry).map(|(_, helper)| helper);
    if let Some(helper) = helper {
        return Ok(Lookup::Helper(helper.clone()));
    }
    let wanted = format!("{registry}/{}", reference.repository());
    let mut best: Option<(&String, &Entry, usize)> = None;
    for (key, entry) in &file.auths {
        let key_name = canonical(key);
        let matches = wanted.strip_prefix(&key_name).is_some_and(|rest| rest.starts_with('/') || rest.is_empty());
        if matches && best.is_none_or(|(_, _, len)| key_name.len() > len) {
            best = Some((key, entry, key_name.len()));
        }
    }
    let found = match best {
        Some((key, entry, _)) => entry
            .credentials()
            .map_err(|BadEntry| CredentialsError::BadEntry { path: path.to_owned(), entry: key.clone() })?,
        None => None,
    };
    Ok(match found {
        Some(credentials) => Lookup::Found(credentials),
        None if !file.creds_store.is_empty() => Lookup::Helper(file.creds_store),
        None => Lookup::Absent,
    })
}

struct BadEntry;

impl Entry {
    /// `None` for an empty entry, as Docker leaves them beside a credential store.
    fn credentials(&self) -> Result<Option<Credentials>, BadEntry> {
        if !self.identity_token.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identity_token.clone())));
        }
        if self.auth.is_empty() {
            let basic = Credentials::Basic { username: self.username.clone(), password: self.password.clone() };
            return Ok((!self.username.is_empty()).then_some(basic));
        }
        let auth = self.auth.trim();
        let bytes = BASE64_STANDARD
            .decode(auth)
            .or_else(|_| BASE64_STANDARD_NO_PAD.decode(auth.trim_end_matches('=')))
            .map_err(|_| BadEntry)?;
        let text = String::from_utf8(bytes).map_err(|_| BadEntry)?;
        let (username, password) = text.trim_end_matches('\0').split_once(':').ok_or(BadEntry)?;
        Ok(Some(Credentials::Basic { username: username.to_owned(), password: password.to_owned() }))
    }
}

/// `https://index.docker.io/v1/` and its like are `docker.io`; a scheme and an API version are cut off.
pub(crate) fn canonical(key: &str) -> String {
    let (url, bare) = match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => (true, rest),
        None => (false, key),
    };
    let bare = bare.trim_end_matches('/');
    let bare = ["/v1", "/v2"].iter().find_map(|v| bare.strip_suffix(v)).unwrap_or(bare);
    let (host, path) = match bare.split_once('/') {
        // A URL's path names no repository.
        Some((host, _)) if url => (host, ""),
        Some((host, path)) => (host, path),
        None => (bare, ""),
    };
    let host = if HUB_NAMES.contains(&host) { DEFAULT_REGISTRY.to_owned() } else { host.to_ascii_lowercase() };
    if path.is_empty() { host } else { format!("{host}/{path}") }
}

/// The file that the environment names as the only one.
pub fn named_file(env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    env("REGISTRY_AUTH_FILE").filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Whether a file that the user named can hold credentials. Other files need not be there; this one was meant.
///
/// # Errors
/// It is not there, or a directory.
pub fn check_named(path: &Path) -> Result<(), CredentialsError> {
    let found = match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        other => other.map(drop),
    };
    found.map_err(|source| CredentialsError::Inaccessible { path: path.to_owned(), source })
}

/// The files that may hold credentials, in order of preference, for an environment given as a function.
pub fn credential_files(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let dir = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(only) = named_file(env) {
        return vec![only];
    }
    let home = dir("HOME");
    let below_home = |tail: &str| home.as_ref().map(|h| h.join(tail));
    [
        dir("XDG_RUNTIME_DIR").map_or_else(of_podman, |d| Some(d.join("containers/auth.json"))),
        dir("XDG_CONFIG_HOME").or_else(|| below_home(".config")).map(|d| d.join("containers/auth.json")),
        dir("DOCKER_CONFIG").or_else(|| below_home(".docker")).map(|d| d.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where Podman keeps them without a runtime directory, as for root. Its parent may be closed to us: then they are not ours.
fn of_podman() -> Option<PathBuf> {
    let path = PathBuf::from(format!("/run/containers/{}/auth.json", getuid().as_raw()));
    path.exists().then_some(path)
}

/// Looks through `files` in order; the first that has something to say decides.
///
/// # Errors
/// A file exists but cannot be used: then nothing is guessed from the next one.
pub fn find(files: &[PathBuf], reference: &ImageReference) -> Result<Lookup, CredentialsError> {
    Ok(find_in(files, reference)?.map_or(Lookup::Absent, |(_, found)| found))
}

/// The file that decides, as [`find`] goes through them: what is written to one behind it would not count.
///
/// # Errors
/// As there.
pub fn deciding<'f>(files: &'f [PathBuf], reference: &ImageReference) -> Result<Option<&'f Path>, CredentialsError> {
    Ok(find_in(files, reference)?.map(|(path, _)| path))
}

fn find_in<'f>(
    files: &'f [PathBuf],
    reference: &ImageReference,
) -> Result<Option<(&'f Path, Lookup)>, CredentialsError> {
    for path in files {
        let Some(text) = read_bounded(path)? else { continue };
        match lookup(&text, path, reference)? {
            Lookup::Absent => {}
            found => return Ok(Some((path, found))),
        }
    }
    Ok(None)
}

fn read_bounded(path: &PathBuf) -> Result<Option<String>, CredentialsError> {
    let fail = |source| CredentialsError::Read { path: path.clone(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(source) => return Err(fail(source)),
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_FILE {
        return Err(CredentialsError::TooLarge { path: path.clone() });
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn reference(text: &str) -> ImageReference {
        text.parse().unwrap()
    }

    fn basic(username: &str, password: &str) -> Lookup {
        Lookup::Found(Credentials::Basic { username: username.into(), password: password.into() })
    }

    fn look(json: &str, image: &str) -> Lookup {
        lookup(json, Path::new("config.json"), &reference(image)).unwrap()
    }

    #[test]
    fn docker_and_containers_spellings_of_a_registry_are_found() {
        let auth = BASE64_STANDARD.encode("user:pa:ss");
        for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io"] {
            assert_eq!(
                look(&format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#), "nginx"),
                basic("user", "pa:ss")
            );
        }
        for key in ["r.example:5000", "https://r.example:5000", "http://r.example:5000/v2/", "R.example:5000"] {
            let json = format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#);
            assert_eq!(look(&json, "r.example:5000/a/b"), basic("user", "pa:ss"), "{key}");
        }
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let json = r#"{"auths":{"r.example":{"username":"host","password":"p"},"r.example/team":{"username":"team","password":"p"},
            "r.example/team/app":{"username":"app","password":"p"},"r.example/te":{"username":"no","password":"p"}}}"#;
        assert_eq!(look(json, "r.example/team/app"), basic("app", "p"));
        assert_eq!(look(json, "r.example/team/other"), basic("team", "p"));
        assert_eq!(look(json, "r.example/x"), basic("host", "p"));
    }

    #[test]
    fn cve_2021_41092_credentials_of_one_registry_are_never_found_for_another() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"username":"hub","password":"p"},"private.example":{"username":"priv","password":"p"}}}"#;
        for other in [
            "evil.example/x",
            "private.example.evil.example/x",
            "private.example:444/x",
            "index.docker.io.evil.example/x",
        ] {
            assert_eq!(look(json, other), Lookup::Absent, "{other}");
            assert_eq!(look("\n", other), Lookup::Absent, "an empty file");
        }
        // A helper that is configured for the registry decides; there is no falling back to another's entry.
        let helped = r#"{"auths":{"https://index.docker.io/v1/":{"username":"hub","password":"p"}},"credHelpers":{"private.example":"pass"}}"#;
        assert_eq!(look(helped, "private.example/x"), Lookup::Helper("pass".into()));
    }

    #[test]
    fn cve_2021_41092_benign_each_registry_gets_its_own_credentials() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"username":"hub","password":"p"},"private.example":{"username":"priv","password":"p"}}}"#;
        assert_eq!(look(json, "private.example/x"), basic("priv", "p"));
        assert_eq!(look(json, "nginx"), basic("hub", "p"));
    }

    #[test]
    fn stores_and_tokens_are_recognised() {
        assert_eq!(
            look(r#"{"auths":{"r.example":{}},"credsStore":"desktop"}"#, "r.example/x"),
            Lookup::Helper("desktop".into())
        );
        let token = look(r#"{"auths":{"r.example":{"auth":"","identitytoken":"tok"}}}"#, "r.example/x");
        assert_eq!(token, Lookup::Found(Credentials::IdentityToken("tok".into())));
        assert_eq!(look("{}", "r.example/x"), Lookup::Absent);
    }

    #[test]
    fn broken_files_are_errors_that_do_not_repeat_the_secret() {
        let path = Path::new("config.json");
        let bad =
            lookup(r#"{"auths":{"r.example":{"auth":"c2VjcmV0"}}}"#, path, &reference("r.example/x")).unwrap_err();
        assert!(matches!(bad, CredentialsError::BadEntry { .. }) && !bad.to_string().contains("secret"));
        assert!(matches!(lookup("[", path, &reference("x")), Err(CredentialsError::Malformed { .. })));
        assert!(!format!("{:?}", basic("u", "hidden")).contains("hidden"));
    }

    #[test]
    fn files_are_searched_in_the_documented_order() {
        let env = |name: &str| match name {
            "HOME" => Some(OsString::from("/home/u")),
            "XDG_RUNTIME_DIR" => Some(OsString::from("/run/user/7")),
            _ => None,
        };
        let expected =
            ["/run/user/7/containers/auth.json", "/home/u/.config/containers/auth.json", "/home/u/.docker/config.json"];
        assert_eq!(credential_files(&env), expected.map(PathBuf::from));
        let only = |name: &str| (name == "REGISTRY_AUTH_FILE").then(|| OsString::from("/x"));
        assert_eq!(credential_files(&only), [PathBuf::from("/x")]);
    }

    #[test]
    fn the_first_file_that_knows_the_registry_decides() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, absent) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("absent"));
        std::fs::write(&a, r#"{"auths":{"other.example":{"username":"o","password":"p"}}}"#).unwrap();
        std::fs::write(&b, r#"{"auths":{"r.example":{"username":"b","password":"p"}}}"#).unwrap();
        let files = [absent, a, b];
        assert_eq!(find(&files, &reference("r.example/x")).unwrap(), basic("b", "p"));
        assert_eq!(deciding(&files, &reference("r.example/x")).unwrap(), Some(&*files[2]));
        assert_eq!(deciding(&files, &reference("new.example/x")).unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = lookup(&text, Path::new("x"), &reference("nginx"));
        }

        #[test]
        fn any_entry_is_read_without_panic(key in "[ -~&&[^\"\\\\]]{0,30}", auth in "[A-Za-z0-9+/=]{0,30}") {
            let _ = lookup(&format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#), Path::new("x"), &reference("nginx"));
        }
    }

    #[test]
    fn a_file_that_the_user_names_has_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        for path in [&file, dir.path()] {
            let error = check_named(path).expect_err("there is none");
            assert_eq!(error.to_string(), format!("credential file {} is not accessible", path.display()));
        }
        fs::write(&file, "").unwrap();
        check_named(&file).unwrap();
        check_named(Path::new("/dev/null")).unwrap();
    }
}

//! `onggi.toml`: the settings of a machine or a user.
//!
//! ```toml
//! [store]
//! driver = "overlay"      # of a new store: overlay, btrfs or vfs
//! max_size = "50g"        # images beyond that are evicted, least recently used first
//! min_free = "5g"         # or 10%: images are evicted while less is free
//! ```
//! Root's file is `/etc/onggi/onggi.toml`; an ordinary user's is `$XDG_CONFIG_HOME/onggi/onggi.toml`, else
//! `~/.config/onggi/onggi.toml`. `ONGGI_CONFIG` names another. Sections that other parts of the program own are passed
//! over; a key of ours that is misspelt is an error, for a limit that is silently off would be found too late.

use std::path::{Path, PathBuf};

use onggi_spec::quantity::parse_size;
use onggi_storage::DriverKind;
use serde::Deserialize;

use crate::EngineError;

/// Settings of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreSettings {
    /// Driver of a new store, and what an existing one must have.
    pub driver: Option<DriverKind>,
    /// Bytes that the store may occupy.
    pub max_size: Option<u64>,
    /// What must stay free on its filesystem.
    pub min_free: Option<MinFree>,
}

/// An amount of free space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinFree {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the filesystem.
    Percent(u64),
}

impl MinFree {
    /// In bytes, on a filesystem of `total` bytes.
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(part) => (u128::from(total) * u128::from(part) / 100) as u64,
        }
    }
}

/// What the environment says; gathered once by the caller.
#[derive(Debug, Clone, Default)]
pub struct ConfigEnv {
    /// `ONGGI_CONFIG`.
    pub file: Option<PathBuf>,
    /// `ONGGI_STORAGE_DRIVER`.
    pub driver: Option<String>,
    /// `$XDG_CONFIG_HOME`, or `.config` in the home directory.
    pub config_home: Option<PathBuf>,
}

impl ConfigEnv {
    /// From the process's environment.
    pub fn gather() -> Self {
        let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        Self {
            file: std::env::var_os("ONGGI_CONFIG").map(PathBuf::from),
            driver: std::env::var("ONGGI_STORAGE_DRIVER").ok().filter(|v| !v.is_empty()),
            config_home: dir("XDG_CONFIG_HOME").or_else(|| dir("HOME").map(|home| home.join(".config"))),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    store: StoreTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreTable {
    driver: Option<String>,
    max_size: Option<Amount>,
    min_free: Option<Amount>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Bytes(u64),
    Text(String),
}

/// The file that counts for this user.
pub fn path(euid: u32, env: &ConfigEnv) -> Option<PathBuf> {
    match (&env.file, euid) {
        (Some(file), _) => Some(file.clone()),
        (None, 0) => Some("/etc/onggi/onggi.toml".into()),
        (None, _) => env.config_home.as_ref().map(|dir| dir.join("onggi/onggi.toml")),
    }
}

/// Bytes of the file; what is longer is none.
const MAX_FILE: usize = 1 << 20;

/// Settings from the option (first), the environment, and the file.
///
/// # Errors
/// The file cannot be read, is no TOML, or has a key or a value of ours that means nothing.
pub fn load(option: Option<DriverKind>, euid: u32, env: &ConfigEnv) -> Result<StoreSettings, EngineError> {
    let mut settings = StoreSettings::default();
    if let Some(path) = path(euid, env) {
        match read(&path) {
            Ok(text) => settings = parse(&text).map_err(|reason| EngineError::Config { path, reason })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && env.file.is_none() => {}
            // A home directory that is closed to us, as after sudo or setpriv, is not the user's choice of settings.
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && env.file.is_none() && euid != 0 => {
                tracing::warn!("the settings in {} are passed over: {e}", path.display());
            }
            Err(source) => return Err(EngineError::ReadFile { path, source }),
        }
    }
    if let Some(name) = &env.driver {
        settings.driver = Some(name.parse()?);
    }
    settings.driver = option.or(settings.driver);
    Ok(settings)
}

fn read(path: &Path) -> std::io::Result<String> {
    let bytes = onggi_sys::small_file::read(path, MAX_FILE)?;
    String::from_utf8(bytes).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))
}

fn parse(text: &str) -> Result<StoreSettings, String> {
    let table = toml::from_str::<File>(text).map_err(|e| e.to_string())?.store;
    let bytes = |key: &str, amount: &Amount| match amount {
        Amount::Bytes(bytes) => Ok(*bytes),
        Amount::Text(text) => parse_size(text).map_err(|e| format!("store.{key}: {e}")),
    };
    let min_free = |amount: &Amount| match amount {
        Amount::Text(text) if text.ends_with('%') => match text.trim_end_matches('%').trim().parse() {
            Ok(part) if part < 100 => Ok(MinFree::Percent(part)),
            _ => Err(format!("store.min_free: {text:?} is not a percentage below 100")),
        },
        amount => bytes("min_free", amount).map(MinFree::Bytes),
    };
    Ok(StoreSettings {
        driver: table.driver.map(|name| name.parse().map_err(|e| format!("store.driver: {e}"))).transpose()?,
        max_size: table.max_size.as_ref().map(|amount| bytes("max_size", amount)).transpose()?,
        min_free: table.min_free.as_ref().map(min_free).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_percentages_are_read() {
        let text = "[store]\ndriver = \"btrfs\"\nmax_size = \"2g\"\nmin_free = \"10%\"\n[other]\nx = 1\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings.driver, Some(DriverKind::Btrfs));
        assert_eq!(settings.max_size, Some(2 << 30));
        assert_eq!(settings.min_free.unwrap().bytes(1000), 100);
        assert_eq!(parse("[store]\nmax_size = 4096\n").unwrap().max_size, Some(4096));
        assert_eq!(parse("").unwrap(), StoreSettings::default());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for bad in [
            "[store]\nmaxsize = 1\n",
            "[store]\nmax_size = \"much\"\n",
            "[store]\nmin_free = \"120%\"\n",
            "[store]\ndriver = \"zfs\"\n",
            "store = 1\n",
            "[",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_option_wins_over_the_environment_and_that_over_the_file() {
        let dir = std::env::temp_dir().join(format!("onggi-config-{}", std::process::id()));
        std::fs::write(&dir, "[store]\ndriver = \"vfs\"\n").unwrap();
        let mut env = ConfigEnv { file: Some(dir.clone()), driver: None, config_home: None };
        assert_eq!(load(None, 0, &env).unwrap().driver, Some(DriverKind::Vfs));
        env.driver = Some("btrfs".to_owned());
        assert_eq!(load(None, 0, &env).unwrap().driver, Some(DriverKind::Btrfs));
        assert_eq!(load(Some(DriverKind::Overlay), 0, &env).unwrap().driver, Some(DriverKind::Overlay));
        std::fs::remove_file(dir).unwrap();
    }
}

//! Where things are on disk, and with which modes they are made.
//!
//! ```text
//! <root>      0711   state.db blobs/ layers/ tmp/ containers/<id>/      outlives a reboot
//! <runroot>   0711   intents/ locks/ leases/ containers/<id>/ oci/<id>/ on tmpfs
//! ```
//! Root's directories are 0711 so that a container's mapped users can reach what is bind-mounted from them,
//! while no other user of the host can list or read (I14); an ordinary user's are 0700.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use onggi_spec::ContainerId;

use crate::EngineError;

/// The two roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What outlives a reboot.
    pub root: PathBuf,
    /// What must not.
    pub runroot: PathBuf,
}

/// What the environment says about directories; gathered once by [`Paths::discover`]'s caller.
#[derive(Debug, Clone, Default)]
pub struct DirEnv {
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// `$XDG_DATA_HOME`.
    pub data_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

impl DirEnv {
    /// From the process's environment.
    pub fn gather() -> Self {
        let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        Self { home: dir("HOME"), data_home: dir("XDG_DATA_HOME"), runtime_dir: dir("XDG_RUNTIME_DIR") }
    }
}

impl Paths {
    /// The default directories of this user, unless overridden.
    pub fn discover(root: Option<PathBuf>, runroot: Option<PathBuf>, euid: u32, env: &DirEnv) -> Self {
        if euid == 0 {
            return Self {
                root: root.unwrap_or_else(|| "/var/lib/onggi".into()),
                runroot: runroot.unwrap_or_else(|| "/run/onggi".into()),
            };
        }
        // Directly in /tmp, where `create` sees whose it is and nobody else can rename it: never below another's directory.
        let data = env.data_home.clone().or_else(|| env.home.as_ref().map(|home| home.join(".local/share")));
        let data = data.map_or_else(|| PathBuf::from(format!("/tmp/onggi-data-{euid}")), |data| data.join("onggi"));
        let run = env
            .runtime_dir
            .clone()
            .map_or_else(|| PathBuf::from(format!("/tmp/onggi-run-{euid}")), |d| d.join("onggi"));
        Self { root: root.unwrap_or(data), runroot: runroot.unwrap_or(run) }
    }

    /// Makes the directories. An existing root must belong to `euid`.
    ///
    /// # Errors
    /// A directory cannot be made (read-only filesystem, no permission) or belongs to someone else.
    pub fn create(&self, euid: u32) -> Result<(), EngineError> {
        let mode = if euid == 0 { 0o711 } else { 0o700 };
        for (base, subs) in
            [(&self.root, &["containers"][..]), (&self.runroot, &["intents", "locks", "containers", "oci"][..])]
        {
            make_owned(base, mode, euid)?;
            for sub in subs {
                make(&base.join(sub), mode)?;
            }
        }
        Ok(())
    }

    /// `<root>/containers/<id>`.
    pub fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }

    /// `<runroot>/containers/<id>`.
    pub fn run_dir(&self, id: &ContainerId) -> PathBuf {
        self.runroot.join("containers").join(id.as_str())
    }

    /// `<runroot>/oci`: the runtime's state root.
    pub fn oci_root(&self) -> PathBuf {
        self.runroot.join("oci")
    }

    /// `<root>/containers/<id>/exit.json`.
    pub fn exit_file(&self, id: &ContainerId) -> PathBuf {
        self.bundle(id).join("exit.json")
    }

    /// `<root>/containers/<id>/started.json`.
    pub fn started_file(&self, id: &ContainerId) -> PathBuf {
        self.bundle(id).join("started.json")
    }

    /// `<root>/containers/<id>/container.log`.
    pub fn log_file(&self, id: &ContainerId) -> PathBuf {
        self.bundle(id).join("container.log")
    }
}

fn make(path: &Path, mode: u32) -> Result<(), EngineError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(EngineError::MakeDir { path: path.to_owned(), source: e })
        }
        _ => Ok(()),
    }
}

fn make_owned(path: &Path, mode: u32, euid: u32) -> Result<(), EngineError> {
    let failed = |source| EngineError::MakeDir { path: path.to_owned(), source };
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if meta.is_dir() && meta.uid() == euid {
            return Ok(());
        }
        if meta.is_dir() {
            return Err(EngineError::ForeignDir { path: path.to_owned(), uid: meta.uid() });
        }
        // A symlink to a directory is the administrator's choice for root only.
        if euid != 0 || !path.is_dir() {
            return Err(failed(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    make(path, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_stays_in_xdg_directories() {
        let env = DirEnv { home: Some("/home/a".into()), data_home: None, runtime_dir: Some("/run/user/7".into()) };
        let p = Paths::discover(None, None, 7, &env);
        assert_eq!(p.root, Path::new("/home/a/.local/share/onggi"));
        assert_eq!(p.runroot, Path::new("/run/user/7/onggi"));
    }

    #[test]
    fn without_a_home_nothing_lies_below_a_directory_that_another_could_have_made() {
        let p = Paths::discover(None, None, 7, &DirEnv::default());
        assert_eq!(p.root, Path::new("/tmp/onggi-data-7"));
        assert_eq!(p.root.parent(), p.runroot.parent());
    }

    #[test]
    fn options_override_the_defaults() {
        let p = Paths::discover(Some("/a".into()), None, 0, &DirEnv::default());
        assert_eq!((p.root.as_path(), p.runroot.as_path()), (Path::new("/a"), Path::new("/run/onggi")));
    }
}

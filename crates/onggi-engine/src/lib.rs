//! The story of each verb, one file per verb: `run.rs`, `stop.rs`, `rm.rs`, …
//!
//! Input is a parsed request, output is plain data. The engine never prints and never parses text that a
//! person wrote. What is on disk and in the kernel is the truth: any number of processes may hold an
//! [`Engine`] on the same directories.

mod apparmor;
mod asked;
mod attach;
mod bootstrap;
mod check;
mod cleanup;
mod commit;
pub mod config;
mod copy;
mod cp;
mod create;
mod devices;
mod diff;
pub mod doctor;
mod error;
mod exec;
mod explain;
mod export;
pub mod facts;
pub mod failpoint;
mod freeze;
mod from_binary;
mod history;
mod id_file;
mod image_inspect;
mod image_mount;
mod image_names;
mod images;
mod import;
mod info;
mod inspect;
mod json;
mod launch;
mod list;
mod load;
mod logs;
mod lost;
mod names;
mod overlay;
mod paths;
mod pause;
mod plans;
mod port;
mod possible;
mod process;
mod programs;
mod pull;
mod registry;
mod rename;
mod restart;
mod rm;
mod rootfs;
mod run;
mod save;
mod space;
mod start;
mod stats;
mod status;
mod stop;
mod top;
mod transfer;
mod userns;
mod why;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use config::{ConfigEnv, StoreSettings};
use onggi_image::registries::RegistriesConf;
use onggi_spec::HostFacts;
use onggi_state::{ContainerRecord, State, files::Intents};
use onggi_storage::{DriverKind, Layers};

pub use attach::{AttachEvent, AttachStream};
pub use bootstrap::{Bootstrap, BootstrapOp, BootstrapPlan, Target as BootstrapTarget, Tool as BootstrapTool};
pub use check::{CheckReport, Finding};
pub use commit::CommitOptions;
pub use copy::CopyOptions;
pub use cp::{CopyPlace, CpOptions, CpReport};
pub use error::{EngineError, chain as error_chain};
pub use exec::{ExecRequest, ExecSession};
pub use explain::Explanation;
pub use from_binary::FromBinary;
pub use history::HistoryEntry;
pub use id_file::IdFile;
pub use image_mount::{ImageMount, MountOp, MountPlan};
pub use image_names::TreeLayer;
pub use images::ImageSummary;
pub use import::{ImportOptions, Imported};
pub use info::Info;
pub use list::{ContainerSummary, ListFilter, PortRange};
pub use load::{LoadFrom, Loaded};
pub use logs::{LogEntry, LogOptions, LogReader};
pub use onggi_image::{Credentials, Pushed};
pub use onggi_storage::diff::{Change, ChangeKind};
pub use overlay::{ContainerOverlay, LayerStep, LayerSteps, OverlayOf, WrittenLayer, overlay_changes, overlay_layer};
pub use paths::{DirEnv, Paths};
pub use plans::{RowChange, VerbOp, VerbPlan};
pub use process::ProcessHandle;
pub use programs::{Chosen, ChosenKind, program_files, user_in};
pub use pull::{AllTags, EarlyQuestion, PullOptions, PullPolicy};
pub use registry::{LoginRequest, LoginResult, PushRequest, RegistryChoice, RegistryError, SearchHit, TagList};
pub use run::{RunOptions, Started};
pub use save::{SaveFormat, SaveTo};
pub use space::{DiskUsage, ImageUsage, PruneFilter, Pruned, ago};
pub use stats::ContainerUsage;
pub use status::Status;
pub use stop::{StopOptions, Stopping};
pub use top::{Column, ProcessTable, TopRequest};
pub use transfer::{FormatError, ManifestFormat, location::Location};
pub use why::{Cause, Why};

/// Directories that replace the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--runroot`.
    pub runroot: Option<PathBuf>,
    /// `--storage-driver`.
    pub driver: Option<DriverKind>,
}

/// The engine on one pair of directories.
#[derive(Debug)]
pub struct Engine {
    paths: Paths,
    euid: u32,
    state: OnceLock<Mutex<State>>,
    facts: OnceLock<HostFacts>,
    settings: StoreSettings,
    /// `registries.conf`, read on first use.
    registries_conf: OnceLock<Arc<RegistriesConf>>,
    /// What a registry was asked before this was opened.
    asked: Mutex<Option<pull::Asked>>,
    /// The runtime tells its operations too.
    traced: Option<onggi_sys::trace::Format>,
}

impl Engine {
    /// Opens the engine for the calling user. Nothing is made on disk before a verb needs it.
    ///
    /// # Errors
    /// The configuration file is wrong.
    pub fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let euid = rustix::process::geteuid().as_raw();
        let paths = Paths::discover(options.root, options.runroot, euid, &DirEnv::gather());
        let settings = config::load(options.driver, euid, &ConfigEnv::gather())?;
        Ok(Self {
            paths,
            euid,
            state: OnceLock::new(),
            facts: OnceLock::new(),
            settings,
            registries_conf: OnceLock::new(),
            asked: Mutex::new(None),
            traced: None,
        })
    }

    /// The driver that the store has, or would get.
    pub(crate) fn driver_kind(&self) -> Result<DriverKind, EngineError> {
        let recorded = onggi_storage::driver::recorded(&self.paths.root)?;
        Ok(recorded.or(self.settings.driver).unwrap_or_default())
    }

    /// The layers of the store, kept by its driver.
    pub(crate) fn layers(&self) -> Result<Layers, EngineError> {
        Ok(Layers::open_with(&self.paths.root, self.settings.driver)?)
    }

    /// Has the runtimes that it starts tell their operations as well, in this form.
    pub fn trace(&mut self, format: Option<onggi_sys::trace::Format>) {
        self.traced = format;
    }

    /// The directories in use.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Facts of this host, gathered on first use.
    pub fn facts(&self) -> &HostFacts {
        self.facts.get_or_init(|| facts::gather(&self.paths))
    }

    /// The database, opened (and made) on first use.
    /// The lock must end with the statement: verbs call each other.
    pub(crate) fn state(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = match self.state.get() {
            Some(state) => state,
            None => {
                self.paths.create(self.euid)?;
                let opened = State::open_filled(&self.paths.root, |state| {
                    lost::find_again(&self.paths.root, state);
                    Ok(())
                })?;
                self.state.get_or_init(|| Mutex::new(opened))
            }
        };
        Ok(state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The container that a name, an id or a unique beginning of an id means.
    pub(crate) fn find(&self, name: &str) -> Result<ContainerRecord, EngineError> {
        Ok(self.state()?.container(name)?)
    }

    /// The intents of this run root.
    pub(crate) fn intents(&self) -> Result<Intents, EngineError> {
        Ok(Intents::open(&self.paths.runroot)?)
    }

    /// True when the caller is root and may create namespaces, mounts and links on the host.
    pub(crate) fn rootful(&self) -> bool {
        self.facts().rootful()
    }
}

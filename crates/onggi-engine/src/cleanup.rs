//! One idempotent clean-up that the failure of a start, `rm`, a monitor's end and crash recovery share.
//!
//! "Already gone" is success. Every step is tried; what failed is reported together.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use onggi_network::NetworkRecord;
use onggi_spec::{ContainerId, NetworkMode, monitor::ExitRecord};
use onggi_state::{ContainerRecord, files::Intent};
use onggi_sys::trace;

use crate::{
    Engine, EngineError, failpoint, freeze::FREEZE_INTENT, json, process::PidFd, pull::PULL_INTENT, rootfs, status,
    stop::SIGKILL,
};

/// The kernel needs moments, not seconds, to end a workload whose monitor is dead.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How often a directory is removed into which others still write.
const REMOVALS: usize = 5;
/// The exit code of a workload that the kernel killed because its monitor died.
const KILLED: i32 = 137;

impl Engine {
    /// Called when a container has ended: releases what it used; removes it when it was made with `--rm`.
    ///
    /// # Errors
    /// A step failed; the others were done.
    pub fn cleanup(&self, id: &ContainerId) -> Result<(), EngineError> {
        // Bound first: the borrow of the state must not last into the arms.
        let record = self.state()?.container_by_id(id)?;
        match record {
            Some(record) => self.after_exit(&record),
            None => self.release(id),
        }
    }

    /// [`Engine::cleanup`] for a container at hand. Waits for whoever works on it right now.
    pub(crate) fn after_exit(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        let intent = self.intents()?.wait(record.id.as_str())?;
        if !self.monitor_alive(&record.id)? {
            self.settle(record)?;
        }
        Ok(intent.complete()?)
    }

    /// What is left to do for a container that has ended, or whose start was interrupted: one of `--rm` goes then too, as
    /// with Docker. The caller holds its intent.
    fn settle(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        if self.ends_for_good(record)? { self.erase(&record.id) } else { self.release(&record.id) }
    }

    /// Undoes a start that failed half-way. The container stays, as created.
    pub(crate) fn undo_start(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        self.release(&record.id)
    }

    /// Finishes or undoes what processes that died have left. Cheap when there is nothing: one readdir of
    /// `intents` and one lock test for each started container.
    ///
    /// # Errors
    /// The directories cannot be read, or a clean-up failed.
    pub fn recover(&self) -> Result<(), EngineError> {
        if self.recover_containers()? {
            self.collect_garbage()?;
            self.complete_abandoned(PULL_INTENT)?;
        }
        Ok(())
    }

    /// [`Engine::recover`] without the leavings of pulls, which a new pull goes on from. True when there are some.
    pub(crate) fn recover_containers(&self) -> Result<bool, EngineError> {
        self.paths.create(self.euid)?;
        let intents = self.intents()?;
        let mut pulls = false;
        for intent in intents.abandoned()? {
            match (intent.id().parse(), Self::restarted(&intent)) {
                (Ok(id), _) => self.recover_or_leave(&id, intent),
                (Err(_), Some(id)) => {
                    intent.complete()?;
                    if let Some(own) = intents.try_begin(id.as_str())? {
                        self.recover_or_leave(&id, own);
                    }
                }
                (Err(_), None) if intent.id().starts_with(FREEZE_INTENT) => {
                    self.thaw_abandoned(&intent.id()[FREEZE_INTENT.len()..]);
                    intent.complete()?;
                }
                // Dropped, not completed: it stays abandoned until the garbage is collected.
                (Err(_), None) => pulls |= intent.id().starts_with(PULL_INTENT),
            }
        }
        for id in self.started_ids()? {
            if self.monitor_alive(&id)? {
                continue;
            }
            if let Some(intent) = intents.try_begin(id.as_str())? {
                self.recover_or_leave(&id, intent);
            }
        }
        Ok(pulls)
    }

    /// A container that cannot be cleaned up now (a full disk, say) must not keep other commands from working,
    /// least of all those that make room: its intent stays for the next one.
    fn recover_or_leave(&self, id: &ContainerId, intent: Intent) {
        if let Err(e) = self.recover_one(id).and_then(|()| Ok(intent.complete()?)) {
            tracing::warn!("cannot clean up container {} yet: {}", id.short(), crate::error_chain(&e));
        }
    }

    fn complete_abandoned(&self, prefix: &str) -> Result<(), EngineError> {
        for intent in self.intents()?.abandoned()? {
            if intent.id().starts_with(prefix) {
                intent.complete()?;
            }
        }
        Ok(())
    }

    /// A container whose creator, starter or remover died, or whose monitor did. The caller holds its intent.
    fn recover_one(&self, id: &ContainerId) -> Result<(), EngineError> {
        let record = self.state()?.container_by_id(id)?;
        match record {
            Some(record) if self.is_complete(id) => {
                if self.monitor_alive(id)? {
                    return Ok(());
                }
                self.record_lost_monitor(id)?;
                self.settle(&record)
            }
            _ => self.erase(id),
        }
    }

    /// A monitor that was killed took its workload with it (PR_SET_PDEATHSIG) but wrote nothing.
    fn record_lost_monitor(&self, id: &ContainerId) -> Result<(), EngineError> {
        let Some(state) = self.sandbox_state(id)? else { return Ok(()) };
        if self.exit_record(id)?.is_some() {
            return Ok(());
        }
        if status::process_lives(&state)?
            && let Some(process) = PidFd::open(state.pid)?
        {
            process.signal(SIGKILL)?;
            // Where it stands still it would not end.
            self.let_go(id)?;
            process.ended_before(Instant::now() + LAST_WAIT)?;
        }
        let error = "the container's monitor was killed, and the kernel ended the container with it".to_owned();
        let finished_at = crate::create::now();
        let exit =
            ExitRecord { exit_code: KILLED, started_at: state.created_at, finished_at, error, ..ExitRecord::default() };
        json::write(&self.paths.exit_file(id), &exit)
    }

    /// Gives back network, cgroups and runtime files. The container's disk is untouched.
    pub(crate) fn release(&self, id: &ContainerId) -> Result<(), EngineError> {
        failpoint::hit("cleanup.begin");
        let mut failures = Failures::new(id);
        failures.note(trace::step("engine", || "give the network back".into(), || self.release_network(id)));
        failpoint::hit("cleanup.network-detached");
        failures.note(trace::step("engine", || "remove the control groups".into(), || self.release_cgroups(id)));
        failures.note(self.release_id_block(id));
        failures.note(remove_tree(&self.paths.oci_root().join(id.as_str())));
        failures.note(remove_tree(&self.paths.run_dir(id)));
        failpoint::hit("cleanup.done");
        failures.finish()
    }

    fn release_network(&self, id: &ContainerId) -> Result<(), EngineError> {
        match self.network_record(id)? {
            Some(record) => {
                let detached = onggi_network::detach(&self.paths.runroot, &record, self.networks_are_shared());
                detached.map_err(|failures| EngineError::Detach { failures })
            }
            None if self.may_own_network(id)? => {
                let detached = onggi_network::detach_unrecorded(&self.paths.runroot, id);
                detached.map(drop).map_err(|failures| EngineError::Detach { failures })
            }
            None => Ok(()),
        }
    }

    /// The address is taken a moment before the record of it can be written: a start that died in between.
    fn may_own_network(&self, id: &ContainerId) -> Result<bool, EngineError> {
        if !self.paths.run_dir(id).exists() {
            return Ok(false);
        }
        let record = self.state()?.container_by_id(id)?;
        Ok(record.is_none_or(|r| r.request.network == NetworkMode::Bridge) && self.rootful())
    }

    /// What the container owns on the network; written before any of it is made.
    pub(crate) fn network_record(&self, id: &ContainerId) -> Result<Option<NetworkRecord>, EngineError> {
        json::read_optional(&self.paths.run_dir(id).join("network.json"))
    }

    fn release_cgroups(&self, id: &ContainerId) -> Result<(), EngineError> {
        let paths = match self.sandbox_state(id)? {
            Some(state) => state.cgroup_paths,
            // The runtime died before it wrote its state: the names of its cgroups follow from the id.
            None => self.planned_cgroups(id)?,
        };
        Ok(onggi_cgroup::remove(&paths)?)
    }

    fn planned_cgroups(&self, id: &ContainerId) -> Result<onggi_cgroup::Paths, EngineError> {
        if !self.rootful() {
            return Ok(onggi_cgroup::Paths::new());
        }
        Ok(onggi_cgroup::possible_paths(&self.facts().cgroup, &rootfs::cgroups_path(id))?)
    }

    /// Ids with a directory under the run root: started and not yet cleaned up.
    fn started_ids(&self) -> Result<Vec<ContainerId>, EngineError> {
        let dir = self.paths.runroot.join("containers");
        let failed = |source| EngineError::ReadFile { path: dir.clone(), source };
        let entries = fs::read_dir(&dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        Ok(entries.iter().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    /// True when `create` finished: its last file is there.
    fn is_complete(&self, id: &ContainerId) -> bool {
        self.paths.bundle(id).join("rootfs.json").exists()
    }

    /// Removes the last trace of a container, complete or not. The caller holds its intent.
    pub(crate) fn erase(&self, id: &ContainerId) -> Result<(), EngineError> {
        let mut failures = Failures::new(id);
        let record = self.state()?.container_by_id(id)?;
        let (known, image) = (record.is_some(), record.and_then(|r| r.image_id));
        failures.note(self.release(id));
        let _read = self.await_readers(id);
        // First the row: a container that is still known is complete, and says how it ended.
        // One that was never written down needs no writing, which may be what has failed.
        let row = || match known {
            true => self.state().and_then(|mut s| Ok(s.delete_container(id)?)).map(|_| ()),
            false => Ok(()),
        };
        let forgotten = trace::step("engine", || format!("delete the row of container {}", id.short()), row);
        failpoint::hit("remove.record-deleted");
        let directory = || onggi_storage::remove_container_dir(&self.paths.root, id).map_err(EngineError::from);
        failures.note(trace::step(
            "storage",
            || format!("remove the directory of container {}", id.short()),
            directory,
        ));
        failpoint::hit("remove.snapshot-removed");
        // On a full disk there is room for that now.
        failures.note(forgotten.or_else(|_| row()));
        if let Some(image) = image {
            failures.note(self.collect_after(&image));
        }
        failures.finish()
    }
}

/// Removes a small directory of ours on the run root.
fn remove_tree(path: &Path) -> Result<(), EngineError> {
    for attempt in 1.. {
        match fs::remove_dir_all(path) {
            Ok(()) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            // Whoever asks it to end at this moment leaves a note of that in it.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < REMOVALS => {}
            Err(source) => return Err(EngineError::WriteFile { path: path.to_owned(), source }),
        }
    }
    Ok(())
}

/// Collects what failed without stopping at it.
struct Failures {
    id: String,
    list: Vec<EngineError>,
}

impl Failures {
    fn new(id: &ContainerId) -> Self {
        Self { id: id.short().to_owned(), list: Vec::new() }
    }

    fn note(&mut self, result: Result<(), EngineError>) {
        self.list.extend(result.err());
    }

    fn finish(mut self) -> Result<(), EngineError> {
        match self.list.len() {
            0 => Ok(()),
            1 => Err(self.list.remove(0)),
            _ => {
                Err(EngineError::CleanUp { id: self.id, failures: self.list.iter().map(crate::error::chain).collect() })
            }
        }
    }
}

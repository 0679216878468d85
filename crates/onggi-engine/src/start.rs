//! Starts a container that exists: network, configuration, monitor. `run` and `start` share it.

use std::{fs, io, os::fd::OwnedFd};

use onggi_network::{BridgeRequest, NetworkError, NetworkRecord, Obstacle, PlanError};
use onggi_spec::{IdBlock, NetworkMode, oci::build::bridge_sysctls};
use onggi_state::ContainerRecord;
use onggi_sys::trace;
use serde::{Deserialize, Serialize};

use crate::{
    Engine, EngineError, ProcessHandle, Started, create, failpoint, json,
    launch::{self, Inheritance, Launched},
    process::PidFd,
    run,
};

/// `started.json`: the last start that succeeded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartRecord {
    /// Unix time in nanoseconds.
    pub(crate) started_at: i64,
}

/// The network of a container that is being started; empty for one that has no bridge.
#[derive(Debug, Default)]
struct Attached {
    record: Option<NetworkRecord>,
    netns: Option<OwnedFd>,
    /// Sockets bound to the published ports.
    reserved: Vec<OwnedFd>,
}

/// Who watches a start in the foreground.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// The monitor's end of its stream.
    pub(crate) stream: Option<OwnedFd>,
    /// Columns and rows of its terminal.
    pub(crate) terminal_size: Option<(u16, u16)>,
}

impl Engine {
    /// Starts a stopped container in the background. One that runs already is left as it is. Returns the runtime's
    /// notes: what was kept as it was.
    ///
    /// # Errors
    /// It does not exist or cannot be started.
    pub fn start(&self, name: &str) -> Result<Vec<String>, EngineError> {
        self.start_in_background(&self.find_after_recovery(name)?)
    }

    /// [`Engine::start`] for a container at hand.
    pub(crate) fn start_in_background(&self, record: &ContainerRecord) -> Result<Vec<String>, EngineError> {
        let launched = self.start_with(record, Client::default())?;
        Ok(launched.map_or_else(Vec::new, |l| l.notes))
    }

    /// Starts a stopped container with the caller at its stdio.
    ///
    /// # Errors
    /// As [`Engine::start`], or it runs already.
    pub fn start_attached(&self, name: &str, terminal_size: Option<(u16, u16)>) -> Result<Started, EngineError> {
        let record = self.find_after_recovery(name)?;
        let (stream, client) = run::foreground(terminal_size)?;
        match self.start_with(&record, client)? {
            Some(Launched { pid, notes }) => {
                let process = PidFd::open(pid)?.map(ProcessHandle::new);
                Ok(Started { record, pid, attach: stream, process, owner: true, notes })
            }
            None => self.attach(record.id.as_str()),
        }
    }

    fn find_after_recovery(&self, name: &str) -> Result<ContainerRecord, EngineError> {
        self.recover()?;
        self.find(name)
    }

    /// The new workload; `None` when one runs already.
    fn start_with(&self, record: &ContainerRecord, client: Client) -> Result<Option<Launched>, EngineError> {
        let intent = self.intents()?.wait(record.id.as_str())?;
        let started = match self.process(record)? {
            Some(_) if self.status(&record.id)?.is_paused() => Err(EngineError::WrongState {
                verb: "start",
                name: record.name.to_string(),
                state: "paused",
                hint: "it is started, and stands still: onggi unpause NAME",
            }),
            Some(_) => Ok(None),
            None => {
                // One that ends right now must have let go of everything first.
                self.await_monitor(record)?;
                self.launch_container(record, client).map(Some)
            }
        };
        intent.complete()?;
        started
    }

    /// Network, configuration, monitor; undone as a whole when a step fails. The caller holds the intent.
    pub(crate) fn launch_container(&self, record: &ContainerRecord, client: Client) -> Result<Launched, EngineError> {
        failpoint::hit("start.intent");
        let started = self.try_launch(record, client);
        if let Err(e) = &started {
            self.note_failed_start(&record.id, e);
            self.undo_start(record)?;
        }
        failpoint::hit("start.started");
        started
    }

    fn try_launch(&self, record: &ContainerRecord, client: Client) -> Result<Launched, EngineError> {
        self.prepare_run_dir(record)?;
        let id_block = self.take_id_block(record)?;
        let network = trace::step("engine", || "make the network".into(), || self.attach_network(record, id_block))?;
        trace::step(
            "engine",
            || "write config.json, onggi.json and the files of /etc".into(),
            || self.write_bundle(record, network.record.as_ref(), id_block, client.terminal_size),
        )?;
        // Written before the workload can fill the disk; it counts once it has its name.
        let started = json::prepare(&self.paths.started_file(&record.id), &StartRecord { started_at: create::now() })?;
        failpoint::hit("start.files-written");
        let launched = launch::launch(
            self,
            &record.id,
            Inheritance { client: client.stream, netns: network.netns, reserved: network.reserved },
        )?;
        // Outlives a reboot: without an exit record it then means that the machine took the container with it.
        started.commit()?;
        Ok(launched)
    }

    fn prepare_run_dir(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        let dir = self.paths.run_dir(&record.id);
        match fs::create_dir(&dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(EngineError::MakeDir { path: dir, source });
            }
            _ => {}
        }
        self.forget_reasons(record);
        // How it ended last is first read by those who have waited for that. Without the exit record alone it would have ended with
        // the machine.
        let _read = self.await_readers(&record.id);
        for path in [self.paths.started_file(&record.id), self.paths.exit_file(&record.id)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(EngineError::WriteFile { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the network namespace of a bridged container. The record is on disk before anything of it
    /// exists. Without a bridge the sandbox makes the namespace together with the others.
    fn attach_network(&self, record: &ContainerRecord, id_block: Option<IdBlock>) -> Result<Attached, EngineError> {
        if record.request.network != NetworkMode::Bridge {
            return Ok(Attached::default());
        }
        let request = network_request(record, id_block);
        let plan = onggi_network::prepare(&self.paths.runroot, &request).map_err(|e| self.name_port_owner(e))?;
        let network = plan.record.clone();
        json::write(&self.paths.run_dir(&record.id).join("network.json"), &network)?;
        failpoint::hit("start.network-recorded");
        let applied = onggi_network::apply(&self.paths.runroot, &plan)?;
        failpoint::hit("start.network-applied");
        Ok(Attached { record: network, netns: Some(applied.netns), reserved: applied.reserved })
    }
}

impl Engine {
    /// A taken port is explained with the name of the container that has it: the network knows only its id.
    fn name_port_owner(&self, error: NetworkError) -> EngineError {
        let NetworkError::Plan(PlanError::Port { port, protocol, obstacle: Obstacle::Container(id), .. }) = &error
        else {
            return error.into();
        };
        let owner = self.state().and_then(|state| Ok(state.container_by_id(id)?));
        match owner {
            Ok(Some(owner)) => {
                EngineError::PortTaken { port: *port, protocol: protocol.clone(), container: owner.name.to_string() }
            }
            _ => error.into(),
        }
    }
}

/// What the network needs to know of a container.
pub(crate) fn network_request(record: &ContainerRecord, id_block: Option<IdBlock>) -> BridgeRequest {
    BridgeRequest {
        id: record.id.clone(),
        name: Some(record.name.clone()),
        hostname: record.request.hostname.clone(),
        ports: record.request.ports.clone(),
        sysctls: bridge_sysctls(&record.request, id_block),
    }
}

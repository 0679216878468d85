//! Plans of the verbs that work on containers.

use onggi_network::NetworkRecord;
use onggi_spec::ContainerRequest;
use onggi_state::ContainerRecord;

use super::{RowChange, VerbOp, VerbPlan};
use crate::{Engine, EngineError, ExecRequest, ListFilter, PruneFilter, Status, StopOptions, stop::SIGKILL};

impl Engine {
    /// `stop`.
    ///
    /// # Errors
    /// No such container.
    pub fn explain_stop(&self, name: &str, options: &StopOptions) -> Result<VerbPlan, EngineError> {
        let record = self.find(name)?;
        let mut plan = VerbPlan::new(format!("stop {}", record.name));
        self.add_stop(&record, options, &mut plan)?;
        if record.request.remove && matches!(self.status(&record.id)?, Status::Running { .. }) {
            self.add_erase(&record, &mut plan)?;
        }
        Ok(plan)
    }

    fn add_stop(
        &self,
        record: &ContainerRecord,
        options: &StopOptions,
        plan: &mut VerbPlan,
    ) -> Result<(), EngineError> {
        let Status::Running { pid, .. } = self.status(&record.id)? else {
            plan.note(format!("{} does not run", record.name));
            return Ok(());
        };
        let signal = options.signal.map_or_else(|| self.stop_signal(record), Ok)?;
        plan.push(self.reason(record, "who asked for the end, for `onggi why`", "stop", signal));
        plan.push(VerbOp::Signal { pid, signal });
        self.add_go_on(record, plan)?;
        let seconds = options.patience(&record.request.stop).as_secs();
        let asked = (self.asked_file(record), format!("[{},{}]", asked("stop", signal), asked("stop", SIGKILL)));
        plan.push(VerbOp::WaitThenKill { pid, seconds, asked });
        plan.push(self.awaited(record));
        self.add_release(record, plan)
    }

    fn reason(&self, record: &ContainerRecord, what: &str, verb: &str, signal: i32) -> VerbOp {
        let text = Some(format!("[{}]", asked(verb, signal)));
        VerbOp::Write { path: self.asked_file(record), what: what.to_owned(), text }
    }

    fn asked_file(&self, record: &ContainerRecord) -> std::path::PathBuf {
        self.paths.bundle(&record.id).join("asked.json")
    }

    fn awaited(&self, record: &ContainerRecord) -> VerbOp {
        VerbOp::AwaitMonitor { lock: self.paths.run_dir(&record.id).join("monitor.lock") }
    }

    fn intent(&self, record: &ContainerRecord) -> VerbOp {
        VerbOp::HoldIntent { path: self.paths.runroot.join("intents").join(record.id.as_str()) }
    }

    /// What the one clean-up gives back: network, control groups, files of the run root.
    fn add_release(&self, record: &ContainerRecord, plan: &mut VerbPlan) -> Result<(), EngineError> {
        if let Some(network) = self.network_record(&record.id)? {
            self.add_detach(record, &network, plan);
        }
        if let Some(state) = self.sandbox_state(&record.id)? {
            let mut dirs: Vec<_> = state.cgroup_paths.values().cloned().collect();
            dirs.dedup();
            plan.operations.extend(dirs.into_iter().map(|path| VerbOp::RemoveCgroup { path }));
            plan.push(VerbOp::Remove {
                path: self.paths.oci_root().join(record.id.as_str()),
                what: "the runtime's state".to_owned(),
            });
        }
        let run_dir = self.paths.run_dir(&record.id);
        if run_dir.exists() {
            plan.push(VerbOp::Remove { path: run_dir, what: "what exists while it runs: lock, sockets".to_owned() });
        }
        Ok(())
    }

    fn add_detach(&self, record: &ContainerRecord, network: &NetworkRecord, plan: &mut VerbPlan) {
        let runroot = &self.paths.runroot;
        if !network.ports.is_empty() {
            let path = runroot.join("published").join(format!("{}.json", record.id));
            plan.push(VerbOp::Remove { path, what: "the record of its published ports".to_owned() });
        }
        for port in &network.ports {
            let (set, key) = match port.host_ip.is_unspecified() {
                true => ("published_any", format!("{} . {}", port.protocol, port.host_port)),
                false => ("published", format!("{} . {} . {}", port.host_ip, port.protocol, port.host_port)),
            };
            plan.push(VerbOp::Unpublish { set, key });
        }
        let path = runroot.join("leases/bridge").join(network.ip.to_string());
        plan.push(VerbOp::Remove { path, what: "the lease of its address".to_owned() });
        plan.note(match self.networks_are_shared() {
            true => "its veth pair is deleted, since containers share networks and one may stay in its namespace",
            false => "its network namespace and the veth pair go with its last process",
        });
    }

    /// The last trace: the row, then the disk.
    fn add_erase(&self, record: &ContainerRecord, plan: &mut VerbPlan) -> Result<(), EngineError> {
        plan.push(VerbOp::Row {
            database: self.database(),
            change: RowChange::Delete,
            table: "containers",
            key: ("id", record.id.to_string()),
            what: format!("the container {}", record.name),
            sql: None,
        });
        plan.push(VerbOp::Remove {
            path: self.paths.bundle(&record.id),
            what: "its writable layer, its log, its records".to_owned(),
        });
        if let Some(image) = &record.image_id
            && self.state()?.images_by_id_prefix(image.hex())?.is_empty()
        {
            plan.push(VerbOp::Collect {
                what: "remove layers and blobs that nothing refers to: its image is gone".to_owned(),
            });
        }
        Ok(())
    }

    /// `kill`.
    ///
    /// # Errors
    /// No such container, or it does not run.
    pub fn explain_kill(&self, name: &str, signal: i32) -> Result<VerbPlan, EngineError> {
        let (record, pid) = self.running(name, "kill")?;
        let mut plan = VerbPlan::new(format!("kill {}", record.name));
        plan.push(self.reason(&record, "who sent which signal, for `onggi why`", "kill", signal));
        plan.push(VerbOp::Signal { pid, signal });
        if self.ends_a_pause(&record, signal)? {
            self.add_go_on(&record, &mut plan)?;
        }
        if signal == SIGKILL {
            plan.push(self.awaited(&record));
            self.add_release(&record, &mut plan)?;
            if record.request.remove {
                self.add_erase(&record, &mut plan)?;
            }
        }
        Ok(plan)
    }

    /// A paused container goes on, so that it sees what it was sent.
    fn add_go_on(&self, record: &ContainerRecord, plan: &mut VerbPlan) -> Result<(), EngineError> {
        if self.status(&record.id)?.is_paused() {
            plan.push(self.freezer(record, false));
        }
        Ok(())
    }

    fn freezer(&self, record: &ContainerRecord, stop: bool) -> VerbOp {
        VerbOp::Freeze { oci_root: self.paths.oci_root(), id: record.id.to_string(), stop }
    }

    /// `pause`.
    ///
    /// # Errors
    /// No such container, or it does not run.
    pub fn explain_pause(&self, name: &str) -> Result<VerbPlan, EngineError> {
        self.explain_freezer(name, "pause", false)
    }

    /// `unpause`.
    ///
    /// # Errors
    /// No such container, or it is not paused.
    pub fn explain_unpause(&self, name: &str) -> Result<VerbPlan, EngineError> {
        self.explain_freezer(name, "unpause", true)
    }

    fn explain_freezer(&self, name: &str, verb: &'static str, paused: bool) -> Result<VerbPlan, EngineError> {
        let (record, _) = self.running(name, verb)?;
        let status = self.status(&record.id)?;
        if status.is_paused() != paused {
            let (name, hint) = (record.name.to_string(), "`onggi ps -a` shows the states");
            return Err(EngineError::WrongState { verb, name, state: status.name(), hint });
        }
        let mut plan = VerbPlan::new(format!("{verb} {}", record.name));
        plan.push(self.freezer(&record, !paused));
        Ok(plan)
    }

    fn running(&self, name: &str, verb: &'static str) -> Result<(ContainerRecord, i32), EngineError> {
        let record = self.find(name)?;
        match self.status(&record.id)? {
            Status::Running { pid, .. } => Ok((record, pid)),
            other => Err(EngineError::WrongState {
                verb,
                name: record.name.to_string(),
                state: other.name(),
                hint: "only a running container has a process",
            }),
        }
    }

    /// `rm`.
    ///
    /// # Errors
    /// No such container, or it runs and `force` is false.
    pub fn explain_rm(&self, name: &str, force: bool) -> Result<VerbPlan, EngineError> {
        let record = self.find(name)?;
        let mut plan = VerbPlan::new(format!("rm {}", record.name));
        plan.push(self.intent(&record));
        if let Status::Running { pid, .. } = self.status(&record.id)? {
            if !force {
                return Err(self.still_runs(&record));
            }
            plan.push(VerbOp::Signal { pid, signal: SIGKILL });
            self.add_go_on(&record, &mut plan)?;
            plan.push(self.awaited(&record));
        }
        self.add_release(&record, &mut plan)?;
        self.add_erase(&record, &mut plan)?;
        Ok(plan)
    }

    /// `container prune`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn explain_prune_containers(&self, filter: &PruneFilter) -> Result<VerbPlan, EngineError> {
        let mut plan = VerbPlan::new("remove containers that do not run");
        if !self.has_store() {
            return Ok(plan);
        }
        for container in self.list(&ListFilter { all: true, ..ListFilter::default() })? {
            let record = &container.record;
            let label = |key: &str| record.request.labels.get(key).map(String::as_str);
            if !container.status.is_running() && filter.takes(record.created_at, label) {
                plan.push(self.intent(record));
                self.add_release(record, &mut plan)?;
                self.add_erase(record, &mut plan)?;
            }
        }
        Ok(plan)
    }

    /// `create`: what `run` does before it starts anything.
    ///
    /// # Errors
    /// The request is impossible on this host.
    pub fn explain_create(&self, request: &ContainerRequest) -> Result<VerbPlan, EngineError> {
        let explanation = self.explain(request)?;
        let mut plan = VerbPlan::new(format!("create {}", explanation.container()));
        plan.notes.extend(explanation.notes().iter().cloned());
        plan.operations.extend(explanation.storage().iter().map(|what| VerbOp::Note { what: what.clone() }));
        Ok(plan)
    }

    /// `start`.
    ///
    /// # Errors
    /// No such container, or its request is impossible on this host.
    pub fn explain_start(&self, name: &str) -> Result<VerbPlan, EngineError> {
        let record = self.find(name)?;
        let mut plan = VerbPlan::new(format!("start {}", record.name));
        match self.status(&record.id)? {
            Status::Running { .. } => plan.note(format!("{} runs already", record.name)),
            _ => self.add_start(&record, &mut plan)?,
        }
        Ok(plan)
    }

    fn add_start(&self, record: &ContainerRecord, plan: &mut VerbPlan) -> Result<(), EngineError> {
        plan.push(self.intent(record));
        for name in ["asked.json", "failed.json", "started.json", "exit.json"] {
            let path = self.paths.bundle(&record.id).join(name);
            if path.exists() {
                plan.push(VerbOp::Remove { path, what: "the record of its last end".to_owned() });
            }
        }
        plan.push(VerbOp::MakeDir {
            path: self.paths.run_dir(&record.id),
            what: "what exists while it runs".to_owned(),
        });
        plan.start = Some(Box::new(self.explain_existing(record)?));
        Ok(())
    }

    /// `restart`.
    ///
    /// # Errors
    /// As [`Engine::explain_stop`] and [`Engine::explain_start`].
    pub fn explain_restart(&self, name: &str, options: &StopOptions) -> Result<VerbPlan, EngineError> {
        let record = self.find(name)?;
        let mut plan = VerbPlan::new(format!("restart {}", record.name));
        self.add_stop(&record, options, &mut plan)?;
        self.add_start(&record, &mut plan)?;
        Ok(plan)
    }

    /// `exec`.
    ///
    /// # Errors
    /// The container does not run, or the user is unknown in it.
    pub fn explain_exec(&self, name: &str, request: &ExecRequest) -> Result<VerbPlan, EngineError> {
        let (record, pid) = self.running(name, "exec in")?;
        let process = self.exec_process(&record, request)?;
        let mut plan = VerbPlan::new(format!("exec in {}", record.name));
        let state = self.sandbox_state(&record.id)?;
        let mut dirs: Vec<_> = state.map(|s| s.cgroup_paths.into_values().collect()).unwrap_or_default();
        dirs.dedup();
        for dir in dirs {
            plan.push(VerbOp::JoinGroup { path: dir });
        }
        let kinds = kinds_that_differ(pid);
        let effective = process.capabilities.as_ref().map(|c| c.effective.len()).unwrap_or_default();
        plan.note(format!(
            "then: {effective} effective capabilities, no_new_privs {}, the container's seccomp filter",
            if process.no_new_privileges { "on" } else { "off" }
        ));
        plan.push(VerbOp::Enter {
            pid,
            kinds,
            user: (process.user.uid, process.user.gid),
            cwd: process.cwd.clone(),
            env: process.env.clone(),
            args: process.args.clone(),
        });
        Ok(plan)
    }
}

/// One entry of asked.json between the double quotes of sh.
fn asked(verb: &str, signal: i32) -> String {
    format!(r#"{{\"verb\":\"{verb}\",\"signal\":{signal},\"at\":$(date +%s%N)}}"#)
}

/// Kinds of namespaces in which a process is not with us.
fn kinds_that_differ(pid: i32) -> Vec<String> {
    let link = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let target = pid.to_string();
    ["user", "cgroup", "ipc", "uts", "net", "pid", "time", "mnt"]
        .into_iter()
        .filter(|kind| link(&target, kind).is_some_and(|theirs| Some(theirs) != link("self", kind)))
        .map(str::to_owned)
        .collect()
}

//! `update`: other limits for a container, at once where it runs and from the next start on.
//!
//! The kernel is changed first: what it refuses is not remembered. A process that dies in between leaves a container that
//! has the new limits until it ends.

use onggi_cgroup::UpdatePlan;
use onggi_spec::{
    monitor::SandboxState,
    oci::{build, runtime::LinuxResources},
    resources::Resources,
};
use onggi_state::ContainerRecord;
use onggi_sys::trace;

use crate::{Engine, EngineError, RowChange, VerbOp, VerbPlan, devices, rootfs};

/// What an update comes to.
struct Change {
    record: ContainerRecord,
    /// All limits as they will be.
    merged: Resources,
    /// For the control groups of a container that runs.
    running: Option<(SandboxState, UpdatePlan)>,
}

impl Engine {
    /// Changes limits; what `change` does not name stays as it is. Returns what could not be done, one line each.
    ///
    /// # Errors
    /// No such container, limits that contradict those that it has, or that the kernel refuses: then all are as before.
    pub fn update(&self, name: &str, change: &Resources) -> Result<Vec<String>, EngineError> {
        self.recover()?;
        let intent = self.intents()?.wait(self.find(name)?.id.as_str())?;
        let done = self.to_update(name, change).and_then(|change| self.apply_update(&change));
        intent.complete()?;
        done
    }

    fn apply_update(&self, change: &Change) -> Result<Vec<String>, EngineError> {
        let id = &change.record.id;
        let notes = match &change.running {
            Some((state, plan)) => {
                let apply = || onggi_cgroup::apply_update(plan, &state.cgroup_paths);
                trace::step("cgroup", || format!("write the limits of container {}", id.short()), apply)?.notes
            }
            None => Vec::new(),
        };
        let keep = || {
            let kept = self.state()?.modify_container(id, |c| c.request.resources.clone_from(&change.merged));
            kept.map_err(EngineError::from)
        };
        trace::step("engine", || format!("write the limits of container {} into the database", id.short()), keep)?;
        Ok(notes)
    }

    fn to_update(&self, name: &str, change: &Resources) -> Result<Change, EngineError> {
        let record = self.find(name)?;
        let mut merged = record.request.resources.clone();
        merged.merge(change.clone());
        merged.check()?;
        build::check_possible(change, self.facts()).map_err(EngineError::Build)?;
        let limits = self.new_limits(change, &merged)?;
        let running = match self.living(&record)? {
            Some((_, state)) => {
                let before = self.limits(&record.request.resources)?;
                let path = rootfs::cgroups_path(&record.id);
                let layout = &self.facts().cgroup;
                let (plan, _) = onggi_cgroup::plan_update(layout, &state.cgroup_paths, &path, (&before, &limits))?;
                Some((state, plan))
            }
            None => None,
        };
        Ok(Change { record, merged, running })
    }

    fn limits(&self, resources: &Resources) -> Result<LinuxResources, EngineError> {
        let limits = build::asked_limits(resources, self.facts(), &devices::limited(resources)?);
        limits.map_err(EngineError::Build)
    }

    /// The changed limits. Memory and swap go together: the one is part of the other.
    fn new_limits(&self, change: &Resources, merged: &Resources) -> Result<LinuxResources, EngineError> {
        let mut wanted = change.clone();
        if change.memory.is_some() || change.memory_swap.is_some() {
            (wanted.memory, wanted.memory_swap) = (merged.memory, merged.memory_swap);
        }
        self.limits(&wanted)
    }

    /// What `update` would do.
    ///
    /// # Errors
    /// As [`Engine::update`].
    pub fn explain_update(&self, name: &str, change: &Resources) -> Result<VerbPlan, EngineError> {
        let Change { record, merged, running } = self.to_update(name, change)?;
        let mut plan = VerbPlan { title: format!("change limits of {}", record.name), ..VerbPlan::default() };
        for dir in running.iter().flat_map(|(_, update)| update.enter.values()) {
            plan.push(VerbOp::MakeDir { path: dir.clone(), what: "a control group that the limit needs".to_owned() });
        }
        for write in running.iter().flat_map(|(_, update)| &update.writes) {
            let (path, what) = (write.path.join(&write.file), write.what.clone());
            plan.push(VerbOp::Write { path, what, text: Some(write.value.clone()) });
        }
        plan.push(VerbOp::Row {
            database: self.paths.root.join("state.db"),
            change: RowChange::Put,
            table: "containers",
            key: ("id", record.id.to_string()),
            what: format!("the container {} with its limits", record.name),
            sql: Some(format!(
                "UPDATE containers SET record = json_set(record, '$.request.resources', json('{}')) WHERE id = '{}'",
                // In SQL a quote is doubled; paths of devices are all that could have one.
                serde_json::to_string(&merged).unwrap_or_default().replace('\'', "''"),
                record.id
            )),
        });
        Ok(plan)
    }
}

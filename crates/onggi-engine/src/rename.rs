//! `rename`: another name for a container, whatever it is doing.
//!
//! A name is reserved by the database alone, and nothing else of a container depends on it: one transaction is all of it.

use onggi_spec::ContainerName;
use onggi_state::{ContainerRecord, StateError};
use onggi_sys::trace;

use crate::{Engine, EngineError, RowChange, VerbOp, VerbPlan};

impl Engine {
    /// Gives a container another name, and returns its new record.
    ///
    /// # Errors
    /// No such container, or the name is wrong, its own, or another container's.
    pub fn rename(&self, name: &str, new: &str) -> Result<ContainerRecord, EngineError> {
        self.recover()?;
        let (record, new) = self.to_rename(name, new)?;
        let change = || self.state()?.rename_container(&record.id, &new).map_err(EngineError::from);
        trace::step("engine", || format!("write the name {new} of container {}", record.id.short()), change)
    }

    /// What `rename` would do.
    ///
    /// # Errors
    /// As [`Engine::rename`].
    pub fn explain_rename(&self, name: &str, new: &str) -> Result<VerbPlan, EngineError> {
        let (record, new) = self.to_rename(name, new)?;
        let holder = self.state()?.list_containers()?.into_iter().find(|other| other.name == new);
        if let Some(holder) = holder {
            return Err(StateError::NameTaken { name: new.to_string(), by: holder.id.to_string() }.into());
        }
        let title = format!("rename {} to {new}", record.name);
        let what = format!("the container {}, called {new}", record.id.short());
        // The characters of a name mean nothing to SQL.
        let sql = format!(
            "UPDATE containers SET name = '{new}', record = json_set(record, '$.name', '{new}') WHERE id = '{}'",
            record.id
        );
        let row = VerbOp::Row {
            database: self.paths.root.join("state.db"),
            change: RowChange::Put,
            table: "containers",
            key: ("id", record.id.to_string()),
            what,
            sql: Some(sql),
        };
        Ok(VerbPlan { title, operations: vec![row], ..VerbPlan::default() })
    }

    fn to_rename(&self, name: &str, new: &str) -> Result<(ContainerRecord, ContainerName), EngineError> {
        let new: ContainerName = new.parse()?;
        let record = self.find(name)?;
        match record.name == new {
            true => Err(EngineError::SameName { name: new.to_string() }),
            false => Ok((record, new)),
        }
    }
}

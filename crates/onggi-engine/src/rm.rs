//! `rm`.

use onggi_state::ContainerRecord;
use onggi_sys::trace;

use crate::{Engine, EngineError, failpoint, stop::SIGKILL};

impl Engine {
    /// Removes a container; with `force`, a running one too.
    ///
    /// # Errors
    /// No such container, or it runs and `force` is false.
    pub fn rm(&self, name: &str, force: bool) -> Result<ContainerRecord, EngineError> {
        self.recover()?;
        let record = self.find(name)?;
        let intent = self.intents()?.wait(record.id.as_str())?;
        if let Some(process) = self.process(&record)? {
            if !force {
                intent.complete()?;
                return Err(self.still_runs(&record));
            }
            self.send(&record, &process, SIGKILL)?;
        }
        let monitor = || "wait until the monitor has let go".to_owned();
        trace::step("engine", monitor, || self.await_monitor(&record))?;
        failpoint::hit("remove.intent");
        self.erase(&record.id)?;
        intent.complete()?;
        failpoint::hit("remove.done");
        Ok(record)
    }

    /// Why a container is not removed.
    pub(crate) fn still_runs(&self, record: &ContainerRecord) -> EngineError {
        let paused = self.status(&record.id).is_ok_and(|status| status.is_paused());
        let (state, hint) = match paused {
            true => ("paused", "let it go on and stop it first (onggi unpause NAME; onggi stop NAME), or use rm -f"),
            false => ("running", "stop it first, or use rm -f"),
        };
        EngineError::WrongState { verb: "remove", name: record.name.to_string(), state, hint }
    }
}

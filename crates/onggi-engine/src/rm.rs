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
                let name = record.name.to_string();
                let hint = "stop it first, or use rm -f";
                return Err(EngineError::WrongState { verb: "remove", name, state: "running", hint });
            }
            trace::step("engine", || format!("send signal {SIGKILL}"), || process.signal(SIGKILL))?;
        }
        let monitor = || "wait until the monitor has let go".to_owned();
        trace::step("engine", monitor, || self.await_monitor(&record))?;
        failpoint::hit("remove.intent");
        self.erase(&record.id)?;
        intent.complete()?;
        failpoint::hit("remove.done");
        Ok(record)
    }
}

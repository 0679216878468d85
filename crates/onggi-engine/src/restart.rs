//! `restart`: an end that is not for good. A container of `--rm` outlives it, as with Docker.
//!
//! Whoever cleans up after the end (this process, the client at the container's stdio, the monitor's own command) asks
//! whether the intent `restart-ID` is held. A restart that died leaves it abandoned, and the container ends for good.

use onggi_spec::ContainerId;
use onggi_state::{ContainerRecord, files::Intent};

use crate::{Engine, EngineError, StopOptions};

/// Names of intents of containers that are being restarted.
const RESTART_INTENT: &str = "restart-";

impl Engine {
    /// Stops a container, if it runs, and starts it again in the background. Returns the runtime's notes.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`]. A container of `--rm` that cannot be started again is removed.
    pub fn restart(&self, name: &str, options: &StopOptions) -> Result<Vec<String>, EngineError> {
        self.recover()?;
        let record = self.find(name)?;
        let restarting = self.intents()?.wait(&format!("{RESTART_INTENT}{}", record.id))?;
        let stopped = self.ask_to_end(record.clone(), options).and_then(|stopping| self.finish_stop(stopping));
        // It may have been removed, or have another name by now.
        let notes = stopped.and_then(|old| self.start_in_background(&self.find(old.id.as_str())?));
        restarting.complete()?;
        if notes.is_err() && record.request.remove {
            self.after_exit(&record)?;
        }
        notes
    }

    /// The end of a container is the last one: it goes with it.
    pub(crate) fn ends_for_good(&self, record: &ContainerRecord) -> Result<bool, EngineError> {
        if !record.request.remove {
            return Ok(false);
        }
        match self.intents()?.try_begin(&format!("{RESTART_INTENT}{}", record.id))? {
            Some(free) => {
                free.complete()?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The container of an intent that a restart has left.
    pub(crate) fn restarted(intent: &Intent) -> Option<ContainerId> {
        intent.id().strip_prefix(RESTART_INTENT)?.parse().ok()
    }
}

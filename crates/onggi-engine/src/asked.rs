//! What a container was asked from outside, and how its last start failed: small records beside its exit record, so that
//! an end can be told from a kill. Written as far as a disk allows; never a reason for a verb to fail.
//!
//! ```text
//! <root>/containers/<id>/asked.json    signals since the last start, oldest first, at most MAX_ASKED; room for them is kept
//! <root>/containers/<id>/failed.json   the last start, when it failed
//! ```

use std::fs;

use onggi_spec::{ContainerId, monitor::StartFailure};
use onggi_state::ContainerRecord;
use serde::{Deserialize, Serialize};

use crate::{Engine, EngineError, create, error::chain, json};

/// Requests that are kept; the last ones explain an end.
const MAX_ASKED: usize = 8;

/// A signal that a command of ours sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The command: `stop`, `kill`, `rm -f`, …
    pub(crate) verb: String,
    /// The signal.
    pub(crate) signal: i32,
    /// Unix time in nanoseconds.
    pub(crate) at: i64,
}

/// A start that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedStart {
    /// Unix time in nanoseconds.
    pub(crate) at: i64,
    /// What was said.
    pub(crate) error: String,
    /// What to do about it.
    pub(crate) hint: String,
    /// 125, 126 or 127.
    pub(crate) exit_code: i32,
    /// The step inside the sandbox, if it got that far.
    pub(crate) failure: Option<StartFailure>,
}

impl Engine {
    /// Notes that a signal is being sent.
    pub(crate) fn note_asked(&self, id: &ContainerId, verb: &str, signal: i32) {
        let path = self.paths.bundle(id).join("asked.json");
        let mut list = self.asked(id);
        list.push(Asked { verb: verb.to_owned(), signal, at: create::now() });
        let from = list.len().saturating_sub(MAX_ASKED);
        let list = list[from..].to_vec();
        // A full disk is when somebody kills a container: the file that the start has made has room.
        if let Err(e) = json::write(&path, &list).or_else(|_| json::overwrite(&path, &list)) {
            tracing::debug!("the reason for the end of {} is not kept: {e}", id.short());
        }
    }

    /// The signals sent since the last start, oldest first.
    pub(crate) fn asked(&self, id: &ContainerId) -> Vec<Asked> {
        json::read_optional(&self.paths.bundle(id).join("asked.json")).ok().flatten().unwrap_or_default()
    }

    /// Notes how a start failed.
    pub(crate) fn note_failed_start(&self, id: &ContainerId, error: &EngineError) {
        let failure = match error {
            EngineError::Start(failure) => Some(failure.clone()),
            _ => None,
        };
        let record = FailedStart {
            at: create::now(),
            error: chain(error),
            hint: error.hint().unwrap_or_default(),
            exit_code: error.exit_code(),
            failure,
        };
        if let Err(e) = json::write(&self.paths.bundle(id).join("failed.json"), &record) {
            tracing::debug!("the reason for the failed start of {} is not kept: {e}", id.short());
        }
    }

    /// How the last start failed, if it did.
    pub(crate) fn failed_start(&self, id: &ContainerId) -> Option<FailedStart> {
        json::read_optional(&self.paths.bundle(id).join("failed.json")).ok().flatten()
    }

    /// A new start makes the old reasons history.
    pub(crate) fn forget_reasons(&self, record: &ContainerRecord) {
        let bundle = self.paths.bundle(&record.id);
        // What cannot be removed is older than the start that follows, and is told by its time.
        let _ = fs::remove_file(bundle.join("failed.json"));
        // Nobody asks about a container that is gone; otherwise the file keeps room for what comes.
        let _ = match record.request.remove {
            true => fs::remove_file(bundle.join("asked.json")),
            false => fs::write(bundle.join("asked.json"), "[]"),
        };
    }
}

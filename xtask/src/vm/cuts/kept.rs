//! A machine's state in a file: booting an emulated machine takes longer than everything that happens between two cuts.
//!
//! The guest boots once, prepares what it needs and waits; qemu writes its memory and devices to a file
//! (`migrate`, docs/interop/qmp-intro of qemu). Each further machine begins there. Nothing of the disk that is cut is
//! in that memory: it has never been mounted.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::super::monitor::{self, Monitor};
use crate::Outcome;

/// Some hundred megabytes are written.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often qemu is asked whether it is done.
const PAUSE: Duration = Duration::from_millis(100);

/// Files of a kept machine.
pub(super) struct Kept {
    dir: PathBuf,
}

impl Kept {
    /// In that directory.
    pub(super) fn new(dir: &Path) -> Kept {
        Kept { dir: dir.to_owned() }
    }

    /// The disk that belongs to the memory.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.join("root.raw")
    }

    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("qmp")
    }

    /// For the machine that is to be kept.
    pub(super) fn arguments_to_keep(&self) -> Vec<String> {
        monitor::arguments(&self.socket())
    }

    /// For one that goes on from there.
    pub(super) fn arguments_to_go_on(&self) -> Vec<String> {
        vec!["-incoming".to_owned(), format!("exec:cat '{}'", self.state().display())]
    }

    /// Keeps the machine that runs, and ends it.
    pub(super) fn keep(&self) -> Outcome {
        let mut monitor = Monitor::connect(&self.socket())?;
        // Without this, qemu spares a network.
        monitor.call("migrate-set-parameters", &json!({ "max-bandwidth": 1u64 << 40 }))?;
        monitor.call("migrate", &json!({ "uri": format!("exec:cat >'{}'", self.state().display()) }))?;
        let start = Instant::now();
        loop {
            let answer = monitor.call("query-migrate", &json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => return Err(format!("qemu cannot write its state: {answer}")),
                _ if start.elapsed() > PATIENCE => {
                    return Err(format!("qemu writes its state for {PATIENCE:?}: {answer}"));
                }
                _ => thread::sleep(PAUSE),
            }
        }
        monitor.call("quit", &json!({})).map(drop)
    }

    /// Removes the files.
    pub(super) fn remove(&self) {
        for file in [self.root(), self.state(), self.socket()] {
            // They may not have been made.
            let _ = fs::remove_file(file);
        }
    }
}

//! `--explain` of every verb but `run`: what it would do on this state, operation by operation, without doing it.
//!
//! Each verb has a function that looks (as the verb itself does) and returns a [`VerbPlan`]. Where a part is only known
//! from outside (a registry's manifest), it is asked for; what cannot be known before is said as a note. The plan of a
//! sandbox is [`crate::Explanation`]'s.

mod archives;
mod by_hand;
mod containers;
mod images;
mod op;
mod registries;

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{Engine, Explanation};

pub use op::{RowChange, VerbOp};

/// What a destination without a name is called.
const STDOUT: &str = "standard output";

/// What a verb would do.
#[derive(Debug, Default, Serialize)]
pub struct VerbPlan {
    /// The verb and what it is done to.
    pub title: String,
    /// What is to be known beside the operations.
    pub notes: Vec<String>,
    /// In order.
    pub operations: Vec<VerbOp>,
    /// The start of a container that follows.
    #[serde(skip)]
    pub start: Option<Box<Explanation>>,
}

impl VerbPlan {
    fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn push(&mut self, op: VerbOp) {
        self.operations.push(op);
    }

    /// One line per operation.
    pub fn words(&self) -> String {
        let mut out = format!("{}\n", self.title);
        out.extend(self.notes.iter().map(|note| format!("  note: {note}\n")));
        out.extend(self.operations.iter().map(|op| format!("  {}\n", op.words())));
        if self.operations.is_empty() && self.start.is_none() {
            out.push_str("  nothing is to be done\n");
        }
        if let Some(start) = &self.start {
            out.push_str(&start.words());
        }
        out
    }

    /// The operations as data.
    pub fn json(&self) -> Value {
        let mut value = json!({ "title": self.title, "notes": self.notes, "operations": self.operations });
        if let Some(start) = &self.start {
            value["start"] = start.json();
        }
        value
    }
}

impl Engine {
    fn database(&self) -> PathBuf {
        self.paths.root.join("state.db")
    }

    /// True when there is a store to look into; one that does not exist yet is not made for that.
    fn has_store(&self) -> bool {
        self.database().exists()
    }
}

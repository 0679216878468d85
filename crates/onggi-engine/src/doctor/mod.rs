//! `doctor`: what this host offers to containers, what it lacks, why that matters, and the command that mends it.
//!
//! [`facts`] looks once; [`judge`] is pure, so every finding is tested with facts that no machine of ours has. Nothing is
//! changed, and nothing is made that outlives the call.

mod facts;
mod host;
mod kernel;
mod limits;
mod network;
mod security;

use serde::Serialize;

use crate::Engine;

pub use facts::{DiskFacts, DoctorFacts, IdRange};

/// How good a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something will not work, or not as well.
    Warn,
    /// Containers will not start.
    Fail,
}

impl Level {
    /// `ok`, `warn` or `fail`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// What it belongs to: `kernel`, `cgroups`, …
    pub group: &'static str,
    /// Its name, the same for every host.
    pub name: &'static str,
    /// How good it is.
    pub level: Level,
    /// What is there.
    pub found: String,
    /// What it is good for.
    pub why: &'static str,
    /// The command that mends it; empty when nothing is to be mended.
    pub fix: String,
}

impl Finding {
    fn ok(group: &'static str, name: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Self { group, name, level: Level::Ok, found: found.into(), why, fix: String::new() }
    }

    fn bad(mut self, level: Level, fix: impl Into<String>) -> Self {
        self.level = level;
        self.fix = fix.into();
        self
    }

    fn when(self, wrong: bool, level: Level, fix: impl Into<String>) -> Self {
        if wrong { self.bad(level, fix) } else { self }
    }
}

/// Every finding, in the order in which they are read.
pub fn judge(facts: &DoctorFacts) -> Vec<Finding> {
    let mut out = kernel::judge(facts);
    out.extend(host::cgroups(facts));
    out.extend(host::store(facts));
    out.extend(host::users(facts));
    out.extend(network::judge(facts));
    out.extend(security::judge(facts));
    out.extend(limits::judge(facts));
    out.extend(host::others(facts));
    out
}

impl Engine {
    /// Looks at this host as its caller, or (as root) as an ordinary user would find it.
    pub fn doctor(&self, rootless: bool) -> Vec<Finding> {
        judge(&facts::gather(self, rootless))
    }
}

#[cfg(test)]
mod tests;

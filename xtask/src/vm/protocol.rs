//! What host and guest say to each other.
//!
//! The host writes one [`Job`] to `job.json` on the payload's disk. The guest answers on the second serial line
//! with one JSON object per line, an [`Event`]; whatever else passes on that line is shown as it is.

use serde_json::{Value, json};

use crate::Outcome;

/// One test, as a process of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    /// The test binary, an absolute path on both sides.
    pub(super) binary: String,
    /// Its name as libtest knows it.
    pub(super) name: String,
    /// The package's directory: working directory and `CARGO_MANIFEST_DIR`.
    pub(super) package_dir: String,
}

impl Test {
    /// As people read it: `binary name`.
    pub(super) fn label(&self) -> String {
        let file = self.binary.rsplit('/').next().unwrap_or_default();
        let stem = file.rsplit_once('-').map_or(file, |(stem, _hash)| stem);
        format!("{stem} {}", self.name)
    }
}

/// What the guest is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    /// Run these, report each, check for leaks.
    Tests(Vec<Test>),
    /// Run one command and report its output as it comes.
    Command(Vec<String>),
    /// A shell on the serial line.
    Shell,
}

/// The whole order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// Directories of the payload's tree that appear at these absolute paths.
    pub(super) mounts: Vec<String>,
    /// Environment of what is run.
    pub(super) env: Vec<(String, String)>,
    /// The task.
    pub(super) work: Work,
}

impl Job {
    pub(super) fn to_json(&self) -> Value {
        let work = match &self.work {
            Work::Tests(tests) => {
                let row = |test: &Test| json!([test.binary, test.name, test.package_dir]);
                json!({ "tests": tests.iter().map(row).collect::<Vec<_>>() })
            }
            Work::Command(command) => json!({ "command": command }),
            Work::Shell => json!({ "shell": true }),
        };
        json!({ "mounts": self.mounts, "env": self.env, "work": work })
    }

    pub(super) fn from_json(value: &Value) -> Outcome<Job> {
        let wrong = || "job.json is not what this program writes".to_owned();
        let env = value["env"].as_array().ok_or_else(wrong)?;
        let env = env.iter().map(|pair| Some((text(&pair[0])?, text(&pair[1])?)));
        let work = &value["work"];
        let work = if let Some(rows) = work["tests"].as_array() {
            let test =
                |row: &Value| Some(Test { binary: text(&row[0])?, name: text(&row[1])?, package_dir: text(&row[2])? });
            Work::Tests(rows.iter().map(test).collect::<Option<_>>().ok_or_else(wrong)?)
        } else if work["command"].is_array() {
            Work::Command(texts(&work["command"]).ok_or_else(wrong)?)
        } else {
            Work::Shell
        };
        let mounts = texts(&value["mounts"]).ok_or_else(wrong)?;
        Ok(Job { mounts, env: env.collect::<Option<_>>().ok_or_else(wrong)?, work })
    }
}

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The guest's runner has begun; seconds since its kernel started.
    Ready { uptime: String },
    /// A test has started. It also tells that the guest lives.
    Started { test: String },
    /// A test has ended.
    Ended { test: String, passed: bool, millis: u64, output: String },
    /// Output of a command.
    Output { text: String },
    /// Something that the tests have left behind in the guest.
    Leaked { text: String },
    /// Everything is done; the exit code of a command.
    Done { code: i32 },
}

impl Event {
    pub(super) fn to_line(&self) -> String {
        let value = match self {
            Event::Ready { uptime } => json!({ "ready": uptime }),
            Event::Started { test } => json!({ "started": test }),
            Event::Ended { test, passed, millis, output } => {
                json!({ "ended": test, "passed": passed, "millis": millis, "output": output })
            }
            Event::Output { text } => json!({ "output": text }),
            Event::Leaked { text } => json!({ "leaked": text }),
            Event::Done { code } => json!({ "done": code }),
        };
        format!("{value}\n")
    }

    pub(super) fn from_line(line: &str) -> Option<Event> {
        let value: Value = serde_json::from_str(line.trim()).ok()?;
        if let Some(test) = text(&value["ended"]) {
            let millis = value["millis"].as_u64()?;
            return Some(Event::Ended {
                test,
                passed: value["passed"].as_bool()?,
                millis,
                output: text(&value["output"])?,
            });
        }
        if let Some(code) = value["done"].as_i64() {
            return Some(Event::Done { code: i32::try_from(code).ok()? });
        }
        let text = |key: &str| text(&value[key]);
        let ready = text("ready").map(|uptime| Event::Ready { uptime });
        let started = || text("started").map(|test| Event::Started { test });
        let output = || text("output").map(|text| Event::Output { text });
        let leaked = || text("leaked").map(|text| Event::Leaked { text });
        ready.or_else(started).or_else(output).or_else(leaked)
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let test = Test { binary: "/t/deps/root-12ab".into(), name: "a::vm_b".into(), package_dir: "/p".into() };
        assert_eq!(test.label(), "root a::vm_b");
        for work in [Work::Tests(vec![test]), Work::Command(vec!["ls".into(), "-l".into()]), Work::Shell] {
            let job = Job { mounts: vec!["/t".into()], env: vec![("A".into(), "b".into())], work };
            assert_eq!(Job::from_json(&job.to_json()), Ok(job));
        }
        let events = [
            Event::Ready { uptime: "20.1".into() },
            Event::Started { test: "x".into() },
            Event::Ended { test: "x".into(), passed: false, millis: 7, output: "two\nlines \u{1b}\"".into() },
            Event::Output { text: "o\n".into() },
            Event::Leaked { text: "l".into() },
            Event::Done { code: -1 },
        ];
        for event in events {
            let line = event.to_line();
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(Event::from_line(&line), Some(event));
        }
        assert_eq!(Event::from_line("[   12.0] kernel noise"), None);
    }
}

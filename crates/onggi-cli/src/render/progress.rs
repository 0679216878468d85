//! Progress of a pull or push on stderr: bars when it is a terminal, plain lines otherwise, or JSON. No thread is
//! started: drawing happens in the events.
//!
//! The words are Docker's, and so is the shape of the JSON (its Engine API's): one object a line,
//! `{"status":"Downloading","id":"3f4a9c…","digest":"sha256:…","progressDetail":{"current":1048576,"total":2990000}}`.
//! Objects about no blob have no `id`.

use std::{
    collections::HashMap,
    env,
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use onggi_spec::{
    Digest,
    progress::{Progress, ProgressEvent, Silent},
    quantity::human_size,
};
use serde_json::json;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Bars on a terminal, else lines.
    Auto,
    /// Lines.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing.
    Quiet,
}

/// Draws events on stderr.
pub(crate) struct Draw {
    out: Out,
    pushing: bool,
    by_blob: Mutex<HashMap<Digest, Blob>>,
}

enum Out {
    Bars(MultiProgress),
    Lines,
    Json,
}

#[derive(Default)]
struct Blob {
    status: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
}

/// What an event amounts to.
struct Step {
    status: String,
    blob: Option<Digest>,
    total: Option<u64>,
    done: Option<u64>,
    /// Nothing follows for this blob.
    last: bool,
}

/// Bars are drawn over themselves: stderr is a terminal, of a kind that can (term(7)).
fn can_redraw() -> bool {
    io::stderr().is_terminal() && env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

impl Draw {
    /// Bars or lines, as stderr demands.
    pub(crate) fn new() -> Self {
        let out = if can_redraw() { Out::Bars(MultiProgress::new()) } else { Out::Lines };
        Self { out, pushing: false, by_blob: Mutex::default() }
    }

    /// A pull, as the user wants it shown.
    pub(crate) fn in_mode(mode: Mode) -> Box<dyn Progress> {
        Self::of(mode, false)
    }

    /// A push, as the user wants it shown.
    pub(crate) fn pushing(mode: Mode) -> Box<dyn Progress> {
        Self::of(mode, true)
    }

    fn of(mode: Mode, pushing: bool) -> Box<dyn Progress> {
        let with = |out| Box::new(Self { out, pushing, by_blob: Mutex::default() });
        match mode {
            Mode::Auto => Box::new(Self { pushing, ..Self::new() }),
            Mode::Plain => with(Out::Lines),
            Mode::Json => with(Out::Json),
            Mode::Quiet => Box::new(Silent),
        }
    }

    fn step(&self, event: ProgressEvent) -> Option<Step> {
        let mut blobs = self.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        let mut phase = |digest: Digest, status: &'static str, total: Option<u64>, last: bool| {
            let blob = blobs.entry(digest.clone()).or_default();
            blob.total = total.unwrap_or(blob.total);
            // A layer that is here is not shown as being unpacked too.
            if blob.status == "Already exists" && matches!(status, "Extracting" | "Pull complete") {
                return None;
            }
            if blob.status == status {
                return None;
            }
            blob.status = status;
            Some(Step { status: status.to_owned(), blob: Some(digest), total, done: None, last })
        };
        match event {
            ProgressEvent::Resolved { digest } => Some(Step::note(format!("Digest: {digest}"))),
            ProgressEvent::Retry { reason } => Some(Step::note(format!("Retrying: {reason}"))),
            ProgressEvent::Warning { text } => Some(Step::note(format!("WARNING: {text}"))),
            ProgressEvent::Layer { digest, total } => {
                phase(digest, if self.pushing { "Preparing" } else { "Pulling fs layer" }, Some(total), false)
            }
            ProgressEvent::Waiting { digest } => phase(digest, "Waiting for another process", None, false),
            ProgressEvent::Exists { digest } => {
                phase(digest, if self.pushing { "Layer already exists" } else { "Already exists" }, None, true)
            }
            ProgressEvent::Download { digest, total } => phase(digest, "Downloading", Some(total), false),
            ProgressEvent::Downloaded { digest } => phase(digest, "Download complete", None, false),
            ProgressEvent::Unpacking { digest } => phase(digest, "Extracting", None, false),
            ProgressEvent::Unpacked { digest } => phase(digest, "Pull complete", None, true),
            ProgressEvent::Upload { digest, total } => phase(digest, "Pushing", Some(total), false),
            ProgressEvent::Uploaded { digest } => phase(digest, "Pushed", None, true),
            ProgressEvent::Mounted { digest, from } => {
                let step = phase(digest, "Mounted", None, true);
                step.map(|s| Step { status: format!("Mounted from {from}"), ..s })
            }
            ProgressEvent::Advanced { digest, done } => {
                let blob = blobs.get(&digest)?;
                let (status, total) = (blob.status.to_owned(), Some(blob.total));
                Some(Step { status, blob: Some(digest), total, done: Some(done), last: false })
            }
        }
    }

    fn bar(&self, multi: &MultiProgress, step: &Step, blob: &Digest) {
        let mut blobs = self.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        let known = blobs.entry(blob.clone()).or_default();
        let bar = known.bar.get_or_insert_with(|| {
            let bar = multi.add(ProgressBar::new(0));
            bar.set_prefix(blob.short().to_owned());
            bar.set_style(style(SHORT));
            bar
        });
        match (step.done, step.total) {
            (Some(done), _) => bar.set_position(done),
            (None, Some(total)) if matches!(known.status, "Downloading" | "Pushing") => {
                bar.set_length(total);
                bar.set_style(style(LONG));
                bar.set_message(step.status.clone());
            }
            _ => {
                bar.set_style(style(SHORT));
                match step.last {
                    true => bar.finish_with_message(step.status.clone()),
                    false => bar.set_message(step.status.clone()),
                }
            }
        }
    }
}

impl Step {
    fn note(status: String) -> Self {
        Self { status, blob: None, total: None, done: None, last: true }
    }

    fn line(&self) -> Option<String> {
        let Some(blob) = &self.blob else { return Some(self.status.clone()) };
        let size = match (self.done, self.total, &*self.status) {
            (Some(_), ..) => return None,
            (None, Some(total), "Downloading" | "Pushing") => format!(" {}", human_size(total)),
            _ => String::new(),
        };
        Some(format!("{}: {}{size}", blob.short(), self.status))
    }

    fn json(&self) -> String {
        let Some(blob) = &self.blob else { return json!({ "status": self.status }).to_string() };
        let detail = match (self.done, self.total) {
            (None, None) => json!({}),
            (current, total) => json!({ "current": current.unwrap_or(0), "total": total.unwrap_or(0) }),
        };
        json!({ "status": self.status, "id": blob.short(), "digest": blob, "progressDetail": detail }).to_string()
    }
}

const SHORT: &str = "{prefix}: {msg}";
const LONG: &str = "{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}";

/// Templates are constants; a wrong one falls back to the default bar and a test sees it.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

fn plain(line: &str) {
    // Progress is a courtesy: when nobody can read it, the pull goes on.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl Progress for Draw {
    fn event(&self, event: ProgressEvent) {
        let Some(step) = self.step(event) else { return };
        match (&self.out, &step.blob) {
            (Out::Bars(multi), Some(blob)) => self.bar(multi, &step, blob),
            (Out::Bars(multi), None) => drop(multi.println(&step.status)),
            (Out::Lines, _) => step.line().iter().for_each(|line| plain(line)),
            (Out::Json, _) => plain(&step.json()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(events: &[ProgressEvent]) -> Vec<String> {
        let draw = Draw { out: Out::Lines, pushing: false, by_blob: Mutex::default() };
        events.iter().filter_map(|e| draw.step(e.clone())?.line()).collect()
    }

    fn digest() -> Digest {
        format!("sha256:{}", "ab".repeat(32)).parse().expect("a digest")
    }

    #[test]
    fn the_bar_templates_are_right() {
        for template in [SHORT, LONG] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn lines_are_in_dockers_words() {
        let digest = digest;
        let lines = shown(&[
            ProgressEvent::Layer { digest: digest(), total: 2_000_000 },
            ProgressEvent::Download { digest: digest(), total: 2_000_000 },
            ProgressEvent::Advanced { digest: digest(), done: 1 },
            ProgressEvent::Downloaded { digest: digest() },
            ProgressEvent::Unpacking { digest: digest() },
            ProgressEvent::Unpacked { digest: digest() },
        ]);
        let expected = ["Pulling fs layer", "Downloading 2MB", "Download complete", "Extracting", "Pull complete"];
        assert_eq!(lines, expected.map(|words| format!("abababababab: {words}")));
        let lines = shown(&[
            ProgressEvent::Exists { digest: digest() },
            ProgressEvent::Unpacking { digest: digest() },
            ProgressEvent::Unpacked { digest: digest() },
        ]);
        assert_eq!(lines, ["abababababab: Already exists"]);
    }

    #[test]
    fn json_has_the_shape_of_dockers_api() {
        let draw = Draw { out: Out::Json, pushing: false, by_blob: Mutex::default() };
        let json = |event| draw.step(event).map(|s| s.json()).unwrap_or_default();
        json(ProgressEvent::Download { digest: digest(), total: 10 });
        let line = json(ProgressEvent::Advanced { digest: digest(), done: 4 });
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["progressDetail"], json!({ "current": 4, "total": 10 }));
        assert_eq!((&value["status"], &value["id"]), (&json!("Downloading"), &json!("abababababab")));
    }
}

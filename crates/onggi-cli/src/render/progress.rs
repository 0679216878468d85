//! Progress of a pull: bars when stderr is a terminal, plain lines otherwise. No thread is started: drawing
//! happens in the events.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use onggi_spec::{
    Digest,
    progress::{Progress, ProgressEvent},
};

/// Draws events on stderr.
pub(crate) struct Draw {
    bars: Option<MultiProgress>,
    by_blob: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Draw {
    /// Bars or lines, as stderr demands.
    pub(crate) fn new() -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, by_blob: Mutex::default() }
    }

    fn say(&self, blob: &Digest, what: &str) {
        match &self.bars {
            Some(multi) => self.bar(multi, blob, None).finish_with_message(what.to_owned()),
            None => plain(&format!("{}: {what}", blob.short())),
        }
    }

    /// The bar of a blob, made on first use.
    fn bar(&self, multi: &MultiProgress, blob: &Digest, total: Option<u64>) -> ProgressBar {
        let mut bars = self.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(blob.clone()).or_insert_with(|| {
            let bar = multi.add(ProgressBar::new(0));
            bar.set_prefix(blob.short().to_owned());
            bar.set_style(style("{prefix}: {msg}"));
            bar
        });
        if let Some(total) = total {
            bar.set_length(total);
            bar.set_style(style("{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}"));
        }
        bar.clone()
    }
}

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
        match event {
            ProgressEvent::Resolved { digest } => match &self.bars {
                Some(multi) => drop(multi.println(format!("Digest: {digest}"))),
                None => plain(&format!("Digest: {digest}")),
            },
            ProgressEvent::Exists { digest } => self.say(&digest, "Already exists"),
            ProgressEvent::Download { digest, total } => match &self.bars {
                Some(multi) => self.bar(multi, &digest, Some(total)).set_message("Downloading"),
                None => plain(&format!("{}: Downloading {}", digest.short(), onggi_spec::quantity::human_size(total))),
            },
            ProgressEvent::Advanced { digest, done } => {
                if let Some(multi) = &self.bars {
                    self.bar(multi, &digest, None).set_position(done);
                }
            }
            ProgressEvent::Downloaded { digest } => match &self.bars {
                Some(multi) => {
                    let bar = self.bar(multi, &digest, None);
                    bar.set_style(style("{prefix}: {msg}"));
                    bar.set_message("Download complete");
                }
                None => plain(&format!("{}: Download complete", digest.short())),
            },
            ProgressEvent::Unpacked { digest } => self.say(&digest, "Pull complete"),
            ProgressEvent::Retry { reason } => match &self.bars {
                Some(multi) => drop(multi.println(format!("Retrying: {reason}"))),
                None => plain(&format!("Retrying: {reason}")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_templates_are_right() {
        for template in ["{prefix}: {msg}", "{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}"] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}

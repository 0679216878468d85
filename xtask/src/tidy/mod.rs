//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that the compiler does not check.
//!
//! Each rule is a pure function from text to complaints; this file reads the tracked files and prints.

mod conformance;
mod docs;
mod layers;
mod lexer;
mod sizes;
mod unsafety;
mod words;

use std::fs;

use crate::{
    Outcome,
    process::{cargo, command, read, workspace},
};

/// One tracked text file.
pub(crate) struct Source {
    /// Path from the workspace's root.
    pub(crate) path: String,
    /// Content.
    pub(crate) text: String,
    /// The content with comments, strings and character literals blanked; empty unless it is Rust.
    pub(crate) code: String,
}

impl Source {
    fn new(path: String, text: String) -> Source {
        let code = if path.ends_with(".rs") { lexer::blank(&text) } else { String::new() };
        Source { path, text, code }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Runs every rule.
pub(crate) fn main(_args: &[String]) -> Outcome {
    let sources = tracked_sources()?;
    let mut complaints = layers::check(&read(cargo().args(["metadata", "--format-version", "1", "--locked"]))?)?;
    complaints.extend(unsafety::check(&sources));
    complaints.extend(sizes::check(&sources));
    complaints.extend(docs::module_docs(&sources));
    complaints.extend(docs::cited_paths(&sources, |path| workspace().join(path).exists()));
    complaints.extend(words::check(&sources));
    complaints.extend(conformance::check(&sources));
    for complaint in &complaints {
        println!("{complaint}");
    }
    match complaints.len() {
        0 => {
            println!("tidy: {} files are in order", sources.len());
            Ok(())
        }
        count => Err(format!("{count} complaints")),
    }
}

/// Every text file that git tracks or would track.
fn tracked_sources() -> Outcome<Vec<Source>> {
    let list = read(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut sources = Vec::new();
    for path in list.lines() {
        // Binary files and files that are deleted but still in the index have no text to check.
        if let Ok(text) = fs::read_to_string(workspace().join(path)) {
            sources.push(Source::new(path.to_owned(), text));
        }
    }
    Ok(sources)
}

#[cfg(test)]
pub(crate) fn source(path: &str, text: &str) -> Source {
    Source::new(path.to_owned(), text.to_owned())
}

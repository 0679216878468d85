//! One error type for every textual grammar of this crate: what was being read, the text, why, a hint.

use std::fmt;

/// A text that does not follow its grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What was being read, as a noun: `"port mapping"`.
    pub what: &'static str,
    /// The offending text, cut to at most 128 characters.
    pub text: String,
    /// Why it was refused.
    pub reason: String,
    /// What to write instead; empty when the reason says it all.
    pub hint: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            return write!(f, "invalid {}: {}", self.what, self.reason);
        }
        write!(f, "invalid {} {:?}: {}", self.what, self.text, self.reason)
    }
}

impl std::error::Error for ParseError {}

impl ParseError {
    /// Builds an error; `text` is cut so that hostile input cannot flood a terminal.
    pub fn new(what: &'static str, text: &str, reason: impl Into<String>) -> Self {
        Self { what, text: text.chars().take(128).collect(), reason: reason.into(), hint: String::new() }
    }

    /// Adds the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

//! `process.env` → the environment of the program. config.md "process", environ(7).

use std::collections::BTreeSet;

use crate::error::{Result, StartFailureError};

/// An environment in which every name stands once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Environment {
    /// `KEY=VALUE`, in the order of the configuration.
    pub(super) entries: Vec<String>,
    /// It has a HOME that is not empty.
    pub(super) has_home: bool,
}

/// Checks the entries and removes what is set again later: the last one counts, as in runc. An empty HOME is
/// as good as none, so that it is looked up.
pub(super) fn environment(env: &[String]) -> Result<Environment> {
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(env.len());
    let mut has_home = false;
    for entry in env.iter().rev() {
        let fail = |why: &str| Err(StartFailureError::new(format!("process.env: invalid environment variable: {why}")));
        let Some((name, value)) = entry.split_once('=') else { return fail("missing '='") };
        if name.is_empty() {
            return fail("name cannot be empty");
        }
        if entry.contains('\0') {
            return fail(&format!("{name:?} contains nul byte (\\x00)"));
        }
        if !seen.insert(name) {
            continue;
        }
        if name == "HOME" {
            if value.is_empty() {
                continue;
            }
            has_home = true;
        }
        entries.push(entry.clone());
    }
    entries.reverse();
    Ok(Environment { entries, has_home })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(env: &[&str]) -> Result<Environment> {
        environment(&env.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_of_several_settings_counts_and_stays_where_it_is() {
        let e = of(&["A=1", "B=2", "A=3", "C="]).unwrap();
        assert_eq!(e.entries, ["B=2", "A=3", "C="]);
        assert!(!e.has_home);
    }

    #[test]
    fn an_empty_home_is_none() {
        assert_eq!(of(&["HOME=/a", "HOME="]).unwrap(), Environment { entries: vec![], has_home: false });
        assert_eq!(of(&["HOME=", "HOME=/a"]).unwrap().entries, ["HOME=/a"]);
        assert!(of(&["HOME=/a"]).unwrap().has_home);
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        for (bad, why) in [("A", "missing '='"), ("=x", "name cannot be empty"), ("A=\0", "nul byte")] {
            let error = of(&[bad]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn values_may_hold_anything_else() {
        let e = of(&["A=b=c", "NL=\n", "SP= "]).unwrap();
        assert_eq!(e.entries.len(), 3);
    }
}

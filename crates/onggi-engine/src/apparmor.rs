//! The AppArmor profile of a container: which one it is, and that the kernel has it.
//!
//! The default profile is loaded once per boot, by Debian's parser from a fixed place and from text that is part of
//! this program; nothing is loaded for the start of a later container. Profiles of the administrator are never
//! touched. A profile that was asked for and cannot be had is an error; the default one that cannot be had is a note.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use onggi_spec::{
    ContainerRequest, HostFacts,
    security::{AppArmorChoice, DEFAULT_APPARMOR_PROFILE},
};

use crate::EngineError;

/// The default profile's text (apparmor.d(5)).
const PROFILE: &str = include_str!("onggi-default.apparmor");

/// Names of loaded profiles, one `name (mode)` per line.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Where the parser is looked up: directories that only root can write to.
const PARSERS: [&str; 3] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// What a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Confinement {
    /// `process.apparmorProfile`.
    pub(crate) profile: Option<String>,
    /// Why there is none although AppArmor is on and nobody asked for that.
    pub(crate) note: Option<String>,
}

/// What the kernel says about its profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loaded {
    /// Their names.
    Names(Vec<String>),
    /// The list cannot be read: an ordinary user, or securityfs is not mounted.
    Unknown,
}

/// Decides, and loads the default profile when that is what is missing.
///
/// # Errors
/// A profile was asked for by name and this host has none of that name.
pub(crate) fn prepare(request: &ContainerRequest, facts: &HostFacts) -> Result<Confinement, EngineError> {
    let wanted = &request.security.apparmor;
    if *wanted == AppArmorChoice::Unconfined || (*wanted == AppArmorChoice::Default && !applies(request, facts)) {
        return Ok(Confinement::default());
    }
    let found = match fs::read_to_string(LOADED) {
        Ok(text) => Loaded::Names(names(&text)),
        Err(_) => Loaded::Unknown,
    };
    decide(wanted, facts.apparmor, &found, load_default)
}

/// The same without loading anything, for a plan that is only shown.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn plan(request: &ContainerRequest, facts: &HostFacts) -> Result<Confinement, EngineError> {
    match &request.security.apparmor {
        AppArmorChoice::Default if applies(request, facts) => {
            Ok(Confinement { profile: Some(DEFAULT_APPARMOR_PROFILE.to_owned()), note: None })
        }
        AppArmorChoice::Profile(_) => prepare(request, facts),
        AppArmorChoice::Default | AppArmorChoice::Unconfined => Ok(Confinement::default()),
    }
}

/// Only root can load a profile, and a container without root has no power that this one would take.
fn applies(request: &ContainerRequest, facts: &HostFacts) -> bool {
    facts.apparmor && facts.rootful() && !request.privileged
}

fn decide(
    wanted: &AppArmorChoice,
    enabled: bool,
    loaded: &Loaded,
    load_default: impl FnOnce() -> Result<(), String>,
) -> Result<Confinement, EngineError> {
    let has = |name: &str| matches!(loaded, Loaded::Names(names) if names.iter().any(|n| n == name));
    match wanted {
        AppArmorChoice::Unconfined => Ok(Confinement::default()),
        AppArmorChoice::Profile(name) if !enabled => Err(unavailable(
            name,
            "this kernel runs without AppArmor",
            "leave the option out, or boot with AppArmor enabled (lsm=…,apparmor)",
        )),
        AppArmorChoice::Profile(name) if matches!(loaded, Loaded::Names(_)) && !has(name) => Err(unavailable(
            name,
            "no such profile is loaded",
            "load it with `apparmor_parser -r FILE`; `aa-status` lists the loaded ones",
        )),
        // When the list cannot be read, the kernel itself refuses a name that it does not know.
        AppArmorChoice::Profile(name) => Ok(Confinement { profile: Some(name.clone()), note: None }),
        AppArmorChoice::Default => {
            let ready = if has(DEFAULT_APPARMOR_PROFILE) { Ok(()) } else { load_default() };
            Ok(match ready {
                Ok(()) => Confinement { profile: Some(DEFAULT_APPARMOR_PROFILE.to_owned()), note: None },
                Err(reason) => Confinement {
                    profile: None,
                    note: Some(format!("containers run without an AppArmor profile: {reason}")),
                },
            })
        }
    }
}

fn unavailable(name: &str, reason: &str, hint: &str) -> EngineError {
    let what = format!("the AppArmor profile {name}");
    EngineError::Unsupported { what, reason: reason.to_owned(), hint: hint.to_owned() }
}

/// Gives the text to the parser on its standard input. Loading the same profile twice at the same time is harmless.
fn load_default() -> Result<(), String> {
    let parser = PARSERS.iter().map(Path::new).find(|path| path.is_file()).map(PathBuf::from);
    let parser = parser.ok_or("apparmor_parser is not installed (Debian package apparmor)")?;
    let mut load = Command::new(&parser);
    // Replace if it is there; read and write no cache below /var.
    load.args(["--replace", "--skip-cache", "--quiet"]).env_clear().current_dir("/");
    let failed = |e: std::io::Error| format!("{}: {e}", parser.display());
    let mut child = load.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A parser that ends early says why on its stderr.
        let _ = stdin.write_all(PROFILE.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
    Err(format!("{} cannot load the profile: {}", parser.display(), line.trim()))
}

fn names(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.rsplit_once(" (")).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(list: &[&str]) -> Loaded {
        Loaded::Names(list.iter().map(|name| (*name).to_owned()).collect())
    }

    fn never() -> Result<(), String> {
        panic!("nothing may be loaded");
    }

    #[test]
    fn the_default_profile_is_loaded_once_and_only_once() {
        let wanted = AppArmorChoice::Default;
        let there = decide(&wanted, true, &loaded(&["x", "onggi-default"]), never).unwrap();
        assert_eq!(there.profile.as_deref(), Some("onggi-default"));
        let mut calls = 0;
        let made = decide(&wanted, true, &loaded(&["x"]), || {
            calls += 1;
            Ok(())
        });
        assert_eq!((made.unwrap().profile.as_deref(), calls), (Some("onggi-default"), 1));
    }

    #[test]
    fn a_default_that_cannot_be_had_is_a_note() {
        let failed = decide(&AppArmorChoice::Default, true, &loaded(&[]), || Err("no parser".into())).unwrap();
        assert_eq!(failed.profile, None);
        assert!(failed.note.unwrap().ends_with("without an AppArmor profile: no parser"));
    }

    #[test]
    fn a_profile_that_was_asked_for_and_is_missing_is_an_error_by_name() {
        let wanted = AppArmorChoice::Profile("web".into());
        for (enabled, list) in [(true, loaded(&["webs"])), (false, Loaded::Unknown)] {
            let error = decide(&wanted, enabled, &list, never).unwrap_err();
            assert!(error.to_string().contains("profile web"), "{error}");
            assert!(error.hint().is_some());
        }
        assert_eq!(decide(&wanted, true, &loaded(&["web"]), never).unwrap().profile.as_deref(), Some("web"));
        assert!(decide(&wanted, true, &Loaded::Unknown, never).is_ok());
        assert_eq!(decide(&AppArmorChoice::Unconfined, true, &loaded(&[]), never).unwrap(), Confinement::default());
    }

    #[test]
    fn names_of_profiles_may_have_spaces_and_parentheses() {
        assert_eq!(
            names("/usr/bin/a (enforce)\nb (c) d (complain)\nx//null (kill)\n"),
            ["/usr/bin/a", "b (c) d", "x//null"]
        );
    }
}

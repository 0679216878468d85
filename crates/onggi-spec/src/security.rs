//! `--security-opt`: what a user changes about a container's confinement.
//!
//! Docker's words: `apparmor=PROFILE|unconfined`, `no-new-privileges[=true|false]`, `seccomp=FILE|unconfined|builtin`,
//! with `=` or `:` between key and value. What is not given keeps the default profile. A word that is not known
//! here is an error: leaving a restriction out silently would be weaker than asked.

use serde::{Deserialize, Serialize};

use crate::{ParseError, seccomp_profile::SeccompProfile};

/// The profile that confines containers unless asked otherwise.
pub const DEFAULT_APPARMOR_PROFILE: &str = "onggi-default";

/// Longest name of an AppArmor profile: the kernel's limit of one page, with room for its mode.
const MAX_PROFILE_NAME: usize = 1024;

/// Changes to the default confinement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecurityOptions {
    /// AppArmor.
    #[serde(default)]
    pub apparmor: AppArmorChoice,
    /// no_new_privs; when absent it is on for users other than root.
    #[serde(default)]
    pub no_new_privileges: Option<bool>,
    /// The filter of system calls.
    #[serde(default)]
    pub seccomp: SeccompChoice,
}

/// Which AppArmor profile a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppArmorChoice {
    /// [`DEFAULT_APPARMOR_PROFILE`] where the kernel has AppArmor.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// One that the administrator has loaded.
    Profile(String),
}

/// Which filter of system calls a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompChoice {
    /// The built-in policy.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile in Docker's or the runtime specification's format.
    Profile(Box<SeccompProfile>),
}

/// One `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOpt {
    /// `apparmor=…`
    AppArmor(AppArmorChoice),
    /// `no-new-privileges`
    NoNewPrivileges(bool),
    /// `seccomp=unconfined`
    SeccompUnconfined,
    /// `seccomp=builtin`
    SeccompDefault,
    /// `seccomp=FILE`: the caller reads it.
    SeccompFile(String),
}

/// Reads one option.
///
/// # Errors
/// It is none of the above.
pub fn parse_security_opt(text: &str) -> Result<SecurityOpt, ParseError> {
    let bad = |reason: &str| {
        let hint = "use apparmor=PROFILE|unconfined, seccomp=FILE|unconfined|builtin or no-new-privileges[=true|false]";
        Err(ParseError::new("security option", text, reason).hint(hint))
    };
    let at = text.find(['=', ':']);
    let (key, value) = at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    match (key, value) {
        ("no-new-privileges", None | Some("true")) => Ok(SecurityOpt::NoNewPrivileges(true)),
        ("no-new-privileges", Some("false")) => Ok(SecurityOpt::NoNewPrivileges(false)),
        ("no-new-privileges", Some(_)) => bad("it is true or false"),
        (_, None | Some("")) => bad("a value is missing"),
        ("apparmor", Some("unconfined")) => Ok(SecurityOpt::AppArmor(AppArmorChoice::Unconfined)),
        ("apparmor", Some(name)) if is_profile_name(name) => {
            Ok(SecurityOpt::AppArmor(AppArmorChoice::Profile(name.to_owned())))
        }
        ("apparmor", Some(_)) => bad("this is no name of a profile"),
        ("seccomp", Some("unconfined")) => Ok(SecurityOpt::SeccompUnconfined),
        ("seccomp", Some("builtin")) => Ok(SecurityOpt::SeccompDefault),
        ("seccomp", Some(file)) => Ok(SecurityOpt::SeccompFile(file.to_owned())),
        _ => bad("it is not known"),
    }
}

/// What can be written into `/proc/self/attr` as one word and means one profile.
fn is_profile_name(name: &str) -> bool {
    name.len() <= MAX_PROFILE_NAME && name.chars().all(|c| c.is_ascii_graphic() && c != '"')
}

impl SecurityOptions {
    /// As Docker's `inspect` shows them.
    pub fn words(&self) -> Vec<String> {
        let Self { apparmor, no_new_privileges, seccomp } = self;
        let mut words = Vec::new();
        match apparmor {
            AppArmorChoice::Default => {}
            AppArmorChoice::Unconfined => words.push("apparmor=unconfined".to_owned()),
            AppArmorChoice::Profile(name) => words.push(format!("apparmor={name}")),
        }
        words.extend(no_new_privileges.map(|on| format!("no-new-privileges={on}")));
        match seccomp {
            SeccompChoice::Default => {}
            SeccompChoice::Unconfined => words.push("seccomp=unconfined".to_owned()),
            SeccompChoice::Profile(profile) => {
                // Docker shows the profile's text here.
                words.push(format!("seccomp={}", serde_json::to_string(profile).unwrap_or_default()));
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_spellings_are_understood() {
        let profile = |name: &str| SecurityOpt::AppArmor(AppArmorChoice::Profile(name.into()));
        let table = [
            ("apparmor=unconfined", SecurityOpt::AppArmor(AppArmorChoice::Unconfined)),
            ("apparmor:unconfined", SecurityOpt::AppArmor(AppArmorChoice::Unconfined)),
            ("apparmor=docker-default", profile("docker-default")),
            ("apparmor=a//b", profile("a//b")),
            ("no-new-privileges", SecurityOpt::NoNewPrivileges(true)),
            ("no-new-privileges:true", SecurityOpt::NoNewPrivileges(true)),
            ("no-new-privileges=false", SecurityOpt::NoNewPrivileges(false)),
            ("seccomp=unconfined", SecurityOpt::SeccompUnconfined),
            ("seccomp=builtin", SecurityOpt::SeccompDefault),
            ("seccomp=/a=b:c.json", SecurityOpt::SeccompFile("/a=b:c.json".into())),
        ];
        for (text, wanted) in table {
            assert_eq!(parse_security_opt(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_rather_than_ignored() {
        for text in
            ["", "apparmor", "apparmor=", "apparmor=a b", "apparmor=a\nb", "seccomp=", "no-new-privileges=maybe"]
        {
            assert!(parse_security_opt(text).is_err(), "{text:?}");
        }
        let label = parse_security_opt("label=disable").unwrap_err();
        assert!(label.to_string().contains("label=disable") && label.hint.contains("apparmor=PROFILE"), "{label}");
    }
}

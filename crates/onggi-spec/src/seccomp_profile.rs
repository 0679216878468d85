//! Seccomp profiles as people write them: Docker's format, of which the runtime specification's is a part.
//!
//! Docker's adds conditions on what the container is (its capabilities, the architecture, the kernel), which are
//! decided here, and tables of architectures. [`SeccompProfile::resolve`] gives the policy for one container.

use serde::{Deserialize, Serialize};

use crate::{
    ParseError,
    oci::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall, SeccompAction},
};

/// The only architecture whose system calls the filter compiler knows.
const NATIVE: &str = "SCMP_ARCH_X86_64";

/// A profile file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    default_action: SeccompAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architectures: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arch_map: Option<Vec<Architecture>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener_metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    syscalls: Option<Vec<Rule>>,
}

/// An architecture and those whose programs also run on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    /// The oldest form: one name per rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    action: SeccompAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    includes: Option<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    excludes: Option<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caps: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arches: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_kernel: Option<String>,
}

impl SeccompProfile {
    /// Reads a profile; `path` is for the message.
    ///
    /// # Errors
    /// It is not JSON of this form, or contradicts itself.
    pub fn parse(path: &str, text: &str) -> Result<Self, ParseError> {
        let bad = |reason: String| ParseError::new("seccomp profile", path, reason);
        let profile: Self = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
        if profile.architectures.is_some() && profile.arch_map.is_some() {
            return Err(bad("it has both architectures and archMap".to_owned()));
        }
        for rule in profile.syscalls.iter().flatten() {
            match (&rule.names, &rule.name) {
                (Some(_), Some(name)) => return Err(bad(format!("a rule has both names and the name {name}"))),
                (None, None) => return Err(bad("a rule names no system call".to_owned())),
                _ => {}
            }
        }
        Ok(profile)
    }

    /// The policy for a process with this bounding set (full names) on a kernel of this release.
    pub fn resolve(&self, bounding: &[&str], kernel: &str) -> LinuxSeccomp {
        let rules = self.syscalls.iter().flatten().filter(|rule| rule.applies(bounding, kernel));
        LinuxSeccomp {
            default_action: self.default_action,
            default_errno_ret: self.default_errno_ret,
            architectures: self.architectures(),
            flags: self.flags.clone(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls: rules.map(Rule::to_oci).collect(),
        }
    }

    fn architectures(&self) -> Vec<String> {
        let Some(map) = &self.arch_map else { return self.architectures.clone().unwrap_or_default() };
        let native = map.iter().find(|row| row.architecture == NATIVE);
        let subs = native.and_then(|row| row.sub_architectures.clone()).unwrap_or_default();
        native.map(|_| NATIVE.to_owned()).into_iter().chain(subs).collect()
    }
}

impl Rule {
    /// All of `includes` must hold, and none of `excludes`.
    fn applies(&self, bounding: &[&str], kernel: &str) -> bool {
        let has = |cap: &String| bounding.contains(&cap.as_str());
        let here = |arches: &Vec<String>| arches.iter().any(|a| a == "amd64" || a == "x86_64");
        let included = self.includes.as_ref().is_none_or(|c| {
            c.caps.iter().flatten().all(has)
                && c.arches.as_ref().is_none_or(|arches| arches.is_empty() || here(arches))
                && c.min_kernel.as_ref().is_none_or(|wanted| is_at_least(kernel, wanted))
        });
        let excluded = self.excludes.as_ref().is_some_and(|c| {
            c.caps.iter().flatten().any(has)
                || c.arches.as_ref().is_some_and(here)
                || c.min_kernel.as_ref().is_some_and(|wanted| is_at_least(kernel, wanted))
        });
        included && !excluded
    }

    fn to_oci(&self) -> LinuxSyscall {
        LinuxSyscall {
            names: self.names.clone().unwrap_or_else(|| self.name.iter().cloned().collect()),
            action: self.action,
            errno_ret: self.errno_ret,
            args: self.args.clone().unwrap_or_default(),
        }
    }
}

/// Compares the first two numbers of kernel releases (`6.1.0-50-amd64`, `4.8`).
fn is_at_least(kernel: &str, wanted: &str) -> bool {
    version(kernel) >= version(wanted)
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERS: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] }
        ],
        "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {} },
            { "name": "write", "action": "SCMP_ACT_ALLOW" },
            { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["amd64", "x32"] } },
            { "names": ["s390_runtime_instr"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["s390x"] } },
            { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } }
        ]
    }"#;

    fn names(policy: &LinuxSeccomp) -> Vec<&str> {
        policy.syscalls.iter().flat_map(|s| &s.names).map(String::as_str).collect()
    }

    #[test]
    fn conditions_are_decided_for_the_container() {
        let profile = SeccompProfile::parse("p", DOCKERS).unwrap();
        let plain = profile.resolve(&[], "6.1.0-50-amd64");
        assert_eq!(names(&plain), ["read", "write", "clone", "arch_prctl", "ptrace"]);
        assert_eq!(plain.architectures, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        assert_eq!((plain.default_action, plain.default_errno_ret), (SeccompAction::Errno, Some(1)));
        let admin = profile.resolve(&["CAP_SYS_ADMIN"], "4.4.0");
        assert_eq!(names(&admin), ["read", "write", "mount", "arch_prctl"]);
    }

    #[test]
    fn the_runtimes_own_format_is_taken_as_it_is() {
        let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
            "errnoRet": 13, "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }] }"#;
        let policy = SeccompProfile::parse("p", text).unwrap().resolve(&[], "6.1");
        assert_eq!(policy, serde_json::from_str(text).unwrap());
    }

    #[test]
    fn contradictions_are_errors_that_name_the_file() {
        let both = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "archMap": [] }"#;
        let none = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "action": "SCMP_ACT_ALLOW" }] }"#;
        for text in [both, none, "{}", "", "[]", r#"{ "defaultAction": "SCMP_ACT_NONSENSE" }"#] {
            let error = SeccompProfile::parse("/etc/p.json", text).unwrap_err();
            assert!(error.to_string().contains("/etc/p.json"), "{error}");
        }
    }
}

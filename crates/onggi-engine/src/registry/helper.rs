//! Credential helpers: `docker-credential-<name> get|store|erase` (docker's credential helper protocol).
//!
//! The program is looked up in the PATH of the user's own environment, as Docker does. Names come from the user's
//! configuration files and never from an image. A secret goes through pipes only, never through arguments.

use std::{
    env,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use onggi_image::{Credentials, credential_file::server_key};
use serde::Deserialize;
use serde_json::json;

use super::RegistryError;

/// Largest answer of a helper that is read.
const MAX_ANSWER: u64 = 256 << 10;
/// Longest message of a helper that is shown.
const SHOWN: usize = 256;
/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say when they have nothing for a registry.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// The credentials that a helper has for a registry.
pub(super) fn get(helper: &str, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let output = run(helper, registry, "get", server_key(registry).as_bytes())?;
    if !output.status.success() {
        let said = message(&output);
        if said.contains(NOT_FOUND) {
            return Ok(None);
        }
        return Err(RegistryError::Helper { helper: helper.to_owned(), verb: "get", message: said });
    }
    let malformed = |_| RegistryError::Helper {
        helper: helper.to_owned(),
        verb: "get",
        // The answer holds the secret and is not shown.
        message: "its answer is not the JSON it should be".to_owned(),
    };
    let Answer { username, secret } = serde_json::from_slice(&output.stdout).map_err(malformed)?;
    Ok(match username.as_str() {
        "" if secret.is_empty() => None,
        TOKEN_USER => Some(Credentials::IdentityToken(secret)),
        _ => Some(Credentials::Basic { username, password: secret }),
    })
}

/// Gives a helper credentials to keep.
pub(super) fn store(helper: &str, registry: &str, credentials: &Credentials) -> Result<(), RegistryError> {
    let (username, secret) = match credentials {
        Credentials::Basic { username, password } => (username.as_str(), password),
        Credentials::IdentityToken(token) => (TOKEN_USER, token),
    };
    let input = json!({ "ServerURL": server_key(registry), "Username": username, "Secret": secret });
    succeed(helper, "store", &run(helper, registry, "store", input.to_string().as_bytes())?)
}

/// Has a helper forget what it keeps.
pub(super) fn erase(helper: &str, registry: &str) -> Result<(), RegistryError> {
    let output = run(helper, registry, "erase", server_key(registry).as_bytes())?;
    if message(&output).contains(NOT_FOUND) {
        return Ok(());
    }
    succeed(helper, "erase", &output)
}

fn succeed(helper: &str, verb: &'static str, output: &Output) -> Result<(), RegistryError> {
    if output.status.success() {
        return Ok(());
    }
    Err(RegistryError::Helper { helper: helper.to_owned(), verb, message: message(output) })
}

/// Helpers complain on stdout.
fn message(output: &Output) -> String {
    let bytes = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    String::from_utf8_lossy(bytes).trim().chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

fn run(helper: &str, registry: &str, verb: &'static str, input: &[u8]) -> Result<Output, RegistryError> {
    let program = find(helper, registry)?;
    let fail = |source| RegistryError::RunHelper { program: program.clone(), source };
    let mut command = Command::new(&program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input says why by its exit code.
        let _ = stdin.write_all(input);
    }
    let mut stdout = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(MAX_ANSWER).read_to_end(&mut stdout).map_err(fail)?;
    }
    let status = child.wait().map_err(fail)?;
    Ok(Output { status, stdout, stderr: Vec::new() })
}

/// The program in the caller's PATH; relative entries of it are passed over.
fn find(helper: &str, registry: &str) -> Result<PathBuf, RegistryError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if helper.is_empty() || !helper.bytes().all(plain) {
        return Err(RegistryError::BadHelperName { helper: helper.chars().take(SHOWN).collect() });
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let name = format!("docker-credential-{helper}");
    let runs = |p: &PathBuf| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let found = env::split_paths(&path).filter(|d| d.is_absolute()).map(|d| d.join(&name)).find(runs);
    found.ok_or_else(|| RegistryError::NoHelper { helper: helper.to_owned(), registry: registry.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_a_plain_name() {
        for bad in ["", "../evil", "a/b", "a b", "a\0"] {
            assert!(matches!(find(bad, "r.example"), Err(RegistryError::BadHelperName { .. })), "{bad:?}");
        }
        assert!(matches!(find("surely-not-installed", "r.example"), Err(RegistryError::NoHelper { .. })));
    }
}

//! What a network namespace is called on the command line.

use std::path::{Path, PathBuf};

use onggi_network::hand::{HandOp, NamespaceView, Place, look};

use super::failed;
use crate::{cli::GlobalArgs, commands::subject, error::CliError};

/// Where ip-netns(8) keeps names.
const NAMED: &str = "/run/netns";

/// A place, and what makes it where it is not there yet.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) missing: Option<HandOp>,
}

/// `host`, a process, a file with a slash, a name in /run/netns, a running container. With `create`, a name that is
/// nothing becomes a new one.
pub(super) fn place(text: &str, create: bool, global: &GlobalArgs) -> Result<Found, CliError> {
    let at = |path: PathBuf| Found { place: Place { name: text.to_owned(), path: Some(path) }, missing: None };
    if text == "host" {
        return Ok(Found { place: Place::host(), missing: None });
    }
    if text.contains('/') {
        return match Path::new(text).canonicalize() {
            Ok(path) => Ok(at(path)),
            Err(source) => Err(CliError::ReadFile { path: text.to_owned(), source }),
        };
    }
    let named = Path::new(NAMED).join(text);
    if named.exists() {
        return Ok(at(named));
    }
    match subject::pid(text, global) {
        Ok(pid) => Ok(at(PathBuf::from(format!("/proc/{pid}/ns/net")))),
        Err(_) if create => {
            let missing = Some(HandOp::CreateNamespace { path: named.clone() });
            Ok(Found { missing, ..at(named) })
        }
        Err(_) => Err(CliError::usage(
            format!("there is no network namespace {text}"),
            format!(
                "host, a process number, a running container, a file, or a name of `ip netns list`; --create makes one \
                 called {text}"
            ),
        )),
    }
}

/// The views of places, in their order. What does not exist yet is empty.
pub(super) fn views(found: &[Found]) -> Result<Vec<NamespaceView>, CliError> {
    let there: Vec<Place> = found.iter().filter(|f| f.missing.is_none()).map(|f| f.place.clone()).collect();
    let mut seen = look(&there).map_err(failed)?.into_iter();
    let mut views = Vec::with_capacity(found.len());
    for one in found {
        match &one.missing {
            Some(_) => views.push(NamespaceView::empty(one.place.clone())),
            None => match seen.next().filter(|view| view.place == one.place) {
                Some(view) => views.push(view),
                None => {
                    return Err(CliError::usage(
                        format!("{} is no network namespace that you may enter", one.place.name),
                        "another user's needs root: try sudo",
                    ));
                }
            },
        }
    }
    Ok(views)
}

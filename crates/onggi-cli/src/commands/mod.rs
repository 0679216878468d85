//! One file per command: its arguments and what it prints. Each `run` returns the exit code.

pub(crate) mod attach;
pub(crate) mod caps;
pub(crate) mod cgroup;
pub(crate) mod chroot;
pub(crate) mod cleanup;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod copy;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod df;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod export;
#[cfg(feature = "failpoints")]
pub(crate) mod failpoints;
mod filter;
pub(crate) mod from_binary;
pub(crate) mod history;
pub(crate) mod hold;
pub(crate) mod image;
pub(crate) mod image_mount;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
mod kernel;
pub(crate) mod kill;
pub(crate) mod learn;
pub(crate) mod limit;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod manage;
pub(crate) mod net;
pub(crate) mod ns;
pub(crate) mod overlay;
pub(crate) mod pause;
mod plan;
pub(crate) mod port;
mod ports;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod referrers;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod rootfs;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
mod subject;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod version;
pub(crate) mod wait;
pub(crate) mod why;
pub(crate) mod words;

use crate::{error::CliError, render};

/// Does something to each name and prints its result; a failure is printed and the rest goes on, as Docker.
fn for_each(names: &[String], mut action: impl FnMut(&str) -> Result<String, CliError>) -> Result<u8, CliError> {
    let mut code = 0;
    for name in names {
        match action(name) {
            Ok(line) => render::line(&line)?,
            Err(e @ CliError::Output(_)) => return Err(e),
            Err(e) => {
                e.print();
                code = 1;
            }
        }
    }
    Ok(code)
}

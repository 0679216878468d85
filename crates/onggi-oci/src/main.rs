//! `onggi-oci`: an OCI runtime with runc's command line, and the monitor of one container.
//!
//! Small and static: no argument library, no threads, no async runtime. The two roles share nothing but the
//! sandbox library; `monitor` is dispatched before anything else is looked at.

// The beginning is `onggi_sys::program!`.
#![cfg_attr(not(test), no_main)]

mod cli;
mod monitor;
mod trace;

use std::ffi::OsString;

/// A mask of 0777 is for what the container makes, not for the files by which one call tells the next.
fn keep_own_files_readable() {
    use rustix::{fs::Mode, process::umask};
    let given = umask(Mode::empty());
    umask(given.difference(Mode::RWXU));
}

onggi_sys::program!(run);

fn run() -> i32 {
    keep_own_files_readable();
    trace::install();
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|a| a.to_str()) {
        Some("monitor") => monitor::run(&args[2..]),
        _ => cli::run(&args),
    }
}

//! `onggi`: arguments → engine → text. Everything that a person reads or writes is here, nothing else is.

// The beginning is `onggi_sys::program!`, which knows what std would hide: whether anybody reads what is printed.
#![cfg_attr(not(test), no_main)]

mod candidates;
mod cli;
mod commands;
mod error;
#[cfg(test)]
mod explained;
mod moment;
mod render;
mod request;
mod session;
mod traced;

onggi_sys::program!(run);

/// Exit code of a program that panicked, as std has it; the message is printed already.
const PANICKED: u8 = 101;

fn run() -> i32 {
    i32::from(std::panic::catch_unwind(cli::main).unwrap_or(PANICKED))
}

//! `onggi`: arguments → engine → text. Everything that a person reads or writes is here, nothing else is.

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

fn main() -> std::process::ExitCode {
    cli::main()
}

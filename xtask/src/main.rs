//! `cargo xtask VERB`: everything that a contributor or a CI machine does with this repository.
//!
//! One file per verb. A verb prints the commands that it runs, so that each can be repeated by hand.
//! Nothing here is linked into an installed program, and nothing but `serde_json` is needed to build it.

mod bench;
mod build;
mod check;
mod cve;
mod demo;
mod fuzz;
mod install;
mod leaks;
mod process;
mod setup;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

/// A failure as one sentence for the person at the terminal. A task runner has no caller that would
/// look into an error's structure.
pub(crate) type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "\
usage: cargo xtask VERB

  check                 formatting, lints, dependency policy, tidy, tests that need no root
  test [--long] [--no-setup] [--no-vm] [FILTER]
                        check, then every tier of tests that this machine can run, then a leak check
  test --cve [--debug]  the attacks of known advisories: which are covered, and by what (--debug: on unoptimised programs)
  fuzz [TARGET] [--seconds N]
                        fuzz targets of fuzz/, all or one
  vm [--debug] [-p CRATE] [FILTER] | vm run -- COMMAND | vm shell | vm bench
                        tests, a command or a shell in a virtual machine with systemd, cgroup v2 and AppArmor
  tidy                  the rules of ARCHITECTURE.md that a compiler does not check
  setup                 install what building and testing needs (Debian packages, cargo tools)
  demo                  build both programs and run containers with what the machine already has
  install [--prefix D]  install into D (default /usr/local)
  bench [--rows 1,3] [--samples N]
                        measure against the installed peers, side by side
  bench --syscalls [--samples N]
                        the system calls of one start with the time of each
  bench --hot           write the list of functions of the start path, which the linker puts side by side";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = match args.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("help", [].as_slice()),
    };
    let outcome = match verb {
        "check" => check::main(rest),
        "test" => test::main(rest),
        "tidy" => tidy::main(rest),
        "setup" => setup::main(rest),
        "demo" => demo::main(rest),
        "install" => install::main(rest),
        "bench" => bench::main(rest),
        "fuzz" => fuzz::main(rest),
        "vm" => vm::main(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        // Run inside a container by `demo`: this very program is the server.
        demo::SERVE_VERB => demo::serve(rest),
        // Run inside the virtual machine by `vm`.
        vm::GUEST_VERB => vm::guest_main(rest),
        other => Err(format!("unknown verb {other:?}\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask {verb}: {message}");
            ExitCode::FAILURE
        }
    }
}

//! `cargo xtask vm`: tests on a kernel of their own, with what this machine may lack.
//!
//! A Debian tree with systemd, pure cgroup v2 and AppArmor boots under qemu. The test binaries that were built
//! here, and the programs in their installed layout, go in on a second disk at the paths that they have here;
//! [`guest`] runs them in there, one process each, and reports over a serial line. Nothing is simulated: a test
//! that passes has passed on that kernel. See docs/vm.md.
//!
//! ```text
//! target/test-cache/vm/<recipe>/   rootfs.ext4 vmlinuz initrd     made once; see rootfs.rs
//! target/vm/                       payload.ext4 console.log …     of the last run from this target directory
//! ```

mod bench;
mod cuts;
mod guest;
mod machine;
mod monitor;
mod order;
mod payload;
mod protocol;
mod rootfs;
mod select;

use std::{
    fs::File,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    Outcome, build,
    process::{find, is_root},
    test::Counts,
};

pub(crate) use guest::VERB as GUEST_VERB;
pub(crate) use guest::main as guest_main;

/// What this tier needs and where it comes from: program and Debian package.
const NEEDED: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("busybox", "busybox-static"),
];

const USAGE: &str = "\
usage: cargo xtask vm [--debug] [-p CRATE]… [FILTER…]   run the tests of the VM whose names contain a FILTER
       cargo xtask vm [--debug] run -- COMMAND [ARG…]   run one command in the guest
       cargo xtask vm [--debug] shell                   a shell in the guest, on this terminal
       cargo xtask vm bench [--rows 1,4] [--samples N]  measure the OCI runtimes in the guest (bench/README.md)
       cargo xtask vm cuts [--count N] [--seed N]       kill the guest again and again while its store changes
       cargo xtask vm build                             only make the guest's disk

  --debug   use unoptimised programs: builds faster
  -p CRATE  build and run the tests of these crates only

ONGGI_TEST_PREFIX=DIR in the environment: cuts, run and shell take that installation, below the target directory, and
build nothing";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Verb {
    Tests { filters: Vec<String> },
    Run { command: Vec<String> },
    Shell,
    Bench { options: Vec<String> },
    Cuts { options: Vec<String> },
    Build,
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    verb: Verb,
    debug: bool,
    packages: Vec<String>,
}

/// Runs the verb.
pub(crate) fn main(args: &[String]) -> Outcome {
    let options = parse(args)?;
    if let Some(reason) = unavailable() {
        return Err(format!("the VM cannot run here: {reason}"));
    }
    let prefix = match options.verb {
        Verb::Build => return rootfs::ensure().map(|image| println!("{}", image.dir.display())),
        Verb::Bench { options } => return bench::main(&options),
        Verb::Run { .. } | Verb::Shell | Verb::Cuts { .. } if named_programs().is_some() => {
            named_programs().ok_or("ONGGI_TEST_PREFIX went away")?
        }
        _ if options.debug => debug_programs()?,
        _ => release_programs()?,
    };
    match options.verb {
        Verb::Tests { filters } => {
            let counts = tests(&prefix, &options.packages, &filters)?;
            println!("{counts}");
            counts.outcome()
        }
        Verb::Run { command } => command_in_guest(&prefix, &command),
        Verb::Shell => shell_in_guest(&prefix),
        Verb::Cuts { options } => cuts::main(&prefix, &options),
        Verb::Bench { .. } | Verb::Build => Ok(()),
    }
}

/// Why no VM can be started on this machine; `None` when one can.
pub(crate) fn unavailable() -> Option<String> {
    if !is_root() {
        return Some("it needs root, to make the guest's disk".to_owned());
    }
    if cfg!(not(target_arch = "x86_64")) {
        return Some("the guest is x86-64".to_owned());
    }
    let missing: Vec<&str> = NEEDED.iter().filter(|(program, _)| find(program).is_none()).map(|row| row.1).collect();
    if missing.is_empty() { None } else { Some(format!("Debian packages are missing: {}", missing.join(" "))) }
}

/// Makes the guest's disk before it is needed. A failure shows again, and counts, when the tests want the disk.
pub(crate) fn prepare() {
    if let Err(e) = rootfs::ensure() {
        println!("the guest's disk: {e}");
    }
}

/// Runs the tests of this tier whose names contain one of `filters` (all when there is none).
pub(crate) fn tests(prefix: &Programs, packages: &[String], filters: &[String]) -> Outcome<Counts> {
    let mut clock = Clock::start();
    let mut selected = select::select(packages, filters)?;
    order::longest_first(&mut selected);
    if packages.is_empty() && filters.is_empty() {
        for name in order::gone(&selected) {
            println!("xtask/src/vm/order.rs names a test that is gone: {name}");
        }
    }
    clock.lap("build and list the tests");
    if selected.is_empty() {
        println!("no test of the VM has such a name");
        return Ok(Counts::default());
    }
    let image = rootfs::ensure()?;
    clock.lap("the guest's disk");
    let payload = payload::for_tests(prefix, selected)?;
    clock.lap("the disk with the tests");
    let counts = machine::run_tests(&image, &payload)?;
    clock.lap("boot, tests, power off");
    clock.print();
    Ok(counts)
}

/// The programs under test: `ONGGI_TEST_PREFIX`. Crashes at failpoints are not tested here.
pub(crate) struct Programs {
    /// `bin/onggi`, `libexec/onggi/onggi-oci`.
    pub(crate) prefix: PathBuf,
}

impl Programs {
    fn runtime(&self) -> PathBuf {
        self.prefix.join("libexec/onggi/onggi-oci")
    }
}

/// The layout that [`crate::test`] has built.
pub(crate) fn installed() -> Programs {
    Programs { prefix: build::target_dir().join("dist") }
}

/// An installation that somebody else has made.
fn named_programs() -> Option<Programs> {
    std::env::var_os("ONGGI_TEST_PREFIX").map(|prefix| Programs { prefix: PathBuf::from(prefix) })
}

fn release_programs() -> Outcome<Programs> {
    build::dist()?;
    Ok(installed())
}

fn debug_programs() -> Outcome<Programs> {
    build::debug_dist().map(|prefix| Programs { prefix })
}

fn command_in_guest(prefix: &Programs, command: &[String]) -> Outcome {
    let image = rootfs::ensure()?;
    let payload = payload::for_command(prefix, command)?;
    machine::run_command(&image, &payload).map(drop)
}

fn shell_in_guest(prefix: &Programs) -> Outcome {
    let image = rootfs::ensure()?;
    let payload = payload::for_shell(prefix)?;
    machine::shell(&image, &payload)
}

fn parse(args: &[String]) -> Outcome<Options> {
    let mut options = Options { verb: Verb::Tests { filters: Vec::new() }, debug: false, packages: Vec::new() };
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        match (word.as_str(), &mut options.verb) {
            ("--debug", _) => options.debug = true,
            ("-p" | "--package", _) => options.packages.push(rest.next().ok_or(USAGE)?.clone()),
            ("run" | "--", Verb::Tests { filters }) if filters.is_empty() => {
                let command: Vec<String> = rest.by_ref().skip_while(|word| *word == "--").cloned().collect();
                if command.is_empty() {
                    return Err(USAGE.to_owned());
                }
                options.verb = Verb::Run { command };
            }
            ("bench", Verb::Tests { filters }) if filters.is_empty() => {
                options.verb = Verb::Bench { options: rest.by_ref().cloned().collect() };
            }
            ("cuts", Verb::Tests { filters }) if filters.is_empty() => {
                options.verb = Verb::Cuts { options: rest.by_ref().cloned().collect() };
            }
            ("shell", Verb::Tests { filters }) if filters.is_empty() => options.verb = Verb::Shell,
            ("build", Verb::Tests { filters }) if filters.is_empty() => options.verb = Verb::Build,
            (filter, Verb::Tests { filters }) if !filter.starts_with('-') => filters.push(filter.to_owned()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

/// Names each phase and what it took.
struct Clock {
    since: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn start() -> Clock {
        Clock { since: Instant::now(), laps: Vec::new() }
    }

    fn lap(&mut self, name: &'static str) {
        self.laps.push((name, self.since.elapsed()));
        self.since = Instant::now();
    }

    fn print(&self) {
        for (name, took) in &self.laps {
            println!("  {name:<26} {:>6.1} s", took.as_secs_f64());
        }
    }
}

/// Opens a lock file, making it when it is missing.
fn lock_file(path: &std::path::Path) -> Outcome<File> {
    let open = File::options().create(true).truncate(false).write(true).open(path);
    open.map_err(|e| format!("open lock {}: {e}", path.display()))
}

#[cfg(test)]
mod tests_of_arguments {
    use super::*;

    fn parsed(line: &str) -> Outcome<Options> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_filters_unless_the_first_one_is_a_verb() {
        let plain = parsed("--debug -p onggi-oci oom freeze").unwrap();
        assert_eq!(plain.verb, Verb::Tests { filters: vec!["oom".into(), "freeze".into()] });
        assert!(plain.debug);
        assert_eq!(plain.packages, ["onggi-oci"]);
        assert_eq!(parsed("shell").unwrap().verb, Verb::Shell);
        let bench = Verb::Bench { options: vec!["--rows".into(), "1".into()] };
        assert_eq!(parsed("bench --rows 1").unwrap().verb, bench);
        assert!(parsed("--nonsense").is_err());
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let command = vec!["ls".to_owned(), "-l".to_owned(), "--debug".to_owned()];
        assert_eq!(parsed("run -- ls -l --debug").unwrap().verb, Verb::Run { command: command.clone() });
        assert_eq!(parsed("-- ls -l --debug").unwrap().verb, Verb::Run { command });
        assert!(parsed("run --").is_err());
    }
}

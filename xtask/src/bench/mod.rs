//! `cargo xtask bench`: ours against whichever peers are installed, side by side in one run.
//!
//! All of it happens in private network, mount and pid namespaces, so that no peer's bridge, firewall rule,
//! mount or process touches the machine or outlives the run. Where control groups are hybrid, the v2 mount
//! is taken away in there for every contender, because crun refuses it.

mod cpu;
mod disk;
mod hot;
mod image;
mod large;
mod measure;
mod peers;
mod pulls;
mod pushes;
mod report;
mod rows;
mod runtime;
mod syscalls;
mod tarball;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Outcome,
    build::{self, Static},
    process::{cargo, is_root, run, run_quietly, workspace},
};

/// First argument in a virtual machine ([`crate::vm`]): everything is built already, and the result goes to standard output.
pub(crate) const IN_GUEST: &str = "--in-guest";

/// Set for the second start, inside the namespaces.
const INSIDE: &str = "ONGGI_BENCH_DIR";

/// What the namespaces' PID 1 does: prepares them, runs us again, reaps whoever loses its parent.
const INSIDE_SCRIPT: &str = "
ip link set lo up
umount /sys/fs/cgroup/unified 2>/dev/null
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
sysctl -qw net.ipv4.ip_forward=1
\"$@\"
exit $?";

type Measure = fn(&rows::Bench) -> Outcome<report::Row>;

/// Number, whether engines are needed, function.
const ROWS: &[(u32, bool, Measure)] = &[
    (1, false, rows::runtime_run),
    (2, true, rows::engine_run_without_network),
    (3, true, rows::engine_run_with_bridge),
    (4, false, rows::side_by_side),
    (5, true, rows::memory_per_container),
    (7, true, rows::exec),
    (9, false, pulls::gzip),
    (10, true, pulls::second),
    (16, true, rows::list),
    (18, false, rows::runtime_create),
    (19, false, rows::runtime_start),
    (20, false, rows::runtime_delete),
    (21, false, rows::runtime_state),
    (22, false, rows::runtime_exec),
    (23, false, rows::runtime_memory),
    (24, false, pulls::zstd),
    (25, true, pulls::images),
    (26, false, pushes::push_large),
    (27, true, pushes::commit),
];

/// What is done in the namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Measures rows.
    Rows,
    /// Prints the system calls of the start path.
    Syscalls,
    /// Writes the list of functions of the runtime's start path.
    Hot,
    /// The same of the engine's commands.
    HotEngine,
}

struct Options {
    task: Task,
    rows: Vec<u32>,
    samples: usize,
    containers: usize,
    /// What this is, when it is a guest.
    in_guest: bool,
}

/// Builds, enters the namespaces, measures.
pub(crate) fn main(args: &[String]) -> Outcome {
    let options = parse(args)?;
    if !is_root() {
        return Err("measuring needs root: namespaces, a bridge and Docker's daemon".to_owned());
    }
    if let Some(dir) = std::env::var_os(INSIDE) {
        return measure(&options, Path::new(&dir));
    }
    match options.task {
        _ if options.in_guest => {}
        Task::Rows => drop(build::dist()?),
        // Only the runtime is looked at.
        Task::Syscalls | Task::Hot => drop(build::runtime_dist()?),
        Task::HotEngine => drop(build::dist()?),
    }
    if !options.in_guest && !matches!(options.task, Task::Hot | Task::HotEngine) {
        build_floor()?;
    }
    if options.rows.iter().any(|row| pulls::LARGE.contains(row)) {
        large::layout()?;
    }
    let dir = std::env::temp_dir().join(format!("onggi-bench-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
    let measured = enter(args, &dir);
    let removed = remove_tree(&dir);
    measured.and(removed)
}

fn parse(args: &[String]) -> Outcome<Options> {
    let rows = ROWS.iter().map(|row| row.0).collect();
    let mut options = Options { task: Task::Rows, rows, samples: 30, containers: 200, in_guest: false };
    let mut words = args.iter();
    while let Some(option) = words.next() {
        match option.as_str() {
            "--syscalls" => options.task = Task::Syscalls,
            "--hot" => options.task = Task::Hot,
            "--hot-engine" => options.task = Task::HotEngine,
            IN_GUEST => options.in_guest = true,
            _ => {}
        }
        if matches!(option.as_str(), "--syscalls" | "--hot" | "--hot-engine" | IN_GUEST) {
            continue;
        }
        let value = words.next().ok_or(format!("{option} needs a value"))?;
        let number = || value.parse::<usize>().map_err(|_| format!("{option}: {value:?} is not a number"));
        match option.as_str() {
            "--samples" => options.samples = number()?.max(1),
            "--containers" => options.containers = number()?.max(1),
            "--rows" => options.rows = parse_rows(value)?,
            other => return Err(format!("unknown option {other}")),
        }
    }
    if options.task != Task::Rows {
        options.rows.clear();
    }
    Ok(options)
}

fn parse_rows(list: &str) -> Outcome<Vec<u32>> {
    let known = |number: &u32| ROWS.iter().any(|row| row.0 == *number);
    let parse = |word: &str| word.trim().parse().ok().filter(known).ok_or(format!("there is no row {word:?}"));
    list.split(',').map(parse).collect()
}

/// The floor program, once [`build_floor`] has made it.
pub(crate) fn floor_program() -> PathBuf {
    build::target_dir().join("floor/x86_64-unknown-linux-gnu/release/onggi-floor")
}

/// Reads, inflates, hashes and writes the layers of an image, and nothing else.
fn unpack_floor_program() -> PathBuf {
    floor_program().with_file_name("onggi-unpack-floor")
}

/// Builds the programs of `bench/floor`.
pub(crate) fn build_floor() -> Outcome {
    let mut build = cargo();
    build.args([
        "build",
        "--release",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--manifest-path",
        "bench/floor/Cargo.toml",
    ]);
    build.arg("--target-dir").arg(build::target_dir().join("floor"));
    run(build.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static"))
}

fn enter(args: &[String], dir: &Path) -> Outcome {
    let own = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]);
    unshare.args(["sh", "-c", INSIDE_SCRIPT, "sh"]).arg(own).arg("bench").args(args).env(INSIDE, dir);
    run_quietly(&mut unshare)
}

fn measure(options: &Options, dir: &Path) -> Outcome {
    println!("# onggi bench\n\n{}, {} samples per contender, interleaved", report::machine(), options.samples);
    let dist = build::target_dir().join("dist");
    let floor = floor_program();
    let bench = rows::Bench {
        dir: dir.to_owned(),
        programs: build::Programs { onggi: dist.join("bin/onggi"), onggi_oci: dist.join("libexec/onggi/onggi-oci") },
        floor: floor.is_file().then_some(floor),
        samples: options.samples,
        containers: options.containers,
        image: image::Image::make(dir)?,
        engines: Vec::new(),
        missing: Vec::new(),
    };
    match options.task {
        Task::Rows => measure_rows(options, bench),
        Task::Syscalls => syscalls::table(&bench),
        Task::Hot => hot::record(&bench, Static::Runtime),
        Task::HotEngine => hot::record(&bench, Static::Engine),
    }
}

fn measure_rows(options: &Options, mut bench: rows::Bench) -> Outcome {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for (number, needs_engines, act) in ROWS.iter().filter(|row| options.rows.contains(&row.0)) {
        if *needs_engines && bench.engines.is_empty() {
            bench.start_engines()?;
        }
        match act(&bench) {
            Ok(row) => {
                println!("{}", row.markdown());
                done.push(row);
            }
            Err(why) => failed.push(format!("row {number}: {why}")),
        }
    }
    drop(bench);
    match options.in_guest {
        true => report::print(&done),
        false => report::write(&done)?,
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// Writes the result that a guest has printed.
pub(crate) fn keep_from_guest(output: &str, hardware: bool) -> Outcome {
    let how = if hardware { "with hardware support" } else { "with the processor emulated" };
    report::keep(output, &format!("a qemu guest {how} on {}", report::machine()))
}

/// Peers leave directories behind that need more than one try (they unmount lazily).
fn remove_tree(dir: &Path) -> Outcome {
    run_quietly(Command::new("rm").arg("-rf").arg("--one-file-system").arg(dir).current_dir(workspace()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_have_defaults_and_are_checked() {
        let options = parse(&words("--rows 1,16 --samples 5")).unwrap();
        assert_eq!((options.rows, options.samples, options.containers), (vec![1, 16], 5, 200));
        assert_eq!(parse(&[]).unwrap().rows, [1, 2, 3, 4, 5, 7, 9, 10, 16, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27]);
        assert_eq!(parse(&words("--syscalls --samples 5")).unwrap().task, Task::Syscalls);
        assert_eq!(parse(&words("--hot")).unwrap().task, Task::Hot);
        assert_eq!(parse(&words("--hot-engine")).unwrap().task, Task::HotEngine);
        for bad in ["--rows 6", "--rows", "--samples x", "--what 1"] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }
}

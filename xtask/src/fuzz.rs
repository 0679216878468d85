//! `cargo xtask fuzz`: builds the targets of `fuzz/` with the stable toolchain and runs them.
//!
//! What cargo-fuzz does with `--sanitizer none`, without having to be installed: the compiler's coverage pass,
//! libFuzzer from the `libfuzzer-sys` crate. `fuzz/corpus/TARGET` holds seeds and inputs that once failed; what a
//! run finds besides goes to the target directory, and what fails to `fuzz/artifacts/TARGET`.

use std::{fs, path::PathBuf, sync::Mutex};

use crate::{
    Outcome, build,
    process::{cargo, command, run, workspace},
};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// As cargo-fuzz passes them.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Seconds for one target in `cargo xtask test`, where all together have less than a minute.
pub(crate) const SMOKE_SECONDS: u32 = 5;

/// Seconds for one target when nothing else is said.
const DEFAULT_SECONDS: u32 = 60;

/// Longest input: config.json of large containers has some 20 kB.
const MAX_INPUT: u32 = 65_536;

/// `[TARGET] [--seconds N]`.
pub(crate) fn main(args: &[String]) -> Outcome {
    let usage = || format!("usage: cargo xtask fuzz [TARGET] [--seconds N]; targets: {}", targets().join(" "));
    let (mut seconds, mut wanted) = (DEFAULT_SECONDS, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            seconds = args.next().and_then(|n| n.parse().ok()).ok_or_else(usage)?;
        } else if targets().contains(arg) && wanted.is_none() {
            wanted = Some(arg.clone());
        } else {
            return Err(usage());
        }
    }
    build_targets()?;
    match wanted {
        Some(target) => fuzz(&target, seconds),
        None => all(seconds),
    }
}

/// Builds all targets and runs each for a moment: what is committed as a seed never fails again.
pub(crate) fn smoke() -> Outcome {
    build_targets()?;
    all(SMOKE_SECONDS)
}

/// One fuzzer per processor at a time; each is a single thread.
fn all(seconds: u32) -> Outcome {
    let waiting = Mutex::new(targets().into_iter());
    let failed = Mutex::new(Vec::new());
    let next = || waiting.lock().ok().and_then(|mut targets| targets.next());
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                while let Some(target) = next() {
                    if let (Err(e), Ok(mut failed)) = (fuzz(&target, seconds), failed.lock()) {
                        failed.push(e);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().map_err(|_| "a fuzzing thread panicked")?;
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// One file per target in `fuzz/fuzz_targets`.
fn targets() -> Vec<String> {
    let entries = fs::read_dir(workspace().join("fuzz/fuzz_targets")).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn target_dir() -> PathBuf {
    build::target_dir().join("fuzz")
}

/// Builds all targets; `cargo xtask test` does so while it builds the programs.
pub(crate) fn build_targets() -> Outcome {
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--release", "--target", TRIPLE, "--manifest-path"]);
    build.arg(workspace().join("fuzz/Cargo.toml")).arg("--target-dir").arg(target_dir());
    run(&mut build::giving_way(build.env("RUSTFLAGS", FLAGS)))
}

fn fuzz(target: &str, seconds: u32) -> Outcome {
    let found = target_dir().join("corpus").join(target);
    let artifacts = workspace().join("fuzz/artifacts").join(target);
    for dir in [&found, &artifacts] {
        fs::create_dir_all(dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
    }
    let mut fuzzer = command(target_dir().join(TRIPLE).join("release").join(target));
    fuzzer.args([format!("-max_total_time={seconds}"), format!("-max_len={MAX_INPUT}")]);
    fuzzer.args(["-rss_limit_mb=1024", "-timeout=20", "-verbosity=0", "-print_final_stats=1"]);
    fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzzer.arg(&found).arg(workspace().join("fuzz/corpus").join(target));
    let kept = format!("fuzz/corpus/{target}");
    run(&mut fuzzer).map_err(|e| {
        format!("{target}: {e}\nhint: mend it, then keep the input of {} as a seed in {kept}", artifacts.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_and_has_seeds() {
        let manifest = fs::read_to_string(workspace().join("fuzz/Cargo.toml")).expect("read fuzz/Cargo.toml");
        let list = targets();
        assert!(!list.is_empty());
        for target in list {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
            let seeds = fs::read_dir(workspace().join("fuzz/corpus").join(&target)).expect("a corpus").count();
            assert!(seeds > 0, "{target} has no seeds");
        }
    }
}

//! `cargo xtask vm bench`: the rows of the OCI runtimes on the guest's kernel, as a second machine.
//!
//! The guest has pure cgroup v2, another kernel and Debian's crun and runc. Without hardware support everything is
//! emulated: times are long and CPU-bound work is dearer against the kernel's than on a real machine, so the figures
//! stand for themselves and not beside those of another machine. The result is written here, because the guest's
//! disk goes away; the environment in it says that it was a virtual machine.

use super::{machine, payload, rootfs};
use crate::{Outcome, bench, build};

/// What is measured unless rows are named: peak memory needs a program that the guest lacks.
const ROWS: &str = "1,4,18,19,20,21,22";
/// One run takes a quarter of a second under emulation.
const SAMPLES: &str = "15";

/// Builds, boots, measures, writes the result.
pub(super) fn main(options: &[String]) -> Outcome {
    build::runtime_dist()?;
    bench::build_floor()?;
    let given = |name: &str| options.iter().any(|word| word == name);
    let mut command: Vec<String> = ["env", &format!("CARGO_TARGET_DIR={}", build::target_dir().display())]
        .into_iter()
        .chain([payload::RUNNER, "bench", bench::IN_GUEST])
        .map(str::to_owned)
        .collect();
    for (name, value) in [("--rows", ROWS), ("--samples", SAMPLES)] {
        if !given(name) {
            command.extend([name.to_owned(), value.to_owned()]);
        }
    }
    command.extend_from_slice(options);
    let image = rootfs::ensure()?;
    let programs = super::installed();
    let payload = payload::for_bench(&programs, &command, bench::floor_program())?;
    let text = machine::run_command(&image, &payload)?;
    bench::keep_from_guest(&text, machine::kvm_works(&image))
}

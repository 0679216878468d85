//! `cargo xtask vm cuts`: a machine that is killed at any moment while its store changes.
//!
//! In each round the guest boots with a disk that stays, whose journal is replayed; what was acknowledged before
//! the last cut must be there and whole. Then it imports, creates, commits, saves, removes, loads and prunes
//! (`cuts.sh`), until this side kills qemu, some moment of the following half minute. What the guest's kernel had not
//! written yet is gone then; caches of a disk, which a real cut takes too, are what `tests/tests/e2e/power.rs` cuts.

use std::{collections::BTreeSet, fs::File, path::Path, process::Command, time::Duration};

use super::{Programs, machine, payload, rootfs};
use crate::{
    Outcome, build,
    process::{run_quietly, workspace},
};

/// Rounds unless a number is given; each takes about a minute where the processor is emulated.
const ROUNDS: usize = 20;
/// Latest moment of a cut after the first change, milliseconds: under emulation a turn of the script takes some seconds.
const LATEST: u64 = 30_000;
/// XFS wants 300 MiB; the file is sparse.
const DISK_BYTES: u64 = 512 << 20;

/// File systems, each for its share of the rounds.
const KINDS: [&[&str]; 2] = [&["mkfs.ext4", "-q", "-F"], &["mkfs.xfs", "-q", "-f"]];

/// How often and by which seed.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    rounds: usize,
    seed: u64,
}

/// Cuts, looks, and says what was lost.
pub(super) fn main(programs: &Programs, options: &[String]) -> Outcome {
    let wish = parse(options)?;
    let image = rootfs::ensure()?;
    let disk = build::target_dir().join("vm/cuts.raw");
    let mut random = Random(wish.seed);
    for (number, mkfs) in KINDS.iter().enumerate() {
        make_disk(programs, &disk, mkfs)?;
        let mut known = Known::default();
        // The last boot only looks.
        for round in 0..=wish.rounds.div_ceil(KINDS.len()) {
            let after = Duration::from_millis(random.below(LATEST));
            let label = format!("{}, boot {round}, {} images expected", mkfs[0], known.present.len());
            let id = format!("{number}-{round}");
            let payload = payload::for_command(programs, &known.command(&id))?.with_data(&disk);
            let said = machine::cut(&image, &payload, BEGIN, after)?;
            if let Some(lost) = said.lines().find(|line| line.starts_with("cuts: LOST")) {
                return Err(format!("{label}: {lost}\nseed {}; the disk is {}\n{said}", wish.seed, disk.display()));
            }
            if !said.contains(BEGIN) {
                return Err(format!("{label}: the guest did not come to its work\n{said}"));
            }
            said.lines().for_each(|line| known.hear(line));
            println!("{label}: all there; cut after {after:.1?}, {} acknowledged", said.matches("cuts: + ").count());
        }
    }
    std::fs::remove_file(&disk).map_err(|e| format!("remove {}: {e}", disk.display()))?;
    println!("{} cuts, nothing lost, no file without content", 2 * wish.rounds.div_ceil(KINDS.len()));
    Ok(())
}

/// The script says it when it begins to change the store.
const BEGIN: &str = "cuts: begin";

fn parse(options: &[String]) -> Outcome<Wish> {
    let mut wish = Wish { rounds: ROUNDS, seed: 1 };
    let usage = "usage: cargo xtask vm cuts [--count N] [--seed N]";
    for pair in options.chunks(2) {
        let [name, value] = pair else { return Err(usage.to_owned()) };
        match (name.as_str(), value.parse::<u64>()) {
            ("--count", Ok(n @ 1..=10_000)) => wish.rounds = usize::try_from(n).map_err(|e| e.to_string())?,
            ("--seed", Ok(n)) => wish.seed = n,
            _ => return Err(usage.to_owned()),
        }
    }
    Ok(wish)
}

fn make_disk(programs: &Programs, disk: &Path, mkfs: &[&str]) -> Outcome {
    // No guest of this target directory may have it: the lock comes with a payload.
    let _payload = payload::for_shell(programs)?;
    let file = File::create(disk).map_err(|e| format!("create {}: {e}", disk.display()))?;
    file.set_len(DISK_BYTES).map_err(|e| format!("size {}: {e}", disk.display()))?;
    run_quietly(Command::new(mkfs[0]).args(&mkfs[1..]).arg(disk))
}

/// What the guest has acknowledged.
#[derive(Default)]
struct Known {
    present: BTreeSet<String>,
}

impl Known {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["cuts:", "+", name] => drop(self.present.insert(name.to_owned())),
            ["cuts:", "-", "*"] => self.present.clear(),
            ["cuts:", "-", name] => drop(self.present.remove(name)),
            _ => {}
        }
    }

    fn command(&self, round: &str) -> Vec<String> {
        let script = workspace().join("xtask/src/vm/cuts.sh").display().to_string();
        ["sh".to_owned(), script, round.to_owned()].into_iter().chain(self.present.iter().cloned()).collect()
    }
}

/// A small generator: a failure repeats as far as time does.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_acknowledged_is_expected_until_its_removal_begins() {
        let mut known = Known::default();
        for line in ["cuts: + a0-1", "noise", "cuts: + b0-1", "cuts: - a0-1", "cuts: looked 3 images"] {
            known.hear(line);
        }
        assert_eq!(known.command("r")[2..], ["r", "b0-1"]);
        known.hear("cuts: - *");
        assert!(known.present.is_empty());
    }

    #[test]
    fn count_and_seed_are_numbers() {
        let parsed = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parsed("--count 4 --seed 9"), Ok(Wish { rounds: 4, seed: 9 }));
        assert_eq!(parsed(""), Ok(Wish { rounds: ROUNDS, seed: 1 }));
        assert!(parsed("--count 0").is_err() && parsed("--count").is_err() && parsed("x 1").is_err());
    }
}

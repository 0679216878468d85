//! `cargo xtask vm cuts`: a machine that is killed at any moment while its store changes.
//!
//! ```text
//! target/vm/cuts/disk.raw    what is cut (disk.rs); stays when something is lost
//! target/vm/cuts/orders.raw  what the two sides say to each other (orders.rs)
//! target/vm/cuts/state …     the machine before its first look at the disk (kept.rs)
//! ```
//! In each round the guest (`guest.sh`) mounts the disk, which replays the journal, and looks: what was acknowledged before
//! the last cut must be there and whole. Then it pulls, imports, loads, creates, commits, tags, removes and prunes,
//! until this side kills qemu, some moment of the following seconds. What the guest's kernel had not written is gone
//! then, and of what it had written since its last flush, none, some or all. `tests/tests/e2e/power.rs` cuts the power of
//! a recorded disk.

mod disk;
mod kept;
mod orders;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use self::{
    disk::{Disk, Survival},
    kept::Kept,
    orders::Known,
};
use super::{
    Programs, machine,
    payload::{self, Extra, Payload},
    rootfs,
};
use crate::{
    Outcome, build,
    process::{command, find, run_quietly, workspace},
};

/// Rounds unless a number is given; each takes about half a minute where the processor is emulated.
const ROUNDS: usize = 20;
/// Latest moment of a cut after the first change, milliseconds: under emulation a command takes up to some seconds.
const LATEST: u64 = 12_000;
/// XFS wants 300 MiB; the file is sparse.
const DISK_BYTES: u64 = 512 << 20;
/// After how many cuts everything is removed and nothing may be left.
const SWEEP: usize = 5;

/// File systems, each for its share of the rounds.
const KINDS: [&[&str]; 2] = [&["mkfs.ext4", "-q", "-F"], &["mkfs.xfs", "-q", "-f"]];

/// The guest's script waits for an order then.
const READY: &str = "cuts: ready";
/// It begins to change the store then.
const BEGIN: &str = "cuts: begin";

/// How often, by which seed, whether each machine boots, and whether the disk forgets to flush: that must be found.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    rounds: usize,
    seed: u64,
    cold: bool,
    lying: bool,
}

/// Cuts, looks, and says what was lost.
pub(super) fn main(programs: &Programs, options: &[String]) -> Outcome {
    let wish = parse(options)?;
    let registry = find("docker-registry").ok_or("docker-registry is missing (Debian package docker-registry)")?;
    let image = rootfs::ensure()?;
    let script = workspace().join("xtask/src/vm/cuts/guest.sh").display().to_string();
    let payload = payload::for_command_with(programs, &["sh".to_owned(), script], &[registry])?;
    let dir = build::target_dir().join("vm/cuts");
    fs::create_dir_all(&dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
    let kept = (!wish.cold).then(|| Kept::new(&dir));
    let mut bench =
        Bench { image, payload, dir, kept, lying: wish.lying, random: Random(wish.seed), tally: Tally::default() };
    bench.keep()?;
    let each = wish.rounds.div_ceil(KINDS.len());
    for mkfs in KINDS {
        bench
            .rounds(mkfs, each)
            .map_err(|e| format!("{e}\nseed {}; the disk is {}", wish.seed, bench.disk().display()))?;
    }
    bench.clean();
    println!(
        "{} cuts, half of them on ext4 and half on XFS: nothing lost, no file without content",
        each * KINDS.len()
    );
    println!("{}", bench.tally);
    Ok(())
}

/// Everything that a round needs.
struct Bench {
    image: rootfs::Image,
    payload: Payload,
    dir: PathBuf,
    kept: Option<Kept>,
    lying: bool,
    random: Random,
    tally: Tally,
}

impl Bench {
    fn disk(&self) -> PathBuf {
        self.dir.join("disk.raw")
    }

    fn orders(&self) -> PathBuf {
        self.dir.join("orders.raw")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("disk.sock")
    }

    fn drives(&self) -> Vec<String> {
        let socket = format!("file.driver=nbd,file.server.type=unix,file.server.path={}", self.socket().display());
        let written = "format=raw,if=virtio,cache=writeback";
        vec![format!("{socket},{written}"), format!("file={},{written}", self.orders().display())]
    }

    /// Boots once and keeps the machine as it is when it is ready.
    fn keep(&mut self) -> Outcome {
        let Some(kept) = &self.kept else {
            self.payload.extra = Extra { drives: self.drives(), ..Extra::default() };
            return Ok(());
        };
        let start = Instant::now();
        // A copy with holes: the guest goes on writing to it until its state is complete.
        let source = self.image.dir.join("rootfs.ext4");
        run_quietly(command("cp").arg("--sparse=always").arg(source).arg(kept.root()))?;
        sparse_file(&self.disk())?;
        orders::write(&self.orders(), "")?;
        let served = disk::serve(Disk::open(&self.disk(), self.lying)?, &self.socket())?;
        let (drives, root) = (self.drives(), Some(kept.root()));
        let arguments = kept.arguments_to_keep();
        self.payload.extra = Extra { drives: drives.clone(), root: root.clone(), lasting: true, arguments };
        machine::when(&self.image, &self.payload, READY, || kept.keep())?;
        served.end()?;
        self.payload.extra = Extra { drives, root, lasting: false, arguments: kept.arguments_to_go_on() };
        println!("the machine is ready after {:.0} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    fn rounds(&mut self, mkfs: &[&str], rounds: usize) -> Outcome {
        sparse_file(&self.disk())?;
        run_quietly(Command::new(mkfs[0]).args(&mkfs[1..]).arg(self.disk()))?;
        let mut known = Known::default();
        // The last one only looks.
        for round in 0..=rounds {
            let after = Duration::from_millis(if round < rounds { 1 + self.random.below(LATEST) } else { 0 });
            let label = format!("{} {round}", mkfs[0].trim_start_matches("mkfs."));
            self.round(&label, after, round > 0 && round % SWEEP == 0, &mut known)?;
        }
        Ok(())
    }

    /// Looks at what the last cut left, changes it, cuts.
    fn round(&mut self, label: &str, after: Duration, sweep: bool, known: &mut Known) -> Outcome {
        let start = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let sweep = if sweep { "sweep" } else { "keep" };
        let expected = known.present.len();
        let order = format!("go {} {now} {sweep} {}\n", self.random.below(1 << 30), known.words().join(" "));
        orders::write(&self.orders(), &order)?;
        let served = disk::serve(Disk::open(&self.disk(), self.lying)?, &self.socket())?;
        let said = machine::cut(&self.image, &self.payload, BEGIN, after);
        let mut disk = served.end()?;
        let said = said?;
        let log = orders::log(&self.orders())?;
        if !said.contains(BEGIN) || said.contains("cuts: LOST") {
            return Err(format!("{label}: {order}{said}\nthe guest's log:\n{}", log.join("\n")));
        }
        known.last = None;
        let acknowledged = log.iter().filter(|line| known.hear(line)).count();
        let survival = [Survival::None, Survival::Some, Survival::All][self.random.below(3) as usize];
        let (blocks, lost) = disk.cut(survival, &mut self.random)?;
        let last = known.last.clone().unwrap_or_else(|| "no command".to_owned());
        println!(
            "{label}: {expected} images expected and whole; cut {after:.1?} later during {last}, {acknowledged} acknowledged, \
             {lost} of {blocks} blocks in the disk's cache lost; {:.0} s",
            start.elapsed().as_secs_f64()
        );
        self.tally.images += expected;
        if !after.is_zero() {
            self.tally.count(&last, blocks, lost);
        }
        Ok(())
    }

    fn clean(&self) {
        for file in [self.disk(), self.orders()] {
            // They are only in the way.
            let _ = fs::remove_file(file);
        }
        if let Some(kept) = &self.kept {
            kept.remove();
        }
    }
}

/// What the cuts came to.
#[derive(Default)]
struct Tally {
    during: BTreeMap<String, usize>,
    images: usize,
    blocks: usize,
    lost: usize,
}

impl Tally {
    fn count(&mut self, during: &str, blocks: usize, lost: usize) {
        *self.during.entry(during.to_owned()).or_default() += 1;
        self.blocks += blocks;
        self.lost += lost;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let during: Vec<String> = self.during.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "under way: {}", during.join(", "))?;
        write!(
            f,
            "images found whole: {}; {} of {} blocks in the disk's cache lost",
            self.images, self.lost, self.blocks
        )
    }
}

fn parse(options: &[String]) -> Outcome<Wish> {
    let usage = || "usage: cargo xtask vm cuts [--count N] [--seed N] [--cold] [--lying]".to_owned();
    let mut wish = Wish { rounds: ROUNDS, seed: 1, cold: false, lying: false };
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok()).ok_or_else(usage);
        match word.as_str() {
            "--cold" => wish.cold = true,
            "--lying" => wish.lying = true,
            "--seed" => wish.seed = number()?,
            "--count" => match number()? {
                count @ 1..=10_000 => wish.rounds = usize::try_from(count).map_err(|e| e.to_string())?,
                _ => return Err(usage()),
            },
            _ => return Err(usage()),
        }
    }
    Ok(wish)
}

fn sparse_file(path: &Path) -> Outcome {
    let file = File::create(path).map_err(|e| format!("create {}: {e}", path.display()))?;
    file.set_len(DISK_BYTES).map_err(|e| format!("size {}: {e}", path.display()))
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
    fn count_and_seed_are_numbers() {
        let parsed = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            parsed("--count 4 --seed 9 --cold --lying"),
            Ok(Wish { rounds: 4, seed: 9, cold: true, lying: true })
        );
        assert_eq!(parsed(""), Ok(Wish { rounds: ROUNDS, seed: 1, cold: false, lying: false }));
        assert!(parsed("--count 0").is_err() && parsed("--count").is_err() && parsed("x 1").is_err());
    }
}

//! `cargo xtask vm cuts`: a machine that is killed at any moment while its store changes.
//!
//! ```text
//! target/vm/cuts/disk.raw    what is cut (disk.rs); stays when something is lost
//! target/vm/cuts/orders.raw  what the two sides say to each other (orders.rs)
//! target/vm/cuts/state …     the machine before its first look at the disk (kept.rs)
//! ```
//! In each round the guest (`guest.sh`) mounts the disk, which replays the journal, and looks: what was acknowledged before
//! the last cut must be there and whole. Then it changes the store and comes to the operation whose turn it is (a pull, an
//! import, a load, a create, a commit, a tag, a removal, a prune), in the midst of which this side kills qemu (`aim.rs`).
//! What the guest's kernel had not written is gone then, and of what it had written since its last flush, none, some
//! or all. `tests/tests/e2e/power.rs` cuts the power of a recorded disk.

mod aim;
mod disk;
mod kept;
mod orders;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use self::{
    aim::{Aim, By, Learned, OPERATIONS, Shot},
    disk::{Disk, Survival},
    kept::Kept,
    orders::{Follower, Known},
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
/// XFS wants 300 MiB; the file is sparse.
const DISK_BYTES: u64 = 512 << 20;
/// After how many cuts everything is removed and nothing may be left.
const SWEEP: usize = 5;

/// File systems, each for its share of the rounds.
const KINDS: [&[&str]; 2] = [&["mkfs.ext4", "-q", "-F"], &["mkfs.xfs", "-q", "-f"]];

/// The order's operation of the last round of a file system, which only looks.
const NOTHING: &str = "none";

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
    let tally = Tally::default();
    let mut bench = Bench { image, payload, dir, kept, lying: wish.lying, seed: wish.seed, tally };
    bench.keep()?;
    let each = wish.rounds.div_ceil(KINDS.len());
    let outcome = KINDS.iter().try_for_each(|mkfs| bench.rounds(mkfs, each));
    println!("{}", bench.tally);
    outcome.map_err(|e| format!("{e}\nseed {}; the disk is {}", wish.seed, bench.disk().display()))?;
    bench.clean();
    println!("{} cuts: nothing lost, no file without content", each * KINDS.len());
    Ok(())
}

/// Everything that a round needs.
struct Bench {
    image: rootfs::Image,
    payload: Payload,
    dir: PathBuf,
    kept: Option<Kept>,
    lying: bool,
    seed: u64,
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
        let written = "format=raw,if=virtio";
        // What is said needs no medium: it is enough that it has left the machine.
        let orders = format!("file={},{written},cache=unsafe", self.orders().display());
        vec![format!("{socket},{written},cache=writeback"), orders]
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
        let kind = mkfs[0].trim_start_matches("mkfs.");
        let mut targets = aim::targets(&mut Random::of(self.seed, kind, usize::MAX), rounds);
        targets.push(NOTHING);
        let (mut known, mut learned) = (Known::default(), Learned::default());
        for (number, target) in targets.into_iter().enumerate() {
            self.round(&Round { kind, number, target }, &mut learned, &mut known)?;
        }
        Ok(())
    }

    /// Looks at what the last cut left, changes it, cuts.
    fn round(&mut self, round: &Round, learned: &mut Learned, known: &mut Known) -> Outcome {
        let start = Instant::now();
        // Of each round its own: what one needs of them depends on time.
        let mut random = Random::of(self.seed, round.kind, round.number);
        let expected = known.present.len();
        let order = round.order(&mut random, known);
        orders::write(&self.orders(), &order)?;
        let disk = Disk::open(&self.disk(), self.lying)?;
        let meter = disk.meter();
        let served = disk::serve(disk, &self.socket())?;
        let by = By::in_round(round.number);
        let mut aim = Aim::new(Follower::open(&self.orders())?, learned, meter, by, &mut random);
        let looks = round.target == NOTHING;
        let due = |said: &str| if looks { Ok(said.contains(BEGIN)) } else { aim.due() };
        let said = machine::cut(&self.image, &self.payload, due);
        let shot = aim.shot();
        let mut disk = served.end()?;
        let said = said?;
        let log = orders::log(&self.orders())?;
        if !said.contains(BEGIN) || said.contains("cuts: LOST") || shot.is_none() != looks {
            return Err(format!(
                "{} {}: {order}{said}\nthe guest's log:\n{}",
                round.kind,
                round.number,
                log.join("\n")
            ));
        }
        known.under_way = None;
        let acknowledged = log.iter().filter(|line| known.hear(line)).count();
        let survival = [Survival::None, Survival::Some, Survival::All][random.below(3) as usize];
        let (blocks, lost) = disk.cut(survival, &mut random)?;
        self.tally.images += expected;
        let moment = shot.map_or("only looked".to_owned(), |shot| {
            let written = aim.written();
            self.tally.blocks += blocks;
            self.tally.lost += lost;
            self.tally.count(round, known.under_way.as_deref(), written);
            moment(round.target, shot, known.under_way.as_deref(), written)
        });
        println!(
            "{} {}: {expected} images expected and whole; {moment}, {acknowledged} acknowledged, {lost} of {blocks} \
             blocks in the disk's cache lost; {:.0} s",
            round.kind,
            round.number,
            start.elapsed().as_secs_f64()
        );
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

/// One look and one cut.
struct Round<'a> {
    kind: &'a str,
    number: usize,
    target: &'a str,
}

impl Round<'_> {
    /// As `guest.sh` describes it.
    fn order(&self, random: &mut Random, known: &Known) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let tour = if self.number == 0 { "tour" } else { "straight" };
        let sweep = if self.number > 0 && self.number.is_multiple_of(SWEEP) { "sweep" } else { "keep" };
        let words = known.words().join(" ");
        format!("go {} {now} {} {tour} {sweep} {words}\n", random.below(1 << 30), self.target)
    }
}

/// When the cut came, by what the guest had said before.
fn moment(target: &str, shot: Shot, under_way: Option<&str>, written: usize) -> String {
    let state = match under_way {
        Some(operation) if operation == target => "under way".to_owned(),
        Some(operation) => format!("over, {operation} under way"),
        None => "over".to_owned(),
    };
    match shot {
        Shot::Time { after, of } => {
            format!("cut {after:.2?} after the begin of {target} (of about {of:.2?}), {state}, {written} writes since")
        }
        Shot::Write { number, of } => {
            format!("cut at write {number} of {target} (of about {of}), {state}, {written} writes since")
        }
    }
}

/// What the cuts came to.
#[derive(Default)]
struct Tally {
    cuts: BTreeMap<(String, String), Count>,
    images: usize,
    blocks: usize,
    lost: usize,
}

/// Cuts of an operation on one file system.
#[derive(Default, Clone, Copy)]
struct Count {
    aimed: usize,
    /// It was under way, whatever was aimed at.
    within: usize,
    /// So it was, and the disk had got something since its begin.
    written: usize,
    /// Aimed at it, but nothing was under way any more.
    after: usize,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>10}{:>10}{:>10}{:>10}", self.aimed, self.within, self.written, self.after)
    }
}

impl Tally {
    fn count(&mut self, round: &Round, under_way: Option<&str>, written: usize) {
        let mut at = |operation: &str, add: fn(&mut Count)| {
            add(self.cuts.entry((operation.to_owned(), round.kind.to_owned())).or_default());
        };
        at(round.target, |count| count.aimed += 1);
        match under_way {
            Some(operation) if written > 0 => at(operation, |count| {
                count.within += 1;
                count.written += 1;
            }),
            Some(operation) => at(operation, |count| count.within += 1),
            None => at(round.target, |count| count.after += 1),
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: BTreeSet<&str> = self.cuts.keys().map(|(_, kind)| kind.as_str()).collect();
        for kind in kinds {
            writeln!(f, "{kind:<10}  aimed at    within   written     after")?;
            let mut sum = Count::default();
            for operation in OPERATIONS {
                let count = self.cuts.get(&(operation.to_owned(), kind.to_owned())).copied().unwrap_or_default();
                writeln!(f, "{operation:<10}{count}")?;
                sum.aimed += count.aimed;
                sum.within += count.within;
                sum.written += count.written;
                sum.after += count.after;
            }
            writeln!(f, "{:<10}{sum}", "all")?;
        }
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
    /// One for each round of each file system.
    fn of(seed: u64, kind: &str, round: usize) -> Random {
        let mut random = Random(seed);
        for byte in kind.bytes().chain(round.to_le_bytes()) {
            random.0 ^= u64::from(byte);
            random.below(1);
        }
        random
    }

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

    #[test]
    fn a_cut_counts_where_the_guest_was_last() {
        let mut tally = Tally::default();
        let round = Round { kind: "xfs", number: 1, target: "commit" };
        tally.count(&round, Some("commit"), 4);
        tally.count(&round, Some("commit"), 0);
        tally.count(&round, None, 1);
        tally.count(&round, Some("rm"), 0);
        let row = |text: &str, name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().skip(1).map(str::to_owned).collect()
        };
        let text = tally.to_string();
        assert_eq!(row(&text, "commit"), ["4", "2", "1", "1"]);
        assert_eq!(row(&text, "rm "), ["0", "1", "0", "0"]);
        assert_eq!(row(&text, "all"), ["4", "3", "1", "1"]);
    }

    #[test]
    fn a_round_repeats_by_its_seed_whatever_the_others_needed() {
        let order = |seed, number| {
            let round = Round { kind: "ext4", number, target: "rm" };
            round.order(&mut Random::of(seed, round.kind, number), &Known::default())
        };
        let word = |order: String, n| order.split(' ').nth(n).map(str::to_owned);
        assert_eq!(word(order(3, 5), 1), word(order(3, 5), 1));
        assert_ne!(word(order(3, 5), 1), word(order(4, 5), 1));
        assert_eq!(word(order(3, 0), 4).as_deref(), Some("tour"));
        assert_eq!(word(order(3, 5), 5).as_deref(), Some("sweep"));
    }
}

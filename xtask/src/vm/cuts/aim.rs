//! Which operation a cut is to hit, and when: at a moment of that operation drawn uniformly, so that one of a tenth of a
//! second is hit as often as one of ten seconds.
//!
//! How long an operation takes is learned on the way: the guest says when each begins and when it has succeeded. In a
//! file system's first round it does every one once before the one that is to be hit.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Random, disk::Written, orders::Follower};
use crate::Outcome;

/// As the guest's script names them; `pulls` is a pull with an import beside it.
pub(super) const OPERATIONS: [&str; 10] =
    ["pull", "pulls", "import", "load", "create", "commit", "tag", "rm", "rmi", "prune"];

/// The speed of the machine changes, and a store that grows makes some of them longer.
const REMEMBERED: usize = 5;

/// Of an operation that was never seen to its end.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Parts of an expected duration, of which one is drawn.
const PARTS: u32 = 1 << 20;

/// The operations to be hit, each in its turn, every ten in another order.
pub(super) fn targets(random: &mut Random, rounds: usize) -> Vec<&'static str> {
    let mut targets = Vec::new();
    while targets.len() < rounds {
        let mut turn = OPERATIONS.to_vec();
        while !turn.is_empty() {
            targets.push(turn.swap_remove(random.below(turn.len() as u64) as usize));
        }
    }
    targets.truncate(rounds);
    targets
}

/// How long the operations took.
#[derive(Default)]
pub(super) struct Durations {
    seen: BTreeMap<String, Vec<Duration>>,
}

impl Durations {
    fn learn(&mut self, operation: &str, took: Duration) {
        self.seen.entry(operation.to_owned()).or_default().push(took);
    }

    /// The median of the last ones.
    pub(super) fn expected(&self, operation: &str) -> Duration {
        let all = self.seen.get(operation).map_or(&[][..], Vec::as_slice);
        let mut last = all[all.len().saturating_sub(REMEMBERED)..].to_vec();
        last.sort_unstable();
        last.get(last.len() / 2).copied().unwrap_or(UNKNOWN)
    }
}

/// When the cut is due.
pub(super) struct Aim<'a> {
    follower: Follower,
    durations: &'a mut Durations,
    written: Written,
    part: u32,
    begun: Instant,
    shot: Option<Shot>,
}

/// A cut that was decided on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shot {
    /// This long after the operation's begin.
    pub(super) after: Duration,
    /// How long it was expected to take.
    pub(super) of: Duration,
    /// Writes that the disk had got when it began.
    pub(super) written: usize,
}

impl Aim<'_> {
    /// Somewhere in the operation that the guest marks.
    pub(super) fn new<'a>(
        follower: Follower,
        durations: &'a mut Durations,
        written: Written,
        random: &mut Random,
    ) -> Aim<'a> {
        let part = random.below(u64::from(PARTS)) as u32;
        Aim { follower, durations, written, part, begun: Instant::now(), shot: None }
    }

    /// Hears what the guest has said by now; true when the moment has come.
    pub(super) fn due(&mut self) -> Outcome<bool> {
        while let Some(line) = self.follower.next()? {
            self.hear(&line);
        }
        Ok(self.shot.is_some_and(|shot| self.begun.elapsed() >= shot.after))
    }

    fn hear(&mut self, line: &str) {
        match line.split_once(' ') {
            Some((">", _)) => self.begun = Instant::now(),
            Some(("!", operation)) => {
                self.begun = Instant::now();
                let of = self.durations.expected(operation);
                self.shot = Some(Shot { after: of * self.part / PARTS, of, written: self.written.count() });
            }
            Some(("<", operation)) => self.durations.learn(operation, self.begun.elapsed()),
            _ => {}
        }
    }

    /// What was decided, if the operation has begun.
    pub(super) fn shot(&self) -> Option<Shot> {
        self.shot
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{super::orders, *};

    #[test]
    fn every_operation_has_its_turn_and_the_seed_decides_the_order() {
        let drawn = |seed| targets(&mut Random(seed), 25);
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        for turn in drawn(7).chunks_exact(OPERATIONS.len()) {
            let mut turn = turn.to_vec();
            turn.sort_unstable();
            let mut all = OPERATIONS;
            all.sort_unstable();
            assert_eq!(turn, all);
        }
        assert_eq!(drawn(7).len(), 25);
    }

    #[test]
    fn an_expected_duration_is_the_median_of_the_last_five() {
        let mut durations = Durations::default();
        assert_eq!(durations.expected("rm"), UNKNOWN);
        for millis in [9000, 9000, 9000, 100, 400, 200, 300, 9000] {
            durations.learn("rm", Duration::from_millis(millis));
        }
        assert_eq!(durations.expected("rm"), Duration::from_millis(300));
        assert_eq!(durations.expected("tag"), UNKNOWN);
    }

    #[test]
    fn a_cut_waits_for_its_part_of_what_the_operation_took_before() {
        let path = std::env::temp_dir().join(format!("onggi-xtask-aim-{}", std::process::id()));
        orders::write(&path, "").unwrap();
        let mut durations = Durations::default();
        durations.learn("rm", Duration::from_secs(3600));
        let follower = Follower::open(&path).unwrap();
        let mut aim = Aim::new(follower, &mut durations, Written::default(), &mut Random(1));
        aim.part = PARTS / 4;
        let mut say = |lines: &[&str]| {
            let bytes: String = lines.iter().map(|line| format!("{line:<511}\n")).collect();
            let disk = std::fs::File::options().write(true).open(&path).unwrap();
            disk.write_all_at(bytes.as_bytes(), 16 << 10).unwrap();
            let due = aim.due().unwrap();
            (due, aim.shot().map(|shot| (shot.after, shot.of)))
        };
        assert_eq!(say(&["> pull"]), (false, None));
        assert_eq!(say(&["> pull", "< pull", "+ p1 p1"]), (false, None));
        let hour = Duration::from_secs(3600);
        assert_eq!(say(&["> pull", "< pull", "+ p1 p1", "! rm"]), (false, Some((hour / 4, hour))));
        aim.begun -= hour / 3;
        assert_eq!(aim.due(), Ok(true));
        assert!(durations.expected("pull") < UNKNOWN);
        std::fs::remove_file(path).unwrap();
    }
}

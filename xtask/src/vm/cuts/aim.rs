//! Which operation a cut is to hit, and when: at a moment of that operation drawn uniformly, so that one of a tenth of a
//! second is hit as often as one of ten seconds.
//!
//! In every other turn the moment is not drawn from the operation's time but from its writes to the disk: most of the time
//! of a command nothing is written. How long it takes and how often it writes is learned on the way: the guest says when
//! each begins and when it has succeeded. In a file system's first round it does every one once before the one that is
//! to be hit.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Random, disk::Meter, orders::Follower};
use crate::Outcome;

/// As the guest's script names them; `pulls` is a pull with an import beside it.
pub(super) const OPERATIONS: [&str; 10] =
    ["pull", "pulls", "import", "load", "create", "commit", "tag", "rm", "rmi", "prune"];

/// The speed of the machine changes, and a store that grows makes some of them longer.
const REMEMBERED: usize = 5;

/// An operation that was never seen to its end.
const UNKNOWN: Took = Took { time: Duration::from_secs(1), writes: 0 };

/// Parts of what is expected, of which one is drawn.
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

/// From what the moment of a cut is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Time,
    /// By time if there are none.
    Writes,
}

impl By {
    /// Every other turn.
    pub(super) fn in_round(round: usize) -> By {
        if (round / OPERATIONS.len()).is_multiple_of(2) { By::Writes } else { By::Time }
    }
}

/// What an operation needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Took {
    time: Duration,
    /// Those of the disk.
    writes: usize,
}

/// What the operations needed.
#[derive(Default)]
pub(super) struct Learned {
    seen: BTreeMap<String, Vec<Took>>,
}

impl Learned {
    fn learn(&mut self, operation: &str, took: Took) {
        self.seen.entry(operation.to_owned()).or_default().push(took);
    }

    /// The medians of the last ones.
    fn expected(&self, operation: &str) -> Took {
        let all = self.seen.get(operation).map_or(&[][..], Vec::as_slice);
        let last = &all[all.len().saturating_sub(REMEMBERED)..];
        let time = median(last.iter().map(|took| took.time)).unwrap_or(UNKNOWN.time);
        Took { time, writes: median(last.iter().map(|took| took.writes)).unwrap_or(UNKNOWN.writes) }
    }
}

fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// When the cut is due.
pub(super) struct Aim<'a> {
    follower: Follower,
    learned: &'a mut Learned,
    meter: Meter,
    by: By,
    part: u32,
    begun: Instant,
    /// Writes until then.
    before: usize,
    shot: Option<Shot>,
    missed: bool,
}

/// A cut that was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shot {
    /// This long after the operation's begin, which was expected to take so long.
    Time { after: Duration, of: Duration },
    /// With this write of the operation, of so many that were expected.
    Write { number: usize, of: usize },
}

impl Aim<'_> {
    /// Somewhere in the operation that the guest marks.
    pub(super) fn new<'a>(
        follower: Follower,
        learned: &'a mut Learned,
        meter: Meter,
        by: By,
        random: &mut Random,
    ) -> Aim<'a> {
        let part = random.below(u64::from(PARTS)) as u32;
        Aim { follower, learned, meter, by, part, begun: Instant::now(), before: 0, shot: None, missed: false }
    }

    /// Hears what the guest has said by now; true when the moment has come.
    pub(super) fn due(&mut self) -> Outcome<bool> {
        while let Some(line) = self.follower.next()? {
            self.hear(&line);
        }
        Ok(match self.shot {
            Some(Shot::Time { after, .. }) => self.begun.elapsed() >= after,
            Some(Shot::Write { .. }) => self.meter.is_over() || self.missed,
            None => false,
        })
    }

    fn hear(&mut self, line: &str) {
        match line.split_once(' ') {
            Some((sign @ (">" | "!"), operation)) => {
                (self.begun, self.before) = (Instant::now(), self.meter.seen());
                if sign == "!" {
                    self.shot = Some(self.decide(operation));
                }
            }
            Some(("<", operation)) => {
                self.learned.learn(operation, Took { time: self.begun.elapsed(), writes: self.written() });
                self.missed = self.shot.is_some();
            }
            _ => {}
        }
    }

    fn decide(&self, operation: &str) -> Shot {
        let Took { time, writes } = self.learned.expected(operation);
        if self.by == By::Time || writes == 0 {
            return Shot::Time { after: time * self.part / PARTS, of: time };
        }
        let number = 1 + (writes as u64 * u64::from(self.part) / u64::from(PARTS)) as usize;
        // The disk is dead from then on, whenever the machine is.
        self.meter.end_after(self.before + number);
        Shot::Write { number, of: writes }
    }

    /// How often the disk was written to since the operation's begin.
    pub(super) fn written(&self) -> usize {
        self.meter.seen() - self.before
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
    fn what_is_expected_are_the_medians_of_the_last_five() {
        let mut learned = Learned::default();
        assert_eq!(learned.expected("rm"), UNKNOWN);
        for (millis, writes) in [(9000, 90), (9000, 90), (9000, 90), (100, 7), (400, 8), (200, 1), (300, 2), (9000, 9)]
        {
            learned.learn("rm", Took { time: Duration::from_millis(millis), writes });
        }
        assert_eq!(learned.expected("rm"), Took { time: Duration::from_millis(300), writes: 7 });
        assert_eq!(learned.expected("tag"), UNKNOWN);
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// The aim at a `rm`, known to take an hour and so many writes, after a `pull` that the guest has done before.
    fn aimed(by: By, writes: usize, check: impl FnOnce(&mut Aim<'_>)) {
        let path = std::env::temp_dir().join(format!("onggi-xtask-aim-{by:?}-{writes}-{}", std::process::id()));
        orders::write(&path, "").unwrap();
        let mut learned = Learned::default();
        learned.learn("rm", Took { time: HOUR, writes });
        let follower = Follower::open(&path).unwrap();
        let mut aim = Aim::new(follower, &mut learned, Meter::new(), by, &mut Random(1));
        aim.part = PARTS / 4;
        let mut log = String::new();
        for line in ["> pull", "< pull", "+ p1 p1", "! rm"] {
            assert_eq!((aim.due(), aim.shot()), (Ok(false), None));
            log.push_str(&format!("{line:<511}\n"));
            let disk = std::fs::File::options().write(true).open(&path).unwrap();
            disk.write_all_at(log.as_bytes(), 16 << 10).unwrap();
        }
        assert_eq!(aim.due(), Ok(false));
        check(&mut aim);
        assert!(learned.expected("pull").time < UNKNOWN.time);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_cut_by_time_waits_for_its_part_of_what_the_operation_took_before() {
        // One that is not known to write is cut by time, too.
        for (by, writes) in [(By::Time, 8), (By::Writes, 0)] {
            aimed(by, writes, |aim| {
                assert_eq!(aim.shot(), Some(Shot::Time { after: HOUR / 4, of: HOUR }));
                aim.begun -= HOUR / 3;
                assert_eq!(aim.due(), Ok(true));
            });
        }
    }

    #[test]
    fn a_cut_by_writes_comes_with_one_of_them_or_with_the_end() {
        aimed(By::Writes, 8, |aim| {
            assert_eq!(aim.shot(), Some(Shot::Write { number: 3, of: 8 }));
            aim.meter.end_after(0);
            assert_eq!(aim.due(), Ok(true));
        });
        aimed(By::Writes, 9, |aim| {
            aim.hear("< rm");
            assert_eq!(aim.due(), Ok(true));
        });
    }
}

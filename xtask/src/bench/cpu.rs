//! Processor time of what a contender started, as far as it has ended: on a busy machine it says more than the clock.

use std::{cell::RefCell, collections::BTreeMap, fs};

/// Seconds by contender.
#[derive(Default)]
pub(crate) struct CpuTimes(RefCell<BTreeMap<String, Vec<f64>>>);

impl CpuTimes {
    /// Does `act` and notes the processor time of its processes.
    pub(crate) fn of<T>(&self, name: &str, act: impl FnOnce() -> T) -> T {
        let before = of_children();
        let result = act();
        if let (Some(before), Some(after)) = (before, of_children()) {
            self.0.borrow_mut().entry(name.to_owned()).or_default().push(after - before);
        }
        result
    }

    /// The medians in words; nothing when nothing was measured.
    pub(crate) fn note(&self) -> Option<String> {
        let times = self.0.borrow();
        let median = |values: &Vec<f64>| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        let all: Vec<String> = times.iter().map(|(name, v)| format!("{name} {:.1} s", median(v))).collect();
        let note = "Processor time, user and system, median (docker with the start and the end of its daemon)";
        (!all.is_empty()).then(|| format!("{note}: {}.", all.join(", ")))
    }
}

/// Seconds of all children that were waited for: cutime and cstime of proc_pid_stat(5), in hundredths.
fn of_children() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    parse(&stat)
}

fn parse(stat: &str) -> Option<f64> {
    // The name may hold spaces and brackets; the state is the first field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(13)? + ticks(14)?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_children_is_read_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 200 0 0 5 6 150 50 20 0 1 0 12 1 2";
        assert_eq!(parse(stat), Some(2.0));
        assert_eq!(parse("nothing"), None);
    }

    #[test]
    fn the_note_has_everyone() {
        let times = CpuTimes::default();
        assert_eq!(times.note(), None);
        times.of("onggi", || ());
        assert!(times.note().unwrap().contains("onggi 0.0 s"));
    }
}

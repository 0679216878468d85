//! Interleaved measurements: every contender runs once per round, so that a slow minute of the machine
//! slows all of them. Only ratios of medians of one run mean anything.

use std::time::Instant;

use crate::Outcome;

/// One competitor in a row.
pub(crate) struct Contender<'a> {
    /// As shown in the table.
    pub(crate) name: String,
    /// Does the thing once; what it took, in the row's unit.
    sample: Box<dyn FnMut() -> Outcome<f64> + 'a>,
    /// Takes part in so many rounds at most, those that warm up included.
    rounds: usize,
}

impl<'a> Contender<'a> {
    /// One whose every run is timed from beginning to end, in milliseconds.
    pub(crate) fn new(name: &str, mut act: impl FnMut() -> Outcome + 'a) -> Contender<'a> {
        Contender::sampling(name, move || milliseconds(&mut act))
    }

    /// One that measures itself: what comes before and after is not counted.
    pub(crate) fn sampling(name: &str, sample: impl FnMut() -> Outcome<f64> + 'a) -> Contender<'a> {
        Contender { name: name.to_owned(), sample: Box::new(sample), rounds: usize::MAX }
    }

    /// For one that takes so long that a few samples have to do: one round that does not count and so many that do.
    pub(crate) fn rarely(self, samples: usize) -> Contender<'a> {
        Contender { rounds: samples + 1, ..self }
    }
}

/// How long `act` takes.
pub(crate) fn milliseconds(mut act: impl FnMut() -> Outcome) -> Outcome<f64> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// What one contender needed.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// As shown in the table.
    pub(crate) name: String,
    /// In the row's unit, ascending.
    pub(crate) values: Vec<f64>,
}

impl Series {
    pub(crate) fn new(name: &str, mut values: Vec<f64>) -> Series {
        values.sort_by(f64::total_cmp);
        Series { name: name.to_owned(), values }
    }

    /// The value below which `part` (0 to 1) of all values are.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let Some(last) = self.values.len().checked_sub(1) else { return f64::NAN };
        let at = part.clamp(0.0, 1.0) * last as f64;
        let (low, high) = (at.floor() as usize, at.ceil() as usize);
        self.values[low] + (self.values[high] - self.values[low]) * at.fract()
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Runs all contenders `samples` times in turn. The first two rounds only warm caches up.
pub(crate) fn interleaved(contenders: &mut [Contender<'_>], samples: usize) -> Outcome<Vec<Series>> {
    interleaved_after(contenders, 2, samples)
}

/// As [`interleaved`], with so many rounds before that do not count.
pub(crate) fn interleaved_after(
    contenders: &mut [Contender<'_>],
    warm_up: usize,
    samples: usize,
) -> Outcome<Vec<Series>> {
    let mut taken: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..samples + warm_up {
        for turn in 0..contenders.len() {
            // Another one begins each round: whoever follows a heavy one would always pay for it.
            let at = (turn + round) % contenders.len();
            let contender = &mut contenders[at];
            // Spread over all rounds, so that the others' samples are before, between and after.
            let rounds = samples + warm_up;
            if contender.rounds < rounds && (round * contender.rounds) % rounds >= contender.rounds {
                continue;
            }
            let value = (contender.sample)().map_err(|e| format!("{}: {e}", contender.name))?;
            if round >= warm_up.min(1) && (round >= warm_up || contender.rounds < rounds) {
                taken[at].push(value);
            }
        }
    }
    Ok(contenders.iter().zip(taken).map(|(contender, values)| Series::new(&contender.name, values)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        let series = Series::new("a", vec![4.0, 1.0, 2.0, 3.0]);
        assert!((series.median() - 2.5).abs() < 1e-9);
        assert!((series.quantile(0.0) - 1.0).abs() < 1e-9);
        assert!((series.quantile(1.0) - 4.0).abs() < 1e-9);
        assert!(Series::new("none", vec![]).median().is_nan());
    }

    #[test]
    fn every_contender_runs_as_often_as_the_others() {
        let counts = std::cell::RefCell::new([0, 0]);
        let mut contenders = [
            Contender::new("a", || {
                counts.borrow_mut()[0] += 1;
                Ok(())
            }),
            Contender::new("b", || {
                counts.borrow_mut()[1] += 1;
                Ok(())
            }),
        ];
        let series = interleaved(&mut contenders, 5).unwrap();
        assert_eq!(series.iter().map(|s| s.values.len()).collect::<Vec<_>>(), [5, 5]);
        drop(contenders);
        assert_eq!(counts.into_inner(), [7, 7]);
    }

    #[test]
    fn a_slow_contender_is_sampled_less_often_and_from_beginning_to_end() {
        let rounds = std::cell::RefCell::new(Vec::new());
        let mut contenders = [
            Contender::new("fast", || {
                rounds.borrow_mut().push('f');
                Ok(())
            }),
            Contender::new("slow", || {
                rounds.borrow_mut().push('s');
                Ok(())
            })
            .rarely(3),
        ];
        let series = interleaved(&mut contenders, 10).unwrap();
        assert_eq!(series.iter().map(|s| s.values.len()).collect::<Vec<_>>(), [10, 3]);
        drop(contenders);
        let order: String = rounds.into_inner().into_iter().collect();
        assert_eq!(order.matches('s').count(), 4);
        assert!(order.starts_with("fs") && order.rfind('s') > Some(order.len() / 2), "{order}");
    }
}

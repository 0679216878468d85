//! Runs one observation under the three runtimes and holds ours against the other two.

use std::{collections::BTreeSet, fmt::Write as _, thread};

use onggi_tests::{Bundle, Instance, Runtime, isolated};

use crate::probe::{self, View};

/// A difference from both runc and crun (or from what they agree on) that is meant.
pub(crate) struct Known {
    /// The observation.
    pub(crate) key: &'static str,
    /// What ours is instead.
    pub(crate) ours: &'static str,
    /// The id of its explanation below "Known differences" of docs/conformance.md.
    pub(crate) explained: &'static str,
    /// The others are not always the same here (they race); ours must be.
    others_vary: bool,
}

/// Observations whose names begin so are not compared, only shown beside a difference.
const NOTE: char = '~';

/// Differences that may show in every view; [`same_view_but`] is for those of one field.
const EVERYWHERE: &[Known] = &[];

/// A row of a table of known differences.
pub(crate) const fn known(key: &'static str, ours: &'static str, explained: &'static str) -> Known {
    Known { key, ours, explained, others_vary: false }
}

/// The same where runc or crun is not the same every time, so that ours may equal it by chance.
pub(crate) const fn known_beside_a_race(key: &'static str, ours: &'static str, explained: &'static str) -> Known {
    Known { key, ours, explained, others_vary: true }
}

/// Compares what probes see in a container whose configuration was edited.
#[track_caller]
pub(crate) fn same_view(edit: impl Fn(&mut Bundle) + Sync) {
    same_view_but(&[], edit);
}

/// The same with known differences.
#[track_caller]
pub(crate) fn same_view_but(known: &[Known], edit: impl Fn(&mut Bundle) + Sync) {
    same_but(known, |instance| {
        let mut bundle = probe::bundle();
        edit(&mut bundle);
        probe::look(instance, &bundle)
    });
}

/// Compares what a script in the container prints, its exit code, and nothing else. The script may print
/// sections that begin with `== name`; without any, its whole output is one observation.
#[track_caller]
pub(crate) fn same_output(script: &str, edit: impl Fn(&mut Bundle) + Sync) {
    same_output_but(&[], script, edit);
}

/// The same with known differences.
#[track_caller]
pub(crate) fn same_output_but(known: &[Known], script: &str, edit: impl Fn(&mut Bundle) + Sync) {
    same_but(known, |instance| {
        let mut bundle = Bundle::script(script);
        edit(&mut bundle);
        probe::look(instance, &bundle)
    });
}

/// Compares observations of any kind.
#[track_caller]
pub(crate) fn same(observe: impl Fn(&Instance) -> View + Sync) {
    same_but(&[], observe);
}

/// The same with known differences.
#[track_caller]
pub(crate) fn same_but(known: &[Known], observe: impl Fn(&Instance) -> View + Sync) {
    isolated();
    let first = views(&observe);
    let Err(report) = judge(&first, known) else { return };
    // runc and crun have races of their own, and a busy machine makes both lose the same one. Ours has to be the same
    // whenever it is looked at.
    let second = views(&observe);
    if let Some(report) = varied(&first[OURS], &second[OURS]) {
        panic!("onggi-oci is not the same twice:\n{report}");
    }
    if judge(&second, known).is_err() {
        panic!("onggi-oci differs:\n{report}");
    }
    println!("runc or crun is not the same twice:\n{report}");
}

/// What a runtime showed in one look and not in the other.
fn varied(first: &View, second: &View) -> Option<String> {
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).filter(|key| !key.starts_with(NOTE)).collect();
    let different = keys.into_iter().filter(|key| first.get(*key) != second.get(*key));
    let report: String =
        different.map(|key| format!("{key}\n    {:?}\n    {:?}\n", first.get(key), second.get(key))).collect();
    (!report.is_empty()).then_some(report)
}

/// Where ours is in [`views`].
const OURS: usize = 2;

/// The views of runc, crun and ours.
pub(crate) fn views(observe: &(impl Fn(&Instance) -> View + Sync)) -> [View; 3] {
    thread::scope(|scope| {
        let threads = Runtime::ALL.map(|runtime| scope.spawn(move || observe(&runtime.instance())));
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn judge([runc, crun, ours]: &[View; 3], known: &[Known]) -> Result<(), String> {
    let mut report = String::new();
    let keys: BTreeSet<&String> = runc.keys().chain(crun.keys()).chain(ours.keys()).collect();
    let absent = "(absent)".to_owned();
    for key in keys.into_iter().filter(|key| !key.starts_with(NOTE)) {
        let value = |view: &'_ View| view.get(key).unwrap_or(&absent).clone();
        let (runc, crun, ours) = (value(runc), value(crun), value(ours));
        let agrees = ours == runc || ours == crun && runc != crun;
        let expected = known.iter().find(|known| known.key == key);
        let everywhere = EVERYWHERE.iter().any(|known| known.key == key && known.ours == ours);
        let fine = match expected {
            None => agrees || everywhere,
            Some(known) => (known.others_vary || !agrees) && known.ours == ours,
        };
        if !fine {
            let note = expected.map(|known| format!(" (expected: {:?}, {})", known.ours, known.explained));
            let note = note.unwrap_or_default();
            let _ = writeln!(report, "{key}{note}\n    runc {runc:?}\n    crun {crun:?}\n    ours {ours:?}");
        }
    }
    if report.is_empty() {
        return Ok(());
    }
    for (name, view) in [("runc", runc), ("crun", crun), ("ours", ours)] {
        for (key, note) in view.iter().filter(|(key, _)| key.starts_with(NOTE)) {
            let _ = writeln!(report, "{name} {key}: {note}");
        }
    }
    Err(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(value: &str) -> View {
        View::from([("field".to_owned(), value.to_owned())])
    }

    #[test]
    fn judged_equal_is_agreement_or_one_of_two_or_a_known_difference_that_exists() {
        let known = [known("field", "x", "D-example")];
        assert!(judge(&[view("a"), view("a"), view("a")], &[]).is_ok());
        assert!(judge(&[view("a"), view("b"), view("b")], &[]).is_ok());
        assert!(judge(&[view("a"), view("b"), view("x")], &[]).is_err());
        assert!(judge(&[view("a"), view("a"), view("x")], &known).is_ok());
        assert!(judge(&[view("a"), view("a"), view("a")], &known).is_err(), "a difference that is gone is reported");
        assert!(judge(&[view("a"), View::new(), View::new()], &[]).is_ok(), "absence is a value");
    }

    #[test]
    fn a_note_may_be_another_one_the_next_time_and_nothing_else() {
        let noted = |value: &str, note: &str| {
            let mut view = view(value);
            view.insert(format!("{NOTE}why"), note.to_owned());
            view
        };
        assert_eq!(varied(&noted("a", "x"), &noted("a", "y")), None);
        assert!(varied(&noted("a", "x"), &noted("b", "x")).is_some_and(|report| report.starts_with("field\n")));
        assert!(varied(&view("a"), &View::new()).is_some());
    }
}

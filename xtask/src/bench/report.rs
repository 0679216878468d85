//! What a row found, as a Markdown table for people and as JSON for later comparisons.

use std::{fmt::Write as _, fs};

use serde_json::{Value, json};

use super::measure::Series;
use crate::{
    Outcome,
    process::{cgroup_mode, read, workspace},
};

/// One finished row.
pub(crate) struct Row {
    /// Its number in the list of rows.
    pub(crate) number: u32,
    /// What was measured.
    pub(crate) title: String,
    /// `ms` or `KiB`.
    pub(crate) unit: &'static str,
    /// What we are held to: contender, greatest ratio ours/theirs.
    pub(crate) goals: &'static [(&'static str, f64)],
    /// Ours first.
    pub(crate) series: Vec<Series>,
    /// Peers that are not here, and other remarks.
    pub(crate) notes: Vec<String>,
}

impl Row {
    /// The table of this row.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("\n### {}. {}\n\n", self.number, self.title);
        let _ = writeln!(text, "| | median | p10 | p90 | samples | ours / it | goal |\n|---|---|---|---|---|---|---|");
        let unit = self.unit;
        for series in &self.series {
            let (ratio, goal) = match self.ratio(&series.name) {
                Some(ratio) => (format!("{ratio:.3}"), self.verdict(&series.name, ratio)),
                None => ("–".to_owned(), "–".to_owned()),
            };
            let (median, p10, p90) = (series.median(), series.quantile(0.1), series.quantile(0.9));
            let count = series.values.len();
            let _ = writeln!(
                text,
                "| {} | {median:.2} {unit} | {p10:.2} | {p90:.2} | {count} | {ratio} | {goal} |",
                series.name
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        text
    }

    /// Our median divided by a contender's; nothing for our own.
    fn ratio(&self, name: &str) -> Option<f64> {
        let (ours, _) = self.series.split_first()?;
        let other = self.series.iter().skip(1).find(|series| series.name == name)?;
        Some(ours.median() / other.median())
    }

    fn verdict(&self, name: &str, ratio: f64) -> String {
        match self.goals.iter().find(|(peer, _)| name.starts_with(peer)) {
            Some((_, most)) if ratio <= *most => format!("≤ {most} met"),
            Some((_, most)) => format!("≤ {most} **missed**"),
            None => "–".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let series: Vec<Value> = self.series.iter().map(|series| self.series_json(series)).collect();
        json!({
            "row": self.number, "title": self.title, "unit": self.unit, "contenders": series, "notes": self.notes,
        })
    }

    fn series_json(&self, series: &Series) -> Value {
        json!({
            "name": series.name, "median": series.median(), "p10": series.quantile(0.1),
            "p90": series.quantile(0.9), "samples": series.values.len(), "ours_to_it": self.ratio(&series.name),
        })
    }
}

/// One line about the machine: a figure without it says nothing.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("kernel {}, {cpus} CPUs, cgroup {}", kernel.trim(), cgroup_mode())
}

fn json_of(rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    json!({ "machine": machine(), "load": load(), "rows": rows })
}

/// Load average of one, five and fifteen minutes at the end: whoever else was there.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Writes `bench/results/<date>.json`.
pub(crate) fn write(rows: &[Row]) -> Outcome {
    save(json_of(rows))
}

/// Before the result on a guest's standard output.
const MARK: &str = "onggi-bench-result ";

/// Prints what [`keep`] reads.
pub(crate) fn print(rows: &[Row]) {
    println!("{MARK}{}", json_of(rows));
}

/// Writes the result that a guest has printed, with what the guest is.
pub(crate) fn keep(output: &str, environment: &str) -> Outcome {
    let line = output.lines().find_map(|line| line.strip_prefix(MARK)).ok_or("the guest printed no result")?;
    let mut value: Value = serde_json::from_str(line).map_err(|e| format!("read the guest's result: {e}"))?;
    value["environment"] = json!(environment);
    save(value)
}

fn save(mut value: Value) -> Outcome {
    let date = read(std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H%M%SZ"]))?;
    let date = date.trim();
    value["date"] = json!(date);
    let dir = workspace().join("bench/results");
    fs::create_dir_all(&dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
    let text = format!("{value:#}\n");
    let file = dir.join(format!("{date}.json"));
    fs::write(&file, text).map_err(|e| format!("write {}: {e}", file.display()))?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let series =
            vec![Series::new("onggi", vec![2.0]), Series::new("crun", vec![4.0]), Series::new("runc", vec![8.0])];
        let goals = &[("crun", 0.6), ("runc", 0.2)];
        Row { number: 1, title: "one shot".to_owned(), unit: "ms", goals, series, notes: vec!["no youki".to_owned()] }
    }

    #[test]
    fn the_table_says_which_goals_are_met() {
        let text = row().markdown();
        assert!(text.contains("| onggi | 2.00 ms | 2.00 | 2.00 | 1 | – | – |"), "{text}");
        assert!(text.contains("| crun | 4.00 ms | 4.00 | 4.00 | 1 | 0.500 | ≤ 0.6 met |"), "{text}");
        assert!(text.contains("| 0.250 | ≤ 0.2 **missed** |"), "{text}");
        assert!(text.ends_with("\nno youki\n"), "{text}");
    }

    #[test]
    fn output_without_a_result_is_an_error() {
        assert!(keep("### 1. one shot\n", "a guest").is_err());
        assert!(keep(&format!("{MARK}rubbish\n"), "a guest").is_err());
    }

    #[test]
    fn the_json_has_the_ratio_and_the_number_of_samples() {
        let value = row().json();
        assert_eq!(value["contenders"][1]["ours_to_it"], json!(0.5));
        assert_eq!(value["contenders"][1]["samples"], json!(1));
        assert_eq!(value["contenders"][0]["ours_to_it"], Value::Null);
    }
}

//! ps(1) of the host, for those who know its options: its lines, but for processes of others.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output, Stdio},
};

use super::ProcessTable;
use crate::EngineError;

/// Where the program is. Never looked up: what runs with our privileges is not chosen by an environment (I6).
const PROGRAMS: [&str; 2] = ["/usr/bin/ps", "/bin/ps"];

/// The lines of `ps OPTIONS` about these processes.
pub(super) fn list(options: &[String], pids: &[i32]) -> Result<ProcessTable, EngineError> {
    let unsupported = |reason: String, hint: &str| EngineError::Unsupported {
        what: "a list of processes by ps(1)".into(),
        reason,
        hint: hint.into(),
    };
    let program = PROGRAMS.iter().find(|program| Path::new(program).exists()).ok_or_else(|| {
        unsupported("the host has no /usr/bin/ps".into(), "leave the options out, or install it (Debian: procps)")
    })?;
    let numbers: Vec<String> = pids.iter().map(i32::to_string).collect();
    let mut output = run(program, options, Some(&numbers.join(",")))?;
    // Some options (f) do not go together with a choice of processes.
    if !output.status.success() {
        output = run(program, options, None)?;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let all = table(&text);
    match filter(all, pids) {
        Some(table) => Ok(table),
        None if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed").to_owned();
            Err(unsupported(said, "man ps explains its options; without any, Docker's columns are shown"))
        }
        None => Err(unsupported(
            "its output has no column PID, by which the container's processes are known".into(),
            "add it to the columns: -o pid,comm",
        )),
    }
}

fn run(program: &str, options: &[String], pids: Option<&str>) -> Result<Output, EngineError> {
    let mut command = Command::new(program);
    command.args(options).args(pids.map(|pids| format!("-q{pids}"))).stdin(Stdio::null());
    // Widths of a terminal would cut the lines.
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("COLUMNS", "100000");
    command.envs(std::env::var_os("TZ").map(|zone| ("TZ", zone)));
    command.output().map_err(|source| EngineError::ReadFile { path: program.into(), source })
}

/// Words below the words of the first line; the last column has the rest of its line.
fn table(text: &str) -> ProcessTable {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let row = |line: &str| {
        let mut rest = line.trim();
        let mut cells = Vec::new();
        for _ in 1..titles.len() {
            let (cell, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            cells.push(cell.to_owned());
            rest = after.trim_start();
        }
        cells.push(rest.to_owned());
        cells
    };
    let rows = lines.filter(|line| !line.trim().is_empty()).map(row).collect();
    ProcessTable { titles, rows }
}

/// `None` without a column PID.
fn filter(mut table: ProcessTable, pids: &[i32]) -> Option<ProcessTable> {
    let at = table.titles.iter().position(|title| title == "PID")?;
    let pids: BTreeSet<String> = pids.iter().map(i32::to_string).collect();
    // A line about a thread, whose PID is a dash, follows that of its process.
    let mut ours = false;
    table.rows.retain(|row| {
        let cell = row.get(at).map_or("", String::as_str);
        ours = if cell == "-" { ours } else { pids.contains(cell) };
        ours
    });
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let text = "USER PID COMMAND\nroot   1 /sbin/init  x\nroot  22 sleep 100\nroot   - -\n\nroot 122 sh -c  a b\nroot - -\n";
        let shown = filter(table(text), &[22]).expect("there is a PID");
        assert_eq!(shown.titles, ["USER", "PID", "COMMAND"]);
        assert_eq!(shown.rows, [["root", "22", "sleep 100"], ["root", "-", "-"]]);
        assert_eq!(filter(table(text), &[122]).map(|t| t.rows[0][2].clone()).as_deref(), Some("sh -c  a b"));
        assert!(filter(table("COMMAND\nsh\n"), &[1]).is_none());
    }
}

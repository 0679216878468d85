//! `ps`: the lines of ps(1) that are about a container's processes, or their pids as JSON.

use std::{
    collections::HashSet,
    fmt::Write,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    CliError, Global, Outcome,
    args::{Args, Flag},
    inspect::to_json,
    log::print,
};

pub(super) const FLAGS: &[Flag] = &[Flag::value("format", "f").help("select one of: table or json")];

/// Never looked up in PATH: whoever set that may not be whom the runtime runs for.
const PROGRAMS: [&str; 2] = ["/usr/bin/ps", "/bin/ps"];

pub(super) fn ps(global: &Global, args: &Args) -> Outcome {
    let pids = onggi_sandbox::processes(&global.root, &args.id()?)?;
    match args.text("format").unwrap_or("table") {
        "json" => print(&to_json(&pids, false)?),
        "table" => print(&table(&pids, args)?),
        _ => return Err(CliError::Usage("invalid format option".into())),
    }
    Ok(0)
}

fn table(pids: &[i32], args: &Args) -> Result<String, CliError> {
    let Some(program) = PROGRAMS.into_iter().find(|p| Path::new(p).exists()) else { return Ok(own_table(pids)) };
    let mut options = args.rest().get(1..).unwrap_or_default().to_vec();
    if options.is_empty() {
        options.push("-ef".into());
    }
    let done = Command::new(program).args(&options).stdin(Stdio::null()).output();
    let done = done.map_err(|source| CliError::File { what: "run", path: program.into(), source })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(CliError::Usage(format!("ps: {}: {}", done.status, said.trim())));
    }
    select(&String::from_utf8_lossy(&done.stdout), pids)
}

/// The header, and the lines whose PID is one of `pids`.
fn select(text: &str, pids: &[i32]) -> Result<String, CliError> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| CliError::Usage("couldn't find PID field in ps output".into()))?;
    let pids: HashSet<i32> = pids.iter().copied().collect();
    let mut out = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            out += line;
            out.push('\n');
        }
    }
    Ok(out)
}

/// Where there is no ps(1).
fn own_table(pids: &[i32]) -> String {
    let mut text = format!("{:>8}  COMMAND\n", "PID");
    for pid in pids {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let _ = writeln!(text, "{pid:>8}  {}", name.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_are_kept() {
        let text = "UID PID PPID\nroot 1 0\nroot 12 1\nroot 1 12\n";
        assert_eq!(select(text, &[12]).unwrap(), "UID PID PPID\nroot 12 1\n");
        assert!(select("UID CMD\n", &[1]).is_err());
    }
}

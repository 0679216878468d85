//! The table of `docs/labs/README.md`: which command of the hands-on literature is in which lab.
//!
//! ```text
//! | `command`, with `\|` for a pipe | ✓ | [07](en/07-time.md) | = |
//! | `command` | ✓ | [07](en/07-time.md) | `what stands for it there` |
//! | `command` | later | | what has to be there first |
//! | `command` | – | | why there is none |
//! ```

use std::fs;

use super::{docs, read as read_page};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    command: String,
    done: bool,
    lab: String,
    /// What stands in the lab for it; empty when it is there as it is.
    instead: String,
}

/// The rows of a table, with what the two languages share: not the reasons.
///
/// # Panics
/// When the file is missing or a row has another shape.
pub fn read(file: &str) -> Vec<Row> {
    let text = fs::read_to_string(docs().join(file)).unwrap_or_else(|error| panic!("read docs/labs/{file}: {error}"));
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| parse(line).unwrap_or_else(|| panic!("docs/labs/{file}: not a row: {line}"))).collect()
}

fn parse(line: &str) -> Option<Row> {
    let line = line.replace("\\|", "\u{0}");
    let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect();
    let [_, command, status, lab, how, _] = &cells[..] else { return None };
    let done = match status.as_str() {
        "✓" => true,
        "later" | "–" => false,
        _ => return None,
    };
    let lab = lab.split_once("](").map_or("", |(_, link)| link.trim_end_matches(')'));
    let lab = lab.rsplit('/').next().unwrap_or_default().trim_end_matches(".md").to_owned();
    let instead = if done && how != "=" { code(how)?.to_owned() } else { String::new() };
    Some(Row { command: code(command)?.to_owned(), done, lab, instead })
}

/// What is between backquotes, one or two.
fn code(cell: &str) -> Option<&str> {
    let fence = if cell.starts_with("``") { "``" } else { "`" };
    let inner = cell.strip_prefix(fence)?.strip_suffix(fence)?;
    Some(inner.trim())
}

impl Row {
    /// Why a finished row is not true.
    pub fn complaint(&self) -> Option<String> {
        if !self.done {
            return None;
        }
        let wanted = if self.instead.is_empty() { &self.command } else { &self.instead };
        let page = read_page("en", &self.lab);
        let typed = page.commands().any(|command| words(command).contains(&words(wanted)));
        let saved = page.files().any(|file| format!("cat > {file}") == *wanted);
        (!typed && !saved).then(|| format!("{}: `{wanted}` is not typed there", self.lab))
    }
}

/// Blanks count as one, and the tables say `sudo` where the pages are typed as root.
fn words(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "sudo").collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(command: &str, done: bool, lab: &str, instead: &str) -> Row {
        Row { command: command.to_owned(), done, lab: lab.to_owned(), instead: instead.to_owned() }
    }

    #[test]
    fn rows_are_read() {
        let line = "| `ps aux \\| head` | ✓ | [02](en/02-pid.md) | = |";
        assert_eq!(parse(line), Some(row("ps aux | head", true, "02-pid", "")));
        let line = "| ``pid=`x` `` | ✓ | [02](en/02-pid.md) | `pid=$(x)` |";
        assert_eq!(parse(line), Some(row("pid=`x`", true, "02-pid", "pid=$(x)")));
        assert_eq!(parse("| `lxc-ls` | later |  | system containers |"), Some(row("lxc-ls", false, "", "")));
        assert_eq!(parse("| `x` | maybe |  | |"), None);
    }

    #[test]
    fn sudo_and_blanks_make_no_difference() {
        assert_eq!(words("sudo  ip link"), words("ip link"));
    }
}

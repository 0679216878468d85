//! Markdown → what is typed and what should be printed. Pure.

use std::str::FromStr;

/// Where a page runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A private machine on the host's kernel.
    Host,
    /// The virtual machine.
    Vm,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it runs.
    pub place: Place,
    /// Debian packages beyond the essential ones.
    pub packages: Vec<String>,
    /// A registry on the loopback has this image, and a variable in capitals its name. There is `nginx`.
    pub image: Option<String>,
    /// In the page's order.
    pub steps: Vec<Step>,
}

/// One thing that the reader does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Saves a file in the lab's directory.
    Save {
        /// Its name.
        file: String,
        /// Its content.
        text: String,
    },
    /// Types a command.
    Type {
        /// 1, or 2 for the second terminal.
        terminal: u8,
        /// Of the page, from 1.
        line: usize,
        /// One line, or several with what follows the `> ` prompts.
        command: String,
        /// The lines below it.
        expected: Vec<String>,
    },
}

/// A line of the page and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageError {
    line: usize,
    what: String,
}

impl std::fmt::Display for PageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

impl std::error::Error for PageError {}

impl Page {
    /// Everything that is typed, in order.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Type { command, .. } => Some(command.as_str()),
            Step::Save { .. } => None,
        })
    }

    /// Files that the reader saves.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Save { file, .. } => Some(file.as_str()),
            Step::Type { .. } => None,
        })
    }

    /// The steps without their places in the file, in which translations differ.
    pub fn steps_without_lines(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        for step in &mut steps {
            if let Step::Type { line, .. } = step {
                *line = 0;
            }
        }
        steps
    }
}

impl FromStr for Page {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Page, PageError> {
        let front = front(text)?;
        let mut steps = Vec::new();
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
        while let Some((at, line)) = lines.next() {
            let Some(info) = line.strip_prefix("```") else { continue };
            let body: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
            block(at, info.trim(), &body, &mut steps)?;
        }
        if steps.is_empty() {
            return Err(PageError { line: 1, what: "the page has nothing to type".to_owned() });
        }
        Ok(Page { steps, ..front })
    }
}

/// The page without its steps.
fn front(text: &str) -> Result<Page, PageError> {
    let error = |what: &str| PageError { line: 1, what: what.to_owned() };
    let rest = text.strip_prefix("<!-- lab\n").ok_or_else(|| error("the page does not begin with `<!-- lab`"))?;
    let (front, _) = rest.split_once("\n-->").ok_or_else(|| error("the comment at the top has no end"))?;
    let value = |key: &str| front.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let place = match value("runs") {
        Some("host") => Place::Host,
        Some("vm") => Place::Vm,
        _ => return Err(error("`runs:` is neither host nor vm")),
    };
    let packages = value("packages").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let image = match value("image") {
        None => None,
        Some("nginx") => Some("nginx".to_owned()),
        Some(_) => return Err(error("`image:` is not nginx")),
    };
    Ok(Page { place, packages, image, steps: Vec::new() })
}

fn block(at: usize, info: &str, body: &[(usize, &str)], steps: &mut Vec<Step>) -> Result<(), PageError> {
    match info.split_whitespace().collect::<Vec<_>>()[..] {
        ["console"] => console(1, body, steps),
        ["console", "2"] => console(2, body, steps),
        ["console", ..] => Err(PageError { line: at, what: format!("there is no terminal {info:?}") }),
        [_, file] => {
            let text = body.iter().map(|(_, line)| format!("{line}\n")).collect();
            steps.push(Step::Save { file: file.to_owned(), text });
            Ok(())
        }
        // A drawing.
        _ => Ok(()),
    }
}

fn console(terminal: u8, body: &[(usize, &str)], steps: &mut Vec<Step>) -> Result<(), PageError> {
    let begin = steps.len();
    for (line, text) in body {
        if let Some(typed) = text.strip_prefix("$ ").or_else(|| text.strip_prefix("# ")) {
            let command = typed.to_owned();
            steps.push(Step::Type { terminal, line: *line, command, expected: Vec::new() });
            continue;
        }
        let first = steps.len() == begin;
        let Some(Step::Type { command, expected, .. }) = steps.last_mut().filter(|_| !first) else {
            return Err(PageError { line: *line, what: "a block begins with a prompt, `$ ` or `# `".to_owned() });
        };
        match text.strip_prefix("> ") {
            Some(more) if expected.is_empty() => *command = format!("{command}\n{more}"),
            _ => expected.push((*text).to_owned()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "<!-- lab\nruns: host\npackages: a b\n-->\n# Title\n";

    fn steps(text: &str) -> Result<Vec<Step>, PageError> {
        Ok(format!("{TOP}{text}").parse::<Page>()?.steps_without_lines())
    }

    fn typed(terminal: u8, command: &str, expected: &[&str]) -> Step {
        let expected = expected.iter().map(|&line| line.to_owned()).collect();
        Step::Type { terminal, line: 0, command: command.to_owned(), expected }
    }

    #[test]
    fn prompts_outputs_second_terminals_and_files_are_read() {
        let text = "```console\n$ echo a\na\n# cat <<x\n> b\n> x\nb\n```\n\n```c one.c\nint x;\n```\n```console 2\n$ y\n```\n```text\nno\n```\n";
        let save = Step::Save { file: "one.c".to_owned(), text: "int x;\n".to_owned() };
        let expected = vec![typed(1, "echo a", &["a"]), typed(1, "cat <<x\nb\nx", &["b"]), save, typed(2, "y", &[])];
        assert_eq!(steps(text), Ok(expected));
    }

    #[test]
    fn the_comment_says_where_it_runs_and_what_it_needs() {
        let page: Page = format!("{TOP}```console\n$ a\n```\n").parse().expect("it is a page");
        assert_eq!((page.place, page.packages), (Place::Host, vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn what_is_not_a_page_is_refused_with_its_line() {
        assert!("# Title\n".parse::<Page>().is_err());
        assert!(steps("no block\n").is_err());
        assert_eq!(steps("```console\noutput\n```\n").expect_err("no prompt").line, 7);
        assert_eq!(steps("```console 3\n$ a\n```\n").expect_err("no such terminal").line, 6);
    }
}

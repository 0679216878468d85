//! Does what was printed fit what the page shows? Pure.
//!
//! `…` stands for any text within a line; a line that is nothing else stands for any number of lines. Blanks count as
//! one, and those around a line do not count: columns are as wide as the longest name on a machine.

const ANY: &str = "…";

/// A remark on the machine, such as its limit of open files, which others do not get; it goes to stderr.
const NOTE: &str = "onggi: note: ";

/// `Ok` when `printed` fits, else both texts.
pub fn compare(expected: &[String], printed: &str) -> Result<(), String> {
    let want: Vec<String> = expected.iter().map(|line| blanks(line)).collect();
    let have: Vec<String> = printed.trim_end().lines().filter(|line| !line.starts_with(NOTE)).map(blanks).collect();
    if lines_fit(&want, &have) {
        return Ok(());
    }
    Err(format!("the page shows\n{}\n--- printed was\n{}", expected.join("\n"), printed.trim_end()))
}

fn blanks(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lines_fit(want: &[String], have: &[String]) -> bool {
    match want.split_first() {
        None => have.is_empty(),
        Some((any, rest)) if any == ANY => (0..=have.len()).any(|skip| lines_fit(rest, &have[skip..])),
        Some((line, rest)) => {
            have.split_first().is_some_and(|(first, others)| line_fits(line, first) && lines_fit(rest, others))
        }
    }
}

fn line_fits(want: &str, have: &str) -> bool {
    let mut parts = want.split(ANY).map(str::trim_ascii);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = have.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(want: &[&str], have: &str) -> bool {
        let want: Vec<String> = want.iter().map(|&line| line.to_owned()).collect();
        compare(&want, have).is_ok()
    }

    #[test]
    fn without_dots_every_word_counts_and_blanks_do_not() {
        assert!(fits(&["a  b", " c"], "a b  \n\tc\n"));
        assert!(!fits(&["a b"], "a bc\n"));
        assert!(!fits(&["a"], "a\nb\n"));
        assert!(!fits(&["a", "b"], "a\n"));
        assert!(fits(&[], "\n"));
        assert!(!fits(&[], "error\n"));
    }

    #[test]
    fn dots_stand_for_text_within_a_line() {
        assert!(fits(&["libc.so.6 => … (0x…)"], "\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n"));
        assert!(!fits(&["libc.so.6 => … (0x…)"], "libm.so.6 => /lib/libm.so.6 (0x00007f)\n"));
        assert!(fits(&["… Killed …"], "bash: line 5: 77 Killed ./hog\n"));
        assert!(!fits(&["a…a"], "a"));
    }

    #[test]
    fn remarks_on_the_machine_do_not_count() {
        assert!(fits(&["a"], "onggi: note: the limit of open files stays at 1024\na\n"));
    }

    #[test]
    fn a_line_of_dots_stands_for_any_number_of_lines() {
        assert!(fits(&["…", "x"], "a\nb\nx\n"));
        assert!(fits(&["a", "…"], "a\n"));
        assert!(fits(&["…", "b", "…"], "a\nb\nb\nc\n"));
        assert!(!fits(&["…", "x"], "a\nb\n"));
    }
}

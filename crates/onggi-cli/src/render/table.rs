//! Columns as Docker aligns them: at least ten wide, three spaces between, the last one ragged.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Narrowest column of `top`, which Docker aligns in another way than its lists.
const TOP_WIDTH: usize = 20;

/// Aligns titles and rows of processes, as Docker.
pub(crate) fn processes<'r>(rows: impl Iterator<Item = &'r Vec<String>>) -> String {
    let line = |row: &Vec<String>| row.iter().map(|cell| printable(cell)).collect::<Vec<_>>().join("\t");
    aligned(&rows.map(line).collect::<Vec<_>>(), usize::MAX, TOP_WIDTH)
}

/// Aligns lines whose cells are separated by tabs.
pub(crate) fn align(lines: &[String]) -> String {
    align_within(lines, usize::MAX)
}

/// The same, but a cell that is longer than `most` makes its own line longer, and no other.
pub(crate) fn align_within(lines: &[String], most: usize) -> String {
    aligned(lines, most, MIN_WIDTH)
}

fn aligned(lines: &[String], most: usize, least: usize) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|l| l.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count());
        cells.filter(|length| *length <= most).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(|c| (width(c) + PADDING).max(least)).collect();
    let mut out = String::new();
    for row in rows {
        for (c, cell) in row.iter().enumerate() {
            out.push_str(cell);
            let pad = if c + 1 == row.len() { 0 } else { widths[c].saturating_sub(cell.chars().count()).max(PADDING) };
            out.extend(std::iter::repeat_n(' ', pad));
        }
        out.push('\n');
    }
    out
}

/// Cuts to `max` characters, the last one being `…`.
pub(crate) fn ellipsis(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}

/// Replaces what would move a terminal's cursor: names and commands come from images.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_at_least_ten_wide_and_three_apart() {
        let lines = ["ID\tLONG COLUMN\tX".to_owned(), "a\tb\tcc".to_owned()];
        assert_eq!(align(&lines), "ID        LONG COLUMN   X\na         b             cc\n");
        assert_eq!(align(&[]), "");
        let lines = ["NAME\tX".to_owned(), "short\t1".to_owned(), "a-long-name-of-a-scope\t2".to_owned()];
        assert_eq!(align_within(&lines, 12), "NAME      X\nshort     1\na-long-name-of-a-scope   2\n");
    }

    #[test]
    fn processes_have_columns_of_at_least_twenty() {
        let rows = [vec!["PID".to_owned(), "CMD".to_owned()], vec!["1".to_owned(), "a\tb\x1b".to_owned()]];
        let pad = " ".repeat(17);
        assert_eq!(processes(rows.iter()), format!("PID{pad}CMD\n1  {pad}a b \n"));
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(ellipsis("/docker-entrypoint.sh nginx", 20), "/docker-entrypoint.…");
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(printable("a\x1b[2Jb\n"), "a [2Jb ");
    }
}

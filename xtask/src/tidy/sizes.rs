//! Functions of at most 80 lines and files of at most 600 lines without tests. A table may be longer; it is
//! named here with the reason, and a name that is no longer needed is a complaint too.

use super::Source;

const MAX_FUNCTION: usize = 80;
const MAX_FILE: usize = 600;

/// A file or function that may be longer.
struct Exempt {
    path: &'static str,
    /// The function; empty for the file.
    function: &'static str,
    reason: &'static str,
}

const EXEMPT: &[Exempt] = &[];

/// Complaints about everything too long, and about exemptions that nothing needs.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    check_with(sources, EXEMPT)
}

fn check_with(sources: &[Source], exempt: &[Exempt]) -> Vec<String> {
    let mut used = vec![false; exempt.len()];
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust() && !is_test_file(&source.path)) {
        for (function, complaint) in too_long(source) {
            let found = exempt.iter().position(|e| e.path == source.path && e.function == function);
            match found {
                Some(at) => used[at] = true,
                None => complaints.push(complaint),
            }
        }
    }
    for (exempt, _) in exempt.iter().zip(used).filter(|(_, used)| !used) {
        complaints.push(format!(
            "{}: the exemption of {:?} ({}) is not needed any more",
            exempt.path, exempt.function, exempt.reason
        ));
    }
    complaints
}

/// Integration tests and benches read top to bottom; their length is not what makes them hard to follow.
fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/tests/") || path.contains("/tests/")
}

fn too_long(source: &Source) -> Vec<(String, String)> {
    let tests = test_lines(&source.code);
    let mut found = Vec::new();
    let lines = tests.iter().filter(|is_test| !**is_test).count();
    if lines > MAX_FILE {
        found.push((String::new(), format!("{}: {lines} lines without tests (at most {MAX_FILE})", source.path)));
    }
    for function in functions(&source.code) {
        if function.lines > MAX_FUNCTION && !tests[function.line] {
            let text = format!(
                "{}:{}: function `{}` has {} lines (at most {MAX_FUNCTION})",
                source.path,
                function.line + 1,
                function.name,
                function.lines
            );
            found.push((function.name, text));
        }
    }
    found
}

struct Function {
    name: String,
    /// Zero-based line of `fn`.
    line: usize,
    lines: usize,
}

/// Every function with a body, nested ones included.
fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = &code[at + 3..];
        let name: String = rest.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        if let Some(body) = body(rest) {
            let line = code[..at].matches('\n').count();
            found.push(Function { name, line, lines: rest[..body].matches('\n').count() + 1 });
        }
    }
    found
}

/// The length of a signature and its body in braces; `None` for a declaration.
fn body(rest: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut brackets = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            // `[u8; 32]` in a signature is not its end.
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            ';' if depth == 0 && brackets == 0 => return None,
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// For each line, whether it belongs to a `#[cfg(test)]` item.
fn test_lines(code: &str) -> Vec<bool> {
    let mut lines = vec![false; code.lines().count() + 1];
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let first = code[..at].matches('\n').count();
        let rest = &code[at + "#[cfg(test)]".len()..];
        let length = body(rest).or_else(|| rest.find(';')).unwrap_or(0);
        let last = first + rest[..length].matches('\n').count();
        lines[first..=last].fill(true);
    }
    lines.truncate(code.lines().count());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    fn long_function(lines: usize) -> String {
        format!("//! x\nfn long(a: [u8; 2]) {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_of_eighty_lines_passes_and_one_more_does_not() {
        assert!(check_with(&[source("a.rs", &long_function(80))], &[]).is_empty());
        let found = check_with(&[source("a.rs", &long_function(81))], &[]);
        assert_eq!(found, ["a.rs:2: function `long` has 81 lines (at most 80)"]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let text = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn b() {}\n".repeat(700));
        assert!(check_with(&[source("a.rs", &text)], &[]).is_empty());
        let text = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", long_function(99));
        assert!(check_with(&[source("a.rs", &text)], &[]).is_empty());
    }

    #[test]
    fn a_long_file_is_reported() {
        let found = check_with(&[source("a.rs", &"const A: u8 = 1;\n".repeat(601))], &[]);
        assert_eq!(found, ["a.rs: 601 lines without tests (at most 600)"]);
    }

    #[test]
    fn an_exemption_covers_its_function_and_must_be_needed() {
        let exempt = [Exempt { path: "a.rs", function: "long", reason: "a table" }];
        assert!(check_with(&[source("a.rs", &long_function(90))], &exempt).is_empty());
        assert_eq!(check_with(&[source("a.rs", &long_function(9))], &exempt).len(), 1);
    }

    #[test]
    fn declarations_closures_and_function_types_are_not_functions() {
        let code = "trait T { fn a(&self); }\ntype F = fn(u8) -> u8;\nfn b(f: impl Fn(u8)) { f(1) }\n";
        let names: Vec<String> = functions(code).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["b"]);
    }
}

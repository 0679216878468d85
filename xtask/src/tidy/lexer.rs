//! Blanks comments, strings and character literals in Rust source, so that the other rules can look for
//! words and braces without a parser. Line breaks stay where they are; every other blanked character
//! becomes one space.

/// The source with everything that is not code blanked.
pub(crate) fn blank(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(find(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(string_end(chars, at + 1)),
        '\'' => char_end(chars, at),
        'r' | 'b' | 'c' if !continues_word(chars, at) => prefixed_end(chars, at),
        _ => None,
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|at| stop(chars[*at])).unwrap_or(chars.len())
}

fn continues_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// `at` is just after the opening quote.
fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal; `None` for a lifetime or a label.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    match (chars.get(at + 1)?, chars.get(at + 2)?) {
        ('\\', _) => Some((find(chars, at + 3, |c| c == '\'') + 1).min(chars.len())),
        (_, '\'') => Some(at + 3),
        _ => None,
    }
}

/// `r"…"`, `r#"…"#`, `b"…"`, `b'…'`, `c"…"`, `br#"…"#` and so on.
fn prefixed_end(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start + 1;
    let raw = chars[start] == 'r' || chars.get(at) == Some(&'r');
    if chars[start] != 'r' && raw {
        at += 1;
    }
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    match chars.get(at + hashes)? {
        '"' if raw => Some(raw_string_end(chars, at + hashes + 1, hashes)),
        '"' if hashes == 0 => Some(string_end(chars, at + 1)),
        '\'' if hashes == 0 && chars[start] == 'b' && !raw => char_end(chars, at),
        _ => None,
    }
}

fn raw_string_end(chars: &[char], from: usize, hashes: usize) -> usize {
    let closes =
        |at: usize| chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (from..chars.len()).find(|at| closes(*at)).map_or(chars.len(), |at| at + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        blank(source).split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn comments_are_blanked_and_nested_ones_end_where_they_end() {
        assert_eq!(words("a // x\nb /* c /* d */ e */ f"), ["a", "b", "f"]);
    }

    #[test]
    fn every_kind_of_string_is_blanked() {
        let source = r####"a "x \" y" b r#"q " q"# c br"z" d b'\'' e '\u{1F600}' f c"g" h 'x' i"####;
        assert_eq!(words(source), ["a", "b", "c", "d", "e", "f", "h", "i"]);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(words("fn a<'x>(r#type: &'x str) {}"), ["fn", "a<'x>(r#type:", "&'x", "str)", "{}"]);
    }

    #[test]
    fn lines_keep_their_numbers() {
        assert_eq!(blank("a\n\"b\nc\"\nd").lines().count(), 4);
    }

    #[test]
    fn an_unclosed_literal_ends_with_the_file() {
        assert_eq!(words("a \"b"), ["a"]);
        assert_eq!(words("a /* b"), ["a"]);
        assert_eq!(words("a r#\"b"), ["a"]);
    }
}

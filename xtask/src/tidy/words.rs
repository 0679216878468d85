//! Words that belong to somebody's desk and not to a public repository: private paths and trackers.

use super::Source;

/// Each word is spelled in two halves, so that this file passes its own check.
const WORDS: &[(&str, &str)] =
    &[("/wo", "rk/"), (".lib", "rary"), ("farm-", "bench"), ("DEVEL", "OPERS.md"), ("iss", "ue #")];

/// One complaint per line that has such a word.
pub(crate) fn check(sources: &[Source]) -> Vec<String> {
    let words: Vec<String> = WORDS.iter().map(|(one, two)| format!("{one}{two}")).collect();
    let mut complaints = Vec::new();
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                complaints.push(format!("{}:{}: {word:?} means nothing to a reader", source.path, at + 1));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    #[test]
    fn a_private_path_is_reported_wherever_it_is() {
        let text = format!("one\nsee {}{}main\n", WORDS[0].0, WORDS[0].1);
        assert_eq!(check(&[source("docs/a.md", &text)]).len(), 1);
        assert!(check(&[source("docs/a.md", "work in progress\n")]).is_empty());
    }
}

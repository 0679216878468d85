//! Words of sh(1), for the scripts that plans are shown as.

pub use onggi_spec::shell::{path, quote};

/// Words, with spaces between.
pub fn words(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(words(&["a".into(), String::new(), "it's $x".into()]), r"a '' 'it'\''s $x'");
    }
}

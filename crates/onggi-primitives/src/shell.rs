//! Words of sh(1), for the scripts that plans are shown as.

use std::path::Path;

pub use onggi_spec::shell::quote;

/// A path as one word. Bytes that are no UTF-8 become what a reader can see.
pub fn path(path: &Path) -> String {
    let text = path.display().to_string();
    // What begins with a dash would be an option.
    quote(&if text.starts_with('-') { format!("./{text}") } else { text })
}

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
        assert_eq!(path(Path::new("-rf")), "./-rf");
        assert_eq!(path(Path::new("/a b")), "'/a b'");
    }
}

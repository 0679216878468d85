//! Words of sh(1), for the scripts that plans are shown as.

use std::path::Path;

/// One word: as it is where that is safe, else in single quotes (POSIX.1-2024, Shell Command Language, 2.2.2).
pub fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path as one word. Bytes that are no UTF-8 become what a reader can see.
pub fn path(path: &Path) -> String {
    let text = path.display().to_string();
    // What begins with a dash would be an option.
    quote(&if text.starts_with('-') { format!("./{text}") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(["a", "", "it's $x"].map(quote).join(" "), r"a '' 'it'\''s $x'");
        assert_eq!(path(Path::new("-rf")), "./-rf");
        assert_eq!(path(Path::new("/a b")), "'/a b'");
    }
}

//! Words of sh(1), for the scripts that plans are shown as.

/// One word: as it is where that is safe, else in single quotes (POSIX.1-2024, Shell Command Language, 2.2.2).
pub fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(["a", "", "it's $x"].map(quote).join(" "), r"a '' 'it'\''s $x'");
    }
}

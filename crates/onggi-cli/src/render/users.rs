//! Names and numbers of users and groups of this machine (passwd(5), group(5)).

use std::{collections::BTreeMap, fs};

use crate::error::CliError;

/// Users by number.
#[derive(Debug, Default)]
pub(crate) struct Users(BTreeMap<u32, String>);

impl Users {
    /// Reads /etc/passwd; without it everybody is a number.
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, super::table::printable(name)))
        };
        // The first of several names counts, as for getpwuid(3).
        Self(text.lines().rev().filter_map(user).collect())
    }

    /// The name, or the number.
    pub(crate) fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

/// The number that is written, or that the name has in `file`: passwd(5) or group(5). `None` when it is not in there.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn number(name: &str, file: &str) -> Result<Option<u32>, CliError> {
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let text = fs::read_to_string(file).map_err(|source| CliError::ReadFile { path: file.to_owned(), source })?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    Ok(line.and_then(|line| line.split(':').nth(2)?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_shown_by_the_first_name_or_the_number() {
        let users =
            Users::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n\nbroken\nann:x:1000:1000::/:/bin/sh\n");
        assert_eq!([0, 1000, 7].map(|uid| users.name(uid)), ["root", "ann", "7"]);
    }
}

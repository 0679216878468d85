//! Names of users of this machine (passwd(5)).

use std::{collections::BTreeMap, fs};

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

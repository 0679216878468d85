//! passwd(5) and group(5), from untrusted bytes.
//!
//! Pure and bounded. A line that is malformed is no entry; a number that is no id makes its line malformed, so that it
//! can never become 0 (security class CVE-2024-40635). NSS, includes (`+`) and shadow play no part.

use crate::limits::MAX_ACCOUNT_LINE;

/// One line of passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswdEntry {
    /// Login name.
    pub name: String,
    /// User id, below 2^32-1.
    pub uid: u32,
    /// Primary group, below 2^32-1.
    pub gid: u32,
    /// Home directory; may be empty.
    pub home: String,
}

/// One line of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEntry<'a> {
    /// Group name.
    pub name: &'a str,
    /// Group id, below 2^32-1.
    pub gid: u32,
    members: &'a str,
}

impl GroupEntry<'_> {
    /// The group lists this user.
    pub fn has_member(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

/// A line was longer than the bound: nothing in the file can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineTooLong;

fn lines(text: &[u8]) -> impl Iterator<Item = Result<&str, LineTooLong>> {
    text.split(|b| *b == b'\n').filter_map(|line| {
        if line.len() > MAX_ACCOUNT_LINE {
            return Some(Err(LineTooLong));
        }
        // A name that is not UTF-8 cannot be asked for.
        std::str::from_utf8(line).ok().filter(|l| !l.is_empty()).map(Ok)
    })
}

/// The first user that `wanted` accepts.
pub(super) fn find_user(
    text: &[u8],
    wanted: impl Fn(&PasswdEntry) -> bool,
) -> Result<Option<PasswdEntry>, LineTooLong> {
    for line in lines(text) {
        if let Some(entry) = passwd_line(line?).filter(&wanted) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Every group that `wanted` accepts.
pub(super) fn find_groups<'a>(
    text: &'a [u8],
    wanted: impl Fn(&GroupEntry<'a>) -> bool,
) -> Result<Vec<GroupEntry<'a>>, LineTooLong> {
    let mut out = Vec::new();
    for line in lines(text) {
        out.extend(group_line(line?).filter(&wanted));
    }
    Ok(out)
}

fn passwd_line(line: &str) -> Option<PasswdEntry> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|n| !n.is_empty())?.to_owned();
    let _password = fields.next()?;
    let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
    let _comment = fields.next()?;
    let home = fields.next()?.to_owned();
    Some(PasswdEntry { name, uid, gid, home })
}

fn group_line(line: &str) -> Option<GroupEntry<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|n| !n.is_empty())?;
    let _password = fields.next()?;
    let gid = id(fields.next()?)?;
    Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
}

/// Digits only, below 2^32-1.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_files_are_understood() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\n# comment\n\nwww:x:33:34:w:/var/www:/bin/sh\n";
        let www = find_user(passwd, |e| e.name == "www").unwrap().unwrap();
        assert_eq!((www.uid, www.gid, www.home.as_str()), (33, 34, "/var/www"));
        let group = b"a:x:1:x,y\nb:x:2:\nc:x:3:y\n";
        let of_y: Vec<u32> = find_groups(group, |g| g.has_member("y")).unwrap().iter().map(|g| g.gid).collect();
        assert_eq!(of_y, [1, 3]);
    }

    #[test]
    fn cve_2024_40635_numbers_that_are_no_ids_never_become_root() {
        for uid in ["", "-1", "+0", "0x0", " 0", "4294967295", "4294967296", "18446744073709551616", "1e3"] {
            let line = format!("evil:x:{uid}:0::/:\n");
            assert_eq!(find_user(line.as_bytes(), |_| true), Ok(None), "{uid:?}");
            let line = format!("evil:x:0:{uid}::/:\n");
            assert_eq!(find_user(line.as_bytes(), |_| true), Ok(None), "{uid:?}");
        }
    }

    #[test]
    fn cve_2026_47262_an_endless_line_is_refused() {
        let line = [b"g:x:5:".to_vec(), vec![b'a'; MAX_ACCOUNT_LINE]].concat();
        assert_eq!(find_groups(&line, |_| true), Err(LineTooLong));
    }
}

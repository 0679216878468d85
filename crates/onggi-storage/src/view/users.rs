//! `-u user[:group]` to numbers.

use onggi_spec::monitor::OverlayMount;
use onggi_spec::user::{NameOrId, ResolvedUser, UserSpec};

use super::overlay::View;
use super::passwd::{LineTooLong, PasswdEntry, find_groups, find_user};
use crate::error::{Result, StorageError};
use crate::limits::{MAX_ACCOUNT_FILE, MAX_ACCOUNT_LINE};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Who `spec` is inside a root filesystem. `None` is the default user, root.
///
/// As Docker: a number needs no entry in passwd, a name does; without an explicit group the primary group and the
/// supplementary ones come from the files, with one there are no others. The primary group is always among the
/// supplementary ones, so that a process cannot shed it (CVE-2022-36109 and its kin: a file that denies one's own group
/// would become accessible). A number is never looked up as a name (CVE-2016-3697, CVE-2026-30892).
///
/// `more` are further groups, which no entry of the user's has to name.
///
/// # Errors
/// The name is unknown, or a file is no regular file, too large, or unreadable.
pub fn resolve_user(mount: &OverlayMount, spec: Option<&UserSpec>, more: &[NameOrId]) -> Result<ResolvedUser> {
    let root = UserSpec { user: NameOrId::Id(0), group: None };
    let spec = spec.unwrap_or(&root);
    let view = View::open(mount)?;
    let account = account(&view, &spec.user)?;
    let (uid, primary) = match (&spec.user, &account) {
        (NameOrId::Id(uid), None) => (*uid, 0),
        (_, Some(entry)) => (entry.uid, entry.gid),
        (NameOrId::Name(name), None) => return Err(unknown("user", name)),
    };
    let groups = view.read(GROUP.as_bytes(), MAX_ACCOUNT_FILE)?.unwrap_or_default();
    let (gid, mut additional_gids) = match (&spec.group, &account) {
        (Some(group), _) => (group_id(&groups, group)?, Vec::new()),
        (None, Some(entry)) => (primary, memberships(&groups, &entry.name)?),
        (None, None) => (primary, Vec::new()),
    };
    for group in more {
        additional_gids.push(group_id(&groups, group)?);
    }
    additional_gids.push(gid);
    additional_gids.sort_unstable();
    additional_gids.dedup();
    let home = account.map(|entry| entry.home).filter(|home| home.starts_with('/') && !home.contains('\0'));
    Ok(ResolvedUser { uid, gid, additional_gids, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn account(view: &View, user: &NameOrId) -> Result<Option<PasswdEntry>> {
    let text = view.read(PASSWD.as_bytes(), MAX_ACCOUNT_FILE)?.unwrap_or_default();
    let found = match user {
        NameOrId::Id(uid) => find_user(&text, |entry| entry.uid == *uid),
        NameOrId::Name(name) => find_user(&text, |entry| entry.name == *name),
    };
    found.map_err(|LineTooLong| too_long(PASSWD))
}

fn group_id(text: &[u8], group: &NameOrId) -> Result<u32> {
    match group {
        NameOrId::Id(gid) => Ok(*gid),
        NameOrId::Name(name) => {
            let found = find_groups(text, |g| g.name == name).map_err(|LineTooLong| too_long(GROUP))?;
            found.first().map(|g| g.gid).ok_or_else(|| unknown("group", name))
        }
    }
}

fn memberships(text: &[u8], user: &str) -> Result<Vec<u32>> {
    let found = find_groups(text, |g| g.has_member(user)).map_err(|LineTooLong| too_long(GROUP))?;
    Ok(found.iter().map(|g| g.gid).collect())
}

fn unknown(what: &'static str, name: &str) -> StorageError {
    StorageError::NoSuchAccount { what, name: name.to_owned() }
}

fn too_long(path: &'static str) -> StorageError {
    StorageError::AccountLine { path, limit: MAX_ACCOUNT_LINE }
}

//! Landlock: a thread gives up writing outside one directory, and executing anything. landlock(7).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::{Errno, Result, SysError};

/// LANDLOCK_ACCESS_FS_*: EXECUTE, WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_CHAR … MAKE_SYM (ABI 1), REFER (ABI 2).
const WRITES: u64 = 1 << 1 | 0x1ff << 4 | 1 << 13;
const EXECUTE: u64 = 1;
/// Without REFER (Linux 5.19) no file could be linked or renamed between directories.
const NEEDED_ABI: i64 = 2;
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// Lets the calling thread, and the threads it starts, write only below `dir` and execute nothing. For good.
///
/// # Errors
/// ENOSYS or EOPNOTSUPP where the kernel has no Landlock, or one older than this needs.
pub fn write_only_below(dir: BorrowedFd<'_>) -> Result<()> {
    if abi()? < NEEDED_ABI {
        return Err(SysError::new("landlock_create_ruleset", "ABI 2", Errno::OPNOTSUPP));
    }
    let ruleset = create(WRITES | EXECUTE)?;
    let rule = PathBeneathAttr { allowed_access: WRITES, parent_fd: dir.as_raw_fd() };
    // SAFETY: `ruleset` is open; `rule` is a live struct landlock_path_beneath_attr (packed), as the type demands.
    let r = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0u32)
    };
    check(r, "landlock_add_rule")?;
    // Demanded of a thread without CAP_SYS_ADMIN; harmless for one that executes nothing any more.
    crate::cred::set_no_new_privs()?;
    // SAFETY: `ruleset` is open; no other argument is a pointer.
    let r = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32) };
    check(r, "landlock_restrict_self").map(drop)
}

fn abi() -> Result<i64> {
    // SAFETY: with the version flag the attribute pointer is null and its size 0, as landlock_create_ruleset(2) says.
    let r = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, CREATE_RULESET_VERSION) };
    check(r, "landlock_create_ruleset")
}

fn create(handled_access_fs: u64) -> Result<OwnedFd> {
    let attr = RulesetAttr { handled_access_fs };
    // SAFETY: `attr` is a live landlock_ruleset_attr of the size passed.
    let r =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size_of::<RulesetAttr>(), 0u32) };
    let fd = check(r, "landlock_create_ruleset")?;
    // SAFETY: the kernel returned a fresh descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn check(r: i64, call: &'static str) -> Result<i64> {
    if r < 0 { Err(SysError::last(call, "")) } else { Ok(r) }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_confined_thread_writes_only_below_its_directory() {
        let base = std::env::temp_dir().join(format!("onggi-landlock-{}", std::process::id()));
        let (inside, outside) = (base.join("in"), base.join("out"));
        fs::create_dir_all(inside.join("a")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        let dir: OwnedFd = fs::File::open(&inside).unwrap().into();
        let confined = std::thread::scope(|scope| {
            let work = || match write_only_below(dir.as_fd()) {
                Err(e) => Some(e),
                Ok(()) => {
                    fs::write(inside.join("a/file"), "x").unwrap();
                    fs::hard_link(inside.join("a/file"), inside.join("link")).unwrap();
                    assert_eq!(fs::write(outside.join("file"), "x").unwrap_err().raw_os_error(), Some(libc::EACCES));
                    assert!(std::process::Command::new("/bin/true").status().is_err());
                    None
                }
            };
            scope.spawn(work).join().unwrap()
        });
        // The test's own thread is as free as before.
        fs::write(outside.join("file"), "x").unwrap();
        fs::remove_dir_all(&base).unwrap();
        if let Some(e) = confined {
            assert!(matches!(e.errno, Errno::NOSYS | Errno::OPNOTSUPP), "{e}");
        }
    }
}

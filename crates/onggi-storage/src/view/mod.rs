//! A container's root filesystem, read without mounting it.
//!
//! The engine must know who `-u www-data` is and whether the command exists before anything is started. So this walks the
//! layers as overlayfs would (topmost first, whiteouts and opaque directories respected, links resolved with the
//! container's `/` as root) using descriptors only. It opens nothing but directories and regular files, reads bounded
//! amounts, and never executes, loads or trusts anything that it finds.

mod examine;
mod executable;
mod overlay;
mod passwd;
mod users;

pub use examine::{Examination, Interpreter, Library, examine_command};
pub use executable::{Executable, ExecutableProblem, ExecutableQuery, find_executable};
pub use overlay::View;
pub use passwd::{GroupEntry, PasswdEntry};
pub use users::resolve_user;

use onggi_spec::monitor::OverlayMount;

use crate::error::Result;

/// Reads the regular file `path` (in-root, links followed) of a root filesystem; `None` when it does not exist.
///
/// # Errors
/// It is no regular file, longer than `max` bytes, or cannot be read.
pub fn read_in_root(mount: &OverlayMount, path: &str, max: u64) -> Result<Option<Vec<u8>>> {
    View::open(mount)?.read(path.as_bytes(), max)
}

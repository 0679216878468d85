//! `SysError`: one failed system call, shown the way strace shows it.
//!
//! Every function of this crate that enters the kernel returns it. It never carries policy: what the
//! caller was trying to do is the caller's error, with this one as its `source`.

use std::fmt;

pub use rustix::io::Errno;

/// Result of a system call.
pub type Result<T> = std::result::Result<T, SysError>;

/// A failed system call: its name, what it was applied to, the error number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    /// The call, as in section 2 of the manual: `"mount"`.
    pub call: &'static str,
    /// Its telling arguments, already formatted: `"overlay", "/x"`. May be empty.
    pub object: String,
    /// Why it failed.
    pub errno: Errno,
}

impl SysError {
    /// Builds an error from its three parts.
    pub fn new(call: &'static str, object: impl Into<String>, errno: Errno) -> Self {
        Self { call, object: object.into(), errno }
    }

    /// The error of the last libc call of this thread; used right after a call that returned -1.
    pub fn last(call: &'static str, object: impl Into<String>) -> Self {
        let raw = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Self::new(call, object, Errno::from_raw_os_error(raw))
    }

    /// The number, positive: 2 for ENOENT.
    pub fn raw(&self) -> i32 {
        self.errno.raw_os_error()
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.call, self.object, describe(self.raw()))
    }
}

impl std::error::Error for SysError {}

impl From<SysError> for std::io::Error {
    fn from(e: SysError) -> Self {
        Self::from_raw_os_error(e.raw())
    }
}

/// Attaches the call and its object to a bare errno.
pub trait SysContext<T> {
    /// `rustix::fs::open(..).sys("open", || format!("{path:?}"))`.
    fn sys<S: Into<String>>(self, call: &'static str, object: impl FnOnce() -> S) -> Result<T>;
}

impl<T> SysContext<T> for std::result::Result<T, Errno> {
    #[inline]
    fn sys<S: Into<String>>(self, call: &'static str, object: impl FnOnce() -> S) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(errno) => Err(failed(call, object, errno)),
        }
    }
}

impl<T> SysContext<T> for std::io::Result<T> {
    #[inline]
    fn sys<S: Into<String>>(self, call: &'static str, object: impl FnOnce() -> S) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(e) => {
                let raw = e.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
                Err(failed(call, object, Errno::from_raw_os_error(raw)))
            }
        }
    }
}

/// Apart from the code of those that succeed, which is what the start of a container keeps in memory.
#[cold]
#[inline(never)]
fn failed<S: Into<String>>(call: &'static str, object: impl FnOnce() -> S, errno: Errno) -> SysError {
    SysError::new(call, object(), errno)
}

/// `no space left on device (ENOSPC)`; `errno 4095` for a number without a name. The text begins with a small
/// letter, as Go programs write it: engines and scripts look for it in what a runtime says.
pub fn describe(raw: i32) -> String {
    let Some((name, text)) = lookup(raw) else { return format!("errno {raw}") };
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    format!("{}{} ({name})", first.into_iter().collect::<String>(), letters.as_str())
}

/// One cause of a chain: as it says it itself, but for the standard library's `… (os error 2)`, which is [`describe`]d.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let io = error.downcast_ref::<std::io::Error>().filter(|e| e.get_ref().is_none()).and_then(|e| e.raw_os_error());
    let raw = io.or_else(|| error.downcast_ref::<Errno>().map(|e| e.raw_os_error()));
    raw.map_or_else(|| error.to_string(), describe)
}

/// The text of an error number in lower case, as Go's syscall package has it and engines look for it:
/// `no such file or directory`.
pub fn text(raw: i32) -> String {
    lookup(raw).map_or_else(|| format!("errno {raw}"), |(_, text)| text.to_lowercase())
}

/// The symbolic name of an error number: `ENOENT`.
pub fn name(raw: i32) -> Option<&'static str> {
    lookup(raw).map(|(name, _)| name)
}

fn lookup(raw: i32) -> Option<(&'static str, &'static str)> {
    NAMES.iter().find(|(n, _, _)| *n == raw).map(|(_, name, text)| (*name, *text))
}

/// errno(3) for Linux x86-64: number, name, text.
#[rustfmt::skip]
const NAMES: &[(i32, &str, &str)] = &[
    (1, "EPERM", "Operation not permitted"),
    (2, "ENOENT", "No such file or directory"),
    (3, "ESRCH", "No such process"),
    (4, "EINTR", "Interrupted system call"),
    (5, "EIO", "Input/output error"),
    (6, "ENXIO", "No such device or address"),
    (7, "E2BIG", "Argument list too long"),
    (8, "ENOEXEC", "Exec format error"),
    (9, "EBADF", "Bad file descriptor"),
    (10, "ECHILD", "No child processes"),
    (11, "EAGAIN", "Resource temporarily unavailable"),
    (12, "ENOMEM", "Cannot allocate memory"),
    (13, "EACCES", "Permission denied"),
    (14, "EFAULT", "Bad address"),
    (15, "ENOTBLK", "Block device required"),
    (16, "EBUSY", "Device or resource busy"),
    (17, "EEXIST", "File exists"),
    (18, "EXDEV", "Invalid cross-device link"),
    (19, "ENODEV", "No such device"),
    (20, "ENOTDIR", "Not a directory"),
    (21, "EISDIR", "Is a directory"),
    (22, "EINVAL", "Invalid argument"),
    (23, "ENFILE", "Too many open files in system"),
    (24, "EMFILE", "Too many open files"),
    (25, "ENOTTY", "Inappropriate ioctl for device"),
    (26, "ETXTBSY", "Text file busy"),
    (27, "EFBIG", "File too large"),
    (28, "ENOSPC", "No space left on device"),
    (29, "ESPIPE", "Illegal seek"),
    (30, "EROFS", "Read-only file system"),
    (31, "EMLINK", "Too many links"),
    (32, "EPIPE", "Broken pipe"),
    (33, "EDOM", "Numerical argument out of domain"),
    (34, "ERANGE", "Numerical result out of range"),
    (35, "EDEADLOCK", "Resource deadlock avoided"),
    (36, "ENAMETOOLONG", "File name too long"),
    (37, "ENOLCK", "No locks available"),
    (38, "ENOSYS", "Function not implemented"),
    (39, "ENOTEMPTY", "Directory not empty"),
    (40, "ELOOP", "Too many levels of symbolic links"),
    (42, "ENOMSG", "No message of desired type"),
    (43, "EIDRM", "Identifier removed"),
    (44, "ECHRNG", "Channel number out of range"),
    (45, "EL2NSYNC", "Level 2 not synchronized"),
    (46, "EL3HLT", "Level 3 halted"),
    (47, "EL3RST", "Level 3 reset"),
    (48, "ELNRNG", "Link number out of range"),
    (49, "EUNATCH", "Protocol driver not attached"),
    (50, "ENOCSI", "No CSI structure available"),
    (51, "EL2HLT", "Level 2 halted"),
    (52, "EBADE", "Invalid exchange"),
    (53, "EBADR", "Invalid request descriptor"),
    (54, "EXFULL", "Exchange full"),
    (55, "ENOANO", "No anode"),
    (56, "EBADRQC", "Invalid request code"),
    (57, "EBADSLT", "Invalid slot"),
    (59, "EBFONT", "Bad font file format"),
    (60, "ENOSTR", "Device not a stream"),
    (61, "ENODATA", "No data available"),
    (62, "ETIME", "Timer expired"),
    (63, "ENOSR", "Out of streams resources"),
    (64, "ENONET", "Machine is not on the network"),
    (65, "ENOPKG", "Package not installed"),
    (66, "EREMOTE", "Object is remote"),
    (67, "ENOLINK", "Link has been severed"),
    (68, "EADV", "Advertise error"),
    (69, "ESRMNT", "Srmount error"),
    (70, "ECOMM", "Communication error on send"),
    (71, "EPROTO", "Protocol error"),
    (72, "EMULTIHOP", "Multihop attempted"),
    (73, "EDOTDOT", "RFS specific error"),
    (74, "EBADMSG", "Bad message"),
    (75, "EOVERFLOW", "Value too large for defined data type"),
    (76, "ENOTUNIQ", "Name not unique on network"),
    (77, "EBADFD", "File descriptor in bad state"),
    (78, "EREMCHG", "Remote address changed"),
    (79, "ELIBACC", "Can not access a needed shared library"),
    (80, "ELIBBAD", "Accessing a corrupted shared library"),
    (81, "ELIBSCN", ".lib section in a.out corrupted"),
    (82, "ELIBMAX", "Attempting to link in too many shared libraries"),
    (83, "ELIBEXEC", "Cannot exec a shared library directly"),
    (84, "EILSEQ", "Invalid or incomplete multibyte or wide character"),
    (85, "ERESTART", "Interrupted system call should be restarted"),
    (86, "ESTRPIPE", "Streams pipe error"),
    (87, "EUSERS", "Too many users"),
    (88, "ENOTSOCK", "Socket operation on non-socket"),
    (89, "EDESTADDRREQ", "Destination address required"),
    (90, "EMSGSIZE", "Message too long"),
    (91, "EPROTOTYPE", "Protocol wrong type for socket"),
    (92, "ENOPROTOOPT", "Protocol not available"),
    (93, "EPROTONOSUPPORT", "Protocol not supported"),
    (94, "ESOCKTNOSUPPORT", "Socket type not supported"),
    (95, "ENOTSUP", "Operation not supported"),
    (96, "EPFNOSUPPORT", "Protocol family not supported"),
    (97, "EAFNOSUPPORT", "Address family not supported by protocol"),
    (98, "EADDRINUSE", "Address already in use"),
    (99, "EADDRNOTAVAIL", "Cannot assign requested address"),
    (100, "ENETDOWN", "Network is down"),
    (101, "ENETUNREACH", "Network is unreachable"),
    (102, "ENETRESET", "Network dropped connection on reset"),
    (103, "ECONNABORTED", "Software caused connection abort"),
    (104, "ECONNRESET", "Connection reset by peer"),
    (105, "ENOBUFS", "No buffer space available"),
    (106, "EISCONN", "Transport endpoint is already connected"),
    (107, "ENOTCONN", "Transport endpoint is not connected"),
    (108, "ESHUTDOWN", "Cannot send after transport endpoint shutdown"),
    (109, "ETOOMANYREFS", "Too many references: cannot splice"),
    (110, "ETIMEDOUT", "Connection timed out"),
    (111, "ECONNREFUSED", "Connection refused"),
    (112, "EHOSTDOWN", "Host is down"),
    (113, "EHOSTUNREACH", "No route to host"),
    (114, "EALREADY", "Operation already in progress"),
    (115, "EINPROGRESS", "Operation now in progress"),
    (116, "ESTALE", "Stale file handle"),
    (117, "EUCLEAN", "Structure needs cleaning"),
    (118, "ENOTNAM", "Not a XENIX named type file"),
    (119, "ENAVAIL", "No XENIX semaphores available"),
    (120, "EISNAM", "Is a named type file"),
    (121, "EREMOTEIO", "Remote I/O error"),
    (122, "EDQUOT", "Disk quota exceeded"),
    (123, "ENOMEDIUM", "No medium found"),
    (124, "EMEDIUMTYPE", "Wrong medium type"),
    (125, "ECANCELED", "Operation canceled"),
    (126, "ENOKEY", "Required key not available"),
    (127, "EKEYEXPIRED", "Key has expired"),
    (128, "EKEYREVOKED", "Key has been revoked"),
    (129, "EKEYREJECTED", "Key was rejected by service"),
    (130, "EOWNERDEAD", "Owner died"),
    (131, "ENOTRECOVERABLE", "State not recoverable"),
    (132, "ERFKILL", "Operation not possible due to RF-kill"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_call_like_strace_and_the_reason_like_go() {
        let e = SysError::new("mount", "\"overlay\", \"/x\"", Errno::NOSPC);
        assert_eq!(e.to_string(), "mount(\"overlay\", \"/x\"): no space left on device (ENOSPC)");
    }

    #[test]
    fn unknown_numbers_are_shown_as_numbers() {
        assert_eq!(describe(4000), "errno 4000");
        assert_eq!(name(2), Some("ENOENT"));
        assert_eq!((text(2).as_str(), text(4000).as_str()), ("no such file or directory", "errno 4000"));
    }

    #[test]
    fn causes_have_the_names_of_their_numbers() {
        let missing = std::io::Error::from_raw_os_error(2);
        assert_eq!(cause(&missing), "no such file or directory (ENOENT)");
        assert_eq!(cause(&Errno::ACCESS), "permission denied (EACCES)");
        assert_eq!(cause(&std::io::Error::other("its own words")), "its own words");
    }
}

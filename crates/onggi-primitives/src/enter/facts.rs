//! What a plan to enter namespaces has to know: the caller's, the process's, and what files keep.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use onggi_spec::capability;
use onggi_sys::ns;

use super::EnterRequest;
use crate::{Kind, PrimitiveError, process, process_capabilities};

/// The type of nsfs in statfs(2) (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Facts about the caller and about what is to be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnterFacts {
    /// Namespaces of the caller, by inode number.
    pub own: BTreeMap<Kind, u64>,
    /// Those of the process, without those that the caller may not see.
    pub theirs: BTreeMap<Kind, u64>,
    /// What each file of the request keeps.
    pub files: Vec<FileFacts>,
    /// The caller has CAP_SYS_ADMIN.
    pub privileged: bool,
}

/// What a file keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Of which kind it is.
    pub kind: Kind,
    /// Its inode number.
    pub inode: u64,
}

impl EnterFacts {
    /// Looks.
    ///
    /// # Errors
    /// There is no such process, a file keeps no namespace or one of another kind.
    pub fn look(request: &EnterRequest) -> Result<Self, PrimitiveError> {
        let own = std::process::id().cast_signed();
        let theirs = request.process.as_ref().map(|(pid, _)| process(*pid)).transpose()?;
        let admin = capability::number("CAP_SYS_ADMIN").map_or(0, |number| 1u64 << number);
        Ok(Self {
            own: process(own)?.namespaces,
            theirs: theirs.map(|process| process.namespaces).unwrap_or_default(),
            files: request.files.iter().map(|(kind, file)| kept(*kind, file)).collect::<Result<_, _>>()?,
            privileged: process_capabilities(own)?.effective & admin != 0,
        })
    }
}

fn kept(wanted: Option<Kind>, path: &Path) -> Result<FileFacts, PrimitiveError> {
    let (file, kind) = open(path)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != kind) {
        return Err(PrimitiveError::Refused {
            message: format!("{} keeps a namespace of kind {kind}, none of kind {wanted}", path.display()),
            hint: format!("--{}={}", kind.option(), path.display()),
        });
    }
    let stat =
        rustix::fs::fstat(&file).map_err(|e| PrimitiveError::Read { path: path.to_owned(), source: e.into() })?;
    Ok(FileFacts { kind, inode: stat.st_ino })
}

/// Opens a file of nsfs; what is none is refused by name.
pub(super) fn open(path: &Path) -> Result<(OwnedFd, Kind), PrimitiveError> {
    // Without waiting for whoever writes to a FIFO.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    let file = file.map_err(|e| PrimitiveError::Read { path: path.to_owned(), source: e.into() })?;
    // The request may mean something else to a device.
    let nsfs = rustix::fs::fstatfs(&file).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(NSFS_MAGIC));
    let flag = nsfs.then(|| ns::kind(file.as_fd()).ok()).flatten();
    match flag.and_then(|flag| Kind::ALL.into_iter().find(|kind| kind.flag() == flag)) {
        Some(kind) => Ok((file, kind)),
        None => Err(PrimitiveError::NoNamespace { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Which, *};

    #[test]
    fn what_cannot_be_entered_is_named() {
        let process = |pid| EnterRequest { process: Some((pid, Which::All)), ..EnterRequest::default() };
        let gone = EnterFacts::look(&process(i32::MAX));
        assert!(matches!(gone, Err(PrimitiveError::NoProcess { pid: i32::MAX })), "{gone:?}");
        let file = |kind, path: &str| EnterRequest { files: vec![(kind, path.into())], ..EnterRequest::default() };
        let plain = EnterFacts::look(&file(None, "/etc/passwd"));
        assert!(matches!(&plain, Err(PrimitiveError::NoNamespace { .. })), "{plain:?}");
        let other = EnterFacts::look(&file(Some(Kind::Uts), "/proc/self/ns/net"));
        let told = other.expect_err("it is another kind").to_string();
        assert_eq!(told, "/proc/self/ns/net keeps a namespace of kind net, none of kind uts");
        let own = EnterFacts::look(&file(Some(Kind::Net), "/proc/self/ns/net")).expect("it is ours");
        assert_eq!(own.own.get(&Kind::Net), Some(&own.files[0].inode));
    }
}

//! How overlayfs is told its directories and flags: by system calls, and by mount(8) in scripts. Pure.
//!
//! In `lowerdir`, `upperdir` and `workdir` a colon separates and a comma ends, by whatever call; a backslash before them, or
//! before itself, takes that away (fs/overlayfs/params.c). `lowerdir+` takes one directory as it is.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::shell;

/// Options of overlayfs without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OverlayFlags {
    /// Marks are attributes `user.overlay.*`: in a user namespace.
    pub userxattr: bool,
    /// Nothing is synced; Linux 5.10.
    pub volatile: bool,
}

/// One more than what mount(2) takes of options: a page with a NUL at its end.
const MOUNT_PAGE: usize = 4096;
/// The longest value of fsconfig(2), with the option's name.
const FSCONFIG_VALUE: usize = 255;

impl OverlayFlags {
    /// Their names as options.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [(self.userxattr, "userxattr"), (self.volatile, "volatile")];
        all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name)
    }
}

/// A directory as a value of `upperdir` or `workdir`, or a part of `lowerdir`.
pub fn escaped(dir: &Path) -> Vec<u8> {
    let mut out = Vec::with_capacity(dir.as_os_str().len());
    escape(&mut out, dir);
    out
}

/// Lower directories, topmost first, as the value of `lowerdir`.
pub fn joined<P: AsRef<Path>>(lower: &[P]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, dir) in lower.iter().enumerate() {
        if number > 0 {
            out.push(b':');
        }
        escape(&mut out, dir.as_ref());
    }
    out
}

fn escape(out: &mut Vec<u8>, dir: &Path) {
    for byte in dir.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

/// What one overlay is made of.
#[derive(Debug, Clone, Copy)]
pub struct Directories<'a, P = PathBuf> {
    /// Topmost first.
    pub lower: &'a [P],
    /// Upper and work directory.
    pub upper: Option<(&'a Path, &'a Path)>,
}

impl<P: AsRef<Path>> Directories<'_, P> {
    /// The options of mount(2).
    pub fn data<S: AsRef<str>>(&self, options: impl IntoIterator<Item = S>) -> Vec<u8> {
        let mut data = b"lowerdir=".to_vec();
        data.extend(joined(self.lower));
        for (key, dir) in self.upper.iter().flat_map(|(upper, work)| [(",upperdir=", upper), (",workdir=", work)]) {
            data.extend_from_slice(key.as_bytes());
            escape(&mut data, dir);
        }
        for option in options {
            data.push(b',');
            data.extend_from_slice(option.as_ref().as_bytes());
        }
        data
    }

    /// Lines of sh(1) that mount it by mount(8) at the word `at`. A name with a character that separates options gets
    /// another one for the moment: versions of mount(8) differ in what they take for an escape.
    pub fn command<S: AsRef<str>>(&self, source: &str, options: impl IntoIterator<Item = S>, at: &str) -> String {
        let mut links = Vec::new();
        let mut word = |dir: &Path| {
            if !dir.as_os_str().as_bytes().iter().any(|b| b":,\\\"".contains(b)) {
                return shell::path(dir);
            }
            let link = format!("\"$T/{}\"", links.len());
            links.push(format!("ln -s {} {link}\n", shell::path(dir)));
            link
        };
        let lower: Vec<String> = self.lower.iter().map(|dir| word(dir.as_ref())).collect();
        let mut rest = Vec::new();
        if let Some((upper, work)) = self.upper {
            rest.push(format!("upperdir={}", word(upper)));
            rest.push(format!("workdir={}", word(work)));
        }
        rest.extend(options.into_iter().map(|option| shell::quote(option.as_ref())));
        let joined = format!("lowerdir={}", lower.join(":"));
        let length = joined.len() + rest.iter().map(|option| option.len() + 1).sum::<usize>();
        let (note, how, lower) = match length {
            // mount(2), which older versions of mount(8) use, takes no more.
            MOUNT_PAGE.. => {
                let each: Vec<String> = lower.iter().map(|dir| format!("lowerdir+={dir}")).collect();
                ("# more than a page: needs mount(8) 2.39 and Linux 6.8\n", "", each.join(","))
            }
            // Newer ones use fsconfig(2), which takes no longer value than this.
            _ if joined.len() > FSCONFIG_VALUE => ("", "LIBMOUNT_FORCE_MOUNT2=always ", joined),
            _ => ("", "", joined),
        };
        let text = [vec![lower], rest].concat().join(",");
        let command = format!("{how}mount -t overlay -o {text} {} {at}", shell::quote(source));
        match links.is_empty() {
            true => format!("{note}{command}"),
            false => format!("{note}T=$(mktemp -d)\n{}{command}\nrm -r \"$T\"", links.concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_separates_is_escaped_in_every_directory() {
        let lower = [PathBuf::from("/a:b"), PathBuf::from("/c,d\\e")];
        let all = Directories { lower: &lower, upper: Some((Path::new("/u:"), Path::new("/w,"))) };
        let flags = OverlayFlags { userxattr: true, volatile: true };
        let want = r"lowerdir=/a\:b:/c\,d\\e,upperdir=/u\:,workdir=/w\,,userxattr,volatile";
        assert_eq!(String::from_utf8(all.data(flags.names())).unwrap(), want);
        assert_eq!(Directories::<PathBuf> { lower: &lower[..1], upper: None }.data([""; 0]), b"lowerdir=/a\\:b");
    }

    #[test]
    fn a_name_that_would_be_two_options_has_another_one_in_the_script() {
        let lower = [Path::new("/a:b"), Path::new("/c d")];
        let line = Directories { lower: &lower, upper: None }.command("overlay", ["ro"], "/t");
        let expected = "T=$(mktemp -d)\nln -s /a:b \"$T/0\"\nmount -t overlay -o lowerdir=\"$T/0\":'/c d',ro overlay /t\nrm -r \"$T\"";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_says_how_mount_is_to_take_what_is_long() {
        let line = |lower: &[PathBuf]| Directories { lower, upper: None }.command("overlay", ["ro"], "/t");
        let dirs = |count: usize| (0..count).map(|i| PathBuf::from(format!("/layers/{i:064}"))).collect::<Vec<_>>();
        assert!(line(&dirs(3)).starts_with("mount -t overlay -o lowerdir=/layers/"));
        let some = line(&dirs(4));
        assert!(some.starts_with("LIBMOUNT_FORCE_MOUNT2=always mount -t overlay -o lowerdir=/layers/"), "{some}");
        let many = line(&dirs(60));
        assert!(many.contains("\nmount -t overlay -o lowerdir+=/layers/0") && !many.contains("MOUNT2"), "{many}");
        assert_eq!(many.matches("lowerdir+=/layers/").count(), 60);
    }
}

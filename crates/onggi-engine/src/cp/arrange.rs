//! Where the things that are copied go: Docker's rules, which are those of cp(1) but for `/.` at the end. Pure.

use std::path::{Component, Path, PathBuf};

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct From<'a> {
    /// As it was written.
    pub(super) shown: &'a str,
    /// It is a directory.
    pub(super) directory: bool,
    /// What is in it, rather than the directory itself: it was written with `/.` at the end.
    pub(super) content: bool,
}

/// What is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// A regular file or a link that leads nowhere.
    File,
    /// A device, a pipe, a socket.
    Special,
}

/// How it is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// Into the directory that is there, under its own name.
    Into,
    /// Under the name of the destination.
    As,
    /// What is in the directory goes into the directory that is there.
    Content,
}

/// Why it cannot be done, and what helps.
pub(super) type Refusal = (String, &'static str);

/// The arrangement of one copy. `slash`: the destination was written with a slash at the end.
pub(super) fn arrange(from: From<'_>, there: There, slash: bool) -> Result<Arrangement, Refusal> {
    match (from.directory, there) {
        (_, There::Special) => Err((
            "the destination is a device or another special file".to_owned(),
            "name a file or a directory; `-` is standard output",
        )),
        (true, There::Nothing) => Ok(Arrangement::As),
        (true, There::Directory) if from.content => Ok(Arrangement::Content),
        (_, There::Directory) => Ok(Arrangement::Into),
        (true, There::File) => Err((
            format!("{} is a directory, and the destination is a file", from.shown),
            "name a directory, or one that is not there yet",
        )),
        (false, There::Nothing) if slash => Err((
            "the destination directory is not there".to_owned(),
            "make it first, or leave the slash at its end out",
        )),
        (false, There::File) if slash => {
            Err(("the destination is a file and no directory".to_owned(), "leave the slash at its end out"))
        }
        (false, There::Nothing | There::File) => Ok(Arrangement::As),
    }
}

/// A path as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Absolute, without `.`, `..` and slashes at the end.
    pub(super) path: PathBuf,
    /// It ends with a slash, or `/.`: it is a directory.
    pub(super) slash: bool,
    /// It ends with `/.`, or is the root.
    pub(super) content: bool,
}

impl Written {
    /// A path below `base`, which is absolute.
    pub(super) fn parse(text: &str, base: &Path) -> Self {
        let content = text == "." || text.ends_with("/.");
        let mut path = PathBuf::from("/");
        for component in base.join(text).components() {
            match component {
                Component::ParentDir => drop(path.pop()),
                Component::Normal(name) => path.push(name),
                _ => {}
            }
        }
        let root = path.parent().is_none();
        let slash = content || root || text.ends_with('/') || text == ".." || text.ends_with("/..");
        Self { path, slash, content: content || root }
    }

    /// The name under which it is copied into a directory; `.` for the root.
    pub(super) fn name(&self) -> &[u8] {
        self.path.file_name().map_or(b".", |name| name.as_encoded_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(directory: bool, content: bool, there: There, slash: bool) -> Option<Arrangement> {
        arrange(From { shown: "x", directory, content }, there, slash).ok()
    }

    #[test]
    fn the_rules_are_dockers() {
        use Arrangement::{As, Content, Into};
        for (directory, content, there, slash, want) in [
            (false, false, There::Nothing, false, Some(As)),
            (false, false, There::Nothing, true, None),
            (false, false, There::File, false, Some(As)),
            (false, false, There::File, true, None),
            (false, false, There::Directory, false, Some(Into)),
            (true, false, There::Nothing, false, Some(As)),
            (true, false, There::Nothing, true, Some(As)),
            (true, true, There::Nothing, false, Some(As)),
            (true, false, There::File, false, None),
            (true, false, There::Directory, false, Some(Into)),
            (true, true, There::Directory, false, Some(Content)),
            (false, false, There::Special, false, None),
            (true, false, There::Special, false, None),
        ] {
            assert_eq!(of(directory, content, there, slash), want, "{directory} {content} {there:?} {slash}");
        }
    }

    #[test]
    fn paths_are_read_with_what_stands_at_their_end() {
        let read = |text: &str| {
            let w = Written::parse(text, Path::new("/base"));
            (w.path.display().to_string(), w.slash, w.content, String::from_utf8_lossy(w.name()).into_owned())
        };
        let want = |path: &str, slash, content, name: &str| (path.to_owned(), slash, content, name.to_owned());
        assert_eq!(read("a/b"), want("/base/a/b", false, false, "b"));
        assert_eq!(read("/a/b/"), want("/a/b", true, false, "b"));
        assert_eq!(read("/a/b/."), want("/a/b", true, true, "b"));
        assert_eq!(read("."), want("/base", true, true, "base"));
        assert_eq!(read("/"), want("/", true, true, "."));
        assert_eq!(read("../../../x"), want("/x", false, false, "x"));
        assert_eq!(read(".."), want("/", true, true, "."));
    }
}

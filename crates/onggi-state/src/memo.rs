//! What the database said of a pull, written down beside it: the next pull of an image that is here opens no database as
//! long as nobody has written to it.
//!
//! ```text
//! <runroot>/pulled/<hash of database and name>     JSON
//! ```
//!
//! A memo is never right by itself: it holds a [`Stamp`] of the files of the database, and counts only while they are the same.
//! Every commit changes them, whoever makes it (SQLite, "WAL-mode File Format"). It does not outlive a boot, as a power cut may
//! take commits back. It is no loss when it cannot be written or read.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::Read as _,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use onggi_spec::ImageReference;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{
    Pulled,
    db::suffixed,
    files::{Durability, atomic_write, boot_id, make_dir},
    images::{HOUR, name_text},
};

/// How long nobody must have written to the database for its times to tell a later writing apart, in nanoseconds: times of
/// files have the granularity of the timer interrupt, 10 ms at most (before Linux 6.13).
const SETTLED: i64 = 100_000_000;
/// Bytes before the frames of a WAL, and before the page of each.
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// Longest memo that is read; an image of a hundred layers takes 30 KiB.
const MAX_MEMO: u64 = 1 << 20;

/// The state that the files of a database are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    boot: String,
    database: FileStamp,
    /// None where there is no WAL.
    wal: Option<FileStamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Unix time in nanoseconds. Not that of the last change of any kind: SQLite gives the WAL its owner at each opening.
    modified: i64,
}

impl Stamp {
    /// Of the database below `root`; `None` where there is none.
    pub fn of(root: &Path) -> Option<Self> {
        let database = root.join("state.db");
        let (wal, found) = (suffixed(&database, "-wal"), FileStamp::of(&database)?);
        Some(Self { boot: boot_id().ok()?.to_owned(), database: found, wal: FileStamp::of(&wal) })
    }

    /// Whether all that the WAL holds is in its index, `index`. What is not may be of a writer that was killed between the two, and
    /// is found by whoever makes the index anew: a commit that no file shows. The caller holds the lock of writers.
    /// (SQLite, "WAL-Index File Format": the page size is at 14, the number of frames at 16, as the machine has them.)
    pub(crate) fn is_indexed(&self, index: &Path) -> bool {
        let frames = |header: &[u8]| {
            let page = u64::from(u16::from_ne_bytes(header.get(14..16)?.try_into().ok()?));
            let frames = u64::from(u32::from_ne_bytes(header.get(16..20)?.try_into().ok()?));
            Some((if page == 1 { 65536 } else { page }, frames))
        };
        let length = self.wal.map_or(0, |wal| wal.size);
        let mut header = [0; 20];
        let read = fs::File::open(index).and_then(|mut file| file.read_exact(&mut header));
        match read.ok().and_then(|()| frames(&header)) {
            Some((_, 0)) => length == 0,
            Some((page, frames)) => length == WAL_HEADER + frames * (FRAME_HEADER + page),
            None => false,
        }
    }

    /// Whether a commit after `now` would surely give another stamp.
    pub(crate) fn is_settled(&self, now: i64) -> bool {
        let mut files = std::iter::once(&self.database).chain(&self.wal);
        files.all(|file| file.modified.saturating_add(SETTLED) < now)
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified: found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()),
        })
    }
}

/// A memo, as it is stored.
#[derive(Serialize, Deserialize)]
struct Memo {
    stamp: Stamp,
    name: String,
    pulled: Pulled,
}

/// What is known of `name` without the database, if that would say the same: `stamp` and `now` (unix time in nanoseconds) are of
/// this moment.
pub fn recall(runroot: &Path, stamp: &Stamp, name: &ImageReference, now: i64) -> Option<Pulled> {
    // Neither a link nor a FIFO that somebody put there is followed or waited for, and another user's file is none of ours.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::File::from(rustix::fs::open(place(runroot, stamp, name), flags, Mode::empty()).ok()?);
    let found = file.metadata().ok().filter(|found| found.is_file() && found.len() <= MAX_MEMO)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let mut text = Vec::with_capacity(usize::try_from(found.len()).ok()? + 1);
    file.take(MAX_MEMO).read_to_end(&mut text).ok()?;
    let memo: Memo = serde_json::from_slice(&text).ok()?;
    let noted = memo.pulled.noted && memo.pulled.image.pulled_at > now.saturating_sub(HOUR);
    (memo.stamp == *stamp && memo.name == name_text(name)).then_some(Pulled { noted, ..memo.pulled })
}

/// Writes down what the database said with `stamp` ([`State::pulled_for_good`](crate::State::pulled_for_good)), which was not
/// taken before `now` (unix time in nanoseconds). Nothing is written while others write to the database. Memos of former states
/// go.
pub fn note(runroot: &Path, stamp: Stamp, name: &ImageReference, pulled: &Pulled, now: i64) {
    if !stamp.is_settled(now) {
        return;
    }
    let path = place(runroot, &stamp, name);
    forget(&runroot.join(DIRECTORY), &stamp);
    let memo = Memo { stamp, name: name_text(name), pulled: pulled.clone() };
    let made = make_dir(&runroot.join(DIRECTORY)).is_ok();
    if let (true, Ok(text)) = (made, serde_json::to_vec(&memo)) {
        let _ = atomic_write(&path, &text, 0o600, Durability::Crash);
    }
}

/// Removes memos that were written before the database was written to last: those of this one count no more, and those of another
/// are no loss.
fn forget(directory: &Path, stamp: &Stamp) {
    let last = stamp.wal.map_or(stamp.database.modified, |wal| wal.modified.max(stamp.database.modified));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if FileStamp::of(&entry.path()).is_none_or(|file| file.modified < last) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

const DIRECTORY: &str = "pulled";

/// One file for each name and database; what is in it is compared as a whole.
fn place(runroot: &Path, stamp: &Stamp, name: &ImageReference) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (stamp.database.device, stamp.database.inode, name_text(name)).hash(&mut hasher);
    runroot.join(DIRECTORY).join(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use onggi_spec::Digest;

    use super::*;
    use crate::{ImageRecord, PulledParts, State};

    const NOW: i64 = 1_800_000_000_000_000_000;

    fn digest(letter: &str) -> Digest {
        format!("sha256:{}", letter.repeat(64)).parse().unwrap()
    }

    fn pulled(name: &str) -> Pulled {
        let image = ImageRecord {
            name: Some(name.parse().unwrap()),
            manifest_digest: digest("1"),
            config_digest: digest("2"),
            chain_ids: vec![digest("3")],
            layer_digests: vec![digest("4")],
            size: 5,
            created: 6,
            pulled_at: NOW - 1,
        };
        let parts = PulledParts {
            platform: "linux/amd64".to_owned(),
            documents: vec![digest("1"), digest("2")],
            layers: vec![(digest("4"), 7)],
        };
        Pulled { image, parts, noted: true }
    }

    /// A store and a run root with a memo of `a:1`, and the stamp that it counts for.
    fn noted() -> (tempfile::TempDir, Stamp, ImageReference) {
        let dir = tempfile::tempdir().unwrap();
        let found = pulled("a:1");
        let mut state = State::open(dir.path()).unwrap();
        state.put_pulled(&found.image, &found.parts).unwrap();
        state.checkpoint().unwrap();
        let (stamp, name) = (Stamp::of(dir.path()).unwrap(), found.image.name.clone().unwrap());
        note(dir.path(), stamp.clone(), &name, &found, NOW);
        assert_eq!(recall(dir.path(), &stamp, &name, NOW), Some(found));
        (dir, stamp, name)
    }

    #[test]
    fn a_memo_counts_until_somebody_writes_to_the_database() {
        let (dir, stamp, name) = noted();
        assert_eq!(Stamp::of(dir.path()).as_ref(), Some(&stamp), "nobody has written yet");
        State::open(dir.path()).unwrap().pulled(&name, NOW).unwrap().expect("a reader changes nothing");
        assert_eq!(Stamp::of(dir.path()).as_ref(), Some(&stamp));
        let mut state = State::open(dir.path()).unwrap();
        state.take_name(&name).unwrap();
        let written = Stamp::of(dir.path()).unwrap();
        assert_eq!(recall(dir.path(), &written, &name, NOW), None);
        // As long before: emptied again, and so as long as it was.
        state.checkpoint().unwrap();
        let emptied = Stamp::of(dir.path()).unwrap();
        assert_eq!(emptied.wal.map(|wal| wal.size), stamp.wal.map(|wal| wal.size));
        assert_eq!(recall(dir.path(), &emptied, &name, NOW), None);
    }

    #[test]
    fn a_memo_is_of_one_name_one_database_and_one_boot() {
        let (dir, stamp, name) = noted();
        assert_eq!(recall(dir.path(), &stamp, &"a:2".parse().unwrap(), NOW), None);
        let other = tempfile::tempdir().unwrap();
        State::open(other.path()).unwrap();
        assert_eq!(recall(dir.path(), &Stamp::of(other.path()).unwrap(), &name, NOW), None);
        let later = Stamp { boot: "another".to_owned(), ..stamp.clone() };
        assert_eq!(recall(dir.path(), &later, &name, NOW), None);
        // The file of another name, put in this one's place.
        note(dir.path(), stamp.clone(), &"a:2".parse().unwrap(), &pulled("a:2"), NOW);
        fs::rename(place(dir.path(), &stamp, &"a:2".parse().unwrap()), place(dir.path(), &stamp, &name)).unwrap();
        assert_eq!(recall(dir.path(), &stamp, &name, NOW), None);
        assert!(Stamp::of(&dir.path().join("nowhere")).is_none());
    }

    #[test]
    fn a_pull_is_to_be_noted_again_after_an_hour() {
        let (dir, stamp, name) = noted();
        let noted = |now| recall(dir.path(), &stamp, &name, now).unwrap().noted;
        assert!(noted(NOW - 2 + HOUR) && !noted(NOW - 1 + HOUR));
    }

    #[test]
    fn what_is_written_to_right_now_is_not_noted_and_what_is_no_memo_not_read() {
        let (dir, stamp, name) = noted();
        let path = place(dir.path(), &stamp, &name);
        for wrong in ["", "{}", "null", &"x".repeat(MAX_MEMO as usize + 1)] {
            fs::write(&path, wrong).unwrap();
            assert_eq!(recall(dir.path(), &stamp, &name, NOW), None);
        }
        fs::remove_file(&path).unwrap();
        let last = stamp.wal.map_or(stamp.database.modified, |wal| wal.modified.max(stamp.database.modified));
        note(dir.path(), stamp.clone(), &name, &pulled("a:1"), last + SETTLED);
        assert!(!path.exists());
        note(dir.path(), stamp.clone(), &name, &pulled("a:1"), last + SETTLED + 1);
        assert!(path.exists());
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        fs::rename(dir.path().join("link"), &path).unwrap();
        assert_eq!(recall(dir.path(), &stamp, &name, NOW), None);
    }

    #[test]
    fn a_state_counts_only_where_nobody_is_about_to_commit_and_nothing_waits_to_be_found() {
        let (dir, stamp, name) = noted();
        let state = State::open(dir.path()).unwrap();
        let found = || state.pulled_for_good(&name, NOW).unwrap();
        assert_eq!((found().0.is_some(), found().1), (true, Some(stamp.clone())));
        assert_eq!(state.pulled_for_good(&name, 0).unwrap().1, None, "it was written to after that");
        let writer = rusqlite::Connection::open(state.path()).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!((found().0.is_some(), found().1), (true, None), "a writer may have written all but the index");
        writer.execute_batch("UPDATE images SET size = 6; COMMIT").unwrap();
        assert!(found().1.is_some_and(|later| later != stamp));
        // What a writer leaves that is killed before the index is written.
        let wal = suffixed(state.path(), "-wal");
        let frames = fs::read(&wal).unwrap();
        fs::write(&wal, [&frames[..], &vec![1; 4120]].concat()).unwrap();
        assert_eq!((found().0.is_some(), found().1), (true, None));
        fs::write(&wal, frames).unwrap();
        assert!(found().1.is_some());
    }

    #[test]
    fn memos_of_former_states_go() {
        let (dir, stamp, _) = noted();
        let memos = || fs::read_dir(dir.path().join(DIRECTORY)).unwrap().count();
        let other: ImageReference = "a:2".parse().unwrap();
        note(dir.path(), stamp.clone(), &other, &pulled("a:2"), NOW);
        assert_eq!(memos(), 2);
        let file = stamp.wal.unwrap_or(stamp.database);
        let later = FileStamp { modified: NOW - SETTLED - 1, ..file };
        note(dir.path(), Stamp { wal: Some(later), ..stamp }, &other, &pulled("a:2"), NOW);
        assert_eq!(memos(), 1);
    }
}

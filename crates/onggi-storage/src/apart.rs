//! An archive is decompressed, and looked at as it passes, on a thread that can do nothing else.
//!
//! What `load` and `import` read comes from anywhere. The thread may write only below one directory and execute nothing
//! (Landlock), so that a flaw in a decoder is not worth much; without Landlock in the kernel the decoder's own care has
//! to do. The bytes are handed on as they are; what is no archive, and what has ended and goes on, ends the reading before a
//! disk is full of it.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use onggi_sys::{fs, landlock};

use crate::decompress::Decoder;
use crate::error::{EntryProblem, Result, StorageError, StoreContext, shown};
use crate::limits::{CHUNK, CHUNKS, MAX_ENTRIES, MAX_UNPACKED};
use crate::tar::{Kind, Source, TarReader};

/// What has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Bytes of the decompressed archive.
    pub bytes: u64,
    /// Its entries. An archive may have none: it is then its end alone, which is zeros.
    pub entries: u64,
}

/// Gives the pieces of a decompressed archive to `take`. `dir` is the one directory that could still be written to.
///
/// # Errors
/// It is damaged, no archive, without end, asks for too much memory or cannot be read; `take` fails.
pub fn decompress_apart<E: From<StorageError>>(
    archive: impl Read + Send,
    dir: &Path,
    mut take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<Passed, E> {
    let place = fs::open_dir(dir).store("open", dir)?;
    thread::scope(|scope| {
        let (pieces, received) = sync_channel(CHUNKS);
        let worker = thread::Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || {
                let _ = landlock::write_only_below(place.as_fd());
                produce(archive, pieces)
            })
            .map_err(|e| StorageError::Pipeline { reason: format!("start a thread: {e}") })?;
        let mut bytes = 0;
        let mut taken = Ok(());
        for piece in &received {
            bytes += piece.len() as u64;
            taken = take(&piece);
            if taken.is_err() {
                break;
            }
        }
        // Closes the channel, so that a decoder that is still busy ends.
        drop(received);
        let produced = worker.join().map_err(|_| StorageError::Pipeline { reason: "a decoder failed".to_owned() })?;
        taken?;
        Ok(Passed { bytes, entries: produced? })
    })
}

/// The decoder as a source of entries that hands on what it reads.
struct Passing<'a> {
    decoder: Decoder<'a>,
    pieces: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    failed: Option<StorageError>,
}

impl Source for &mut Passing<'_> {
    fn fill(&mut self) -> &[u8] {
        if self.at == self.piece.len() && !self.ended {
            self.next();
        }
        &self.piece[self.at..]
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Passing<'_> {
    fn next(&mut self) {
        self.piece.resize(CHUNK, 0);
        self.at = 0;
        let filled = self.decoder.fill(&mut self.piece);
        let n = *filled.as_ref().unwrap_or(&0);
        self.failed = filled.err();
        self.piece.truncate(n);
        // Nobody listens any more when the other side has failed; it says why.
        let sent = n > 0 && self.pieces.send(self.piece.clone()).is_ok();
        self.ended = !sent || n < CHUNK;
        if !sent {
            self.piece.clear();
        }
    }
}

/// Returns how many entries there were.
fn produce(archive: impl Read, pieces: SyncSender<Vec<u8>>) -> Result<u64> {
    let decoder = Decoder::of_archive(archive)?;
    let mut passing = Passing { decoder, pieces, piece: Vec::new(), at: 0, ended: false, failed: None };
    let looked = look(TarReader::new(&mut passing));
    match passing.failed {
        // The stream's error is why the archive seems to end.
        Some(e) => Err(e),
        None => looked,
    }
}

fn look(mut tar: TarReader<&mut Passing<'_>>) -> Result<u64> {
    let (mut entries, mut content) = (0, 0u64);
    while let Some(entry) = tar.next_entry()? {
        entries += 1;
        if let Kind::File { size } | Kind::Sparse { size, .. } = entry.kind {
            content = content.saturating_add(size);
        }
        let reason = match (entries > MAX_ENTRIES, content > MAX_UNPACKED) {
            (true, _) => EntryProblem::TooManyEntries,
            (_, true) => EntryProblem::TooLarge,
            _ => continue,
        };
        return Err(StorageError::Entry { entry: shown(&entry.path), reason });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, repeat};

    use super::*;
    use crate::tar::{Entry, TarErrorKind, TarWriter};

    fn apart(data: impl Read + Send, take: impl FnMut(&[u8]) -> Result<()>) -> Result<Passed> {
        let dir = tempfile::tempdir().unwrap();
        decompress_apart(data, dir.path(), take)
    }

    fn file(size: u64) -> Entry {
        let (path, mtime) = (b"file".to_vec(), onggi_sys::fs::Time::default());
        Entry { offset: 0, path, kind: Kind::File { size }, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }

    /// The beginning of an archive: a file of that many bytes is to come.
    fn head(size: u64) -> Cursor<Vec<u8>> {
        let mut out = Vec::new();
        TarWriter::new(&mut out).entry(&file(size)).unwrap();
        Cursor::new(out)
    }

    /// An archive of one file.
    fn tar(content: &[u8]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(&file(content.len() as u64)).unwrap();
        writer.content(content).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn everything_arrives_in_order() {
        let data = tar(&(0..3_000_000u32).map(|i| (i >> 8) as u8).collect::<Vec<u8>>());
        let mut out = Vec::new();
        let passed = apart(&zstd::encode_all(&data[..], 1).unwrap()[..], |piece| {
            out.extend_from_slice(piece);
            Ok(())
        });
        assert_eq!(passed.unwrap(), Passed { bytes: data.len() as u64, entries: 1 });
        assert!(out == data);
    }

    #[test]
    fn a_damaged_end_is_an_error_although_the_beginning_was_taken() {
        let mut blob = zstd::encode_all(&tar(&vec![7; 3_000_000])[..], 1).unwrap();
        blob.truncate(blob.len() - 2);
        assert!(matches!(apart(&blob[..], |_| Ok(())), Err(StorageError::TruncatedStream { .. })));
    }

    #[test]
    fn the_takers_error_ends_it() {
        let stop = || StorageError::Pipeline { reason: "enough".to_owned() };
        let mut pieces = 0;
        let e = apart(head(1 << 39).chain(repeat(7)), |_| {
            pieces += 1;
            if pieces == 3 { Err(stop()) } else { Ok(()) }
        });
        assert!(matches!(e, Err(StorageError::Pipeline { reason }) if reason == "enough"));
    }

    #[test]
    fn streams_without_end_are_left_at_a_bound() {
        let kind = |stream: Box<dyn Read + Send>| match apart(stream, |_| Ok(())) {
            Err(StorageError::Archive { source }) => source.kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(Box::new(repeat(7))), TarErrorKind::Checksum);
        let endless = |kind: TarErrorKind| matches!(kind, TarErrorKind::EndlessZeros { .. });
        assert!(endless(kind(Box::new(repeat(0)))));
        assert!(endless(kind(Box::new(Cursor::new(tar(b"x")).chain(repeat(0))))));
        assert_eq!(kind(Box::new(Cursor::new(tar(b"x")).chain(repeat(7)))), TarErrorKind::TrailingData);
        let told = apart(head(1 << 60).chain(repeat(7)), |_| Ok(()));
        assert!(matches!(told, Err(StorageError::Entry { reason: EntryProblem::TooLarge, .. })), "{told:?}");
    }

    #[test]
    fn an_archive_of_nothing_has_no_entries() {
        assert_eq!(apart(&[0; 1024][..], |_| Ok(())).unwrap(), Passed { bytes: 1024, entries: 0 });
        assert_eq!(apart(&b""[..], |_| Ok(())).unwrap(), Passed { bytes: 0, entries: 0 });
    }

    #[test]
    fn the_thread_can_execute_nothing_and_write_nowhere_else() {
        /// An archive that tries both when it is read.
        struct Trying<'a>(&'a Path, bool);
        impl Read for Trying<'_> {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                self.1 = true;
                assert!(std::fs::write(self.0.join("outside"), "x").is_err());
                assert!(std::process::Command::new("/bin/true").status().is_err());
                Ok(0)
            }
        }
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut archive = Trying(other.path(), false);
        let done = decompress_apart::<StorageError>(&mut archive, dir.path(), |_| Ok(()));
        assert_eq!(done.unwrap().bytes, 0);
        assert!(archive.1 && !other.path().join("outside").exists());
    }
}

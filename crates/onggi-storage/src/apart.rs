//! Decompression of an archive on a thread that can do nothing else.
//!
//! What `load` and `import` read comes from anywhere. The thread that decompresses may write only below one directory and
//! execute nothing (Landlock), so that a flaw in a decoder is not worth much; without Landlock in the kernel the
//! decoder's own care has to do.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use onggi_sys::{fs, landlock};

use crate::decompress::Decoder;
use crate::error::{Result, StorageError, StoreContext};
use crate::limits::{CHUNK, CHUNKS};

/// Gives the pieces of a decompressed archive to `take`; returns how many bytes there were. `dir` is the one directory that
/// could still be written to.
///
/// # Errors
/// The archive is damaged, asks for too much memory or cannot be read; `take` fails.
pub fn decompress_apart<E: From<StorageError>>(
    archive: impl Read + Send,
    dir: &Path,
    mut take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<u64, E> {
    let place = fs::open_dir(dir).store("open", dir)?;
    thread::scope(|scope| {
        let (pieces, received) = sync_channel(CHUNKS);
        let worker = thread::Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || {
                let _ = landlock::write_only_below(place.as_fd());
                produce(archive, &pieces)
            })
            .map_err(|e| StorageError::Pipeline { reason: format!("start a thread: {e}") })?;
        let mut total = 0;
        let mut taken = Ok(());
        for piece in &received {
            total += piece.len() as u64;
            taken = take(&piece);
            if taken.is_err() {
                break;
            }
        }
        // Closes the channel, so that a decoder that is still busy ends.
        drop(received);
        let produced = worker.join().map_err(|_| StorageError::Pipeline { reason: "a decoder failed".to_owned() })?;
        taken?;
        produced?;
        Ok(total)
    })
}

fn produce(archive: impl Read, pieces: &SyncSender<Vec<u8>>) -> Result<()> {
    let mut decoder = Decoder::of_archive(archive)?;
    loop {
        let mut piece = vec![0; CHUNK];
        let n = decoder.fill(&mut piece)?;
        piece.truncate(n);
        // Nobody listens any more: the other side has failed and says why.
        if (n > 0 && pieces.send(piece).is_err()) || n < CHUNK {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(data: &[u8], take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let dir = tempfile::tempdir().unwrap();
        decompress_apart(data, dir.path(), take)
    }

    #[test]
    fn everything_arrives_in_order() {
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 8) as u8).collect();
        let mut out = Vec::new();
        let total = apart(&zstd::encode_all(&data[..], 1).unwrap(), |piece| {
            out.extend_from_slice(piece);
            Ok(())
        });
        assert_eq!((total.unwrap(), out), (3_000_000, data));
    }

    #[test]
    fn a_damaged_end_is_an_error_although_the_beginning_was_taken() {
        let data = vec![7; 3_000_000];
        let mut blob = zstd::encode_all(&data[..], 1).unwrap();
        blob.truncate(blob.len() - 2);
        assert!(matches!(apart(&blob, |_| Ok(())), Err(StorageError::TruncatedStream { .. })));
    }

    #[test]
    fn the_takers_error_ends_it() {
        let endless = std::io::repeat(7).take(1 << 40);
        let dir = tempfile::tempdir().unwrap();
        let stop = || StorageError::Pipeline { reason: "enough".to_owned() };
        let mut pieces = 0;
        let e = decompress_apart(endless, dir.path(), |_| {
            pieces += 1;
            if pieces == 3 { Err(stop()) } else { Ok(()) }
        });
        assert!(matches!(e, Err(StorageError::Pipeline { reason }) if reason == "enough"));
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
        assert_eq!(done.unwrap(), 0);
        assert!(archive.1 && !other.path().join("outside").exists());
    }
}

//! Decompress on one thread, extract on another.
//!
//! Two threads because inflating and creating files each keep one core busy. The extracting side, which has more time,
//! hashes each piece before it sees it. If either side fails the other stops, because the channel between them closes.

use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use onggi_spec::Digest;
use sha2::{Digest as _, Sha256};

use crate::decompress::Decoder;
use crate::error::{Result, StorageError};
use crate::limits::{CHUNK, CHUNKS};
use crate::tar::Source;

/// The extracting end: buffers as they come, hashed, and returned for reuse.
pub(crate) struct Chunks {
    filled: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hash: Sha256,
}

impl Source for &mut Chunks {
    fn fill(&mut self) -> &[u8] {
        if self.at == self.current.len() {
            let next = self.filled.recv().unwrap_or_default();
            self.hash.update(&next);
            let used = std::mem::replace(&mut self.current, next);
            self.at = 0;
            // The other side may have finished: then nobody needs the buffer.
            let _ = self.empty.send(used);
        }
        &self.current[self.at..]
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Chunks {
    /// Closes the channel, so that a producer that is still busy ends; what has passed.
    fn close(self) -> Sha256 {
        self.hash
    }
}

/// Runs `extract` over the decompressed blob; returns its result and the digest of what it was given: the layer's
/// DiffID, as the extractor reads to the end.
///
/// # Errors
/// The decompressor's error when it has one (the extractor then only saw the stream end), else the extractor's.
pub(crate) fn run<T>(blob: impl Read + Send, extract: impl FnOnce(&mut Chunks) -> Result<T>) -> Result<(T, Digest)> {
    let (filled_in, filled) = sync_channel(CHUNKS);
    let (empty, empty_out) = channel();
    std::thread::scope(|scope| {
        let producer = std::thread::Builder::new()
            .name("inflate".to_owned())
            .spawn_scoped(scope, move || produce(blob, &filled_in, &empty_out))
            .map_err(|e| StorageError::Pipeline { reason: e.to_string() })?;
        let mut chunks = Chunks { filled, empty, current: Vec::new(), at: 0, hash: Sha256::new() };
        let extracted = extract(&mut chunks);
        let hash = chunks.close();
        let produced = producer.join().map_err(|_| StorageError::Pipeline { reason: "panic".to_owned() })?;
        match (produced, extracted) {
            (Err(e), _) | (Ok(()), Err(e)) => Err(e),
            (Ok(()), Ok(value)) => Ok((value, Digest::from_sha256(&hash.finalize().into()))),
        }
    })
}

fn produce(blob: impl Read, filled: &SyncSender<Vec<u8>>, empty: &Receiver<Vec<u8>>) -> Result<()> {
    let mut decoder = Decoder::new(blob)?;
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        let n = decoder.fill(&mut buffer)?;
        buffer.truncate(n);
        // A closed channel means that the extractor has failed and says why.
        if (n > 0 && filled.send(buffer).is_err()) || n < CHUNK {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::repeat;

    use super::*;

    #[test]
    fn an_extractor_that_fails_ends_the_reading_of_whatever_follows() {
        let failed = |_: &mut Chunks| Err(StorageError::Pipeline { reason: "enough".to_owned() });
        let told = run::<()>(repeat(7), failed);
        assert!(matches!(told, Err(StorageError::Pipeline { reason }) if reason == "enough"));
    }
}

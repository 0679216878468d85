//! Decompress on one thread, extract on another.
//!
//! Two threads because inflating and creating files each keep one core busy. The tar stream is hashed where it
//! is produced, so that the extractor never sees a byte that is not in the digest. If either side fails, the other
//! stops: the channel between them closes.

use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use onggi_spec::Digest;
use sha2::{Digest as _, Sha256};

use crate::decompress::Decoder;
use crate::error::{Result, StorageError};
use crate::limits::{CHUNK, CHUNKS};
use crate::tar::Source;

/// The extracting end: buffers as they come, returned for reuse.
pub(crate) struct Chunks {
    filled: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Source for Chunks {
    fn fill(&mut self) -> &[u8] {
        if self.at == self.current.len() {
            let next = self.filled.recv().unwrap_or_default();
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

/// Runs `extract` over the decompressed blob; returns its result and the digest of the tar stream (the layer's
/// DiffID).
///
/// # Errors
/// The decompressor's error when it has one (the extractor then only saw the stream end), else the extractor's.
pub(crate) fn run<T>(blob: impl Read + Send, extract: impl FnOnce(Chunks) -> Result<T>) -> Result<(T, Digest)> {
    let (filled_in, filled) = sync_channel(CHUNKS);
    let (empty, empty_out) = channel();
    std::thread::scope(|scope| {
        let producer = std::thread::Builder::new()
            .name("inflate".to_owned())
            .spawn_scoped(scope, move || produce(blob, &filled_in, &empty_out))
            .map_err(|e| StorageError::Pipeline { reason: e.to_string() })?;
        let extracted = extract(Chunks { filled, empty, current: Vec::new(), at: 0 });
        let produced = producer.join().map_err(|_| StorageError::Pipeline { reason: "panic".to_owned() })?;
        match (produced, extracted) {
            (Err(e), _) | (Ok(_), Err(e)) => Err(e),
            (Ok(digest), Ok(value)) => Ok((value, digest)),
        }
    })
}

fn produce(blob: impl Read, filled: &SyncSender<Vec<u8>>, empty: &Receiver<Vec<u8>>) -> Result<Digest> {
    let mut decoder = Decoder::new(blob)?;
    let mut hash = Sha256::new();
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(CHUNK, 0);
        let n = decoder.fill(&mut buffer)?;
        buffer.truncate(n);
        hash.update(&buffer);
        let last = n < CHUNK;
        // A closed channel means that the extractor has failed and says why.
        if (n > 0 && filled.send(buffer).is_err()) || last {
            return Ok(Digest::from_sha256(&hash.finalize().into()));
        }
    }
}

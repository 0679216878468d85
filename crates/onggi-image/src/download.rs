//! One blob from the registry into the store: streamed, counted, hashed, continued after a broken connection.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use onggi_spec::{Digest, progress::ProgressEvent};
use ureq::Body;

use crate::{
    error::ImageError,
    remote::{Remote, content_range_start},
    retry::{self, Again, Failure},
    store::{Begin, BlobStore, BlobWriter, COPY_BUFFER, FinishError, VerifiedBlob},
};

/// Below this rate, over `SLOW_AFTER`, a transfer counts as stalled: 1 KiB/s would take a day for 100 MB.
const SLOWEST_RATE: u64 = 1 << 10;
/// How long a transfer may be slow.
const SLOW_AFTER: Duration = Duration::from_secs(60);
/// Progress is reported every so many bytes.
const REPORT_EVERY: u64 = 1 << 20;
/// An attempt that brought this much does not count as failed: a flaky line still ends.
const WORTH_AN_ATTEMPT: u64 = 1 << 20;

/// How a blob came to be here.
pub(crate) enum Obtained {
    /// It was in the store.
    Present,
    /// It was downloaded and verified now, and is yet to be committed.
    Fresh(VerifiedBlob),
}

/// A blob that is wanted, as a manifest describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'w> {
    /// Its digest.
    pub(crate) digest: &'w Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
}

/// Makes a blob available: from the store, or from the registry, going on where an earlier download broke off.
pub(crate) fn obtain(
    store: &BlobStore,
    registry: &Remote<'_>,
    blob: Wanted<'_>,
    stop: &AtomicBool,
) -> Result<Obtained, ImageError> {
    let digest = || blob.digest.clone();
    let waiting = || registry.progress().event(ProgressEvent::Waiting { digest: digest() });
    let mut pieced_together_before = false;
    loop {
        let writer = match store.begin_download(blob.digest, blob.size, &waiting)? {
            Begin::Exists(_) => {
                registry.progress().event(ProgressEvent::Exists { digest: digest() });
                return Ok(Obtained::Present);
            }
            Begin::Mine(writer) => writer,
        };
        registry.progress().event(ProgressEvent::Download { digest: digest(), total: blob.size });
        // What an earlier attempt left counts as a piece.
        let pieces = u32::from(writer.written() > 0);
        let mut transfer = Transfer { registry, blob, stop, writer, pieces };
        transfer.run(!pieced_together_before)?;
        match transfer.writer.finish() {
            Ok(blob) => {
                registry.progress().event(ProgressEvent::Downloaded { digest: digest() });
                return Ok(Obtained::Fresh(blob));
            }
            // The pieces may be of different content behind one URL: once more in one piece.
            Err(FinishError::WrongDigest { .. }) if transfer.pieces > 1 && !pieced_together_before => {
                pieced_together_before = true;
            }
            Err(FinishError::WrongDigest { expected, actual }) => {
                return Err(ImageError::WrongDigest { registry: registry.name().to_owned(), expected, actual });
            }
            Err(FinishError::Store(error)) => return Err(error.into()),
        }
    }
}

struct Transfer<'t, 'r> {
    registry: &'t Remote<'r>,
    blob: Wanted<'t>,
    stop: &'t AtomicBool,
    writer: BlobWriter,
    /// Responses that contributed bytes.
    pieces: u32,
}

impl Transfer<'_, '_> {
    /// Until the writer holds as many bytes as the manifest says.
    fn run(&mut self, may_continue: bool) -> Result<(), ImageError> {
        let mut failures = 0;
        let mut buffer = vec![0; COPY_BUFFER];
        while self.writer.written() < self.blob.size || self.blob.size == 0 {
            if !may_continue {
                self.writer.restart()?;
                self.pieces = 0;
            }
            let before = self.writer.written();
            let Err(failure) = self.attempt(&mut buffer) else { return Ok(()) };
            if self.writer.written().saturating_sub(before) >= WORTH_AN_ATTEMPT {
                failures = 0;
            }
            failures += 1;
            retry::pause(self.registry.retry(), self.registry.progress(), failures, failure)?;
        }
        Ok(())
    }

    /// One response.
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<(), Failure> {
        let response = match self.registry.blob(self.blob.digest, self.writer.written()) {
            // The registry knows no such place in the blob: what is here is not a part of it.
            Err(failure) if self.writer.written() > 0 && is_status(&failure.error, 416) => {
                self.writer.restart()?;
                self.pieces = 0;
                return Err(Failure::new(*failure.error, Again::Often));
            }
            answer => answer?,
        };
        if response.status() != 206 || content_range_start(&response) != Some(self.writer.written()) {
            if response.status() == 206 {
                let reason = "the registry sent another range than was asked for".to_owned();
                return Err(ImageError::Invalid { what: format!("blob {}", self.blob.digest), reason }.into());
            }
            self.writer.restart()?;
            self.pieces = 0;
        }
        let missing = self.blob.size - self.writer.written();
        if let Some(announced) = response.body().content_length().filter(|&n| n != missing) {
            return Err(self.wrong_size(self.writer.written() + announced).into());
        }
        self.pieces += 1;
        self.copy(response.into_body(), buffer)
    }

    fn copy(&mut self, body: Body, buffer: &mut [u8]) -> Result<(), Failure> {
        let mut body = body.into_reader();
        let (started, first) = (Instant::now(), self.writer.written());
        let mut reported = first;
        loop {
            let (filled, ended) = fill(&mut body, buffer);
            let total = self.writer.written() + filled as u64;
            if total > self.blob.size {
                return Err(self.wrong_size(total).into());
            }
            self.writer.write(&buffer[..filled])?;
            if total - reported >= REPORT_EVERY || total == self.blob.size {
                reported = total;
                self.registry
                    .progress()
                    .event(ProgressEvent::Advanced { digest: self.blob.digest.clone(), done: total });
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(ImageError::Stopped.into());
            }
            match ended {
                true if total == self.blob.size => return Ok(()),
                true => return Err(self.truncated()),
                false => self.check_rate(started.elapsed(), total - first)?,
            }
        }
    }

    fn check_rate(&self, elapsed: Duration, received: u64) -> Result<(), ImageError> {
        let seconds = elapsed.as_secs();
        if elapsed < SLOW_AFTER || received / seconds.max(1) >= SLOWEST_RATE {
            return Ok(());
        }
        let (registry, digest) = (self.registry.name().to_owned(), self.blob.digest.clone());
        Err(ImageError::Stalled { registry, digest, received, seconds })
    }

    fn truncated(&self) -> Failure {
        let (registry, digest) = (self.registry.name().to_owned(), self.blob.digest.clone());
        let (expected, received) = (self.blob.size, self.writer.written());
        Failure::new(ImageError::Truncated { registry, digest, expected, received }, Again::Often)
    }

    fn wrong_size(&self, announced: u64) -> ImageError {
        let (registry, digest) = (self.registry.name().to_owned(), self.blob.digest.clone());
        ImageError::WrongSize { registry, digest, expected: self.blob.size, announced }
    }
}

fn is_status(error: &ImageError, wanted: u16) -> bool {
    matches!(error, ImageError::BadStatus { status, .. } if *status == wanted)
}

/// Fills the buffer as far as the body goes, so that hash and disk see large pieces. True at the end of the body,
/// be it announced, broken off or timed out: the count tells whether something is missing.
fn fill(body: &mut impl Read, buffer: &mut [u8]) -> (usize, bool) {
    let mut filled = 0;
    while filled < buffer.len() {
        match body.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, true),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return (filled, true),
        }
    }
    (filled, false)
}

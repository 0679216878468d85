//! The disk writes while processors unpack.
//!
//! The kernel begins to write late (vm.dirty_background_ratio is a tenth of the memory), so that the flush before an
//! image is committed would begin when everything else is done. Here a thread flushes the filesystem again and again
//! meanwhile; the last flush, which decides, then has little left. What this one does and whether it fails decides
//! nothing: an error of the disk is told to every descriptor that asks (`errseq_t`, Linux 5.8).

use std::{
    os::fd::AsFd,
    path::Path,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use onggi_sys::fs;

/// How long before the first flush: a small image is not flushed early at all.
const FIRST: Duration = Duration::from_millis(300);
/// How long between the end of one flush and the begin of the next: the disk is what a large image waits for in the end, so it
/// must not stand still.
const PAUSE: Duration = Duration::from_millis(20);

/// Does `work` while the filesystem of `root` is flushed every now and then.
pub fn flushing_meanwhile<T>(root: &Path, work: impl FnOnce() -> T) -> T {
    let Ok(dir) = fs::open_dir(root) else { return work() };
    let (working, done) = channel::<()>();
    thread::scope(|scope| {
        let flush = || {
            let done = done;
            let mut pause = FIRST;
            while matches!(done.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                if fs::sync_fs(dir.as_fd()).is_err() {
                    return;
                }
                pause = PAUSE;
            }
        };
        // Without the thread it only takes longer.
        let _ = thread::Builder::new().name("flush".to_owned()).spawn_scoped(scope, flush);
        let result = work();
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_the_work_comes_back_also_where_nothing_can_be_flushed() {
        assert_eq!(flushing_meanwhile(Path::new("/nonexistent"), || 1), 1);
        let long = || {
            thread::sleep(FIRST + 3 * PAUSE);
            2
        };
        assert_eq!(flushing_meanwhile(&std::env::temp_dir(), long), 2);
    }
}

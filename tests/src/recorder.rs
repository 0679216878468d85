//! A disk that remembers every write and every flush, so that a power cut can be played at any point.
//!
//! The disk is one file of a small FUSE filesystem of ours, and a loop device on it: what the filesystem under test
//! writes arrives here as requests, and its cache flushes (journal commits, `fsync`, `syncfs`) as FSYNC. A disk keeps
//! after a power cut what was flushed, and of the writes since then any part: [`Recording::cut`] makes such a disk.
//! This stands in for dm-log-writes, which needs the device mapper in the kernel.
//!
//! The protocol is that of `include/uapi/linux/fuse.h`, version 7.31, in the little of it that a loop device uses.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

/// The largest write of one request.
const MAX_WRITE: usize = 1 << 20;

/// What happened to the disk.
#[derive(Debug, Clone)]
enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

/// A numbered history of a disk.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    events: Vec<Event>,
    size: u64,
}

impl Recording {
    /// Writes and flushes so far.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The disk after a power cut at event `at`, as the file `image`: everything up to the last flush before it, and of
    /// the later writes those that `survives` says.
    pub fn cut(&self, at: usize, image: &Path, mut survives: impl FnMut() -> bool) {
        let flushed = self.events[..at].iter().rposition(|e| matches!(e, Event::Flush)).unwrap_or(0);
        let file = File::create(image).expect("make the disk's image");
        file.set_len(self.size).expect("give the disk its size");
        for (number, event) in self.events[..at].iter().enumerate() {
            if let Event::Write(offset, data) = event
                && (number < flushed || survives())
            {
                file.write_all_at(data, *offset).expect("write to the disk's image");
            }
        }
    }
}

/// A mounted recorder; the disk is the file `disk` in its directory.
pub struct Recorder {
    point: PathBuf,
    recording: Arc<Mutex<Recording>>,
    server: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Mounts an empty disk of so many bytes at `point`, backed by the sparse file `backing`. In the test's own mount
    /// namespace only.
    pub fn new(point: &Path, backing: &Path, size: u64) -> Recorder {
        fs::create_dir_all(point).expect("make the mount point");
        let data = File::options().read(true).write(true).create(true).truncate(true).open(backing);
        let data = data.expect("make the backing file");
        data.set_len(size).expect("give the backing file its size");
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("open /dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other\0", device.as_raw_fd());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).expect("options have no NUL");
        rustix::mount::mount("onggi-disk", point, "fuse", rustix::mount::MountFlags::empty(), options)
            .expect("mount the recorder");
        let recording = Arc::new(Mutex::new(Recording { events: Vec::new(), size }));
        let server = Server { device, data, size, recording: Arc::clone(&recording) };
        let server = thread::spawn(move || server.run());
        Recorder { point: point.to_owned(), recording, server: Some(server) }
    }

    /// The disk's file.
    pub fn disk(&self) -> PathBuf {
        self.point.join("disk")
    }

    /// The history until now.
    pub fn recording(&self) -> Recording {
        lock(&self.recording).clone()
    }

    /// How many events there are.
    pub fn position(&self) -> usize {
        lock(&self.recording).len()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Ends the server: its next read says that nothing is mounted any more. When a failed test has left the disk
        // in use, the mount namespace ends both.
        let unmounted = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::empty());
        if let (Ok(()), Some(server)) = (unmounted, self.server.take()) {
            let _ = server.join();
        }
    }
}

fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Answers the kernel.
struct Server {
    device: File,
    data: File,
    size: u64,
    recording: Arc<Mutex<Recording>>,
}

const ENOENT: i32 = -2;
const ENOSYS: i32 = -38;

impl Server {
    fn run(mut self) {
        let mut request = vec![0; MAX_WRITE + 4096];
        // ENODEV once the filesystem is unmounted.
        while let Ok(length) = self.device.read(&mut request) {
            let (opcode, unique, node) = (u32_at(&request, 4), u64_at(&request, 8), u64_at(&request, 16));
            let body = request[40..length].to_vec();
            let answer = self.answer(opcode, node, &body);
            if let Some(answer) = answer {
                let (error, data) = answer.map_or_else(|error| (error, Vec::new()), |data| (0, data));
                let mut reply = Bytes::default().u32(16 + data.len() as u32).u32(error.cast_unsigned()).u64(unique).0;
                reply.extend(data);
                // ENOENT: the request was interrupted.
                let _ = self.device.write(&reply);
            }
        }
    }

    /// `None` for requests without an answer.
    fn answer(&mut self, opcode: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        Some(match opcode {
            // FORGET, INTERRUPT, BATCH_FORGET.
            2 | 36 | 42 => return None,
            // LOOKUP
            1 if body == b"disk\0" => {
                Ok(Bytes::default().u64(2).u64(0).u64(3600).u64(3600).u64(0).attr(2, self.size).0)
            }
            1 => Err(ENOENT),
            // GETATTR, SETATTR
            3 | 4 => Ok(Bytes::default().u64(3600).u64(0).attr(node, self.size).0),
            // OPEN, OPENDIR
            14 | 27 => Ok(Bytes::default().u64(0).u64(0).0),
            // READ
            15 => Ok(self.read(u64_at(body, 8), u32_at(body, 16) as usize)),
            // WRITE
            16 => Ok(self.write(u64_at(body, 8), &body[40..])),
            // STATFS
            17 => Ok(vec![0; 80]),
            // RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY
            18 | 25 | 29 | 34 | 38 => Ok(Vec::new()),
            // FSYNC
            20 => {
                lock(&self.recording).events.push(Event::Flush);
                Ok(Vec::new())
            }
            // INIT: version 7.31, large writes.
            26 => {
                let flags = (1 << 5) | (1 << 22);
                let pages = (MAX_WRITE / 4096) as u16;
                let sizes = Bytes::default().u32(7).u32(31).u32(1 << 20).u32(flags).u32(0).u32(MAX_WRITE as u32).u32(1);
                let mut answer = sizes.0;
                answer.extend(pages.to_le_bytes());
                answer.resize(64, 0);
                Ok(answer)
            }
            _ => Err(ENOSYS),
        })
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let length = length.min(usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut data = vec![0; length];
        self.data.read_exact_at(&mut data, offset).expect("read the backing file");
        data
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Vec<u8> {
        self.data.write_all_at(data, offset).expect("write the backing file");
        lock(&self.recording).events.push(Event::Write(offset, data.to_vec()));
        Bytes::default().u32(data.len() as u32).u32(0).0
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// A structure in the making.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(mut self, value: u32) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Bytes {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// `struct fuse_attr`: the directory (node 1) or the disk.
    fn attr(self, node: u64, size: u64) -> Bytes {
        let (mode, size) = if node == 1 { (0o040_755, 0) } else { (0o100_600, size) };
        let times = self.u64(node).u64(size).u64(size / 512).u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        times.u32(mode).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0)
    }
}

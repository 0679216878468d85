//! A disk with a volatile cache, for a guest whose power is cut.
//!
//! When qemu is killed, all that it was given is in a file of the host, so no write that the guest's kernel has issued
//! would ever be lost. A real disk loses what is in its cache. This one is a server of the network block device protocol
//! (NBD, `doc/proto.md` of its project) on a Unix socket. It answers a write at once and remembers what it replaced until
//! the guest flushes; [`Disk::cut`] then lets none, some or all blocks of the writes after the last flush survive.
//! The guest sees a disk with a write-back cache and must flush, as it must on any other.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::{
        fs::FileExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::Random;
use crate::Outcome;

/// A disk writes its cache back by itself some day.
const CACHE_BYTES: usize = 32 << 20;

/// What survives of a write does so in blocks of the file systems; journals expect that of no more than a sector.
const BLOCK: usize = 4096;

/// What survives of the writes since the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survival {
    None,
    Some,
    All,
}

/// A write that is not flushed.
struct Pending {
    offset: u64,
    before: Vec<u8>,
    after: Vec<u8>,
    /// Force unit access: answered when it is on the medium.
    forced: bool,
}

/// The medium and its cache.
pub(super) struct Disk {
    file: File,
    bytes: u64,
    pending: VecDeque<Pending>,
    cached: usize,
    lying: bool,
    meter: Meter,
}

/// The writes that the disk has got, and after how many of them it is dead.
#[derive(Clone)]
pub(super) struct Meter(Arc<Writes>);

struct Writes {
    seen: AtomicUsize,
    last: AtomicUsize,
}

impl Meter {
    /// Of a disk that stays alive.
    pub(super) fn new() -> Meter {
        Meter(Arc::new(Writes { seen: AtomicUsize::new(0), last: AtomicUsize::new(usize::MAX) }))
    }

    /// So far.
    pub(super) fn seen(&self) -> usize {
        self.0.seen.load(Ordering::SeqCst)
    }

    /// Nothing is answered after so many.
    pub(super) fn end_after(&self, writes: usize) {
        self.0.last.store(writes, Ordering::SeqCst);
    }

    /// The last of them has come.
    pub(super) fn is_over(&self) -> bool {
        self.seen() >= self.0.last.load(Ordering::SeqCst)
    }
}

impl Disk {
    /// A file that has its size. One that is `lying` answers a flush and does nothing, as bad disks do.
    pub(super) fn open(path: &Path, lying: bool) -> Outcome<Disk> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(|e| format!("open {}: {e}", path.display()))?;
        let bytes = file.metadata().map_err(|e| format!("stat {}: {e}", path.display()))?.len();
        Ok(Disk { file, bytes, pending: VecDeque::new(), cached: 0, lying, meter: Meter::new() })
    }

    /// To be looked at while the disk is in use.
    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    fn write(&mut self, offset: u64, after: Vec<u8>, forced: bool) -> io::Result<()> {
        let mut before = vec![0; after.len()];
        self.file.read_exact_at(&mut before, offset)?;
        self.file.write_all_at(&after, offset)?;
        self.cached += after.len();
        self.pending.push_back(Pending { offset, before, after, forced });
        self.meter.0.seen.fetch_add(1, Ordering::SeqCst);
        while self.cached > CACHE_BYTES {
            let Some(oldest) = self.pending.pop_front() else { break };
            self.cached -= oldest.after.len();
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.lying {
            self.pending.clear();
            self.cached = 0;
        }
    }

    /// Takes the power away; how many blocks were in the cache, and how many of them are lost.
    pub(super) fn cut(&mut self, survival: Survival, random: &mut Random) -> Outcome<(usize, usize)> {
        let wrong = |e: io::Error| format!("cut the disk: {e}");
        for write in self.pending.iter().rev() {
            self.file.write_all_at(&write.before, write.offset).map_err(wrong)?;
        }
        let (mut blocks, mut lost) = (0, 0);
        for write in std::mem::take(&mut self.pending) {
            for (number, block) in write.after.chunks(BLOCK).enumerate() {
                let lucky = survival == Survival::All || survival == Survival::Some && random.below(2) == 0;
                blocks += 1;
                if write.forced || lucky {
                    self.file.write_all_at(block, write.offset + (number * BLOCK) as u64).map_err(wrong)?;
                } else {
                    lost += 1;
                }
            }
        }
        self.cached = 0;
        Ok((blocks, lost))
    }
}

/// A disk in use.
pub(super) struct Served {
    thread: JoinHandle<(Disk, io::Result<()>)>,
    socket: PathBuf,
}

/// Serves one client, until it is gone.
pub(super) fn serve(mut disk: Disk, socket: &Path) -> Outcome<Served> {
    // Of a run that was killed.
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(|e| format!("bind {}: {e}", socket.display()))?;
    let thread = thread::spawn(move || {
        let outcome = listener.accept().and_then(|(stream, _)| converse(&mut disk, stream));
        (disk, outcome)
    });
    Ok(Served { thread, socket: socket.to_owned() })
}

impl Served {
    /// The disk, when its client is gone.
    pub(super) fn end(self) -> Outcome<Disk> {
        // If nobody ever came, the thread would wait for ever.
        drop(UnixStream::connect(&self.socket));
        let (disk, outcome) = self.thread.join().map_err(|_| "the disk's server panicked".to_owned())?;
        let _ = fs::remove_file(&self.socket);
        match outcome {
            // The client was killed in the middle of a word.
            Err(e)
                if ![ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset]
                    .contains(&e.kind()) =>
            {
                Err(format!("serve the disk: {e}"))
            }
            _ => Ok(disk),
        }
    }
}

// The protocol's numbers, as its text names them.
const IHAVEOPT: &[u8] = b"IHAVEOPT";
const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;
const OPT_REPLY: u64 = 0x0003_e889_0455_65a9;
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = (1 << 31) | 1;
const INFO_EXPORT: u16 = 0;
const HAS_FLAGS: u16 = 1;
const SEND_FLUSH: u16 = 4;
const SEND_FUA: u16 = 8;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const CMD_FLAG_FUA: u16 = 1;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// The longest request that is believed; clients keep to 32 MiB unless told otherwise.
const LONGEST: u32 = 32 << 20;

fn converse(disk: &mut Disk, mut stream: UnixStream) -> io::Result<()> {
    if !greet(disk, &mut stream)? {
        return Ok(());
    }
    while let Some(request) = Request::read(&mut stream)? {
        if disk.meter.is_over() {
            // Until the client is gone, too.
            return io::copy(&mut stream, &mut io::sink()).map(drop);
        }
        answer(disk, &mut stream, request)?;
    }
    Ok(())
}

/// The handshake; false when the client wants no more.
fn greet(disk: &Disk, stream: &mut UnixStream) -> io::Result<bool> {
    stream.write_all(&[b"NBDMAGIC", IHAVEOPT, &(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes()].concat())?;
    take::<4>(stream)?;
    loop {
        if take::<8>(stream)? != IHAVEOPT {
            return Err(io::Error::new(ErrorKind::InvalidData, "not an option of NBD"));
        }
        let option = u32::from_be_bytes(take(stream)?);
        let length = u32::from_be_bytes(take(stream)?);
        bytes(stream, length)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let length = (data.len() as u32).to_be_bytes();
            stream.write_all(
                &[&OPT_REPLY.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length, data].concat(),
            )
        };
        match option {
            OPT_GO => {
                let flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA;
                let export = [&INFO_EXPORT.to_be_bytes()[..], &disk.bytes.to_be_bytes(), &flags.to_be_bytes()];
                reply(REP_INFO, &export.concat())?;
                reply(REP_ACK, &[])?;
                return Ok(true);
            }
            OPT_ABORT => {
                reply(REP_ACK, &[])?;
                return Ok(false);
            }
            _ => reply(REP_ERR_UNSUP, &[])?,
        }
    }
}

struct Request {
    flags: u16,
    kind: u16,
    cookie: [u8; 8],
    offset: u64,
    length: u32,
    data: Vec<u8>,
}

impl Request {
    /// None when the client says good-bye.
    fn read(stream: &mut UnixStream) -> io::Result<Option<Request>> {
        if u32::from_be_bytes(take(stream)?) != REQUEST {
            return Err(io::Error::new(ErrorKind::InvalidData, "not a request of NBD"));
        }
        let (flags, kind) = (u16::from_be_bytes(take(stream)?), u16::from_be_bytes(take(stream)?));
        let (cookie, offset, length) =
            (take(stream)?, u64::from_be_bytes(take(stream)?), u32::from_be_bytes(take(stream)?));
        let data = if kind == CMD_WRITE { bytes(stream, length)? } else { Vec::new() };
        Ok((kind != CMD_DISC).then_some(Request { flags, kind, cookie, offset, length, data }))
    }
}

fn answer(disk: &mut Disk, stream: &mut UnixStream, request: Request) -> io::Result<()> {
    let inside = request.offset.checked_add(u64::from(request.length)).is_some_and(|end| end <= disk.bytes);
    let mut data = Vec::new();
    let error = match request.kind {
        _ if !inside || request.length > LONGEST => EINVAL,
        CMD_READ => {
            data.resize(request.length as usize, 0);
            disk.file.read_exact_at(&mut data, request.offset).map_or(EIO, |()| 0)
        }
        CMD_WRITE => {
            let forced = request.flags & CMD_FLAG_FUA != 0;
            disk.write(request.offset, request.data, forced).map_or(EIO, |()| 0)
        }
        CMD_FLUSH => {
            disk.flush();
            0
        }
        _ => EINVAL,
    };
    if error != 0 {
        data.clear();
    }
    stream.write_all(&[&REPLY.to_be_bytes()[..], &error.to_be_bytes(), &request.cookie, &data].concat())
}

fn take<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut buffer = [0; N];
    stream.read_exact(&mut buffer)?;
    Ok(buffer)
}

fn bytes(stream: &mut UnixStream, length: u32) -> io::Result<Vec<u8>> {
    if length > LONGEST {
        return Err(io::Error::new(ErrorKind::InvalidData, "a request of NBD that is too long"));
    }
    let mut buffer = vec![0; length as usize];
    stream.read_exact(&mut buffer)?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of four blocks of zeros in a file that nobody else knows.
    fn disk(name: &str) -> (Disk, PathBuf) {
        let path = std::env::temp_dir().join(format!("onggi-xtask-{name}-{}", std::process::id()));
        fs::write(&path, vec![0; 4 * BLOCK]).unwrap();
        (Disk::open(&path, false).unwrap(), path)
    }

    fn first_bytes(path: &Path) -> Vec<u8> {
        fs::read(path).unwrap().chunks(BLOCK).map(|block| block[0]).collect()
    }

    #[test]
    fn a_cut_takes_what_was_not_flushed_and_nothing_else() {
        let (mut disk, path) = disk("cut");
        disk.write(0, vec![1; 2 * BLOCK], false).unwrap();
        disk.flush();
        disk.write(0, vec![2; BLOCK], false).unwrap();
        disk.write(2 * BLOCK as u64, vec![3; BLOCK], true).unwrap();
        disk.write(0, vec![4; 2 * BLOCK], false).unwrap();
        assert_eq!(first_bytes(&path), [4, 4, 3, 0]);
        assert_eq!(disk.meter().seen(), 4);
        assert_eq!(disk.cut(Survival::None, &mut Random(1)), Ok((4, 3)));
        assert_eq!(first_bytes(&path), [1, 1, 3, 0]);
        disk.write(0, vec![5; 4 * BLOCK], false).unwrap();
        assert_eq!(disk.cut(Survival::All, &mut Random(1)), Ok((4, 0)));
        assert_eq!(first_bytes(&path), [5, 5, 5, 5]);
        disk.write(0, vec![6; 4 * BLOCK], false).unwrap();
        let (blocks, lost) = disk.cut(Survival::Some, &mut Random(3)).unwrap();
        assert_eq!((blocks, lost), (4, first_bytes(&path).iter().filter(|byte| **byte == 5).count()));
        fs::remove_file(path).unwrap();
    }

    /// A client whose next words are options.
    fn greeted(socket: &Path) -> UnixStream {
        let mut stream = UnixStream::connect(socket).unwrap();
        assert_eq!(take::<18>(&mut stream).unwrap()[..16], *b"NBDMAGICIHAVEOPT");
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        stream
    }

    fn option(number: u32) -> Vec<u8> {
        [IHAVEOPT, &number.to_be_bytes(), &0u32.to_be_bytes()].concat()
    }

    fn request(kind: u16, offset: u64, length: u32) -> Vec<u8> {
        let head = [&REQUEST.to_be_bytes()[..], &0u16.to_be_bytes(), &kind.to_be_bytes(), b"cookie!!"].concat();
        [&head[..], &offset.to_be_bytes(), &length.to_be_bytes()].concat()
    }

    #[test]
    fn a_disk_that_is_dead_takes_and_answers_nothing() {
        let (disk, path) = disk("dead");
        let (meter, socket) = (disk.meter(), path.with_extension("sock"));
        meter.end_after(1);
        let served = serve(disk, &socket).unwrap();
        let mut stream = greeted(&socket);
        stream.write_all(&option(OPT_GO)).unwrap();
        take::<{ 20 + 12 + 20 }>(&mut stream).unwrap();
        stream.write_all(&[request(CMD_WRITE, 0, 1), vec![7]].concat()).unwrap();
        take::<16>(&mut stream).unwrap();
        assert!(meter.is_over());
        let more = [request(CMD_WRITE, BLOCK as u64, 1), vec![8], request(CMD_FLUSH, 0, 0)].concat();
        stream.write_all(&more).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        let mut disk = served.end().unwrap();
        assert_eq!(first_bytes(&path), [7, 0, 0, 0]);
        assert_eq!(disk.cut(Survival::None, &mut Random(1)), Ok((1, 1)));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_client_reads_what_it_wrote_and_the_cut_comes_when_it_is_gone() {
        let (disk, path) = disk("client");
        let socket = path.with_extension("sock");
        let served = serve(disk, &socket).unwrap();
        let mut stream = greeted(&socket);
        // An option that is not known is refused, and the client goes on.
        stream.write_all(&option(8)).unwrap();
        assert_eq!(take::<20>(&mut stream).unwrap()[12..16], REP_ERR_UNSUP.to_be_bytes());
        stream.write_all(&option(OPT_GO)).unwrap();
        let export = take::<{ 20 + 12 + 20 }>(&mut stream).unwrap();
        assert_eq!(export[22..30], (4 * BLOCK as u64).to_be_bytes());
        stream.write_all(&request(CMD_WRITE, 1, 3)).unwrap();
        stream.write_all(b"abc").unwrap();
        assert_eq!(take::<16>(&mut stream).unwrap(), *b"\x67\x44\x66\x98\0\0\0\0cookie!!");
        stream.write_all(&request(CMD_READ, 0, 4)).unwrap();
        assert_eq!(take::<20>(&mut stream).unwrap()[16..], *b"\0abc");
        stream.write_all(&request(CMD_READ, 4 * BLOCK as u64, 1)).unwrap();
        assert_eq!(take::<16>(&mut stream).unwrap()[4..8], EINVAL.to_be_bytes());
        drop(stream);
        let mut disk = served.end().unwrap();
        assert_eq!(disk.cut(Survival::None, &mut Random(1)), Ok((1, 1)));
        assert_eq!(first_bytes(&path), [0; 4]);
        fs::remove_file(path).unwrap();
    }
}

//! `onggi-unpack-floor LAYOUT TAG DIR`: what no pull can do without, and nothing else.
//!
//! Every layer's blob is read and hashed, inflated, the result hashed and written to one file; then the filesystem is
//! flushed. One thread per processor, layers as they come. No network, no archive is parsed and no file made for an
//! entry: the ratio to this program says how much of a pull is work that could be spared.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Bytes at a time.
const PIECE: usize = 1 << 20;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, layout, tag, dir] = args.as_slice() else { panic!("usage: onggi-unpack-floor LAYOUT TAG DIR") };
    let layers = layers(Path::new(layout), tag);
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(digest) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let blob = Path::new(layout).join("blobs/sha256").join(digest);
                    layer(&blob, &Path::new(dir).join(digest)).expect("unpack a layer");
                }
            });
        }
    });
    let dir = File::open(dir).expect("open the directory");
    // SAFETY: the descriptor is open for the length of the call.
    assert_eq!(unsafe { libc::syncfs(dir.as_raw_fd()) }, 0, "sync");
}

fn layers(layout: &Path, tag: &str) -> Vec<String> {
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("read a document")).expect("parse a document")
    };
    let hex = |descriptor: &Value| descriptor["digest"].as_str().expect("a digest").replace("sha256:", "");
    let index = read(&layout.join("index.json"));
    let all = index["manifests"].as_array().expect("manifests");
    let found = all.iter().find(|m| m["annotations"]["org.opencontainers.image.ref.name"] == tag).expect("the tag");
    let manifest = read(&layout.join("blobs/sha256").join(hex(found)));
    manifest["layers"].as_array().expect("layers").iter().map(hex).collect()
}

/// A reader that hashes what it reads.
struct Hashing<R>(R, Sha256);

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.update(&buffer[..n]);
        Ok(n)
    }
}

fn layer(blob: &Path, out: &Path) -> io::Result<()> {
    let zstd = { let mut magic = [0; 4]; File::open(blob)?.read_exact(&mut magic)?; magic == [0x28, 0xb5, 0x2f, 0xfd] };
    let hashed = io::BufReader::with_capacity(PIECE, Hashing(File::open(blob)?, Sha256::new()));
    let mut inflate: Box<dyn Read> = match zstd {
        true => Box::new(zstd::stream::read::Decoder::with_buffer(hashed)?),
        false => Box::new(flate2::bufread::MultiGzDecoder::new(hashed)),
    };
    let mut out = File::create(out)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        let n = inflate.read(&mut piece)?;
        if n == 0 {
            let _ = hash.finalize();
            return Ok(());
        }
        hash.update(&piece[..n]);
        out.write_all(&piece[..n])?;
    }
}

//! A large image of generated, always equal content: about 950 MB in 32 000 files and five layers, once with gzip and
//! once with zstd. Made once and kept, because compressing it takes a minute.
//!
//! ```text
//! target/bench-cache/large-v1/       an OCI layout with the tags `gzip` and `zstd`; written aside, then renamed
//! ```
//! Contents are cut out of a pool of words and of records, so that gzip makes a bit more than a third of them, as it
//! does of a distribution's files. Most files are small; a few have megabytes.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use super::{
    image::{self, CONFIG, MANIFEST},
    tarball::Tarball,
};
use crate::{
    Outcome,
    build::target_dir,
    process::{line, read},
};

/// Files and megabytes of each layer.
const LAYERS: [(usize, usize); 5] = [(12_000, 380), (9_000, 250), (6_000, 170), (4_000, 120), (1_000, 30)];

/// Bytes from which contents are cut.
const POOL: usize = 64 << 20;

const CODECS: [(&str, &str, &[&str]); 2] =
    [("gzip", "+gzip", &["gzip", "-6", "-n"]), ("zstd", "+zstd", &["zstd", "-3", "-q"])];

/// The layout, made when it is missing.
pub(crate) fn layout() -> Outcome<PathBuf> {
    let cache = target_dir().join("bench-cache");
    let layout = cache.join("large-v1");
    if layout.is_dir() {
        return Ok(layout);
    }
    let partial = cache.join(format!("partial-{}", std::process::id()));
    fs::create_dir_all(partial.join("blobs/sha256")).map_err(|e| format!("make {}: {e}", partial.display()))?;
    println!("making the large image (once)");
    make(&partial)?;
    fs::rename(&partial, &layout).map_err(|e| format!("publish {}: {e}", layout.display()))?;
    Ok(layout)
}

/// A layer in both encodings.
struct Layer {
    diff_id: String,
    /// In the order of `CODECS`.
    descriptors: Vec<Value>,
}

fn make(layout: &Path) -> Outcome {
    let blobs = layout.join("blobs/sha256");
    let pool = pool();
    let work = |number: usize| layer(&blobs, &pool, number);
    let made: Vec<Outcome<Layer>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..LAYERS.len()).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a layer's thread panicked".to_owned()))).collect()
    });
    let layers: Vec<Layer> = made.into_iter().collect::<Outcome<_>>()?;
    let diff_ids: Vec<&String> = layers.iter().map(|layer| &layer.diff_id).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/usr/bin"], "Cmd": ["/usr/bin/none"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = image::store(&blobs, config.to_string().into_bytes(), CONFIG)?;
    let mut manifests = Vec::new();
    for (at, (tag, ..)) in CODECS.iter().enumerate() {
        let descriptors: Vec<&Value> = layers.iter().map(|layer| &layer.descriptors[at]).collect();
        let text = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors });
        let mut manifest = image::store(&blobs, text.to_string().into_bytes(), MANIFEST)?;
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        manifests.push(manifest);
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    image::write(&layout.join("index.json"), index.to_string().as_bytes())?;
    image::write(&layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn layer(blobs: &Path, pool: &[u8], number: usize) -> Outcome<Layer> {
    let tar = blobs.join(format!("layer-{number}.tar"));
    let file = File::create(&tar).map_err(|e| format!("make {}: {e}", tar.display()))?;
    fill(BufWriter::with_capacity(1 << 20, file), pool, number).map_err(|e| format!("write {}: {e}", tar.display()))?;
    let mut descriptors = Vec::new();
    for (tag, suffix, words) in CODECS {
        let packed = blobs.join(format!("layer-{number}.{tag}"));
        let failed = |e: io::Error| format!("compress {}: {e}", tar.display());
        let mut pack = Command::new(words[0]);
        pack.args(&words[1..]).arg("-c").stdin(File::open(&tar).map_err(failed)?);
        pack.stdout(Stdio::from(File::create(&packed).map_err(failed)?));
        let status = pack.status().map_err(failed)?;
        if !status.success() {
            return Err(format!("`{}` ended with {status}", line(&pack)));
        }
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let size = fs::metadata(&packed).map_err(failed)?.len();
        let hex = sha256(&packed)?;
        fs::rename(&packed, blobs.join(&hex)).map_err(failed)?;
        descriptors.push(json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size }));
    }
    let diff_id = format!("sha256:{}", sha256(&tar)?);
    fs::remove_file(&tar).map_err(|e| format!("remove {}: {e}", tar.display()))?;
    Ok(Layer { diff_id, descriptors })
}

fn sha256(file: &Path) -> Outcome<String> {
    let sum = read(Command::new("sha256sum").arg(file))?;
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

/// The layer's archive: directories of a dozen files, a link in each, hard links here and there.
fn fill(out: BufWriter<File>, pool: &[u8], number: usize) -> io::Result<()> {
    const PER_DIR: usize = 12;
    let (files, megabytes) = LAYERS[number];
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let mut tar = Tarball::new(out);
    for dir in ["usr/", "usr/share/", "usr/bin/"] {
        tar.dir(dir)?;
    }
    tar.dir(&format!("usr/share/{number}/"))?;
    let mut left = megabytes << 20;
    for at in 0..files {
        let dir = format!("usr/share/{number}/{}", at / PER_DIR);
        if at % PER_DIR == 0 {
            tar.dir(&format!("{dir}/"))?;
            tar.symlink(&format!("{dir}/first"), &format!("{at}"))?;
        }
        // One in 400 is large, so that half of the bytes are in few files.
        let average = left / (files - at);
        let size = if at % 400 == 399 { average * 200 } else { 64 + random.below(average.max(64)) };
        let size = size.min(left).min(pool.len() / 2);
        left -= size;
        let start = random.below(pool.len() - size);
        tar.file(&format!("{dir}/{at}"), &[&pool[start..start + size]])?;
        if at % 100 == 50 {
            tar.hard_link(&format!("{dir}/{at}.link"), &format!("{dir}/{at}"))?;
        }
    }
    if number > 0 {
        tar.file(&format!("usr/share/{}/.wh.0", number - 1), &[])?;
    }
    tar.finish()?.into_inner().map(|_| ()).map_err(io::IntoInnerError::into_error)
}

/// Blocks of text and of records in turn.
fn pool() -> Vec<u8> {
    let mut random = Random(88_172_645_463_325_252);
    let words: Vec<Vec<u8>> = (0..4096)
        .map(|_| (0..3 + random.below(8)).map(|_| b'a' + random.below(26) as u8).chain([b' ']).collect())
        .collect();
    let mut pool = Vec::with_capacity(POOL + 64);
    while pool.len() < POOL {
        let end = pool.len() + (16 << 10);
        let text = random.below(2) == 0;
        while pool.len() < end {
            if text {
                // Some words are frequent.
                let at = random.below(words.len()).min(random.below(words.len()));
                pool.extend_from_slice(&words[at]);
            } else {
                let record = random.next();
                pool.extend_from_slice(&(record & 0x0f0f_00ff_0000_ffff).to_le_bytes());
                pool.extend_from_slice(&[0x48, 0x8b, 0x05, 0]);
            }
        }
    }
    pool
}

/// xorshift64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

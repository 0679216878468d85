//! Rows about images: pulling a large one from Debian's docker-registry, pulling it again, listing many.
//!
//! Every pull of the large image goes to an empty store on a filesystem of its own (see `disk`), and what is dirty is flushed
//! before the clock starts, so that nobody pays for another one's pages or removals. Our time includes the flush of
//! everything to disk; whether a peer does that is part of its name in the table.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    cpu::CpuTimes,
    disk::Disk,
    image::{self, Image},
    large,
    measure::{Contender, interleaved_after, milliseconds},
    peers::{self, Engine, silently},
    report::Row,
    rows::Bench,
    tarball::Tarball,
    unpack_floor_program,
};
use crate::{
    Outcome,
    process::{find, line, run_quietly},
};

/// Rows that need the large image.
pub(super) const LARGE: [u32; 4] = [9, 10, 24, 26];

/// The registry's port in the bench's private network.
const PORT: u16 = 5009;

/// Those whose pulls are compared; ours first.
pub(super) const ENGINES: [&str; 3] = ["onggi", "docker", "podman"];

/// Images of row 25.
const IMAGES: usize = 500;
/// Samples of an engine whose list of them takes long.
const SLOW_LISTS: usize = 1;

/// A registry that ends with the row.
pub(super) struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Registry {
    /// Starts docker-registry and pushes the large image under both tags.
    pub(super) fn start(dir: &Path) -> Outcome<Registry> {
        let registry = Registry::empty(&dir.join("registry"), PORT)?;
        let layout = large::layout()?;
        for tag in ["gzip", "zstd"] {
            let mut push = Command::new("skopeo");
            // Otherwise what it remembers of other copies makes it take layers of the other compression.
            push.args(["--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false"]);
            push.arg(format!("oci:{}:{tag}", layout.display())).arg(format!("docker://{}", reference(tag)));
            run_quietly(&mut push)?;
        }
        Ok(registry)
    }

    /// Starts docker-registry with its data below `home`.
    pub(super) fn empty(home: &Path, port: u16) -> Outcome<Registry> {
        let program = find("docker-registry").ok_or("docker-registry is not installed")?;
        fs::create_dir_all(home).map_err(|e| format!("make {}: {e}", home.display()))?;
        let config = home.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {}/data }} }}\n\
             http: {{ addr: '127.0.0.1:{port}' }}\n",
            home.display()
        );
        image::write(&config, text.as_bytes())?;
        let mut serve = Command::new(program);
        serve.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry(serve.spawn().map_err(|e| format!("start {}: {e}", line(&serve)))?);
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if start.elapsed() > Duration::from_secs(30) {
                return Err("docker-registry does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }
}

pub(super) fn reference(tag: &str) -> String {
    format!("127.0.0.1:{PORT}/large:{tag}")
}

/// Who flushes layers to the disk before it says that they are there. What is said of the others is from their documents.
pub(super) fn label(engine: &str) -> String {
    match engine {
        "onggi" => "onggi, everything synced".to_owned(),
        other => format!("{other}, layers not synced"),
    }
}

pub(super) fn pull(engine: &Engine, tag: &str) -> Outcome {
    let reference = reference(tag);
    match engine.name {
        "podman" => engine.run(&["pull", "-q", "--tls-verify=false", &reference]),
        _ => engine.run(&["pull", "-q", &reference]),
    }
}

/// Time of one pull into an empty store.
fn fresh_pull(bench: &Bench, engine: &str, tag: &str) -> Outcome<f64> {
    let disk = Disk::new(&bench.dir)?;
    let engine = peers::empty(engine, &bench.programs, disk.path())?;
    settle(disk.path())?;
    milliseconds(|| pull(&engine, tag))
}

/// Flushes what is dirty.
pub(super) fn settle(dir: &Path) -> Outcome {
    silently(Command::new("sync").arg("-f").arg(dir))
}

fn skopeo_and_umoci(dir: &Path, tag: &str) -> Outcome<f64> {
    let disk = Disk::new(dir)?;
    let layout = format!("{}:latest", disk.path().join("layout").display());
    milliseconds(|| {
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]);
        silently(copy.arg(format!("docker://{}", reference(tag))).arg(format!("oci:{layout}")))?;
        silently(Command::new("umoci").args(["unpack", "--image", &layout]).arg(disk.path().join("bundle")))
    })
}

fn floor(dir: &Path, tag: &str) -> Outcome<f64> {
    let disk = Disk::new(dir)?;
    let layout = large::layout()?;
    milliseconds(|| silently(Command::new(unpack_floor_program()).arg(&layout).arg(tag).arg(disk.path())))
}

/// Row 9: gzip.
pub(crate) fn gzip(bench: &Bench) -> Outcome<Row> {
    fresh(bench, 9, "gzip")
}

/// Row 24: zstd.
pub(crate) fn zstd(bench: &Bench) -> Outcome<Row> {
    fresh(bench, 24, "zstd")
}

fn fresh(bench: &Bench, number: u32, tag: &'static str) -> Outcome<Row> {
    let _registry = Registry::start(&bench.dir)?;
    let (dir, cpu) = (&bench.dir, &CpuTimes::default());
    let mut notes = Vec::new();
    let mut contenders = Vec::new();
    for engine in ENGINES {
        match fresh_pull(bench, engine, tag) {
            Ok(_) => contenders
                .push(Contender::sampling(&label(engine), move || cpu.of(engine, || fresh_pull(bench, engine, tag)))),
            Err(why) => notes.push(format!("Not measured: {engine} cannot pull it: {why}.")),
        }
    }
    match skopeo_and_umoci(dir, tag) {
        Ok(_) => {
            let name = "skopeo + umoci, layers not synced";
            let sample = move || cpu.of("skopeo + umoci", || skopeo_and_umoci(dir, tag));
            contenders.push(Contender::sampling(name, sample));
        }
        Err(why) => notes.push(format!("Not measured: skopeo + umoci: {why}.")),
    }
    let name = "floor (read, inflate, hash, write, sync)";
    contenders.push(Contender::sampling(name, move || cpu.of("floor", || floor(dir, tag))));
    // Seconds each: every contender ran once before, and three rounds show the spread.
    let series = interleaved_after(&mut contenders, 0, bench.samples.div_ceil(10))?;
    drop(contenders);
    notes.extend(cpu.note());
    notes.extend(memory(bench, tag));
    silently(Command::new("rm").arg("-rf").arg(dir.join("registry")))?;
    let title = format!("pull and unpack of 950 MB in 32 000 files and 5 {tag} layers, loopback docker-registry");
    let goals = &[("docker", 0.3), ("podman", 0.25), ("floor", 2.0)];
    Ok(Row { number, title, unit: "ms", goals, series, notes })
}

/// Peak resident memory of those that pull in their own process.
fn memory(bench: &Bench, tag: &str) -> Option<String> {
    let mut found = Vec::new();
    for name in ENGINES.iter().filter(|name| **name != "docker") {
        let disk = Disk::new(&bench.dir).ok()?;
        let engine = peers::empty(name, &bench.programs, disk.path()).ok()?;
        let report = bench.dir.join("peak");
        let inner = match engine.name {
            "podman" => engine.command(&["pull", "-q", "--tls-verify=false", &reference(tag)]),
            _ => engine.command(&["pull", "-q", &reference(tag)]),
        };
        let mut timed = Command::new("/usr/bin/time");
        timed.args(["-f", "%M", "-o"]).arg(&report).arg(inner.get_program()).args(inner.get_args());
        silently(&mut timed).ok()?;
        let kib: f64 = fs::read_to_string(&report).ok()?.trim().parse().ok()?;
        found.push(format!("{} {:.0} MB", engine.name, kib / 1024.0));
    }
    Some(format!("Peak resident memory of the pull: {}.", found.join(", ")))
}

/// Row 10: the image is there already.
pub(crate) fn second(bench: &Bench) -> Outcome<Row> {
    let _registry = Registry::start(&bench.dir)?;
    for engine in &bench.engines {
        pull(engine, "gzip")?;
    }
    let contenders = bench.engines.iter().map(|e| Contender::new(e.name, move || pull(e, "gzip")));
    let mut contenders: Vec<Contender<'_>> = contenders.collect();
    let series = interleaved_after(&mut contenders, 2, bench.samples)?;
    drop(contenders);
    for engine in &bench.engines {
        engine.run(&["rmi", "-f", &reference("gzip")])?;
    }
    let title = "pull of an image that is present".to_owned();
    Ok(Row { number: 10, title, unit: "ms", goals: &[("docker", 0.1)], series, notes: bench.missing.clone() })
}

/// Row 25: `images` with many images.
pub(crate) fn images(bench: &Bench) -> Outcome<Row> {
    let archive = bench.dir.join("many.tar");
    write_archive(&archive, &bench.image).map_err(|e| format!("write {}: {e}", archive.display()))?;
    let mut notes = bench.missing.clone();
    for engine in &bench.engines {
        let started = Instant::now();
        engine.run(&["load", "-q", "-i", &archive.to_string_lossy()])?;
        notes.push(format!("{} loaded them in {:.0} s.", engine.name, started.elapsed().as_secs_f64()));
    }
    let mut contenders: Vec<Contender<'_>> = bench.engines.iter().map(lists).collect();
    let series = interleaved_after(&mut contenders, 2, bench.samples)?;
    let title = format!("`images` with {IMAGES} images");
    Ok(Row { number: 25, title, unit: "ms", goals: &[("docker", 0.2)], series, notes })
}

fn lists(engine: &Engine) -> Contender<'_> {
    let contender = Contender::new(engine.name, move || engine.run(&["images"]));
    // Its list takes from seconds to minutes.
    if engine.name == "podman" { contender.rarely(SLOW_LISTS) } else { contender }
}

/// A docker archive of many configurations above one layer.
fn write_archive(path: &Path, image: &Image) -> std::io::Result<()> {
    let mut tar = Tarball::new(std::io::BufWriter::new(File::create(path)?));
    tar.file("layer.tar", &[&fs::read(image.layer())?])?;
    let mut manifest = Vec::new();
    for number in 0..IMAGES {
        let name = format!("config-{number}.json");
        tar.file(&name, &[&image.variant(number)])?;
        manifest.push(json!({ "Config": name, "RepoTags": [format!("many:t{number}")], "Layers": ["layer.tar"] }));
    }
    tar.file("manifest.json", &[json!(manifest).to_string().as_bytes()])?;
    tar.finish()?.into_inner().map(|_| ()).map_err(std::io::IntoInnerError::into_error)
}

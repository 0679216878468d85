//! Rows about what goes the other way: an image to a registry, a container to an image.

use std::{cell::Cell, process::Command};

use super::{
    cpu::CpuTimes,
    disk::Disk,
    large,
    measure::{Contender, interleaved_after, milliseconds},
    peers::{self, Engine, silently},
    pulls::{ENGINES, Registry, pull, reference, settle},
    report::Row,
    rows::Bench,
};
use crate::Outcome;

/// The port of the registry that is pushed to.
const PORT: u16 = 5010;

fn target() -> String {
    format!("127.0.0.1:{PORT}/large:gzip")
}

/// Time of one push of the large image to a registry that has nothing.
fn into_empty(bench: &Bench, push: impl FnMut() -> Outcome) -> Outcome<f64> {
    let home = bench.dir.join("target-registry");
    silently(Command::new("rm").arg("-rf").arg(&home))?;
    let _registry = Registry::empty(&home, PORT)?;
    settle(&bench.dir)?;
    milliseconds(push)
}

fn push(engine: &Engine) -> Outcome {
    match engine.name {
        "podman" => engine.run(&["push", "-q", "--tls-verify=false", &target()]),
        _ => engine.run(&["push", "-q", &target()]),
    }
}

/// Row 26: push of the large image.
pub(crate) fn push_large(bench: &Bench) -> Outcome<Row> {
    let _registry = Registry::start(&bench.dir)?;
    let disk = Disk::new(&bench.dir)?;
    let mut notes = Vec::new();
    let mut engines = Vec::new();
    for name in ENGINES {
        let engine = peers::empty(name, &bench.programs, disk.path()).and_then(|engine| {
            pull(&engine, "gzip")?;
            engine.run(&["tag", &reference("gzip"), &target()])?;
            Ok(engine)
        });
        match engine {
            Ok(engine) => engines.push(engine),
            Err(why) => notes.push(format!("Not measured: {name} does not have the image: {why}.")),
        }
    }
    let cpu = &CpuTimes::default();
    let sample = |engine: &Engine| cpu.of(engine.name, || into_empty(bench, || push(engine)));
    let mut contenders: Vec<Contender<'_>> =
        engines.iter().map(|engine| Contender::sampling(engine.name, move || sample(engine))).collect();
    contenders.push(Contender::sampling("skopeo copy of a layout", || {
        cpu.of("skopeo", || {
            into_empty(bench, || {
                let mut copy = Command::new("skopeo");
                copy.args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]);
                copy.arg(format!("oci:{}:gzip", large::layout()?.display())).arg(format!("docker://{}", target()));
                silently(&mut copy)
            })
        })
    }));
    let series = interleaved_after(&mut contenders, 0, bench.samples.div_ceil(10))?;
    drop(contenders);
    notes.extend(cpu.note().map(|note| format!("{note} The registry's own is in it, docker's daemon's is not.")));
    drop(engines);
    for left in ["registry", "target-registry"] {
        silently(Command::new("rm").arg("-rf").arg(bench.dir.join(left)))?;
    }
    let title = "push of the large gzip image to an empty loopback docker-registry".to_owned();
    Ok(Row { number: 26, title, unit: "ms", goals: &[("docker", 0.5)], series, notes })
}

/// Row 27: `commit` of a container in which one small file was written.
pub(crate) fn commit(bench: &Bench) -> Outcome<Row> {
    const NAME: &str = "bench-commit";
    for engine in &bench.engines {
        engine.run_image(&["-d", "--name", NAME], &["sleep", "3600"])?;
    }
    let count = &Cell::new(0_u32);
    let sample = |engine: &Engine| {
        count.set(count.get() + 1);
        // Another content each time: nobody finds the layer that it made before.
        let write = format!("echo {} > /root/changed", count.get());
        engine.run(&["exec", NAME, "sh", "-c", &write])?;
        settle(&bench.dir)?;
        milliseconds(|| engine.run(&["commit", NAME, "committed"]))
    };
    let contenders = bench.engines.iter().map(|e| Contender::sampling(e.name, move || sample(e)));
    let mut contenders: Vec<Contender<'_>> = contenders.collect();
    let series = interleaved_after(&mut contenders, 2, bench.samples)?;
    drop(contenders);
    for engine in &bench.engines {
        engine.run(&["rm", "-f", NAME])?;
    }
    let title = "`commit` of a running container with one changed file".to_owned();
    let mut notes = bench.missing.clone();
    notes.push("Ours is synced to the disk, docker's and podman's layers are not.".to_owned());
    Ok(Row { number: 27, title, unit: "ms", goals: &[("docker", 0.2)], series, notes })
}

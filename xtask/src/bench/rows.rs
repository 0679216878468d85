//! One function per row: what is done, by whom, and what we are held to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    image::Image,
    measure::{Contender, Series, interleaved},
    peers::{self, Engine, Runtime, silently},
    report::Row,
};
use crate::{Outcome, build::Programs, process::find};

/// Everything that the rows share.
pub(crate) struct Bench {
    pub(crate) dir: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) floor: Option<PathBuf>,
    pub(crate) samples: usize,
    /// How many containers row 16 lists.
    pub(crate) containers: usize,
    pub(crate) image: Image,
    /// Ours first; only engines that work here.
    pub(crate) engines: Vec<Engine>,
    /// Why an engine is missing.
    pub(crate) missing: Vec<String>,
}

impl Bench {
    /// Starts every engine that works here.
    pub(crate) fn start_engines(&mut self) -> Outcome {
        self.engines.push(peers::onggi(&self.programs, &self.dir, &self.image)?);
        for start in [peers::docker, peers::podman] {
            match start(&self.dir, &self.image) {
                Ok(engine) => self.engines.push(engine),
                Err(why) => self.missing.push(format!("Not measured: {why}.")),
            }
        }
        Ok(())
    }

    fn runtime(&self, name: &'static str, notes: &mut Vec<String>) -> Option<Runtime> {
        let program = if name == "onggi-oci" { Some(self.programs.onggi_oci.clone()) } else { find(name) };
        let Some(program) = program else {
            notes.push(format!("Not measured: {name} is not installed."));
            return None;
        };
        let tried = Runtime::new(name, program, &self.dir, &self.image).and_then(|mut runtime| {
            runtime.run()?;
            Ok(runtime)
        });
        tried.map_err(|e| notes.push(format!("Not measured: {name} does not work here: {e}."))).ok()
    }

    fn timed(&self, number: u32, title: &str, mut contenders: Vec<Contender<'_>>, samples: usize) -> Outcome<Row> {
        let series = interleaved(&mut contenders, samples)?;
        Ok(Row { number, title: title.to_owned(), unit: "ms", goals: &[], series, notes: Vec::new() })
    }
}

fn floor_contender<'a>(floor: &'a Path, rootfs: &'a Path) -> Contender<'a> {
    Contender::new("floor", move || silently(Command::new(floor).arg(rootfs).arg("/bin/true")))
}

/// Row 1: one-shot OCI run of `true`.
pub(crate) fn runtime_run(bench: &Bench) -> Outcome<Row> {
    let mut notes = Vec::new();
    let mut runtimes: Vec<Runtime> =
        ["onggi-oci", "crun", "runc", "youki"].into_iter().filter_map(|name| bench.runtime(name, &mut notes)).collect();
    if runtimes.first().is_none_or(|first| first.name != "onggi-oci") {
        return Err(notes.join(" "));
    }
    let mut contenders: Vec<Contender<'_>> =
        runtimes.iter_mut().map(|runtime| Contender::new(runtime.name, || runtime.run())).collect();
    if let Some(floor) = &bench.floor {
        contenders.push(floor_contender(floor, &bench.image.rootfs));
    }
    let title = "one-shot OCI `run` of `true`, all namespaces, new network namespace";
    let row = bench.timed(1, title, contenders, bench.samples)?;
    let goals = &[("crun", 0.6), ("runc", 0.2), ("youki", 0.15), ("floor", 2.0)];
    Ok(Row { goals, notes, ..row })
}

/// Row 2: the engine without a network against a bare runtime.
pub(crate) fn engine_run_without_network(bench: &Bench) -> Outcome<Row> {
    let title = "`run --rm --network none IMAGE true`, image present";
    let row = engine_run(bench, 2, title, &["--rm", "--network", "none"])?;
    Ok(Row { goals: &[("bare crun", 1.0)], ..row })
}

/// Row 3: the engine with everything.
pub(crate) fn engine_run_with_bridge(bench: &Bench) -> Outcome<Row> {
    let title = "`run --rm IMAGE true`: bridge network, overlay, logs; image present";
    let row = engine_run(bench, 3, title, &["--rm"])?;
    Ok(Row { goals: &[("docker", 0.05), ("podman", 0.05)], ..row })
}

fn engine_run(bench: &Bench, number: u32, title: &str, options: &[&str]) -> Outcome<Row> {
    let mut notes = bench.missing.clone();
    let mut crun = bench.runtime("crun", &mut notes);
    let engines = bench.engines.iter();
    let mut contenders: Vec<Contender<'_>> =
        engines.map(|engine| Contender::new(engine.name, || engine.run_image(options, &["true"]))).collect();
    if let Some(crun) = &mut crun {
        contenders.push(Contender::new("bare crun run", || crun.run()));
    }
    let row = bench.timed(number, title, contenders, bench.samples)?;
    Ok(Row { notes, ..row })
}

/// Row 5: memory of what an engine keeps beside a running container.
pub(crate) fn memory_per_container(bench: &Bench) -> Outcome<Row> {
    const EACH: usize = 5;
    let mut series = Vec::new();
    for engine in &bench.engines {
        let keeper = match engine.name {
            "onggi" => "onggi",
            "podman" => "conmon",
            _ => "containerd-shim",
        };
        let names: Vec<String> = (0..EACH).map(|at| format!("memory-{at}")).collect();
        let before = proportional_sizes(keeper);
        for name in &names {
            engine.run_image(&["-d", "--name", name], &["sleep", "600"])?;
        }
        // The engine's own command has ended; what is left stays.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let sizes = proportional_sizes(keeper).into_iter().filter(|(pid, _)| !before.iter().any(|(old, _)| old == pid));
        let label = if engine.name == "podman" { "podman (conmon)" } else { engine.name };
        let sizes: Vec<f64> = sizes.map(|(_, kib)| kib).collect();
        if sizes.len() != EACH {
            return Err(format!("{EACH} processes named {keeper}* were expected, {} were found", sizes.len()));
        }
        series.push(Series::new(label, sizes));
        for name in &names {
            engine.run(&["rm", "-f", name])?;
        }
    }
    let title = format!("memory (PSS) of everything kept per running container, {EACH} containers each");
    let goals = &[("docker", 0.03), ("podman", 0.5)];
    Ok(Row { number: 5, title, unit: "KiB", goals, series, notes: bench.missing.clone() })
}

/// Pid and PSS in KiB of every process whose name begins with `name`.
fn proportional_sizes(name: &str) -> Vec<(u32, f64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| proportional_size(pid, name).map(|kib| (pid, kib))).collect()
}

fn proportional_size(pid: u32, name: &str) -> Option<f64> {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if !comm.starts_with(name) {
        return None;
    }
    pss(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn pss(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Row 7: `exec true`.
pub(crate) fn exec(bench: &Bench) -> Outcome<Row> {
    for engine in &bench.engines {
        engine.run_image(&["-d", "--name", "exec"], &["sleep", "600"])?;
    }
    let act = |engine: &'static str, runs: &Engine| -> Outcome {
        runs.run(&["exec", "exec", "true"]).map_err(|e| format!("{engine}: {e}"))
    };
    let contenders = bench.engines.iter().map(|engine| Contender::new(engine.name, move || act(engine.name, engine)));
    let row = bench.timed(7, "`exec CONTAINER true`", contenders.collect(), bench.samples);
    for engine in &bench.engines {
        engine.run(&["rm", "-f", "exec"])?;
    }
    Ok(Row { goals: &[("docker", 0.1), ("podman", 0.05)], notes: bench.missing.clone(), ..row? })
}

/// Row 16: `ps -a` with many containers.
pub(crate) fn list(bench: &Bench) -> Outcome<Row> {
    for engine in &bench.engines {
        for at in 0..bench.containers {
            let name = format!("list-{at}");
            engine.run(&["create", "--network", "none", "--name", &name, &engine.image, "true"])?;
        }
    }
    let contenders = bench.engines.iter().map(|engine| Contender::new(engine.name, || engine.run(&["ps", "-a"])));
    let title = format!("`ps -a` with {} containers", bench.containers);
    let row = bench.timed(16, &title, contenders.collect(), bench.samples)?;
    Ok(Row { goals: &[("docker", 0.1), ("podman", 0.03)], notes: bench.missing.clone(), ..row })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pss_is_read_from_the_rollup() {
        let text = "00400000-7ffe [rollup]\nRss:     900 kB\nPss:     123 kB\nPss_Anon:  9 kB\n";
        assert_eq!(pss(text), Some(123.0));
        assert_eq!(pss("Rss: 1 kB\n"), None);
    }
}

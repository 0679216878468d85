//! One function per row: what is done, by whom, and what we are held to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    image::Image,
    measure::{Contender, Series, interleaved},
    peers::{self, Engine, silently},
    report::Row,
    runtime::{Runtime, Verb},
};
use crate::{Outcome, build::Programs, process::find};

/// How many commands the engine's hot functions are taken from.
pub(super) const DAILY_COMMANDS: usize = 8;

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

    /// Ours alone.
    pub(crate) fn own_runtime(&self, notes: &mut Vec<String>) -> Outcome<Runtime> {
        self.runtime("onggi-oci", notes).ok_or_else(|| notes.join(" "))
    }

    /// Every verb of a container's life once, the one-shot run first.
    pub(crate) fn every_verb(&self) -> Outcome {
        let mut runtime = self.own_runtime(&mut Vec::new())?;
        let id = runtime.running()?;
        for args in [&["state"][..], &["exec", "/bin/true"], &["kill", "KILL"]] {
            runtime.in_running(&id, args)?;
        }
        runtime.remove(&id)?;
        runtime.verb(Verb::Delete).map(drop)
    }

    /// Ours with an empty store but for the image.
    pub(crate) fn own_engine(&self) -> Outcome<Engine> {
        peers::onggi(&self.programs, &self.dir, &self.image)
    }

    /// What people do with the engine all day, the pull of an image that is present first. Without `run`, which starts processes
    /// in a way that valgrind does not know.
    pub(crate) fn daily_commands(image: &str) -> [Vec<&str>; DAILY_COMMANDS] {
        [
            vec!["pull", "-q", image],
            vec!["images"],
            vec!["ps", "-a"],
            vec!["version"],
            vec!["create", "--name", "hot", image, "true"],
            vec!["inspect", "hot"],
            vec!["rm", "hot"],
            vec!["inspect", image],
        ]
    }

    /// Every runtime that works here; ours first.
    fn runtimes(&self, notes: &mut Vec<String>) -> Outcome<Vec<Runtime>> {
        let names = ["onggi-oci", "crun", "runc", "youki"];
        let runtimes: Vec<Runtime> = names.into_iter().filter_map(|name| self.runtime(name, notes)).collect();
        match runtimes.first() {
            Some(first) if first.name == "onggi-oci" => Ok(runtimes),
            _ => Err(notes.join(" ")),
        }
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
    let mut runtimes = bench.runtimes(&mut notes)?;
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

/// Row 4: how long many containers take, eight at a time.
pub(crate) fn side_by_side(bench: &Bench) -> Outcome<Row> {
    const AT_ONCE: usize = 8;
    const EACH: usize = 8;
    let mut notes = Vec::new();
    let mut runtimes = bench.runtimes(&mut notes)?;
    let contenders = runtimes.iter_mut().map(|runtime| {
        Contender::new(runtime.name, move || {
            let ids: Vec<String> = (0..AT_ONCE * EACH).map(|_| runtime.fresh_id()).collect();
            let runtime = &*runtime;
            std::thread::scope(|scope| {
                let work = |ids| move || runtime.run_all(ids);
                let workers: Vec<_> = ids.chunks(EACH).map(|ids| scope.spawn(work(ids))).collect();
                workers.into_iter().try_for_each(|w| w.join().map_err(|_| "a worker panicked".to_owned())?)
            })
        })
    });
    let title = format!("{} one-shot OCI runs of `true`, {AT_ONCE} at a time", AT_ONCE * EACH);
    // Each sample is many containers already.
    let row = bench.timed(4, &title, contenders.collect(), bench.samples.div_ceil(3))?;
    Ok(Row { goals: &[("crun", 0.667)], notes, ..row })
}

fn runtime_verb(bench: &Bench, number: u32, verb: Verb, title: &str) -> Outcome<Row> {
    let mut notes = Vec::new();
    let mut runtimes = bench.runtimes(&mut notes)?;
    let contenders =
        runtimes.iter_mut().map(|runtime| Contender::sampling(runtime.name, move || runtime.verb(verb))).collect();
    let row = bench.timed(number, title, contenders, bench.samples)?;
    Ok(Row { goals: &[("crun", 1.0)], notes, ..row })
}

/// Row 18: `create`.
pub(crate) fn runtime_create(bench: &Bench) -> Outcome<Row> {
    runtime_verb(bench, 18, Verb::Create, "OCI `create`")
}

/// Row 19: `start`.
pub(crate) fn runtime_start(bench: &Bench) -> Outcome<Row> {
    runtime_verb(bench, 19, Verb::Start, "OCI `start`")
}

/// Row 20: `delete`.
pub(crate) fn runtime_delete(bench: &Bench) -> Outcome<Row> {
    runtime_verb(bench, 20, Verb::Delete, "OCI `delete` of a stopped container")
}

fn in_running(bench: &Bench, number: u32, title: &str, args: &[&str]) -> Outcome<Row> {
    let mut notes = Vec::new();
    let mut runtimes = bench.runtimes(&mut notes)?;
    let ids = runtimes.iter_mut().map(Runtime::running).collect::<Outcome<Vec<String>>>()?;
    let pairs = runtimes.iter().zip(&ids);
    let contenders =
        pairs.map(|(runtime, id)| Contender::sampling(runtime.name, move || runtime.in_running(id, args))).collect();
    let row = bench.timed(number, title, contenders, bench.samples);
    for (runtime, id) in runtimes.iter().zip(&ids) {
        runtime.remove(id)?;
    }
    Ok(Row { notes, ..row? })
}

/// Row 21: `state`.
pub(crate) fn runtime_state(bench: &Bench) -> Outcome<Row> {
    Ok(Row { goals: &[("crun", 1.0)], ..in_running(bench, 21, "OCI `state`", &["state"])? })
}

/// Row 22: `exec`.
pub(crate) fn runtime_exec(bench: &Bench) -> Outcome<Row> {
    Ok(Row { goals: &[("crun", 0.6)], ..in_running(bench, 22, "OCI `exec` of `true`", &["exec", "/bin/true"])? })
}

/// Row 23: memory at its highest.
pub(crate) fn runtime_memory(bench: &Bench) -> Outcome<Row> {
    let mut notes = Vec::new();
    let mut runtimes = bench.runtimes(&mut notes)?;
    let contenders =
        runtimes.iter_mut().map(|runtime| Contender::sampling(runtime.name, || runtime.peak_memory())).collect();
    let row = bench.timed(23, "peak resident memory of one-shot OCI `run` of `true`", contenders, bench.samples)?;
    Ok(Row { unit: "KiB", goals: &[("crun", 0.5)], notes, ..row })
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

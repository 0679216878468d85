//! The contenders, each with a store of its own below one temporary directory.
//!
//! Docker's daemon is started here, in the bench's private network, and ends with it. A peer that is not
//! installed, or that does not work on this machine, is left out with a note.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::image::Image;
use crate::{
    Outcome,
    build::Programs,
    process::{find, line},
};

/// An engine: something with `run`, `exec`, `ps`.
pub(crate) struct Engine {
    /// As shown in the table.
    pub(crate) name: &'static str,
    /// The program and its options for its own store.
    words: Vec<String>,
    /// The image in its store.
    pub(crate) image: String,
    daemon: Option<Child>,
}

impl Engine {
    /// A command of this engine.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(args);
        command
    }

    /// Runs a command of this engine without output; an error has what it said.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        silently(&mut self.command(args))
    }

    /// `run` with options, the image and a command.
    pub(crate) fn run_image(&self, options: &[&str], command: &[&str]) -> Outcome {
        let image = [self.image.as_str()];
        self.run(&[&["run"], options, &image, command].concat())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }
}

/// Runs with no input and no output.
pub(crate) fn silently(command: &mut Command) -> Outcome {
    // Files, not pipes: a monitor that keeps a pipe open must not make us wait for it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(|e| format!("start {}: {e}", line(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", line(command))) }
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// An engine by its name, with an empty store below `dir`.
pub(crate) fn empty(name: &str, programs: &Programs, dir: &Path) -> Outcome<Engine> {
    match name {
        "docker" => empty_docker(dir, &["--bridge=none", "--iptables=false"]),
        "podman" => empty_podman(dir),
        _ => Ok(empty_onggi(programs, dir)),
    }
}

fn empty_onggi(programs: &Programs, dir: &Path) -> Engine {
    let root = [text(dir.join("onggi/root")), text(dir.join("onggi/run"))];
    let words =
        [text(programs.onggi.clone()), "--root".to_owned(), root[0].clone(), "--runroot".to_owned(), root[1].clone()];
    Engine { name: "onggi", words: words.into(), image: String::new(), daemon: None }
}

/// Ours, with the image pulled.
pub(crate) fn onggi(programs: &Programs, dir: &Path, image: &Image) -> Outcome<Engine> {
    let mut engine = empty_onggi(programs, dir);
    engine.image = image.serve()?;
    let pulled = engine.command(&["pull", &engine.image]).stdout(Stdio::null()).status();
    match pulled {
        Ok(status) if status.success() => Ok(engine),
        other => Err(format!("onggi cannot pull the bench's image: {other:?}")),
    }
}

/// Podman with a store below `dir`.
pub(crate) fn podman(dir: &Path, image: &Image) -> Outcome<Engine> {
    let mut engine = empty_podman(dir)?;
    engine.image = "docker.io/library/onggi-bench:latest".to_owned();
    engine.run(&["load", "-i", &text(image.docker_archive()?)])?;
    engine.run_image(&["--rm"], &["true"]).map_err(|e| format!("podman does not work here: {e}"))?;
    Ok(engine)
}

fn empty_podman(dir: &Path) -> Outcome<Engine> {
    let program = find("podman").ok_or("podman is not installed")?;
    let store = dir.join("podman");
    let mut words = vec![text(program)];
    for (option, name) in
        [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp"), ("--network-config-dir", "net")]
    {
        fs::create_dir_all(store.join(name)).map_err(|e| format!("make podman's directory: {e}"))?;
        words.extend([option.to_owned(), text(store.join(name))]);
    }
    words.extend(["--cgroup-manager=cgroupfs", "--events-backend=none"].map(str::to_owned));
    // crun refuses hybrid control groups, runc does not.
    words.extend([format!("--runtime={}", if find("crun").is_some() { "crun" } else { "runc" })]);
    Ok(Engine { name: "podman", words, image: String::new(), daemon: None })
}

/// Docker with a daemon of its own.
pub(crate) fn docker(dir: &Path, image: &Image) -> Outcome<Engine> {
    let mut engine = empty_docker(dir, &[])?;
    engine.image = "onggi-bench:latest".to_owned();
    engine.run(&["load", "-i", &text(image.docker_archive()?)])?;
    engine.run_image(&["--rm"], &["true"]).map_err(|e| format!("docker does not work here: {e}"))?;
    Ok(engine)
}

fn empty_docker(dir: &Path, options: &[&str]) -> Outcome<Engine> {
    let dockerd = find("dockerd").ok_or("dockerd is not installed")?;
    let program = find("docker").ok_or("docker is not installed")?;
    let home = dir.join("docker");
    fs::create_dir_all(&home).map_err(|e| format!("make docker's directory: {e}"))?;
    let socket = format!("unix://{}", text(home.join("socket")));
    let log = fs::File::create(home.join("log")).map_err(|e| format!("make docker's log: {e}"))?;
    let mut daemon = Command::new(dockerd);
    daemon.arg("--data-root").arg(home.join("data")).arg("--exec-root").arg(home.join("exec"));
    daemon.arg("--pidfile").arg(home.join("pid")).arg("--host").arg(&socket).args(options);
    daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let daemon = daemon.spawn().map_err(|e| format!("start dockerd: {e}"))?;
    let words = vec![text(program), "--host".to_owned(), socket];
    let engine = Engine { name: "docker", words, image: String::new(), daemon: Some(daemon) };
    let start = Instant::now();
    while engine.run(&["version"]).is_err() {
        if start.elapsed() > Duration::from_secs(30) {
            let log = fs::read_to_string(home.join("log")).unwrap_or_default();
            return Err(format!("dockerd does not start here: {}", log.lines().last().unwrap_or_default()));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(engine)
}

//! A dockerd of the test's own, which knows both runtimes.

use std::{fs, process::Command, process::Stdio};

use onggi_tests::Ran;

use crate::support::{Daemon, Stage, on_terminal, program, run, runtimes};

/// The daemon, its image `box`, and the client.
pub(crate) struct Docker {
    daemon: Daemon,
    pub(crate) stage: Stage,
}

impl Docker {
    /// A daemon without a network of its own.
    pub(crate) fn new() -> Docker {
        Self::with(&["--bridge=none"])
    }

    /// A daemon with more options.
    pub(crate) fn with(options: &[&str]) -> Docker {
        Self::begin("{}", || (), &[&add_runtimes()[..], options].concat())
    }

    /// A daemon with more options, after `prepare` on the private machine.
    pub(crate) fn prepared(prepare: impl FnOnce(), options: &[&str]) -> Docker {
        Self::begin("{}", prepare, &[&add_runtimes()[..], options].concat())
    }

    /// A daemon that knows what its configuration file says, after `prepare`.
    pub(crate) fn configured(file: &str, prepare: impl FnOnce()) -> Docker {
        Self::begin(file, prepare, &["--bridge=none"])
    }

    fn begin(file: &str, prepare: impl FnOnce(), options: &[&str]) -> Docker {
        let stage = Stage::new();
        prepare();
        fs::write(stage.dir().join("daemon.json"), file).expect("write the daemon's configuration");
        let daemon = start(&stage, options);
        let docker = Docker { daemon, stage };
        let image = docker.stage.image_tar();
        let path = "ENV PATH=/bin";
        docker.ok(&["import", "-c", path, "-c", "CMD [\"sh\"]", &image.to_string_lossy(), "box"]);
        docker
    }

    /// Ends the daemon and starts another on the same directories.
    pub(crate) fn restart(&mut self, options: &[&str]) {
        self.daemon.stop();
        self.daemon = start(&self.stage, &[&add_runtimes()[..], options].concat());
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = client(&self.stage);
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs the client to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    /// Runs the client with text on its standard input.
    pub(crate) fn with_input(&self, args: &[&str], input: &str) -> Ran {
        let file = self.stage.dir().join("input");
        fs::write(&file, input).expect("write the input");
        run(self.command(args).stdin(fs::File::open(file).expect("open the input")))
    }

    /// Runs the client, which must succeed; its output without the last line break.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran}\n{}", self.daemon.log());
        ran.stdout.trim_end().to_owned()
    }

    /// `docker inspect -f FORMAT NAME`.
    #[track_caller]
    pub(crate) fn inspect(&self, format: &str, name: &str) -> String {
        self.ok(&["inspect", "-f", format, name])
    }

    /// Runs the client on a terminal of its own.
    pub(crate) fn typed(&self, args: &str, input: &str) -> Ran {
        on_terminal(&format!("{} {args}", command_line(&self.stage)), input)
    }

    /// Asserts that containers have left nothing, after the daemon is gone.
    #[track_caller]
    pub(crate) fn assert_nothing_left(mut self) {
        assert_eq!(self.ok(&["ps", "-aq"]), "", "containers are left");
        self.daemon.stop();
        // The daemon's private mount of its store, and the handle on the host's network.
        self.stage.assert_nothing_left(&["data", "exec/netns/default"]);
    }
}

fn docker_program() -> String {
    program("docker", "docker.io").display().to_string()
}

/// The client with its socket.
pub(crate) fn command_line(stage: &Stage) -> String {
    format!("{} -H unix://{}/d.sock", docker_program(), stage.dir().display())
}

/// `--add-runtime` for all but runc, which the daemon knows.
fn add_runtimes() -> Vec<&'static str> {
    let [_, ours] = runtimes();
    vec![Box::leak(format!("--add-runtime={}={}", ours.name, ours.path.display()).into_boxed_str())]
}

fn client(stage: &Stage) -> Command {
    let mut command = Command::new(docker_program());
    command.arg("-H").arg(format!("unix://{}/d.sock", stage.dir().display()));
    command.env("HOME", stage.dir()).env("DOCKER_BUILDKIT", "0");
    command
}

fn start(stage: &Stage, options: &[&str]) -> Daemon {
    let dir = stage.dir();
    let mut command = Command::new(program("dockerd", "docker.io"));
    command.arg("--config-file").arg(dir.join("daemon.json")).arg("--data-root").arg(dir.join("data"));
    command.arg("--exec-root").arg(dir.join("exec")).arg("--pidfile").arg(dir.join("d.pid"));
    command.arg("-H").arg(format!("unix://{}/d.sock", dir.display()));
    command.args(["--iptables=false", "--ip-masq=false", "--shutdown-timeout=1", "--cgroup-parent"]);
    command.arg(stage.cgroup_parent()).arg("--init-path").arg(program("tini-static", "tini"));
    command.args(options).env("HOME", dir);
    let ready = || client(stage).arg("version").output().is_ok_and(|output| output.status.success());
    Daemon::start(&mut command, &dir.join("dockerd.log"), ready)
}

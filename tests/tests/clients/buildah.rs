//! `buildah bud` and `buildah run` with isolation `oci`.

use std::{
    fs,
    process::{Command, Stdio},
};

use onggi_tests::{
    Ran,
    machine::{self, sh},
};

use crate::support::{Runtime, Stage, on_terminal, program, run, runtimes};

/// Buildah on a store of its own, and the directory it builds in.
struct Buildah<'a> {
    stage: &'a Stage,
    runtime: Runtime,
}

impl Buildah<'_> {
    fn dir(&self) -> String {
        format!("{}/{}", self.stage.dir().display(), self.runtime.name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let dir = self.dir();
        let mut command = Command::new(program("buildah", "buildah"));
        command.args(["--root", &format!("{dir}/root"), "--runroot", &format!("{dir}/run")]).args(args);
        command.env("HOME", &dir).env("BUILDAH_RUNTIME", &self.runtime.path).env("BUILDAH_ISOLATION", "oci");
        command.env("TMPDIR", &dir).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    /// `buildah bud` of this Dockerfile over an unpacked busybox.
    fn build(&self, options: &[&str], file: &str) -> Ran {
        let context = format!("{}/context", self.dir());
        fs::write(format!("{context}/Dockerfile"), file).expect("write the Dockerfile");
        let runtime = self.runtime.path.to_string_lossy();
        let parent = self.stage.cgroup_parent();
        let head = ["bud", "--runtime", &runtime, "--isolation", "oci", "--cgroup-parent", &parent, "-t", "made"];
        self.run(&[&head[..], options, &[&context]].concat())
    }
}

#[test]
fn buildah_bud_runs_its_steps_and_buildah_run_enters_the_result() {
    let stage = Stage::new();
    machine::without_unified_cgroups();
    let image = stage.image_tar();
    for runtime in runtimes() {
        let buildah = Buildah { stage: &stage, runtime };
        let name = buildah.runtime.name;
        fs::create_dir_all(format!("{}/context", buildah.dir())).expect("make the context");
        fs::copy(&image, format!("{}/context/box.tar", buildah.dir())).expect("copy the image");
        let head = "FROM scratch\nADD box.tar /\nENV PATH=/bin A=b\n";

        let file = format!(
            "{head}USER user\nRUN id -u > /tmp/uid; echo $HOME\nUSER root\nWORKDIR /made\nRUN echo $A > f && cat /tmp/uid f\nRUN grep -c . /etc/resolv.conf; readlink /proc/self/ns/net\n"
        );
        let ran = buildah.build(&["--network", "host"], &file);
        assert_eq!(ran.code, Some(0), "{name}: {ran}");
        assert!(ran.stdout.contains("\n1000\nb\n") && ran.stdout.contains("/home/user\n"), "{name}: {ran}");
        // It asks for ambient capabilities without inheritable ones: nothing that its user should read of at every step.
        assert!(!ran.stderr.contains("capabilit"), "{name}: {ran}");
        assert!(ran.stdout.contains(sh("readlink /proc/self/ns/net").trim_end()), "{name}: {ran}");

        let limited = format!(
            "{head}RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ulimit -n; grep CapEff /proc/self/status; mount -t tmpfs none /tmp || echo refused\n"
        );
        let options = ["--network", "none", "-m", "64m", "--ulimit", "nofile=100:100", "--cap-drop", "CAP_CHOWN"];
        let ran = buildah.build(&options, &limited);
        assert_eq!(ran.code, Some(0), "{name}: {ran}");
        assert!(ran.stdout.contains("67108864\n100\nCapEff:") && ran.stdout.contains("refused"), "{name}: {ran}");

        let ran = buildah.build(&["--network", "none"], &format!("{head}RUN exit 6\n"));
        assert!(ran.code != Some(0) && ran.stderr.contains("exit status 6"), "{name}: {ran}");
        let ran = buildah.build(&["--network", "none"], &format!("{head}RUN [\"/no/such/program\"]\n"));
        assert!(ran.code != Some(0) && ran.stderr.contains("no such file or directory"), "{name}: {ran}");

        let container = buildah.ok(&["from", "--pull-never", "made"]);
        let enter = ["run", "--network", "none", "--cap-add", "CAP_NET_ADMIN", &container, "--", "sh", "-c"];
        assert_eq!(buildah.ok(&[&enter[..], &["echo $A; pwd"]].concat()), "b\n/");
        assert_eq!(buildah.run(&[&enter[..], &["exit 5"]].concat()).code, Some(5), "{name}");
        let command = buildah.command(&["run", "-t", &container, "--", "tty"]);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let variables = format!(
            "HOME={0} TMPDIR={0} BUILDAH_ISOLATION=oci BUILDAH_RUNTIME={1}",
            buildah.dir(),
            buildah.runtime.path.display()
        );
        let ran =
            on_terminal(&format!("{variables} {} {}", command.get_program().to_string_lossy(), args.join(" ")), "");
        assert!(ran.code == Some(0) && ran.stdout.contains("/dev/pts/"), "{name}: {ran}");
        buildah.ok(&["rm", "-a"]);
        sh(&format!("umount -l {}/root/overlay 2>/dev/null || true", buildah.dir()));
        stage.assert_nothing_left(&[]);
    }
}

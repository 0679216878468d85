//! What docs/runtime.md tells people to write and to type, carried out as it stands there.
//!
//! A fenced block of the page has a language and a name; blocks of `sh` run with the engine's own name as a
//! function that adds the test's root and socket.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use onggi_tests::{
    Ran,
    image::{self, Flavour},
    machine,
};

use crate::{
    docker::{self, Docker},
    support::{Daemon, Stage, onggi_oci, program, run},
};

/// The text of the block with this name.
fn block(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runtime.md");
    let text = fs::read_to_string(page).expect("read docs/runtime.md");
    let named = |fence: &str| fence.split_whitespace().nth(1) == Some(name);
    let mut fences = text.split("```").skip(1).step_by(2);
    let found = fences.find(|block| block.lines().next().is_some_and(named));
    let found = found.unwrap_or_else(|| panic!("docs/runtime.md has no block {name}"));
    found.split_once('\n').expect("a block has lines").1.to_owned()
}

/// Puts the program where `cargo xtask install` does, on this private machine alone.
fn install() {
    let program = onggi_oci();
    machine::sh(&format!(
        "mount -t tmpfs tmpfs /usr/local/bin; cp {} /usr/local/bin/onggi-oci; chmod 755 /usr/local/bin/onggi-oci",
        program.display()
    ));
}

/// Runs a block of shell after a preamble, in a directory.
fn shell(preamble: &str, name: &str, dir: &Path) -> Ran {
    let script = format!("set -e\n{preamble}\n{}", block(name));
    run(Command::new("bash").args(["-c", &script]).current_dir(dir).env("HOME", dir).stdin(Stdio::null()))
}

#[track_caller]
fn assert_prints(ran: &Ran, lines: &str) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), lines), "{ran}");
}

#[test]
fn docs_the_configuration_of_docker_works() {
    for file in ["daemon.json", "default.json"] {
        let docker = Docker::configured(&block(file), install);
        let function = format!("docker() {{ {} \"$@\"; }}", docker::command_line(&docker.stage));
        assert_prints(&shell(&function, "docker", docker.stage.dir()), "works\n");
        let default = docker.ok(&["info", "--format", "{{.DefaultRuntime}}"]);
        assert_eq!(default, if file == "default.json" { "onggi" } else { "runc" });
        docker.assert_nothing_left();
    }
}

#[test]
fn docs_the_configuration_of_containerd_works() {
    let stage = Stage::new();
    install();
    let dir = stage.dir();
    let places = format!(
        "root = '{0}/root'\nstate = '{0}/state'\n[grpc]\n  address = '{0}/c.sock'\n[ttrpc]\n  address = '{0}/c.ttrpc'\n",
        dir.display()
    );
    let (version, rest) =
        block("config.toml").split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("lines");
    fs::write(dir.join("config.toml"), format!("{version}\n{places}{rest}")).expect("write the configuration");
    let containerd = program("containerd", "containerd");
    let mut dump = Command::new(&containerd);
    let dump = run(dump.arg("--config").arg(dir.join("config.toml")).args(["config", "dump"]).stdin(Stdio::null()));
    assert!(dump.stdout.contains("BinaryName = \"/usr/local/bin/onggi-oci\""), "{dump}");
    let ctr = format!(
        "{} -a {}/c.sock -n {}",
        program("ctr", "containerd").display(),
        dir.display(),
        stage.cgroup_parent().trim_start_matches('/')
    );
    let client = |script: &str| run(Command::new("bash").args(["-c", &format!("{ctr} {script}")]).stdin(Stdio::null()));
    let mut command = Command::new(containerd);
    command.arg("--config").arg(dir.join("config.toml"));
    let mut daemon = Daemon::start(&mut command, &dir.join("containerd.log"), || client("version").code == Some(0));
    let plugins = client("plugins ls");
    let cri = plugins.stdout.lines().find(|line| line.contains("grpc.v1") && line.contains(" cri "));
    assert!(cri.is_some_and(|line| line.trim_end().ends_with("ok")), "{plugins}\n{}", daemon.log());
    image::busybox(Flavour::Oci).write_layout(&dir.join("layout"));
    machine::sh(&format!("tar -C {0}/layout -cf {0}/image.tar .", dir.display()));
    let imported = client(&format!(
        "images import --index-name unused --base-name docker.io/library/box {}/image.tar",
        dir.display()
    ));
    assert_eq!(imported.code, Some(0), "{imported}");
    assert_prints(&shell(&format!("ctr() {{ {ctr} \"$@\"; }}"), "ctr", dir), "works\n");
    daemon.stop();
    stage.assert_nothing_left(&[]);
}

#[test]
fn docs_the_configurations_of_podman_and_buildah_work() {
    let stage = Stage::new();
    install();
    machine::without_unified_cgroups();
    let dir = stage.dir();
    let tar = stage.image_tar();
    let store = format!("--root {0}/store --runroot {0}/storerun", dir.display());
    let podman = format!(
        "podman() {{ {} {store} --tmpdir {}/tmp --cgroup-manager cgroupfs --events-backend file \"$@\"; }}",
        program("podman", "podman").display(),
        dir.display()
    );
    fs::create_dir(dir.join("tmp")).expect("make a directory");
    let import = format!("{podman}; podman import -q -c 'ENV PATH=/bin' {} box", tar.display());
    let ran = run(Command::new("bash").args(["-c", &import]).stdin(Stdio::null()));
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_prints(&shell(&podman, "podman", dir), "works\n");
    let conf = dir.join("containers.conf");
    fs::write(&conf, block("containers.conf")).expect("write the configuration");
    let configured = format!("export CONTAINERS_CONF={}\n{podman}", conf.display());
    assert_prints(&shell(&configured, "podman-configured", dir), "works\nonggi\n");

    let context = dir.join("context");
    fs::create_dir(&context).expect("make the context");
    fs::copy(&tar, context.join("box.tar")).expect("copy the image");
    fs::write(context.join("Dockerfile"), "FROM scratch\nADD box.tar /\nRUN echo works\n").expect("write a Dockerfile");
    let buildah = format!("buildah() {{ {} {store} \"$@\"; }}", program("buildah", "buildah").display());
    let ran = shell(&buildah, "buildah", &context);
    assert!(ran.code == Some(0) && ran.stdout.contains("\nworks\n"), "{ran}");
    machine::sh(&format!("umount -l {}/store/overlay 2>/dev/null || true", dir.display()));
    stage.assert_nothing_left(&[]);
}

#[test]
fn docs_the_runtime_is_used_by_hand() {
    let stage = Stage::new();
    install();
    let ran = shell("export PATH=/usr/local/bin:$PATH", "hand", stage.dir());
    assert_prints(&ran, "works\n  \"status\": \"created\",\nworks\n");
    stage.assert_nothing_left(&[]);
}

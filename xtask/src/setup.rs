//! `cargo xtask setup`: installs what building and testing needs, and says what it installs.
//!
//! Building needs a C compiler (for SQLite and zstd) and nothing else. Everything else is for tests and
//! benchmarks; a test whose program is missing says so by name.

use std::process::{Command, Stdio};

use crate::{
    Outcome,
    process::{find, is_root, run},
};

/// One Debian package and why it is wanted.
struct Package {
    name: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// A table; the order is the order in which they are printed.
const PACKAGES: &[Package] = &[
    package("gcc", "build: SQLite and zstd are compiled from C"),
    package("g++", "build: libFuzzer of the fuzz targets is compiled from C++"),
    package("libc6-dev", "build: headers, and the static C library of both programs"),
    package("git", "tidy: the list of tracked files"),
    package("busybox-static", "tests: the smallest image that does something"),
    package("mmdebstrap", "tests: builds the nginx image"),
    package("debootstrap", "tests (--long): the other tool of rootfs bootstrap"),
    package("skopeo", "tests: pushes images to a registry"),
    package("docker-registry", "tests: a real registry on the loopback"),
    package("openssl", "tests: certificates of registries and their clients"),
    package("curl", "tests: fetches pages over published ports"),
    package("jq", "tests: compares plans"),
    package("sqlite3", "tests: the scripts of --explain=sh that write to the database"),
    package("iproute2", "tests: private networks, and the scripts of --explain=sh"),
    package("nftables", "tests: reads rules back, and the scripts of --explain=sh"),
    package("util-linux", "tests: unshare, nsenter, setpriv"),
    package("cgroup-tools", "tests, labs: cgcreate, cgget and the others, which our groups are compared with"),
    package("cpulimit", "tests, labs: the scripts of limit --explain=sh"),
    package("tmux", "tests: a terminal that can be looked at, for onggi top"),
    package("libcap2-bin", "tests: capsh in the scripts of --explain=sh"),
    package("uidmap", "tests: user namespaces of ordinary users"),
    package("python3-seccomp", "tests: libseccomp, whose filters are compared with ours"),
    package("strace", "tests: counts system calls"),
    package("procps", "tests: ps"),
    package("psmisc", "labs: pstree"),
    package("stress", "labs: load to limit"),
    package("tree", "labs: pictures of directories"),
    package("iputils-ping", "labs: packets between namespaces, and a program with a file capability"),
    package("netcat-openbsd", "labs: listens on ports"),
    package("attr", "labs: getfattr"),
    package("qemu-system-x86", "tests: a machine with systemd, cgroup v2 and AppArmor"),
    package("e2fsprogs", "tests: makes that machine's disks"),
    package("btrfs-progs", "tests: makes filesystems for the btrfs driver"),
    package("xfsprogs", "tests: makes filesystems with shared extents"),
    package("libarchive-tools", "tests: bsdtar, which our reader of archives is compared with"),
    package("python3", "tests: tarfile, which our reader of archives is compared with"),
    package("umoci", "bench: a peer that unpacks images"),
    package("xz-utils", "tests: archives that load and import read"),
    package("bzip2", "tests: archives that load and import read"),
    package("zstd", "bench: compresses the large image"),
    package("runc", "tests: the control of engines above onggi-oci; bench: a peer"),
    package("crun", "bench: a peer"),
    package("podman", "tests: an engine above onggi-oci; bench: a peer"),
    package("conmon", "tests: Podman's monitor; bench: a peer"),
    package("containerd", "tests: an engine above onggi-oci; bench: a peer"),
    package("docker.io", "tests: an engine above onggi-oci; bench: a peer"),
    package("tini", "tests: docker run --init"),
    package("buildah", "tests: builds images with onggi-oci"),
    package("catatonit", "tests: the first process of Podman's pods"),
    package("containernetworking-plugins", "tests: Podman's bridge"),
    package("bsdutils", "tests: script, which gives engines a terminal"),
    package("time", "bench: peak memory"),
    package("valgrind", "bench: finds the functions that the engine's commands enter"),
    package("hyperfine", "bench: measurements by hand"),
];

/// Cargo subcommands that `check` and `test` use when present.
const CARGO_TOOLS: &[&str] = &["cargo-nextest", "cargo-deny"];

/// Installs packages and cargo tools.
pub(crate) fn main(_args: &[String]) -> Outcome {
    packages()?;
    for tool in CARGO_TOOLS {
        if find_cargo_tool(tool) {
            println!("{tool}: installed");
        } else {
            println!("{tool}: installing from crates.io");
            run(Command::new("cargo").args(["install", "--locked", tool]))?;
        }
    }
    Ok(())
}

/// Installs the Debian packages that are missing, where that is possible.
pub(crate) fn packages() -> Outcome {
    let missing: Vec<&Package> = PACKAGES.iter().filter(|package| !is_installed(package.name)).collect();
    if missing.is_empty() {
        println!("setup: all {} Debian packages are installed", PACKAGES.len());
        return Ok(());
    }
    println!("setup: these Debian packages are missing:");
    for package in &missing {
        println!("  {:<16} {}", package.name, package.why);
    }
    if find("apt-get").is_none() {
        println!("setup: there is no apt-get here; tests that need them will say so");
        return Ok(());
    }
    if !is_root() {
        let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
        println!(
            "setup: not root; an administrator can run\n  apt-get install --no-install-recommends {}",
            names.join(" ")
        );
        return Ok(());
    }
    run(apt().arg("update"))?;
    // One by one: a package that this release does not have must not keep the others away.
    for package in missing {
        if let Err(error) = run(apt().args(["install", "--yes", "--no-install-recommends", package.name])) {
            println!("setup: {error}; going on without {}", package.name);
        }
    }
    Ok(())
}

/// True when cargo would find this subcommand.
pub(crate) fn find_cargo_tool(tool: &str) -> bool {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".cargo")));
    find(tool).is_some() || home.is_some_and(|home| home.join("bin").join(tool).is_file())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // Packages such as docker.io start a service on installation; a container or chroot refuses that by
    // policy-rc.d, and a test machine does not need it.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command.arg("--quiet");
    command
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    let output = query.stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.stdout == b"installed")
}

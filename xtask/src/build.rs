//! Building the two programs and laying them out as an installation under `target/dist`.
//!
//! ```text
//! target/dist/bin/onggi                  release profile, static
//! target/dist/libexec/onggi/onggi-oci    profile `oci`, static
//! target/dist-failpoints/…               the same with an `onggi` that can be killed at named points
//! ```
//! Tests, demo and bench run what a user would run: the installed layout, not files below `target/release`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Outcome,
    process::{cargo, command, run, workspace},
    test::FEATURES,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Both programs, built.
pub(crate) struct Programs {
    /// The engine's command line.
    pub(crate) onggi: PathBuf,
    /// The runtime and monitor.
    pub(crate) onggi_oci: PathBuf,
}

/// The directory where everything is built.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// One of the static programs: how it is built and where everything about it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Static {
    /// The engine's command line.
    Engine,
    /// The runtime and monitor.
    Runtime,
}

impl Static {
    /// The package, which is also the program's directory below `crates`.
    fn package(self) -> &'static str {
        match self {
            Self::Engine => "onggi-cli",
            Self::Runtime => "onggi-oci",
        }
    }

    /// The program's name.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Engine => "onggi",
            Self::Runtime => "onggi-oci",
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Self::Engine => "release",
            Self::Runtime => "oci",
        }
    }

    /// Where the program begins: in crates/onggi-sys/src/entry.rs and not in the C library.
    pub(crate) fn entry(self) -> &'static str {
        match self {
            Self::Engine => "onggi_plain_entry",
            Self::Runtime => "onggi_entry",
        }
    }

    /// A target directory of its own, because other flags in a shared one would make every switch between two builds start
    /// from nothing.
    fn directory(self) -> PathBuf {
        target_dir().join(match self {
            Self::Engine => "engine",
            Self::Runtime => "oci",
        })
    }

    /// Where the linker writes which function is where.
    pub(crate) fn map(self) -> PathBuf {
        self.directory().join(format!("{}.map", self.program()))
    }

    /// The linker script that puts the functions of the start path side by side (docs/performance.md).
    pub(crate) fn hot_functions(self) -> PathBuf {
        workspace().join("crates").join(self.package()).join("hot.ld")
    }

    /// Builds it as it is installed.
    pub(crate) fn build(self) -> Outcome<PathBuf> {
        let dir = self.directory();
        let mut build = cargo();
        build.args(["rustc", "--locked", "--profile", self.profile(), "--target", TARGET, "-p", self.package()]);
        build.args(["--bin", self.program()]).arg("--target-dir").arg(&dir);
        let libc = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output();
        let libc = libc.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        if !has_short_start(&libc) {
            eprintln!("{} starts as its C library ({:?}) has it: ours is for glibc 2.36", self.program(), libc.trim());
        }
        build.env("CARGO_ENCODED_RUSTFLAGS", flags(&libc).join("\x1f")).env("ONGGI_COMMIT", commit());
        // For the program alone, so that nothing else is compiled again when one of them changes.
        build.arg("--").args(self.link_flags(&libc));
        // The engine takes longest: nothing slows it down.
        match self {
            Self::Engine => run(&mut build)?,
            Self::Runtime => run(&mut giving_way(&build))?,
        }
        Ok(dir.join(TARGET).join(self.profile()).join(self.program()))
    }

    /// The functions of the start path side by side, and relocations packed as bit maps.
    fn link_flags(self, libc: &str) -> Vec<String> {
        let mut arguments = vec![
            format!("-e,{}", self.entry()),
            format!("-T,{}", self.hot_functions().display()),
            format!("-Map={}", self.map().display()),
        ];
        if applies_packed_relocations(libc) {
            arguments.push("-z,pack-relative-relocs".to_owned());
        }
        arguments.into_iter().flat_map(|argument| ["-C".to_owned(), format!("link-arg=-Wl,{argument}")]).collect()
    }
}

/// `tests/tests/e2e/start.rs` has the same rule.
fn has_short_start(libc: &str) -> bool {
    libc.trim() == "glibc 2.36"
}

/// What every crate of a static program is compiled with.
fn flags(libc: &str) -> Vec<String> {
    // The linker scripts name functions, so the names must tell instances of a generic function apart.
    let mut flags = vec!["-C", "target-feature=+crt-static", "-C", "symbol-mangling-version=v0"];
    // The insides of one version of the C library (crates/onggi-sys/src/start.rs).
    if has_short_start(libc) {
        flags.extend(["--cfg", "onggi_short_start"]);
    }
    flags.into_iter().map(str::to_owned).collect()
}

/// Builds both programs as they are installed; at the same time, because linking with LTO is one thread's work.
pub(crate) fn release() -> Outcome<Programs> {
    let (onggi, onggi_oci) = std::thread::scope(|threads| {
        let runtime = threads.spawn(static_runtime);
        let onggi = Static::Engine.build();
        (onggi, runtime.join().unwrap_or_else(|_| Err("building onggi-oci panicked".to_owned())))
    });
    Ok(Programs { onggi: onggi?, onggi_oci: onggi_oci? })
}

/// Builds `onggi-oci` alone.
pub(crate) fn static_runtime() -> Outcome<PathBuf> {
    Static::Runtime.build()
}

/// The start code of a static program applies them since glibc 2.36; an older one would leave them undone.
fn applies_packed_relocations(version: &str) -> bool {
    let numbers = version.trim().strip_prefix("glibc ").and_then(|v| v.split_once('.'));
    let minor = |text: &str| text.split('.').next().and_then(|n| n.parse::<u32>().ok());
    numbers.is_some_and(|(major, rest)| major == "2" && minor(rest).is_some_and(|n| n >= 36))
}

/// What `onggi-oci --version` shows; a source tree without git has none.
fn commit() -> String {
    let shown = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = shown.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    text.filter(|t| !t.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Builds all tests, and with them `onggi` with its failpoints, unoptimised. (A build of that program alone would
/// choose other features for what both need, and build it twice.)
pub(crate) fn tests() -> Outcome<PathBuf> {
    let mut build = cargo();
    build.args(["test", "--workspace", "--locked", "--no-run", "--quiet", "--features", FEATURES]);
    run(&mut giving_way(&build))?;
    Ok(target_dir().join("debug/onggi"))
}

/// The same command for processors that nobody else wants: the build of the installed `onggi` takes longest and is
/// one thread's work for minutes, so that what runs beside it must not slow it down.
pub(crate) fn giving_way(work: &Command) -> Command {
    let mut nice = command("nice");
    nice.args(["-n", "10"]).arg(work.get_program()).args(work.get_args());
    nice.envs(work.get_envs().filter_map(|(key, value)| Some((key, value?))));
    nice
}

/// Builds both programs unoptimised and as they come.
pub(crate) fn debug() -> Outcome<Programs> {
    run(cargo().args(["build", "--locked", "-p", "onggi-cli", "-p", "onggi-oci"]))?;
    let debug = target_dir().join("debug");
    Ok(Programs { onggi: debug.join("onggi"), onggi_oci: debug.join("onggi-oci") })
}

/// Builds both programs unoptimised and lays them out under `target/dist-debug`, which it returns.
pub(crate) fn debug_dist() -> Outcome<PathBuf> {
    let prefix = target_dir().join("dist-debug");
    lay_out(&debug()?, &prefix).map(|_| prefix)
}

/// Builds what users install and lays it out under `target/dist`.
pub(crate) fn dist() -> Outcome<Programs> {
    let built = release()?;
    lay_out(&built, &target_dir().join("dist"))
}

/// Builds the runtime alone and lays it out; an `onggi` that is there stays.
pub(crate) fn runtime_dist() -> Outcome<PathBuf> {
    let to = target_dir().join("dist/libexec/onggi/onggi-oci");
    replace(&static_runtime()?, &to)?;
    Ok(to)
}

/// Copies both programs below `prefix`, each replaced by a rename so that a running one is not disturbed.
pub(crate) fn lay_out(built: &Programs, prefix: &Path) -> Outcome<Programs> {
    let onggi = prefix.join("bin/onggi");
    let onggi_oci = prefix.join("libexec/onggi/onggi-oci");
    replace(&built.onggi, &onggi)?;
    replace(&built.onggi_oci, &onggi_oci)?;
    Ok(Programs { onggi, onggi_oci })
}

fn replace(from: &Path, to: &Path) -> Outcome {
    let dir = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(|e| format!("make directory {}: {e}", dir.display()))?;
    let new = to.with_extension("new");
    fs::copy(from, &new).map_err(|e| format!("copy {} to {}: {e}", from.display(), new.display()))?;
    fs::rename(&new, to).map_err(|e| format!("rename {} to {}: {e}", new.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relocations_are_packed_only_where_the_start_code_knows_them() {
        assert!(applies_packed_relocations("glibc 2.36\n"));
        assert!(applies_packed_relocations("glibc 2.41\n"));
        for other in ["glibc 2.35\n", "musl 1.2\n", ""] {
            assert!(!applies_packed_relocations(other), "{other}");
        }
    }

    #[test]
    fn the_short_start_is_for_the_one_version_that_it_knows() {
        let short = |libc: &str| flags(libc).contains(&"onggi_short_start".to_owned());
        assert!(short("glibc 2.36\n"));
        assert!(!short("glibc 2.37\n") && !short("glibc 2.3\n") && !short(""));
        assert!(flags("").contains(&"target-feature=+crt-static".to_owned()));
    }

    #[test]
    fn each_static_program_has_an_entry_an_order_and_a_directory_of_its_own() {
        for (of, entry, order) in [
            (Static::Engine, "-Wl,-e,onggi_plain_entry", "crates/onggi-cli/hot.ld"),
            (Static::Runtime, "-Wl,-e,onggi_entry", "crates/onggi-oci/hot.ld"),
        ] {
            let flags = of.link_flags("glibc 2.36");
            assert!(flags.iter().any(|flag| flag.ends_with(entry)), "{flags:?}");
            assert!(flags.iter().any(|flag| flag.contains("-T,") && flag.ends_with(order)), "{flags:?}");
            assert!(of.hot_functions().is_file());
        }
        assert_ne!(Static::Engine.directory(), Static::Runtime.directory());
    }

    #[test]
    fn work_that_gives_way_stays_the_same_work() {
        let mut work = Command::new("cargo");
        work.args(["build", "-p", "x"]).env("FLAGS", "a b");
        let nice = giving_way(&work);
        assert_eq!(crate::process::line(&nice), "FLAGS='a b' nice -n 10 cargo build -p x");
    }

    #[test]
    fn laying_out_replaces_what_was_there_and_leaves_no_temporary_file() {
        let dir = std::env::temp_dir().join(format!("onggi-xtask-layout-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("a"), "one").unwrap();
        fs::write(dir.join("b"), "two").unwrap();
        let built = Programs { onggi: dir.join("a"), onggi_oci: dir.join("b") };
        for _ in 0..2 {
            let out = lay_out(&built, &dir.join("prefix")).unwrap();
            assert_eq!(fs::read_to_string(&out.onggi).unwrap(), "one");
            assert_eq!(fs::read_to_string(&out.onggi_oci).unwrap(), "two");
        }
        assert_eq!(fs::read_dir(dir.join("prefix/bin")).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}

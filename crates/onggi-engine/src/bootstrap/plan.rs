//! What `rootfs bootstrap` runs, as a list; and that list in words and as a script. Pure.

use std::path::{Path, PathBuf};

use onggi_spec::{ParseError, shell::quote};
use serde::Serialize;

use super::{Bootstrap, Target, Tool, settle};

/// Variants of mmdebstrap(1) and debootstrap(8).
const VARIANTS: [&str; 13] = [
    "extract",
    "custom",
    "essential",
    "apt",
    "required",
    "minbase",
    "buildd",
    "important",
    "debootstrap",
    "-",
    "standard",
    "fakechroot",
    "scratchbox",
];
/// Where packages come from when nobody says.
const MIRROR: &str = "http://deb.debian.org/debian";
/// What is this machine's own, and would make the same packages another image elsewhere.
const HOST_FILES: &str = r#"rm -f "$1"/etc/hostname "$1"/etc/resolv.conf"#;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum BootstrapOp {
    /// A directory for a tool that cannot stream. It is locked as long as a process of the tool lives, so that nobody
    /// collects it meanwhile, and anybody afterwards.
    MakeDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A program of this machine, in a mount namespace of its own where it may have one; its messages go to the user.
    Run {
        /// Absolute path.
        program: PathBuf,
        /// Arguments.
        args: Vec<String>,
        /// Seconds since 1970 that no file shall be younger than: SOURCE_DATE_EPOCH.
        timestamp: u64,
        /// Its standard output is the archive that the next operation reads.
        streams: bool,
    },
    /// Takes what differs from run to run out of a directory, and no file in it is younger than the timestamp.
    Settle {
        /// The directory.
        dir: PathBuf,
        /// Seconds since 1970.
        timestamp: u64,
    },
    /// An image of one layer.
    Import {
        /// Its name.
        name: Option<String>,
        /// A directory; the stream of the program before when absent.
        from: Option<PathBuf>,
        /// When it was made, in seconds since 1970.
        timestamp: u64,
    },
    /// A temporary directory goes.
    RemoveDirectory {
        /// The directory.
        path: PathBuf,
    },
}

/// Operations in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootstrapPlan {
    /// The operations.
    pub ops: Vec<BootstrapOp>,
}

impl BootstrapPlan {
    /// `scratch` is the directory that a tool works in that cannot stream.
    pub(super) fn new(request: &Bootstrap, tool: Tool, program: &Path, scratch: &Path) -> Result<Self, ParseError> {
        check(request)?;
        check_for_tool(request, tool)?;
        let timestamp = request.timestamp;
        let run = |target: &str, streams| BootstrapOp::Run {
            program: program.to_owned(),
            args: arguments(request, tool, target, streams),
            timestamp,
            streams,
        };
        let ops = match (&request.target, tool) {
            (Target::Directory(dir), _) => vec![run(&dir.to_string_lossy(), false)],
            (Target::Image(name), Tool::Mmdebstrap) => {
                let name = name.as_ref().map(ToString::to_string);
                vec![run("-", true), BootstrapOp::Import { name, from: None, timestamp }]
            }
            (Target::Image(name), Tool::Debootstrap) => {
                let (name, dir) = (name.as_ref().map(ToString::to_string), scratch.to_owned());
                vec![
                    BootstrapOp::MakeDirectory { path: dir.clone() },
                    run(&dir.to_string_lossy(), false),
                    BootstrapOp::Settle { dir: dir.clone(), timestamp },
                    BootstrapOp::Import { name, from: Some(dir.clone()), timestamp },
                    BootstrapOp::RemoveDirectory { path: dir },
                ]
            }
        };
        Ok(Self { ops })
    }

    /// A line per operation.
    pub fn words(&self) -> String {
        self.ops.iter().map(|op| words(op) + "\n").collect()
    }

    /// The same by hand.
    pub fn shell(&self) -> String {
        let mut out = "#!/bin/sh\nset -e\n".to_owned();
        for op in &self.ops {
            match op {
                BootstrapOp::MakeDirectory { path } => {
                    out += &format!("mkdir -m 755 {}\n", quote(&path.to_string_lossy()));
                }
                BootstrapOp::Run { program, args, timestamp, streams } => {
                    let args: Vec<String> = args.iter().map(|arg| quote(arg)).collect();
                    let end = if *streams { " |\n" } else { "\n" };
                    out += &format!("SOURCE_DATE_EPOCH={timestamp} {} {}{end}", program.display(), args.join(" "));
                }
                BootstrapOp::Settle { dir, timestamp } => {
                    let dir = quote(&dir.to_string_lossy());
                    let all = |list: &[&str], end: &str| {
                        list.iter().map(|path| format!("{dir}/{path}{end}")).collect::<Vec<_>>().join(" ")
                    };
                    out += &format!("rm -f {}\n", all(&settle::VOLATILE, ""));
                    out += &format!("find {} -mindepth 1 -delete\n", all(&settle::EMPTIED, ""));
                    out += &format!("find {dir} -newermt @{timestamp} -exec touch -h -d @{timestamp} {{}} +\n");
                }
                BootstrapOp::Import { name, from, .. } => {
                    let name = name.as_deref().map(|n| format!(" {}", quote(n))).unwrap_or_default();
                    out += &match from {
                        None => format!("onggi import -{name}\n"),
                        Some(dir) => format!(
                            "tar -C {} --sort=name -c . | onggi import -{name}\n",
                            quote(&dir.to_string_lossy())
                        ),
                    };
                }
                BootstrapOp::RemoveDirectory { path } => out += &format!("rm -rf {}\n", quote(&path.to_string_lossy())),
            }
        }
        out
    }
}

fn words(op: &BootstrapOp) -> String {
    match op {
        BootstrapOp::MakeDirectory { path } => format!("make the directory {}", path.display()),
        BootstrapOp::Run { program, args, streams, .. } => format!(
            "run {} {}{}",
            program.display(),
            args.join(" "),
            if *streams { ", and read the archive that it writes" } else { "" }
        ),
        BootstrapOp::Settle { dir, timestamp } => format!(
            "remove logs and caches from {}, and date everything younger {timestamp} seconds after 1970",
            dir.display()
        ),
        BootstrapOp::Import { name, .. } => match name {
            Some(name) => format!("make an image of one layer and name it {name}"),
            None => "make an image of one layer without a name".to_owned(),
        },
        BootstrapOp::RemoveDirectory { path } => format!("remove {}", path.display()),
    }
}

fn arguments(request: &Bootstrap, tool: Tool, target: &str, streams: bool) -> Vec<String> {
    let mut args = Vec::new();
    let joined = |list: &[String]| list.join(",");
    args.push(format!("--variant={}", request.variant.as_deref().unwrap_or("minbase")));
    if !request.include.is_empty() {
        args.push(format!("--include={}", joined(&request.include)));
    }
    if !request.components.is_empty() {
        args.push(format!("--components={}", joined(&request.components)));
    }
    if let Some(arch) = &request.arch {
        args.push(format!("--{}={arch}", if tool == Tool::Mmdebstrap { "architectures" } else { "arch" }));
    }
    if let Some(keyring) = &request.keyring {
        args.push(format!("--keyring={}", keyring.display()));
    }
    if tool == Tool::Mmdebstrap {
        if request.quiet {
            args.push("--quiet".to_owned());
        }
        if streams {
            args.push("--format=tar".to_owned());
        }
        if matches!(request.target, Target::Image(_)) {
            args.push(format!("--customize-hook={HOST_FILES}"));
        }
    }
    args.push(request.suite.clone());
    args.push(target.to_owned());
    match request.mirrors.is_empty() {
        true => args.push(MIRROR.to_owned()),
        false => args.extend(request.mirrors.iter().cloned()),
    }
    args
}

/// debootstrap(8) takes one URL: a second one would be the script that it runs.
fn check_for_tool(request: &Bootstrap, tool: Tool) -> Result<(), ParseError> {
    let url = |text: &String| ["http://", "https://", "file:/"].iter().any(|start| text.starts_with(start));
    let wrong = |text: &str, why: &str| {
        Err(ParseError::new("mirror", text, why)
            .hint("mmdebstrap takes any number of mirrors and lines of sources.list"))
    };
    match (tool, &request.mirrors[..]) {
        (Tool::Mmdebstrap, _) | (Tool::Debootstrap, []) => Ok(()),
        (Tool::Debootstrap, [one]) if url(one) => Ok(()),
        (Tool::Debootstrap, [one]) => wrong(one, "debootstrap takes a URL"),
        (Tool::Debootstrap, [_, second, ..]) => wrong(second, "debootstrap takes one mirror"),
    }
}

/// Nothing that is given may become an option or a second value of the tool.
fn check(request: &Bootstrap) -> Result<(), ParseError> {
    let word = |extra: &'static str| {
        move |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        }
    };
    let (name, package) = (word("-_./"), word("+-.:=~"));
    let wrong = |what: &'static str, text: &str, why: &str| {
        Err(ParseError::new(what, text, why).hint("see mmdebstrap(1), section \"variants\" for variants"))
    };
    if !name(&request.suite) {
        return wrong("suite", &request.suite, "it is no name such as stable, bookworm or trixie");
    }
    if let Some(variant) = request.variant.as_deref().filter(|v| !VARIANTS.contains(v)) {
        return wrong("variant", variant, "there is none of that name");
    }
    if let Some(text) = request.include.iter().find(|text| !package(text)) {
        return wrong("package", text, "it is no name of a package");
    }
    if let Some(text) = request.components.iter().chain(&request.arch).find(|text| !name(text)) {
        return wrong("component or architecture", text, "it is no name");
    }
    let mirror = |text: &String| {
        let known = ["http://", "https://", "file:/", "copy:/", "mirror+http", "deb ", "deb-src ", "/"];
        known.iter().any(|start| text.starts_with(start)) && !text.contains('\n')
    };
    match request.mirrors.iter().find(|text| !mirror(text)) {
        Some(text) => wrong("mirror", text, "it is neither a URL, nor a file, nor a line of sources.list"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: Target) -> Bootstrap {
        Bootstrap { suite: "bookworm".into(), include: vec!["nginx".into(), "curl".into()], ..Bootstrap::new(target) }
    }

    fn plan(request: &Bootstrap, tool: Tool) -> Result<BootstrapPlan, ParseError> {
        let program = if tool == Tool::Mmdebstrap { "/usr/bin/mmdebstrap" } else { "/usr/sbin/debootstrap" };
        BootstrapPlan::new(request, tool, Path::new(program), Path::new("/store/tmp/x"))
    }

    #[test]
    fn an_image_is_read_from_the_tools_stream() {
        let name = "debian:12".parse().unwrap();
        let plan = plan(&request(Target::Image(Some(name))), Tool::Mmdebstrap).unwrap();
        assert_eq!(
            plan.shell(),
            "#!/bin/sh\nset -e\nSOURCE_DATE_EPOCH=0 /usr/bin/mmdebstrap --variant=minbase --include=nginx,curl --format=tar \
             '--customize-hook=rm -f \"$1\"/etc/hostname \"$1\"/etc/resolv.conf' bookworm - http://deb.debian.org/debian |\n\
             onggi import - docker.io/library/debian:12\n"
        );
    }

    #[test]
    fn a_directory_is_made_by_the_tool_alone() {
        let plan = plan(&request(Target::Directory("/srv/deb".into())), Tool::Debootstrap).unwrap();
        let words = "run /usr/sbin/debootstrap --variant=minbase --include=nginx,curl bookworm /srv/deb \
                     http://deb.debian.org/debian\n";
        assert_eq!(plan.words(), words);
    }

    #[test]
    fn debootstrap_makes_an_image_by_way_of_a_directory_that_goes_again() {
        let plan = plan(&request(Target::Image(None)), Tool::Debootstrap).unwrap();
        assert!(matches!(
            plan.ops[..],
            [
                BootstrapOp::MakeDirectory { .. },
                BootstrapOp::Run { streams: false, .. },
                BootstrapOp::Settle { .. },
                BootstrapOp::Import { from: Some(_), .. },
                BootstrapOp::RemoveDirectory { .. }
            ]
        ));
    }

    #[test]
    fn debootstrap_gets_one_mirror_and_no_script() {
        let with = |mirrors: &[&str]| {
            let mirrors = mirrors.iter().map(|text| (*text).to_owned()).collect();
            plan(&Bootstrap { mirrors, ..request(Target::Image(None)) }, Tool::Debootstrap)
        };
        assert!(with(&["http://a/debian"]).is_ok() && with(&[]).is_ok());
        assert!(with(&["http://a/debian", "file:///script"]).is_err());
        assert!(with(&["deb http://a/debian stable main"]).is_err());
        assert!(with(&["/tmp/sources.list"]).is_err());
    }

    #[test]
    fn nothing_that_is_given_becomes_an_option() {
        let good = request(Target::Image(None));
        let bad = |change: &dyn Fn(&mut Bootstrap)| {
            let mut request = good.clone();
            change(&mut request);
            assert!(plan(&request, Tool::Mmdebstrap).is_err(), "{request:?}");
        };
        bad(&|r| r.suite = "--customize-hook=id".into());
        bad(&|r| r.suite = String::new());
        bad(&|r| r.variant = Some("tiny".into()));
        bad(&|r| r.include = vec!["a b".into()]);
        bad(&|r| r.include = vec!["-a".into()]);
        bad(&|r| r.include = vec!["a,b".into()]);
        bad(&|r| r.arch = Some("amd64,i386".into()));
        bad(&|r| r.components = vec!["main;id".into()]);
        bad(&|r| r.mirrors = vec!["--hook-directory=/x".into()]);
        bad(&|r| r.mirrors = vec!["deb http://a b c\nevil".into()]);
    }
}

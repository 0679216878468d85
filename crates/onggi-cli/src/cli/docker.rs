//! Commands and options of Docker and Podman that Onggi does not have: whoever types one knows what it does, so it is called
//! by its name and told what does the same here. Never a guess at what else may have been meant.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Commands, and what to use.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &["build", "buildx", "builder", "bake"],
        "build with buildah or podman and `onggi load` the result; `onggi commit`, `onggi image from-binary` and `onggi rootfs \
         bootstrap` make images too",
    ),
    (&["compose"], "`onggi run -d` for each service"),
    (&["events"], "`onggi wait NAME` for an end, `onggi ps -a`, and `ONGGI_TRACE=1` for what a command does"),
    (&["update"], "`onggi cgroup set NAME memory=100M cpus=0.5` as long as it runs"),
    (&["network"], "`onggi net ls`, `onggi net bridge`, and `--network bridge|none|host` of `onggi run`"),
    (&["volume"], "a directory of the host: `onggi run -v DIR:PATH`"),
    (&["checkpoint"], "criu(8)"),
    (&["healthcheck"], "`onggi exec NAME COMMAND`"),
    (&["unshare"], "`onggi ns run --map-root-user --map-auto --mount`"),
    (&["mount"], "`onggi image mount IMAGE`, `onggi overlay layers NAME` for the merged directory of a container"),
    (&["umount", "unmount"], "`onggi image unmount IMAGE`, `onggi overlay unmount DIR`"),
    (&["manifest"], "`onggi image inspect`, `onggi copy --all-platforms`"),
    (&["init"], "`onggi create IMAGE`"),
    (
        &["swarm", "service", "stack", "node", "secret", "config", "context", "plugin", "trust", "pod", "kube", "play"],
        "Onggi runs containers of one machine, one by one",
    ),
    (&["generate", "quadlet", "auto-update", "machine", "farm"], "Onggi has nothing of the kind"),
];

/// Options of `run` and `create`, and what to use.
const RUN: &[(&[&str], &str)] = &[
    (&["--volumes-from", "--volume-driver"], "-v SOURCE:TARGET[:ro] hands a directory or file of the host in"),
    (
        &["--restart"],
        "a service of systemd whose ExecStart= is `onggi run --rm --name NAME IMAGE`, with Restart=always",
    ),
    (&["-q", "--quiet"], "`onggi pull -q IMAGE` before"),
    (
        &[
            "--cgroup-parent",
            "--runtime",
            "--storage-opt",
            "--umask",
            "--timeout",
            "--gpus",
            "--rootfs",
            "--systemd",
            "--secret",
        ],
        "a bundle for `onggi-oci run` has every field of the OCI specification: docs/runtime.md",
    ),
    (
        &["--ip", "--ip6", "--link", "--link-local-ip", "--mac-address", "--network-alias", "--net-alias"],
        "containers have the host's name servers and the next free address of the bridge; `onggi net` makes networks by hand",
    ),
    (
        &[
            "--health-cmd",
            "--health-interval",
            "--health-retries",
            "--health-start-period",
            "--health-start-interval",
            "--health-timeout",
            "--no-healthcheck",
        ],
        "`onggi exec NAME COMMAND` checks by hand",
    ),
    (&["--log-driver", "--log-opt"], "`onggi logs NAME` reads the one log that there is"),
    (&["-a", "--attach", "--sig-proxy", "--disable-content-trust", "--isolation"], "leave it out"),
];

/// Options of other commands: the command, its options, what to use.
const OTHERS: &[(&str, &[&str], &str)] = &[
    ("rmi", &["-a", "--all"], "`onggi image prune --all`"),
    ("image rm", &["-a", "--all"], "`onggi image prune --all`"),
    ("commit", &["--iidfile"], "the id is what is printed: `onggi commit … > FILE`"),
    ("commit", &["-s", "--squash"], "`onggi export CONTAINER | onggi import - NAME` makes one layer"),
    ("import", &["--os", "--arch", "--variant"], "--platform OS/ARCH[/VARIANT]"),
    ("pull", &["--os", "--arch", "--variant"], "--platform OS/ARCH[/VARIANT]"),
    ("push", &["--compression-format"], "--compression"),
    ("logs", &["--details"], "leave it out"),
];

/// What is said to a line that is right for Docker: the message and its hint.
pub(super) fn known(e: &Error) -> Option<(String, &'static str)> {
    let path = path(e)?;
    // Groups that Docker has too: what it calls `container run` is `run`.
    let verb = GROUPS.iter().find_map(|group| path.strip_prefix(group)).unwrap_or(&path).trim();
    match e.kind() {
        ErrorKind::InvalidSubcommand if verb.is_empty() => {
            let name = text(e, ContextKind::InvalidSubcommand)?;
            command(&name)
        }
        ErrorKind::UnknownArgument => option(&path, verb, &text(e, ContextKind::InvalidArg)?),
        _ => None,
    }
}

fn text(e: &Error, kind: ContextKind) -> Option<String> {
    match e.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Commands with commands of their own that Docker has too.
const GROUPS: [&str; 3] = ["container", "image", "system"];

/// `container run` of `Usage: onggi container run [OPTIONS] …`; empty for the program itself.
fn path(e: &Error) -> Option<String> {
    let rendered = e.render().to_string();
    let usage = rendered.lines().find_map(|line| line.trim_start().strip_prefix("Usage: onggi "))?;
    let words = usage.split(' ').take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    Some(words.collect::<Vec<_>>().join(" "))
}

fn command(name: &str) -> Option<(String, &'static str)> {
    let (_, hint) = COMMANDS.iter().find(|(names, _)| names.contains(&name))?;
    Some((format!("there is no `{name}` yet, as other engines have it"), hint))
}

/// `path` is `image rm` where `command` is `rm`.
fn option(path: &str, command: &str, option: &str) -> Option<(String, &'static str)> {
    // What clap says with a value: `--tmpfs=/run`.
    let name = option.split('=').next().unwrap_or(option);
    let told = |hint: &&'static str| Some((format!("`{command}` has no {name} yet, as other engines have it"), *hint));
    if matches!(command, "run" | "create") {
        return RUN.iter().find(|(names, _)| names.contains(&name)).and_then(|(_, hint)| told(hint));
    }
    let of = |(verb, names, _): &&(&str, &[&str], &str)| [path, command].contains(verb) && names.contains(&name);
    OTHERS.iter().find(of).and_then(|(_, _, hint)| told(hint))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{self, Cli};

    fn said(line: &str) -> Option<(String, &'static str)> {
        known(&Cli::try_parse_from(line.split(' ')).expect_err(line))
    }

    #[test]
    fn what_docker_has_is_called_by_its_name() {
        for (line, what, hint) in [
            ("onggi compose up", "no `compose`", "onggi run"),
            ("onggi container checkpoint", "no `checkpoint`", "criu"),
            ("onggi run --volumes-from web busybox", "no --volumes-from", "-v SOURCE"),
            ("onggi run --restart=always x", "no --restart", "systemd"),
            ("onggi create --gpus all x", "no --gpus", "onggi-oci"),
            ("onggi container run --ip 10.0.0.2 x", "no --ip", "onggi net"),
            ("onggi image rm --all", "no --all", "image prune"),
        ] {
            let (told, use_this) = said(line).unwrap_or_else(|| panic!("{line}"));
            assert!(told.contains(what) && use_this.contains(hint), "{line}: {told}; {use_this}");
        }
        for line in
            ["onggi imags", "onggi run --nme x", "onggi ns run --tmpfs x", "onggi rm --size", "onggi cgroup update x"]
        {
            assert_eq!(said(line), None, "{line}");
        }
    }

    #[test]
    fn nothing_is_denied_that_is_there() {
        let tree = cli::command();
        for name in COMMANDS.iter().flat_map(|(names, _)| names.iter()) {
            assert!(tree.find_subcommand(name).is_none(), "{name} is there");
        }
        let has = |command: &str, option: &str| {
            let inner = |tree, name: &str| clap::Command::find_subcommand(tree, name).expect("it is there");
            let command = command.split(' ').fold(&tree, inner);
            command.get_arguments().any(|a| {
                let long = a.get_long().map(|l| format!("--{l}"));
                let aliases = a.get_all_aliases().unwrap_or_default().iter().any(|l| format!("--{l}") == option);
                long.as_deref() == Some(option)
                    || a.get_short().map(|s| format!("-{s}")).as_deref() == Some(option)
                    || aliases
            })
        };
        let runs = RUN.iter().flat_map(|(names, _)| names.iter().map(|name| ("run", *name)));
        let others = OTHERS.iter().flat_map(|(verb, names, _)| names.iter().map(|name| (*verb, *name)));
        for (command, option) in runs.chain(others) {
            assert!(!has(command, option), "{command} has {option}");
        }
    }
}

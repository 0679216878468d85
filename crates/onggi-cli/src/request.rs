//! The arguments of `run` and `create` → [`ContainerRequest`].
//!
//! The only place that looks at the caller's environment and current directory for them: `-e KEY`,
//! `--env-file`, relative paths of `-v` and `rootfs:`.

mod host;
mod limits;
mod network;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};
use onggi_engine::{Credentials, Engine, PullOptions, PullPolicy, RegistryChoice};
use onggi_spec::{
    ContainerRequest, ImageReference, ImageSource, ParseError, UserNamespace,
    capability::parse_capability,
    env::{EnvArg, parse_env, parse_env_file, parse_hostname, parse_label},
    mount::{MountSpec, parse_volume},
    path,
    port::{PortMapping, parse_publish},
    quantity::parse_signal,
    request::StopChoice,
    seccomp_profile::SeccompProfile,
    security::{SeccompChoice, SecurityOpt, SecurityOptions, parse_security_opt},
    sysctl::parse_sysctl,
};

use host::HostArgs;
pub(crate) use limits::ResourceArgs;
use limits::{FixedLimitArgs, ProcessLimits};
use network::NetworkArgs;

use crate::error::CliError;

/// Longest environment file or profile that is read: larger than any environment the kernel accepts (I12).
const MAX_ENV_FILE: u64 = 16 << 20;

/// What `run` and `create` have in common.
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    /// Keep stdin open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Name of the container
    #[arg(long, allow_hyphen_values = true)]
    name: Option<String>,
    /// Publish a port on the host
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/udp]", allow_hyphen_values = true)]
    publish: Vec<String>,
    /// Bind-mount a host path, nosuid and nodev unless OPTIONS say otherwise (ro, dev, suid, noexec, rslave, rshared)
    #[arg(short, long, value_name = "HOST:CONTAINER[:OPTIONS]", allow_hyphen_values = true)]
    volume: Vec<String>,
    /// Set an environment variable, or pass your own on
    #[arg(short, long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User to run as
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    user: Option<String>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR", allow_hyphen_values = true)]
    workdir: Option<String>,
    /// Replace the image's entry point; an empty text removes it
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    entrypoint: Option<String>,
    /// User namespace: host, or auto for one of the container's own over ids that nobody else has
    #[arg(long, default_value = "host", value_name = "MODE", allow_hyphen_values = true)]
    userns: String,
    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME", allow_hyphen_values = true)]
    hostname: Option<String>,
    /// NIS domain name
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    domainname: Option<String>,
    #[command(flatten)]
    resources: ResourceArgs,
    #[command(flatten)]
    limits: FixedLimitArgs,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    names: NetworkArgs,
    /// Set a kernel setting of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    sysctl: Vec<String>,
    /// Add a group to the user's
    #[arg(long, value_name = "GROUP", allow_hyphen_values = true)]
    group_add: Vec<String>,
    /// Signal that asks it to end
    #[arg(long, value_name = "SIGNAL", allow_hyphen_values = true)]
    stop_signal: Option<String>,
    /// Seconds until it is killed; negative is never [default: 10]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Add a capability
    #[arg(long, value_name = "CAP", allow_hyphen_values = true)]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP", allow_hyphen_values = true)]
    cap_drop: Vec<String>,
    /// Change the confinement: apparmor=PROFILE|unconfined, seccomp=FILE|unconfined, no-new-privileges[=BOOL]
    #[arg(long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    security_opt: Vec<String>,
    /// Run an init as PID 1 that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Add an annotation to the runtime's configuration
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    annotation: Vec<String>,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) pull: ImagePullArgs,
    /// Show help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Image, `host:` (this machine, copy on write) or `rootfs:DIR`, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    pub(crate) image_and_command: Vec<String>,
}

/// How registries are talked to.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChoiceArgs {
    /// Verify the registry's certificate; false also allows plain HTTP
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_tls_verify, action = clap::ArgAction::Set)]
    tls_verify: bool,
    /// File with credentials, instead of the usual ones
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Directory with certificates for the registry: *.crt, *.cert, *.key
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Credentials for this once; others can see them in the list of processes
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
}

impl ChoiceArgs {
    /// The engine's options.
    pub(crate) fn choice(&self) -> Result<RegistryChoice, CliError> {
        let credentials = self.creds.as_deref().map(|text| match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                Ok(Credentials::Basic { username: user.to_owned(), password: password.to_owned() })
            }
            // Not repeated: it may be a password.
            _ => Err(CliError::usage("--creds is not USER:PASSWORD", "use `onggi login` to be asked for them")),
        });
        let choice = RegistryChoice {
            insecure: !self.tls_verify,
            auth_file: self.authfile.clone(),
            cert_dir: self.cert_dir.clone(),
            credentials: credentials.transpose()?,
        };
        choice.check_auth_file()?;
        Ok(choice)
    }
}

/// `true` or `false`, as Docker and Podman write them.
pub(crate) fn parse_tls_verify(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// How an image is fetched.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Platform of the image, as in linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
}

impl RegistryArgs {
    /// The engine's options.
    pub(crate) fn options(&self) -> Result<PullOptions, CliError> {
        let platform = self.platform.as_deref().map(parse_platform).transpose()?;
        Ok(PullOptions { registry: self.choice.choice()?, platform, ..PullOptions::default() })
    }
}

/// When a registry is asked for an image that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Every time
    Always,
    /// Only when the image is not stored
    #[value(alias = "ifnotpresent")]
    Missing,
    /// Every time; a stored image will do when no registry can be reached
    #[value(alias = "ifnewer")]
    Newer,
    /// Never
    Never,
}

impl From<Policy> for PullPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Always => Self::Always,
            Policy::Missing => Self::Missing,
            Policy::Newer => Self::Newer,
            Policy::Never => Self::Never,
        }
    }
}

/// How `run` and `create` come by their image.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImagePullArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value_t = Policy::Missing, value_name = "WHEN")]
    pull: Policy,
}

impl ImagePullArgs {
    /// The engine's options.
    pub(crate) fn options(&self) -> Result<PullOptions, CliError> {
        Ok(PullOptions { policy: self.pull.into(), ..self.registry.options()? })
    }
}

/// The image that a short name stands for by `registries.conf`.
pub(crate) fn qualify(
    engine: &Engine,
    text: &str,
    request: &mut ContainerRequest,
    options: &PullOptions,
) -> Result<(), CliError> {
    if let ImageSource::Image(reference) = &mut request.image {
        *reference = engine.qualify(text, &options.registry)?;
    }
    Ok(())
}

/// What the environment of the caller gives; a parameter so that tests need none.
pub(crate) struct Caller<'a> {
    /// Looks a variable up.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The current directory.
    pub(crate) directory: PathBuf,
}

impl Caller<'static> {
    /// The real one.
    pub(crate) fn of_process() -> Result<Self, CliError> {
        Ok(Self {
            variable: &|key| std::env::var_os(key),
            directory: std::env::current_dir().map_err(CliError::CurrentDirectory)?,
        })
    }
}

impl ContainerArgs {
    /// The request. Destructured in full, so that a new option cannot be forgotten.
    pub(crate) fn request(self, caller: &Caller<'_>) -> Result<ContainerRequest, CliError> {
        let Self {
            interactive,
            tty,
            rm,
            name,
            publish,
            volume,
            env,
            env_file,
            user,
            workdir,
            entrypoint,
            userns,
            hostname,
            domainname,
            resources,
            limits,
            host,
            names,
            sysctl,
            group_add,
            stop_signal,
            stop_timeout,
            read_only,
            cap_add,
            cap_drop,
            security_opt,
            init,
            label,
            label_file,
            annotation,
            cidfile: _,
            pull: _,
            help: _,
            image_and_command,
        } = self;
        let mut words = image_and_command.into_iter();
        let image = words.next().unwrap_or_default();
        let (resources, ProcessLimits { oom_score_adj, ulimits, shm_size }) = limits.with(&resources)?;
        let mut request = ContainerRequest {
            image: parse_image(&image, caller)?,
            name: said(name).map(|n| n.parse()).transpose()?,
            command: words.collect(),
            entrypoint: entrypoint.map(|e| if e.is_empty() { vec![] } else { vec![e] }),
            env: environment(&env_file, &env, caller)?,
            workdir: said(workdir).map(|w| parse_workdir(&w)).transpose()?,
            user: said(user).map(|u| u.parse()).transpose()?,
            hostname: said(hostname).map(|h| parse_hostname(&h)).transpose()?,
            labels: labels(&label_file, &label, caller)?,
            tty,
            interactive,
            stdin_once: interactive,
            remove: rm,
            init,
            read_only,
            cap_add: capabilities(cap_add)?,
            cap_drop: capabilities(cap_drop)?,
            userns: parse_userns(&userns)?,
            ports: ports(&publish)?,
            mounts: mounts(&volume, caller)?,
            resources,
            security: security(&security_opt, caller)?,
            domainname: said(domainname).map(|d| parse_hostname(&d)).transpose()?,
            group_add: group_add.iter().map(|g| g.parse()).collect::<Result<_, _>>()?,
            ulimits,
            oom_score_adj,
            shm_size,
            sysctls: sysctl.iter().map(|s| parse_sysctl(s)).collect::<Result<_, _>>()?,
            annotations: annotation.iter().map(|a| parse_label(a)).collect::<Result<_, _>>()?,
            stop: StopChoice { signal: stop_signal_word(stop_signal)?, timeout: stop_timeout },
            // The rest is below.
            ..ContainerRequest::of(ImageSource::Host)
        };
        host.fill(&mut request, caller)?;
        names.fill(&mut request)?;
        Ok(request)
    }
}

/// An empty text is the default, as with Docker: scripts write `--name "$NAME"`.
pub(crate) fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// `host:`, `rootfs:DIR`, or an image reference.
fn parse_image(text: &str, caller: &Caller<'_>) -> Result<ImageSource, ParseError> {
    if text == "host:" {
        return Ok(ImageSource::Host);
    }
    match text.strip_prefix("rootfs:") {
        Some("") => Err(ParseError::new("image", text, "the directory is missing").hint("write rootfs:DIR")),
        Some(dir) => Ok(ImageSource::Rootfs(caller.directory.join(dir))),
        None => Ok(ImageSource::Image(text.parse::<ImageReference>()?)),
    }
}

fn parse_userns(text: &str) -> Result<UserNamespace, ParseError> {
    match text {
        // Docker takes an empty text for its default.
        "host" | "" => Ok(UserNamespace::Host),
        "auto" => Ok(UserNamespace::Auto),
        _ => Err(ParseError::new("user namespace", text, "no such mode").hint("use host or auto")),
    }
}

/// A working directory given by the user.
pub(crate) fn parse_workdir(text: &str) -> Result<String, ParseError> {
    path::normalise(text)
        .ok_or_else(|| ParseError::new("working directory", text, "it must be absolute and without '..'"))
}

pub(crate) fn parse_platform(text: &str) -> Result<onggi_spec::image::Platform, ParseError> {
    let parts: Vec<&str> = text.split('/').collect();
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let (os, architecture, variant) = match parts.as_slice() {
        [os, arch] => (os, arch, None),
        [os, arch, variant] => (os, arch, Some(variant)),
        _ => return Err(ParseError::new("platform", text, "expected os/architecture").hint("write linux/amd64")),
    };
    if !parts.iter().all(|p| word(p)) {
        return Err(ParseError::new("platform", text, "expected os/architecture").hint("write linux/amd64"));
    }
    let own = |s: &str| s.to_owned();
    Ok(onggi_spec::image::Platform {
        architecture: own(architecture),
        os: own(os),
        variant: variant.map(|v| own(v)),
        os_version: None,
    })
}

/// Files first, then `-e`, as Docker.
pub(crate) fn environment(files: &[PathBuf], own: &[String], caller: &Caller<'_>) -> Result<Vec<String>, CliError> {
    let mut env = Vec::new();
    for file in files {
        for variable in parse_env_file(&read_bounded(&caller.directory.join(file))?)? {
            // What the caller has not is nothing in a file …
            env.extend(with_value(variable, caller)?.ok());
        }
    }
    env.extend(resolve_env(own, caller)?);
    Ok(env)
}

/// `-e` values with bare keys resolved. … And here it is a bare key: the image's variable of that name goes.
pub(crate) fn resolve_env(own: &[String], caller: &Caller<'_>) -> Result<Vec<String>, CliError> {
    own.iter().map(|text| Ok(with_value(parse_env(text)?, caller)?.unwrap_or_else(|key| key))).collect()
}

/// `KEY=VALUE`, or the key alone when it is the caller's and the caller has none.
fn with_value(variable: EnvArg, caller: &Caller<'_>) -> Result<Result<String, String>, CliError> {
    let key = match variable {
        EnvArg::Set(text) => return Ok(Ok(text)),
        EnvArg::FromCaller(key) => key,
    };
    let Some(value) = (caller.variable)(&key) else { return Ok(Err(key)) };
    let value =
        value.into_string().map_err(|_| ParseError::new("environment variable", &key, "your value is not UTF-8"))?;
    let text = format!("{key}={value}");
    parse_env(&text)?;
    Ok(Ok(text))
}

/// Files first, then `-l`, as Docker. A line that begins with # is a comment.
fn labels(files: &[PathBuf], own: &[String], caller: &Caller<'_>) -> Result<BTreeMap<String, String>, CliError> {
    let mut all = BTreeMap::new();
    for file in files {
        let text = read_bounded(&caller.directory.join(file))?;
        let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (key, value) = parse_label(line)?;
            all.insert(key, value);
        }
    }
    for text in own {
        let (key, value) = parse_label(text)?;
        all.insert(key, value);
    }
    Ok(all)
}

/// The word itself is kept, for `inspect`; here it is only known to mean a signal.
fn stop_signal_word(text: Option<String>) -> Result<Option<String>, ParseError> {
    let word = said(text);
    if let Some(word) = &word {
        parse_signal(word)?;
    }
    Ok(word)
}

fn read_bounded(path: &std::path::Path) -> Result<String, CliError> {
    use std::io::Read as _;
    let failed = |source| CliError::ReadFile { path: path.display().to_string(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_ENV_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Comma-separated lists are accepted, as with Podman.
fn capabilities(list: Vec<String>) -> Result<Vec<String>, ParseError> {
    let words: Vec<String> = list.iter().flat_map(|l| l.split(',')).map(str::to_owned).collect();
    words.iter().try_for_each(|w| parse_capability(w).map(|_| ()))?;
    Ok(words)
}

/// A later option replaces an earlier one on the same subject.
fn security(list: &[String], caller: &Caller<'_>) -> Result<SecurityOptions, CliError> {
    let mut options = SecurityOptions::default();
    for text in list {
        match parse_security_opt(text)? {
            SecurityOpt::AppArmor(choice) => options.apparmor = choice,
            SecurityOpt::NoNewPrivileges(on) => options.no_new_privileges = Some(on),
            SecurityOpt::SeccompUnconfined => options.seccomp = SeccompChoice::Unconfined,
            SecurityOpt::SeccompDefault => options.seccomp = SeccompChoice::Default,
            SecurityOpt::SeccompFile(file) => {
                let profile = SeccompProfile::parse(&file, &read_bounded(&caller.directory.join(&file))?)?;
                options.seccomp = SeccompChoice::Profile(Box::new(profile));
            }
        }
    }
    Ok(options)
}

fn ports(list: &[String]) -> Result<Vec<PortMapping>, ParseError> {
    let nested = list.iter().map(|p| parse_publish(p)).collect::<Result<Vec<_>, _>>()?;
    let mut all: Vec<PortMapping> = nested.into_iter().flatten().collect();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|p| seen.insert(*p));
    let clash = all.iter().enumerate().find_map(|(i, p)| {
        let same = |q: &&PortMapping| {
            q.host_port.is_some() && (q.host_ip, q.host_port, q.protocol) == (p.host_ip, p.host_port, p.protocol)
        };
        all[..i].iter().find(same).map(|_| p)
    });
    match clash {
        Some(p) => Err(ParseError::new("port mapping", &p.to_string(), "this host port is published twice")),
        None => Ok(all),
    }
}

/// What is said twice is one mount.
fn mounts(list: &[String], caller: &Caller<'_>) -> Result<Vec<MountSpec>, ParseError> {
    let mut all: Vec<MountSpec> = Vec::new();
    for text in list {
        let mount = parse_mount(text, caller)?;
        if !all.contains(&mount) {
            all.push(mount);
        }
    }
    Ok(all)
}

/// Makes a source that starts with `.` or `~/` absolute; the grammar does the rest.
fn parse_mount(text: &str, caller: &Caller<'_>) -> Result<MountSpec, ParseError> {
    let (source, rest) = text.split_once(':').unwrap_or((text, ""));
    let relative = source == "." || source == ".." || source.starts_with("./") || source.starts_with("../");
    if !relative {
        return parse_volume(text);
    }
    let absolute = caller.directory.join(source);
    let absolute =
        absolute.to_str().ok_or_else(|| ParseError::new("volume", text, "the current directory is not UTF-8"))?;
    let mut mount = parse_volume(&format!("{absolute}:{rest}"))?;
    // `/here/./x/../y`: the kernel resolves it as the shell would; only `.` is cut for a tidy `inspect`.
    mount.source = mount.source.replace("/./", "/").trim_end_matches("/.").to_owned();
    Ok(mount)
}

#[cfg(test)]
mod tests;

//! `onggi login` and `onggi logout`.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::PathBuf,
};

use clap::Args;
use onggi_engine::{Credentials, Engine, EngineError, LoginRequest, LoginResult, RegistryChoice, RegistryError};

use super::explain::ExplainArg;
use crate::{cli::GlobalArgs, error::CliError, render, request::parse_tls_verify, session::terminal::Hidden};

/// Longest secret that is read from stdin.
const MAX_SECRET: u64 = 64 << 10;

/// Arguments of `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; others can see it in the list of processes
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Print the user name that is stored for the registry
    #[arg(long, conflicts_with_all = ["username", "password", "password_stdin"])]
    get_login: bool,
    /// File with credentials, instead of ~/.docker/config.json
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Directory with certificates for the registry: *.crt, *.cert, *.key
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Verify the registry's certificate; false also allows plain HTTP
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_tls_verify)]
    tls_verify: bool,
    /// Also print which file knows of the login
    #[arg(short, long)]
    verbose: bool,
    /// HOST[:PORT]; Docker Hub when left out
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

impl LoginArgs {
    /// Logs in.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let choice = RegistryChoice {
            insecure: !self.tls_verify,
            auth_file: self.authfile.clone(),
            cert_dir: self.cert_dir.clone(),
            credentials: None,
        };
        if self.get_login {
            render::line(&engine.login_of(self.registry.as_deref(), &choice)?)?;
            return Ok(0);
        }
        let plan = || Ok(vec![engine.explain_login(self.registry.as_deref(), &choice)?]);
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        if self.password.is_some() {
            warn("Using --password via the CLI is insecure. Use --password-stdin.")?;
        }
        if self.password_stdin && self.username.is_none() {
            return Err(CliError::usage("--password-stdin needs --username", "add -u NAME"));
        }
        let known = match self.username.is_none() && self.password.is_none() {
            true => engine.stored_login(self.registry.as_deref(), &choice)?,
            false => None,
        };
        let done = match &known {
            Some(credentials) => self.again(&engine, credentials, &choice)?,
            None => None,
        };
        let done = match done {
            Some(done) => done,
            None => self.anew(&engine, known.as_ref(), &choice)?,
        };
        if self.verbose {
            render::line(&format!("Used:  {}", done.file.display()))?;
        }
        render::line("Login Succeeded")?;
        Ok(0)
    }

    fn request(&self, credentials: Credentials) -> LoginRequest {
        LoginRequest { registry: self.registry.clone(), credentials }
    }

    /// With what is stored, as Docker and Podman do it first; nothing when the registry does not accept that any more.
    fn again(
        &self,
        engine: &Engine,
        known: &Credentials,
        choice: &RegistryChoice,
    ) -> Result<Option<LoginResult>, CliError> {
        say("Authenticating with existing credentials...\n")?;
        match engine.login(&self.request(known.clone()), choice) {
            Ok(done) => Ok(Some(done)),
            Err(e) if e.is_unauthorized() => {
                say("They are not accepted any more.\n")?;
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// With what is given or asked for.
    fn anew(
        &self,
        engine: &Engine,
        known: Option<&Credentials>,
        choice: &RegistryChoice,
    ) -> Result<LoginResult, CliError> {
        let username = match &self.username {
            Some(name) => name.clone(),
            None => ask_name(known)?,
        };
        let password = match (&self.password, self.password_stdin) {
            (Some(password), _) => password.clone(),
            (None, true) => from_stdin()?,
            (None, false) => ask_password()?,
        };
        if username.is_empty() || password.is_empty() {
            return Err(CliError::usage("user name and password must not be empty", "give both"));
        }
        let done = engine.login(&self.request(Credentials::Basic { username, password }), choice)?;
        if done.helper.is_none() {
            warn(&format!("Your credentials are stored unencrypted in {}.", done.file.display()))?;
        }
        Ok(done)
    }
}

/// Arguments of `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    explain: ExplainArg,
    /// Every registry that there are credentials for
    #[arg(short, long, conflicts_with = "registry")]
    all: bool,
    /// File with credentials, instead of ~/.docker/config.json
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// HOST[:PORT]; Docker Hub when left out
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

impl LogoutArgs {
    /// Forgets logins. One that is not there is no failure, as with Docker.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let engine = global.engine()?;
        let choice = RegistryChoice { auth_file: self.authfile, ..RegistryChoice::default() };
        choice.check_auth_file()?;
        let all = || Ok::<_, CliError>(engine.logins(&choice)?.into_iter().map(Some).collect::<Vec<_>>());
        let plan = || {
            let names = if self.all { all()? } else { vec![self.registry.clone()] };
            Ok(vec![engine.explain_logout(&names, &choice)?])
        };
        if let Some(code) = self.explain.show(plan)? {
            return Ok(code);
        }
        let gone = match self.all {
            true => engine.logout_all(&choice),
            false => engine.logout(self.registry.as_deref(), &choice).map(|name| vec![name]),
        };
        match gone {
            Ok(names) => {
                for name in names {
                    render::line(&format!("Removing login credentials for {name}"))?;
                }
            }
            Err(EngineError::Registry(RegistryError::NotLoggedIn { registry })) => {
                render::line(&format!("Not logged in to {registry}"))?;
            }
            Err(e) => return Err(e.into()),
        }
        Ok(0)
    }
}

fn warn(text: &str) -> Result<(), CliError> {
    say(&format!("WARNING! {text}\n"))
}

fn say(text: &str) -> Result<(), CliError> {
    Ok(io::stderr().write_all(text.as_bytes())?)
}

fn prompt(text: &str) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::usage(
            "cannot ask for credentials: stdin is not a terminal",
            "use -u NAME and --password-stdin",
        ));
    }
    say(text)?;
    Ok(io::stderr().flush()?)
}

/// An empty answer means the one that is known.
fn ask_name(known: Option<&Credentials>) -> Result<String, CliError> {
    let Some(Credentials::Basic { username, .. }) = known else {
        prompt("Username: ")?;
        return line();
    };
    prompt(&format!("Username ({username}): "))?;
    Ok(Some(line()?).filter(|name| !name.is_empty()).unwrap_or_else(|| username.clone()))
}

fn ask_password() -> Result<String, CliError> {
    prompt("Password: ")?;
    let hidden = Hidden::enter()?;
    let password = line();
    drop(hidden);
    io::stderr().write_all(b"\n")?;
    password
}

fn line() -> Result<String, CliError> {
    let mut text = String::new();
    io::stdin().lock().take(MAX_SECRET).read_line(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// All of stdin without its last line break.
fn from_stdin() -> Result<String, CliError> {
    let mut text = String::new();
    io::stdin().lock().take(MAX_SECRET).read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

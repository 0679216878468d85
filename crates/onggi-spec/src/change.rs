//! `--change`: the Dockerfile instructions that only change an image's configuration, for `commit` and `import`. Pure.
//!
//! Grammar: Dockerfile reference. `CMD`, `ENTRYPOINT`, `SHELL`, `VOLUME` take the JSON form or words.

use crate::{
    ParseError,
    image::{ContainerConfig, Empty, Healthcheck},
};

const WHAT: &str = "change";
const KNOWN: &str =
    "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR";

/// Applies instructions in their order. An `ENTRYPOINT` clears the arguments that the image had, as they are another program's, but not those
/// of a `CMD` beside it.
///
/// # Errors
/// One is none of those above, or its arguments are wrong.
pub fn apply_changes(config: &mut ContainerConfig, changes: &[String]) -> Result<(), ParseError> {
    let names =
        |text: &str, name: &str| text.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(name));
    for (at, text) in changes.iter().enumerate() {
        apply_change(config, text)?;
        if names(text, "ENTRYPOINT") && !changes[..at].iter().any(|before| names(before, "CMD")) {
            config.cmd = None;
        }
    }
    Ok(())
}

fn apply_change(config: &mut ContainerConfig, text: &str) -> Result<(), ParseError> {
    let bad = |reason: &str| ParseError::new(WHAT, text, reason.to_owned()).hint(format!("instructions: {KNOWN}"));
    let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() && !word.eq_ignore_ascii_case("CMD") && !word.eq_ignore_ascii_case("ENTRYPOINT") {
        return Err(bad("it has no arguments"));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => config.entrypoint = command(rest),
        "ENV" => {
            pairs(rest).ok_or_else(|| bad("write KEY=VALUE"))?.into_iter().for_each(|(k, v)| set_env(config, &k, &v))
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(|| bad("write KEY=VALUE"))?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = exposed(port).ok_or_else(|| bad("a port is NUMBER[/tcp|udp|sctp]"))?;
                config.exposed_ports.insert(port, Empty {});
            }
        }
        "VOLUME" => {
            for path in list(rest) {
                config.volumes.insert(path, Empty {});
            }
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => config.working_dir = workdir(&config.working_dir, rest),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "SHELL" => config.shell = Some(json_list(rest).ok_or_else(|| bad("SHELL needs the JSON form"))?),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "HEALTHCHECK" => {
            config.healthcheck = Some(healthcheck(rest).ok_or_else(|| bad("write NONE or [OPTIONS] CMD …"))?)
        }
        _ => return Err(bad("it is no instruction that changes a configuration")),
    }
    Ok(())
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The JSON form, else a line for the shell; nothing at all takes the command away.
fn command(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return None;
    }
    Some(json_list(text).unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into(), text.to_owned()]))
}

fn list(text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect())
}

fn set_env(config: &mut ContainerConfig, key: &str, value: &str) {
    let line = format!("{key}={value}");
    match config.env.iter_mut().find(|e| e.split('=').next() == Some(key)) {
        Some(old) => *old = line,
        None => config.env.push(line),
    }
}

/// `K=V K="v w"`, or the old form `K the rest`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |w: String| w.split_once('=').filter(|(k, _)| !k.is_empty()).map(|(k, v)| (k.to_owned(), v.to_owned()));
    words.into_iter().map(pair).collect()
}

/// Words with quotes and backslashes taken away; `None` when a quote is left open.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut out, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => (quote, any) = (Some(c), true),
            (Some(q), c) if q == c => quote = None,
            (None | Some('"'), '\\') => word.push(chars.next().unwrap_or('\\')),
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, c) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        out.push(word);
    }
    quote.is_none().then_some(out)
}

fn exposed(text: &str) -> Option<String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let known = ["tcp", "udp", "sctp"].contains(&protocol);
    let range = port.split_once('-').unwrap_or((port, port));
    let valid = [range.0, range.1].iter().all(|p| p.parse::<u16>().is_ok_and(|n| n > 0));
    (known && valid).then(|| format!("{port}/{protocol}"))
}

fn workdir(old: &str, new: &str) -> String {
    if new.starts_with('/') {
        return new.to_owned();
    }
    let base = if old.is_empty() { "/" } else { old };
    format!("{}/{new}", base.trim_end_matches('/'))
}

fn healthcheck(text: &str) -> Option<Healthcheck> {
    if text.eq_ignore_ascii_case("NONE") {
        return Some(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() });
    }
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace)?;
        let (key, value) = option.split_once('=')?;
        match key {
            "interval" => check.interval = Some(nanoseconds(value)?),
            "timeout" => check.timeout = Some(nanoseconds(value)?),
            "start-period" => check.start_period = Some(nanoseconds(value)?),
            "start-interval" => check.start_interval = Some(nanoseconds(value)?),
            "retries" => check.retries = Some(value.parse().ok()?),
            _ => return None,
        }
        rest = after.trim_start();
    }
    let (word, command) = rest.split_once(char::is_whitespace)?;
    if !word.eq_ignore_ascii_case("CMD") || command.trim().is_empty() {
        return None;
    }
    check.test = match json_list(command.trim()) {
        Some(list) => [vec!["CMD".to_owned()], list].concat(),
        None => vec!["CMD-SHELL".into(), command.trim().to_owned()],
    };
    Some(check)
}

/// `1m30s`, `5s`, `200ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut total = 0_i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let scale = match &rest[digits..unit] {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        total = total.checked_add(rest[..digits].parse::<i64>().ok()?.checked_mul(scale)?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig::default();
        let changes: Vec<String> = changes.iter().map(|text| (*text).to_owned()).collect();
        apply_changes(&mut config, &changes).expect("they are right");
        config
    }

    #[test]
    fn instructions_of_a_dockerfile() {
        let c = applied(&[
            "CMD [\"sh\", \"-c\", \"true\"]",
            "ENV A=1 B=\"two words\" C='3'",
            "env A=2",
            "ENV OLD the rest of it",
            "LABEL a.b=c d=\"e f\"",
            "EXPOSE 80 53/udp",
            "VOLUME /data /more",
            "USER 1000:1000",
            "WORKDIR /a",
            "WORKDIR b",
            "STOPSIGNAL SIGQUIT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f /",
        ]);
        assert_eq!(c.cmd.unwrap(), ["sh", "-c", "true"]);
        assert_eq!(c.env, ["A=2", "B=two words", "C=3", "OLD=the rest of it"]);
        assert_eq!(c.labels["d"], "e f");
        assert!(c.exposed_ports.contains_key("80/tcp") && c.exposed_ports.contains_key("53/udp"));
        assert_eq!(c.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
        assert_eq!((c.user.as_str(), c.working_dir.as_str()), ("1000:1000", "/a/b"));
        assert_eq!(c.on_build, ["RUN true"]);
        let health = c.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries), (Some(90_000_000_000), Some(2)));
        assert_eq!(health.test, ["CMD-SHELL", "curl -f /"]);
        assert_eq!(applied(&["CMD true"]).cmd.unwrap(), ["/bin/sh", "-c", "true"]);
        assert_eq!(applied(&["CMD [\"a\"]", "ENTRYPOINT [\"x\"]"]).cmd.unwrap(), ["a"]);
        let mut image = applied(&["CMD a"]);
        apply_changes(&mut image, &["entrypoint [\"x\"]".to_owned()]).unwrap();
        assert_eq!(image.cmd, None);
    }

    #[test]
    fn what_is_no_such_instruction_is_refused() {
        for bad in [
            "",
            "RUN true",
            "FROM x",
            "ENV",
            "ENV A",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 1/x",
            "ENV A=\"x",
            "SHELL sh",
            "HEALTHCHECK curl",
        ] {
            assert!(apply_change(&mut ContainerConfig::default(), bad).is_err(), "{bad:?}");
        }
    }
}

//! `onggi logs`.

use std::io::{self, Write as _};

use clap::Args;
use jiff::Timestamp;
use onggi_engine::LogOptions;
use onggi_spec::ParseError;

use crate::{cli::GlobalArgs, error::CliError, moment::parse_moment, render};

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines, or all
    #[arg(short = 'n', long, default_value = "all", value_name = "N", allow_negative_numbers = true)]
    tail: String,
    /// Only lines since a time: 2026-01-02T15:04:05Z, local without the zone, 10m ago as 10m, or Unix seconds
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines up to a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Container
    container: String,
}

impl LogsArgs {
    /// Prints the log: stdout to stdout, stderr to stderr.
    pub(crate) fn run(self, global: &GlobalArgs) -> Result<u8, CliError> {
        let now = Timestamp::now();
        let moment = |text: Option<&String>| text.map(|text| parse_moment(text, now)).transpose();
        let options = LogOptions {
            follow: self.follow,
            tail: parse_tail(&self.tail)?,
            since: moment(self.since.as_ref())?,
            until: moment(self.until.as_ref())?,
        };
        let engine = global.engine()?;
        let mut reader = engine.logs(&self.container, options)?;
        render::readable()?;
        let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
        while let Some(entry) = reader.next_entry()? {
            let to: &mut dyn io::Write = if entry.stream == "stderr" { &mut err } else { &mut out };
            if self.timestamps {
                to.write_all(format!("{} ", nine_digits(&entry.time)).as_bytes())?;
            }
            to.write_all(&entry.bytes())?;
        }
        out.flush()?;
        Ok(0)
    }
}

/// The log has no trailing zeros in its times; Docker shows all nine digits, so that columns align.
fn nine_digits(time: &str) -> String {
    let bare = time.strip_suffix('Z').unwrap_or(time);
    let (seconds, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    format!("{seconds}.{fraction:0<9}Z")
}

fn parse_tail(text: &str) -> Result<Option<usize>, ParseError> {
    // Docker takes any negative number for all.
    if text == "all" || text.parse::<i64>().is_ok_and(|n| n < 0) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| ParseError::new("number of lines", text, "expected a number or all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!((parse_tail("all"), parse_tail("0"), parse_tail("7")), (Ok(None), Ok(Some(0)), Ok(Some(7))));
        assert_eq!(parse_tail("-1"), Ok(None));
        assert!(parse_tail("x").is_err());
    }

    #[test]
    fn times_have_nine_digits() {
        assert_eq!(nine_digits("2026-01-02T03:04:05.06Z"), "2026-01-02T03:04:05.060000000Z");
        assert_eq!(nine_digits("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05.000000000Z");
    }
}

//! `onggi pull 127.0.0.1:5000/app`: the registry of this machine thinks while the command line is read.

use std::{
    ffi::OsString,
    sync::{Mutex, PoisonError},
};

use onggi_engine::EarlyQuestion;

use super::quick;

/// The question that the pull of this process takes up.
static SENT: Mutex<Option<EarlyQuestion>> = Mutex::new(None);

/// Asks if the line is of the simplest kind. Whatever is on it is read properly afterwards.
pub(super) fn ask(args: &[OsString]) {
    if let Some(question) = image(args).and_then(EarlyQuestion::send) {
        *SENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(question);
    }
}

/// What was asked, for the first who wants it.
pub(crate) fn take() -> Option<EarlyQuestion> {
    SENT.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The one image of a `pull` without any choice, if its name begins with an address of this machine.
fn image(args: &[OsString]) -> Option<&str> {
    let (verb, rest) = quick::verb_and_rest(args)?;
    if verb != "pull" {
        return None;
    }
    let mut words = rest.iter().filter(|word| *word != "-q" && *word != "--quiet");
    let image = words.next()?.to_str()?;
    let here = image.starts_with("127.") || image.starts_with("[::1]");
    (here && words.next().is_none()).then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pull_without_choices_from_an_address_of_this_machine_is_asked_early() {
        for (line, wanted) in [
            ("onggi pull 127.0.0.1:5000/a", Some("127.0.0.1:5000/a")),
            ("onggi --root /r --log-level=debug pull -q [::1]:5000/a:1", Some("[::1]:5000/a:1")),
            ("onggi pull 127.0.0.1:5000/a --quiet", Some("127.0.0.1:5000/a")),
            ("onggi pull", None),
            ("onggi pull a", None),
            ("onggi pull localhost:5000/a", None),
            ("onggi pull 127.0.0.1:5000/a 127.0.0.1:5000/b", None),
            ("onggi pull --explain 127.0.0.1:5000/a", None),
            ("onggi pull 127.0.0.1:5000/a --root /r", None),
            ("onggi pull --policy missing 127.0.0.1:5000/a", None),
            ("onggi pull -- 127.0.0.1:5000/a", None),
            ("onggi push 127.0.0.1:5000/a", None),
            ("onggi --no-such pull 127.0.0.1:5000/a", None),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(image(&args), wanted, "{line}");
        }
    }
}

//! The program as others see it, without root: exit codes, error form, what goes to which stream.

use std::process::{Command, Output};

fn onggi(words: &[&str]) -> Output {
    let dir = std::env::temp_dir().join(format!("onggi-cli-test-{}-{words:?}", std::process::id()).replace('/', "_"));
    let output = Command::new(env!("CARGO_BIN_EXE_onggi"))
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--runroot")
        .arg(dir.join("run"))
        .args(words)
        .output()
        .expect("the program starts");
    // What was made, if anything, is only the two empty stores.
    let _ = std::fs::remove_dir_all(&dir);
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn usage_errors_end_with_125_and_touch_nothing() {
    for words in [&["run"] as &[&str], &["run", "--nope", "host:"], &["frobnicate"], &["ps", "extra"], &["exec", "c"]] {
        let output = onggi(words);
        assert_eq!(output.status.code(), Some(125), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
        assert!(stderr(&output).starts_with("onggi: "), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("\nhint: "), "{words:?}");
    }
}

#[test]
fn bad_values_of_run_end_with_125_and_say_what_why_and_a_hint() {
    for (words, what) in [
        (&["run", "-p", "80:x", "host:"] as &[&str], "invalid port mapping \"80:x\""),
        (&["run", "-v", "data:/x", "host:"], "invalid volume \"data:/x\""),
        (&["run", "-u", "-1", "host:"], "invalid user \"-1\""),
        (&["run", "-m", "1k", "host:"], "invalid memory limit \"1k\""),
        (&["run", "--cpus", "x", "host:"], "invalid number of CPUs \"x\""),
        (&["run", "--network", "lan", "host:"], "invalid network \"lan\""),
        (&["run", "-e", "=x", "host:"], "invalid environment variable \"=x\""),
        (&["run", "--cap-add", "FLY", "host:"], "invalid capability \"FLY\""),
    ] {
        let output = onggi(words);
        assert_eq!(output.status.code(), Some(125), "{words:?}");
        let text = stderr(&output);
        assert!(text.starts_with(&format!("onggi: {what}: ")), "{words:?}: {text}");
        assert!(text.contains("\nhint: "), "{words:?}: {text}");
    }
}

#[test]
fn errors_of_other_verbs_end_with_1() {
    for words in [
        &["logs", "nope"] as &[&str],
        &["inspect", "nope"],
        &["stop", "nope"],
        &["exec", "nope", "true"],
        &["rmi", "nope"],
        &["tag", "nope", "b:"],
        &["ps", "--filter", "colour=red"],
        &["ps", "-a", "--format", "{{.Nope"],
    ] {
        let output = onggi(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("onggi: "), "{words:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout_and_succeed() {
    for words in [&["--help"] as &[&str], &["run", "--help"], &["image", "ls", "--help"], &["--version"], &["version"]]
    {
        let output = onggi(words);
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn an_empty_store_lists_headers_only() {
    let headers = |words: &[&str]| String::from_utf8_lossy(&onggi(words).stdout).into_owned();
    assert_eq!(headers(&["ps"]), "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n");
    assert_eq!(headers(&["images"]), "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
    assert_eq!(headers(&["ps", "-q"]), "");
}

#[test]
fn inspect_of_nothing_is_an_empty_list_and_an_error() {
    let output = onggi(&["inspect", "nope"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[]\n");
}

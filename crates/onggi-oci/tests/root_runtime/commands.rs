//! What engines and scripts see of the program: help, versions, exit codes, messages, logs, listings.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Bundle, Done};

fn oci(b: &Bundle, args: &[&str]) -> Done {
    b.oci(args).output().unwrap().into()
}

/// The message of the only line that a failure leaves on stderr.
fn message(done: &Done) -> String {
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    let (head, message) = done.err.trim().split_once(" level=error msg=").expect("a line of logrus");
    assert!(head.starts_with("time=\"20"), "{}", done.err);
    message.trim_matches('"').to_owned()
}

#[test]
fn root_help_and_version_are_in_the_form_that_engines_parse() {
    let b = Bundle::new("true");
    let version = oci(&b, &["--version"]).out;
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].starts_with("onggi-oci version "), "{version}");
    assert!(lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."), "{version}");
    for args in [&["--help"][..], &["-h"], &["help"], &[]] {
        let help = oci(&b, args);
        assert!(help.code == 0 && help.out.starts_with("NAME:\n   onggi-oci - "), "{args:?}: {}", help.out);
    }
    for verb in ["create", "run", "exec", "kill", "delete", "state", "list", "ps", "pause", "resume", "start", "spec"] {
        let help = oci(&b, &[verb, "-h"]);
        assert!(help.code == 0 && help.out.starts_with(&format!("NAME:\n   onggi-oci {verb} - ")), "{}", help.out);
        assert_eq!(oci(&b, &["help", verb]).out, help.out);
    }
}

#[test]
fn root_a_program_called_by_another_name_shows_that_name() {
    use std::os::unix::process::CommandExt;
    let b = Bundle::new("true");
    let done: Done = b.oci(&["--version"]).arg0("/usr/sbin/runc").output().unwrap().into();
    assert!(done.out.starts_with("runc version ") && done.out.contains("program: onggi-oci"), "{}", done.out);
}

#[test]
fn root_a_wrong_command_line_has_runcs_words_and_codes() {
    let b = Bundle::new("true");
    fs::create_dir(b.dir.join("state")).unwrap();
    let cases: [(&[&str], i32, &str); 15] = [
        (&["foo"], 3, "No help topic for 'foo'"),
        (&["foo", "-h"], 3, "No help topic for 'foo'"),
        (&["--nope", "list"], 1, "flag provided but not defined: -nope"),
        (&["state", "--nope", "x"], 1, "flag provided but not defined: -nope"),
        (&["create"], 1, "\"create\" requires exactly 1 argument(s)"),
        (&["state", "a", "b"], 1, "\"state\" requires exactly 1 argument(s)"),
        (&["exec"], 1, "\"exec\" requires a minimum of 1 argument(s)"),
        (&["run", "--bundle"], 1, "flag needs an argument: -bundle"),
        (&["--log-format", "foo", "list"], 1, "invalid log-format: foo"),
        (&["--rootless", "foo", "list"], 1, "invalid syntax"),
        (&["--root", "/", "list"], 1, "should not be empty or /"),
        (&["list", "-f", "foo"], 1, "invalid format option"),
        (&["exec", "-g", "x", "id", "true"], 1, "invalid value \"x\" for flag -additional-gids: parse error"),
        (&["run", "--preserve-fds", "x", "id"], 1, "invalid value \"x\" for flag -preserve-fds: parse error"),
        (&["update", "--pids-limit=x", "id"], 1, "invalid value \"x\" for flag -pids-limit: parse error"),
    ];
    for (args, code, text) in cases {
        let done = oci(&b, args);
        assert_eq!(done.code, code, "{args:?}: {}", done.err);
        assert!(message(&done).contains(text), "{args:?}: {}", done.err);
    }
}

#[test]
fn root_an_absent_container_is_told_in_the_words_that_engines_look_for() {
    let b = Bundle::new("true");
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        let done = b.verb(verb, &[]);
        assert_eq!(done.code, 1, "{verb}");
        assert!(message(&done).starts_with("container does not exist"), "{verb}: {}", done.err);
    }
    assert_eq!(b.exec(&[], &["true"]).code, 255);
    assert_eq!(oci(&b, &["delete", "--force", &b.id]).code, 0);
}

#[test]
fn root_ids_are_checked_before_anything_else() {
    let b = Bundle::new("true");
    for bad in ["a/b", "..", ".", "a b", "ä"] {
        let done = oci(&b, &["create", "-b", "/not/there", bad]);
        assert!(done.code == 1 && done.err.contains("invalid container ID format"), "{bad:?}: {}", done.err);
    }
    assert!(oci(&b, &["create", ""]).err.contains("container id cannot be empty"));
}

#[test]
fn root_an_engine_with_a_log_gets_the_failure_there_and_the_bare_message_on_stderr() {
    let b = Bundle::new("true");
    let log = b.dir.join("log");
    let log_name = log.to_str().unwrap();
    for format in ["json", "text"] {
        let _ = fs::remove_file(&log);
        let done = oci(&b, &["--log", log_name, "--log-format", format, "run", "-b", "/not/there", &b.id]);
        let text = fs::read_to_string(&log).unwrap();
        let expected = "onggi-oci run failed: open bundle \"/not/there\": no such file or directory (ENOENT)";
        let (bare, hint) = done.err.trim().split_once('\n').expect("a hint below");
        assert_eq!((done.code, bare), (1, expected));
        assert!(hint.starts_with("hint: --bundle"), "{hint}");
        match format {
            "json" => {
                let line: Value = serde_json::from_str(text.trim()).unwrap();
                assert_eq!((line["level"].as_str(), line["msg"].as_str()), (Some("error"), Some(expected)));
                assert!(line["time"].as_str().unwrap().ends_with('Z'));
            }
            _ => assert!(text.starts_with("time=\"") && text.contains(" level=error msg=\"onggi-oci run"), "{text}"),
        }
    }
    let done = oci(&b, &["--log", "/not/there/log", "state", &b.id]);
    assert!(done.code == 1 && message(&done).contains("open log"), "{}", done.err);
}

#[test]
fn root_debug_lines_go_to_the_log_or_to_stderr() {
    let b = Bundle::new("echo out");
    b.write_config();
    let log = b.dir.join("log");
    let bundle = b.dir.to_str().unwrap();
    let done = oci(&b, &["--debug", "run", "-b", bundle, &b.id]);
    assert!(done.out == "out\n" && done.err.contains("level=debug msg=\"nsexec container setup"), "{}", done.err);
    let done = oci(&b, &["--debug", "--log", log.to_str().unwrap(), "run", "-b", bundle, &b.id]);
    assert_eq!(done.err, "");
    assert!(fs::read_to_string(&log).unwrap().contains("level=debug msg=\"child process in init()"));
}

/// Without `--root`. The machine's own /run is covered.
#[test]
fn root_states_are_below_run_or_in_the_runtime_directory_of_a_user() {
    let b = Bundle::new("sleep 60");
    b.write_config();
    let oci = env!("CARGO_BIN_EXE_onggi-oci");
    let script = format!(
        "mount -t tmpfs t /run; mkdir -m 700 /run/mine /run/elsewhere; chown 54321 /run/mine; cp {oci} /run/oci; chmod 755 /run/oci
        user() {{ setpriv --reuid 54321 --regid 54321 --clear-groups env \"$@\"; }}
        /run/oci run -d -b $B $ID < /dev/null > /dev/null 2>&1; ls /run/onggi-oci
        XDG_RUNTIME_DIR=/run/elsewhere /run/oci list -q; ls /run/elsewhere
        user XDG_RUNTIME_DIR=/run/mine /run/oci list -q; user XDG_RUNTIME_DIR=/run/mine /run/oci state $ID 2>&1 | grep -o 'does not exist'
        mkdir -p /run/mine/onggi-oci/$ID; cp /run/onggi-oci/$ID/state.json /run/mine/onggi-oci/$ID; chown -R 54321 /run/mine
        user XDG_RUNTIME_DIR=/run/mine /run/oci list -q
        user XDG_RUNTIME_DIR=relative /run/oci list -q; user -u XDG_RUNTIME_DIR /run/oci list -q
        rm -r /run/mine/onggi-oci; user XDG_RUNTIME_DIR=/run/mine /run/oci create -b $B $ID > /dev/null 2>&1; stat -c %a /run/mine/onggi-oci /run/onggi-oci
        /run/oci delete -f $ID; ls /run/onggi-oci"
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]).env_remove("XDG_RUNTIME_DIR");
    let done: Done = command.env("B", &b.dir).env("ID", &b.id).output().unwrap().into();
    // Sticky, so that nobody cleans a user's up.
    let expected = format!("{0}\n{0}\ndoes not exist\n{0}\n1700\n700\n", b.id);
    assert_eq!(done.out, expected, "{}", done.err);
}

/// `--config` and `--log-level` are crun's, `--criu` is runc's.
#[test]
fn root_a_configuration_may_have_another_name_and_flags_without_a_meaning_are_accepted() {
    let b = Bundle::new("echo other");
    b.write_config();
    let bundle = b.dir.to_str().unwrap();
    fs::rename(b.dir.join("config.json"), b.dir.join("other.json")).unwrap();
    for name in ["other.json", b.dir.join("other.json").to_str().unwrap()] {
        assert_eq!(oci(&b, &["run", "-b", bundle, "--config", name, &b.id]).out, "other\n", "{name}");
    }
    let missing = oci(&b, &["run", "-b", bundle, "--config", "third.json", &b.id]);
    assert!(missing.code == 1 && message(&missing).contains("third.json not found"), "{}", missing.err);
    let done = oci(&b, &["--criu", "/not/there", "run", "-b", bundle, "-f", "other.json", &b.id]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("other\n", ""));
    for (level, lines) in [("debug", true), ("info", false)] {
        let done = oci(&b, &["--log-level", level, "run", "-b", bundle, "-f", "other.json", &b.id]);
        assert!(done.out == "other\n" && done.err.contains("level=debug") == lines, "{level}: {}", done.err);
    }
}

#[test]
fn root_flags_may_follow_the_id_and_be_written_as_go_allows() {
    let b = Bundle::new("sleep 60");
    b.write_config();
    let mut run = b.oci(&["run", &b.id, "-detach=true", "--bundle", b.dir.to_str().unwrap()]);
    assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(b.status(), "running");
    assert_eq!(b.verb("kill", &["--all", "-9"]).code, 1, "a negative number is no signal");
    assert_eq!(b.verb("delete", &["--force"]).code, 0);
}

#[test]
fn root_listings_have_runcs_columns_members_and_order() {
    let b = Bundle::new("sleep 60");
    let dir = b.dir.join("empty");
    fs::create_dir(&dir).unwrap();
    let empty = ["--root", dir.to_str().unwrap()];
    assert_eq!(oci(&b, &[&empty[..], &["list", "-f", "json"]].concat()).out, "null\n");
    let header = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
    assert_eq!(oci(&b, &[&empty[..], &["list"]].concat()).out, header);
    assert_eq!(oci(&b, &["--root", "/not/there", "list"]).code, 1);

    assert_eq!(b.run_detached(&[]).code, 0);
    let table = oci(&b, &["list"]).out;
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!([row[0], row[2], row[3], row[5]], [&b.id, "running", b.dir.to_str().unwrap(), "root"]);
    assert_eq!(oci(&b, &["list", "-q"]).out, format!("{}\n", b.id));
    let text = oci(&b, &["list", "-f", "json"]).out;
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list[0]["rootfs"], json!(b.root()));
    let places = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
        .map(|member| text.find(&format!("\"{member}\":")).unwrap_or_else(|| panic!("{member} in {text}")));
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn root_ps_shows_what_ps_shows_of_the_containers_processes() {
    let b = Bundle::new("sleep 60");
    assert_eq!(b.run_detached(&[]).code, 0);
    let table = b.verb("ps", &[]).out;
    assert!(table.starts_with("UID ") && table.lines().count() == 2 && table.contains("sleep 60"), "{table}");
    let table = b.verb("ps", &["-o", "pid,comm"]).out;
    assert_eq!(table.lines().nth(1).unwrap().split_whitespace().next(), Some(b.pid().to_string().as_str()));
    assert_eq!(b.verb("kill", &["9"]).code, 0);
    b.until("stopped", |b| b.status() == "stopped");
    let done = b.verb("ps", &[]);
    assert!(done.code == 0 && done.out.lines().count() == 1, "{} {}", done.out, done.err);
}

#[test]
fn root_damaged_and_huge_configurations_are_errors_that_name_the_place() {
    let b = Bundle::new("true");
    let config = b.dir.join("config.json");
    let deep = "[".repeat(100_000);
    let huge = " ".repeat((16 << 20) + 1);
    let cases = [
        ("{\"a\":", "EOF while parsing"),
        ("[]", "config.json"),
        ("{\"ociVersion\":\"1.0.0\",\"process\":{\"cwd\":\"/\",\"args\":\"sh\"}}", "expected a sequence"),
        ("\u{0}", "config.json"),
        (deep.as_str(), "config.json"),
        (huge.as_str(), "more than the limit"),
    ];
    for (text, why) in cases {
        fs::write(&config, text).unwrap();
        let done = oci(&b, &["run", "-b", b.dir.to_str().unwrap(), &b.id]);
        assert!(done.code == 1 && done.err.contains(why), "{:.40}: {}", text, done.err);
    }
    fs::remove_file(&config).unwrap();
    let done = oci(&b, &["create", "-b", b.dir.to_str().unwrap(), &b.id]);
    assert!(message(&done).contains("JSON specification file config.json not found"), "{}", done.err);
    assert_eq!(b.status(), "absent");
}

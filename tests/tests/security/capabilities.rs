//! I11: inheritable and ambient sets are empty unless asked for; exec has what create has and no more.

use std::process::Command;

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::Jar;

const SHOW: &str = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status";
/// The eleven capabilities of the harness.
const USUAL: &str = "00000000800405fb";
const NONE: &str = "0000000000000000";

/// Inheritable, permitted, effective, bounding, ambient.
fn sets(text: &str) -> Vec<String> {
    text.lines().filter_map(|l| l.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// The runtime is called by a process that has capabilities in all its sets.
fn by_a_generous_caller(jar: &Jar, args: &[&str]) -> String {
    let mut inner = jar.oci(args);
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps", "+chown,+sys_chroot,+net_raw", "--ambient-caps", "+chown,+sys_chroot,+net_raw", "--"]);
    command.arg(inner.get_program()).args(inner.get_args());
    inner.stdin(std::process::Stdio::null());
    let output = command.output().expect("start setpriv");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn root_cve_2022_29162_2022_24769_nothing_is_inheritable_whatever_the_caller_has() {
    isolated();
    for uid in [0, 1000] {
        let mut jar = Jar::new(&format!("{SHOW}; sleep 60"));
        jar.config["process"]["user"] = json!({ "uid": uid, "gid": uid });
        jar.save();
        let bundle = jar.dir().display().to_string();
        let mut once = Jar::new(SHOW);
        once.config["process"]["user"] = json!({ "uid": uid, "gid": uid });
        once.save();
        let other = once.dir().display().to_string();
        let run = by_a_generous_caller(&once, &["run", "--bundle", &other, &once.id]);
        assert_eq!(jar.detached(&[]).code, 0);
        jar.until("the sets", |out| out.lines().count() == 5);
        let exec = by_a_generous_caller(&jar, &["exec", &jar.id, "sh", "-c", SHOW]);
        for text in [run, jar.output(), exec] {
            let got = sets(&text);
            assert_eq!((got[0].as_str(), got[4].as_str()), (NONE, NONE), "{bundle}: {text}");
            assert_eq!(got[3], USUAL, "{text}");
            assert_eq!(got[2], if uid == 0 { USUAL } else { NONE }, "{text}");
        }
    }
}

#[test]
fn root_cve_2022_29162_2022_24769_no_capabilities_in_the_configuration_are_none_in_the_container() {
    isolated();
    for caps in [json!(null), json!({}), json!({ "bounding": [], "effective": [], "permitted": [] })] {
        let mut jar = Jar::new(SHOW);
        jar.config["process"]["capabilities"] = caps.clone();
        let done = jar.run();
        assert_eq!(done.code, 0, "{}", done.err);
        let got = sets(&done.out);
        assert_eq!((got[0].as_str(), got[4].as_str()), (NONE, NONE), "{caps}: {}", done.out);
    }
}

#[test]
fn root_cve_2022_29162_2022_24769_benign_inheritable_and_ambient_are_given_when_asked_for() {
    isolated();
    let mut jar = Jar::new(SHOW);
    for set in ["inheritable", "ambient"] {
        jar.config["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
    }
    jar.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let done = jar.run();
    let one = "0000000000000001";
    let got = sets(&done.out);
    assert_eq!((got[0].as_str(), got[4].as_str(), got[2].as_str()), (one, one, one), "{done:?}");
}

#[test]
fn root_cve_2025_27612_exec_does_not_raise_capabilities() {
    isolated();
    let mut jar = Jar::new("sleep 60");
    let few = json!(["CAP_CHOWN"]);
    jar.config["process"]["capabilities"] = json!({ "bounding": few, "effective": few, "permitted": few });
    jar.running();
    let one = "0000000000000001";
    for flags in [&[][..], &["--user", "0"], &["--cwd", "/tmp"], &["--env", "A=b"], &["--no-new-privs"]] {
        let got = sets(&jar.exec(flags, &["sh", "-c", SHOW]).out);
        assert_eq!(got, [NONE, one, one, one, NONE], "{flags:?}");
    }
    // Another user has them in no effective set.
    let got = sets(&jar.exec(&["--user", "1000"], &["sh", "-c", SHOW]).out);
    assert_eq!(got, [NONE, NONE, NONE, one, NONE]);
    // A process description without any gets none of the runtime's.
    let mut process = jar.config["process"].clone();
    process["args"] = json!(["sh", "-c", SHOW]);
    process["capabilities"] = json!({});
    let file = jar.write("process.json", process.to_string());
    let got = sets(&jar.exec(&["--process", file.to_str().expect("UTF-8")], &[]).out);
    assert_eq!(got, [NONE, NONE, NONE, NONE, NONE]);
}

#[test]
fn root_cve_2025_27612_benign_exec_gets_the_capability_that_is_asked_for() {
    isolated();
    let jar = Jar::new("sleep 60");
    jar.running();
    let got = sets(&jar.exec(&["--cap", "CAP_NET_RAW"], &["sh", "-c", SHOW]).out);
    assert_eq!((got[1].as_str(), got[2].as_str()), ("00000000800425fb", "00000000800425fb"));
    let got = sets(&jar.exec(&[], &["sh", "-c", SHOW]).out);
    assert_eq!(got, [NONE, USUAL, USUAL, USUAL, NONE]);
}

//! `--explain`: the plan in words, as JSON, and as a script that builds the same container by hand.

use std::{collections::BTreeMap, process::Command};

use onggi_tests::{Ran, onggi::collect};

use crate::Stage;

/// Prints what a container is made of, one `key=value` line each, without what differs between any two
/// containers (inode numbers, overlay paths, the id).
const PROBE: &str = r#"
sed -nE 's/^(Cap[A-Z][a-z]*|NoNewPrivs|Seccomp|Uid|Gid|Groups):[[:space:]]*/\1=/p' /proc/self/status
while read -r _ _ _ _ point options rest; do
  rest=${rest##* - }; echo "mount $point=$(echo "$options" | tr , '\n' | sort | tr '\n' ,) ${rest%% *}"
done < /proc/self/mountinfo
for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max \
         /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max; do
  if [ -r $f ]; then echo "limit $f=$(cat $f)"; fi
done
echo "hostname=$(hostname)"
echo "routes=$(ip -4 route | sed 's/src.*//')"
echo "address=$(ip -4 -o addr show dev eth0 2>/dev/null | sed 's/.*inet //; s/\.[0-9]*\.[0-9]*\// network with prefix /; s/ brd.*//')"
echo "links=$(ls /sys/class/net | tr '\n' ' ')"
echo "env=$(env | grep -v '^_=' | sort | tr '\n' ' ')"
echo "limits=$(ulimit -n)"
echo "pid=$$ cwd=$PWD"
"#;

fn facts(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// The script's run, in the same private machine.
fn by_hand(script: &str) -> Ran {
    let mut sh = Command::new("bash");
    sh.args(["-e", "-c", script]).stdin(std::process::Stdio::null());
    let child =
        sh.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("start bash");
    collect(child, "bash -e <script of --explain=sh>".to_owned())
}

/// Runs a container and the script that explains it, and compares what they look like from inside.
fn assert_same_by_hand(stage: &Stage, options: &[&str]) {
    let image = [stage.busybox.as_str(), "sh", "-c", PROBE];
    let real = stage.onggi.ok(&[&["run"], options, &image].concat());
    let script = stage.onggi.ok(&[&["run", "--explain=sh"], options, &image].concat());
    let hand = by_hand(&script);
    assert_eq!(hand.code, Some(0), "{hand}\n--- script\n{script}");
    let (real, hand) = (facts(&real), facts(&hand.stdout));
    let keys: std::collections::BTreeSet<_> = real.keys().chain(hand.keys()).collect();
    let differ = |key: &&&String| real.get(**key) != hand.get(**key);
    let differences: Vec<String> = keys
        .iter()
        .filter(differ)
        // A shell cannot load a seccomp filter; the script says so.
        .filter(|key| ***key != "Seccomp")
        .map(|key| format!("{key}: real {:?}, by hand {:?}", real.get(*key), hand.get(*key)))
        .collect();
    assert!(differences.is_empty(), "{}\n--- script\n{script}", differences.join("\n"));
    assert!(real.len() > 20, "the probe says something: {real:?}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_explained_script_builds_the_same_container() {
    let limits = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "60"];
    let others = ["--rm", "--network", "none", "--hostname", "jar", "-e", "A=b"];
    assert_same_by_hand(&Stage::new(), &[&others[..], &limits].concat());
}

#[test]
fn e2e_the_explained_script_builds_the_same_network() {
    let options = ["--rm", "--hostname", "jar", "-p", "8090:80"];
    assert_same_by_hand(&Stage::new(), &options);
}

#[test]
fn e2e_explaining_changes_nothing_and_names_the_kernels_operations() {
    let stage = Stage::new();
    stage.onggi.ok(&["pull", &stage.busybox]);
    let words = stage.onggi.ok(&["run", "--explain", "-p", "8080:80", "-m", "64m", &stage.busybox, "true"]);
    for word in ["clone3", "pivot", "overlay", "veth", "8080", "memory"] {
        assert!(words.contains(word), "{word:?} is missing in\n{words}");
    }
    let mounted = stage.onggi.dir().join("mounted");
    std::fs::create_dir(&mounted).expect("a directory is made");
    onggi_tests::machine::sh(&format!("mount --bind {0} {0}", mounted.display()));
    let host = stage.onggi.ok(&["run", "--explain", "host:", "id"]);
    assert!(host.contains("this machine's own root"), "a host with further mounts has a plan too:\n{host}");
    onggi_tests::machine::sh(&format!("umount {}", mounted.display()));
    let json = stage.onggi.ok(&["run", "--explain=json", "-p", "8080:80", &stage.busybox, "true"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("--explain=json prints JSON");
    assert!(value.is_object(), "{json}");
    assert_eq!(onggi_tests::machine::sh("ip -o link | grep -c onggi || true").trim(), "0", "no link was made");
    assert_eq!(onggi_tests::machine::sh("nft list tables").trim(), "", "no table was made");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_the_explained_scripts_take_a_data_root_of_any_name() {
    let stage = Stage::new();
    let root = stage.onggi.dir().join("a\\b,c:d e");
    let ok = |args: &[&str]| {
        let mut command = Command::new(stage.onggi.program());
        command.arg("--root").arg(&root).arg("--runroot").arg(stage.onggi.dir().join("f\\g,h:i")).args(args);
        let ran = stage.onggi.finish(command.env("HOME", stage.onggi.dir()));
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout
    };
    ok(&["pull", &stage.busybox]);
    let script = ok(&["run", "--network", "none", "--explain=sh", &stage.busybox, "echo", "by hand"]);
    let hand = by_hand(&script);
    assert!(hand.code == Some(0) && hand.stdout == "by hand\n", "{hand}\n--- script\n{script}");
    let script = ok(&["image", "mount", "--explain=sh", &stage.busybox]);
    let look = "findmnt -rno TARGET -t overlay | grep -c f.x5cg; umount -a -t overlay";
    let hand = by_hand(&format!("{script}{look}"));
    assert!(hand.code == Some(0) && hand.stdout == "1\n", "{hand}\n--- script\n{script}");
    ok(&["image", "mount", &stage.busybox]);
    let undo = ok(&["image", "unmount", "--explain=sh", &stage.busybox]);
    let hand = by_hand(&undo);
    assert_eq!(hand.code, Some(0), "{hand}\n--- script\n{undo}");
}

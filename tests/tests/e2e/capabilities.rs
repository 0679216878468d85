//! `caps set` and `caps run`, beside setcap(8), getcap(8) and capsh(1).

use onggi_tests::machine::sh;

use crate::Stage;

/// The five sets and who it is.
const LOOK: &str = "grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status";

#[test]
fn e2e_capabilities_of_a_file_are_set_as_setcap_does() {
    let stage = Stage::new();
    let dir = stage.onggi.dir().display().to_string();
    sh(&format!("cp /bin/busybox {dir}/a; cp /bin/busybox {dir}/b; ln -s a {dir}/link"));
    let (a, link) = (format!("{dir}/a"), format!("{dir}/link"));
    let both = |text: &str, root: &[&str]| {
        stage.onggi.ok(&[&["caps", "set"], root, &[&a, text]].concat());
        sh(&format!("setcap {} '{text}' {dir}/b", root.join(" ")));
        let raw = |name: &str| {
            sh(&format!("getfattr -n security.capability -e hex --absolute-names {dir}/{name} | tail -n +2"))
        };
        assert_eq!(raw("a"), raw("b"), "{text}");
        assert_eq!(sh(&format!("getcap -n {dir}/a")).replace("/a", "/b"), sh(&format!("getcap -n {dir}/b")));
    };
    for text in
        ["cap_net_raw+ep", "cap_net_raw=+ep", "cap_chown,cap_kill=p cap_bpf=i", "=ep cap_sys_boot-eip", "all=i", "="]
    {
        both(text, &[]);
    }
    both("cap_net_bind_service=ep", &["-n", "100000"]);
    let shown = stage.onggi.ok(&["caps", "show", &a]);
    assert!(shown.starts_with(&format!("{a} cap_net_bind_service=ep\n")) && shown.contains("uid 100000"), "{shown}");
    assert_eq!(
        stage.onggi.ok(&["caps", "set", "--verify", "-n", "100000", &a, "cap_net_bind_service+ep"]),
        format!("{a}: OK")
    );
    assert_eq!(stage.onggi.run(&["caps", "set", "--verify", &a, "cap_chown=p"]).code, Some(1));
    for _ in 0..2 {
        stage.onggi.ok(&["caps", "set", "--remove", &a]);
    }
    assert_eq!(sh(&format!("getcap {a}")), "");
    let script = stage.onggi.ok(&["caps", "set", "--explain=sh", &a, "cap_chown,cap_kill=ep"]);
    sh(&script);
    assert_eq!(sh(&format!("getcap {a}")).trim(), format!("{a} cap_chown,cap_kill=ep"), "{script}");
    let words = stage.onggi.ok(&["caps", "set", "--explain", &a, "cap_chown=p"]);
    assert!(words.contains("setxattr(2) security.capability") && words.contains("0x0000000201000000"), "{words}");
    for (arguments, part) in [
        ([&link[..], "cap_chown=p"], &format!("name the file that it leads to: {a}")[..]),
        ([&dir, "cap_chown=p"], "no regular file"),
        ([&a, "cap_chown=ep cap_kill=p"], "one effective flag"),
        ([&a, "cap_nothing=p"], "cap_nothing"),
        (["/proc/version", "cap_chown=p"], "/proc/version"),
    ] {
        let refused = stage.onggi.run(&[&["caps", "set"], &arguments[..]].concat());
        assert!(refused.code == Some(1) && refused.stderr.contains(part), "{refused}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_command_runs_with_the_capabilities_that_capsh_would_give_it() {
    let stage = Stage::new();
    let cases: [(&[&str], &str); 6] = [
        (&["--drop", "net_raw"], "--drop=cap_net_raw"),
        (&["--drop", "CAP_NET_RAW,chown", "--no-new-privs"], "--drop=cap_net_raw,cap_chown --no-new-privs"),
        (&["--drop", "ALL"], "--drop=all"),
        (&["--inh", "net_raw"], "--inh=cap_net_raw"),
        (
            &["--user", "7:8", "--add", "net_bind_service"],
            "--keep=1 --groups=8 --gid=8 --uid=7 --caps=cap_net_bind_service=eip --addamb=cap_net_bind_service",
        ),
        (&["--user", "7:8"], "--groups=8 --gid=8 --uid=7"),
    ];
    for (ours, theirs) in cases {
        let theirs = sh(&format!("capsh {theirs} --shell=/bin/sh -- -c \"{LOOK}\""));
        let seen = stage.onggi.ok(&[&["caps", "run"], ours, &["sh", "-c", LOOK]].concat());
        assert_eq!(seen, theirs.trim_end(), "{ours:?}");
        let script = stage.onggi.ok(&[&["caps", "run", "--explain=sh"], ours, &["sh", "-c", LOOK]].concat());
        assert_eq!(sh(&script).trim_end(), seen, "{script}");
    }
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_a_dropped_capability_is_missed_and_an_added_one_is_used() {
    let stage = Stage::new();
    let ping = "busybox ping -c 1 -W 1 127.0.0.1 > /dev/null && echo pong";
    assert_eq!(stage.onggi.ok(&["caps", "run", "--", "sh", "-c", ping]), "pong");
    sh("echo '1 0' > /proc/sys/net/ipv4/ping_group_range");
    let refused = stage.onggi.run(&["caps", "run", "--drop", "net_raw", "sh", "-c", ping]);
    assert!(refused.code != Some(0) && refused.stderr.contains("permission denied"), "{refused}");
    let listen = "timeout 1 busybox nc -l -p 80; echo $?";
    let user = stage.onggi.run(&["caps", "run", "--user", "7:8", "sh", "-c", listen]);
    assert!(user.stderr.contains("ermission denied"), "{user}");
    let added = stage.onggi.run(&["caps", "run", "--user", "7:8", "--add", "net_bind_service", "sh", "-c", listen]);
    assert!(!added.stderr.contains("ermission denied"), "{added}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_capabilities_need_no_root_in_a_user_namespace_and_say_so() {
    let stage = Stage::new();
    let as_user = |arguments: &[&str]| {
        let onggi = stage.onggi.command(&[&["caps", "run"], arguments].concat());
        let words = [onggi.get_program()].into_iter().chain(onggi.get_args());
        let line = words.map(|word| format!("\"{}\"", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        sh(&format!("setpriv --reuid 12345 --regid 12345 --clear-groups {line} 2>&1 || true"))
    };
    sh(&format!("chmod 755 {}", stage.onggi.dir().display()));
    let seen = as_user(&["-r", "--drop", "net_raw", "sh", "-c", "id -u; grep CapEff /proc/self/status"]);
    let last: u32 = sh("cat /proc/sys/kernel/cap_last_cap").trim().parse().expect("a number");
    assert_eq!(seen, format!("0\nCapEff:\t{:016x}\n", u64::MAX >> (63 - last) & !(1 << 13)));
    let refused = as_user(&["--drop", "net_raw", "true"]);
    assert!(refused.contains("without CAP_SETPCAP") && refused.contains("--map-root-user"), "{refused}");
    let refused = as_user(&["--add", "net_raw", "true"]);
    assert!(refused.contains("does not have it"), "{refused}");
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_an_audit_tells_used_capabilities_from_unused_ones() {
    let stage = Stage::new();
    let caps = ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "NET_RAW", "--cap-add", "KILL"];
    let script = "while :; do chown 7:8 /tmp/x; sleep 0.1; done";
    let options = [&["run", "-d", "--network", "none", "--name", "box"], &caps[..]].concat();
    stage
        .onggi
        .ok(&[&options[..], &[&stage.busybox, "sh", "-c", &format!("mkdir -p /tmp; touch /tmp/x; {script}")]].concat());
    let rows = ["--format", "{{.Name}} {{.Granted}} {{if .Used}}used{{else}}unused{{end}}"];
    let seen = stage.onggi.ok(&[&["caps", "audit", "--for", "1"], &rows[..], &["box"]].concat());
    for line in ["cap_chown yes used", "cap_net_raw yes unused", "cap_kill yes unused"] {
        assert!(seen.lines().any(|found| found == line), "{line:?} is missing in\n{seen}");
    }
    assert!(!seen.contains("cap_sys_admin"), "mapping memory is no use of it:\n{seen}");
    // A second between the two, in which the container changes owners some times.
    let ping = ["caps", "audit", "box", "ping", "-c", "2", "127.0.0.1"];
    let text = stage.onggi.ok(&ping);
    let advice = text.lines().find(|line| line.starts_with("only what was used")).expect("there is advice");
    assert!(advice.contains("--cap-add CHOWN --cap-add NET_RAW") && !advice.contains("KILL"), "{text}");
    assert!(text.contains("not used in this time: --cap-drop KILL\n"), "{text}");
    let failed = stage.onggi.run(&["caps", "audit", "box", "sh", "-c", "exit 3"]);
    assert_eq!(failed.code, Some(3), "{failed}");
    let left = sh("mount -t tracefs tracefs /mnt; ls /mnt/instances; umount /mnt");
    assert!(!left.contains("onggi-caps"), "{left}");
    stage.onggi.ok(&["rm", "-f", "box"]);
    stage.onggi.assert_nothing_left();
}

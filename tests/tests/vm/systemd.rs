//! `limit` and `cgroup persist` with systemd: the system's and an ordinary user's, beside systemd-run.
//!
//! Not in a private machine, whose /run has no bus. Names have the test's process number, and go with the test.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio, id},
};

use onggi_tests::{Onggi, Ran, eventually, machine::sh};

/// Limits in our words, and in systemd-run's.
const OURS: [&str; 14] = [
    "--cpus",
    "0.5",
    "--cpu-weight",
    "50",
    "--cpuset-cpus",
    "0",
    "-m",
    "100M",
    "--memory-high",
    "80M",
    "--memory-swap",
    "100M",
    "--pids",
    "30",
];
const THEIRS: &str = "-p CPUQuota=50% -p CPUWeight=50 -p AllowedCPUs=0 -p MemoryMax=100M -p MemoryHigh=80M \
                      -p MemorySwapMax=0 -p TasksMax=30";
/// Prints the group, and what its files say.
const FILES: &str = "cd /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup) && pwd && cat cpu.max cpu.weight \
                     cpuset.cpus memory.max memory.high memory.swap.max pids.max";
const VALUES: &str = "50000 100000\n50\n0\n104857600\n83886080\n0\n30\n";

/// A name that no other test has, and units that are stopped with it.
struct Units {
    onggi: Onggi,
    name: String,
}

impl Units {
    fn new(word: &str) -> Units {
        Units { onggi: Onggi::new(), name: format!("onggitest{word}{}", id()) }
    }

    fn slice(&self) -> String {
        format!("{}.slice", self.name)
    }

    fn unit(&self, word: &str) -> String {
        format!("{}-{word}", self.name)
    }

    /// `limit OPTIONS`, and as a member of the test's slice.
    fn limit(&self, options: &[&str], command: &[&str]) -> Ran {
        self.onggi.run(&[&["limit", "--slice", &self.slice()], options, command].concat())
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        // What a test that failed has left.
        self.onggi.run(&["cgroup", "persist", "--remove", &self.name]);
        self.onggi.run(&["cgroup", "rm", "-r", "--kill", "--force", &self.name]);
        let units = format!("{0}.slice '{0}-*'", self.name);
        let _ = Command::new("sh")
            .args(["-c", &format!("systemctl stop {units}; systemctl reset-failed {units}")])
            .output();
    }
}

/// Properties of a unit, one a line.
fn show(unit: &str, properties: &[&str]) -> String {
    sh(&format!("systemctl show -p {} {unit}", properties.join(",")))
}

/// Everything that the limits decide.
const DECIDED: [&str; 17] = [
    "ActiveState",
    "Slice",
    "Transient",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "CPUWeight",
    "AllowedCPUs",
    "MemoryMax",
    "MemoryHigh",
    "MemorySwapMax",
    "TasksMax",
    "IOReadBandwidthMax",
    "IOWeight",
    "Nice",
    "LimitNOFILE",
    "LimitNOFILESoft",
    "WorkingDirectory",
];

#[test]
fn vm_limit_a_command_in_a_group_a_scope_and_a_service() {
    let units = Units::new("limit");
    // A group of its own, which goes with the command.
    let group = units.onggi.ok(&[&["limit"], &OURS[..], &["sh", "-c", FILES]].concat()) + "\n";
    let (dir, values) = group.split_once('\n').expect("lines");
    assert!(dir.starts_with("/sys/fs/cgroup/onggi-limit-") && !PathBuf::from(dir).exists(), "{group}");
    assert_eq!(values, VALUES);
    // A scope around the command: its terminal, its exit code, and what systemd-run makes.
    let (ours, theirs) = (units.unit("ours"), units.unit("theirs"));
    let script = format!("{FILES}; nice; ulimit -n; exit 7");
    let more = ["--scope", "--unit", &ours, "--nice", "5", "--ulimit", "nofile=99"];
    let ran = units.limit(&[&more, &OURS[..]].concat(), &["sh", "-c", &script]);
    let place = |unit: &str| format!("/sys/fs/cgroup/{}/{unit}.scope\n", units.slice());
    assert_eq!((ran.code, ran.stdout), (Some(7), place(&ours) + VALUES + "5\n99\n"), "{}", ran.stderr);
    let run = format!(
        "systemd-run -q --scope --unit {theirs} --slice {} {THEIRS} sh -c '{}'",
        units.slice(),
        FILES.replace('\'', "'\\''")
    );
    assert_eq!(sh(&run), place(&theirs) + VALUES);
    services(&units);
    // A process that runs: its group, and the way back.
    let mut sleeper = Command::new("sleep").arg("300").spawn().expect("start sleep");
    let group_of = || fs::read_to_string(format!("/proc/{}/cgroup", sleeper.id())).expect("it runs").trim().to_owned();
    let before = group_of();
    let said = units.onggi.ok(&["limit", "-m", "80M", "--pid", &sleeper.id().to_string()]);
    let dir = format!("/sys/fs/cgroup{}", group_of().trim_start_matches("0::"));
    assert_eq!(fs::read_to_string(format!("{dir}/memory.max")).expect(&dir).trim(), "83886080");
    let program = units.onggi.program().display().to_string();
    for line in said.lines().filter_map(|l| l.strip_prefix("to undo it: ")) {
        sh(&line.replace("onggi ", &format!("{program} ")));
    }
    assert_eq!(group_of(), before, "{said}");
    assert!(!PathBuf::from(dir).exists(), "{said}");
    sleeper.kill().expect("kill");
    sleeper.wait().expect("it ends");
}

/// A service has the properties that systemd-run gives, and so has the one that the script of `--explain=sh` makes.
fn services(units: &Units) {
    let (ours, theirs, hand) = (units.unit("ours"), units.unit("theirs"), units.unit("hand"));
    let more = ["--nice", "5", "--ulimit", "nofile=99:200", "--io-read-bps", "/dev/vda:1M", "--io-weight", "200"];
    let options = [&more[..], &OURS[..]].concat();
    let said = units.limit(&[&["--unit", &ours], &options[..]].concat(), &["sleep", "300"]);
    assert_eq!((said.code, said.stdout), (Some(0), format!("Running as unit: {ours}.service\n")), "{}", said.stderr);
    sh(&format!(
        "systemd-run -q -d --unit {theirs} --slice {} {THEIRS} -p Nice=5 -p LimitNOFILE=99:200 -p IOWeight=200 \
         -p 'IOReadBandwidthMax=/dev/vda 1048576' sleep 300",
        units.slice()
    ));
    let script = units.limit(&[&["--explain=sh", "--unit", &hand], &options[..]].concat(), &["sleep", "300"]);
    sh(&script.stdout);
    let expected = show(&theirs, &DECIDED);
    assert!(expected.contains("ActiveState=active") && expected.contains("MemoryHigh=83886080"), "{expected}");
    assert_eq!(show(&ours, &DECIDED), expected);
    assert_eq!(show(&hand, &DECIDED), expected, "{}", script.stdout);
    // One that runs stays; one that has failed makes room for the next of its name.
    let again = units.limit(&["--unit", &ours], &["true"]);
    assert!(again.code == Some(125) && again.stderr.contains("already loaded"), "{again}");
    let once = units.unit("once");
    assert_eq!(units.limit(&["--unit", &once], &["false"]).code, Some(0));
    eventually("it has failed", || show(&once, &["ActiveState"]).contains("failed").then_some(()));
    assert_eq!(units.limit(&["--unit", &once], &["sleep", "300"]).code, Some(0));
    for refused in [["-r", "oom-group=1"], ["-r", "cpu-burst=1000"]] {
        let said = units.limit(&[&["--scope"], &refused[..]].concat(), &["true"]);
        assert!(said.code == Some(125) && said.stderr.contains("systemd has no property for it"), "{said}");
    }
    let words = units.limit(&[&["--explain", "--unit", &once], &OURS[..]].concat(), &["true"]).stdout;
    assert!(words.contains("ask systemd to start") && words.contains("MemoryHigh=83886080"), "{words}");
}

#[test]
fn vm_cgroup_persists_through_a_service_and_a_daemon_reload() {
    let units = Units::new("persist");
    let (name, onggi) = (&units.name, &units.onggi);
    let group = format!("{name}/web");
    let dir = PathBuf::from("/sys/fs/cgroup").join(&group);
    let values =
        || ["cpu.max", "memory.max", "pids.max"].map(|f| fs::read_to_string(dir.join(f)).unwrap_or_default()).concat();
    onggi.ok(&["cgroup", "create", &group]);
    onggi.ok(&["cgroup", "set", "-q", &group, "cpus=0.3", "memory=64M", "pids=20"]);
    let unit = format!("onggi-cgroup-{name}.service");
    assert_eq!(onggi.ok(&["cgroup", "persist", name]), format!("{name} is made again at each boot by {unit}"));
    let state = show(&unit, &["ActiveState", "UnitFileState", "Delegate"]);
    assert_eq!(state, "Delegate=yes\nActiveState=active\nUnitFileState=enabled\n");
    let given = show(&unit, &["DelegateControllers"]);
    assert!(["cpu", "memory", "pids"].iter().all(|c| given.contains(c)), "{given}");
    // As at a boot: the group is not there, and what multi-user.target wants is started.
    sh(&format!("timeout 100 systemctl stop {unit}"));
    onggi.ok(&["cgroup", "rm", "-r", name]);
    sh("systemctl start --no-block multi-user.target");
    let kept = "30000 100000\n67108864\n20\n";
    eventually("it is made again", || (values() == kept).then_some(()));
    // systemd looks at its tree again, and gives and takes controllers.
    sh(
        "timeout 100 systemctl daemon-reload; timeout 100 systemd-run -q --wait -p CPUQuota=50% -p IOWeight=50 -p AllowedCPUs=0 true",
    );
    assert_eq!(values(), kept);
    // Changed, and kept anew.
    onggi.ok(&["cgroup", "set", "-q", &group, "pids=25"]);
    sh(&onggi.ok(&["cgroup", "persist", "--explain=sh", name]));
    onggi.ok(&["cgroup", "rm", "-r", name]);
    sh(&format!("timeout 100 systemctl restart {unit}"));
    assert_eq!(values(), kept.replace("20\n", "25\n"));
    for _ in 0..2 {
        onggi.ok(&["cgroup", "persist", "--remove", name]);
        assert_eq!(show(&unit, &["LoadState", "ActiveState"]), "LoadState=not-found\nActiveState=inactive\n");
    }
    assert!(!PathBuf::from(format!("/etc/onggi/cgroups/{name}.conf")).exists());
    assert!(dir.exists(), "it stays until the next boot");
    onggi.ok(&["cgroup", "rm", "-r", name]);
}

/// Runs a script as the ordinary user, with a session's environment; `$P` is the program.
fn as_tester(program: &str, script: &str) -> Ran {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--init-groups", "sh", "-euc", script]);
    command.env("XDG_RUNTIME_DIR", "/run/user/1000").env_remove("DBUS_SESSION_BUS_ADDRESS");
    command.env("HOME", "/tmp").env("P", program).current_dir("/");
    let out = command.stdin(Stdio::null()).output().expect("start setpriv");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { line: script.to_owned(), code: out.status.code(), stdout: text(&out.stdout), stderr: text(&out.stderr) }
}

#[test]
fn vm_limit_an_ordinary_user_is_limited_by_his_own_systemd() {
    let units = Units::new("user");
    let program = units.onggi.program().display().to_string();
    let own = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service";
    // Nothing but the limits: he may make no group here, so his systemd makes a scope.
    let options = OURS.join(" ");
    let quoted = FILES.replace('\'', "'\\''");
    let ran = as_tester(&program, &format!("$P limit {options} sh -c '{quoted}; exit 7'"));
    let (dir, values) = ran.stdout.split_once('\n').unwrap_or_else(|| panic!("{ran}"));
    assert!(dir.starts_with(&format!("{own}/app.slice/onggi-limit-")) && dir.ends_with(".scope"), "{ran}");
    assert_eq!((ran.code, values), (Some(7), VALUES), "{ran}");
    assert!(!ran.stderr.contains("not kept"), "{ran}");
    // A service of his, as systemd-run makes it.
    let (ours, theirs) = (units.unit("ours"), units.unit("theirs"));
    // `systemd-run -d` keeps the caller's directory where a service has none without it.
    let properties: Vec<&str> = DECIDED.into_iter().filter(|name| *name != "WorkingDirectory").collect();
    let properties = properties.join(",");
    let script = format!(
        "$P limit --unit {ours} --slice {slice} {options} sleep 300 > /dev/null
         systemd-run --user -q -d --unit {theirs} --slice {slice} {THEIRS} sleep 300
         systemctl --user show -p {properties} {ours}; echo; systemctl --user show -p {properties} {theirs}
         cat {own}/{slice}/{ours}.service/memory.max
         systemctl --user stop {slice}",
        slice = units.slice(),
    );
    let ran = as_tester(&program, &script);
    assert_eq!(ran.code, Some(0), "{ran}");
    let (mine, rest) = ran.stdout.split_once("\n\n").unwrap_or_else(|| panic!("{ran}"));
    assert!(mine.contains("MemoryHigh=83886080") && mine.contains("ActiveState=active"), "{ran}");
    assert_eq!(rest, format!("{mine}\n104857600\n"));
    delegated(&units, &program);
}

/// Where systemd has given him a group, he has groups of his own below it, after he has moved out of it.
fn delegated(units: &Units, program: &str) {
    let inner = units.onggi.dir().join("inner.sh");
    let script = "own=$(sed -n 's/^0:://p' /proc/self/cgroup)
        $P cgroup create $own/early && echo made
        $P cgroup create memory:$own/named || echo refused with $?
        $P cgroup rm $own/early; $P cgroup create $own/shell
        $P cgroup mv $own/shell self
        $P cgroup create $own/task
        $P cgroup set $own/task memory=32M cpus=0.2
        $P cgroup exec $own/task cat /sys/fs/cgroup$own/task/memory.max
        $P cgroup exec $own true || echo not there: $?
        $P cgroup get -v $own/task cpus
        $P cgroup create /beside || echo not outside: $?";
    fs::write(&inner, script).expect("write");
    sh(&format!("chmod 755 {0} {0}/inner.sh", units.onggi.dir().display()));
    let ran = as_tester(
        program,
        &format!("systemd-run --user --scope -q --unit {} -p Delegate=yes sh -eu {}", units.unit("d"), inner.display()),
    );
    let expected = "made\nrefused with 1\nmemory=32M → memory.max 33554432 (v2)\ncpus=0.2 → cpu.max 20000 100000 (v2)\n\
                    33554432\nnot there: 1\n0.2\nnot outside: 1\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), expected), "{}", ran.stderr);
    for part in
        ["processes of its own", "/leaf", "takes no processes: it gives controllers", "belongs to somebody else"]
    {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}

//! I4: the runtime's program cannot be written from inside, whatever it is doing just then.

use std::{fs, process::Stdio};

use onggi_tests::{eventually, isolated};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::jar::{Jar, runtime};

fn hash() -> Vec<u8> {
    Sha256::digest(fs::read(runtime()).expect("read the runtime")).to_vec()
}

/// Takes hold of every executable that it sees and tries to write it now and later; counts attempts.
const WRITER: &str = "echo ready; n=0; while :; do for p in /proc/[0-9]*; do \
      n=$((n+1)); echo x >> $p/exe; ( exec 9< $p/exe; echo x >> /proc/self/fd/9; cat /proc/self/fd/9 > /dev/null; \
      echo x >> /proc/self/fd/9 ); done 2>/dev/null; test $n -ge $LIMIT && echo attempts $n && break; done";

fn attack(jar: &mut Jar, flags: &[&str], limit: usize) {
    let before = hash();
    let script = WRITER.replace("$LIMIT", &limit.to_string());
    jar.script(&format!("{script}; sleep 60"));
    let done = jar.detached(flags);
    assert_eq!(done.code, 0, "{}", done.err);
    jar.until("the writer begins", |out| out.contains("ready"));
    for _ in 0..1_000 {
        if jar.output().contains("attempts") {
            break;
        }
        let done = jar.exec(&[], &["true"]);
        assert_eq!(done.code, 0, "{}", done.err);
    }
    assert!(jar.output().contains("attempts"), "the writer never came to its {limit} attempts");
    enters_as_something_that_nobody_writes(jar);
    assert!(before == hash(), "the runtime's program has changed");
}

#[test]
fn root_cve_2019_5736_a_thousand_writes_during_exec_change_nothing() {
    isolated();
    attack(&mut Jar::new(""), &[], 1_000);
}

#[test]
fn root_cve_2019_5736_a_privileged_container_cannot_write_it_either() {
    isolated();
    let mut jar = Jar::new("");
    for cap in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_MKNOD"] {
        jar.add_cap(cap);
    }
    attack(&mut jar, &[], 1_000);
}

#[test]
fn root_cve_2019_5736_an_ordinary_users_runtime_is_safe_too() {
    isolated();
    let mut jar = Jar::small("");
    jar.by_user(54_321);
    let copy = jar.path("onggi-oci");
    let before = fs::read(&copy).expect("read the runtime");
    attack(&mut jar, &[], 1_000);
    assert!(before == fs::read(&copy).expect("read the runtime"), "the user's program has changed");
}

/// The writer has met a program that was being executed all the time, which the kernel protects for just so long. What
/// the runtime itself executes is looked at from the host, while a program of the container runs in its foreground.
fn enters_as_something_that_nobody_writes(jar: &Jar) {
    let pid_file = jar.path("entered");
    let at = pid_file.to_str().expect("a UTF-8 path");
    let mut entered = jar.oci(&["exec", "--pid-file", at, &jar.id, "sleep", "60"]);
    let mut entered = entered.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start the runtime");
    eventually("the program runs", || fs::read_to_string(&pid_file).is_ok_and(|t| !t.is_empty()).then_some(()));
    let taken = fs::File::open(format!("/proc/{}/exe", entered.id()));
    entered.kill().and_then(|()| entered.wait()).expect("end the runtime");
    refuses_writes(&taken.expect("open the program"));
}

/// With every right of the host. "Text file busy" is no defence: it ends when nobody executes the program any more.
#[track_caller]
fn refuses_writes(program: &fs::File) {
    if rustix::fs::fcntl_get_seals(program).is_ok_and(|s| s.contains(rustix::fs::SealFlags::WRITE)) {
        return;
    }
    let at = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(program));
    let error = fs::OpenOptions::new().append(true).open(&at).expect_err("the runtime's program can be written");
    let mount = rustix::fs::fstatvfs(program).expect("ask for the mount").f_flag;
    assert!(mount.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{error}: it lies on a mount that can be written");
}

/// The entrypoint, an interpreter and a hook are the runtime itself.
#[test]
fn root_cve_2019_5736_images_that_execute_the_runtime_cannot_write_it() {
    isolated();
    let before = hash();
    let mut jar = Jar::new("");
    jar.args(&["/proc/self/exe", "--version"]);
    jar.run().inside();
    let mut jar = Jar::new("");
    jar.write("rootfs/bin/script", "#!/proc/self/exe\n");
    fs::set_permissions(jar.root().join("bin/script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("make it executable");
    jar.args(&["/bin/script"]);
    jar.run().inside();
    let jar = Jar::new("sleep 60");
    jar.running();
    jar.exec(&[], &["/proc/self/exe", "--version"]).inside();
    // It waits for its standard input, so that there is time to take hold of it.
    let mut jar = Jar::new("");
    jar.args(&["/proc/self/exe", "update", "--resources", "-", "x"]);
    // As it is installed it needs no loader; as a developer builds it, it does.
    jar.bind("/lib", "/lib");
    jar.bind("/lib64", "/lib64");
    jar.save();
    let bundle = jar.dir().to_str().expect("a UTF-8 path").to_owned();
    let mut run = jar.oci(&["run", "--bundle", &bundle, &jar.id]);
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start it");
    let executed = |pid: u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(b"/proc/self/exe\0update")
    };
    let child = eventually("the image executes the runtime", || {
        let state: serde_json::Value = serde_json::from_str(&jar.verb("state").out).ok()?;
        u32::try_from(state["pid"].as_u64()?).ok().filter(|pid| executed(*pid))
    });
    let taken = fs::File::open(format!("/proc/{child}/exe")).expect("open the program");
    drop(run.stdin.take());
    run.wait().expect("wait for the runtime");
    refuses_writes(&taken);
    let mut jar = Jar::new("for p in 1 self; do echo x >> /proc/$p/exe; done; true");
    jar.config["hooks"] = json!({ "startContainer": [{ "path": "/bin/sh", "args": [
        "sh", "-c", "for p in /proc/[0-9]*; do echo x >> $p/exe; done 2>/dev/null; true"] }] });
    jar.run().inside();
    assert!(before == hash(), "the runtime's program has changed");
}

/// The one process of ours that stays inside is the init of `--init`.
#[test]
fn root_cve_2019_5736_the_init_that_stays_inside_lies_on_a_read_only_mount() {
    isolated();
    let before = hash();
    let jar = Jar::new("sleep 60");
    assert_eq!(jar.detached(&["--init"]).code, 0);
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo x >> /proc/1/exe; done 2>/dev/null; true";
    assert_eq!(jar.exec(&[], &["sh", "-c", script]).code, 0);
    // From the host, with every right: the mount itself refuses.
    let taken = fs::File::open(format!("/proc/{}/exe", jar.pid())).expect("open the program");
    refuses_writes(&taken);
    assert!(before == hash(), "the runtime's program has changed");
}

/// A container waits for start as a copy of the runtime.
#[test]
fn root_cve_2019_5736_a_container_that_waits_for_start_cannot_be_used_to_write_it() {
    isolated();
    let before = hash();
    let jar = Jar::new("true");
    assert_eq!(jar.create().code, 0);
    let taken = fs::File::open(format!("/proc/{}/exe", jar.pid())).expect("open the program");
    let script = "for p in /proc/[0-9]*; do echo x >> $p/exe; done 2>/dev/null; true";
    jar.exec(&[], &["sh", "-c", script]).inside();
    // Who has it open waits until nobody executes it any more: "text file busy" is no defence.
    assert_eq!(jar.verb("start").code, 0);
    refuses_writes(&taken);
    assert!(before == hash(), "the runtime's program has changed");
}

#[test]
fn root_cve_2019_5736_benign_a_container_reads_runs_and_replaces_its_own_programs() {
    isolated();
    let script = "head -c 4 /proc/self/exe | wc -c && cp /proc/self/exe /tmp/busybox && /tmp/busybox true && \
                  cp /bin/busybox /bin/new && echo x >> /bin/new && echo replaced";
    Jar::new(script).run().printed("4\nreplaced\n");
}

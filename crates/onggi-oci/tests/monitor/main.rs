//! The monitor with real containers. Every test starts the built program on a bundle of its own, below
//! its own directories; all need root on this machine's kernel, hence their names.

mod harness;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use harness::{Ask, lives, shell, until};
use onggi_spec::{attach::FrameKind, monitor::MonitorReport};
use onggi_sys::process::Exit;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

#[test]
fn root_output_reaches_client_and_log_and_the_exit_is_recorded_and_everything_is_gone() {
    let script = "echo out; echo err >&2; printf part; exit 3";
    let mut m = Ask { primary: true, exit_command: true, ..shell(script) }.run();
    let mut client = m.primary.take().unwrap();
    let got = client.receive();
    assert_eq!((got.stdout, got.stderr), (b"out\npart".to_vec(), b"err\n".to_vec()));
    let exit = got.exit.unwrap();
    assert_eq!((exit.exit_code, exit.oom_killed, exit.error.as_str()), (3, false, ""));
    assert!(exit.finished_at >= exit.started_at && exit.started_at > 0);
    client.send(FrameKind::WillCleanUp, b"");
    assert_eq!(m.finish(), exit);
    assert_eq!((m.logged("stdout").as_str(), m.logged("stderr").as_str()), ("out\npart", "err\n"));
    assert_eq!(m.left_in_run_dir(), ["monitor.lock"]);
    assert_eq!(m.cgroups(), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(m.dir.join("oci")).unwrap().count(), 0);
    assert!(!m.dir.join("exit-command-ran").exists(), "the client had promised to clean up");
}

#[test]
fn root_without_a_client_that_promises_the_exit_command_runs_after_the_record() {
    let mut detached = Ask { exit_command: true, ..shell("exit 4") }.run();
    assert_eq!(detached.finish().exit_code, 4);
    assert!(detached.dir.join("exit-command-ran").exists());
    let mut silent = Ask { exit_command: true, primary: true, ..shell("true") }.run();
    drop(silent.primary.take());
    silent.finish();
    assert!(silent.dir.join("exit-command-ran").exists());
}

#[test]
fn root_a_killed_monitor_takes_the_workload_with_it_and_frees_the_lock() {
    let mut m = shell("trap '' TERM INT HUP; while :; do sleep 1; done").run();
    let pid = m.pid();
    assert!(lives(pid) && !m.lock_is_free());
    m.signal(SIGKILL);
    assert_eq!(m.wait(), Exit::Signal(SIGKILL));
    until(|| !lives(pid));
    assert!(m.lock_is_free());
}

#[test]
fn root_a_monitor_killed_at_any_moment_of_the_start_leaves_no_process() {
    for attempt in 0..150u64 {
        let starting = shell("trap '' TERM; while :; do sleep 1; done").launch();
        // From before the starter is forked to after the workload runs.
        std::thread::sleep(Duration::from_micros(attempt * 67 % 10_000));
        let m = starting.kill();
        until(|| m.processes().is_empty() && m.lock_is_free());
    }
}

#[test]
fn root_sigterm_to_the_monitor_reaches_the_workload() {
    let mut m =
        Ask { primary: true, ..shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.02; done") }.run();
    let mut client = m.primary.take().unwrap();
    client.expect("up\n");
    m.signal(SIGTERM);
    let got = client.receive();
    assert_eq!((got.stdout.as_slice(), got.exit.unwrap().exit_code), (&b"bye\n"[..], 7));
    client.send(FrameKind::WillCleanUp, b"");
    assert_eq!(m.finish().exit_code, 7);
}

#[test]
fn root_a_signal_that_kills_is_reported_as_128_plus_its_number() {
    let mut m = shell("kill -9 $$; sleep 5").run();
    // PID 1 of a pid namespace ignores its own SIGKILL; from outside it is obeyed.
    onggi_sys::process::kill(m.pid(), SIGKILL).unwrap();
    let record = m.finish();
    assert_eq!((record.exit_code, record.oom_killed), (137, false));
}

#[test]
fn root_sixty_four_clients_see_the_same_and_one_more_is_turned_away() {
    let script = "read x; echo got $x; i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done";
    let mut m = Ask { interactive: true, ..shell(script) }.run();
    let mut clients: Vec<_> = (0..64).map(|_| m.attach()).collect();
    let mut one_more = m.attach();
    assert_eq!(one_more.frame(), None);
    clients[7].send(FrameKind::Stdin, b"seven\n");
    let all: Vec<_> = clients.iter_mut().map(harness::Client::receive).collect();
    assert!(all[0].stdout.starts_with(b"got seven\nline 0\n"));
    assert!(all[0].stdout.ends_with(b"line 299\n"));
    assert!(all.iter().all(|received| *received == all[0]));
    m.finish();
}

#[test]
fn root_a_client_that_never_reads_holds_nothing_up() {
    let script = "read x; head -c 8000000 /dev/zero | tr '\\0' x; echo done";
    let mut m = Ask { interactive: true, ..shell(script) }.run();
    let asleep = m.attach();
    let mut awake = m.attach();
    awake.send(FrameKind::Stdin, b"go\n");
    let got = awake.receive();
    assert_eq!((got.stdout.len(), got.exit.unwrap().exit_code), (8_000_005, 0));
    m.finish();
    assert!(m.logged("stdout").ends_with("xdone\n"));
    drop(asleep);
}

#[test]
fn root_the_primary_client_gets_every_byte_however_slowly_it_reads() {
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 900000 /dev/zero | tr '\\0' y >&2";
    let mut m = Ask { primary: true, ..shell(script) }.run();
    std::thread::sleep(Duration::from_millis(700));
    let mut client = m.primary.take().unwrap();
    let got = client.receive();
    assert_eq!((got.stdout.len(), got.stderr.len()), (3_000_000, 900_000));
    drop(client);
    m.finish();
}

#[test]
fn root_a_primary_client_that_vanishes_does_not_end_or_stop_the_workload() {
    let script = "i=0; while [ $i -lt 40 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 5";
    let mut m = Ask { primary: true, ..shell(script) }.run();
    drop(m.primary.take());
    assert_eq!(m.finish().exit_code, 5);
    assert_eq!(m.logged("stdout").lines().count(), 40);
}

#[test]
fn root_clients_that_break_the_protocol_are_dropped_alone() {
    let mut m = Ask { interactive: true, ..shell("cat") }.run();
    let mut good = m.attach();
    let mut too_long = vec![FrameKind::Stdin as u8];
    too_long.extend(65_537u32.to_le_bytes());
    for bad in [too_long.as_slice(), &[99, 0, 0, 0, 0], &[2, 0, 0, 0, 0], &[4, 3, 0, 0, 0]] {
        let mut client = m.attach();
        client.0.write_all(bad).unwrap();
        assert_eq!(client.frame(), None);
    }
    good.send(FrameKind::Stdin, b"still here\n");
    good.expect("still here\n");
    good.send(FrameKind::StdinEof, b"");
    assert_eq!(good.receive().exit.unwrap().exit_code, 0);
    m.finish();
}

#[test]
fn root_stdin_is_complete_and_ends_only_when_a_client_says_so() {
    let mut m = Ask { interactive: true, primary: true, ..shell("cat") }.run();
    let mut leaving = m.attach();
    leaving.send(FrameKind::Stdin, b"first\n");
    let mut client = m.primary.take().unwrap();
    client.expect("first\n");
    drop(leaving);
    let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut writer = harness::Client(client.0.try_clone().unwrap());
    let copy = sent.clone();
    let thread = std::thread::spawn(move || {
        copy.chunks(60_000).for_each(|part| writer.send(FrameKind::Stdin, part));
        writer.send(FrameKind::StdinEof, b"");
    });
    let got = client.receive();
    thread.join().unwrap();
    assert!(got.stdout == sent, "{} of {} bytes", got.stdout.len(), sent.len());
    assert_eq!(got.exit.unwrap().exit_code, 0);
    drop(client);
    m.finish();
}

#[test]
fn root_without_i_stdin_is_empty_and_clients_cannot_write_to_it() {
    let mut m = Ask { primary: true, ..shell("cat; echo end; sleep 0.2") }.run();
    let mut client = m.primary.take().unwrap();
    client.send(FrameKind::Stdin, b"unwanted\n");
    assert_eq!(client.receive().stdout, b"end\n");
    drop(client);
    m.finish();
}

#[test]
fn root_a_terminal_echoes_resizes_and_is_logged_as_stdout() {
    let script = "echo ready; read x; echo got $x; stty size; cat; echo end";
    let mut m = Ask { interactive: true, terminal: true, primary: true, ..shell(script) }.run();
    let mut client = m.primary.take().unwrap();
    client.expect("ready\r\n");
    client.send(FrameKind::Resize, &[100, 0, 30, 0]);
    client.send(FrameKind::Stdin, b"abc\n");
    client.expect("30 100\r\n");
    client.send(FrameKind::StdinEof, b"");
    let got = client.receive();
    assert!(got.stdout.ends_with(b"end\r\n"), "{:?}", String::from_utf8_lossy(&got.stdout));
    assert!(got.stderr.is_empty());
    drop(client);
    m.finish();
    assert!(m.logged("stdout").contains("abc\r\ngot abc\r\n30 100\r\n"));
}

#[test]
fn root_a_command_that_is_missing_is_reported_recorded_and_leaves_nothing() {
    let args = Some(vec!["/bin/no-such-program".to_owned()]);
    let mut m = Ask { args, primary: true, exit_command: true, ..shell("") }.start();
    let MonitorReport::Failed(failure) = &m.report else { panic!("{:?}", m.report) };
    assert_eq!(failure.exit_code, 127, "{failure:?}");
    assert_eq!(m.wait(), Exit::Code(125));
    let record = m.record();
    assert_eq!(record.exit_code, 127);
    assert!(record.error.contains("no-such-program"), "{record:?}");
    assert_eq!(m.left_in_run_dir(), ["monitor.lock"]);
    assert!(m.cgroups().is_empty() && m.lock_is_free());
    assert_eq!(fs::read_dir(m.dir.join("oci")).unwrap().count(), 0);
    assert!(!m.dir.join("exit-command-ran").exists(), "who hears the report cleans up");
}

#[test]
fn root_memory_beyond_the_limit_is_recorded_as_an_oom_kill() {
    let mut m = Ask { memory: Some(16 << 20), ..shell("exec dd if=/dev/zero of=/dev/null bs=64M count=1") }.run();
    let record = m.finish();
    assert_eq!((record.exit_code, record.oom_killed), (137, true));
    let mut ordinary = Ask { memory: Some(16 << 20), ..shell("exit 137") }.run();
    assert!(!ordinary.finish().oom_killed);
}

#[test]
fn root_a_background_process_that_keeps_stdout_open_is_ended_and_delays_nothing() {
    let mut m = Ask { pid_namespace: false, primary: true, ..shell("sleep 1000 & echo $!; exit 6") }.run();
    let begin = Instant::now();
    let mut client = m.primary.take().unwrap();
    let got = client.receive();
    let background: i32 = String::from_utf8(got.stdout).unwrap().trim().parse().unwrap();
    assert_eq!(got.exit.unwrap().exit_code, 6);
    drop(client);
    m.finish();
    assert!(begin.elapsed() < Duration::from_secs(5));
    until(|| !lives(background));
}

#[test]
fn root_a_full_log_disk_costs_log_entries_not_output() {
    let script = "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); done; exit 9";
    let mut m = Ask { primary: true, log: Some("/dev/full".into()), ..shell(script) }.run();
    let mut client = m.primary.take().unwrap();
    let got = client.receive();
    assert_eq!((got.stdout.split(|&b| b == b'\n').count(), got.exit.unwrap().exit_code), (101, 9));
    drop(client);
    assert_eq!(m.finish().exit_code, 9);
}

#[test]
fn root_output_without_a_newline_is_logged_in_parts_and_bounded_by_rotation() {
    let script = "head -c 1000000 /dev/zero | tr '\\0' x";
    let mut m = Ask { max_size: 100_000, ..shell(script) }.run();
    m.finish();
    let files = ["container.log", "container.log.1"].map(|n| fs::read_to_string(m.dir.join(n)).unwrap());
    assert!(files.iter().all(|f| !f.is_empty() && f.len() <= 100_000));
    assert!(!m.dir.join("container.log.2").exists());
    let longest = files.iter().flat_map(|f| f.lines()).map(str::len).max().unwrap();
    assert!((16 * 1024..17 * 1024).contains(&longest), "{longest}");
}

#[test]
fn root_other_users_are_not_served() {
    let mut m = Ask { interactive: true, ..shell("cat") }.run();
    // Even if somebody opened the way to the socket, which is 0600.
    let socket = m.dir.join("run/attach.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let stranger = std::thread::spawn(move || {
        // The raw call changes this thread alone.
        onggi_sys::cred::set_uid(65_534).unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        let mut byte = [0];
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        matches!(stream.read(&mut byte), Ok(0) | Err(_))
    });
    assert!(stranger.join().unwrap());
    let mut owner = m.attach();
    owner.send(FrameKind::Stdin, b"mine\n");
    owner.expect("mine\n");
    m.signal(SIGKILL);
    m.wait();
}

#[test]
fn root_a_second_monitor_for_a_running_container_is_refused_and_harms_nothing() {
    let mut m = Ask { interactive: true, ..shell("cat") }.run();
    let second = m.start_again();
    let MonitorReport::Failed(failure) = second else { panic!("{second:?}") };
    assert!(failure.hint.contains("already running"), "{failure:?}");
    assert!(!m.dir.join("exit.json").exists());
    let mut client = m.attach();
    client.send(FrameKind::Stdin, b"alive\n");
    client.expect("alive\n");
    client.send(FrameKind::StdinEof, b"");
    assert_eq!(m.finish().exit_code, 0);
}

#[test]
fn root_thousands_of_attaches_leave_descriptors_and_memory_as_they_were() {
    let mut m = Ask { interactive: true, ..shell("cat") }.run();
    std::thread::sleep(Duration::from_millis(1500));
    let before = (m.descriptors(), m.memory("Pss_Anon"));
    for n in 0..2000 {
        let mut client = m.attach();
        client.send(FrameKind::Resize, &[80, 0, 24, 0]);
        if n % 50 == 0 {
            client.send(FrameKind::Stdin, b"x\n");
            client.expect("x\n");
        }
    }
    until(|| m.descriptors() == before.0);
    std::thread::sleep(Duration::from_millis(1500));
    let after = m.memory("Pss_Anon");
    assert!(after <= before.1 + 16, "{} KiB before, {after} KiB after", before.1);
    m.signal(SIGKILL);
    m.wait();
}

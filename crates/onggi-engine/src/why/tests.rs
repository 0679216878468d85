//! Causes of simulated ends.

use onggi_spec::monitor::StartFailure;
use onggi_storage::Examination;

use super::*;
use crate::asked::FailedStart;

fn facts(status: Status) -> WhyFacts {
    WhyFacts {
        id: "abc".into(),
        name: "web".into(),
        image: "busybox".into(),
        command: vec!["server".into()],
        status,
        asked: Vec::new(),
        failed: None,
        program: None,
        noexec: None,
        log: Vec::new(),
        kernel_log: Vec::new(),
        read_only: false,
    }
}

fn exited(code: i32, detail: ExitDetail) -> Status {
    let oom_killed = detail.limits.as_ref().is_some_and(|l| l.oom_kills > 0);
    Status::Exited(ExitRecord { exit_code: code, oom_killed, detail: Some(Box::new(detail)), ..ExitRecord::default() })
}

fn signal(number: i32) -> Status {
    exited(128 + number, ExitDetail { signal: Some(number), pid: 77, ..ExitDetail::default() })
}

fn asked(verb: &str, signal: i32, seconds: i64) -> Asked {
    Asked { verb: verb.into(), signal, at: seconds * 1_000_000_000 }
}

#[test]
fn an_oom_kill_names_the_limit_and_the_usage() {
    let limits = LimitEvents {
        oom_kills: 1,
        memory_limit: Some(16 << 20),
        memory_peak: Some(16 << 20),
        memory_hits: 9,
        ..LimitEvents::default()
    };
    let why = diagnose(&facts(exited(
        137,
        ExitDetail { signal: Some(9), limits: Some(limits.clone()), ..ExitDetail::default() },
    )));
    assert_eq!(why.cause, Cause::OutOfMemory);
    assert!(why.summary.contains("16MiB") && why.summary.contains("first process"), "{why:?}");
    // A child of the first process, and a limit that is not the container's own.
    let outside = LimitEvents { memory_hits: 0, memory_limit: None, ..limits };
    let why = diagnose(&facts(exited(1, ExitDetail { limits: Some(outside), ..ExitDetail::default() })));
    assert_eq!(why.cause, Cause::OutOfMemory);
    assert!(why.summary.contains("a process in it") && why.summary.contains("machine"), "{why:?}");
}

#[test]
fn the_same_code_has_the_cause_that_was_recorded() {
    let by_stop = WhyFacts { asked: vec![asked("stop", 15, 1), asked("stop", 9, 11)], ..facts(signal(9)) };
    let why = diagnose(&by_stop);
    assert_eq!(why.cause, Cause::Stopped);
    assert!(why.summary.contains("SIGTERM") && why.summary.contains("after 10 s"), "{why:?}");
    let by_kill = WhyFacts { asked: vec![asked("kill", 9, 1)], ..facts(signal(9)) };
    assert_eq!(diagnose(&by_kill).cause, Cause::Killed);
    assert_eq!(diagnose(&facts(signal(9))).cause, Cause::Signal);
    // The shell's own code: no signal ended the first process.
    let why = diagnose(&facts(exited(137, ExitDetail::default())));
    assert_eq!(why.cause, Cause::ExitCode);
    assert!(why.summary.contains("SIGKILL") && why.next.iter().any(|n| n.contains("children")), "{why:?}");
    let term = WhyFacts { asked: vec![asked("stop", 15, 1)], ..facts(signal(15)) };
    assert_eq!(diagnose(&term).cause, Cause::Stopped);
    let handled = WhyFacts { asked: vec![asked("stop", 15, 1)], ..facts(exited(0, ExitDetail::default())) };
    assert!(diagnose(&handled).summary.contains("handled"));
}

#[test]
fn faults_filters_and_limits_are_told_apart() {
    assert_eq!(diagnose(&facts(signal(31))).cause, Cause::Seccomp);
    assert!(diagnose(&facts(signal(11))).summary.contains("SIGSEGV"));
    let limits = LimitEvents { pids_limit: Some(5), pids_hits: 3, ..LimitEvents::default() };
    let why = diagnose(&facts(exited(2, ExitDetail { limits: Some(limits), ..ExitDetail::default() })));
    assert_eq!(why.cause, Cause::PidsLimit);
    let lost =
        ExitRecord { exit_code: 137, error: "the container's monitor was killed".into(), ..ExitRecord::default() };
    assert_eq!(diagnose(&facts(Status::Exited(lost))).cause, Cause::MonitorLost);
    assert_eq!(diagnose(&facts(Status::Created)).cause, Cause::NeverStarted);
    assert_eq!(diagnose(&facts(exited(0, ExitDetail::default()))).cause, Cause::Success);
}

#[test]
fn a_failed_start_is_explained_by_the_files_of_the_image() {
    let failed = |exit_code| {
        Some(FailedStart {
            at: 0,
            error: "exec failed".into(),
            hint: "a hint".into(),
            exit_code,
            failure: Some(StartFailure {
                step: "exec".into(),
                call: "execve".into(),
                errno: 2,
                exit_code,
                hint: String::new(),
                in_container: true,
            }),
        })
    };
    let program = |problem| Some(Examination { problem: Some(problem), ..Examination::default() });
    let cases = [
        (127, ExecutableProblem::NotFound { name: "server".into(), in_path: true }, Cause::CommandNotFound),
        (
            127,
            ExecutableProblem::MissingInterpreter { path: "/server".into(), interpreter: "/bin/python".into() },
            Cause::InterpreterMissing,
        ),
        (
            126,
            ExecutableProblem::WrongArchitecture { path: "/server".into(), architecture: "arm64" },
            Cause::WrongArchitecture,
        ),
        (
            126,
            ExecutableProblem::NotExecutable { path: "/server".into(), reason: "is not marked executable" },
            Cause::NotExecutable,
        ),
    ];
    for (code, problem, cause) in cases {
        let facts = WhyFacts { failed: failed(code), program: program(problem), ..facts(Status::Created) };
        let why = diagnose(&facts);
        assert_eq!((why.cause, why.exit_code), (cause, Some(code)));
        assert!(why.evidence.iter().any(|e| e.contains("execve")) && why.next.iter().any(|n| n == "a hint"), "{why:?}");
    }
    let noexec = WhyFacts {
        failed: failed(126),
        program: Some(Examination::default()),
        noexec: Some("/data".into()),
        ..facts(Status::Created)
    };
    assert_eq!(diagnose(&noexec).cause, Cause::NoExec);
    let early = WhyFacts { failed: failed(125), ..facts(Status::Created) };
    assert_eq!(diagnose(&early).cause, Cause::StartFailed);
}

#[test]
fn the_loaders_words_and_the_elf_headers_name_a_missing_library() {
    let library = onggi_storage::view::Library { name: "libx.so.1".into(), of: "/bin/server".into(), path: None };
    let facts = WhyFacts {
        log: vec!["stderr: server: error while loading shared libraries: libx.so.1: cannot open".into()],
        program: Some(Examination { libraries: vec![library], ..Examination::default() }),
        ..facts(exited(127, ExitDetail::default()))
    };
    let why = diagnose(&facts);
    assert_eq!(why.cause, Cause::LibraryMissing);
    assert!(why.summary.contains("libx.so.1 (needed by /bin/server)"), "{why:?}");
}

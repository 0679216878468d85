//! Texts of the kernel, of the runtime and of the command line.

use onggi_cgroup::{Paths, layout, stats};
use onggi_spec::{facts::CgroupLayout, monitor::SandboxState, user::UserSpec};

/// User strings. What is accepted is written as it was read, and a number is never anything but that number.
///
/// # Panics
/// When a promise about every user is broken.
pub fn users(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(user) = text.parse::<UserSpec>() else { return };
    let shown = user.to_string();
    assert_eq!(shown.parse::<UserSpec>().as_ref(), Ok(&user), "{text:?} is shown as {shown:?}");
    assert!(!text.is_empty() && !text.starts_with(':') && !text.ends_with(':'), "{text:?} names nobody");
}

/// Two files of procfs, separated by a NUL: `mountinfo` and `cgroup`.
///
/// # Panics
/// When a promise about every layout is broken.
pub fn mountinfo(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mounts, own) = text.split_once('\0').unwrap_or((&text, "0::/\n1:name=systemd:/\n4:memory:/a\n"));
    match layout::parse(mounts, own) {
        CgroupLayout::V1 { hierarchies, .. } => {
            assert!(!hierarchies.is_empty() && hierarchies.len() <= own.lines().count());
            assert!(hierarchies.iter().all(|h| !h.controllers.is_empty()));
        }
        CgroupLayout::V2 { own, .. } => assert!(!own.is_empty()),
        CgroupLayout::None => {}
    }
}

/// Control files, each as `name NUL content NUL`: read as the statistics of a container on either version.
///
/// # Panics
/// When the files cannot be written.
pub fn cgroup_files(data: &[u8]) {
    const NAMES: [&str; 12] = [
        "cpu.stat",
        "memory.current",
        "memory.max",
        "memory.stat",
        "io.stat",
        "pids.current",
        "cpuacct.usage",
        "memory.usage_in_bytes",
        "memory.limit_in_bytes",
        "blkio.throttle.io_service_bytes",
        "memory.events",
        "cgroup.procs",
    ];
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("make a directory");
    for (at, content) in data.split(|b| *b == 0).enumerate() {
        let name = NAMES[at % NAMES.len()];
        std::fs::write(dir.path().join(name), content).expect("write a file");
    }
    for controllers in [&[""][..], &["cpu", "cpuacct", "memory", "pids", "blkio"]] {
        let paths: Paths = controllers.iter().map(|c| ((*c).to_owned(), dir.path().to_path_buf())).collect();
        let _ = stats(&paths);
        let _ = onggi_cgroup::oom_count(&paths);
        let _ = onggi_cgroup::pids(&paths);
    }
}

/// `state.json`: what is read is written the same way.
///
/// # Panics
/// When it is not.
pub fn state(data: &[u8]) {
    let Ok(state) = serde_json::from_slice::<SandboxState>(data) else { return };
    let text = serde_json::to_vec(&state).expect("a state is JSON");
    let again: SandboxState = serde_json::from_slice(&text).expect("and can be read again");
    assert_eq!(serde_json::to_vec(&again).expect("a state is JSON"), text);
}

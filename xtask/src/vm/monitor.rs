//! qemu's monitor, and what it can still say of a guest that says nothing itself.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use crate::Outcome;

/// qemu answers at once unless its own thread hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kernel's options that let it tell, when it is interrupted ([`interrupt`]), what it was doing: a panic on an
/// interrupt without a reason, which prints all tasks, memory and each processor's stack
/// (Documentation/admin-guide/kernel-parameters.txt: `unknown_nmi_panic`, `panic_print`).
pub(super) const TELLING: &str = "unknown_nmi_panic panic_print=0x43";

/// For a qemu whose monitor is there.
pub(super) fn arguments(socket: &Path) -> Vec<String> {
    vec!["-qmp".to_owned(), format!("unix:{},server=on,wait=off", socket.display())]
}

/// Where each processor of the guest is, and then an interrupt that cannot be masked: the kernel, if anything of it
/// still works, writes what it was doing to the console, and the machine ends.
pub(super) fn interrupt(socket: &Path) -> Outcome<String> {
    let mut monitor = Monitor::connect(socket)?;
    let status = monitor.call("query-status", &json!({}))?;
    let registers = monitor.call("human-monitor-command", &json!({ "command-line": "info registers -a" }))?;
    let places: Vec<&str> = registers
        .as_str()
        .unwrap_or_default()
        .lines()
        .filter(|line| ["CPU#", "RIP=", "CR2="].iter().any(|word| line.contains(word)))
        .collect();
    monitor.call("inject-nmi", &json!({}))?;
    Ok(format!("qemu: {}\n{}", status["status"], places.join("\n")))
}

/// qemu's monitor: a line of JSON for each command and answer.
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// To a qemu that was started with [`arguments`].
    pub(super) fn connect(socket: &Path) -> Outcome<Monitor> {
        let stream = UnixStream::connect(socket).map_err(|e| format!("connect to {}: {e}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|e| format!("wait for qemu's monitor: {e}"))?;
        let mut monitor = Monitor { stream: BufReader::new(stream) };
        monitor.line()?;
        monitor.call("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    fn line(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).map_err(|e| format!("read from qemu's monitor: {e}"))?;
        if length == 0 {
            return Err("qemu's monitor ended".to_owned());
        }
        serde_json::from_str(&line).map_err(|e| format!("qemu's monitor says {line:?}: {e}"))
    }

    /// What a command returns (docs/interop/qemu-qmp-ref of qemu).
    pub(super) fn call(&mut self, name: &str, arguments: &Value) -> Outcome<Value> {
        let text = format!("{}\n", json!({ "execute": name, "arguments": arguments }));
        self.stream.get_mut().write_all(text.as_bytes()).map_err(|e| format!("write to qemu's monitor: {e}"))?;
        loop {
            let mut answer = self.line()?;
            if !answer["error"].is_null() {
                return Err(format!("qemu's monitor, {name}: {}", answer["error"]["desc"]));
            }
            // Events come in between.
            if !answer["return"].is_null() {
                return Ok(answer["return"].take());
            }
        }
    }
}

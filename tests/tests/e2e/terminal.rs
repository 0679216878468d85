//! A real terminal (tmux): what is typed, and what is on the screen.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use onggi_tests::eventually;

/// A terminal of its own.
pub(crate) struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// 110 columns, 30 lines; the shell command is its only window. `dir` has its socket.
    pub(crate) fn run(dir: &Path, command: &str) -> Terminal {
        let terminal = Terminal { socket: dir.join("tmux") };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "110", "-y", "30", command]);
        terminal
    }

    /// tmux ARGUMENTS; its output.
    pub(crate) fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(arguments).env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        let out = command.output().expect("start tmux");
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Presses a key by tmux's name.
    pub(crate) fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a line and Enter.
    pub(crate) fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    /// Waits until the screen has all of these.
    #[track_caller]
    pub(crate) fn shows(&self, what: &[&str]) -> String {
        eventually(&format!("the screen shows {what:?}; now:\n{}", self.screen()), || {
            let screen = self.screen();
            what.iter().all(|part| screen.contains(part)).then_some(screen)
        })
    }

    /// What is on it.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

//! One bash, into which a page is typed.
//!
//! Its standard input is a pipe that bash reads byte by byte, so a shell that a command starts (`unshare … bash`) reads on
//! where the first one stopped, and `exit` comes back, as in a real terminal. After each command the shell that has the
//! terminal by then is asked to print a mark; what came before the mark is the command's output, both streams in order.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// A shell that buffers its input loses the request for a mark when it ends; so it is asked again that often.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// A running shell; it and what it left in the foreground end with this value.
pub struct Terminal {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    printed: Vec<u8>,
    typed: u32,
}

impl Terminal {
    /// Starts the shell.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn open(mut shell: Command) -> Terminal {
        let (mut reader, writer) = std::io::pipe().expect("make a pipe");
        let error = writer.try_clone().expect("duplicate a descriptor");
        shell.stdin(Stdio::piped()).stdout(writer).stderr(error);
        let mut child = shell.spawn().expect("start a shell");
        drop(shell);
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = reader.read(&mut buffer) {
                if n == 0 || sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        Terminal { child, input, output, printed: Vec::new(), typed: 0 }
    }

    /// Types a command and waits until it has ended; what it printed.
    ///
    /// # Errors
    /// When it takes too long or when the terminal is closed, with what was printed so far.
    pub fn type_line(&mut self, command: &str, patience: Duration) -> Result<String, String> {
        self.typed += 1;
        let mark = format!("@@lab {}@@", self.typed);
        // `$?` is the command's for the next one. The mark's halves are apart, so that no echo of this line is taken for it.
        let ask = format!("__s=$?; echo \"@@lab \"\"{}@@\"; (exit $__s)\n", self.typed);
        self.write(&format!("{command}\n{ask}"))?;
        let (begin, mut asked) = (Instant::now(), Instant::now());
        loop {
            let text = String::from_utf8_lossy(&self.printed).into_owned();
            if let Some((before, after)) = text.split_once(&mark) {
                self.printed = after.trim_start_matches('\n').into();
                return Ok(without_marks(before));
            }
            match self.output.recv_timeout(Duration::from_millis(50)) {
                Ok(bytes) => self.printed.extend(bytes),
                Err(RecvTimeoutError::Timeout) => {}
                // The terminal's own shell.
                Err(RecvTimeoutError::Disconnected) if command == "exit" => return Ok(text),
                Err(RecvTimeoutError::Disconnected) => return Err(format!("the shell has ended: {text}")),
            }
            if begin.elapsed() > patience {
                return Err(format!("takes longer than {patience:?}; printed so far: {text}"));
            }
            if command == "exit" && asked.elapsed() > ASK_AGAIN {
                asked = Instant::now();
                self.write(&ask)?;
            }
        }
    }

    fn write(&mut self, text: &str) -> Result<(), String> {
        let input = self.input.as_mut().ok_or("the terminal is closed")?;
        input.write_all(text.as_bytes()).map_err(|error| format!("the shell does not read: {error}"))
    }
}

/// Marks that were asked for twice.
fn without_marks(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("@@lab ")).map(|line| format!("{line}\n")).collect()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The end of its input ends a shell and every shell within it. Already gone is as good.
        self.input = None;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

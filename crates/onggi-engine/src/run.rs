//! `run`: create, then start.

use std::os::unix::net::UnixStream;

use onggi_spec::{ContainerRequest, monitor::ExitRecord, progress::Progress};
use onggi_state::ContainerRecord;
use onggi_sys::trace;

use crate::{
    AttachStream, Engine, EngineError, IdFile, PullOptions,
    attach::AttachEvent,
    launch::Launched,
    process::{PidFd, ProcessHandle},
    start::Client,
};

/// How to run.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Return as soon as the workload runs.
    pub detach: bool,
    /// Columns and rows of the caller's terminal: the size that a `-t` container starts with.
    pub terminal_size: Option<(u16, u16)>,
    /// How a missing image is pulled.
    pub pull: PullOptions,
    /// Is given the container's id.
    pub id_file: Option<IdFile>,
    /// A container that cannot be started is removed, also without `--rm`.
    pub remove_failed: bool,
}

/// A container whose workload runs.
#[derive(Debug)]
pub struct Started {
    /// The container.
    pub record: ContainerRecord,
    /// Pid of its first process.
    pub pid: i32,
    /// Its stdio, unless detached.
    pub attach: Option<AttachStream>,
    /// Its first process, for signals.
    pub process: Option<ProcessHandle>,
    /// The caller started it, and did not only join it.
    pub owner: bool,
    /// One-line notes for the user, such as a limit that the host does not let us raise.
    pub notes: Vec<String>,
}

impl Engine {
    /// Makes a container and starts it.
    ///
    /// # Errors
    /// The image cannot be had, the request is impossible here, or the workload cannot be started. A
    /// container made with `--rm` is gone again then; another one stays, as created.
    pub fn run(
        &self,
        request: &ContainerRequest,
        options: &RunOptions,
        progress: &dyn Progress,
    ) -> Result<Started, EngineError> {
        self.recover()?;
        let resolve = || format!("resolve {}", crate::create::source_name(&request.image));
        let source = trace::step("engine", resolve, || self.resolve_source(request, &options.pull, progress))?;
        let create = || "reserve id and name, lay out the disk".to_owned();
        let (record, intent) = trace::step("engine", create, || self.create_from(request, &source))?;
        options.id_file.as_ref().map_or(Ok(()), |file| file.write(&record.id))?;
        let (ours, client) =
            if options.detach { (None, Client::default()) } else { foreground(options.terminal_size)? };
        let launched = self.launch_container(&record, client);
        if launched.is_err() && (request.remove || options.remove_failed) {
            self.erase(&record.id)?;
        }
        intent.complete()?;
        let Launched { pid, notes: of_runtime } = launched?;
        let process = PidFd::open(pid)?.map(ProcessHandle::new);
        let mut notes = self.notes(request);
        notes.extend(of_runtime);
        Ok(Started { record, pid, attach: ours, process, owner: true, notes })
    }

    /// Called by a foreground client after `Exit`: tells the monitor that nobody else need clean up, and
    /// cleans up.
    ///
    /// # Errors
    /// A step of the clean-up failed.
    pub fn finish(&self, record: &ContainerRecord, stream: &mut AttachStream) -> Result<(), EngineError> {
        // A monitor that is gone already has nothing to be told.
        let told = stream.will_clean_up();
        self.await_monitor(record)?;
        match told {
            Ok(()) => self.after_exit(record),
            Err(_) => self.recover(),
        }
    }

    /// What a foreground client reports when the stream ended without `Exit`.
    ///
    /// # Errors
    /// The record of the exit cannot be read.
    pub fn lost(&self, record: &ContainerRecord) -> Result<Option<ExitRecord>, EngineError> {
        self.await_monitor(record)?;
        let exit = self.exit_record(&record.id)?;
        self.recover()?;
        Ok(exit)
    }

    /// Runs an attached stream to its end without showing anything; for tests and for `wait`.
    ///
    /// # Errors
    /// The stream broke.
    pub fn drain(stream: &mut AttachStream) -> std::io::Result<Option<ExitRecord>> {
        loop {
            match stream.next_event()? {
                AttachEvent::Exit(exit) => return Ok(Some(exit)),
                AttachEvent::Closed => return Ok(None),
                AttachEvent::Stdout(_) | AttachEvent::Stderr(_) => {}
            }
        }
    }
}

/// Our end of a container's stream, and the client that its monitor is given.
pub(crate) fn foreground(terminal_size: Option<(u16, u16)>) -> Result<(Option<AttachStream>, Client), EngineError> {
    let (ours, theirs) = UnixStream::pair().map_err(|source| EngineError::MakeStream { source })?;
    Ok((Some(AttachStream::new(ours)), Client { stream: Some(theirs.into()), terminal_size }))
}

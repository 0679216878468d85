//! `stop`, `kill` and `wait`: signals by pidfd, never by a bare number.

use std::{
    fs::{File, TryLockError},
    time::{Duration, Instant},
};

use onggi_spec::{
    ContainerId,
    monitor::{ExitRecord, SandboxState},
    request::StopChoice,
};
use onggi_state::{ContainerRecord, StateError, files::Lock};

use onggi_sys::trace;

use crate::{Engine, EngineError, Status, failpoint, freeze, process::PidFd, status};

/// Docker's patience between the stop signal and SIGKILL.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A process in uninterruptible sleep may outlive SIGKILL for this long before we say so.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often `wait` looks at a container that is being started.
const STARTING_INTERVAL: Duration = Duration::from_millis(10);
/// How long a removal waits for those who read how the container ended, and how often it looks.
const READERS_TIMEOUT: Duration = Duration::from_secs(1);
const READERS_INTERVAL: Duration = Duration::from_millis(1);
/// How often, and how far apart, it is looked whether the freezer is free: another command may look at its intent for a moment.
const FREEZER_TRIES: usize = 50;
const FREEZER_INTERVAL: Duration = Duration::from_millis(2);
/// SIGKILL.
pub(crate) const SIGKILL: i32 = 9;
/// SIGTERM.
const SIGTERM: i32 = 15;

/// How to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOptions {
    /// How long to wait before SIGKILL; what the container was made with, else ten seconds, when absent.
    pub timeout: Option<Duration>,
    /// The signal; what the container was made with, the image's, else SIGTERM, when absent.
    pub signal: Option<i32>,
}

impl StopOptions {
    /// Longer than anybody waits, and short enough for every clock: a hundred years.
    pub const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    fn deadline(&self, choice: &StopChoice) -> Instant {
        Instant::now() + self.patience(choice).min(Self::FOR_EVER)
    }

    /// What the command says, what the container was made with, or ten seconds.
    pub(crate) fn patience(&self, choice: &StopChoice) -> Duration {
        let own = choice.timeout.map(|seconds| u64::try_from(seconds).map_or(Self::FOR_EVER, Duration::from_secs));
        self.timeout.or(own).unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// A container that was asked to end.
#[derive(Debug)]
pub struct Stopping {
    record: ContainerRecord,
    /// Absent when it did not run.
    process: Option<PidFd>,
    deadline: Instant,
}

impl Engine {
    /// Asks a container to end and kills it when it does not in time. A stopped one is left as it is.
    ///
    /// # Errors
    /// No such container, or it does not end even when killed.
    pub fn stop(&self, name: &str, options: &StopOptions) -> Result<ContainerRecord, EngineError> {
        let stopping = self.begin_stop(name, options)?;
        self.finish_stop(stopping)
    }

    /// Asks a container to end. Several are asked first and then waited for, so that their time runs together.
    ///
    /// # Errors
    /// No such container.
    pub fn begin_stop(&self, name: &str, options: &StopOptions) -> Result<Stopping, EngineError> {
        self.recover()?;
        self.ask_to_end(self.find(name)?, options)
    }

    /// [`Engine::begin_stop`] for a container at hand.
    pub(crate) fn ask_to_end(&self, record: ContainerRecord, options: &StopOptions) -> Result<Stopping, EngineError> {
        let process = self.process(&record)?;
        if let Some(process) = &process {
            let signal = options.signal.map_or_else(|| self.stop_signal(&record), Ok)?;
            self.note_asked(&record.id, "stop", signal);
            self.send(&record, process, signal)?;
        }
        failpoint::hit("stop.signalled");
        let deadline = options.deadline(&record.request.stop);
        Ok(Stopping { record, process, deadline })
    }

    /// Waits for a container that was asked to end; kills it when its time is over.
    ///
    /// # Errors
    /// It does not end even when killed.
    pub fn finish_stop(&self, stopping: Stopping) -> Result<ContainerRecord, EngineError> {
        let Stopping { record, process, deadline } = stopping;
        let Some(process) = process else { return Ok(record) };
        if !trace::step("engine", || "wait for the end".into(), || process.ended_before(deadline))? {
            self.note_asked(&record.id, "stop", SIGKILL);
            self.send(&record, &process, SIGKILL)?;
            if !process.ended_before(Instant::now() + KILL_TIMEOUT)? {
                let name = record.name.to_string();
                return Err(EngineError::DidNotStop { name, seconds: KILL_TIMEOUT.as_secs() });
            }
        }
        failpoint::hit("stop.exited");
        self.await_monitor(&record)?;
        self.after_exit(&record)?;
        Ok(record)
    }

    /// Sends a signal to the first process of a running container.
    ///
    /// # Errors
    /// No such container, or it does not run.
    pub fn kill(&self, name: &str, signal: i32) -> Result<ContainerRecord, EngineError> {
        let record = self.find(name)?;
        match self.process(&record)? {
            Some(process) => {
                self.note_asked(&record.id, "kill", signal);
                match self.ends_a_pause(&record, signal)? {
                    true => self.send(&record, &process, signal)?,
                    false => process.signal(signal)?,
                }
                // What is killed is gone afterwards: it can be removed, or started again.
                if signal == SIGKILL && process.ended_before(Instant::now() + KILL_TIMEOUT)? {
                    self.await_monitor(&record)?;
                    self.after_exit(&record)?;
                }
            }
            None => {
                let state = self.status(&record.id)?.name();
                let name = record.name.to_string();
                return Err(EngineError::WrongState {
                    verb: "kill",
                    name,
                    state,
                    hint: "only a running container has a process",
                });
            }
        }
        Ok(record)
    }

    /// Sends a signal, and lets a paused container go on: it would not see it otherwise, and on cgroup version 1 not even
    /// SIGKILL ends what stands still. One that a `commit` has stopped goes on by itself in a moment.
    pub(crate) fn send(&self, record: &ContainerRecord, process: &PidFd, signal: i32) -> Result<(), EngineError> {
        trace::step("engine", || format!("send signal {signal}"), || process.signal(signal))?;
        for _ in 0..FREEZER_TRIES {
            if !self.status(&record.id)?.is_paused() {
                break;
            }
            match self.intents()?.try_begin(&freeze::intent_name(&record.id))? {
                Some(intent) => {
                    let gone_on = self.let_go(&record.id);
                    intent.complete()?;
                    return gone_on;
                }
                None => std::thread::sleep(FREEZER_INTERVAL),
            }
        }
        Ok(())
    }

    /// As Docker: a container for which no stop signal was chosen is let go on by any signal, another one by that and by SIGKILL.
    pub(crate) fn ends_a_pause(&self, record: &ContainerRecord, signal: i32) -> Result<bool, EngineError> {
        let stop = self.stop_signal(record)?;
        Ok(signal == SIGKILL || stop == SIGTERM || signal == stop)
    }

    /// Waits until the container has ended and returns how. One that has ended returns at once.
    ///
    /// # Errors
    /// No such container.
    pub fn wait(&self, name: &str) -> Result<ExitRecord, EngineError> {
        let record = self.find(name)?;
        let _kept = self.keep_directory(&record);
        loop {
            self.await_monitor(&record)?;
            match self.status(&record.id)? {
                Status::Exited(exit) => return Ok(exit),
                Status::Running { .. } => {}
                Status::Created if self.state()?.container_by_id(&record.id)?.is_none() => {
                    return Err(StateError::ContainerNotFound { reference: name.to_owned() }.into());
                }
                // Being started: its end is still to come. Otherwise nothing runs that could end, as with Docker.
                Status::Created if self.intents()?.is_held(record.id.as_str())? => {
                    std::thread::sleep(STARTING_INTERVAL)
                }
                Status::Created => return Ok(never_started()),
            }
        }
    }

    /// As long as the file lives, a removal waits a moment ([`Engine::await_readers`]): how a container ended is written in its
    /// directory, and whoever waits for the end of one of `--rm` is woken when its removal begins.
    fn keep_directory(&self, record: &ContainerRecord) -> Option<File> {
        let dir = File::open(self.paths.bundle(&record.id)).ok()?;
        dir.lock_shared().ok().map(|()| dir)
    }

    /// Waits until nobody reads how the container ended, or until they have had time enough: they may have been stopped.
    /// Nobody begins to as long as the file lives.
    pub(crate) fn await_readers(&self, id: &ContainerId) -> Option<File> {
        let dir = File::open(self.paths.bundle(id)).ok()?;
        let patience = Instant::now() + READERS_TIMEOUT;
        while let Err(TryLockError::WouldBlock) = dir.try_lock() {
            if Instant::now() > patience {
                break;
            }
            std::thread::sleep(READERS_INTERVAL);
        }
        Some(dir)
    }

    /// The first process of a running container, opened so that its pid cannot be reused under us.
    pub(crate) fn process(&self, record: &ContainerRecord) -> Result<Option<PidFd>, EngineError> {
        Ok(self.living(record)?.map(|(process, _)| process))
    }

    /// That process, and what the runtime wrote about its container.
    pub(crate) fn living(&self, record: &ContainerRecord) -> Result<Option<(PidFd, SandboxState)>, EngineError> {
        match self.sandbox_state(&record.id)? {
            Some(state) if self.monitor_alive(&record.id)? => Ok(open_process(&state)?.map(|process| (process, state))),
            _ => Ok(None),
        }
    }

    /// Blocks until the monitor has written the exit record and is gone.
    pub(crate) fn await_monitor(&self, record: &ContainerRecord) -> Result<(), EngineError> {
        // Made by nobody who only waits: the directory may be on its way out.
        Ok(Lock::await_free(&self.paths.run_dir(&record.id).join("monitor.lock"))?)
    }

    pub(crate) fn stop_signal(&self, record: &ContainerRecord) -> Result<i32, EngineError> {
        let text = match &record.request.stop.signal {
            Some(own) => Some(own.clone()),
            None => self.image_config(record)?.and_then(|c| c.config.stop_signal),
        };
        // What an image says is data: a signal that does not exist is not one (I8).
        Ok(text.and_then(|t| onggi_spec::signal::parse_signal(&t).ok()).unwrap_or(SIGTERM))
    }
}

/// A container that nobody has started has nothing to wait for.
fn never_started() -> ExitRecord {
    ExitRecord::default()
}

fn open_process(state: &SandboxState) -> Result<Option<PidFd>, EngineError> {
    let Some(process) = PidFd::open(state.pid)? else { return Ok(None) };
    // Checked after opening: from here on the descriptor means this process and no other.
    Ok(status::process_lives(state)?.then_some(process))
}

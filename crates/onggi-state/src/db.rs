//! `state.db`: opening, migration, transactions and the translation of SQLite's failures.
//!
//! ```text
//! <root>/            0711 (root) or 0700, made here when missing
//!   state.db         0600, WAL; every process writes it, in IMMEDIATE transactions
//!   state.new.*      a database that is being made; linked to state.db when it is whole
//!   state.db-wal     kept on close: the next opening replays it; a crash leaves it too. A writer that finds it long
//!                    empties it
//!   state.db-shm     index of the WAL
//!   state.reserve    128 KiB of nothing, given up when the disk is full so that containers can still be
//!                    removed; made again by a later writer
//! ```
//!
//! Opening must stay below a millisecond: no schema work when `user_version` matches, and no
//! checkpoint on close. Housekeeping calls [`State::checkpoint`].

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, config::DbConfig};
use serde::{Serialize, de::DeserializeOwned};

use crate::StateError;

/// The schema, one step per version: step `n` leads from `user_version` n to n + 1.
/// A step that has been released is never edited.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE images (
        id TEXT PRIMARY KEY,               -- digest of the image configuration
        manifest_digest TEXT NOT NULL,
        chain_ids TEXT NOT NULL,           -- JSON array, lowest layer first
        layer_digests TEXT NOT NULL,       -- JSON array, as in the manifest
        size INTEGER NOT NULL,
        created INTEGER NOT NULL,          -- unix ns
        pulled_at INTEGER NOT NULL         -- unix ns
    ) WITHOUT ROWID;
    CREATE TABLE names (
        name TEXT PRIMARY KEY,             -- normalised reference
        image_id TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
        manifest_digest TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX names_by_image ON names(image_id);
    CREATE TABLE layers (
        chain_id TEXT PRIMARY KEY,
        diff_id TEXT NOT NULL,
        parent TEXT,
        size INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        image_id TEXT,
        created_at INTEGER NOT NULL,       -- unix ns
        record TEXT NOT NULL               -- ContainerRecord as JSON
    );
    CREATE INDEX containers_by_image ON containers(image_id);
",
    "
    CREATE TABLE image_uses (
        image_id TEXT PRIMARY KEY,         -- outlives the image, so that a new pull is not the oldest
        used_at INTEGER NOT NULL           -- unix ns; when its last container was removed
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE pulls (
        name TEXT PRIMARY KEY REFERENCES names(name) ON DELETE CASCADE,
        parts TEXT NOT NULL                -- PulledParts as JSON: what the pull of that name found
    ) WITHOUT ROWID;
",
];

/// `application_id` of our databases ("Ongi"): another program's file is refused, not migrated.
const APPLICATION_ID: i64 = 0x4f6e_6769;

/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Length of the WAL after which a commit copies it back and empties it. Short, because the next opening replays it.
/// SQLite's own way is of no use here: it begins the WAL anew only while somebody who knows that all of it was copied has
/// the database open. Our processes come one after the other, each makes the index of the WAL again and appends, so that the WAL
/// would grow for ever, and with it the time that every command takes.
const LONG_WAL: u64 = 50 * 4120;

/// Size of the reserve: a checkpoint of the WAL and some transactions fit.
const RESERVE: u64 = 128 * 1024;
/// What must be left of it to take back what was written last: the pages that this adds to the database, and those that the
/// removal writes.
const LEAST_RESERVE: u64 = 48 * 1024;

/// Power-loss promise of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Survives a crash of the program; the last commits may be lost in a power cut.
    Normal,
    /// An acknowledged commit survives a power cut.
    Full,
}

/// The database of one store. Any number of processes may have one open.
#[derive(Debug)]
pub struct State {
    conn: Connection,
    path: PathBuf,
    /// How the connection is set up for writing; readers spare themselves that.
    writing: Option<Sync>,
}

impl State {
    /// Opens `<root>/state.db`, making directory and schema when they are missing.
    ///
    /// # Errors
    /// [`StateError::Open`], [`StateError::Damaged`], [`StateError::Newer`], [`StateError::Busy`].
    pub fn open(root: &Path) -> Result<Self, StateError> {
        Self::open_filled(root, |_| Ok(()))
    }

    /// As [`Self::open`]. A database that has to be made is first filled with what the store has already, as its own was lost: nobody sees
    /// it before.
    ///
    /// # Errors
    /// As [`Self::open`], and what `fill` fails with.
    pub fn open_filled(
        root: &Path,
        fill: impl FnOnce(&mut Self) -> Result<(), StateError>,
    ) -> Result<Self, StateError> {
        let path = root.join("state.db");
        make_root(root).map_err(|source| StateError::Open { path: root.to_owned(), source })?;
        if !path.exists() {
            make_database(&path, fill)?;
        }
        let conn = connect(&path).map_err(|e| translate("open the state database", &path, e))?;
        let mut state = Self { conn, path, writing: None };
        state.migrate()?;
        Ok(state)
    }

    /// Copies the WAL back into the database and empties it. For housekeeping: it costs two syncs. Readers or
    /// writers at work make it a partial one, which is no error.
    pub fn checkpoint(&self) -> Result<(), StateError> {
        self.conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|e| self.fail("checkpoint the state database", e))
    }

    /// Empties a WAL that has become long, unless somebody else is at work, who would have to be waited for.
    /// What it was to hold is committed already, so that a failure is none of the caller's.
    fn shorten_wal(&self) {
        let long = fs::metadata(suffixed(&self.path, "-wal")).is_ok_and(|wal| wal.len() > LONG_WAL);
        if long && self.conn.busy_timeout(Duration::ZERO).is_ok() {
            let _ = self.checkpoint();
            let _ = self.conn.busy_timeout(BUSY_TIMEOUT);
        }
    }

    /// Takes the lock of writers without waiting, and writes nothing.
    pub(crate) fn try_lock_writers(&self) -> bool {
        if self.conn.busy_timeout(Duration::ZERO).is_err() {
            return false;
        }
        let locked = self.conn.execute_batch("BEGIN IMMEDIATE").is_ok();
        let _ = self.conn.busy_timeout(BUSY_TIMEOUT);
        locked
    }

    /// Gives it back.
    pub(crate) fn unlock_writers(&self) -> rusqlite::Result<()> {
        self.conn.execute_batch("ROLLBACK")
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`Self::write`], for what has to be taken back when something after it fails: on a full disk it is refused unless
    /// room is left for that.
    pub(crate) fn write_revocably<T>(
        &mut self,
        operation: &'static str,
        sync: Sync,
        mut body: impl FnMut(&Transaction<'_>, &Path) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let reserve = reserve(&self.path);
        keep_reserve(&reserve);
        // Only of a full disk it is the reserve that says so.
        let kept = || {
            fs::metadata(&reserve).is_ok_and(|found| found.len() >= LEAST_RESERVE)
                || !extend_reserve(&reserve, LEAST_RESERVE).is_err_and(|e| is_full(&e))
        };
        // Without one, what the WAL holds is the only room.
        if !(kept() || self.checkpoint().is_ok() && kept()) {
            return Err(StateError::DiskFull { operation, path: self.path.clone() });
        }
        match self.write_once(operation, sync, &mut body) {
            Err(StateError::DiskFull { .. }) if self.give_up_reserve() && kept() => {
                self.write_once(operation, sync, body)
            }
            result => result,
        }
    }

    /// Runs `body` in one `IMMEDIATE` transaction and commits. On a full disk it is tried once more, in the
    /// room that the reserve and a checkpoint make.
    pub(crate) fn write<T>(
        &mut self,
        operation: &'static str,
        sync: Sync,
        mut body: impl FnMut(&Transaction<'_>, &Path) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        match self.write_once(operation, sync, &mut body) {
            Err(StateError::DiskFull { .. }) if self.give_up_reserve() => self.write_once(operation, sync, body),
            result => result,
        }
    }

    fn write_once<T>(
        &mut self,
        operation: &'static str,
        sync: Sync,
        mut body: impl FnMut(&Transaction<'_>, &Path) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let path = self.path.clone();
        let fail = |e| translate(operation, &path, e);
        if self.writing != Some(sync) {
            prepare_writing(&self.conn, sync).map_err(fail)?;
            keep_reserve(&reserve(&self.path));
            self.writing = Some(sync);
        }
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
        let value = body(&tx, &path)?;
        tx.commit().map_err(fail)?;
        self.shorten_wal();
        Ok(value)
    }

    /// True when that may have made room.
    fn give_up_reserve(&self) -> bool {
        let given = fs::remove_file(reserve(&self.path)).is_ok();
        self.checkpoint().is_ok() || given
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(crate) fn fail(&self, operation: &'static str, e: rusqlite::Error) -> StateError {
        translate(operation, &self.path, e)
    }

    /// Gives a database under a private name its journal mode and schema.
    fn make(path: &Path, fill: impl FnOnce(&mut Self) -> Result<(), StateError>) -> Result<(), StateError> {
        make_file(path).map_err(|source| StateError::Open { path: path.to_owned(), source })?;
        let conn = connect(path).map_err(|e| translate("make the state database", path, e))?;
        // Closing must leave one whole file, without a WAL beside it.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(|e| translate("make the state database", path, e))?;
        let mut state = Self { conn, path: path.to_owned(), writing: None };
        state.migrate()?;
        fill(&mut state)?;
        // Closing would keep a failure to itself, and the file is to be whole without what it left in the WAL.
        let fail = |e| translate("make the state database", path, e);
        let busy =
            state.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map_err(fail)?;
        if busy != 0 {
            return Err(StateError::Busy { operation: "make the state database" });
        }
        state.conn.close().map_err(|(_, e)| translate("make the state database", path, e))
    }

    fn migrate(&mut self) -> Result<(), StateError> {
        // The parts of the answer are read one after the other, and another process may make the schema in between;
        // it does so once, in one commit, so a second look is consistent.
        let looked = checked_version(&self.conn, &self.path);
        let version = looked.or_else(|_| checked_version(&self.conn, &self.path))?;
        if version == MIGRATIONS.len() {
            return Ok(());
        }
        // Remembered in the file, so only a new one needs it.
        self.conn
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .map_err(|e| self.fail("migrate the state database", e))?;
        self.write("migrate the state database", Sync::Full, |tx, path| {
            let fail = |e| translate("migrate the state database", path, e);
            // Read again: another process may have migrated since.
            let found = checked_version(tx, path)?;
            for step in &MIGRATIONS[found..] {
                tx.execute_batch(step).map_err(fail)?;
            }
            tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
            tx.pragma_update(None, "user_version", MIGRATIONS.len() as i64).map_err(fail)
        })
    }
}

/// The schema version, after the checks that the file is ours and not newer than we are.
fn checked_version(conn: &Connection, path: &Path) -> Result<usize, StateError> {
    let pragma = |name: &str| {
        conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(|e| translate("read the schema version", path, e))
    };
    let (found, app) = (pragma("user_version")?, pragma("application_id")?);
    let damaged = |detail: String| StateError::Damaged { path: path.to_owned(), detail };
    match (app, found) {
        (0, 0) if is_empty(conn, path)? => Ok(0),
        (APPLICATION_ID, v) if v > MIGRATIONS.len() as i64 => {
            Err(StateError::Newer { path: path.to_owned(), found: v, supported: MIGRATIONS.len() as i64 })
        }
        (APPLICATION_ID, v) if v > 0 => Ok(v as usize),
        (APPLICATION_ID, v) => Err(damaged(format!("schema version {v}"))),
        (other, _) => Err(damaged(format!("application id {other:#x} is not Onggi's"))),
    }
}

fn is_empty(conn: &Connection, path: &Path) -> Result<bool, StateError> {
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
        .map(|n| n == 0)
        .map_err(|e| translate("read the schema version", path, e))
}

/// 0711 for root, so that a container in a user namespace can reach its own layers below; else 0700.
fn make_root(root: &Path) -> io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(root)
}

/// Makes the database under a name of its own and links it to `path` when it is whole: nobody ever opens one that is
/// half made, whose change to WAL mode would meet other openers (SQLITE_BUSY without a wait).
fn make_database(path: &Path, fill: impl FnOnce(&mut State) -> Result<(), StateError>) -> Result<(), StateError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let private = path.with_extension(format!("new.{}.{number}", std::process::id()));
    let open = |source| StateError::Open { path: path.to_owned(), source };
    let made = State::make(&private, fill).and_then(|()| match fs::hard_link(&private, path) {
        // Another process was faster; its is as good.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(open),
    });
    for left in [private.clone(), suffixed(&private, "-wal"), suffixed(&private, "-shm"), reserve(&private)] {
        // Most of them do not exist.
        let _ = fs::remove_file(left);
    }
    made
}

pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// SQLite would make the file with the umask's mode; ours is private from its first moment.
fn make_file(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // Without a checkpoint on close SQLite also leaves the WAL in place (persist-WAL).
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    Ok(conn)
}

fn prepare_writing(conn: &Connection, sync: Sync) -> rusqlite::Result<()> {
    let level = match sync {
        Sync::Normal => "NORMAL",
        Sync::Full => "FULL",
    };
    conn.pragma_update(None, "synchronous", level)?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "foreign_keys", true)
}

fn reserve(database: &Path) -> PathBuf {
    database.with_extension("reserve")
}

/// Makes the reserve as large as it should be. Best effort: on a full disk there is nothing to reserve.
fn keep_reserve(path: &Path) {
    if fs::metadata(path).is_ok_and(|found| found.len() >= RESERVE) {
        return;
    }
    let _ = extend_reserve(path, RESERVE);
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes the reserve at least so large, or leaves it as it was.
fn extend_reserve(path: &Path, size: u64) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let before = file.metadata()?.len();
    let missing = usize::try_from(size.saturating_sub(before)).unwrap_or(0);
    // Written and not only allocated: not every filesystem can do that. At its place, as another process may do the same now.
    let written = file.write_all_at(&vec![0; missing], before);
    if written.is_err() {
        let _ = if before == 0 { fs::remove_file(path) } else { file.set_len(before) };
    }
    written
}

/// SQLite's error as one of ours.
pub(crate) fn translate(operation: &'static str, path: &Path, e: rusqlite::Error) -> StateError {
    /// SQLITE_IOERR_SHMSIZE: the index of the WAL, which is a file beside it, cannot grow.
    const NO_ROOM_FOR_INDEX: i32 = 4874;
    let damaged = |detail: String| StateError::Damaged { path: path.to_owned(), detail };
    if e.sqlite_error().is_some_and(|e| e.extended_code == NO_ROOM_FOR_INDEX) {
        return StateError::DiskFull { operation, path: path.to_owned() };
    }
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StateError::Busy { operation },
        Some(ErrorCode::DiskFull) => StateError::DiskFull { operation, path: path.to_owned() },
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) if is_on_read_only(path) => {
            StateError::ReadOnlyFilesystem { operation, path: path.to_owned() }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StateError::ReadOnly { operation },
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => damaged(e.to_string()),
        // Our SQL is constant: an error in it means tables that are not ours.
        Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::SchemaChanged) => damaged(e.to_string()),
        Some(_) => StateError::Sql { operation, source: e },
        None => damaged(e.to_string()),
    }
}

/// Nobody can write there, whoever asks.
fn is_on_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// A record as JSON text.
pub(crate) fn encode<T: Serialize>(operation: &'static str, value: &T) -> Result<String, StateError> {
    serde_json::to_string(value).map_err(|source| StateError::Encode { operation, source })
}

/// JSON text of a row as a record; what does not parse is damage.
pub(crate) fn decode<T: DeserializeOwned>(path: &Path, table: &str, text: &str) -> Result<T, StateError> {
    serde_json::from_str(text)
        .map_err(|e| StateError::Damaged { path: path.to_owned(), detail: format!("a row of {table}: {e}") })
}

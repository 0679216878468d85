//! Where an archive is written to: a file that appears whole, or a stream.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{FormatError, error::at};
use crate::EngineError;

/// A destination for one archive.
pub(crate) struct Output {
    file: File,
    to: To,
}

enum To {
    /// Renamed to the name at the end; removed when it does not come to that.
    Name { part: PathBuf, name: PathBuf },
    /// A device, a FIFO, or what `/dev/stdout` is: written as it is.
    InPlace,
    /// A nameless file, sent at the end.
    Stream(Box<dyn Write + Send>),
}

impl Output {
    /// A file: it has the name only when it is complete. What is there and is no regular file is written to directly.
    pub(crate) fn file(name: &Path, spool: &Path) -> Result<Self, EngineError> {
        if fs::metadata(name).is_ok_and(|m| !m.is_file()) {
            let out = OpenOptions::new().write(true).open(name).map_err(at("write", name))?;
            return Self::stream(Box::new(out), spool);
        }
        // Beside the file that a link means: the rename replaces that one, not the link.
        let name = fs::canonicalize(name).unwrap_or_else(|_| name.to_owned());
        let dir = match name.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let base = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let part = dir.join(format!(".{base}.{}.part", crate::names::random_id()?.short()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&part);
        match file {
            Ok(file) => Ok(Self { file, to: To::Name { part, name } }),
            // A directory that cannot be written to may hold a file that can.
            Err(_) if name.exists() => {
                let file = OpenOptions::new().read(true).write(true).truncate(true).open(&name);
                Ok(Self { file: file.map_err(at("write", &name))?, to: To::InPlace })
            }
            Err(source) => Err(FormatError::File { action: "write", path: name, source }.into()),
        }
    }

    /// A stream. It gets nothing before the archive is complete.
    pub(crate) fn stream(out: Box<dyn Write + Send>, spool: &Path) -> Result<Self, EngineError> {
        let file = tempfile::tempfile_in(spool).map_err(at("write a temporary file in", spool))?;
        Ok(Self { file, to: To::Stream(out) })
    }

    /// The file that is being written: it can be read and written at any place.
    pub(crate) fn writer(&self) -> Result<File, EngineError> {
        self.file.try_clone().map_err(|source| FormatError::Stream { action: "write the archive", source }.into())
    }

    /// The archive is complete.
    pub(crate) fn complete(mut self) -> Result<(), EngineError> {
        match &mut self.to {
            To::Name { part, name } => {
                let mode = 0o666 & !umask();
                let set =
                    rustix::fs::fchmod(&self.file, rustix::fs::Mode::from_raw_mode(mode)).map_err(io::Error::from);
                set.and_then(|()| fs::rename(&*part, &*name)).map_err(at("write", name))?;
                part.clear();
                Ok(())
            }
            To::InPlace => Ok(()),
            To::Stream(out) => {
                let failed = |source| FormatError::Stream { action: "write the archive", source };
                self.file.rewind().map_err(failed)?;
                // Not io::copy: it would ask splice(2) for pipes of which nobody knows what they are.
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let n = self.file.read(&mut buffer).map_err(failed)?;
                    if n == 0 {
                        break;
                    }
                    out.write_all(&buffer[..n]).map_err(failed)?;
                }
                Ok(out.flush().map_err(failed)?)
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let To::Name { part, .. } = &self.to
            && !part.as_os_str().is_empty()
        {
            // An archive that was not completed; a failure here leaves a file that is named after what it is.
            let _ = fs::remove_file(part);
        }
    }
}

/// The mask of this process, which can only be read by setting it; /proc tells it without.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}

//! Where an archive is written to: a file that appears whole, or a stream.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{FormatError, error::at, part::Part};
use crate::EngineError;

/// A destination for one archive.
pub(crate) enum Output {
    /// Gets its name at the end; nothing stays when it does not come to that.
    Name { part: Part, name: PathBuf },
    /// A file that can be written, in a directory that cannot.
    InPlace(File),
    /// A nameless file, sent at the end: to a device, a FIFO, or what `/dev/stdout` is.
    Stream { file: File, out: Box<dyn Write + Send> },
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
        match Part::beside(&name) {
            Ok(part) => Ok(Self::Name { part, name }),
            // A directory that cannot be written to may hold a file that can.
            Err(_) if name.exists() => {
                let file = OpenOptions::new().read(true).write(true).truncate(true).open(&name);
                Ok(Self::InPlace(file.map_err(at("write", &name))?))
            }
            Err(source) => Err(FormatError::File { action: "write", path: name, source }.into()),
        }
    }

    /// A stream. It gets nothing before the archive is complete.
    pub(crate) fn stream(out: Box<dyn Write + Send>, spool: &Path) -> Result<Self, EngineError> {
        let file = tempfile::tempfile_in(spool).map_err(at("write a temporary file in", spool))?;
        Ok(Self::Stream { file, out })
    }

    /// The file that is being written: it can be read and written at any place.
    pub(crate) fn writer(&self) -> Result<File, EngineError> {
        let file = match self {
            Self::Name { part, .. } => part.file(),
            Self::InPlace(file) | Self::Stream { file, .. } => file,
        };
        file.try_clone().map_err(|source| FormatError::Stream { action: "write the archive", source }.into())
    }

    /// The archive is complete.
    pub(crate) fn complete(self) -> Result<(), EngineError> {
        match self {
            Self::Name { mut part, name } => Ok(part.keep(&name).map_err(at("write", &name))?),
            Self::InPlace(_) => Ok(()),
            Self::Stream { mut file, mut out } => {
                let failed = |source| FormatError::Stream { action: "write the archive", source };
                file.rewind().map_err(failed)?;
                // Not io::copy: it would ask splice(2) for pipes of which nobody knows what they are.
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let n = file.read(&mut buffer).map_err(failed)?;
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

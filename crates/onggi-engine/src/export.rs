//! `export`: a container's root filesystem as one tar archive.

use std::io::Write;

use onggi_storage::diff;
use onggi_sys::trace;

use crate::{
    Engine, EngineError, SaveTo,
    transfer::{FormatError, Output},
};

impl Engine {
    /// Writes everything that the container sees of its own: not what is mounted into it.
    ///
    /// # Errors
    /// No such container, its files cannot be read, or the destination cannot be written.
    pub fn export(&self, name: &str, to: SaveTo) -> Result<(), EngineError> {
        self.recover()?;
        let record = self.find(name)?;
        let trees = self.own_trees(&record, "export")?;
        let write = || match to {
            SaveTo::Stream(out) => {
                let (mut out, _) = diff::write_tree(std::io::BufWriter::with_capacity(1 << 18, out), &trees.new)?;
                Ok(out.flush().map_err(|source| FormatError::Stream { action: "write the archive", source })?)
            }
            SaveTo::Path(path) => {
                let output = Output::file(&path, &self.spool_dir()?)?;
                let buffered = std::io::BufWriter::with_capacity(1 << 18, output.writer()?);
                let (mut out, _) = diff::write_tree(buffered, &trees.new)?;
                out.flush().map_err(|source| FormatError::File { action: "write", path, source })?;
                output.complete()
            }
        };
        trace::step("storage", || "write the tree as an archive".to_owned(), write)
    }
}

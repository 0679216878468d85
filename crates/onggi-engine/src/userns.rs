//! Blocks of host ids for containers with a user namespace of their own: taken at a start, given back by the
//! one clean-up. The lease is a file named after the block, so it is recorded before anything uses it.

use std::path::PathBuf;

use onggi_spec::{ContainerId, IdBlock, UserNamespace};
use onggi_state::{ContainerRecord, files::Leases};

use crate::{Engine, EngineError};

impl Engine {
    fn id_block_dir(&self) -> PathBuf {
        self.paths.runroot.join("id-blocks")
    }

    /// Takes a block for a container that asked for one. Without root the one id of the caller is mapped instead.
    pub(crate) fn take_id_block(&self, record: &ContainerRecord) -> Result<Option<IdBlock>, EngineError> {
        if !self.wants_id_block(record) {
            return Ok(None);
        }
        let leases: Leases<IdBlock> = Leases::at(self.id_block_dir())?;
        for block in IdBlock::all_from(seed(&record.id)) {
            if leases.acquire(block, record.id.as_str())? {
                return Ok(Some(block));
            }
        }
        Err(EngineError::Unsupported {
            what: "a user namespace for the container".into(),
            reason: "every block of ids is in use by a running container".into(),
            hint: "stop a container that runs with --userns auto, or use --userns host".into(),
        })
    }

    /// The block that a start would probably get; nothing is taken.
    pub(crate) fn probable_id_block(&self, record: &ContainerRecord) -> Option<IdBlock> {
        self.wants_id_block(record).then(|| IdBlock::all_from(seed(&record.id)).next()).flatten()
    }

    /// Gives back what the container has. Idempotent.
    pub(crate) fn release_id_block(&self, id: &ContainerId) -> Result<(), EngineError> {
        if !self.id_block_dir().exists() {
            return Ok(());
        }
        let leases: Leases<IdBlock> = Leases::at(self.id_block_dir())?;
        leases.release_all(id.as_str())?;
        Ok(())
    }

    fn wants_id_block(&self, record: &ContainerRecord) -> bool {
        record.request.userns == UserNamespace::Auto && self.rootful()
    }
}

/// The id is random already.
fn seed(id: &ContainerId) -> u64 {
    u64::from_str_radix(id.short(), 16).unwrap_or_default()
}

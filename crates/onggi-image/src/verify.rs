//! A stored blob is read again from the disk: is it still what its name says.

use std::io::{ErrorKind, Read};

use onggi_spec::Digest;
use sha2::{Digest as _, Sha256};

use crate::{
    error::StoreError,
    store::{BlobStore, COPY_BUFFER},
};

impl BlobStore {
    /// True when the blob has the digest that it is named after. One that is not there is not damaged; one that the
    /// disk cannot read any more is.
    ///
    /// # Errors
    /// It exists but cannot be opened.
    pub fn is_sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        let Some(mut file) = self.open_blob(digest)? else { return Ok(true) };
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; COPY_BUFFER];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Digest::from_sha256(&hasher.finalize().into()) == *digest),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
    }
}

//! A registry as a source and as a sink, without the store.

use std::io::{Read, Seek as _, Write as _};

use onggi_image::{Access, Remote, RemoteOptions};
use onggi_spec::{
    Digest, ImageReference,
    image::{Descriptor, media_type},
    progress::Silent,
};

use super::{FormatError, Listed, Raw, Sink, Source, blob::read_error};
use crate::EngineError;

static SILENT: Silent = Silent;

/// One image of a repository.
pub(crate) struct RegistrySource {
    remote: Remote<'static>,
    reference: ImageReference,
}

impl RegistrySource {
    pub(crate) fn new(reference: &ImageReference, options: &RemoteOptions) -> Result<Self, EngineError> {
        let remote = Remote::new(reference, &Access::Pull, options, &SILENT)?;
        Ok(Self { remote, reference: reference.clone() })
    }
}

impl Source for RegistrySource {
    fn images(&mut self) -> Result<Vec<Listed>, EngineError> {
        let document = self.remote.manifest(self.reference.selector())?;
        let known = document.media_type.filter(|t| media_type::ACCEPTED.contains(&t.as_str()));
        let (top, _) = Raw::parse(document.bytes, known.as_deref())?;
        if let Some(expected) = self.reference.digest().filter(|d| **d != top.digest) {
            let (expected, actual, size) = (expected.clone(), top.digest, top.bytes.len() as u64);
            return Err(FormatError::WrongBlob { expected, actual, size }.into());
        }
        Ok(vec![Listed { names: vec![self.reference.to_string()], top }])
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
        if media_type::ACCEPTED.contains(&descriptor.media_type.as_str()) {
            return Ok(self.remote.manifest(descriptor.digest.as_str())?.bytes);
        }
        Ok(self.remote.small_blob(&descriptor.digest)?)
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, EngineError> {
        Ok(Box::new(self.remote.open_blob(descriptor)))
    }
}

/// A repository that one image goes to.
pub(crate) struct RegistrySink {
    remote: Remote<'static>,
    reference: ImageReference,
    mount_from: Vec<String>,
    spool: std::path::PathBuf,
}

impl RegistrySink {
    /// `mount_from`: repositories of the same registry that may have the blobs.
    pub(crate) fn new(
        reference: &ImageReference,
        options: &RemoteOptions,
        mount_from: Vec<String>,
        spool: std::path::PathBuf,
    ) -> Result<Self, EngineError> {
        let access = Access::Push { mount_from: mount_from.clone() };
        let remote = Remote::new(reference, &access, options, &SILENT)?;
        Ok(Self { remote, reference: reference.clone(), mount_from, spool })
    }
}

impl Sink for RegistrySink {
    fn takes_index(&self) -> bool {
        true
    }

    fn expect(&self, top: &Digest) -> Result<(), EngineError> {
        match self.reference.digest() {
            Some(expected) if expected != top => {
                Err(FormatError::OtherManifest { expected: expected.clone(), actual: top.clone() }.into())
            }
            _ => Ok(()),
        }
    }

    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError> {
        Ok(self.remote.blob_size(&descriptor.digest)? == Some(descriptor.size))
    }

    /// A broken upload goes on from where it was, so what comes as a stream is put into a nameless file first; and a
    /// registry sees nothing of a blob that is not what it should be.
    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError> {
        let failed =
            |source| FormatError::File { action: "write a temporary file in", path: self.spool.clone(), source };
        let mut file = tempfile::tempfile_in(&self.spool).map_err(failed)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = content.read(&mut buffer).map_err(read_error)?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).map_err(failed)?;
        }
        file.rewind().map_err(failed)?;
        self.remote.put_blob(&descriptor.digest, descriptor.size, &file, &self.mount_from)?;
        Ok(())
    }

    fn put_document(&mut self, raw: &Raw) -> Result<(), EngineError> {
        self.remote.put_manifest(raw.digest.as_str(), &raw.media_type, &raw.bytes)?;
        Ok(())
    }

    fn image(&mut self, _names: &[String], top: &Raw) -> Result<(), EngineError> {
        let selector = self.reference.tag().unwrap_or(top.digest.as_str());
        self.remote.put_manifest(selector, &top.media_type, &top.bytes)?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

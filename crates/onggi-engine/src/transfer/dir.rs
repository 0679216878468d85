//! skopeo's `dir:`: the files of one image in one directory.
//!
//! ```text
//! version          "Directory Transport Version: 1.1"
//! manifest.json    the manifest, or the index of a multi-platform image
//! <hex>            configuration, layers
//! <hex>.manifest.json   manifests that the index names
//! ```

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use onggi_spec::image::{Descriptor, MAX_DOCUMENT, media_type};

use super::{
    FormatError, Listed, Raw, Sink, Source,
    error::at,
    oci::{TargetDir, open_regular, write_file},
};
use crate::EngineError;

const VERSION: &str = "Directory Transport Version: 1.1\n";
const MANIFEST: &str = "manifest.json";

/// One image in a directory.
pub(crate) struct Dir {
    dir: PathBuf,
}

impl Dir {
    pub(crate) fn new(dir: &Path) -> Result<Self, EngineError> {
        if !dir.join(MANIFEST).exists() {
            return Err(FormatError::NotALayout { path: dir.to_owned(), what: "a directory with one image" }.into());
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, EngineError> {
        let path = self.dir.join(name);
        let limit = MAX_DOCUMENT as u64;
        let mut bytes = Vec::new();
        open_regular(&path)?.take(limit + 1).read_to_end(&mut bytes).map_err(at("read", &path))?;
        if bytes.len() as u64 > limit {
            return Err(FormatError::TooLarge { what: path.display().to_string(), limit }.into());
        }
        Ok(bytes)
    }
}

impl Source for Dir {
    fn images(&mut self) -> Result<Vec<Listed>, EngineError> {
        let (top, _) = Raw::parse(self.small(MANIFEST)?, None)?;
        Ok(vec![Listed { names: Vec::new(), top }])
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, EngineError> {
        let manifest = media_type::ACCEPTED.contains(&descriptor.media_type.as_str());
        let hex = descriptor.digest.hex();
        self.small(&if manifest { format!("{hex}.manifest.json") } else { hex.to_owned() })
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, EngineError> {
        Ok(Box::new(open_regular(&self.dir.join(descriptor.digest.hex()))?))
    }
}

/// A directory being filled. What another image left in it is taken away first.
pub(crate) struct DirSink {
    dir: TargetDir,
}

impl DirSink {
    pub(crate) fn new(dir: &Path) -> Result<Self, EngineError> {
        let target = TargetDir::open(dir)?;
        let entries: Vec<_> =
            fs::read_dir(dir).map_err(at("list", dir))?.collect::<Result<_, _>>().map_err(at("list", dir))?;
        if !entries.is_empty() && !dir.join("version").exists() {
            return Err(
                FormatError::NotALayout { path: dir.to_owned(), what: "empty or a directory with one image" }.into()
            );
        }
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let hex = name.strip_suffix(".manifest.json").unwrap_or(&name);
            let ours = name == MANIFEST || (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
            if ours {
                fs::remove_file(entry.path()).map_err(at("remove", &entry.path()))?;
            }
        }
        write_file(&dir.join("version"), &mut VERSION.as_bytes())?;
        Ok(Self { dir: target })
    }
}

impl Sink for DirSink {
    fn takes_index(&self) -> bool {
        true
    }

    fn has(&mut self, descriptor: &Descriptor) -> Result<bool, EngineError> {
        Ok(fs::symlink_metadata(self.dir.join(descriptor.digest.hex())).is_ok_and(|m| m.len() == descriptor.size))
    }

    fn put_blob(&mut self, descriptor: &Descriptor, content: &mut dyn Read) -> Result<(), EngineError> {
        write_file(&self.dir.join(descriptor.digest.hex()), content)
    }

    fn put_document(&mut self, raw: &Raw) -> Result<(), EngineError> {
        write_file(&self.dir.join(format!("{}.manifest.json", raw.digest.hex())), &mut raw.bytes.as_slice())
    }

    fn image(&mut self, _names: &[String], top: &Raw) -> Result<(), EngineError> {
        write_file(&self.dir.join(MANIFEST), &mut top.bytes.as_slice())
    }

    fn finish(&mut self) -> Result<(), EngineError> {
        self.dir.keep();
        Ok(())
    }
}

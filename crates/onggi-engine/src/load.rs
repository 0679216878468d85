//! `load`: images from an archive or a directory into the store.

use std::{io::Read, path::PathBuf};

use onggi_spec::{Digest, ImageReference, image::Platform};

use crate::{
    Engine, EngineError,
    transfer::{
        self, CopyRule, FormatError, Listed, Sink as _, Source,
        archive::Archive,
        dir::Dir,
        docker_archive::{self, DockerArchive},
        oci::{self, Layout, OciLayout},
        of_archive,
        store::StoreSink,
    },
};

/// Where `load` and `import` read from.
pub enum LoadFrom {
    /// A file, or a directory.
    Path(PathBuf),
    /// A stream, with its name for messages.
    Stream(Box<dyn Read + Send>, &'static str),
}

impl LoadFrom {
    /// A file of a web server, for `import`.
    ///
    /// # Errors
    /// It is no URL, or the server does not have it.
    pub fn url(text: &str) -> Result<Self, EngineError> {
        let proxies = onggi_image::ProxySettings::from_vars(&|name| std::env::var(name).ok());
        Ok(Self::Stream(onggi_image::open_url(text, &proxies)?, "the server's answer"))
    }
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names that it was given; none for an image that had none in the archive.
    pub names: Vec<ImageReference>,
}

impl Engine {
    /// Loads every image. Each is in the store as a whole or not at all.
    ///
    /// # Errors
    /// The archive is malformed, incomplete or hostile; images before the bad one stay.
    pub fn load(&self, from: LoadFrom, platform: Option<&Platform>) -> Result<Vec<Loaded>, EngineError> {
        self.recover_containers()?;
        let what = match &from {
            LoadFrom::Path(path) => path.display().to_string(),
            LoadFrom::Stream(_, what) => (*what).to_owned(),
        };
        let mut source = self.open_archive(from).map_err(|e| of_archive(&what, e))?;
        let mut sink = StoreSink::new(self)?;
        let rule = CopyRule { platform: platform.cloned(), ..CopyRule::default() };
        let mut loaded = Vec::new();
        let result = (|| {
            for image in source.images()? {
                let names = references(&image);
                let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
                transfer::copy(&mut *source, &mut sink, &image, &texts, &rule)?;
                let id = sink.done.last().map(|r| r.config_digest.clone());
                loaded.extend(id.map(|id| Loaded { id, names }));
            }
            Ok(())
        })();
        // Also after a failure: what came before it is whole, and what it left is garbage like any other.
        sink.finish()?;
        drop(sink);
        if result.is_err() {
            self.collect_garbage()?;
        }
        result.map(|()| loaded).map_err(|e| of_archive(&what, e))
    }

    /// Looks at what is there rather than at a name.
    pub(crate) fn open_archive(&self, from: LoadFrom) -> Result<Box<dyn Source>, EngineError> {
        let spool = self.spool_dir()?;
        let archive = match from {
            LoadFrom::Path(path) if path.is_dir() => {
                return Ok(if path.join(oci::INDEX).exists() {
                    Box::new(OciLayout::dir(&path)?)
                } else {
                    Box::new(Dir::new(&path)?)
                });
            }
            LoadFrom::Path(path) => Archive::open_file(&path, &spool)?,
            LoadFrom::Stream(stream, what) => Archive::open(stream, what, &spool)?,
        };
        source_of(archive)
    }
}

/// An archive in either format. Docker writes both documents into one archive; they say the same, and
/// `manifest.json` is the one that all of its versions read.
pub(crate) fn source_of(archive: Archive) -> Result<Box<dyn Source>, EngineError> {
    if archive.has(docker_archive::MANIFEST) {
        return Ok(Box::new(DockerArchive::new(archive)));
    }
    if archive.has(oci::INDEX) {
        return Ok(Box::new(OciLayout::new(Layout::Archive(archive))));
    }
    Err(FormatError::NoImages { what: archive.what().to_owned() }.into())
}

/// The names that mean something here: whole references. A lone tag (`latest`) names no repository.
fn references(image: &Listed) -> Vec<ImageReference> {
    let mut found: Vec<ImageReference> = Vec::new();
    for name in image.names.iter().filter(|n| n.contains(['/', ':'])) {
        // A name is data of a stranger: one that is no reference names nothing.
        if let Ok(reference) = name.parse()
            && !found.contains(&reference)
        {
            found.push(reference);
        }
    }
    found
}

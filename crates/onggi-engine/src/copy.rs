//! `copy`: one image from one place to another, byte for byte where the places allow it. The store is only opened when it
//! is one of them.

use std::path::{Path, PathBuf};

use onggi_image::RemoteOptions;
use onggi_spec::{Digest, ImageReference, image::Platform};

use crate::{
    Engine, EngineError, ManifestFormat, RegistryChoice,
    load::source_of,
    registry::Registries,
    transfer::{
        self, CopyRule, FormatError, Listed, Output, Sink, Source,
        archive::Archive,
        dir::{Dir, DirSink},
        docker_archive::DockerArchiveSink,
        location::Location,
        oci::{Naming, OciArchiveSink, OciDirSink, OciLayout},
        registry::{RegistrySink, RegistrySource},
        shown,
        store::{StoreSink, StoreSource},
    },
};

/// How to copy.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// Every image of an index.
    pub all: bool,
    /// Which image of an index; this machine's when absent.
    pub platform: Option<Platform>,
    /// Write manifests in this format; where absent as they are, but in OCI's format into an OCI layout, unless digests
    /// are to be preserved.
    pub format: Option<ManifestFormat>,
    /// Fail rather than change a manifest.
    pub preserve_digests: bool,
    /// How the registry that the image comes from is talked to.
    pub source: RegistryChoice,
    /// How the one that it goes to is.
    pub destination: RegistryChoice,
}

impl Engine {
    /// Copies an image; returns the digest of the manifest or index that was written.
    ///
    /// # Errors
    /// The source has no such image, it is damaged, or the destination cannot hold or take it.
    pub fn copy(&self, from: &Location, to: &Location, options: &CopyOptions) -> Result<Digest, EngineError> {
        if let Location::Store(name) = to {
            return self.copy_to_store(from, name, options);
        }
        let mut source = self.copy_source(from, options)?;
        let image = chosen(&mut *source, from)?;
        let (mut sink, names) = self.copy_sink(from, to, options)?;
        let mut rule = rule(options);
        // Readers of OCI layouts (skopeo, umoci) find no image in one that holds Docker's manifests.
        if matches!(to, Location::OciDir(..) | Location::OciArchive(..)) && !options.preserve_digests {
            rule.format = rule.format.or(Some(ManifestFormat::Oci));
        }
        let digest = transfer::copy(&mut *source, &mut *sink, &image, &names, &rule)?;
        sink.finish()?;
        Ok(digest)
    }

    fn copy_to_store(&self, from: &Location, name: &str, options: &CopyOptions) -> Result<Digest, EngineError> {
        self.recover_containers()?;
        let reference: ImageReference = name.parse()?;
        let mut source = self.copy_source(from, options)?;
        let image = chosen(&mut *source, from)?;
        let mut sink = StoreSink::new(self)?;
        let copied = transfer::copy(&mut *source, &mut sink, &image, &[reference.to_string()], &rule(options));
        sink.finish()?;
        drop(sink);
        if copied.is_err() {
            self.collect_garbage()?;
        }
        copied
    }

    fn copy_source(&self, from: &Location, options: &CopyOptions) -> Result<Box<dyn Source>, EngineError> {
        Ok(match from {
            Location::Store(name) => Box::new(StoreSource::new(self, self.find_image(name)?, Vec::new())?),
            Location::OciDir(dir, _) => Box::new(OciLayout::dir(dir)?),
            Location::OciArchive(file, _) | Location::DockerArchive(file, _) => {
                source_of(Archive::open_file(file, &spool())?)?
            }
            Location::Dir(dir) => Box::new(Dir::new(dir)?),
            Location::Registry(reference) => {
                Box::new(RegistrySource::new(reference, &remote(reference, &options.source)?)?)
            }
        })
    }

    fn copy_sink(
        &self,
        from: &Location,
        to: &Location,
        options: &CopyOptions,
    ) -> Result<(Box<dyn Sink>, Vec<String>), EngineError> {
        let tag = |tag: &Option<String>| tag.iter().cloned().collect::<Vec<_>>();
        Ok(match to {
            Location::OciDir(dir, name) => (Box::new(OciDirSink::new(dir, Naming::Tag)?), tag(name)),
            Location::OciArchive(file, name) => {
                (Box::new(OciArchiveSink::new(Output::file(file, &spool())?, Naming::Tag)?), tag(name))
            }
            Location::DockerArchive(file, name) => {
                if file.exists() {
                    // As skopeo: such an archive cannot be added to, and somebody may think that it was.
                    return Err(FormatError::Exists { path: file.clone() }.into());
                }
                let names = name.iter().map(|n| n.parse::<ImageReference>().map(|r| r.familiar()));
                let names = names.collect::<Result<_, _>>()?;
                (Box::new(DockerArchiveSink::new(Output::file(file, &spool())?)?), names)
            }
            Location::Dir(dir) => (Box::new(DirSink::new(dir)?), Vec::new()),
            Location::Registry(reference) => {
                let remote = remote(reference, &options.destination)?;
                let sink = RegistrySink::new(reference, &remote, mountable(from, reference), spool())?;
                (Box::new(sink), Vec::new())
            }
            Location::Store(name) => unreachable!("copy_to_store copies to {name}"),
        })
    }
}

fn rule(options: &CopyOptions) -> CopyRule {
    let CopyOptions { all, platform, format, preserve_digests, source: _, destination: _ } = options.clone();
    CopyRule { all, platform, format, preserve_digests }
}

/// So many names are told to who asks for one that is not there.
const MANY: usize = 20;

/// The image that the place names; the only one when it names none.
fn chosen(source: &mut dyn Source, from: &Location) -> Result<Listed, EngineError> {
    let (what, wanted) = match from {
        Location::OciDir(path, tag) | Location::OciArchive(path, tag) | Location::DockerArchive(path, tag) => {
            (path.display().to_string(), tag.as_deref())
        }
        Location::Dir(path) => (path.display().to_string(), None),
        Location::Store(name) => (name.clone(), None),
        Location::Registry(reference) => (reference.to_string(), None),
    };
    let mut images = source.images()?;
    let Some(wanted) = wanted else {
        return match images.len() {
            1 => Ok(images.remove(0)),
            0 => Err(FormatError::NoImages { what }.into()),
            count => Err(FormatError::Several { what, count }.into()),
        };
    };
    let known = images.iter().flat_map(|i| &i.names).take(MANY).map(|name| shown(name.as_bytes())).collect();
    let missing = || FormatError::NoSuchImage { name: wanted.to_owned(), what, known };
    if let Some(number) = wanted.strip_prefix('@') {
        let at = number.parse::<usize>().ok().filter(|n| *n < images.len()).ok_or_else(missing)?;
        return Ok(images.swap_remove(at));
    }
    let reference = wanted.parse::<ImageReference>().ok();
    let same =
        |name: &String| name == wanted || (reference.is_some() && name.parse::<ImageReference>().ok() == reference);
    Ok(images.into_iter().find(|i| i.names.iter().any(same)).ok_or_else(missing)?)
}

fn remote(reference: &ImageReference, choice: &RegistryChoice) -> Result<RemoteOptions, EngineError> {
    Registries::gather(choice)?.remote(reference, choice.insecure)
}

/// A registry need not be sent what it has in another repository.
fn mountable(from: &Location, to: &ImageReference) -> Vec<String> {
    match from {
        Location::Registry(from) if from.registry() == to.registry() && from.repository() != to.repository() => {
            vec![from.repository().to_owned()]
        }
        _ => Vec::new(),
    }
}

/// Where what must be decompressed first goes when there is no store to put it beside: on a disk rather than in memory.
pub(crate) fn spool() -> PathBuf {
    let dir = Path::new("/var/tmp");
    if dir.is_dir() { dir.to_owned() } else { std::env::temp_dir() }
}

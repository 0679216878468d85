//! `save`: images of the store to an archive or a directory.

use std::{io::Write, path::PathBuf};

use onggi_spec::{ImageReference, ParseError};
use onggi_state::ImageRecord;

use crate::{
    Engine, EngineError,
    transfer::{
        self, CopyRule, ManifestFormat, Output, Sink, Source as _,
        dir::DirSink,
        docker_archive::DockerArchiveSink,
        oci::{Naming, OciArchiveSink, OciDirSink},
        store::StoreSource,
    },
};

/// What `save` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveFormat {
    /// As `docker save`.
    #[default]
    DockerArchive,
    /// A tar archive of an OCI layout.
    OciArchive,
    /// A directory with an OCI layout.
    OciDir,
    /// A directory with one image in Docker's format.
    DockerDir,
}

impl std::str::FromStr for SaveFormat {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "docker-archive" => Ok(Self::DockerArchive),
            "oci-archive" => Ok(Self::OciArchive),
            "oci-dir" => Ok(Self::OciDir),
            "docker-dir" => Ok(Self::DockerDir),
            _ => Err(ParseError::new("format", text, "it is docker-archive, oci-archive, oci-dir or docker-dir")),
        }
    }
}

impl SaveFormat {
    /// True for the formats that are directories.
    pub fn is_dir(self) -> bool {
        matches!(self, Self::OciDir | Self::DockerDir)
    }
}

/// Where `save` and `export` write to.
pub enum SaveTo {
    /// A file, or a directory for the formats that are one.
    Path(PathBuf),
    /// A stream.
    Stream(Box<dyn Write + Send>),
}

impl Engine {
    /// Writes images, each under the names by which it was asked for.
    ///
    /// # Errors
    /// No such image, or the destination cannot be written.
    pub fn save(&self, images: &[String], format: SaveFormat, to: SaveTo) -> Result<(), EngineError> {
        let mut chosen: Vec<(ImageRecord, Vec<String>)> = Vec::new();
        for name in images {
            for (image, reference) in self.to_save(name)? {
                let names = reference.iter().map(ImageReference::familiar);
                match chosen.iter_mut().find(|(i, _)| i.config_digest == image.config_digest) {
                    Some((_, known)) => known.extend(names),
                    None => chosen.push((image, names.collect())),
                }
            }
        }
        if format == SaveFormat::DockerDir && chosen.len() > 1 {
            return Err(EngineError::Parse(ParseError::new(
                "format",
                "docker-dir",
                "such a directory holds one image",
            )));
        }
        let mut sink = self.save_sink(format, to)?;
        let manifest = if format == SaveFormat::DockerDir { ManifestFormat::Docker } else { ManifestFormat::Oci };
        let rule =
            CopyRule { format: (format != SaveFormat::DockerArchive).then_some(manifest), ..CopyRule::default() };
        for (image, mut names) in chosen {
            names.sort();
            names.dedup();
            if format != SaveFormat::DockerArchive {
                // Podman and containerd take these names as they are.
                let full = names.iter().map(|n| n.parse::<ImageReference>().map(|r| r.to_string()));
                names = full.collect::<Result<_, _>>()?;
            }
            let mut source = StoreSource::new(self, image, names)?;
            for listed in source.images()? {
                transfer::copy(&mut source, &mut *sink, &listed, &listed.names, &rule)?;
            }
        }
        sink.finish()
    }

    fn save_sink(&self, format: SaveFormat, to: SaveTo) -> Result<Box<dyn Sink>, EngineError> {
        let spool = self.spool_dir()?;
        let output = |to| match to {
            SaveTo::Path(path) => Output::file(&path, &spool),
            SaveTo::Stream(stream) => Output::stream(stream, &spool),
        };
        Ok(match (format, to) {
            (SaveFormat::DockerArchive, to) => Box::new(DockerArchiveSink::new(output(to)?)?),
            (SaveFormat::OciArchive, to) => Box::new(OciArchiveSink::new(output(to)?, Naming::Reference)?),
            (SaveFormat::OciDir, SaveTo::Path(dir)) => Box::new(OciDirSink::new(&dir, Naming::Reference)?),
            (SaveFormat::DockerDir, SaveTo::Path(dir)) => Box::new(DirSink::new(&dir)?),
            (SaveFormat::OciDir | SaveFormat::DockerDir, SaveTo::Stream(_)) => {
                return Err(EngineError::Parse(
                    ParseError::new("format", "oci-dir", "a directory cannot be written to standard output")
                        .hint("name the directory with -o"),
                ));
            }
        })
    }

    /// A repository without a tag stands for all of its tags, as with Docker; an id for the image without a name.
    fn to_save(&self, name: &str) -> Result<Vec<(ImageRecord, Option<ImageReference>)>, EngineError> {
        let all = self.state()?.list_images()?;
        if let Ok(reference) = name.parse::<ImageReference>() {
            let whole = reference.digest().is_none() && !name.rsplit('/').next().unwrap_or(name).contains(':');
            let same = |r: &ImageReference| {
                r.registry() == reference.registry() && r.repository() == reference.repository() && r.tag().is_some()
            };
            let tags: Vec<_> = all
                .into_iter()
                .filter(|i| i.name.as_ref().is_some_and(|n| if whole { same(n) } else { *n == reference }))
                .map(|i| (i.clone(), i.name.filter(|n| n.tag().is_some())))
                .collect();
            if !tags.is_empty() {
                return Ok(tags);
            }
        }
        Ok(vec![(self.find_image(name)?, None)])
    }
}

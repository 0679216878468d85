//! `import`: a root filesystem's tar archive as an image of one layer.

use std::{fs::File, io::Write as _};

use onggi_spec::{
    Digest, ImageReference,
    change::apply_changes,
    image::{ContainerConfig, History, ImageConfig, Platform, RootfsConfig},
};

use crate::{
    Engine, EngineError, LoadFrom, ManifestFormat,
    commit::MadeImage,
    create,
    transfer::{FormatError, of_archive, store::StoreSink},
};

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// Shown by `history`.
    pub message: Option<String>,
    /// What the programs in it run on; this machine's when absent.
    pub platform: Option<Platform>,
    /// When it was made, as RFC 3339; now when absent.
    pub created: Option<String>,
    /// Where it came from, for `history`.
    pub origin: String,
}

/// What [`Engine::import`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image's id.
    pub id: Digest,
    /// Entries of the archive. None is no error, as it is none to Docker, Podman and tar(1), but seldom what was meant.
    pub entries: u64,
}

impl Engine {
    /// Makes an image of an archive, compressed or not.
    ///
    /// # Errors
    /// It is no valid archive, a change is no instruction, or the disk is full.
    pub fn import(
        &self,
        from: LoadFrom,
        reference: Option<&ImageReference>,
        options: &ImportOptions,
    ) -> Result<Imported, EngineError> {
        self.recover_containers()?;
        let mut config = ContainerConfig::default();
        apply_changes(&mut config, &options.changes)?;
        let mut sink = StoreSink::new(self)?;
        let imported = self.import_into(&mut sink, from, reference, config, options);
        if imported.is_err() {
            use crate::transfer::Sink as _;
            sink.finish()?;
            drop(sink);
            self.collect_garbage()?;
        }
        imported.map_err(|e| of_archive(&options.origin, e))
    }

    fn import_into(
        &self,
        sink: &mut StoreSink<'_>,
        from: LoadFrom,
        reference: Option<&ImageReference>,
        config: ContainerConfig,
        options: &ImportOptions,
    ) -> Result<Imported, EngineError> {
        let input: Box<dyn std::io::Read + Send> = match from {
            LoadFrom::Stream(stream, _) => stream,
            LoadFrom::Path(path) => {
                let opened = File::open(&path);
                Box::new(opened.map_err(|source| FormatError::File { action: "open", path, source })?)
            }
        };
        let format = ManifestFormat::Oci;
        let mut entries = 0;
        let layer = self.make_layer(format, |out| {
            let passed = onggi_storage::decompress_apart::<EngineError>(input, &self.spool_dir()?, |piece| {
                let written = out.write_all(piece);
                Ok(written.map_err(|source| FormatError::Stream { action: "write the layer", source })?)
            })?;
            if passed.bytes == 0 {
                return Err(FormatError::Empty.into());
            }
            entries = passed.entries;
            Ok(false)
        })?;
        let created = options.created.clone().unwrap_or_else(|| create::timestamp(create::now()));
        let platform = options.platform.clone().unwrap_or_else(onggi_image::native_platform);
        let image = ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            created: Some(created.clone()),
            author: None,
            config,
            rootfs: RootfsConfig { typ: "layers".to_owned(), diff_ids: vec![layer.diff_id.clone()] },
            history: vec![History {
                created: Some(created),
                comment: Some(options.message.clone().unwrap_or_else(|| format!("Imported from {}", options.origin))),
                ..History::default()
            }],
        };
        let made = MadeImage { config: &image, layers: &[layer.blob], pending: layer.pending };
        Ok(Imported { id: self.put_made(sink, made, format, reference)?, entries })
    }
}

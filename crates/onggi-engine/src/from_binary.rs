//! `image from-binary`: a minimal image of programs of this machine.
//!
//! What goes in: the programs, what their ELF headers name (loader, libraries, and what those need), interpreters of
//! scripts, and every symbolic link on the way. It is found by reading files, never by running them. Times are zero and
//! owners root, so the same files make the same image.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use onggi_spec::{
    Digest, ImageReference,
    image::{ContainerConfig, History, ImageConfig, RootfsConfig},
};
use onggi_storage::tar::{Entry, Kind, TarWriter};
use onggi_sys::fs::Time;

use crate::{
    Engine, EngineError, ManifestFormat,
    commit::MadeImage,
    programs::{self, Choice, Chosen, PATH, Wanted, read_failed},
    transfer::{FormatError, store::StoreSink},
};

/// What to make.
#[derive(Debug, Clone, Default)]
pub struct FromBinary {
    /// Names or paths of programs.
    pub programs: Vec<String>,
    /// Further files and directories; libraries of theirs follow.
    pub with: Vec<PathBuf>,
    /// Also what the C library loads to look up users and hosts.
    pub nss: bool,
    /// The command; the first program when absent.
    pub entrypoint: Option<Vec<String>>,
}

impl FromBinary {
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { programs: &self.programs, with: &self.with, nss: self.nss }
    }
}

impl Engine {
    /// The files that the image would have.
    ///
    /// # Errors
    /// A program or a library is not on this machine.
    pub fn from_binary_files(&self, request: &FromBinary) -> Result<Vec<Chosen>, EngineError> {
        Ok(programs::choose(request.wanted())?.files)
    }

    /// Makes the image; returns its id, and what will not run in it.
    ///
    /// # Errors
    /// As [`Self::from_binary_files`], or the disk is full.
    pub fn from_binary(
        &self,
        request: &FromBinary,
        reference: Option<&ImageReference>,
    ) -> Result<(Digest, Vec<String>), EngineError> {
        self.recover_containers()?;
        let Choice { files, first, notes } = programs::choose(request.wanted())?;
        let mut sink = StoreSink::new(self)?;
        let format = ManifestFormat::Oci;
        let layer = self.make_layer(format, |out| {
            let mut tar = TarWriter::new(out);
            for file in &files {
                write_file(&mut tar, &file.path)?;
            }
            tar.finish().map_err(|source| FormatError::Stream { action: "write the layer", source })?;
            Ok(false)
        })?;
        let platform = onggi_image::native_platform();
        let created = "1970-01-01T00:00:00Z".to_owned();
        let config = ContainerConfig {
            env: vec![format!("PATH={}", PATH.join(":"))],
            entrypoint: Some(request.entrypoint.clone().unwrap_or_else(|| vec![first.display().to_string()])),
            ..ContainerConfig::default()
        };
        let step = History {
            created: Some(created.clone()),
            created_by: Some(format!("onggi image from-binary {}", request.programs.join(" "))),
            ..History::default()
        };
        let image = ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            created: Some(created),
            author: None,
            config,
            rootfs: RootfsConfig { typ: "layers".to_owned(), diff_ids: vec![layer.diff_id.clone()] },
            history: vec![step],
        };
        let made = MadeImage { config: &image, layers: &[layer.blob], pending: layer.pending };
        Ok((self.put_made(&mut sink, made, format, reference)?, notes))
    }
}

fn write_file<W: std::io::Write>(tar: &mut TarWriter<W>, path: &Path) -> Result<(), EngineError> {
    let meta = fs::symlink_metadata(path).map_err(read_failed(path))?;
    let kind = match meta.file_type() {
        t if t.is_symlink() => {
            Kind::Symlink(fs::read_link(path).map_err(read_failed(path))?.into_os_string().as_bytes().to_vec())
        }
        t if t.is_dir() => Kind::Directory,
        t if t.is_file() => Kind::File { size: meta.len() },
        // Sockets and devices do nothing for a program of another machine.
        _ => return Ok(()),
    };
    let name = path.as_os_str().as_bytes();
    let mut xattrs = Vec::new();
    let mut buffer = vec![0; 65_536];
    if meta.is_file()
        && let Ok(n) = rustix::fs::lgetxattr(path, "security.capability", &mut buffer[..])
    {
        xattrs.push((b"security.capability".to_vec(), buffer[..n].to_vec()));
    }
    let (path_in, mode) = (name.strip_prefix(b"/").unwrap_or(name).to_vec(), meta.mode() & 0o7777);
    let entry = Entry { offset: 0, path: path_in, kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs };
    let failed = |source| FormatError::Stream { action: "write the layer", source };
    tar.entry(&entry).map_err(failed)?;
    if meta.is_file() {
        let mut file = File::open(path).map_err(read_failed(path))?.take(meta.len());
        loop {
            let n = file.read(&mut buffer).map_err(read_failed(path))?;
            if n == 0 {
                break;
            }
            tar.content(&buffer[..n]).map_err(failed)?;
        }
    }
    Ok(())
}

//! Plans of the verbs that read and write archives, and of `commit`.

use std::path::Path;

use onggi_spec::ImageReference;
use onggi_storage::driver::lookup_view;

use super::{VerbOp, VerbPlan};
use crate::{Engine, EngineError, Location, SaveFormat};

impl Engine {
    /// `save`.
    ///
    /// # Errors
    /// No such image.
    pub fn explain_save(
        &self,
        images: &[String],
        format: SaveFormat,
        to: Option<&Path>,
    ) -> Result<VerbPlan, EngineError> {
        let place = destination(to);
        let mut plan = VerbPlan::new(format!("save {} to {place}", images.join(", ")));
        plan.note(format!("format: {format:?}; layers are written as they are stored, once each"));
        let blobs = self.blobs()?;
        for name in images {
            let image = self.find_image(name)?;
            for digest in image.layer_digests.iter().chain([&image.config_digest, &image.manifest_digest]) {
                let size = std::fs::metadata(blobs.path(digest)).map(|m| m.len()).unwrap_or_default();
                let what = format!("read {} ({size} bytes) for {name}", blobs.path(digest).display());
                plan.push(VerbOp::Note { what });
            }
        }
        match to {
            Some(path) => plan.push(VerbOp::Write {
                path: path.to_owned(),
                what: "beside it first, then renamed".into(),
                text: None,
            }),
            None => plan.push(VerbOp::Note { what: "write the archive to standard output".into() }),
        }
        Ok(plan)
    }

    /// `load` and `import`: what is in an archive is known when it is read.
    pub fn explain_read_archive(&self, verb: &str, from: &str, reference: Option<&ImageReference>) -> VerbPlan {
        let mut plan = VerbPlan::new(format!("{verb} {from}"));
        plan.note("which images and layers are in it is known when it is read; every digest is verified first");
        plan.push(VerbOp::Note { what: format!("read {from} with bounds on sizes and counts") });
        self.add_new_image(reference, &mut plan);
        plan
    }

    /// `export`.
    ///
    /// # Errors
    /// No such container, or it is on `host:`.
    pub fn explain_export(&self, name: &str, to: Option<&Path>) -> Result<VerbPlan, EngineError> {
        let record = self.find(name)?;
        drop(self.own_trees(&record, "export")?);
        let mut plan = VerbPlan::new(format!("export {} to {}", record.name, destination(to)));
        plan.push(self.pack(&record, &destination(to), true)?);
        Ok(plan)
    }

    fn pack(&self, record: &onggi_state::ContainerRecord, to: &str, whole: bool) -> Result<VerbOp, EngineError> {
        let bundle = self.paths.bundle(&record.id);
        let view = lookup_view(&self.rootfs_of(record)?, &bundle);
        Ok(VerbOp::Pack { from: view.upper, below: view.lower.clone(), to: to.to_owned(), whole })
    }

    /// `commit`.
    ///
    /// # Errors
    /// No such container, or it is on `host:`.
    pub fn explain_commit(
        &self,
        name: &str,
        reference: Option<&ImageReference>,
        pause: bool,
    ) -> Result<VerbPlan, EngineError> {
        let record = self.find(name)?;
        drop(self.own_trees(&record, "commit")?);
        let mut plan = VerbPlan::new(format!("commit {}", record.name));
        let freeze = |stop| VerbOp::Freeze { oci_root: self.paths.oci_root(), id: record.id.to_string(), stop };
        let status = self.status(&record.id)?;
        let stands = pause && status.is_running() && !status.is_paused();
        if stands {
            plan.push(freeze(true));
        }
        let to = self.paths.root.join("blobs").display().to_string();
        plan.push(self.pack(&record, &to, record.image_id.is_none())?);
        if stands {
            plan.push(freeze(false));
        }
        self.add_new_image(reference, &mut plan);
        Ok(plan)
    }

    /// `image copy`.
    pub fn explain_copy(&self, from: &Location, to: &Location) -> VerbPlan {
        let mut plan = VerbPlan::new(format!("copy {} to {}", place(from), place(to)));
        plan.note("which blobs the destination lacks is known when it is asked; those that it has are not sent");
        plan.push(VerbOp::Note { what: format!("read manifest and configuration from {}", place(from)) });
        plan.push(VerbOp::Note {
            what: format!("copy every layer, verified on the way, then the configuration, to {}", place(to)),
        });
        plan.push(VerbOp::Note { what: "write the manifest last: until then nothing refers to the rest".into() });
        plan
    }
}

fn destination(to: Option<&Path>) -> String {
    to.map_or_else(|| super::STDOUT.to_owned(), |path| path.display().to_string())
}

fn place(location: &Location) -> String {
    match location {
        Location::Registry(reference) => format!("docker://{reference}"),
        Location::Store(name) => format!("the store ({name})"),
        Location::OciDir(path, _)
        | Location::OciArchive(path, _)
        | Location::DockerArchive(path, _)
        | Location::Dir(path) => path.display().to_string(),
    }
}

//! Plans of the verbs that work on stored images.

use std::collections::BTreeSet;

use onggi_spec::{Digest, ImageReference};
use onggi_state::{ImageRecord, StateError};

use super::{RowChange, VerbOp, VerbPlan, by_hand::sql_text};
use crate::{CheckReport, Engine, EngineError, Finding, FromBinary, ListFilter, PruneFilter, images::Goes, programs};

impl Engine {
    /// `rmi`.
    ///
    /// # Errors
    /// As the verb's own: no such image, several names, a container that uses it.
    pub fn explain_rmi(&self, name: &str, force: bool) -> Result<VerbPlan, EngineError> {
        let image = self.find_image(name)?;
        let mut plan = VerbPlan::new(format!("remove the image {name}"));
        if let Goes::Name(reference) = self.what_goes(name, &image, force)? {
            plan.push(self.name_row(RowChange::Delete, &reference, "this name; the image keeps its others", None));
            return Ok(plan);
        }
        self.refuse_while_running(&image.config_digest)?;
        let users = self.state()?.containers_of_image(&image.config_digest)?;
        if let Some(user) = users.first().filter(|_| !force) {
            let (image, container) = (image.config_digest.to_string(), user.id.to_string());
            return Err(StateError::ImageInUse { image, container }.into());
        }
        self.add_removal(&image, &BTreeSet::from([image.config_digest.clone()]), &mut plan)?;
        Ok(plan)
    }

    /// `image`: what the name means then, where that is known.
    fn name_row(
        &self,
        change: RowChange,
        name: &ImageReference,
        what: &str,
        image: Option<(&Digest, &Digest)>,
    ) -> VerbOp {
        let key = ("name", name.to_string());
        let sql = image.map(|(id, manifest)| {
            let values = [&key.1, &id.to_string(), &manifest.to_string()].map(|v| sql_text(v)).join(", ");
            format!("INSERT OR REPLACE INTO names (name, image_id, manifest_digest) VALUES ({values})")
        });
        VerbOp::Row { database: self.database(), change, table: "names", key, what: what.to_owned(), sql }
    }

    /// Rows first, so that a power cut leaves no image without its layers; then what only it used.
    fn add_removal(
        &self,
        image: &ImageRecord,
        going: &BTreeSet<Digest>,
        plan: &mut VerbPlan,
    ) -> Result<(), EngineError> {
        let id = image.config_digest.to_string();
        for (table, column, what) in [("names", "image_id", "its names"), ("images", "id", "the image")] {
            plan.push(VerbOp::Row {
                database: self.database(),
                change: RowChange::Delete,
                table,
                key: (column, id.clone()),
                what: what.to_owned(),
                sql: None,
            });
        }
        let (layers, blobs) = self.only_of(image, going)?;
        let store = self.layers()?;
        for chain_id in layers {
            plan.push(VerbOp::Remove { path: store.dir(&chain_id), what: "a layer that nothing else uses".to_owned() });
            plan.push(VerbOp::Row {
                database: self.database(),
                change: RowChange::Delete,
                table: "layers",
                key: ("chain_id", chain_id.to_string()),
                what: "that layer".to_owned(),
                sql: None,
            });
        }
        let store = self.blobs()?;
        let there = blobs.into_iter().filter(|digest| store.has(digest, None));
        plan.operations.extend(
            there.map(|d| VerbOp::Remove { path: store.path(&d), what: "a blob that nothing else uses".to_owned() }),
        );
        Ok(())
    }

    /// Layers and blobs of an image that nothing uses once `going` are gone.
    fn only_of(
        &self,
        image: &ImageRecord,
        going: &BTreeSet<Digest>,
    ) -> Result<(Vec<Digest>, Vec<Digest>), EngineError> {
        let all = self.state()?.list_images()?;
        let others: Vec<&ImageRecord> = all.iter().filter(|i| !going.contains(&i.config_digest)).collect();
        let containers = self.list(&ListFilter { all: true, ..ListFilter::default() })?;
        let used_layer = |chain: &Digest| {
            others.iter().any(|i| i.chain_ids.contains(chain))
                || containers.iter().any(|c| c.record.chain_ids.contains(chain))
        };
        let used_blob = |digest: &Digest| {
            others
                .iter()
                .any(|i| i.layer_digests.contains(digest) || &i.config_digest == digest || &i.manifest_digest == digest)
        };
        // Topmost first: a layer's parent goes after it.
        let layers = image.chain_ids.iter().rev().filter(|c| !used_layer(c)).cloned().collect();
        let own = image.layer_digests.iter().chain([&image.config_digest, &image.manifest_digest]);
        let blobs: BTreeSet<&Digest> = own.filter(|d| !used_blob(d)).collect();
        Ok((layers, blobs.into_iter().cloned().collect()))
    }

    /// `image prune`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn explain_prune_images(&self, all: bool, filter: &PruneFilter) -> Result<VerbPlan, EngineError> {
        let mut plan = VerbPlan::new("remove images that are not used");
        if !self.has_store() {
            return Ok(plan);
        }
        let mut chosen: Vec<ImageRecord> = Vec::new();
        for image in self.images()? {
            let label = |key: &str| image.labels.get(key).map(String::as_str);
            let unwanted = (all || image.record.name.is_none()) && image.containers == 0;
            let known = chosen.iter().any(|c| c.config_digest == image.record.config_digest);
            if unwanted && !known && filter.takes(image.record.created, label) {
                chosen.push(image.record);
            }
        }
        let going: BTreeSet<Digest> = chosen.iter().map(|i| i.config_digest.clone()).collect();
        for image in &chosen {
            self.add_removal(image, &going, &mut plan)?;
        }
        plan.note("layers and blobs that earlier removals had to leave go too, unless a pull is under way");
        Ok(plan)
    }

    /// `tag`.
    ///
    /// # Errors
    /// No such image.
    pub fn explain_tag(&self, source: &str, target: &ImageReference) -> Result<VerbPlan, EngineError> {
        let image = self.find_image(source)?;
        let mut plan = VerbPlan::new(format!("tag {source} as {}", target.familiar()));
        if let Ok(old) = self.find_image(&target.to_string())
            && old.config_digest != image.config_digest
        {
            plan.note(format!("the name means {} now, which loses it", old.config_digest.short()));
        }
        let what = format!("it means {} then; synced", image.config_digest.short());
        let means = (&image.config_digest, &image.manifest_digest);
        plan.push(self.name_row(RowChange::Put, target, &what, Some(means)));
        Ok(plan)
    }

    /// `image untag`.
    ///
    /// # Errors
    /// No such image, or a name is another image's.
    pub fn explain_untag(&self, image: &str, names: &[String]) -> Result<VerbPlan, EngineError> {
        let mut plan = VerbPlan::new(format!("take names away from {image}"));
        for name in self.untagged(image, names)? {
            plan.push(self.name_row(RowChange::Delete, &name, "the image stays", None));
        }
        Ok(plan)
    }

    /// `image from-binary`.
    ///
    /// # Errors
    /// A program or a library is not on this machine.
    pub fn explain_from_binary(
        &self,
        request: &FromBinary,
        reference: Option<&ImageReference>,
    ) -> Result<VerbPlan, EngineError> {
        let programs::Choice { files, first, .. } = programs::choose(request.wanted())?;
        let mut plan = VerbPlan::new(format!("make an image of {}", request.programs.join(", ")));
        let shown = |chosen: &programs::Chosen| format!("{}: {}", chosen.path.display(), chosen.reason);
        plan.notes.extend(files.iter().map(shown));
        plan.push(VerbOp::Layer {
            files: files.into_iter().map(|chosen| chosen.path).collect(),
            entrypoint: request.entrypoint.clone().unwrap_or_else(|| vec![first.display().to_string()]),
            search: programs::PATH.join(":"),
            name: reference.map(ImageReference::to_string),
        });
        Ok(plan)
    }

    /// What every verb that makes an image ends with.
    pub(super) fn add_new_image(&self, reference: Option<&ImageReference>, plan: &mut VerbPlan) {
        let blobs = self.paths.root.join("blobs");
        plan.push(VerbOp::Write {
            path: blobs,
            what: "layer, configuration and manifest, each named by its digest, synced".into(),
            text: None,
        });
        plan.push(VerbOp::MakeDir {
            path: self.paths.root.join("layers"),
            what: "the unpacked layer, named by its ChainID".into(),
        });
        let key = ("id", "the configuration's digest".to_owned());
        plan.push(VerbOp::Row {
            database: self.database(),
            change: RowChange::Put,
            table: "images",
            key,
            what: "the image".into(),
            sql: None,
        });
        if let Some(name) = reference {
            plan.push(self.name_row(RowChange::Put, name, "its name", None));
        }
    }

    /// `system check --repair`: what the check finds, and what becomes of each.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn explain_repair(&self) -> Result<VerbPlan, EngineError> {
        let mut plan = VerbPlan::new("repair the store");
        if !self.has_store() {
            return Ok(plan);
        }
        let CheckReport { findings, .. } = self.check()?;
        let (layers, blobs) = (self.layers()?, self.blobs()?);
        for finding in findings {
            plan.push(match finding {
                Finding::BlobOrphan(id) => {
                    VerbOp::Remove { path: blobs.path(&id), what: "a blob that belongs to nothing".into() }
                }
                Finding::LayerOrphan(id) => {
                    VerbOp::Remove { path: layers.dir(&id), what: "a layer that belongs to nothing".into() }
                }
                Finding::BlobDamaged(id) | Finding::BlobMissing(id) => {
                    VerbOp::Note { what: format!("fetch the blob {id} again from the registry of its image") }
                }
                Finding::LayerDamaged(id, _) | Finding::LayerMissing(id) => {
                    VerbOp::Note { what: format!("unpack the layer {id} again from its blob") }
                }
                Finding::ContainerOrphan(id) => {
                    VerbOp::Remove { path: self.paths.bundle(&id), what: "a container that is not recorded".into() }
                }
                Finding::ContainerLost(name) => VerbOp::Note {
                    what: format!("leave the container {name}: its files are gone, remove it with `onggi rm {name}`"),
                },
                Finding::Stranger(path) => {
                    VerbOp::Note { what: format!("leave {}: it is none of Onggi's", path.display()) }
                }
                Finding::MountLost(id, _) => VerbOp::Note {
                    what: format!("let go of the layers of image {id}: what they were mounted on is gone"),
                },
                Finding::LayerUnrecorded(id) => VerbOp::Collect {
                    what: format!("leave the layer {id}: its tree was not recorded when it was unpacked"),
                },
            });
        }
        Ok(plan)
    }
}

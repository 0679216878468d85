//! `image mount`, `unmount`, `mounts`: an image's files to look at, without a container.
//!
//! A view is read-only and shared: mounting an image again adds a user, and the last `unmount` takes it away. It is a mount
//! in the caller's mount namespace and a record in the run root (`records.rs`), so it outlives the command; layers that
//! are mounted are never collected, and `rmi` refuses the image.

mod apply;
mod plan;
pub(crate) mod records;

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use onggi_spec::Digest;
use onggi_state::files::Lock;
use onggi_storage::Privilege;

use self::{plan::Places, records::Record};
use crate::{Engine, EngineError};

pub use plan::{MountOp, MountPlan};

/// CAP_SYS_ADMIN.
const SYS_ADMIN: u64 = 1 << 21;

/// One line of `image mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMount {
    /// The image's id.
    pub image: Digest,
    /// Its names; none when it was removed meanwhile.
    pub names: Vec<String>,
    /// Where.
    pub path: PathBuf,
    /// How often it was mounted and not unmounted.
    pub users: u32,
    /// In the caller's mount namespace.
    pub here: bool,
}

impl Engine {
    /// Mounts an image, on a directory or on one of ours; returns which. The layers cannot be collected meanwhile.
    ///
    /// # Errors
    /// No such image, no right to mount, or the kernel refuses.
    pub fn mount_image(&self, image: &str, dir: Option<&Path>) -> Result<PathBuf, EngineError> {
        self.require_mounting("mounting an image")?;
        let _keep = Lock::shared(&self.images_lock()?)?;
        let (mut record, plan) = self.planned_mount(image, dir)?;
        // The files of images, set-user-ID ones among them, are for whoever mounts them alone.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.image_mounts_dir())
            .map_err(|source| EngineError::MakeDir { path: self.image_mounts_dir(), source })?;
        let mut records = self.image_mount_records()?;
        if let Some(shared) = records.live.iter_mut().find(|r| r.own && record.own && r.same_view(&record)) {
            shared.users = shared.users.saturating_add(1);
            record = shared.clone();
            records.save()?;
            return Ok(record.target);
        }
        let place = record.target.clone();
        if records.live.iter().any(|r| r.target == place && r.namespace == record.namespace) {
            return Err(EngineError::Unsupported {
                what: format!("mounting on {}", place.display()),
                reason: "an image is mounted there already".to_owned(),
                hint: format!("onggi image unmount {}", place.display()),
            });
        }
        // Written down first: what is mounted is always known.
        records.live.push(record);
        records.save()?;
        let done = plan.ops.iter().try_for_each(apply::apply);
        if let Err(e) = done {
            let failed = records.live.pop();
            if failed.is_some_and(|record| record.own) && !records.uses(&place) {
                let _ = std::fs::remove_dir(&place);
            }
            records.save()?;
            return Err(e);
        }
        Ok(place)
    }

    /// What [`Self::mount_image`] would do.
    ///
    /// # Errors
    /// No such image.
    pub fn explain_mount_image(&self, image: &str, dir: Option<&Path>) -> Result<MountPlan, EngineError> {
        let (record, plan) = self.planned_mount(image, dir)?;
        let mounted = self.mounted_images()?;
        let shared = mounted.iter().find(|r| r.own && record.own && r.same_view(&record));
        Ok(shared.map_or(plan, |r| MountPlan::count(&r.target, r.users.saturating_add(1))))
    }

    fn planned_mount(&self, name: &str, dir: Option<&Path>) -> Result<(Record, MountPlan), EngineError> {
        let image = self.find_image(name)?;
        let base = self.image_mounts_dir();
        let target = match dir {
            None => base.join(image.config_digest.hex()),
            // As mountinfo will show it.
            Some(dir) => {
                let found = std::fs::canonicalize(dir).and_then(|d| match d.is_dir() {
                    true => Ok(d),
                    false => Err(std::io::ErrorKind::NotADirectory.into()),
                });
                found.map_err(|source| EngineError::MountPoint { path: dir.to_owned(), source })?
            }
        };
        let view = onggi_storage::image_view(&self.layers()?, &image.chain_ids)?;
        let places = Places { base: &base, target: &target, own: dir.is_none() };
        let userxattr = Privilege::of_this_process() == Privilege::Limited;
        let plan = MountPlan::mount(view, &places, image.config_digest.short(), userxattr);
        let record = Record {
            image: image.config_digest,
            chain_ids: image.chain_ids,
            target,
            own: dir.is_none(),
            users: 1,
            namespace: records::own_namespace(),
            mark: plan.mark.clone(),
        };
        Ok((record, plan))
    }

    /// One user less of a mounted image; the last one unmounts it, and so does `force`. `which` is an image or the place
    /// of a mount. Returns the image's id.
    ///
    /// # Errors
    /// It is not mounted, or a process uses it and `force` is false.
    pub fn unmount_image(&self, which: &str, force: bool) -> Result<Digest, EngineError> {
        self.require_mounting("unmounting an image")?;
        let mut records = self.image_mount_records()?;
        let at = self.mounted_at(&records.live, which)?;
        let plan = planned_unmount(&records, at, force)?;
        plan.ops.iter().try_for_each(apply::apply)?;
        let record = &mut records.live[at];
        let image = record.image.clone();
        if record.users > 1 && !force {
            record.users -= 1;
            records.save()?;
            return Ok(image);
        }
        records.live.remove(at);
        records.save()?;
        drop(records);
        self.collect_after(&image)?;
        Ok(image)
    }

    /// What [`Self::unmount_image`] would do.
    ///
    /// # Errors
    /// It is not mounted.
    pub fn explain_unmount_image(&self, which: &str, force: bool) -> Result<MountPlan, EngineError> {
        let records = self.image_mount_records()?;
        planned_unmount(&records, self.mounted_at(&records.live, which)?, force)
    }

    /// What is mounted, in order of place.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn image_mounts(&self) -> Result<Vec<ImageMount>, EngineError> {
        let here = records::own_namespace();
        let mut all = Vec::new();
        for record in self.mounted_images()? {
            let names = self.names_of(&record.image)?;
            let (path, users) = (record.target, record.users);
            all.push(ImageMount { image: record.image, names, path, users, here: record.namespace == here });
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// The record that a place, a name or an id means.
    fn mounted_at(&self, live: &[Record], which: &str) -> Result<usize, EngineError> {
        let place = std::fs::canonicalize(which).ok();
        let here = records::own_namespace();
        let by_place = |r: &Record| place.as_ref() == Some(&r.target) && r.namespace == here;
        if let Some(at) = live.iter().position(by_place) {
            return Ok(at);
        }
        let id = self.find_image(which).ok().map(|image| image.config_digest);
        let bare = which.strip_prefix("sha256:").unwrap_or(which);
        let meant = |r: &Record| match &id {
            Some(id) => r.image == *id,
            // Of an image that was removed.
            None => bare.len() >= 12 && r.image.hex().starts_with(bare),
        };
        let mut found: Vec<usize> = (0..live.len()).filter(|at| meant(&live[*at])).collect();
        found.sort_by_key(|at| (live[*at].namespace != here, !live[*at].own));
        let foreign = |at: &usize| live[*at].namespace == here && !live[*at].own;
        let several = || foreign(&found[0]) && found.iter().filter(|at| foreign(at)).count() > 1;
        match found.first() {
            None => Err(EngineError::Unsupported {
                what: format!("unmounting {which}"),
                reason: "it is not mounted".to_owned(),
                hint: "`onggi image mounts` lists what is".to_owned(),
            }),
            Some(_) if several() => Err(EngineError::Unsupported {
                what: format!("unmounting {which}"),
                reason: "it is mounted at several places".to_owned(),
                hint: "name the place: `onggi image mounts` lists them".to_owned(),
            }),
            Some(at) => Ok(*at),
        }
    }

    /// Refuses what the kernel would, in words.
    fn require_mounting(&self, what: &str) -> Result<(), EngineError> {
        if self.facts().effective_caps & SYS_ADMIN != 0 {
            return Ok(());
        }
        let (root, runroot) = (self.paths.root.display(), self.paths.runroot.display());
        Err(EngineError::Unsupported {
            what: what.to_owned(),
            reason: "only root of a mount namespace may".to_owned(),
            hint: format!(
                "open a shell in one of your own with `onggi ns run --map-root-user --mount`, and in it give your \
                 directories: onggi --root {root} --runroot {runroot} image mount IMAGE"
            ),
        })
    }

    /// An image that is mounted is used. With `force` the views that can be reached are detached.
    pub(crate) fn refuse_while_mounted(&self, id: &Digest, force: bool) -> Result<(), EngineError> {
        let mut mounted = self.mounted_images()?;
        mounted.retain(|record| record.image == *id);
        let here = records::own_namespace();
        match mounted.iter().find(|record| !force || record.namespace != here) {
            Some(record) => {
                Err(EngineError::ImageMounted { image: id.short().to_owned(), path: record.target.clone() })
            }
            None => mounted
                .iter()
                .try_for_each(|record| self.unmount_image(&record.target.to_string_lossy(), true).map(drop)),
        }
    }

    /// Layers that are part of a view.
    pub(crate) fn mounted_layers(&self) -> Result<std::collections::HashSet<Digest>, EngineError> {
        Ok(self.mounted_images()?.into_iter().flat_map(|record| record.chain_ids).collect())
    }
}

impl Record {
    /// They could share a mount.
    fn same_view(&self, other: &Self) -> bool {
        self.image == other.image && self.namespace == other.namespace
    }
}

fn planned_unmount(records: &records::Records, at: usize, force: bool) -> Result<MountPlan, EngineError> {
    let record = &records.live[at];
    if record.namespace != records::own_namespace() {
        return Err(EngineError::Unsupported {
            what: format!("unmounting {}", record.target.display()),
            reason: "it is mounted in another mount namespace".to_owned(),
            hint: "run this command in there; `onggi ns ls -t mnt` shows whose it is".to_owned(),
        });
    }
    if record.users > 1 && !force {
        return Ok(MountPlan::count(&record.target, record.users - 1));
    }
    let others = records.live.iter().filter(|r| r.target == record.target).count() > 1;
    Ok(MountPlan::unmount(&record.target, force, record.own && !others))
}

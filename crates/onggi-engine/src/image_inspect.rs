//! `image inspect`: Docker's JSON of an image, and for each of its layers every name that it has.
//!
//! A layer is known by the digest of its blob (what registries keep), by its DiffID (of the tar in it), by its ChainID (of it
//! on top of those below, `sha256(ChainID below + " " + DiffID)`), and by its cache id: the name of the directory below
//! `layers/` that it is unpacked in. Docker makes up cache ids and keeps them in `layerdb/sha256/<ChainID>/cache-id`;
//! here the directory is named after the ChainID itself, so it can be computed.

use onggi_state::ImageRecord;
use serde_json::{Map, Value, json};

use crate::{Engine, EngineError, inspect::rfc3339};

impl Engine {
    pub(crate) fn inspect_image(&self, image: &ImageRecord) -> Result<Value, EngineError> {
        let all = self.state()?.list_images()?;
        let names: Vec<&ImageRecord> = all.iter().filter(|i| i.config_digest == image.config_digest).collect();
        let config = self.stored_config(&image.config_digest)?;
        let tags: Vec<String> =
            names.iter().filter_map(|i| i.name.as_ref()).filter(|n| n.tag().is_some()).map(|n| n.familiar()).collect();
        let mut digests: Vec<String> = names
            .iter()
            .filter_map(|i| Some(format!("{}@{}", i.name.as_ref()?.familiar_name(), i.manifest_digest)))
            .collect();
        digests.dedup();
        let last = config.history.last();
        let mut value = json!({
            "Id": image.config_digest.as_str(),
            "Digest": image.manifest_digest.as_str(),
            "RepoTags": tags,
            "RepoDigests": digests,
            "Parent": "",
            "Comment": last.and_then(|h| h.comment.clone()).unwrap_or_default(),
            "Created": rfc3339(image.created),
            "Author": config.author.clone().unwrap_or_default(),
            "Architecture": config.architecture,
            "Os": config.os,
            "Size": image.size,
            "VirtualSize": image.size,
            "Config": config.config,
            "GraphDriver": self.image_graph_driver(image)?,
            "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
            "ChainIDs": image.chain_ids,
            "Layers": self.image_layers(image, &config.rootfs.diff_ids)?,
            "History": config.history,
            "Metadata": { "LastTagTime": rfc3339(image.pulled_at) },
        });
        if let (Some(variant), Value::Object(map)) = (config.variant, &mut value) {
            map.insert("Variant".to_owned(), variant.into());
        }
        Ok(value)
    }

    /// Every name of every layer, lowest first.
    fn image_layers(&self, image: &ImageRecord, diff_ids: &[onggi_spec::Digest]) -> Result<Vec<Value>, EngineError> {
        let store = self.layers()?;
        let mut layers = Vec::new();
        for (at, (chain_id, diff_id)) in image.chain_ids.iter().zip(diff_ids).enumerate() {
            let size = store.get(chain_id)?.map(|info| info.size);
            layers.push(json!({
                "Digest": image.layer_digests.get(at),
                "DiffID": diff_id,
                "ChainID": chain_id,
                "CacheID": chain_id.hex(),
                "Directory": store.diff_dir(chain_id),
                "Size": size,
            }));
        }
        Ok(layers)
    }

    /// The directories that a container's root would be mounted from, as Docker names them.
    fn image_graph_driver(&self, image: &ImageRecord) -> Result<Value, EngineError> {
        let store = self.layers()?;
        let dirs: Vec<String> =
            image.chain_ids.iter().rev().map(|id| store.diff_dir(id).display().to_string()).collect();
        let mut data = Map::new();
        if let Some((top, below)) = dirs.split_first() {
            data.insert("UpperDir".to_owned(), top.clone().into());
            if !below.is_empty() {
                data.insert("LowerDir".to_owned(), below.join(":").into());
            }
        }
        Ok(json!({ "Name": self.driver_kind()?.name(), "Data": data }))
    }
}

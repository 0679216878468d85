//! `image inspect`: Docker's JSON of an image, and for each of its layers every name that it has.
//!
//! A layer is known by the digest of its blob (what registries keep), by its DiffID (of the tar in it), by its ChainID (of it
//! on top of those below, `sha256(ChainID below + " " + DiffID)`), and by its cache id: the name of the directory below
//! `layers/` that it is unpacked in. Docker makes up cache ids and keeps them in `layerdb/sha256/<ChainID>/cache-id`;
//! here the directory is named after the ChainID itself, so it can be computed.

use onggi_spec::image::ContainerConfig;
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
        Ok(json!({
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
            "DockerVersion": "",
            "Variant": config.variant.as_deref().unwrap_or_default(),
            "Config": in_full(&config.config),
            "GraphDriver": self.image_graph_driver(image)?,
            "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
            "ChainIDs": image.chain_ids,
            "Layers": self.image_layers(image, &config.rootfs.diff_ids)?,
            "History": config.history,
            "Metadata": { "LastTagTime": rfc3339(image.pulled_at) },
        }))
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

/// The configuration with every member that Docker's templates may name: what is not set is empty, not absent.
fn in_full(config: &ContainerConfig) -> Value {
    let mut full = json!({
        "User": "", "WorkingDir": "", "StopSignal": "", "Healthcheck": null,
        "Env": [], "Entrypoint": [], "Cmd": [], "OnBuild": [], "Shell": [],
        "ExposedPorts": {}, "Volumes": {}, "Labels": {},
    });
    if let (Value::Object(full), Value::Object(set)) = (&mut full, json!(config)) {
        full.extend(set);
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_does_not_set_is_empty_and_what_it_sets_is_shown() {
        let config = ContainerConfig { user: "5".to_owned(), cmd: Some(vec!["sh".to_owned()]), ..Default::default() };
        let full = in_full(&config);
        assert_eq!((&full["User"], &full["Cmd"]), (&json!("5"), &json!(["sh"])));
        assert_eq!((&full["WorkingDir"], &full["Entrypoint"], &full["Labels"]), (&json!(""), &json!([]), &json!({})));
        assert!(full["Healthcheck"].is_null());
    }
}

//! `history`: the steps that an image was made by, newest first.

use onggi_spec::Digest;

use crate::{Engine, EngineError, pull};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image's id at its last step; other steps have none any more.
    pub id: Option<Digest>,
    /// Unix time in nanoseconds; 0 when it is not known.
    pub created: i64,
    /// The command.
    pub created_by: String,
    /// Bytes of the step's layer; 0 when it made none.
    pub size: u64,
    /// The comment.
    pub comment: String,
    /// Names of the image, at its last step.
    pub tags: Vec<String>,
}

impl Engine {
    /// The steps of an image, newest first.
    ///
    /// # Errors
    /// No such image.
    pub fn history(&self, name: &str) -> Result<Vec<HistoryEntry>, EngineError> {
        let image = self.find_image(name)?;
        let config = self.stored_config(&image.config_digest)?;
        let store = self.layers()?;
        let mut layers = image.chain_ids.iter();
        let mut steps = Vec::new();
        for step in &config.history {
            let layer = if step.empty_layer == Some(true) { None } else { layers.next() };
            let size = layer.map(|id| store.get(id)).transpose()?.flatten().map_or(0, |info| info.size);
            steps.push(HistoryEntry {
                id: None,
                created: pull::created(step.created.as_deref()),
                created_by: step.created_by.clone().unwrap_or_default(),
                size,
                comment: step.comment.clone().unwrap_or_default(),
                tags: Vec::new(),
            });
        }
        // Layers that the history says nothing of.
        for id in layers {
            let size = store.get(id)?.map_or(0, |info| info.size);
            steps.push(HistoryEntry {
                id: None,
                created: image.created,
                created_by: String::new(),
                size,
                comment: String::new(),
                tags: Vec::new(),
            });
        }
        steps.reverse();
        if let Some(last) = steps.first_mut() {
            last.id = Some(image.config_digest.clone());
            last.tags = self.names_of(&image.config_digest)?;
        }
        Ok(steps)
    }
}

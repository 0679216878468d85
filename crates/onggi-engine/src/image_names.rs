//! `image untag`, `exists`, `tree`: what is done with stored images beside listing and removing them.

use onggi_spec::{Digest, ImageReference};
use onggi_state::{ImageRecord, StateError};

use crate::{Engine, EngineError};

/// A layer in the tree of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeLayer {
    /// ChainID.
    pub chain_id: Digest,
    /// Bytes of file content.
    pub size: u64,
    /// Images whose topmost layer it is.
    pub top_of: Vec<String>,
}

impl Engine {
    /// Takes names away from an image; all of them when none is given. The image stays.
    ///
    /// # Errors
    /// No such image, or a name is another image's.
    pub fn untag(&self, image: &str, names: &[String]) -> Result<Vec<ImageReference>, EngineError> {
        let gone = self.untagged(image, names)?;
        for name in &gone {
            self.state()?.take_name(name)?;
        }
        Ok(gone)
    }

    /// The names that [`Engine::untag`] takes away.
    pub(crate) fn untagged(&self, image: &str, names: &[String]) -> Result<Vec<ImageReference>, EngineError> {
        let record = self.find_image(image)?;
        let all = self.state()?.list_images()?;
        let own: Vec<ImageReference> =
            all.into_iter().filter(|i| i.config_digest == record.config_digest).filter_map(|i| i.name).collect();
        let mut gone = Vec::new();
        for name in names {
            let reference: ImageReference = name.parse()?;
            if !own.contains(&reference) {
                return Err(StateError::ImageNotFound { reference: name.clone() }.into());
            }
            gone.push(reference);
        }
        Ok(if names.is_empty() { own } else { gone })
    }

    /// True when a name or an id means an image.
    ///
    /// # Errors
    /// The state cannot be read, or the id is not unique.
    pub fn image_exists(&self, name: &str) -> Result<bool, EngineError> {
        match self.find_image(name) {
            Ok(_) => Ok(true),
            Err(EngineError::State(StateError::ImageNotFound { .. })) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// An image and its layers, lowest first.
    ///
    /// # Errors
    /// No such image.
    pub fn image_tree_of(&self, name: &str) -> Result<(ImageRecord, Vec<String>, Vec<TreeLayer>), EngineError> {
        let image = self.find_image(name)?;
        let all = self.state()?.list_images()?;
        let store = self.layers()?;
        let mut layers = Vec::new();
        for chain_id in &image.chain_ids {
            let size = store.get(chain_id)?.map_or(0, |info| info.size);
            let tops = all.iter().filter(|i| i.chain_ids.last() == Some(chain_id));
            let top_of = tops.filter_map(|i| i.name.as_ref()).map(ImageReference::familiar).collect();
            layers.push(TreeLayer { chain_id: chain_id.clone(), size, top_of });
        }
        let names = self.names_of(&image.config_digest)?;
        Ok((image, names, layers))
    }
}

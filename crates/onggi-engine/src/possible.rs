//! What a container's processes can ever be allowed.

use onggi_spec::{capability, oci::runtime::Spec};

use crate::{Engine, EngineError, json};

impl Engine {
    /// The bounding set of a container's last start, as a mask.
    ///
    /// # Errors
    /// No such container, or its configuration cannot be read.
    pub fn possible_capabilities(&self, name: &str) -> Result<u64, EngineError> {
        let record = self.find(name)?;
        let spec: Option<Spec> = json::read_optional(&self.paths.bundle(&record.id).join("config.json"))?;
        let sets = spec.and_then(|s| s.process).and_then(|p| p.capabilities).unwrap_or_default();
        Ok(sets.bounding.iter().filter_map(|name| capability::number(name)).fold(0, |mask, n| mask | 1 << n))
    }
}

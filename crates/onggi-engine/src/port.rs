//! `port`: where a container's ports are published.

use onggi_spec::port::{PortMapping, Protocol};

use crate::{Engine, EngineError};

impl Engine {
    /// The published ports of a container, by container port; none of one that does not run. With `of`, those of that port.
    ///
    /// # Errors
    /// No such container, or nothing is published of the port that was asked for.
    pub fn ports(&self, name: &str, of: Option<(u16, Protocol)>) -> Result<Vec<PortMapping>, EngineError> {
        self.recover()?;
        let record = self.find(name)?;
        let status = self.status(&record.id)?;
        let mut ports = self.published(&record, &status)?;
        ports.sort_by_key(|p| (p.container_port, p.protocol, p.host_ip, p.host_port));
        let Some((port, protocol)) = of else { return Ok(ports) };
        ports.retain(|p| p.container_port.get() == port && p.protocol == protocol);
        match ports.is_empty() {
            true => Err(EngineError::NotPublished {
                name: record.name.to_string(),
                port: format!("{port}/{protocol}"),
                state: status.name(),
            }),
            false => Ok(ports),
        }
    }
}

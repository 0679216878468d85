//! Random ids and names.

use onggi_spec::{ContainerId, ContainerName, names};
use onggi_sys::SysError;

use crate::EngineError;

/// A fresh container id.
pub(crate) fn random_id() -> Result<ContainerId, EngineError> {
    Ok(ContainerId::from_random(random()?))
}

/// A name such as `calm_heron`; may be taken already.
pub(crate) fn random_name(attempt: u32) -> Result<ContainerName, EngineError> {
    Ok(names::generate(u64::from_le_bytes(random()?), attempt))
}

fn random<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0u8; N];
    let failed =
        |errno| EngineError::Sys { op: "draw random bytes".into(), source: SysError::new("getrandom", "", errno) };
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).map_err(failed)?;
    }
    Ok(bytes)
}

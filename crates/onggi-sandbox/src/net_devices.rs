//! Network devices on their way into a container, and back when its creation fails.
//!
//! Done by the runtime from its own network namespace, while the child waits. A device keeps its attributes and
//! its permanent addresses of global scope and is up afterwards, as the specification and runc have it.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use onggi_sys::{
    Errno,
    link::{self, Device, Links},
};

use crate::{
    error::{Result, StartFailureError, Step},
    plan::NetDevice,
    sources,
};

/// Devices that were moved, with everything that is needed to move them back.
#[derive(Debug)]
pub(crate) struct Moved {
    host: OwnedFd,
    container: OwnedFd,
    devices: Vec<(NetDevice, Device)>,
}

/// Moves `devices` to the network namespace of `pid`. After a failure none has moved.
pub(crate) fn move_all(pid: i32, devices: &[NetDevice]) -> Result<Moved> {
    let step = || "open the network namespaces".to_string();
    let host = link::own_namespace().step(step)?;
    let container = sources::open(&Path::new("/proc").join(pid.to_string()).join("ns/net")).step(step)?;
    if link::same(&host, &container).step(step)? {
        return Err(StartFailureError::new("unable to move network devices without a private NET namespace"));
    }
    let (outside, inside) = (Links::own().step(step)?, Links::of(container.as_fd(), host.as_fd()).step(step)?);
    let mut moved = Moved { host, container, devices: Vec::new() };
    for device in devices {
        if let Err(e) = move_one(&outside, &inside, device, &mut moved) {
            moved.give_back();
            return Err(e);
        }
    }
    Ok(moved)
}

fn move_one(outside: &Links, inside: &Links, device: &NetDevice, moved: &mut Moved) -> Result<()> {
    let step = || device.words();
    let found = outside.find(&device.name).map_err(|e| {
        let failure = StartFailureError::from_sys(step(), &e);
        match e.errno {
            Errno::NODEV => failure.hint(format!("{} does not exist in the runtime's network namespace", device.name)),
            _ => failure,
        }
    })?;
    outside.move_device(&found, moved.container.as_fd(), &device.new_name).step(step)?;
    moved.devices.push((device.clone(), found));
    let Some((_, found)) = moved.devices.last() else { return Ok(()) };
    inside.configure(&device.new_name, found, true).step(step)
}

impl Moved {
    /// Best effort: the failure that led here is the one that is reported.
    pub(crate) fn give_back(&mut self) {
        let (Ok(outside), Ok(inside)) = (Links::own(), Links::of(self.container.as_fd(), self.host.as_fd())) else {
            return;
        };
        for (names, device) in self.devices.drain(..).rev() {
            let back =
                inside.find(&names.new_name).and_then(|d| inside.move_device(&d, self.host.as_fd(), &names.name));
            if back.is_ok() {
                let _ = outside.configure(&names.name, &device, device.up);
            }
        }
    }
}

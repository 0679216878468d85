//! Carries a plan out: one operation, one request to the kernel, in the namespace that it names.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use onggi_sys::{Errno, SysError, netns, trace};

use super::{
    HandOp, HandPlan, Place,
    look::{inside, open},
};
use crate::{
    error::NetworkError,
    socket::Socket,
    sysctl,
    wire::{Batch, hand, nft, route, rules},
};

impl HandPlan {
    /// Does every operation. What another process did meanwhile is no error where it is the same.
    ///
    /// # Errors
    /// The kernel refuses; what was done before stays.
    pub fn apply(&self) -> Result<(), NetworkError> {
        self.ops.iter().try_for_each(|op| trace::step("network", || op.words(), || one(op)))
    }
}

fn one(op: &HandOp) -> Result<(), NetworkError> {
    match op {
        HandOp::CreateNamespace { path } => create_namespace(path),
        HandOp::CreateVeth { a, b, alias } => {
            let there = open(&b.place)?;
            let mut batch = Batch::default();
            hand::create_pair(&mut batch, &a.link, &b.link, Some(there.as_fd()));
            if let Some(alias) = alias {
                hand::set_alias(&mut batch, &a.link, alias);
            }
            send(&a.place, batch, None)
        }
        HandOp::CreateBridge { link } => {
            let mut batch = Batch::default();
            hand::create_bridge(&mut batch, link);
            send(&Place::host(), batch, None)
        }
        HandOp::SetMaster { link, bridge } => {
            let index = index(&Place::host(), bridge)?;
            let mut batch = Batch::default();
            hand::set_master(&mut batch, link, index);
            send(&Place::host(), batch, None)
        }
        HandOp::AddAddress { end, address } => {
            let index = index(&end.place, &end.link)?;
            let mut batch = Batch::default();
            hand::add_address(&mut batch, index, *address);
            send(&end.place, batch, Some(Errno::EXIST))
        }
        HandOp::LinkUp { end } => {
            let mut batch = Batch::default();
            route::link_up(&mut batch, &end.link);
            send(&end.place, batch, None)
        }
        HandOp::AddDefaultRoute { place, via } => {
            let mut batch = Batch::default();
            hand::add_default_route(&mut batch, *via);
            send(place, batch, Some(Errno::EXIST))
        }
        HandOp::Sysctl { key, value } => sysctl::write(key, value),
        HandOp::InstallNat { table, subnet, bridge } => firewall(|batch| rules::install(batch, table, *subnet, bridge)),
        HandOp::RemoveNat { table } => firewall(|batch| rules::remove(batch, table)),
        HandOp::DeleteLink { end } => {
            let mut batch = Batch::default();
            route::delete_link(&mut batch, &end.link);
            send(&end.place, batch, Some(Errno::NODEV))
        }
    }
}

fn socket(place: &Place) -> Result<Socket, NetworkError> {
    let fd = open(place)?;
    inside(place, &fd, Socket::route)
        .map_err(|source| NetworkError::Call { operation: "enter a network namespace", source })?
}

fn send(place: &Place, mut batch: Batch, fine: Option<Errno>) -> Result<(), NetworkError> {
    socket(place)?.change(&mut batch, |_, errno| Some(errno) == fine)
}

fn index(place: &Place, link: &str) -> Result<u32, NetworkError> {
    let mut batch = Batch::default();
    route::get_link(&mut batch, link);
    let found = socket(place)?.ask(&mut batch, route::link)?;
    found.first().map(|link| link.index).ok_or_else(|| {
        let operation = format!("find {link} in {}", place.name);
        let source = SysError::new("netlink", operation.clone(), Errno::NODEV);
        NetworkError::Request { operation, message: String::new(), source }
    })
}

fn firewall(fill: impl FnOnce(&mut Batch)) -> Result<(), NetworkError> {
    let mut batch = Batch::default();
    nft::begin(&mut batch, None);
    fill(&mut batch);
    nft::end(&mut batch);
    Socket::netfilter()?.change(&mut batch, |_, _| false)
}

/// As ip-netns(8): a file on which the namespace is mounted.
fn create_namespace(path: &Path) -> Result<(), NetworkError> {
    let setting = |source| NetworkError::Setting { operation: "create", path: path.display().to_string(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(setting)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        other => drop(other.map_err(setting)?),
    }
    let failed = |source| NetworkError::Call { operation: "create a network namespace", source };
    let made: Result<(OwnedFd, ()), _> = netns::create(|| ());
    let done = made.and_then(|(fd, ())| {
        use std::os::fd::AsRawFd as _;
        let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::mount::mount_bind(&source, path).map_err(|e| SysError::new("mount", format!("{source:?}, {path:?}"), e))
    });
    if done.is_err() {
        // An empty file would be taken for a namespace by name.
        let _ = fs::remove_file(path);
    }
    done.map_err(failed)
}

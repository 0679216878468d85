//! Firewall transactions: the table where it is missing, elements of a container, all or nothing.
//!
//! Several processes do this at once and others edit the ruleset too. A table is only installed if nothing changed
//! since it was found missing (the kernel compares the generation); whoever loses looks again.

use std::{collections::BTreeSet, path::Path};

use onggi_spec::ContainerId;
use onggi_sys::Errno;

use crate::{
    detach::{delete, holders},
    element::Element,
    error::{NetworkError, Obstacle},
    facts::{bridge_subnet, table},
    plan::{NetOp, NetworkPlan, heal_ops, install_op, published_elements},
    record,
    socket::Socket,
    table::{CHAINS, SETS},
    types::NetworkRecord,
    wire::{Batch, nft},
};

/// How often the ruleset may change under us before we give up.
const TRIES: u32 = 24;

/// Carries out the firewall operations of one plan as one transaction.
pub(crate) fn commit(runroot: &Path, record: Option<&NetworkRecord>, ops: &[&NetOp]) -> Result<(), NetworkError> {
    if ops.is_empty() {
        return Ok(());
    }
    let socket = Socket::netfilter()?;
    let mut transaction = Transaction { ops: ops.iter().copied().cloned().collect(), replaced: Vec::new() };
    for _ in 0..TRIES {
        match transaction.send(&socket) {
            Ok(()) => return transaction.forget_detached(&socket, runroot),
            Err(e) if e.is_stale() => transaction.plan_again(&table(&socket, runroot)?, record),
            Err(e) => transaction.replaced = own_elements(&socket, record, e)?,
        }
    }
    Err(NetworkError::Busy)
}

/// What [`heal`] would do: no operations where nothing is missing, or where there is no bridge.
///
/// # Errors
/// When the kernel's tables cannot be read.
pub fn heal_plan(runroot: &Path) -> Result<NetworkPlan, NetworkError> {
    let ops = match bridge_subnet(&Socket::route()?)? {
        Some(subnet) => heal_ops(&table(&Socket::netfilter()?, runroot)?, subnet),
        None => Vec::new(),
    };
    Ok(NetworkPlan { record: None, ops, warnings: Vec::new() })
}

/// Rebuilds a flushed or damaged table at once, with the ports of every container that has a record; the same
/// happens whenever a container is attached. True when there was something to do.
///
/// # Errors
/// When the kernel refuses; `Busy` when the ruleset never stops changing.
pub fn heal(runroot: &Path) -> Result<bool, NetworkError> {
    let Some(subnet) = bridge_subnet(&Socket::route()?)? else { return Ok(false) };
    let socket = Socket::netfilter()?;
    for _ in 0..TRIES {
        let transaction = Transaction { ops: heal_ops(&table(&socket, runroot)?, subnet), replaced: Vec::new() };
        if transaction.ops.is_empty() {
            return Ok(false);
        }
        match transaction.send(&socket) {
            Err(e) if e.is_stale() => {}
            result => return result.and_then(|()| transaction.forget_detached(&socket, runroot)).map(|()| true),
        }
    }
    Err(NetworkError::Busy)
}

/// `EEXIST`: a port is published already. By another container: then it was faster. By this one: then a neighbour
/// that rebuilt the table did it for us from our record, or an earlier run left it; those are replaced.
fn own_elements(
    socket: &Socket,
    record: Option<&NetworkRecord>,
    error: NetworkError,
) -> Result<Vec<Element>, NetworkError> {
    let NetworkError::Request { source, .. } = &error else { return Err(error) };
    let Some(record) = record.filter(|_| source.errno == Errno::EXIST) else { return Err(error) };
    let held = holders(socket, record)?;
    if let Some((port, rival)) = held.iter().find(|(_, owner)| *owner != record.id) {
        return Err(NetworkError::port(port, Obstacle::Container(rival.clone())));
    }
    let ours = |e: &Element| matches!(e, Element::Published { port, .. } if held.iter().any(|(p, _)| p == port));
    Ok(published_elements(record).filter(ours).collect())
}

struct Transaction {
    ops: Vec<NetOp>,
    /// Elements that are deleted first, so that they can be added.
    replaced: Vec<Element>,
}

impl Transaction {
    fn plan_again(&mut self, table: &crate::facts::TableFacts, record: Option<&NetworkRecord>) {
        self.replaced.clear();
        self.ops.retain(|op| matches!(op, NetOp::AddElements { .. }));
        self.ops.splice(0..0, install_op(table, record));
    }

    fn send(&self, socket: &Socket) -> Result<(), NetworkError> {
        let seen = self.ops.iter().find_map(|op| match op {
            NetOp::InstallTable { generation, .. } => *generation,
            _ => None,
        });
        let mut batch = Batch::default();
        nft::begin(&mut batch, seen);
        nft::delete_elements(&mut batch, &self.replaced);
        for op in &self.ops {
            match op {
                NetOp::InstallTable { restore, .. } => install(&mut batch, restore),
                NetOp::AddElements { elements } => nft::add_elements(&mut batch, elements),
                _ => {}
            }
        }
        nft::end(&mut batch);
        socket.change(&mut batch, |_, _| false)
    }

    /// A container that was detached while we restored its ports has looked for them in vain; it removed its
    /// record before it looked, so that we notice here.
    fn forget_detached(&self, socket: &Socket, runroot: &Path) -> Result<(), NetworkError> {
        let restored = self.ops.iter().find_map(|op| match op {
            NetOp::InstallTable { restore, .. } if !restore.is_empty() => Some(restore),
            _ => None,
        });
        let Some(restored) = restored else { return Ok(()) };
        let recorded: BTreeSet<ContainerId> = record::all(runroot).into_iter().map(|r| r.id).collect();
        let gone = |e: &&Element| e.owner().is_some_and(|id| !recorded.contains(id));
        for element in restored.iter().filter(gone) {
            match delete(socket, std::slice::from_ref(element)) {
                Err(NetworkError::Request { source, .. }) if source.errno == Errno::NOENT => {}
                result => result?,
            }
        }
        Ok(())
    }
}

fn install(batch: &mut Batch, restore: &[Element]) {
    nft::replace_table(batch);
    for (number, set) in (1..).zip(SETS) {
        nft::add_set(batch, set, number);
    }
    for chain in CHAINS {
        nft::add_chain(batch, chain);
        for rule in chain.rules {
            nft::add_rule(batch, chain.name, rule);
        }
    }
    nft::add_elements(batch, restore);
}

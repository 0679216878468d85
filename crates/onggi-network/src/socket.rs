//! A netlink socket with our batches: sends one, turns the first refusal into a named error.

use onggi_sys::{
    Errno, SysError,
    netlink::{Answer, Body, NetlinkSocket, Protocol},
};

use crate::{error::NetworkError, wire::Batch};

/// Dumps that the kernel's tables overtake are asked again, this many times.
const DUMP_TRIES: u32 = 8;

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket(NetlinkSocket);

impl Socket {
    /// rtnetlink.
    pub(crate) fn route() -> Result<Self, NetworkError> {
        open(Protocol::Route)
    }

    /// nfnetlink.
    pub(crate) fn netfilter() -> Result<Self, NetworkError> {
        open(Protocol::Netfilter)
    }

    /// Sends changes; an error number for which `ignore(seq, errno)` holds is success.
    pub(crate) fn change(&self, batch: &mut Batch, ignore: impl Fn(u32, Errno) -> bool) -> Result<(), NetworkError> {
        if batch.last() == 0 {
            return Ok(());
        }
        let answers = self.send(batch)?;
        let refusal = answers.iter().find_map(|a| match &a.body {
            Body::Refused { errno, message } if !ignore(a.seq, *errno) => Some((a.seq, *errno, message)),
            _ => None,
        });
        match refusal {
            Some((seq, errno, message)) => Err(refused(batch, seq, errno, message)),
            None => acknowledged(batch, &answers),
        }
    }

    /// Sends questions; each object that comes back is read with `read`. `ENOENT`/`ENODEV` of a single
    /// question just means no object.
    pub(crate) fn ask<T>(
        &self,
        batch: &mut Batch,
        read: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetworkError> {
        self.ask_each(batch, |_, kind, payload| read(kind, payload))
    }

    /// As `ask`, with the sequence number of the question.
    pub(crate) fn ask_each<T>(
        &self,
        batch: &mut Batch,
        read: impl Fn(u32, u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetworkError> {
        let mut tries = 0;
        let answers = loop {
            tries += 1;
            match self.send(batch) {
                Err(NetworkError::Call { source, .. }) if source.errno == Errno::INTR && tries < DUMP_TRIES => {}
                other => break other?,
            }
        };
        let mut found = Vec::new();
        for Answer { seq, body } in &answers {
            match body {
                Body::Data { kind, payload } => found.extend(read(*seq, *kind, payload)),
                Body::Refused { errno: Errno::NOENT | Errno::NODEV, .. } | Body::Ack | Body::Done => {}
                Body::Refused { errno, message } => return Err(refused(batch, *seq, *errno, message)),
            }
        }
        Ok(found)
    }

    fn send(&self, batch: &mut Batch) -> Result<Vec<Answer>, NetworkError> {
        let operation = batch.label(1).to_owned();
        let (bytes, last) = batch.finish().map_err(|_| NetworkError::TooLong { operation })?;
        self.0
            .transact(bytes, last)
            .map_err(|source| NetworkError::Call { operation: "talk to the kernel over netlink", source })
    }
}

fn open(protocol: Protocol) -> Result<Socket, NetworkError> {
    let open = NetlinkSocket::open(protocol);
    open.map(Socket).map_err(|source| NetworkError::Call { operation: "open a netlink socket", source })
}

/// A batch that nobody answered was not carried out.
fn acknowledged(batch: &Batch, answers: &[Answer]) -> Result<(), NetworkError> {
    if answers.is_empty() { Err(refused(batch, batch.last(), Errno::PROTO, "no acknowledgement")) } else { Ok(()) }
}

fn refused(batch: &Batch, seq: u32, errno: Errno, message: &str) -> NetworkError {
    let operation = batch.label(seq).to_owned();
    let source = SysError::new("netlink", operation.clone(), errno);
    NetworkError::Request { operation, message: message.to_owned(), source }
}

//! Netlink messages as bytes: built with every length checked, read with every length checked.
//!
//! A netlink attribute's length is 16 bits wide. Writing a longer value without noticing is how one
//! container's data became another's attributes in CVE-2021-43784; here an overflow is remembered by the
//! batch and `finish` refuses to hand out a single byte. Pure: no sockets here.

pub(crate) mod conntrack;
pub(crate) mod hand;
pub(crate) mod nft;
pub(crate) mod route;
pub(crate) mod rules;

use std::fmt;

use onggi_sys::netlink::HEADER_LEN;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`, in the low byte of the flags.
const ACK: u8 = 4;
/// `NLM_F_EXCL`: fail when it exists.
pub(crate) const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`: create when it does not exist.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0x800;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Length of an attribute's header.
const ATTR_LEN: usize = 4;
/// A batch never grows beyond this: 10 000 published ports with their comments stay below 2 MiB.
const MAX_BATCH: usize = 8 * 1024 * 1024;

/// Why a batch cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a netlink message would exceed its length field")
    }
}

impl std::error::Error for TooLong {}

/// Messages that are sent in one system call. Sequence numbers start at 1.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    labels: Vec<String>,
    too_long: bool,
    /// Start of the last message, and the message whose answer ends the exchange.
    start: usize,
    barrier: Option<(usize, u32)>,
}

impl Batch {
    /// Appends a message: type, flags (besides `NLM_F_REQUEST`), the fixed header, then attributes.
    /// `label` names it in errors. Returns its sequence number.
    pub(crate) fn push(
        &mut self,
        label: impl Into<String>,
        (kind, flags): (u16, u16),
        header: &[u8],
        attributes: impl FnOnce(&mut Attrs<'_>),
    ) -> u32 {
        self.labels.push(label.into());
        let seq = self.labels.len() as u32;
        let start = self.bytes.len();
        self.start = start;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(seq.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(header);
        pad(&mut self.bytes);
        attributes(&mut Attrs { bytes: &mut self.bytes, too_long: &mut self.too_long });
        let length = self.bytes.len() - start;
        match u32::try_from(length) {
            Ok(length) if self.bytes.len() <= MAX_BATCH => {
                self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
            }
            _ => self.too_long = true,
        }
        seq
    }

    /// The bytes and the sequence number of the message whose answer ends the exchange (the last one unless
    /// `barrier` said otherwise; it asks for an acknowledgement), or the refusal when any length overflowed.
    pub(crate) fn finish(&mut self) -> Result<(&[u8], u32), TooLong> {
        let (start, seq) = self.barrier.unwrap_or((self.start, self.last()));
        if let Some(flags) = self.bytes.get_mut(start + 6).filter(|_| !self.too_long) {
            *flags |= ACK;
            return Ok((&self.bytes, seq));
        }
        Err(TooLong)
    }

    /// Makes the answer to the message pushed last end the exchange. Errors of others come before it, in order.
    pub(crate) fn barrier(&mut self) {
        self.barrier = Some((self.start, self.last()));
    }

    /// Sequence number of the message pushed last; 0 when empty.
    pub(crate) fn last(&self) -> u32 {
        self.labels.len() as u32
    }

    /// What message `seq` does.
    pub(crate) fn label(&self, seq: u32) -> &str {
        (seq as usize).checked_sub(1).and_then(|i| self.labels.get(i)).map_or("batch", String::as_str)
    }
}

/// Writes attributes into the current message.
pub(crate) struct Attrs<'a> {
    bytes: &'a mut Vec<u8>,
    too_long: &'a mut bool,
}

impl Attrs<'_> {
    /// Raw bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend(value);
        self.close(start);
    }

    /// A NUL-terminated string.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let start = self.open(kind);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.close(start);
    }

    /// One byte.
    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// A number in host order (rtnetlink).
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A number in network order (nfnetlink).
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Attributes inside an attribute.
    pub(crate) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.open(kind | NESTED);
        inner(&mut Attrs { bytes: self.bytes, too_long: self.too_long });
        self.close(start);
    }

    /// A fixed structure between attributes (the `ifinfomsg` inside `VETH_INFO_PEER`).
    pub(crate) fn raw(&mut self, structure: &[u8]) {
        self.bytes.extend(structure);
        pad(self.bytes);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => *self.too_long = true,
        }
        pad(self.bytes);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Walks attributes; stops at the first one whose length lies.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [l0, l1, k0, k1] = *rest.first_chunk::<ATTR_LEN>()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(ATTR_LEN..length)?;
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some((u16::from_ne_bytes([k0, k1]) & 0x3fff, value))
    })
}

/// The value of the first attribute of type `kind`.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// Text up to the first NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A number in host order.
pub(crate) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// A number in network order.
pub(crate) fn be_number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|b| u32::from_be_bytes(*b))
}

const _: () = assert!(HEADER_LEN == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_went_in() {
        let mut batch = Batch::default();
        batch.push("x", (16, 0), &[9; 3], |a| {
            a.string(3, "onggi0");
            a.nest(18, |n| n.u32(1, 7));
        });
        let (bytes, _) = batch.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(number(&bytes[..4]), Some(bytes.len() as u32));
        let body = &bytes[HEADER_LEN + 4..];
        assert_eq!(text(attribute(body, 3).unwrap()), "onggi0");
        assert_eq!(attribute(attribute(body, 18).unwrap(), 1).and_then(number), Some(7));
    }

    #[test]
    fn lengths_beyond_sixteen_bits_are_refused_not_truncated() {
        for (length, fits) in [(65_531, true), (65_532, false), (65_535, false), (65_536, false), (70_000, false)] {
            let mut batch = Batch::default();
            batch.push("x", (16, 0), &[], |a| a.bytes(1, &vec![0; length]));
            assert_eq!(batch.finish().is_ok(), fits, "value of {length} bytes");
            let mut batch = Batch::default();
            batch.push("x", (16, 0), &[], |a| a.nest(2, |n| n.bytes(1, &vec![0; length])));
            assert!(!fits || length > 65_520 || batch.finish().is_ok());
            assert!(fits || batch.finish().is_err(), "nested value of {length} bytes");
        }
    }

    #[test]
    fn a_batch_without_end_is_refused() {
        let mut batch = Batch::default();
        for _ in 0..200 {
            batch.push("x", (16, 0), &[], |a| a.bytes(1, &[0; 60_000]));
        }
        assert_eq!(batch.finish().unwrap_err(), TooLong);
    }

    #[test]
    fn hostile_attributes_end_the_walk() {
        for bytes in [&[0, 0, 1, 0][..], &[3, 0, 1, 0], &[255, 255, 1, 0, 1], &[4], &[]] {
            assert_eq!(attributes(bytes).count(), 0);
        }
        assert_eq!(attributes(&[4, 0, 1, 0, 5, 0, 2, 0, 9]).count(), 2);
    }
}

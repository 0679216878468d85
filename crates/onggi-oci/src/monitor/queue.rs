//! A bounded first-in-first-out queue of bytes that takes no memory while it is empty and idle.

use onggi_sys::resident::Region;

/// Bytes waiting for a slow reader.
#[derive(Debug)]
pub(super) struct ByteQueue {
    region: Option<Region>,
    capacity: usize,
    head: usize,
    len: usize,
}

/// The bytes do not fit; none of them was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl ByteQueue {
    /// At most `capacity` bytes (more than 0).
    pub(super) fn new(capacity: usize) -> Self {
        Self { region: None, capacity, head: 0, len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends all of `bytes` or nothing. Memory that the kernel refuses counts as full.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > self.capacity - self.len {
            return Err(Full);
        }
        if self.region.is_none() {
            self.region = Some(Region::new(self.capacity).map_err(|_| Full)?);
        }
        let (head, len) = (self.head, self.len);
        let Some(region) = self.region.as_deref_mut() else { return Err(Full) };
        if head + len + bytes.len() > region.len() {
            region.copy_within(head..head + len, 0);
            self.head = 0;
        }
        let end = self.head + len;
        region[end..end + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// The oldest bytes, in order.
    pub(super) fn front(&self) -> &[u8] {
        self.region.as_deref().map_or(&[], |r| &r[self.head..self.head + self.len])
    }

    /// Forgets the oldest `n` bytes.
    pub(super) fn consume(&mut self, n: usize) {
        let n = n.min(self.len);
        self.len -= n;
        self.head = if self.len == 0 { 0 } else { self.head + n };
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.consume(self.len);
    }

    /// Gives the memory of an empty queue back.
    pub(super) fn trim(&mut self) {
        if self.len == 0 {
            self.region = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_what_does_not_fit_is_refused_whole() {
        let mut queue = ByteQueue::new(8);
        assert!(queue.is_empty() && queue.front().is_empty());
        queue.push(b"abcdef").unwrap();
        queue.consume(4);
        queue.push(b"ghijkl").unwrap();
        assert_eq!(queue.front(), b"efghijkl");
        assert_eq!(queue.push(b"m"), Err(Full));
        queue.consume(3);
        queue.push(b"m").unwrap();
        assert_eq!(queue.front(), b"hijklm");
        queue.clear();
        queue.trim();
        assert!(queue.region.is_none());
        queue.push(b"again").unwrap();
        assert_eq!((queue.front(), queue.len()), (&b"again"[..], 5));
    }
}

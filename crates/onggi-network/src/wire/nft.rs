//! nf_tables messages (linux/netfilter/nf_tables.h): the table, its elements, and questions about them.
//!
//! Changes go inside `begin` … `end`: the kernel commits all of them or none.

use super::{APPEND, Attrs, Batch, CREATE, DUMP, EXCL, attribute, attributes, be_number, text};
use crate::{
    element::Element,
    table::{Chain, Expr, Rule, Set, TABLE},
};

/// NFNL_SUBSYS_NFTABLES << 8.
const NFT: u16 = 10 << 8;
const NEWTABLE: u16 = NFT;
const DELTABLE: u16 = NFT | 2;
const NEWCHAIN: u16 = NFT | 3;
const GETCHAIN: u16 = NFT | 4;
const NEWRULE: u16 = NFT | 6;
const GETRULE: u16 = NFT | 7;
const NEWSET: u16 = NFT | 9;
const NEWSETELEM: u16 = NFT | 12;
const GETSETELEM: u16 = NFT | 13;
const DELSETELEM: u16 = NFT | 14;
const NEWGEN: u16 = NFT | 15;
const GETGEN: u16 = NFT | 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// NFPROTO_IPV4.
const IPV4: u8 = 2;
const LIST_ELEM: u16 = 1;
/// NFTA_DATA_VALUE.
const VALUE: u16 = 1;
/// NFT_SET_ELEM_INTERVAL_END.
const INTERVAL_END: u32 = 1;
/// Elements per message: about 170 bytes each with the comment, so far below the 64 KiB of an attribute.
const PER_MESSAGE: usize = 200;
/// NF_ACCEPT as a chain's policy.
const POLICY_ACCEPT: u32 = 1;
/// NF_INET_FORWARD.
const FORWARD: u32 = 2;

/// `struct nfgenmsg`.
fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// Opens a transaction; with a generation it is refused (`ERESTART`) if anything changed since.
pub(crate) fn begin(batch: &mut Batch, generation: Option<u32>) {
    batch.push("begin transaction", (BATCH_BEGIN, 0), &[0, 0, 0, 10], |a| {
        if let Some(generation) = generation {
            a.be32(1, generation);
        }
    });
}

/// Closes a transaction. Its last change is acknowledged: old kernels do not acknowledge the closing message.
pub(crate) fn end(batch: &mut Batch) {
    batch.barrier();
    batch.push("commit transaction", (BATCH_END, 0), &[0, 0, 0, 10], |_| {});
}

/// An empty table in place of whatever was there.
pub(crate) fn replace_table(batch: &mut Batch) {
    let name = |a: &mut Attrs<'_>| a.string(1, TABLE);
    batch.push("add table", (NEWTABLE, CREATE), &header(IPV4), name);
    batch.push("delete table", (DELTABLE, 0), &header(IPV4), name);
    batch.push("add table", (NEWTABLE, CREATE | EXCL), &header(IPV4), name);
}

/// A base chain with policy accept.
pub(crate) fn add_chain(batch: &mut Batch, chain: &Chain) {
    batch.push(format!("add chain {}", chain.name), (NEWCHAIN, CREATE), &header(IPV4), |a| {
        a.string(1, TABLE);
        a.string(3, chain.name);
        a.nest(4, |hook| {
            hook.be32(1, chain.hook.0);
            hook.bytes(2, &chain.priority.to_be_bytes());
        });
        a.be32(5, POLICY_ACCEPT);
        a.string(7, chain.kind);
    });
}

/// A set; `id` is its number within the transaction.
pub(crate) fn add_set(batch: &mut Batch, set: &Set, id: u32) {
    batch.push(format!("add set {}", set.name), (NEWSET, CREATE), &header(IPV4), |a| {
        a.string(1, TABLE);
        a.string(2, set.name);
        a.be32(3, set.flags);
        a.be32(4, set.key.0);
        a.be32(5, set.key.1);
        if let Some((kind, length)) = set.data {
            a.be32(6, kind);
            a.be32(7, length);
        }
        a.be32(10, id);
        // nft(8)'s own note: type 0 is the key's byte order, type 1 the data's.
        let mut note = vec![0, 4];
        note.extend(set.byte_order.to_ne_bytes());
        note.extend([1, 4, 0, 0, 0, 0]);
        a.bytes(13, &note);
    });
}

/// A rule at the end of its chain.
pub(crate) fn add_rule(batch: &mut Batch, chain: &str, rule: &Rule) {
    let label = format!("add rule {chain}: {}", rule.text);
    batch.push(label, (NEWRULE, CREATE | APPEND), &header(IPV4), |a| {
        a.string(1, TABLE);
        a.string(2, chain);
        a.nest(4, |list| {
            for expr in rule.exprs {
                add_expr(list, *expr);
            }
        });
        a.bytes(7, &comment(&rule.comment()));
    });
}

/// nft(8)'s comment: type 0, length, text with NUL.
fn comment(text: &str) -> Vec<u8> {
    // Comments are our own constants or 64-digit ids, far below 255 bytes.
    let text = &text.as_bytes()[..text.len().min(250)];
    let mut out = vec![0, text.len() as u8 + 1];
    out.extend(text);
    out.push(0);
    out
}

fn add_expr(list: &mut Attrs<'_>, expr: Expr) {
    match expr {
        Expr::Meta(key, register) => named(list, "meta", |d| words(d, &[(1, register), (2, key)])),
        Expr::Payload(base, offset, length, register) => {
            named(list, "payload", |d| words(d, &[(1, register), (2, base), (3, offset), (4, length)]));
        }
        Expr::Equals(register, value) => compare(list, register, 0, value),
        Expr::AnyBit(register, mask) => {
            named(list, "bitwise", |d| {
                words(d, &[(1, register), (2, register), (3, 4)]);
                d.nest(4, |m| m.u32(VALUE, mask));
                d.nest(5, |x| x.u32(VALUE, 0));
            });
            compare(list, register, 1, &[0; 4]);
        }
        Expr::InSet(register, set, inside) => named(list, "lookup", |d| {
            d.string(1, set);
            words(d, &[(2, register)]);
            if !inside {
                words(d, &[(5, 1)]);
            }
        }),
        Expr::Map(register, map) => named(list, "lookup", |d| {
            d.string(1, map);
            words(d, &[(2, register), (3, 1)]);
        }),
        Expr::DestinationType(register) => named(list, "fib", |d| words(d, &[(1, register), (2, 3), (3, 2)])),
        Expr::Conntrack(key, register) => named(list, "ct", |d| words(d, &[(1, register), (2, key)])),
        Expr::Dnat => named(list, "nat", |d| words(d, &[(1, 1), (2, u32::from(IPV4)), (3, 1), (5, 9)])),
        Expr::Masquerade => named(list, "masq", |_| {}),
        Expr::Verdict(code) => named(list, "immediate", |d| {
            words(d, &[(1, 0)]);
            d.nest(2, |data| data.nest(2, |verdict| verdict.bytes(1, &code.to_be_bytes())));
        }),
    }
}

/// See `rules.rs`, which writes further tables.
pub(super) fn compare(list: &mut Attrs<'_>, register: u32, operator: u32, value: &[u8]) {
    named(list, "cmp", |d| {
        words(d, &[(1, register), (2, operator)]);
        d.nest(3, |data| data.bytes(VALUE, value));
    });
}

/// See `rules.rs`, which writes further tables.
pub(super) fn named(list: &mut Attrs<'_>, name: &str, data: impl FnOnce(&mut Attrs<'_>)) {
    list.nest(LIST_ELEM, |expr| {
        expr.string(1, name);
        expr.nest(2, data);
    });
}

/// See `rules.rs`, which writes further tables.
pub(super) fn words(attrs: &mut Attrs<'_>, values: &[(u16, u32)]) {
    for (kind, value) in values {
        attrs.be32(*kind, *value);
    }
}

/// Adds elements. Ports that are taken make the transaction fail with `EEXIST`; the constant elements
/// (bridge, subnet) may exist already.
pub(crate) fn add_elements(batch: &mut Batch, elements: &[Element]) {
    by_set(elements, |set, group| {
        let exclusive = if group[0].owner().is_some() { EXCL } else { 0 };
        let label = format!("add {} elements to {set}", group.len());
        element_message(batch, label, (NEWSETELEM, CREATE | exclusive), set, group, true);
    });
}

/// Deletes elements by key; a missing one makes the transaction fail with `ENOENT`.
pub(crate) fn delete_elements(batch: &mut Batch, elements: &[Element]) {
    by_set(elements, |set, group| {
        let label = format!("delete {} elements from {set}", group.len());
        element_message(batch, label, (DELSETELEM, 0), set, group, false);
    });
}

/// Asks for one element by key (`ENOENT` when absent, also when the table is).
pub(crate) fn get_element(batch: &mut Batch, set: &str, key: &[u8]) {
    batch.push(format!("get element of {set}"), (GETSETELEM, 0), &header(IPV4), |a| {
        a.string(1, TABLE);
        a.string(2, set);
        a.nest(3, |list| list.nest(LIST_ELEM, |e| e.nest(1, |k| k.bytes(VALUE, key))));
    });
}

/// Asks for every element of a set.
pub(crate) fn dump_elements(batch: &mut Batch, set: &str) {
    batch.push(format!("list {set}"), (GETSETELEM, DUMP), &header(IPV4), |a| {
        a.string(1, TABLE);
        a.string(2, set);
    });
}

fn by_set(elements: &[Element], mut message: impl FnMut(&'static str, &[Element])) {
    for run in elements.chunk_by(|a, b| a.set() == b.set()) {
        for group in run.chunks(PER_MESSAGE) {
            message(run[0].set(), group);
        }
    }
}

fn element_message(
    batch: &mut Batch,
    label: String,
    kind: (u16, u16),
    set: &str,
    elements: &[Element],
    with_data: bool,
) {
    batch.push(label, kind, &header(IPV4), |a| {
        a.string(1, TABLE);
        a.string(2, set);
        a.nest(3, |list| {
            for element in elements {
                add_element(list, element, with_data);
            }
        });
    });
}

fn add_element(list: &mut Attrs<'_>, element: &Element, with_data: bool) {
    list.nest(LIST_ELEM, |e| {
        e.nest(1, |k| k.bytes(VALUE, &element.key()));
        if let Some(data) = element.data().filter(|_| with_data) {
            e.nest(2, |d| d.bytes(VALUE, &data));
        }
        if let Some(owner) = element.owner().filter(|_| with_data) {
            e.bytes(6, &comment(owner.as_str()));
        }
    });
    if let Some(end) = element.key_end() {
        list.nest(LIST_ELEM, |e| {
            e.be32(3, INTERVAL_END);
            e.nest(1, |k| k.bytes(VALUE, &end));
        });
    }
}

/// Asks for the generation of the whole ruleset.
pub(crate) fn get_generation(batch: &mut Batch) {
    batch.push("get generation", (GETGEN, 0), &header(0), |_| {});
}

/// Asks for the table's rules.
pub(crate) fn dump_rules(batch: &mut Batch) {
    batch.push("list rules", (GETRULE, DUMP), &header(IPV4), |a| a.string(1, TABLE));
}

/// Asks for every chain of every table.
pub(crate) fn dump_chains(batch: &mut Batch) {
    batch.push("list chains", (GETCHAIN, DUMP), &header(0), |_| {});
}

/// Reads the generation.
pub(crate) fn generation(kind: u16, payload: &[u8]) -> Option<u32> {
    (kind == NEWGEN).then(|| attribute(payload.get(4..)?, 1).and_then(be_number)).flatten()
}

/// Reads a rule: its chain and comment; `None` for rules of other tables (old kernels dump all).
pub(crate) fn rule(kind: u16, payload: &[u8]) -> Option<(String, String)> {
    let attrs = payload.get(4..).filter(|_| kind == NEWRULE)?;
    if payload[0] != IPV4 || text(attribute(attrs, 1)?) != TABLE {
        return None;
    }
    Some((text(attribute(attrs, 2)?), attribute(attrs, 7).and_then(read_comment).unwrap_or_default()))
}

fn read_comment(mut note: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = note {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        note = &rest[value.len()..];
    }
    None
}

/// A chain of another table that refuses forwarded packets by default.
pub(crate) fn refusing_forward_chain(kind: u16, payload: &[u8]) -> Option<(String, String, String)> {
    let attrs = payload.get(4..).filter(|_| kind == NEWCHAIN)?;
    let hook = attribute(attribute(attrs, 4)?, 1).and_then(be_number)?;
    let policy = attribute(attrs, 5).and_then(be_number)?;
    let family = match payload[0] {
        1 => "inet",
        2 => "ip",
        7 => "bridge",
        _ => return None,
    };
    let refuses = hook == FORWARD && policy != POLICY_ACCEPT;
    refuses.then(|| Some((family.to_owned(), text(attribute(attrs, 1)?), text(attribute(attrs, 3)?)))).flatten()
}

/// An element as read back: key, value, comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawElement {
    /// Key bytes.
    pub(crate) key: Vec<u8>,
    /// Value bytes; empty for sets.
    pub(crate) data: Vec<u8>,
    /// Comment; empty when there is none.
    pub(crate) comment: String,
}

/// Reads the elements of one answer.
pub(crate) fn elements(kind: u16, payload: &[u8]) -> Vec<RawElement> {
    let attrs = payload.get(4..).filter(|_| kind == NEWSETELEM).unwrap_or_default();
    let Some(list) = attribute(attrs, 3) else { return Vec::new() };
    attributes(list).filter_map(|(_, element)| raw_element(element)).collect()
}

fn raw_element(element: &[u8]) -> Option<RawElement> {
    let value = |k| attribute(element, k).and_then(|v| attribute(v, VALUE));
    Some(RawElement {
        key: value(1)?.to_vec(),
        data: value(2).unwrap_or_default().to_vec(),
        comment: attribute(element, 6).and_then(read_comment).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_answers_are_no_panic() {
        for length in 0..64 {
            for fill in [0u8, 1, 4, 0xff] {
                let bytes = vec![fill; length];
                for kind in [NEWCHAIN, NEWRULE, NEWSETELEM, NEWGEN, 0] {
                    let _ = (rule(kind, &bytes), refusing_forward_chain(kind, &bytes));
                    let _ = (elements(kind, &bytes), generation(kind, &bytes));
                }
                let _ = read_comment(&bytes);
            }
        }
    }

    #[test]
    fn comments_survive() {
        assert_eq!(read_comment(&comment("abc")), Some("abc".to_owned()));
        assert_eq!(read_comment(&[9, 1, 7, 0, 2, b'x', 0]), Some("x".to_owned()));
    }
}

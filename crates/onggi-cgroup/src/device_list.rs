//! Device rules of version 1, changed under a running container without a moment in which something that
//! stays allowed is denied.
//!
//! The kernel keeps a default and a list of exceptions (Documentation/admin-guide/cgroup-v1/devices.rst). As
//! long as the default is "deny" before and after, what is new is allowed first, then what went away is
//! denied. Otherwise the rules are written in order, which resets the list.

use std::collections::BTreeMap;

use crate::device_filter::{DeviceKind, DeviceRule};

/// A kind, a major and a minor number; `None` is every one.
type Key = (DeviceKind, Option<u32>, Option<u32>);

/// Letters of an access, as bits.
const READ: u8 = 1;
const WRITE: u8 = 2;
const MKNOD: u8 = 4;

/// What the kernel knows of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct List {
    pub(crate) default_allow: bool,
    exceptions: BTreeMap<Key, u8>,
}

impl List {
    /// `devices.list`; lines that make no sense are left out.
    fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(kind), Some(numbers), Some(access)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let kind = match kind {
                "a" => {
                    list.default_allow = true;
                    continue;
                }
                "b" => DeviceKind::Block,
                "c" => DeviceKind::Char,
                _ => continue,
            };
            let Some((major, minor)) = numbers.split_once(':') else { continue };
            let (Some(major), Some(minor)) = (number(major), number(minor)) else { continue };
            *list.exceptions.entry((kind, major, minor)).or_default() |= bits_of(access);
        }
        list
    }

    /// What the kernel would know after these rules.
    pub(crate) fn after(rules: &[DeviceRule]) -> Self {
        let mut list = Self { default_allow: true, exceptions: BTreeMap::new() };
        rules.iter().for_each(|rule| list.take(rule));
        list
    }

    /// The exceptions of a list that denies, as rules.
    pub(crate) fn allowed(&self) -> Vec<DeviceRule> {
        self.exceptions.iter().map(|(key, bits)| rule_of(*key, *bits, true)).collect()
    }

    fn take(&mut self, rule: &DeviceRule) {
        let Some(kind) = rule.kind else {
            *self = Self { default_allow: rule.allow, exceptions: BTreeMap::new() };
            return;
        };
        let key = (kind, rule.major, rule.minor);
        let bits = bits(rule);
        if rule.allow != self.default_allow {
            *self.exceptions.entry(key).or_default() |= bits;
        } else if let Some(old) = self.exceptions.get_mut(&key) {
            *old &= !bits;
            if *old == 0 {
                self.exceptions.remove(&key);
            }
        }
    }
}

/// `*` or a number.
fn number(text: &str) -> Option<Option<u32>> {
    match text {
        "*" => Some(None),
        n => n.parse().ok().map(Some),
    }
}

fn bits_of(access: &str) -> u8 {
    let bit = |c| match c {
        'r' => READ,
        'w' => WRITE,
        'm' => MKNOD,
        _ => 0,
    };
    access.chars().map(bit).fold(0, |bits, bit| bits | bit)
}

fn bits(rule: &DeviceRule) -> u8 {
    [(rule.read, READ), (rule.write, WRITE), (rule.mknod, MKNOD)]
        .into_iter()
        .filter(|(has, _)| *has)
        .fold(0, |bits, (_, bit)| bits | bit)
}

fn rule_of((kind, major, minor): Key, bits: u8, allow: bool) -> DeviceRule {
    let has = |bit| bits & bit != 0;
    DeviceRule { allow, kind: Some(kind), major, minor, read: has(READ), write: has(WRITE), mknod: has(MKNOD) }
}

/// The rules to write, in order, so that a group whose `devices.list` reads `current` obeys `rules`.
pub(crate) fn transition(current: &str, rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let (have, want) = (List::parse(current), List::after(rules));
    if have.default_allow || want.default_allow {
        return rules.to_vec();
    }
    let missing = |from: &List, than: &List, allow: bool| -> Vec<DeviceRule> {
        let beyond = |(key, bits): (&Key, &u8)| {
            let bits = bits & !than.exceptions.get(key).copied().unwrap_or(0);
            (bits != 0).then(|| rule_of(*key, bits, allow))
        };
        from.exceptions.iter().filter_map(beyond).collect()
    };
    let mut steps = missing(&want, &have, true);
    steps.extend(missing(&have, &want, false));
    steps
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn rules() -> impl Strategy<Value = DeviceRule> {
        let kind = prop_oneof![Just(DeviceKind::Block), Just(DeviceKind::Char)];
        let number = || option::of(0u32..3);
        (any::<bool>(), kind, number(), number(), 1u8..8)
            .prop_map(|(allow, kind, major, minor, bits)| rule_of((kind, major, minor), bits, allow))
    }

    fn deny_all() -> DeviceRule {
        DeviceRule { allow: false, kind: None, major: None, minor: None, read: true, write: true, mknod: true }
    }

    fn shown(list: &List) -> String {
        let rule = |(key, bits): (&Key, &u8)| rule_of(*key, *bits, true).words();
        list.exceptions.iter().map(rule).collect::<Vec<_>>().join("\n")
    }

    proptest! {
        #[test]
        fn a_transition_ends_at_the_new_rules_and_keeps_what_stays(old in vec(rules(), 0..8), new in vec(rules(), 0..8)) {
            let (old, new) = ([vec![deny_all()], old].concat(), [vec![deny_all()], new].concat());
            let (have, want) = (List::after(&old), List::after(&new));
            let mut at = have.clone();
            for step in transition(&shown(&have), &new) {
                at.take(&step);
                for (key, bits) in &want.exceptions {
                    let both = bits & have.exceptions.get(key).copied().unwrap_or(0);
                    prop_assert_eq!(at.exceptions.get(key).copied().unwrap_or(0) & both, both);
                }
            }
            prop_assert_eq!(at, want);
        }

        #[test]
        fn lists_of_any_content_never_panic(text in "[abc0-9:* rwm\n]{0,60}") {
            List::parse(&text);
        }
    }

    #[test]
    fn a_group_that_allowed_everything_gets_the_rules_in_order() {
        assert_eq!(transition("a *:* rwm\n", &[deny_all()]), [deny_all()]);
    }
}

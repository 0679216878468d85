//! Names for containers that the user did not name: `adjective_noun`. The random number comes from outside.

use crate::ContainerName;

const ADJECTIVES: [&str; 64] = [
    "amber", "ancient", "autumn", "bold", "brave", "breezy", "bright", "brisk", "calm", "careful", "cheerful",
    "clever", "cosy", "crisp", "curious", "daring", "earthen", "easy", "fair", "fired", "fresh", "gentle", "glad",
    "glazed", "golden", "grand", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "lucky",
    "mellow", "merry", "mild", "misty", "neat", "noble", "patient", "plain", "proud", "quick", "quiet", "ripe", "rosy",
    "rustic", "salty", "savoury", "serene", "silent", "smooth", "snug", "spicy", "steady", "sturdy", "sunny", "swift",
    "tidy", "warm", "wise", "witty",
];
const NOUNS: [&str; 64] = [
    "anchovy",
    "bamboo",
    "barley",
    "basin",
    "bean",
    "bowl",
    "cabbage",
    "carp",
    "chestnut",
    "clay",
    "cloud",
    "courtyard",
    "crane",
    "crock",
    "dragonfly",
    "ember",
    "fern",
    "fox",
    "garden",
    "ginger",
    "ginseng",
    "gourd",
    "harbour",
    "heron",
    "jar",
    "kettle",
    "kiln",
    "ladle",
    "lantern",
    "lotus",
    "magpie",
    "maple",
    "meadow",
    "millet",
    "moon",
    "mortar",
    "mountain",
    "orchard",
    "otter",
    "pavilion",
    "pear",
    "pebble",
    "pepper",
    "persimmon",
    "pine",
    "plum",
    "pot",
    "potter",
    "radish",
    "rice",
    "river",
    "sesame",
    "sparrow",
    "spring",
    "stream",
    "tea",
    "tiger",
    "urn",
    "valley",
    "vessel",
    "walnut",
    "wheel",
    "willow",
    "wren",
];

/// A name from a random number. `attempt` above 0 appends a digit or more, for when a name is taken.
pub fn generate(random: u64, attempt: u32) -> ContainerName {
    // Both indices are below 64, so the conversions cannot lose bits.
    let adjective = ADJECTIVES[(random & 63) as usize];
    let noun = NOUNS[(random >> 6 & 63) as usize];
    let suffix = if attempt == 0 { String::new() } else { format!("{}", (random >> 12) % 10u64.pow(attempt.min(9))) };
    ContainerName::from_parts(adjective, noun, &suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid_names() {
        for random in (0..64).map(|i| i | i << 6).chain([u64::MAX, 0, 12345]) {
            for attempt in [0, 1, 5, 100] {
                let name = generate(random, attempt);
                assert!(name.as_str().parse::<ContainerName>().is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn the_word_lists_have_no_word_twice() {
        for list in [ADJECTIVES, NOUNS] {
            let mut seen: Vec<_> = list.to_vec();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 64);
        }
    }
}

//! Every parser of text that strangers write answers, whatever the text; and what it accepts, it accepts
//! again when written out.

use onggi_spec::{
    ContainerName, Digest, ImageReference, capability, env,
    image::{Document, ImageConfig},
    mount,
    oci::runtime::Spec,
    path, port, quantity, signal,
    user::UserSpec,
};
use proptest::prelude::*;

/// Texts near the grammars: their own alphabet, so that most of each parser is reached.
const NEAR: &str = "[-0-9a-zA-Z:/.,_@=+ \\[\\]{}\"\u{0}\n]{0,48}";

proptest! {
    #[test]
    fn parsers_answer_whatever_the_text(text in prop_oneof![any::<String>(), NEAR]) {
        let _ = text.parse::<UserSpec>();
        let _ = text.parse::<ContainerName>();
        let _ = text.parse::<Digest>();
        let _ = text.parse::<ImageReference>();
        let _ = port::parse_publish(&text);
        let _ = port::parse_exposed(&text);
        let _ = mount::parse_volume(&text);
        let _ = quantity::parse_size(&text);
        let _ = quantity::parse_memory(&text);
        let _ = quantity::parse_cpus(&text);
        let _ = quantity::parse_pids(&text);
        let _ = env::parse_env(&text);
        let _ = env::parse_env_file(&text);
        let _ = env::parse_label(&text);
        let _ = env::parse_hostname(&text);
        let _ = capability::parse_capability(&text);
        let _ = signal::parse_signal(&text);
        let _ = path::normalise(&text);
        let _ = Document::parse(text.as_bytes(), Some(&text));
        let _ = ImageConfig::parse(text.as_bytes());
        let _ = Spec::from_slice(text.as_bytes());
    }

    #[test]
    fn accepted_users_are_written_as_they_were_read(text in "[0-9a-z_:-]{1,12}") {
        if let Ok(user) = text.parse::<UserSpec>() {
            prop_assert_eq!(user.to_string().parse::<UserSpec>(), Ok(user));
        }
    }

    #[test]
    fn normalised_paths_have_one_form_and_no_dots(text in "[a./]{1,24}") {
        if let Some(normal) = path::normalise(&text) {
            prop_assert_eq!(path::normalise(&normal), Some(normal.clone()));
            prop_assert!(!normal.split('/').any(|part| part == ".."));
        }
    }

    #[test]
    fn shown_sizes_are_short(bytes in any::<u64>()) {
        prop_assert!(quantity::human_size(bytes).len() <= 8);
        prop_assert!(quantity::human_memory(bytes).len() <= 9);
    }

    #[test]
    fn published_ranges_keep_their_length(first in 1u16..60_000, length in 0u16..100) {
        let text = format!("{first}-{}:{first}-{}", first + length, first + length);
        prop_assert_eq!(port::parse_publish(&text).map(|l| l.len()), Ok(usize::from(length) + 1));
    }
}

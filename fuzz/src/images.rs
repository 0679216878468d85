//! What registries and archives say: references, digests, manifests, configurations, challenges.

use onggi_spec::{
    Digest, ImageReference,
    image::{Document, ImageConfig},
};

/// The one file of onggi-image that is needed: the crate would bring a TLS library into the instrumented build.
#[path = "../../crates/onggi-image/src/challenge.rs"]
mod challenge;

use challenge::parse_challenges;

/// A reference as people write it: what is read is written back so that it reads the same, and no part of it is a path
/// out of anything.
pub fn references(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<ImageReference>() else { return };
    let written = reference.to_string();
    assert_eq!(written.parse::<ImageReference>().as_ref(), Ok(&reference), "{text:?} is written as {written:?}");
    for part in reference.repository().split('/') {
        assert!(!part.is_empty() && part != "." && part != "..", "{text:?}");
    }
    assert!(!reference.registry().contains('/'), "{text:?}");
    assert!(reference.tag().is_none_or(|tag| !tag.contains('/') && !tag.is_empty()), "{text:?}");
}

/// A digest: 64 lower-case hexadecimal digits behind `sha256:`, or nothing.
pub fn digests(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.as_str(), text);
    assert_eq!(digest.hex().len(), 64);
    assert!(digest.hex().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
}

/// A manifest, index or configuration: read in one way or not at all, and the same again when it is written.
pub fn manifests(data: &[u8]) {
    match Document::parse(data, None) {
        Ok(Document::Manifest(manifest)) => {
            let written = serde_json::to_vec(&manifest).expect("a manifest can be written");
            let again = Document::parse(&written, None);
            assert!(matches!(again, Ok(Document::Manifest(m)) if m == manifest));
        }
        Ok(Document::Index(index)) => {
            let written = serde_json::to_vec(&index).expect("an index can be written");
            let again = Document::parse(&written, None);
            assert!(matches!(again, Ok(Document::Index(i)) if i == index));
        }
        Err(_) => {}
    }
    if let Ok(config) = ImageConfig::parse(data) {
        let written = serde_json::to_vec(&config).expect("a configuration can be written");
        assert_eq!(ImageConfig::parse(&written).as_ref(), Ok(&config));
    }
}

/// A `WWW-Authenticate` header: bounded, and a parameter given twice has no value.
pub fn challenges(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let found = parse_challenges(text);
    assert!(found.len() <= 16);
    for challenge in &found {
        assert!(challenge.params.len() <= 16);
        for (name, _) in &challenge.params {
            let times = challenge.params.iter().filter(|(n, _)| n == name).count();
            assert_eq!(challenge.param(name).is_some(), times == 1);
        }
    }
}

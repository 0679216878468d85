//! Which image of an index runs on the wanted platform (image-index.md). Pure.

use onggi_spec::image::{Descriptor, Index, Platform, media_type};

/// `linux` on this architecture, in OCI's words, as this program was compiled.
pub fn native_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None, os_version: None }
}

/// True when software for `offered` runs on `wanted`. Empty fields of old images claim nothing.
pub(crate) fn runs_on(offered: &Platform, wanted: &Platform) -> bool {
    let same = |a: &str, b: &str| a.is_empty() || a == b;
    same(&offered.architecture, &wanted.architecture)
        && same(&offered.os, &wanted.os)
        && variant_distance(offered, wanted).is_some()
}

/// 0 for the same variant, more for an older one, `None` for one that needs more than is there.
fn variant_distance(offered: &Platform, wanted: &Platform) -> Option<u32> {
    let of = |p: &Platform| p.variant.clone().filter(|v| !v.is_empty());
    let base = match wanted.architecture.as_str() {
        "amd64" => "v1",
        "arm64" => "v8",
        "arm" => "v7",
        _ => "",
    };
    let offered = of(offered).unwrap_or_else(|| base.to_owned());
    let wanted = of(wanted).unwrap_or_else(|| base.to_owned());
    if offered == wanted {
        return Some(0);
    }
    let number = |v: &str| v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
    number(&wanted)?.checked_sub(number(&offered)?)
}

/// The entry that fits best: the closest variant, the first among equals. An index whose only entry names no
/// platform is taken at its word; the image's own configuration decides later.
pub fn select<'i>(index: &'i Index, wanted: &Platform) -> Option<&'i Descriptor> {
    let candidates: Vec<&Descriptor> = index.manifests.iter().filter(|d| is_image(d)).collect();
    if let [only] = candidates[..]
        && only.platform.is_none()
    {
        return Some(only);
    }
    let fits = |d: &&&Descriptor| {
        d.platform
            .as_ref()
            .is_some_and(|p| p.architecture == wanted.architecture && p.os == wanted.os && runs_on(p, wanted))
    };
    let distance = |d: &&&Descriptor| d.platform.as_ref().and_then(|p| variant_distance(p, wanted));
    candidates.iter().filter(fits).min_by_key(distance).copied()
}

/// The platforms of an index for an error message: each once, in order, without attestations.
pub(crate) fn available(index: &Index) -> Vec<String> {
    let mut shown: Vec<String> = Vec::new();
    for platform in index.manifests.iter().filter(|d| is_image(d)).filter_map(|d| d.platform.as_ref()) {
        let text: String = platform.to_string().chars().filter(|c| !c.is_control()).take(64).collect();
        if platform.os != "unknown" && !shown.contains(&text) {
            shown.push(text);
        }
    }
    shown
}

/// A manifest or nested index, not an attestation that BuildKit puts beside them.
fn is_image(descriptor: &Descriptor) -> bool {
    media_type::ACCEPTED.contains(&descriptor.media_type.as_str())
        && !descriptor.annotations.contains_key("vnd.docker.reference.type")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::digest_of;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next();
        Platform {
            os: next().unwrap_or_default(),
            architecture: next().unwrap_or_default(),
            variant: next(),
            os_version: None,
        }
    }

    fn entry(text: &str) -> Descriptor {
        Descriptor {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            digest: digest_of(text.as_bytes()),
            size: 1,
            urls: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
            platform: (!text.is_empty()).then(|| platform(text)),
            artifact_type: None,
            data: None,
        }
    }

    fn index(entries: &[&str]) -> Index {
        let manifests = entries.iter().map(|e| entry(e)).collect();
        let annotations = std::collections::BTreeMap::new();
        Index { schema_version: 2, media_type: None, artifact_type: None, manifests, subject: None, annotations }
    }

    fn chosen(entries: &[&str], wanted: &str) -> Option<String> {
        select(&index(entries), &platform(wanted)).and_then(|d| d.platform.as_ref()).map(ToString::to_string)
    }

    #[test]
    fn the_closest_variant_is_chosen() {
        let all = ["linux/arm/v5", "linux/amd64", "linux/arm/v7", "linux/arm64/v8", "windows/amd64", "linux/amd64/v3"];
        let table = [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64/v3")),
            ("linux/amd64/v2", Some("linux/amd64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v5")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/s390x", None),
            ("windows/arm64", None),
        ];
        for (wanted, expected) in table {
            assert_eq!(chosen(&all, wanted).as_deref(), expected, "{wanted}");
        }
        assert_eq!(chosen(&["linux/amd64/v3"], "linux/amd64"), None);
    }

    #[test]
    fn attestations_are_neither_chosen_nor_offered() {
        let mut index = index(&["linux/amd64", "linux/arm64", "unknown/unknown"]);
        index.manifests[0].annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        assert!(select(&index, &platform("linux/amd64")).is_none());
        assert_eq!(available(&index), ["linux/arm64"]);
    }

    #[test]
    fn a_single_entry_without_platform_is_taken() {
        assert!(select(&index(&[""]), &platform("linux/amd64")).is_some());
        assert!(select(&index(&["", ""]), &platform("linux/amd64")).is_none());
    }

    proptest! {
        #[test]
        fn what_is_selected_runs_on_the_wanted_platform(entries in prop::collection::vec("(linux|windows)/(amd64|arm|arm64)(/v[0-9])?", 0..8)) {
            let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
            let wanted = platform("linux/arm/v7");
            if let Some(p) = select(&index(&entries), &wanted).and_then(|d| d.platform.as_ref()) {
                prop_assert!(runs_on(p, &wanted) && p.os == "linux" && p.architecture == "arm");
            }
        }
    }
}

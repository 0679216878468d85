//! Hostile documents: bounded, unambiguous, never a panic. Every attack has its benign twin.

mod common;

use common::{Delivery, FakeRegistry, Fixture, Reply, descriptor, image, options, with};
use onggi_image::{ImageError, digest_of, stored_image};
use onggi_spec::image::media_type;
use serde_json::{Value, json};

fn pull_manifest(media: &str, manifest: &str) -> Result<(), ImageError> {
    let registry = FakeRegistry::start();
    registry.put("good", &image(&[b"one"]));
    registry.put_manifest("latest", media, manifest.as_bytes());
    registry.put_manifest(digest_of(manifest.as_bytes()).as_str(), media, manifest.as_bytes());
    let fixture = Fixture::new();
    let result = fixture.pull(&registry.reference("app")).map(drop);
    if result.is_err() {
        assert!(fixture.stored().is_empty());
    }
    result
}

fn good_manifest() -> Value {
    serde_json::from_slice(&image(&[b"one"]).manifest).unwrap()
}

#[test]
fn cve_2021_41190_a_document_with_two_meanings_is_refused() {
    let mut both = good_manifest();
    both["manifests"] = json!([]);
    let mut lying = good_manifest();
    lying["mediaType"] = json!(media_type::OCI_INDEX);
    let mut double = good_manifest().to_string();
    double.insert_str(1, r#""layers":[],"#);
    let cases = [
        (media_type::OCI_MANIFEST, both.to_string()),
        (media_type::OCI_INDEX, both.to_string()),
        (media_type::OCI_MANIFEST, lying.to_string()),
        (media_type::OCI_INDEX, good_manifest().to_string()),
        (media_type::DOCKER_MANIFEST, good_manifest().to_string()),
        (media_type::OCI_MANIFEST, double),
    ];
    for (media, manifest) in cases {
        let error = pull_manifest(media, &manifest).expect_err(&manifest);
        assert!(matches!(error, ImageError::Malformed { .. }), "{error:?}");
    }
}

#[test]
fn cve_2021_41190_an_index_entry_whose_type_is_not_what_comes_is_refused() {
    let inner = image(&[b"one"]);
    let mut entry = descriptor(media_type::OCI_INDEX, &inner.manifest);
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let registry = FakeRegistry::start();
    registry.put("inner", &inner);
    registry.put_manifest("latest", media_type::OCI_INDEX, index.as_bytes());
    registry.put_manifest(digest_of(index.as_bytes()).as_str(), media_type::OCI_INDEX, index.as_bytes());
    let fixture = Fixture::new();
    let error = fixture.pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::Invalid { .. }), "{error:?}");
    assert!(fixture.stored().is_empty());
}

#[test]
fn cve_2021_41190_benign_manifests_without_own_type_or_with_a_vague_header_are_pulled() {
    let mut untyped = good_manifest();
    untyped.as_object_mut().unwrap().remove("mediaType");
    for media in [
        media_type::OCI_MANIFEST,
        media_type::DOCKER_MANIFEST,
        "application/json",
        "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
    ] {
        pull_manifest(media, &untyped.to_string()).unwrap();
    }
}

#[test]
fn cve_2024_3727_digests_that_are_paths_or_otherwise_odd_are_refused() {
    let hex = digest_of(b"one").hex().to_owned();
    let odd = [
        "sha256:../../../../etc/passwd".to_owned(),
        String::new(),
        "sha256:".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha512:{hex}{hex}"),
        format!("sha256:{hex}/.."),
        format!(" sha256:{hex}"),
        format!("sha256:{hex}\0"),
    ];
    for digest in &odd {
        let mut manifest = good_manifest();
        manifest["layers"][0]["digest"] = json!(digest);
        assert!(pull_manifest(media_type::OCI_MANIFEST, &manifest.to_string()).is_err(), "{digest:?}");
    }
    // In the header that names a tag's digest, such a text counts as no digest.
    for digest in odd {
        // A header can carry neither NUL nor outer spaces.
        if digest.contains(['\0', ' ']) {
            continue;
        }
        let registry = FakeRegistry::with_hook(move |seen, _| {
            (seen.method == "HEAD").then(|| Reply::new(200).header("Docker-Content-Digest", digest.clone()))
        });
        registry.put("latest", &image(&[b"one"]));
        Fixture::new().pull(&registry.reference("app")).unwrap();
        assert_eq!(registry.requests()[1], "GET /v2/app/manifests/latest");
    }
}

#[test]
fn cve_2024_3727_benign_ordinary_digests_are_pulled() {
    pull_manifest(media_type::OCI_MANIFEST, &good_manifest().to_string()).unwrap();
}

#[test]
fn cve_2023_25153_documents_without_end_are_cut_off_at_their_bound() {
    let announced = FakeRegistry::with_hook(|seen, _| {
        (seen.method == "GET").then(|| Reply::new(200).delivery(Delivery::Announce(2 << 30)))
    });
    let endless = FakeRegistry::with_hook(|seen, _| {
        (seen.method == "GET").then(|| Reply::new(200).body(vec![b' '; 64 << 10]).delivery(Delivery::Endless))
    });
    for registry in [announced, endless] {
        let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
        assert!(matches!(error, ImageError::TooLarge { limit: 4_194_304, .. }), "{error:?}");
    }
}

#[test]
fn cve_2023_25153_an_endless_configuration_is_cut_off_too() {
    let good = image(&[b"one"]);
    let config = digest_of(&good.config);
    let registry = FakeRegistry::with_hook(move |seen, _| {
        seen.path()
            .ends_with(config.as_str())
            .then(|| Reply::new(200).body(vec![b' '; 64 << 10]).delivery(Delivery::Endless))
    });
    registry.put("latest", &good);
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error:?}");
}

#[test]
fn cve_2023_25153_benign_a_large_document_within_the_bound_is_pulled() {
    let mut manifest = good_manifest();
    manifest["annotations"] = json!({"note": "x".repeat(3 << 20)});
    pull_manifest(media_type::OCI_MANIFEST, &manifest.to_string()).unwrap();
}

/// xorshift64*: the mutations are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

fn mutate(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    const PIECES: [&str; 14] = [
        "null",
        "[]",
        "{}",
        "-1",
        "18446744073709551616",
        "1e999",
        "\"\"",
        "true",
        ",",
        "}",
        "\u{feff}",
        "\\ud800",
        "sha256:",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ];
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len().max(1));
        match random.below(5) {
            0 => out.truncate(at),
            1 => out.insert(at, random.below(256) as u8),
            2 if !out.is_empty() => out[at] = random.below(256) as u8,
            3 => {
                let piece = PIECES[random.below(PIECES.len())];
                // In place of a value: after a colon or bracket.
                let value = out[at..].iter().position(|b| b":[".contains(b)).map_or(at, |n| at + n + 1);
                let end = out[value..].iter().position(|b| b",}]".contains(b)).map_or(out.len(), |n| value + n);
                out.splice(value..end, piece.bytes());
            }
            _ => {
                let end = (at + random.below(40)).min(out.len());
                let copy = out[at..end].to_vec();
                out.splice(at..at, copy);
            }
        }
    }
    out
}

#[test]
fn cve_2021_21285_ten_thousand_mutated_documents_are_answered_without_panic() {
    let good = image(&[b"one", b"two"]);
    let index = common::index(&[("amd64", &good), ("arm64", &good)]);
    let fixture = Fixture::new();
    let reference = "r.example/app".parse().unwrap();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut accepted, mut refused) = (0, 0);
    fixture.store.put_bytes(&good.config).unwrap();
    fixture.store.put_bytes(&good.manifest).unwrap();
    for round in 0..10_000 {
        let seeds = [&good.manifest, &index, &good.config];
        let mutant = mutate(&mut random, seeds[round % 3]);
        // Through the same code as a pull, without the network; written directly because 10 000 flushes take minutes.
        let (document, first) = match round % 3 {
            2 => {
                let config: Value = json!({"schemaVersion": 2, "config": descriptor(media_type::OCI_CONFIG, &mutant),
                    "layers": [descriptor(media_type::OCI_LAYER, b"one"), descriptor(media_type::OCI_LAYER, b"two")]});
                std::fs::write(fixture.store.path(&digest_of(&mutant)), &mutant).unwrap();
                (config.to_string().into_bytes(), mutant)
            }
            _ => (mutant.clone(), mutant),
        };
        let digest = digest_of(&document);
        std::fs::write(fixture.store.path(&digest), &document).unwrap();
        match stored_image(&fixture.store, &reference, &digest, &options().platform) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
        for written in [digest, digest_of(&first)] {
            let keep = [digest_of(&good.manifest), digest_of(&good.config)].contains(&written);
            if !keep {
                let _ = std::fs::remove_file(fixture.store.path(&written));
            }
        }
    }
    assert!(accepted > 100 && refused > 1000, "the mutations reach both outcomes: {accepted} {refused}");
}

#[test]
fn cve_2021_21285_mutants_served_by_a_registry_leave_nothing_behind() {
    let good = image(&[b"one"]);
    let mut random = Random(0xDEAD_BEEF_CAFE_F00D);
    for _ in 0..50 {
        let mutant = mutate(&mut random, &good.manifest);
        let registry = FakeRegistry::start();
        registry.put("good", &good);
        registry.put_manifest("latest", media_type::OCI_MANIFEST, &mutant);
        registry.put_manifest(digest_of(&mutant).as_str(), media_type::OCI_MANIFEST, &mutant);
        let fixture = Fixture::new();
        let once = with(|r| r.retry.attempts = 1);
        if fixture.pull_with(&registry.reference("app"), once).is_err() {
            let whole = [digest_of(b"one")];
            assert!(fixture.stored().iter().all(|d| whole.contains(d)));
        }
    }
}

#[test]
fn cve_2021_21285_benign_the_unmutated_document_is_accepted() {
    let good = image(&[b"one", b"two"]);
    let fixture = Fixture::new();
    for bytes in [&good.config, &good.manifest, &good.layers[0], &good.layers[1]] {
        fixture.store.put_bytes(bytes).unwrap();
    }
    let found = stored_image(
        &fixture.store,
        &"r.example/app".parse().unwrap(),
        &digest_of(&good.manifest),
        &options().platform,
    );
    assert_eq!(found.unwrap().expect("whole").config_digest, digest_of(&good.config));
}

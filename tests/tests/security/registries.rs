//! Registries that lie: what they can make the engine fetch, send or believe.

use std::fs;

use onggi_tests::{
    Onggi,
    gate::{Act, Gate},
    image::{self, Blob, Flavour, Image},
    isolated,
};
use serde_json::{Value, json};

/// `alice:secret`.
const BASIC: &str = "Basic YWxpY2U6c2VjcmV0";
const STRANGER: &str = "127.0.0.2:0";

/// Answers like a registry that holds this image.
fn holds(image: &Image, path: &str) -> Act {
    let typed = |blob: &Blob| {
        let headers = vec![("Content-Type", blob.media_type.clone()), ("Docker-Content-Digest", blob.digest())];
        Act::Answer(200, headers, blob.bytes.clone())
    };
    let mut blobs = image.layers.iter().chain([&image.config]);
    match blobs.find(|b| path.ends_with(&b.digest())) {
        Some(blob) => typed(blob),
        None if path.ends_with("/latest") || path.ends_with(&image.manifest.digest()) => typed(&image.manifest),
        None => Act::json(404, &json!({ "errors": [{ "code": "MANIFEST_UNKNOWN" }] })),
    }
}

/// A store of a user who has stored a password for a registry.
fn logged_in(host: &str) -> Onggi {
    let onggi = Onggi::new();
    let dir = onggi.dir().join("home/.docker");
    fs::create_dir_all(&dir).expect("make a directory");
    let config = json!({ "auths": { host: { "auth": "YWxpY2U6c2VjcmV0" } } });
    fs::write(dir.join("config.json"), config.to_string()).expect("write");
    onggi
}

/// Whether the password, or anything made of it, was sent.
fn told(gate: &Gate) -> bool {
    let secret = |text: &str| text.contains("YWxpY2U6c2VjcmV0") || text.contains("secret") || text.contains("Bearer");
    gate.seen().iter().any(|a| {
        secret(&a.target) || a.headers.values().any(|v| secret(v)) || secret(&String::from_utf8_lossy(&a.body))
    })
}

#[test]
fn root_cve_2019_10214_2020_15157_2021_41092_credentials_go_to_no_stranger() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let stranger = Gate::at(STRANGER, 0, |_| Act::json(200, &json!({ "token": "stolen" })));
    // A realm on another host, in the clear.
    let realm = format!("Bearer realm=\"http://{}/token\"", stranger.host());
    let registry = Gate::new(0, move |_| Act::challenge(&realm));
    let onggi = logged_in(&registry.host());
    assert_eq!(onggi.run(&["pull", &registry.name("app")]).code, Some(1));
    assert!(!told(&stranger), "{:?}", stranger.seen());
    // A layer, a manifest and an upload that are somewhere else; they ask for a password there.
    let greedy = Gate::at(STRANGER, 0, |_| Act::challenge("Basic realm=\"give\""));
    for status in [302, 307, 308] {
        let (target, own) = (format!("http://{}/x", greedy.host()), image.clone());
        let registry = Gate::new(0, move |asked| match asked.header("authorization") {
            "" => Act::challenge("Basic realm=\"x\""),
            _ if asked.target.contains(&own.layers[0].digest()) => Act::redirect(status, &target),
            _ => holds(&own, asked.path()),
        });
        let onggi = logged_in(&registry.host());
        assert_eq!(onggi.run(&["pull", &registry.name("app")]).code, Some(1));
        assert!(registry.seen().iter().any(|a| a.header("authorization") == BASIC));
    }
    assert!(!greedy.seen().is_empty() && !told(&greedy), "{:?}", greedy.seen());
    // Another registry gets nothing of what is stored for the first.
    let other = Gate::new(0, |_| Act::challenge("Basic realm=\"x\""));
    let onggi = logged_in("registry.example");
    assert_eq!(onggi.run(&["pull", &other.name("registry.example/app")]).code, Some(1));
    assert!(!told(&other), "{:?}", other.seen());
}

#[test]
fn root_cve_2019_10214_2020_15157_2021_41092_benign_the_registry_and_its_token_service_get_them() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let service = Gate::new(0, |asked| match asked.header("authorization") {
        BASIC => Act::json(200, &json!({ "token": "T" })),
        _ => Act::json(401, &json!({})),
    });
    let own = image.clone();
    let cdn = Gate::at(STRANGER, 0, move |asked| holds(&own, asked.path()));
    let (realm, elsewhere) = (format!("Bearer realm=\"http://{}/token\",service=\"s\"", service.host()), cdn.host());
    let layer = image.layers[0].digest();
    let registry = Gate::new(0, move |asked| match asked.header("authorization") {
        "Bearer T" if asked.target.contains(&layer) => Act::redirect(307, &format!("http://{elsewhere}/{layer}")),
        "Bearer T" => holds(&image, asked.path()),
        _ => Act::challenge(&realm),
    });
    let onggi = logged_in(&registry.host());
    onggi.ok(&["pull", &registry.name("app")]);
    assert!(cdn.seen().iter().all(|a| a.header("authorization").is_empty()) && !cdn.seen().is_empty());
}

#[test]
fn root_cve_2020_15157_layers_are_never_fetched_from_urls_in_a_manifest() {
    isolated();
    let image = image::busybox(Flavour::Docker);
    let stranger = Gate::at(STRANGER, 0, |_| Act::challenge("Basic realm=\"give\""));
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).expect("JSON");
    manifest["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    manifest["layers"][0]["urls"] = json!([format!("http://{}/layer", stranger.host())]);
    let mut foreign = image.clone();
    foreign.manifest.bytes = manifest.to_string().into_bytes();
    let registry = Gate::new(0, move |asked| holds(&foreign, asked.path()));
    let onggi = logged_in(&registry.host());
    let ran = onggi.run(&["pull", &registry.name("app")]);
    assert!(ran.code == Some(1) && ran.stderr.contains("foreign layer"), "{ran}");
    assert!(stranger.seen().is_empty());
}

#[test]
fn root_cve_2020_15157_benign_an_ordinary_layer_may_carry_urls_that_are_not_used() {
    isolated();
    let mut image = image::busybox(Flavour::Oci);
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).expect("JSON");
    manifest["layers"][0]["urls"] = json!(["http://127.0.0.2:1/layer"]);
    image.manifest.bytes = manifest.to_string().into_bytes();
    let registry = Gate::new(0, move |asked| holds(&image, asked.path()));
    Onggi::new().ok(&["pull", &registry.name("app")]);
}

/// Serves one document as `latest`; what the pull says.
fn pull_document(media_type: &str, document: &[u8], image: &Image) -> onggi_tests::Ran {
    let blob = Blob { media_type: media_type.to_owned(), bytes: document.to_vec() };
    let image = image.clone();
    let registry = Gate::new(0, move |asked| match asked.path() {
        path if path.ends_with("/latest") || path.ends_with(&blob.digest()) => {
            let headers = vec![("Content-Type", blob.media_type.clone()), ("Docker-Content-Digest", blob.digest())];
            Act::Answer(200, headers, blob.bytes.clone())
        }
        path => holds(&image, path),
    });
    Onggi::new().run(&["pull", "-q", &registry.name("app")])
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn root_cve_2021_41190_a_document_with_two_meanings_is_refused() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let good: Value = serde_json::from_slice(&image.manifest.bytes).expect("JSON");
    let mut both = good.clone();
    both["manifests"] = json!([]);
    let mut lies = good.clone();
    lies["mediaType"] = json!(INDEX);
    let twice = String::from_utf8_lossy(&image.manifest.bytes).replacen('{', "{\"layers\":[],", 1);
    for (header, document) in [
        (MANIFEST, both.to_string()),
        (INDEX, both.to_string()),
        (INDEX, good.to_string()),
        (MANIFEST, lies.to_string()),
        (MANIFEST, twice),
    ] {
        let ran = pull_document(header, document.as_bytes(), &image);
        assert_eq!(ran.code, Some(1), "{header} {document}\n{ran}");
    }
}

#[test]
fn root_cve_2021_41190_benign_documents_with_one_meaning_are_pulled() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let ran = pull_document(MANIFEST, &image.manifest.bytes, &image);
    assert_eq!(ran.code, Some(0), "{ran}");
    let entry = json!({ "mediaType": MANIFEST, "digest": image.manifest.digest(), "size": image.manifest.bytes.len(),
        "platform": { "os": "linux", "architecture": "amd64" } });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
    let ran = pull_document(INDEX, index.to_string().as_bytes(), &image);
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn root_cve_2024_3727_a_digest_is_never_a_path() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let good: Value = serde_json::from_slice(&image.manifest.bytes).expect("JSON");
    let upper = image.layers[0].digest().to_uppercase().replace("SHA256", "sha256");
    for digest in ["", "sha256:", "sha256:../../../../tmp/evil", "sha256:abc", "../x", "sha512:aa", &upper] {
        for place in ["/config/digest", "/layers/0/digest"] {
            let mut manifest = good.clone();
            *manifest.pointer_mut(place).expect("a digest") = json!(digest);
            let ran = pull_document(MANIFEST, manifest.to_string().as_bytes(), &image);
            assert_eq!(ran.code, Some(1), "{place} {digest}\n{ran}");
        }
        assert_eq!(Onggi::new().run(&["pull", &format!("127.0.0.1:1/x@{digest}")]).code, Some(1), "{digest}");
    }
}

#[test]
fn root_cve_2024_3727_benign_a_digest_names_its_content() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let digest = image.manifest.digest();
    let registry = Gate::new(0, move |asked| holds(&image, asked.path()));
    Onggi::new().ok(&["pull", &format!("{}@{digest}", registry.name("app"))]);
}

#[test]
fn root_cve_2021_21285_2017_14992_no_manifest_ends_the_program_or_eats_the_machine() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let good = image.manifest.bytes.clone();
    let mut hostile: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"null".to_vec(),
        b"[".repeat(100_000),
        b"{\"a\":".repeat(50_000),
        vec![b' '; 5 << 20],
        good[..good.len() / 2].to_vec(),
    ];
    // Every third byte replaced by another: one change each.
    hostile.extend((0..good.len()).step_by(good.len() / 20).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        bytes
    }));
    for document in hostile {
        let ran = pull_document(MANIFEST, &document, &image);
        // A change inside of an annotation or of white space may well be harmless.
        assert!(matches!(ran.code, Some(0 | 1)), "{ran}");
        assert!(!ran.stderr.contains("panicked"), "{ran}");
    }
}

#[test]
fn root_cve_2021_21285_2017_14992_benign_an_image_is_pulled_after_bad_ones() {
    isolated();
    let image = image::busybox(Flavour::Oci);
    let bad = image.manifest.clone();
    let registry = Gate::new(0, move |asked| match asked.path().contains("/bad/") {
        true => Act::Answer(200, vec![("Content-Type", bad.media_type.clone())], bad.bytes[..9].to_vec()),
        false => holds(&image, asked.path()),
    });
    let onggi = Onggi::new();
    assert_eq!(onggi.run(&["pull", &registry.name("bad/app")]).code, Some(1));
    onggi.ok(&["pull", &registry.name("app")]);
}

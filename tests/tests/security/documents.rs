//! Manifests, indexes and configurations that are large in every way that their bound of 4 MiB allows, and where they are parsed:
//! on a thread that may compute and nothing else (docs/design/009-parsing-confined.md).

use std::{fs, process::Command};

use onggi_tests::{
    Onggi, Ran,
    gate::{Act, Gate},
    image::{self, Blob, Flavour, Image, digest},
    isolated,
    tarball::Tarball,
};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Bytes that a document may have, less some for what is around the large part.
const ROOM: usize = (4 << 20) - 2000;
/// KiB that refusing any of them may take: a fifth of that is the program.
const MOST: u64 = 150 << 10;

/// A registry with one image of this manifest and configuration.
fn registry(manifest: Vec<u8>, config: Blob) -> Gate {
    let manifest = Blob { media_type: MANIFEST.to_owned(), bytes: manifest };
    Gate::new(0, move |asked| {
        let path = asked.path();
        let blob = if path.contains("/manifests/") { &manifest } else { &config };
        if !path.contains("/manifests/") && !path.ends_with(&config.digest()) {
            return Act::json(404, &json!({ "errors": [{ "code": "BLOB_UNKNOWN" }] }));
        }
        let headers = vec![("Content-Type", blob.media_type.clone()), ("Docker-Content-Digest", blob.digest())];
        Act::Answer(200, headers, blob.bytes.clone())
    })
}

/// Runs a command under another program that tells about it in a file; the command's result and that file.
fn under(onggi: &Onggi, outer: &[&str], args: &[&str]) -> (Ran, String) {
    let log = onggi.dir().join("told");
    let command = onggi.command(args);
    let mut whole = Command::new(outer[0]);
    whole.args(&outer[1..]).arg("-o").arg(&log).arg(command.get_program()).args(command.get_args());
    whole.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let ran = onggi.finish(&mut whole);
    (ran, fs::read_to_string(log).expect("the outer program wrote its file"))
}

/// Refused with a message and without much memory.
fn refused(onggi: &Onggi, what: &str, args: &[&str]) {
    let (ran, told) = under(onggi, &["time", "-f", "%M"], args);
    assert!(ran.code == Some(1) && ran.stderr.contains("onggi: "), "{what}: {ran}");
    assert!(!ran.stderr.contains("panicked") && ran.stderr.len() < 4000, "{what}: {} bytes\n{ran}", ran.stderr.len());
    let peak: u64 = told.lines().last().and_then(|line| line.parse().ok()).expect("a number of KiB");
    assert!(peak < MOST, "{what}: {peak} KiB");
}

/// `before`, then `piece` as often as there is room, then `after`.
fn filled(before: &str, piece: impl Fn(usize) -> String, after: &str) -> Vec<u8> {
    let mut text = before.to_owned();
    let mut at = 0;
    while text.len() < ROOM {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&piece(at));
        at += 1;
    }
    (text + after).into_bytes()
}

/// Documents of nearly 4 MiB, by what is large about them.
fn large() -> Vec<(&'static str, Vec<u8>)> {
    let digest = digest(b"x");
    let descriptor = |n: usize| format!("{{\"mediaType\":\"{n}\",\"digest\":\"{digest}\",\"size\":1}}");
    let config = descriptor(0);
    let begin = format!("{{\"schemaVersion\":2,\"config\":{config},");
    let with = |member: &str| format!("{begin}\"layers\":[],{member}");
    let deep = |open: &str| {
        let depth = ROOM / open.len();
        format!("{}{}", with("\"x\":"), open.repeat(depth)).into_bytes()
    };
    vec![
        ("layers", filled(&format!("{begin}\"layers\":["), descriptor, "]}")),
        ("a million layers", filled(&format!("{begin}\"layers\":["), |_| "{}".to_owned(), "]}")),
        ("manifests", filled("{\"schemaVersion\":2,\"manifests\":[", descriptor, "]}")),
        ("members", filled("{", |n| format!("\"{n:x}\":0"), "}")),
        ("annotations", filled(&with("\"annotations\":{"), |n| format!("\"{n:x}\":\"\""), "}}")),
        ("arrays in arrays", deep("[")),
        ("objects in objects", deep("{\"a\":")),
        ("one string", filled(&with("\"mediaType\":\""), |_| "x".repeat(1000), "\"}")),
        ("one string of escapes", filled(&with("\"artifactType\":\""), |_| "\\u0000".repeat(100), "\"}")),
        ("a string for a number", filled("{\"schemaVersion\":\"", |_| "x".repeat(1000), "\"}")),
        (
            "a long digest",
            filled("{\"schemaVersion\":2,\"layers\":[],\"config\":{\"digest\":\"", |_| "x".repeat(1000), "\"}}"),
        ),
        ("one number", filled(&format!("{begin}\"layers\":"), |_| "9".repeat(ROOM), "}")),
    ]
}

#[test]
fn root_documents_that_are_as_large_as_they_may_be_are_refused_in_little_memory() {
    isolated();
    let config = image::busybox(Flavour::Oci).config;
    for (what, document) in large() {
        assert!(document.len() <= 4 << 20, "{what}: {}", document.len());
        let onggi = Onggi::new();
        let gate = registry(document.clone(), config.clone());
        refused(&onggi, what, &["pull", "-q", &gate.name("app")]);
        // The same where an archive has it: as its list of images.
        let path = onggi.dir().join("archive.tar");
        fs::write(&path, Tarball::new().file("index.json", 0o644, &document).finish()).expect("write the archive");
        refused(&onggi, what, &["load", "-i", path.to_str().expect("a name")]);
    }
}

#[test]
fn root_configurations_that_are_as_large_as_they_may_be_are_refused_in_little_memory() {
    isolated();
    let begin = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]},";
    let digest = digest(b"x");
    let diff_ids = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[";
    for (what, bytes) in [
        ("diff_ids", filled(diff_ids, |_| format!("\"{digest}\""), "]}}")),
        ("history", filled(&format!("{begin}\"history\":["), |_| "{}".to_owned(), "],\"OS\":1}")),
        (
            "labels",
            filled(&format!("{begin}\"config\":{{\"Labels\":{{"), |n| format!("\"{n:x}\":\"\""), "}},\"OS\":1}"),
        ),
        ("environment", filled(&format!("{begin}\"config\":{{\"Env\":["), |_| "\"\"".to_owned(), "]},\"OS\":1}")),
    ] {
        let config = Blob { media_type: "application/vnd.oci.image.config.v1+json".to_owned(), bytes };
        let manifest = json!({ "schemaVersion": 2, "layers": [],
            "config": { "mediaType": config.media_type, "digest": config.digest(), "size": config.bytes.len() } });
        let onggi = Onggi::new();
        let gate = registry(manifest.to_string().into_bytes(), config);
        refused(&onggi, what, &["pull", "-q", &gate.name("app")]);
    }
}

/// How many threads got a filter of their own.
fn filters(log: &str) -> usize {
    log.lines().filter(|line| line.contains("SECCOMP_SET_MODE_FILTER") && line.contains("= 0")).count()
}

/// Serves an image as it is.
fn serve(image: Image) -> Gate {
    Gate::new(0, move |asked| {
        let path = asked.path();
        let mut all = image.layers.iter().chain([&image.config]);
        let blob = all.find(|b| path.ends_with(&b.digest())).unwrap_or(&image.manifest);
        let headers = vec![("Content-Type", blob.media_type.clone()), ("Docker-Content-Digest", blob.digest())];
        Act::Answer(200, headers, blob.bytes.clone())
    })
}

#[test]
fn root_documents_are_parsed_behind_a_filter_of_system_calls_and_ordinary_ones_still_pass() {
    isolated();
    let onggi = Onggi::new();
    let strace = ["strace", "-f", "-qq", "-e", "trace=seccomp"];
    let gate = serve(image::busybox(Flavour::Oci));
    let name = gate.name("app");
    let (ran, log) = under(&onggi, &strace, &["pull", "-q", &name]);
    assert!(ran.code == Some(0) && filters(&log) >= 2, "manifest and configuration: {log}\n{ran}");
    let archive = onggi.dir().join("archive.tar");
    let archive = archive.to_str().expect("a name");
    for format in ["docker-archive", "oci-archive"] {
        onggi.ok(&["save", "--format", format, "-o", archive, &name]);
        let (ran, log) = under(&onggi, &strace, &["load", "-q", "-i", archive]);
        assert!(ran.code == Some(0) && filters(&log) >= 3, "members, list, configuration: {log}\n{ran}");
    }
    let labels: Value = (0..20_000).map(|n| (n.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    let layer = image::busybox_tree().finish();
    let built = image::ImageBuilder::new(Flavour::Oci).layer(&layer, image::Compression::Gzip).config("Labels", labels);
    let gate = serve(built.build());
    onggi.ok(&["pull", "-q", &gate.name("large")]);
    onggi.ok(&["run", "--rm", "--network", "none", &gate.name("large"), "true"]);
}

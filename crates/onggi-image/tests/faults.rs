//! What a pull says and stores when the registry misbehaves: a named error with a hint, and nothing wrong on disk.

mod common;

use std::time::{Duration, Instant};

use common::{
    Delivery, FakeRegistry, Fixture, Reply, Seen, descriptor, image, image_for, index, options, ranged, with,
};
use onggi_image::{FailureKind, ImageError, PullOptions, digest_of};
use onggi_spec::image::media_type;
use serde_json::json;

fn is_layer(seen: &Seen, content: &[u8]) -> bool {
    seen.path().ends_with(digest_of(content).as_str())
}

/// The error of a pull whose layer `content` is answered by `reply`, and that nothing but whole blobs is stored.
fn layer_error(
    content: &'static [u8],
    reply: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static,
) -> ImageError {
    let registry = FakeRegistry::with_hook(move |seen, n| if is_layer(seen, content) { reply(seen, n) } else { None });
    registry.put("latest", &image(&[content]));
    let fixture = Fixture::new();
    let error = fixture.pull(&registry.reference("app")).expect_err("must fail");
    assert!(fixture.stored().is_empty());
    error
}

#[test]
fn a_layer_with_other_content_is_a_wrong_digest() {
    let error = layer_error(b"right", |_, _| Some(Reply::new(200).body("wrong")));
    assert!(matches!(&error, ImageError::WrongDigest { actual, .. } if *actual == digest_of(b"wrong")), "{error:?}");
    assert!(error.hint().is_some_and(|h| h.contains("nothing was stored")));
}

#[test]
fn a_manifest_with_other_content_is_a_wrong_digest() {
    let good = image(&[b"one"]);
    let registry = FakeRegistry::start();
    registry.put("latest", &good);
    let other = image(&[b"two"]);
    registry.put_manifest(digest_of(&good.manifest).as_str(), media_type::OCI_MANIFEST, &other.manifest);
    let reference = registry.reference("app").with_digest(digest_of(&good.manifest));
    let fixture = Fixture::new();
    assert!(matches!(fixture.pull(&reference), Err(ImageError::WrongDigest { .. })));
    assert!(fixture.stored().is_empty());
}

#[test]
fn a_configuration_with_other_content_is_a_wrong_digest() {
    let good = image(&[b"one"]);
    let registry = FakeRegistry::start();
    registry.put("latest", &good);
    registry.put_blob(&digest_of(&good.config), &good.config.to_ascii_uppercase());
    assert!(matches!(Fixture::new().pull(&registry.reference("app")), Err(ImageError::WrongDigest { .. })));
}

#[test]
fn a_layer_that_always_breaks_off_is_truncated() {
    let error =
        layer_error(b"0123456789", |_, _| Some(Reply::new(200).body("0123456789").delivery(Delivery::CutAfter(4))));
    assert!(matches!(error, ImageError::Truncated { expected: 10, received: 4, .. }), "{error:?}");
}

#[test]
fn a_layer_that_stalls_is_truncated_within_the_time_limit() {
    let started = Instant::now();
    let error =
        layer_error(b"0123456789", |_, _| Some(Reply::new(200).body("0123456789").delivery(Delivery::StallAfter(4))));
    assert!(matches!(error, ImageError::Truncated { received: 4, .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_broken_download_is_continued_where_it_broke_off() {
    let content: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let digest = digest_of(&content);
    let body = content.clone();
    let registry = FakeRegistry::with_hook(move |seen, n| {
        (seen.path().ends_with(digest.as_str()) && n == 0)
            .then(|| Reply::new(200).body(body.clone()).delivery(Delivery::CutAfter(120_000)))
    });
    registry.put("latest", &image(&[&content]));
    Fixture::new().pull(&registry.reference("app")).unwrap();
    let ranges: Vec<_> = registry.seen().iter().filter_map(|s| s.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["bytes=120000-"]);
}

#[test]
fn a_registry_that_ignores_ranges_is_read_from_the_start() {
    let registry = FakeRegistry::with_hook(|seen, n| {
        let cut = if n == 0 { Delivery::CutAfter(4) } else { Delivery::Whole };
        is_layer(seen, b"0123456789").then(|| Reply::new(200).body("0123456789").delivery(cut))
    });
    registry.put("latest", &image(&[b"0123456789"]));
    Fixture::new().pull(&registry.reference("app")).unwrap();
}

#[test]
fn pieces_of_different_content_are_thrown_away_and_fetched_in_one_piece() {
    let registry = FakeRegistry::with_hook(|seen, n| {
        is_layer(seen, b"0123456789").then(|| match n {
            0 => Reply::new(200).body("xxxxxxxxxx").delivery(Delivery::CutAfter(4)),
            _ => ranged(seen, b"0123456789"),
        })
    });
    registry.put("latest", &image(&[b"0123456789"]));
    Fixture::new().pull(&registry.reference("app")).unwrap();
}

#[test]
fn a_wrong_content_length_is_refused_before_the_body() {
    for announced in [9, 11, 1 << 40] {
        let error = layer_error(b"0123456789", move |_, _| {
            Some(Reply::new(200).body("0123456789").delivery(Delivery::Announce(announced)))
        });
        assert!(matches!(error, ImageError::WrongSize { expected: 10, .. }), "{error:?}");
    }
}

#[test]
fn a_body_without_end_is_cut_off_at_the_layers_size() {
    let error =
        layer_error(b"0123456789", |_, _| Some(Reply::new(200).body(vec![b'x'; 4096]).delivery(Delivery::Endless)));
    assert!(matches!(error, ImageError::WrongSize { expected: 10, .. }), "{error:?}");
}

#[test]
fn a_range_other_than_the_one_asked_for_is_refused() {
    let error = layer_error(b"0123456789", |_, n| {
        Some(match n {
            0 => Reply::new(200).body("0123456789").delivery(Delivery::CutAfter(4)),
            _ => Reply::new(206).header("Content-Range", "bytes 2-9/10").body("234567"),
        })
    });
    assert!(matches!(error, ImageError::Invalid { .. }), "{error:?}");
}

#[test]
fn nothing_listening_is_registry_unreachable_and_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference = format!("{free}/app").parse().unwrap();
    let error = Fixture::new().pull(&reference).expect_err("must fail");
    let ImageError::RegistryUnreachable { registry, source } = &error else { panic!("{error:?}") };
    assert_eq!((registry.as_str(), source.kind), (&*free.to_string(), FailureKind::Connect));
    assert!(error.hint().is_some_and(|h| h.contains("running")));
}

/// Counts repetitions.
#[derive(Default)]
struct Retries(std::sync::Mutex<Vec<String>>);

impl onggi_spec::progress::Progress for Retries {
    fn event(&self, event: onggi_spec::progress::ProgressEvent) {
        if let onggi_spec::progress::ProgressEvent::Retry { reason } = event {
            self.0.lock().unwrap().push(reason);
        }
    }
}

fn pull_watched(reference: &str, options: PullOptions) -> (ImageError, Vec<String>) {
    let (fixture, seen) = (Fixture::new(), Retries::default());
    let take = |_: onggi_image::LayerReady<'_>| std::ops::ControlFlow::Continue(());
    let pulled = onggi_image::pull(&fixture.store, &reference.parse().unwrap(), options, &seen, &take);
    (pulled.expect_err("there is no registry"), seen.0.into_inner().unwrap())
}

#[test]
fn a_registry_that_is_not_there_is_said_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (registry, kind) in [(free.to_string(), FailureKind::Connect), ("nothing.invalid".into(), FailureKind::Resolve)]
    {
        let (error, retries) = pull_watched(&format!("{registry}/app"), options());
        assert!(matches!(&error, ImageError::RegistryUnreachable { source, .. } if source.kind == kind), "{error:?}");
        assert_eq!(retries, [""; 0], "{registry}");
    }
}

#[test]
fn a_registry_that_does_not_answer_is_asked_once_more_with_a_word() {
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hasty = with(|r| r.timeouts.response = Duration::from_millis(200));
    let (error, retries) = pull_watched(&format!("{}/app", silent.local_addr().unwrap()), hasty);
    assert!(
        matches!(&error, ImageError::RegistryUnreachable { source, .. } if source.kind == FailureKind::Timeout),
        "{error:?}"
    );
    assert!(retries.len() == 1 && retries[0].contains("timeout") && retries[0].contains("again in"), "{retries:?}");
}

#[test]
fn a_registry_that_goes_away_meanwhile_is_waited_for() {
    use std::io::{Read, Write};
    // Answers once that the image is there, and then listens no more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = stream.read(&mut [0; 4096]);
        let head = "HTTP/1.1 500 Later\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
    });
    let (error, retries) = pull_watched(&format!("{at}/app"), options());
    server.join().expect("the server ends");
    assert!(matches!(error, ImageError::RegistryUnreachable { .. }), "{error:?}");
    assert!(retries.len() >= 2, "{retries:?}");
}

#[test]
fn a_peer_that_is_no_registry_is_named_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("{}/app", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            use std::io::Write;
            let _ = (&stream).write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let error = Fixture::new().pull(&reference).expect_err("must fail");
    assert!(matches!(error, ImageError::RegistryUnreachable { .. }), "{error:?}");
}

#[test]
fn an_unknown_image_and_an_unknown_tag_are_told_apart() {
    let registry = FakeRegistry::start();
    let error = Fixture::new().pull(&registry.reference("nothing")).expect_err("must fail");
    assert!(matches!(&error, ImageError::UnknownImage { repository, .. } if repository == "nothing"), "{error:?}");
    registry.put("latest", &image(&[b"one"]));
    let error = Fixture::new().pull(&registry.reference("app:v9")).expect_err("must fail");
    assert!(matches!(&error, ImageError::UnknownTag { selector, .. } if selector == "v9"), "{error:?}");
}

#[test]
fn a_missing_layer_is_named() {
    let error = layer_error(b"one", |_, _| Some(Reply::error(404, "BLOB_UNKNOWN")));
    assert!(matches!(error, ImageError::MissingBlob { digest, .. } if digest == digest_of(b"one")));
}

#[test]
fn a_platform_that_is_not_there_is_named_with_those_that_are() {
    let registry = FakeRegistry::start();
    let (arm, s390) = (image_for("arm64", &[b"arm"]), image_for("s390x", &[b"s"]));
    let index = index(&[("arm64", &arm), ("s390x", &s390)]);
    registry.put_manifest("latest", media_type::OCI_INDEX, &index);
    registry.put_manifest(digest_of(&index).as_str(), media_type::OCI_INDEX, &index);
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(&error, ImageError::WrongArchitecture { wanted, .. } if wanted == "linux/amd64"), "{error:?}");
    assert_eq!(error.hint().unwrap(), "it is available for: linux/arm64, linux/s390x");
    // A single image tells its platform only in its configuration.
    registry.put("arm", &arm);
    let error = Fixture::new().pull(&registry.reference("app:arm")).expect_err("must fail");
    assert!(
        matches!(&error, ImageError::WrongArchitecture { available, .. } if available == &["linux/arm64"]),
        "{error:?}"
    );
}

#[test]
fn an_entry_of_an_index_that_lies_about_its_platform_is_refused() {
    let registry = FakeRegistry::start();
    let arm = image_for("arm64", &[b"arm"]);
    registry.put("arm", &arm);
    let index = index(&[("amd64", &arm)]);
    registry.put_manifest("latest", media_type::OCI_INDEX, &index);
    registry.put_manifest(digest_of(&index).as_str(), media_type::OCI_INDEX, &index);
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::WrongArchitecture { .. }), "{error:?}");
}

#[test]
fn a_short_fault_of_the_registry_is_ridden_out() {
    for status in [429, 500, 502, 503] {
        let registry =
            FakeRegistry::with_hook(move |_, n| (n == 0).then(|| Reply::new(status).header("Retry-After", "0")));
        registry.put("latest", &image(&[b"one"]));
        assert!(Fixture::new().pull(&registry.reference("app")).is_ok(), "{status}");
    }
}

#[test]
fn a_lasting_fault_of_the_registry_ends_after_the_allowed_attempts() {
    let registry = FakeRegistry::with_hook(|seen, _| (seen.method == "GET").then(|| Reply::new(503)));
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::BadStatus { status: 503, .. }), "{error:?}");
    assert_eq!(registry.requests().iter().filter(|r| r.starts_with("GET")).count(), 3);
}

#[test]
fn a_rate_limit_is_waited_for_as_long_as_asked_but_not_forever() {
    let registry = FakeRegistry::with_hook(|_, n| (n == 0).then(|| Reply::new(429).header("Retry-After", "1")));
    registry.put("latest", &image(&[b"one"]));
    let started = Instant::now();
    Fixture::new().pull(&registry.reference("app")).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));

    let registry = FakeRegistry::with_hook(|_, _| Some(Reply::new(429).header("Retry-After", "3600")));
    let started = Instant::now();
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::RateLimited { retry_after: Some(d), .. } if d.as_secs() == 3600), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn manifest_and_configuration_must_agree_on_the_number_of_layers() {
    let registry = FakeRegistry::start();
    let mut image = image(&[b"one", b"two"]);
    let manifest = json!({"schemaVersion": 2, "config": descriptor(media_type::OCI_CONFIG, &image.config),
        "layers": [descriptor(media_type::OCI_LAYER, b"one")]});
    image.manifest = manifest.to_string().into_bytes();
    registry.put("latest", &image);
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::Invalid { .. }), "{error:?}");
}

#[test]
fn artifacts_that_are_no_container_images_are_refused_by_their_types() {
    for (config, layer) in [
        ("application/vnd.cncf.helm.config.v1+json", media_type::OCI_LAYER),
        (media_type::OCI_CONFIG, "application/x-model"),
    ] {
        let registry = FakeRegistry::start();
        let mut image = image(&[b"one"]);
        let manifest = json!({"schemaVersion": 2, "config": descriptor(config, &image.config), "layers": [descriptor(layer, b"one")]});
        image.manifest = manifest.to_string().into_bytes();
        registry.put("latest", &image);
        let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
        assert!(matches!(error, ImageError::UnsupportedMediaType { .. }), "{error:?}");
    }
}

#[test]
fn one_failing_layer_ends_the_others_soon_and_whole_ones_stay() {
    let registry = FakeRegistry::with_hook(|seen, _| match seen.path() {
        p if p.ends_with(digest_of(b"bad").as_str()) => Some(Reply::new(200).body("dab")),
        _ => None,
    });
    registry.put("latest", &image(&[b"good", b"bad", b"later"]));
    let fixture = Fixture::new();
    let one_by_one = PullOptions { parallel: 1, ..options() };
    assert!(matches!(fixture.pull_with(&registry.reference("app"), one_by_one), Err(ImageError::WrongDigest { .. })));
    assert_eq!(fixture.stored(), [digest_of(b"good")]);
}

#[test]
fn a_disk_that_cannot_be_written_is_a_named_error_with_its_path() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"one"]));
    let fixture = Fixture::new();
    std::fs::remove_dir(fixture.dir.path().join("root/tmp")).unwrap();
    let error = fixture.pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(&error, ImageError::Store(e) if e.path.extension().is_some_and(|end| end == "part")), "{error:?}");
    std::fs::create_dir(fixture.dir.path().join("root/tmp")).unwrap();
    fixture.pull(&registry.reference("app")).unwrap();
}

#[test]
fn errors_never_show_a_query() {
    let registry = FakeRegistry::with_hook(|seen, _| {
        seen.path()
            .contains("/blobs/")
            .then(|| Reply::new(307).header("Location", "https://user@cdn.example/x?signature=SECRET"))
    });
    registry.put("latest", &image(&[b"one"]));
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(!format!("{error} {error:?}").contains("SECRET"));
}

#[test]
fn patience_is_a_setting() {
    let registry = FakeRegistry::with_hook(|seen, _| (seen.method == "GET").then(|| Reply::new(500)));
    let once = with(|r| r.retry.attempts = 1);
    assert!(Fixture::new().pull_with(&registry.reference("app"), once).is_err());
    assert_eq!(registry.requests().iter().filter(|r| r.starts_with("GET")).count(), 1);
}

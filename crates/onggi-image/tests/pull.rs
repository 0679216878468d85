//! What a pull promises when the registry behaves.

mod common;

use std::{
    io::Read,
    ops::ControlFlow,
    sync::{Arc, Barrier, Mutex},
    thread,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use common::{FakeRegistry, Fixture, Reply, descriptor, image, image_for, index, options};
use onggi_image::{
    Access, Deletion, ImageError, LayerReady, PullOptions, Puller, Question, Remote, digest_of, pull, stored_image,
};
use onggi_spec::{
    image::media_type,
    progress::{Progress, ProgressEvent, Silent},
};
use serde_json::json;

#[derive(Default)]
struct Recorder(Mutex<Vec<ProgressEvent>>);

impl Progress for Recorder {
    fn event(&self, event: ProgressEvent) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn every_layer_is_handed_over_once_with_its_whole_content() {
    let registry = FakeRegistry::start();
    let big = vec![7u8; 3 << 20];
    let layers: [&[u8]; 4] = [b"first", &big, b"", b"first"];
    registry.put("latest", &image(&layers));
    let fixture = Fixture::new();
    let received = Mutex::new(Vec::new());
    let pulled = pull(&fixture.store, &registry.reference("app"), options(), &Silent, &|mut ready: LayerReady<'_>| {
        let mut content = Vec::new();
        ready.file.read_to_end(&mut content).unwrap();
        received.lock().unwrap().push((ready.index, content));
        ControlFlow::Continue(())
    })
    .unwrap();
    let mut received = received.into_inner().unwrap();
    received.sort();
    let expected: Vec<_> = layers.iter().map(|l| l.to_vec()).enumerate().collect();
    assert_eq!(received, expected);
    assert_eq!(pulled.layers.len(), 4);
    assert!(pulled.blobs.iter().all(|b| fixture.store.has(b, None)));
    // Config, manifest, and three distinct layers.
    assert_eq!(fixture.stored().len(), 5);
}

#[test]
fn content_that_a_manifest_carries_itself_is_not_asked_for() {
    let registry = FakeRegistry::start();
    let image = image(&[b"carried", b"fetched"]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let config = image.blobs.iter().find(|blob| digest_of(blob).as_str() == manifest["config"]["digest"]).unwrap();
    manifest["config"]["data"] = json!(BASE64_STANDARD.encode(config));
    manifest["layers"][0]["data"] = json!(BASE64_STANDARD.encode(b"carried"));
    // Other bytes than the digest says are nothing.
    manifest["layers"][1]["data"] = json!(BASE64_STANDARD.encode(b"FETCHED"));
    let bytes = manifest.to_string().into_bytes();
    for selector in ["latest", digest_of(&bytes).as_str()] {
        registry.put_manifest(selector, &image.manifest_type, &bytes);
    }
    registry.put_blob(&digest_of(b"fetched"), b"fetched");
    let fixture = Fixture::new();
    let pulled = fixture.pull(&registry.reference("app")).unwrap();
    assert!(pulled.blobs.iter().all(|blob| fixture.store.has(blob, None)));
    let blobs: Vec<_> = registry.requests().into_iter().filter(|request| request.contains("/blobs/")).collect();
    assert_eq!(blobs, [format!("GET /v2/app/blobs/{}", digest_of(b"fetched"))]);
}

/// Lets the other pull end once every layer is said to wait for it.
struct Waits(Mutex<Vec<onggi_spec::Digest>>, std::sync::mpsc::SyncSender<()>);

impl Progress for Waits {
    fn event(&self, event: ProgressEvent) {
        assert!(!matches!(event, ProgressEvent::Retry { .. }), "nothing has failed: {event:?}");
        if let ProgressEvent::Waiting { digest } = event {
            let mut seen = self.0.lock().unwrap();
            seen.push(digest);
            if seen.len() == 2 {
                self.1.send(()).unwrap();
            }
        }
    }
}

#[test]
fn a_pull_that_waits_for_another_on_the_same_base_layer_says_so_of_each_layer() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"base", b"top", b"base"]));
    let fixture = Fixture::new();
    let (held, is_held) = std::sync::mpsc::sync_channel(1);
    let (release, released) = std::sync::mpsc::sync_channel(1);
    let store = fixture.store.clone();
    let other = thread::spawn(move || {
        let _turn = store.hold_base(Some(&digest_of(b"base"))).unwrap();
        held.send(()).unwrap();
        released.recv().unwrap();
    });
    is_held.recv().unwrap();
    let waits = Waits(Mutex::default(), release);
    let reference = registry.reference("app");
    pull(&fixture.store, &reference, options(), &waits, &|_: LayerReady<'_>| ControlFlow::Continue(())).unwrap();
    other.join().unwrap();
    assert_eq!(*waits.0.lock().unwrap(), [digest_of(b"base"), digest_of(b"top")]);
}

#[test]
fn an_index_is_resolved_to_the_wanted_platform() {
    let registry = FakeRegistry::start();
    let (amd, arm) = (image(&[b"amd"]), image_for("arm64", &[b"arm"]));
    registry.put("amd", &amd);
    registry.put("arm", &arm);
    let index = index(&[("arm64", &arm), ("amd64", &amd)]);
    registry.put_manifest("latest", media_type::OCI_INDEX, &index);
    registry.put_manifest(digest_of(&index).as_str(), media_type::OCI_INDEX, &index);
    let fixture = Fixture::new();
    let pulled = fixture.pull(&registry.reference("app")).unwrap();
    assert_eq!((pulled.repo_digest, pulled.manifest_digest), (digest_of(&index), digest_of(&amd.manifest)));
    assert_eq!(pulled.config_digest, digest_of(&amd.config));
    assert!(!fixture.store.has(&digest_of(b"arm"), None));
}

#[test]
fn docker_schema_2_with_gzip_and_zstd_layers_is_an_image_too() {
    let registry = FakeRegistry::start();
    let mut image = image(&[b"gz", b"zst", b"plain"]);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
        "config": descriptor(media_type::DOCKER_CONFIG, &image.config),
        "layers": [descriptor(media_type::DOCKER_LAYER_GZIP, b"gz"), descriptor(media_type::DOCKER_LAYER_ZSTD, b"zst"),
            descriptor(media_type::DOCKER_LAYER, b"plain")]});
    image.manifest = manifest.to_string().into_bytes();
    image.manifest_type = media_type::DOCKER_MANIFEST.to_owned();
    registry.put("latest", &image);
    let pulled = Fixture::new().pull(&registry.reference("app")).unwrap();
    let kinds: Vec<String> = pulled.layers.iter().map(|l| format!("{:?}", l.compression)).collect();
    assert_eq!(kinds, ["Gzip", "Zstd", "None"]);
}

#[test]
fn an_image_that_is_present_costs_one_head_and_no_layer() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"one", b"two"]));
    let fixture = Fixture::new();
    fixture.pull(&registry.reference("app")).unwrap();
    registry.forget();
    let recorder = Recorder::default();
    let on_layer = |_: LayerReady<'_>| ControlFlow::Continue(());
    pull(&fixture.store, &registry.reference("app"), options(), &recorder, &on_layer).unwrap();
    assert_eq!(registry.requests(), ["HEAD /v2/app/manifests/latest"]);
    let events = recorder.0.into_inner().unwrap();
    assert_eq!(events.iter().filter(|e| matches!(e, ProgressEvent::Exists { .. })).count(), 2);
}

#[test]
fn a_digest_reference_that_is_present_costs_no_request_at_all() {
    let registry = FakeRegistry::start();
    let image = image(&[b"one"]);
    registry.put("latest", &image);
    let fixture = Fixture::new();
    let reference = registry.reference("app").with_digest(digest_of(&image.manifest));
    fixture.pull(&reference).unwrap();
    assert!(registry.requests()[0].starts_with("GET /v2/app/manifests/sha256:"));
    registry.forget();
    fixture.pull(&reference).unwrap();
    assert!(registry.requests().is_empty());
}

#[test]
fn a_moved_tag_is_noticed_and_shared_layers_are_not_fetched_again() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"base", b"old"]));
    let fixture = Fixture::new();
    fixture.pull(&registry.reference("app")).unwrap();
    registry.put("latest", &image(&[b"base", b"new"]));
    registry.forget();
    fixture.pull(&registry.reference("app")).unwrap();
    let blobs: Vec<String> = registry.requests().into_iter().filter(|r| r.contains("/blobs/")).collect();
    // The configuration and the one new layer.
    assert_eq!(blobs.len(), 2, "{blobs:?}");
}

#[test]
fn resolving_does_not_download() {
    let registry = FakeRegistry::start();
    let image = image(&[b"one"]);
    registry.put("v1", &image);
    let remote = Remote::new(&registry.reference("app:v1"), &Access::Pull, &options().remote, &Silent).unwrap();
    assert_eq!(remote.head("v1").unwrap(), Some(digest_of(&image.manifest)));
    assert_eq!(registry.requests(), ["HEAD /v2/app/manifests/v1"]);
}

#[test]
fn a_registry_without_digest_header_or_head_is_pulled_from_all_the_same() {
    for head_status in [200, 404, 405] {
        let registry = FakeRegistry::with_hook(move |seen, _| (seen.method == "HEAD").then(|| Reply::new(head_status)));
        registry.put("latest", &image(&[b"one"]));
        assert!(Fixture::new().pull(&registry.reference("app")).is_ok(), "{head_status}");
    }
}

#[test]
fn an_answer_to_a_question_sent_ahead_is_all_that_a_pull_asks_for() {
    let registry = FakeRegistry::start();
    let wanted = image(&[b"one"]);
    registry.put("latest", &wanted);
    let (fixture, reference) = (Fixture::new(), registry.reference("app"));
    drop(fixture.pull(&reference).unwrap());
    registry.forget();
    let question = Question::send(&reference, &options()).expect("a registry here is asked ahead");
    let puller = Puller::new(&fixture.store, &reference, options(), &Silent).unwrap();
    assert_eq!(puller.answered(question), Some(digest_of(&wanted.manifest)));
    assert_eq!(puller.plan().unwrap().repo_digest, digest_of(&wanted.manifest));
    assert_eq!(registry.requests(), ["HEAD /v2/app/manifests/latest"]);
}

#[test]
fn an_odd_answer_to_a_question_sent_ahead_leads_to_the_client_proper() {
    let wanted = image(&[b"one"]);
    let digest = digest_of(&wanted.manifest);
    let named = digest.to_string();
    // The first answer, and how the whole pull that comes after it ends.
    let unasked = Reply::new(304).header("Docker-Content-Digest", named.clone());
    let moved = Reply::new(307).header("Location", "/v2/app/manifests/other");
    for odd in
        [unasked, moved, Reply::new(200), Reply::error(503, "UNAVAILABLE"), Reply::error(404, "MANIFEST_UNKNOWN")]
    {
        let first = odd.clone();
        let registry = FakeRegistry::with_hook(move |seen, earlier| {
            (seen.method == "HEAD" && seen.path().ends_with("latest") && earlier == 0).then(|| first.clone())
        });
        registry.put("latest", &wanted);
        let (fixture, reference) = (Fixture::new(), registry.reference("app"));
        let question = Question::send(&reference, &options()).unwrap();
        let puller = Puller::new(&fixture.store, &reference, options(), &Silent).unwrap();
        assert_eq!(puller.answered(question), Some(digest.clone()), "{odd:?}");
        assert_eq!(registry.requests(), ["HEAD /v2/app/manifests/latest"; 2], "{odd:?}");
        assert_eq!(puller.plan().unwrap().repo_digest, digest, "{odd:?}");
    }
}

#[test]
fn a_digest_that_is_not_what_the_registry_serves_is_refused_after_a_question_too() {
    let (told, served) = (image(&[b"told"]), image(&[b"served"]));
    let named = digest_of(&told.manifest).to_string();
    let registry = FakeRegistry::with_hook(move |seen, _| {
        (seen.method == "HEAD").then(|| Reply::new(200).header("Docker-Content-Digest", named.clone()))
    });
    registry.put("latest", &served);
    registry.put_manifest(&digest_of(&told.manifest).to_string(), &served.manifest_type, &served.manifest);
    let (fixture, reference) = (Fixture::new(), registry.reference("app"));
    let question = Question::send(&reference, &options()).unwrap();
    let puller = Puller::new(&fixture.store, &reference, options(), &Silent).unwrap();
    assert_eq!(puller.answered(question), Some(digest_of(&told.manifest)));
    let refused = puller.plan();
    assert!(matches!(refused, Err(ImageError::WrongDigest { .. })), "{:?}", refused.err());
}

#[test]
fn a_whole_stored_image_is_found_without_registry() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"one", b"two"]));
    let fixture = Fixture::new();
    let reference = registry.reference("app");
    let pulled = fixture.pull(&reference).unwrap();
    let platform = options().platform;
    let plan = stored_image(&fixture.store, &reference, &pulled.repo_digest, &platform).unwrap().expect("stored");
    assert_eq!(plan.config_digest, pulled.config_digest);
    assert_eq!(plan.layer_bytes(), 6);
    drop(pulled);
    assert_eq!(fixture.store.delete(&digest_of(b"two")).unwrap(), Deletion::Deleted);
    assert!(stored_image(&fixture.store, &reference, &plan.repo_digest, &platform).unwrap().is_none());
}

#[test]
fn blobs_are_not_deleted_while_a_pulled_image_is_not_yet_recorded() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"one"]));
    let fixture = Fixture::new();
    let pulled = fixture.pull(&registry.reference("app")).unwrap();
    assert_eq!(fixture.store.delete(&digest_of(b"one")).unwrap(), Deletion::Busy);
    drop(pulled);
    assert_eq!(fixture.store.delete(&digest_of(b"one")).unwrap(), Deletion::Deleted);
    assert_eq!(fixture.store.delete(&digest_of(b"one")).unwrap(), Deletion::Absent);
}

#[test]
fn a_damaged_blob_is_fetched_again() {
    let registry = FakeRegistry::start();
    let image = image(&[b"one"]);
    registry.put("latest", &image);
    let fixture = Fixture::new();
    fixture.pull(&registry.reference("app")).unwrap();
    for bytes in [&image.manifest[..], &image.config, b"one"] {
        std::fs::write(fixture.store.path(&digest_of(bytes)), b"").unwrap();
    }
    fixture.pull(&registry.reference("app")).unwrap();
    assert_eq!(std::fs::read(fixture.store.path(&digest_of(b"one"))).unwrap(), b"one");
    assert_eq!(std::fs::read(fixture.store.path(&digest_of(&image.config))).unwrap(), image.config);
}

#[test]
fn parallel_pulls_of_one_image_download_each_layer_once() {
    let registry = FakeRegistry::start();
    let layers: Vec<Vec<u8>> = (0..6u8).map(|i| vec![i; 300_000]).collect();
    let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    registry.put("latest", &image(&slices));
    let fixture = Fixture::new();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                fixture.pull(&registry.reference("app")).unwrap();
            });
        }
    });
    for layer in &layers {
        let path = format!("GET /v2/app/blobs/{}", digest_of(layer));
        assert_eq!(registry.requests().iter().filter(|r| **r == path).count(), 1);
    }
}

#[test]
fn downloads_go_on_while_a_receiver_works() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"slow", b"a", b"b", b"c"]));
    let fixture = Fixture::new();
    let others = Arc::new(Barrier::new(2));
    // The receiver of the first layer waits for the last one to arrive: only parallel work ends this test.
    let seen = Mutex::new(0);
    pull(&fixture.store, &registry.reference("app"), options(), &Silent, &|ready: LayerReady<'_>| {
        if ready.index == 0 {
            others.wait();
        } else {
            let mut seen = seen.lock().unwrap();
            *seen += 1;
            if *seen == 3 {
                others.wait();
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
}

#[test]
fn pulls_whose_receivers_keep_layers_locked_do_not_wait_for_each_other() {
    let registry = FakeRegistry::start();
    let layers: Vec<Vec<u8>> = (0..5u8).map(|i| vec![i; 1000]).collect();
    let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    registry.put("long", &image(&slices));
    registry.put("short", &image(&slices[..4]));
    for _ in 0..10 {
        let fixture = Fixture::new();
        let locks = fixture.dir.path().join("locks");
        std::fs::create_dir(&locks).unwrap();
        // As an unpacking engine does: a lock per layer, all of them kept until the whole image is there.
        let pull_as_engine = |tag: &str| {
            let kept = Mutex::new(Vec::new());
            let reference = registry.reference(&format!("app:{tag}"));
            let pulled = pull(&fixture.store, &reference, options(), &Silent, &|ready: LayerReady<'_>| {
                let lock = std::fs::File::create(locks.join(ready.layer.diff_id.hex())).unwrap();
                lock.lock().unwrap();
                kept.lock().unwrap().push(lock);
                thread::yield_now();
                ControlFlow::Continue(())
            });
            drop(kept);
            drop(pulled.unwrap().hold);
        };
        thread::scope(|scope| {
            for tag in ["long", "short", "long"] {
                let pull_as_engine = &pull_as_engine;
                scope.spawn(move || pull_as_engine(tag));
            }
        });
    }
}

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"one"]));
    let fixture = Fixture::new();
    let first = fixture.pull(&registry.reference("app")).unwrap();
    let error = fixture.pull(&registry.reference("app")).expect_err("the first hold is alive");
    assert!(matches!(&error, ImageError::Store(e) if e.source.kind() == std::io::ErrorKind::Deadlock), "{error:?}");
    drop(first);
    fixture.pull(&registry.reference("app")).unwrap();
}

#[test]
fn a_receiver_can_end_the_pull() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"one", b"two"]));
    let fixture = Fixture::new();
    let result = pull(&fixture.store, &registry.reference("app"), options(), &Silent, &|_: LayerReady<'_>| {
        ControlFlow::Break(())
    });
    assert!(matches!(result, Err(ImageError::Stopped)));
}

#[test]
fn stored_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"one"]));
    let fixture = Fixture::new();
    fixture.pull(&registry.reference("app")).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let blob = fixture.store.path(&digest_of(b"one"));
    assert_eq!((mode(&blob), mode(blob.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn nested_indexes_are_followed() {
    let registry = FakeRegistry::start();
    let amd = image(&[b"amd"]);
    registry.put("amd", &amd);
    let inner = index(&[("amd64", &amd)]);
    registry.put_manifest(digest_of(&inner).as_str(), media_type::OCI_INDEX, &inner);
    let mut entry = descriptor(media_type::OCI_INDEX, &inner);
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let outer = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
    registry.put_manifest("latest", media_type::OCI_INDEX, &outer);
    registry.put_manifest(digest_of(&outer).as_str(), media_type::OCI_INDEX, &outer);
    let pulled = Fixture::new().pull(&registry.reference("app")).unwrap();
    assert_eq!(pulled.manifest_digest, digest_of(&amd.manifest));
}

#[test]
fn default_options_are_the_safe_ones() {
    let options = PullOptions::default();
    assert!(options.remote.tls_verify && options.remote.credentials.is_none());
}

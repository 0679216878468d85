//! Uploads to a registry that breaks, forgets and refuses.

mod common;

use std::{
    io::Read as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{FakeRegistry, Reply, Seen, remote};
use onggi_image::{Access, ImageError, Remote, Uploaded, digest_of};
use onggi_spec::{
    image::{Descriptor, media_type},
    progress::Silent,
};

/// The upload side of a registry: one session, bytes in memory.
#[derive(Default)]
struct Upload {
    bytes: Mutex<Vec<u8>>,
    done: Mutex<Option<Vec<u8>>>,
}

impl Upload {
    fn answer(&self, seen: &Seen) -> Option<Reply> {
        let mut bytes = self.bytes.lock().unwrap();
        let location = "/v2/app/blobs/uploads/one?state=1";
        let last = |n: usize| format!("0-{}", n.saturating_sub(1));
        Some(match seen.method.as_str() {
            "HEAD" if seen.path().contains("/blobs/") && self.done.lock().unwrap().is_none() => Reply::new(404),
            "POST" => {
                bytes.clear();
                Reply::new(202).header("Location", location)
            }
            "PATCH" => {
                bytes.extend_from_slice(&seen.bytes);
                Reply::new(202).header("Location", location).header("Range", last(bytes.len()))
            }
            "GET" if seen.path().contains("/uploads/") => {
                Reply::new(204).header("Location", location).header("Range", last(bytes.len()))
            }
            "PUT" if seen.path().contains("/uploads/") => {
                bytes.extend_from_slice(&seen.bytes);
                let digest = digest_of(&bytes);
                *self.done.lock().unwrap() = Some(bytes.clone());
                Reply::new(201).header("Docker-Content-Digest", digest.to_string())
            }
            "PUT" => Reply::new(201),
            _ => return None,
        })
    }
}

fn push(registry: &FakeRegistry, content: &[u8], mount: &[String]) -> Result<Uploaded, ImageError> {
    let access = Access::Push { mount_from: mount.to_vec() };
    // A registry that takes 32 MB in one request is slow on a machine with other work: no test here waits for the end of this.
    let mut patient = remote();
    patient.timeouts.read = Duration::from_secs(60);
    patient.timeouts.response = Duration::from_secs(60);
    let client = Remote::new(&registry.reference("app"), &access, &patient, &Silent).unwrap();
    client.put_blob(&digest_of(content), content.len() as u64, &content, mount)
}

#[test]
fn a_small_blob_is_sent_in_one_piece_and_a_present_one_not_at_all() {
    let state = Arc::new(Upload::default());
    let server = Arc::clone(&state);
    let registry = FakeRegistry::with_hook(move |seen, _| server.answer(seen));
    let content = b"small".to_vec();
    assert_eq!(push(&registry, &content, &[]).unwrap(), Uploaded::Sent);
    assert_eq!(state.done.lock().unwrap().as_deref(), Some(&b"small"[..]));
    let methods: Vec<String> = registry.seen().into_iter().map(|s| s.method).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT"]);
    registry.forget();
    registry.put_blob(&digest_of(&content), &content);
    assert_eq!(push(&registry, &content, &[]).unwrap(), Uploaded::Exists);
    assert_eq!(registry.requests().len(), 1);
}

#[test]
fn a_large_blob_is_sent_in_pieces_and_goes_on_after_a_broken_one() {
    let state = Arc::new(Upload::default());
    let server = Arc::clone(&state);
    let registry = FakeRegistry::with_hook(move |seen, before| match seen.method.as_str() {
        // The second piece fails once, after the registry has kept some of it.
        "PATCH" if before == 1 => {
            server.bytes.lock().unwrap().extend_from_slice(&seen.bytes[..1000]);
            Some(Reply::new(500))
        }
        _ => server.answer(seen),
    });
    let mut content = vec![7; 70 << 20];
    (0..content.len()).step_by(1 << 20).for_each(|at| content[at] = (at >> 20) as u8);
    assert_eq!(push(&registry, &content, &[]).unwrap(), Uploaded::Sent);
    assert_eq!(state.done.lock().unwrap().as_deref(), Some(&content[..]));
    let sent: usize = registry.seen().iter().map(|s| s.bytes.len()).sum();
    assert!(sent < content.len() + (40 << 20), "only the broken piece was sent twice: {sent}");
}

#[test]
fn an_upload_that_the_registry_forgot_is_begun_anew() {
    let state = Arc::new(Upload::default());
    let server = Arc::clone(&state);
    let registry = FakeRegistry::with_hook(move |seen, before| match seen.method.as_str() {
        "PUT" if before == 0 => Some(Reply::error(404, "BLOB_UPLOAD_UNKNOWN")),
        _ => server.answer(seen),
    });
    assert_eq!(push(&registry, b"again", &[]).unwrap(), Uploaded::Sent);
    assert_eq!(registry.requests().iter().filter(|r| r.starts_with("POST")).count(), 2);
}

#[test]
fn a_blob_is_taken_over_from_another_repository_or_sent_when_the_registry_does_not() {
    for taken in [true, false] {
        let state = Arc::new(Upload::default());
        let server = Arc::clone(&state);
        let registry = FakeRegistry::with_hook(move |seen, _| {
            if taken && seen.method == "POST" && seen.target.contains("mount=sha256:") {
                assert!(seen.target.ends_with("from=other%2Fplace"), "{}", seen.target);
                return Some(Reply::new(201));
            }
            server.answer(seen)
        });
        let result = push(&registry, b"shared", &["other/place".to_owned()]).unwrap();
        assert_eq!(result, if taken { Uploaded::Mounted("other/place".into()) } else { Uploaded::Sent });
    }
}

#[test]
fn an_upload_location_on_another_host_gets_no_authorization_and_never_leads_into_this_machine() {
    let stranger = FakeRegistry::at("127.0.0.2:0", |seen, _| {
        assert!(seen.header("authorization").is_none());
        Some(Reply::new(201))
    });
    let target = format!("http://{}/elsewhere", stranger.address);
    let registry = FakeRegistry::with_hook(move |seen, _| match seen.method.as_str() {
        _ if seen.header("authorization").is_none() => {
            Some(Reply::error(401, "UNAUTHORIZED").header("WWW-Authenticate", "Basic realm=\"x\""))
        }
        "HEAD" => Some(Reply::new(404)),
        "POST" => Some(Reply::new(202).header("Location", target.clone())),
        _ => None,
    });
    let mut options = remote();
    options.credentials = Some(onggi_image::Credentials::Basic { username: "u".into(), password: "secret".into() });
    let access = Access::Push { mount_from: Vec::new() };
    let client = Remote::new(&registry.reference("app"), &access, &options, &Silent).unwrap();
    let content = b"x".to_vec();
    client.put_blob(&digest_of(&content), 1, &content, &[]).unwrap();
    assert_eq!(stranger.seen().len(), 1);
}

#[test]
fn a_registry_that_stores_something_else_is_found_out() {
    let state = Arc::new(Upload::default());
    let server = Arc::clone(&state);
    let registry = FakeRegistry::with_hook(move |seen, _| match seen.method.as_str() {
        "PUT" => Some(Reply::new(201).header("Docker-Content-Digest", digest_of(b"other").to_string())),
        _ => server.answer(seen),
    });
    assert!(matches!(push(&registry, b"mine", &[]), Err(ImageError::WrongDigest { .. })));
}

#[test]
fn a_refusal_says_what_the_registry_said() {
    let registry = FakeRegistry::with_hook(|seen, _| {
        Some(match seen.method.as_str() {
            "PUT" => Reply::error(400, "MANIFEST_BLOB_UNKNOWN"),
            _ => Reply::new(404),
        })
    });
    let access = Access::Push { mount_from: Vec::new() };
    let client = Remote::new(&registry.reference("app"), &access, &remote(), &Silent).unwrap();
    assert_eq!(client.head("latest").unwrap(), None);
    let error = client.put_manifest("latest", media_type::OCI_MANIFEST, b"{}").expect_err("refused");
    assert!(error.to_string().contains("MANIFEST_BLOB_UNKNOWN"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn an_upload_that_a_broken_registry_forgets_is_told_by_what_broke_it() {
    let registry = FakeRegistry::with_hook(|seen, _| {
        Some(match seen.method.as_str() {
            "POST" => Reply::new(202).header("Location", "/v2/app/blobs/uploads/one"),
            "PUT" => Reply::new(500),
            "GET" if seen.path().contains("/uploads/") => Reply::error(404, "BLOB_UPLOAD_UNKNOWN"),
            _ => Reply::new(404),
        })
    });
    let error = push(&registry, b"content", &[]).expect_err("it never works");
    assert!(matches!(error, ImageError::BadStatus { status: 500, .. }) && error.hint().is_some(), "{error}");
}

#[test]
fn a_registry_without_head_is_asked_for_the_first_byte_and_pushed_to() {
    let server = Upload::default();
    let registry = FakeRegistry::with_hook(move |seen, _| match seen.method.as_str() {
        "HEAD" => Some(Reply::error(405, "UNSUPPORTED")),
        _ => server.answer(seen),
    });
    assert_eq!(push(&registry, b"mine", &[]).unwrap(), Uploaded::Sent);
    registry.put_blob(&digest_of(b"there"), b"there");
    registry.forget();
    assert_eq!(push(&registry, b"there", &[]).unwrap(), Uploaded::Exists);
    let gets: Vec<_> = registry.seen().into_iter().filter(|seen| seen.method == "GET").collect();
    assert!(gets.len() == 1 && gets[0].header("range") == Some("bytes=0-0"), "{:?}", registry.requests());
}

#[test]
fn a_blob_reader_continues_and_verifies() {
    let content: Vec<u8> = (0..3_u32 << 20).map(|i| (i / 7) as u8).collect();
    let body = content.clone();
    let registry = FakeRegistry::with_hook(move |seen, before| {
        let whole = seen.method == "GET" && seen.path().contains("/blobs/");
        (whole && before == 0).then(|| Reply::new(200).body(body.clone()).delivery(common::Delivery::CutAfter(1 << 20)))
    });
    registry.put_blob(&digest_of(&content), &content);
    let client = Remote::new(&registry.reference("app"), &Access::Pull, &remote(), &Silent).unwrap();
    let descriptor = Descriptor {
        media_type: String::new(),
        digest: digest_of(&content),
        size: content.len() as u64,
        urls: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        platform: None,
        artifact_type: None,
        data: None,
    };
    let mut read = Vec::new();
    client.open_blob(&descriptor).read_to_end(&mut read).unwrap();
    assert_eq!(read, content);
    let ranges: Vec<_> = registry.seen().iter().filter_map(|s| s.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");

    let lie = Descriptor { digest: digest_of(b"lie"), ..descriptor.clone() };
    registry.put_blob(&lie.digest, &content);
    let error = client.open_blob(&lie).read_to_end(&mut Vec::new()).expect_err("other content");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    let short = Descriptor { size: 100, ..descriptor };
    client.open_blob(&short).read_to_end(&mut Vec::new()).expect_err("longer than it says");
}

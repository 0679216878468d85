//! Who is shown credentials, and who is not. Every attack has its benign twin.
//!
//! 127.0.0.1 is the registry; 127.0.0.2 plays the stranger: another host that is also on loopback, so that plain
//! HTTP is not what stops a request.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use common::{FakeRegistry, Fixture, Reply, Seen, TestImage, image, with};
use onggi_image::{Credentials, ImageError, ProxySettings, PullOptions, digest_of};
use serde_json::json;

const STRANGER: &str = "127.0.0.2:0";

fn credentials() -> Credentials {
    Credentials::Basic { username: "user".into(), password: "secret".into() }
}

fn logged_in() -> PullOptions {
    with(|r| r.credentials = Some(credentials()))
}

fn basic_header() -> String {
    format!("Basic {}", BASE64_STANDARD.encode("user:secret"))
}

fn token_answer(token: &str) -> Reply {
    Reply::new(200).body(json!({"token": token, "expires_in": 300}).to_string())
}

fn challenge(realm: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED")
        .header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="svc",scope="ignored""#))
}

/// A token service that gives `T` to everyone.
fn token_service(address: &str) -> FakeRegistry {
    FakeRegistry::at(address, |_, _| Some(token_answer("T")))
}

/// A registry that wants the token `T` from the realm, on everything.
fn protected(realm: String, image: &TestImage) -> FakeRegistry {
    let registry = FakeRegistry::with_hook(move |seen, _| {
        (seen.header("authorization") != Some("Bearer T")).then(|| challenge(&realm))
    });
    registry.put("latest", image);
    registry
}

fn sent_credentials(seen: &[Seen]) -> Vec<String> {
    seen.iter().filter_map(|s| s.header("authorization").map(str::to_owned)).collect()
}

#[test]
fn one_token_serves_a_whole_pull() {
    let service = token_service("127.0.0.1:0");
    let registry = protected(format!("http://{}/token?x=1", service.address), &image(&[b"a", b"b", b"c", b"d"]));
    Fixture::new().pull_with(&registry.reference("team/app"), logged_in()).unwrap();
    let asked = service.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/token?x=1&service=svc&scope=repository%3Ateam%2Fapp%3Apull");
    assert_eq!(asked[0].header("authorization"), Some(&*basic_header()));
    assert!(sent_credentials(&registry.seen()).iter().all(|h| h == "Bearer T"));
}

#[test]
fn an_anonymous_pull_asks_for_a_token_without_credentials() {
    let service = token_service("127.0.0.1:0");
    let registry = protected(format!("http://{}/token", service.address), &image(&[b"a"]));
    Fixture::new().pull(&registry.reference("app")).unwrap();
    assert!(sent_credentials(&service.seen()).is_empty());
}

#[test]
fn basic_authentication_works_without_a_token_service() {
    let expected = basic_header();
    let registry = FakeRegistry::with_hook(move |seen, _| {
        (seen.header("authorization") != Some(&expected))
            .then(|| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="Registry""#))
    });
    registry.put("latest", &image(&[b"a"]));
    Fixture::new().pull_with(&registry.reference("app"), logged_in()).unwrap();
}

#[test]
fn an_identity_token_is_exchanged_by_post() {
    let service = FakeRegistry::with_hook(|_, _| Some(Reply::new(200).body(r#"{"access_token":"T"}"#)));
    let registry = protected(format!("http://{}/token", service.address), &image(&[b"a"]));
    let options = with(|r| r.credentials = Some(Credentials::IdentityToken("refresh+me".into())));
    Fixture::new().pull_with(&registry.reference("app"), options).unwrap();
    let asked = &service.seen()[0];
    assert_eq!(asked.method, "POST");
    assert!(asked.body.contains("grant_type=refresh_token") && asked.body.contains("refresh_token=refresh%2Bme"));
}

#[test]
fn a_token_that_ends_during_a_pull_is_renewed() {
    let given = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&given);
    let service = FakeRegistry::with_hook(move |_, _| {
        Some(token_answer(&format!("T{}", counter.fetch_add(1, Ordering::SeqCst))))
    });
    let realm = format!("http://{}/token", service.address);
    let valid = Arc::clone(&given);
    let registry = FakeRegistry::with_hook(move |seen, _| {
        // The first token stops working when the layers begin.
        let dead =
            seen.path().ends_with(digest_of(b"layer").as_str()) && seen.header("authorization") == Some("Bearer T0");
        let unknown = seen.header("authorization").is_none() || valid.load(Ordering::SeqCst) == 0;
        (dead || unknown).then(|| challenge(&realm))
    });
    registry.put("latest", &image(&[b"layer"]));
    Fixture::new().pull(&registry.reference("app")).unwrap();
    assert_eq!(given.load(Ordering::SeqCst), 2);
}

#[test]
fn missing_and_wrong_credentials_are_told_apart() {
    let service = FakeRegistry::with_hook(|_, _| Some(Reply::error(401, "UNAUTHORIZED")));
    let registry = protected(format!("http://{}/token", service.address), &image(&[b"a"]));
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::Unauthorized { sent: false, .. }), "{error:?}");
    assert!(error.hint().is_some_and(|h| h.contains("log in")));
    let error = Fixture::new().pull_with(&registry.reference("app"), logged_in()).expect_err("must fail");
    assert!(matches!(error, ImageError::Unauthorized { sent: true, .. }), "{error:?}");
}

#[test]
fn a_token_that_is_refused_ends_the_pull_instead_of_going_round() {
    let service = FakeRegistry::with_hook(|_, _| Some(token_answer("useless")));
    let registry = protected(format!("http://{}/token", service.address), &image(&[b"a"]));
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error:?}");
    assert!(registry.seen().len() <= 4);
}

#[test]
fn a_denied_repository_is_named() {
    let registry = FakeRegistry::with_hook(|_, _| Some(Reply::error(403, "DENIED")));
    let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
    assert!(matches!(&error, ImageError::Denied { repository, .. } if repository == "app"), "{error:?}");
}

#[test]
fn broken_token_answers_are_named_and_bounded() {
    let answers: [Reply; 5] = [
        Reply::new(200).body("not json"),
        Reply::new(200).body("{}"),
        Reply::new(200).body(json!({"token": "a\r\nX-Injected: 1"}).to_string()),
        Reply::new(200).body(vec![b'x'; 1 << 20]),
        Reply::new(302).header("Location", "http://127.0.0.1:1/"),
    ];
    for answer in answers {
        let service = FakeRegistry::with_hook(move |_, _| Some(answer.clone()));
        let registry = protected(format!("http://{}/token", service.address), &image(&[b"a"]));
        let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
        assert!(matches!(error, ImageError::BadToken { .. }), "{error:?}");
    }
}

#[test]
fn cve_2019_10214_a_token_service_in_the_clear_elsewhere_is_refused() {
    for realm in ["http://auth.example/token", "ftp://127.0.0.1/", "", "http://user:pw@127.0.0.1/"] {
        let registry = protected(realm.to_owned(), &image(&[b"a"]));
        let error = Fixture::new().pull_with(&registry.reference("app"), logged_in()).expect_err("must fail");
        assert!(matches!(error, ImageError::UnsafeRealm { .. }), "{realm} {error:?}");
        assert!(sent_credentials(&registry.seen()).is_empty());
    }
}

#[test]
fn cve_2019_10214_benign_the_registrys_own_token_service_gets_the_credentials() {
    let service = token_service("127.0.0.1:0");
    let registry = protected(format!("http://{}/token", service.address), &image(&[b"a"]));
    Fixture::new().pull_with(&registry.reference("app"), logged_in()).unwrap();
    assert_eq!(sent_credentials(&service.seen()), [basic_header()]);
}

#[test]
fn cve_2020_15157_a_foreign_token_service_does_not_get_the_credentials() {
    let service = token_service(STRANGER);
    let registry = protected(format!("http://{}/token", service.address), &image(&[b"a"]));
    let _ = Fixture::new().pull_with(&registry.reference("app"), logged_in());
    assert!(sent_credentials(&service.seen()).is_empty());
    assert!(service.seen().iter().all(|s| !s.body.contains("secret") && !s.target.contains("secret")));
}

#[test]
fn cve_2020_15157_benign_a_trusted_foreign_token_service_gets_the_credentials() {
    let service = FakeRegistry::at(STRANGER, |seen, _| {
        Some(if seen.header("authorization").is_some() { token_answer("T") } else { Reply::new(401) })
    });
    let registry = protected(format!("https://{}/token", service.address).replace("https", "http"), &image(&[b"a"]));
    let options = with(|r| {
        r.credentials = Some(credentials());
        r.trusted_realms = vec!["127.0.0.2".into()];
    });
    Fixture::new().pull_with(&registry.reference("app"), options).unwrap();
}

#[test]
fn cve_2020_15157_a_layer_redirected_to_a_stranger_does_not_carry_the_token() {
    let stranger = FakeRegistry::at(STRANGER, |_, _| Some(Reply::new(200).body("layer")));
    let cdn = format!("http://{}/layer?signature=1", stranger.address);
    let service = token_service("127.0.0.1:0");
    let realm = format!("http://{}/token", service.address);
    let registry = FakeRegistry::with_hook(move |seen, _| {
        if seen.header("authorization") != Some("Bearer T") {
            return Some(challenge(&realm));
        }
        seen.path().ends_with(digest_of(b"layer").as_str()).then(|| Reply::new(307).header("Location", &cdn))
    });
    registry.put("latest", &image(&[b"layer"]));
    // Benign at once: the pull works, the signed query arrives.
    Fixture::new().pull_with(&registry.reference("app"), logged_in()).unwrap();
    let seen = stranger.seen();
    assert_eq!(seen[0].target, "/layer?signature=1");
    assert!(sent_credentials(&seen).is_empty());
}

#[test]
fn cve_2020_15157_a_strangers_challenge_is_not_answered() {
    let service = token_service("127.0.0.1:0");
    let realm = format!("http://{}/token", service.address);
    let stranger_realm = realm.clone();
    let stranger = FakeRegistry::at(STRANGER, move |_, _| Some(challenge(&stranger_realm)));
    let cdn = format!("http://{}/layer", stranger.address);
    let registry = FakeRegistry::with_hook(move |seen, _| {
        seen.path().ends_with(digest_of(b"layer").as_str()).then(|| Reply::new(302).header("Location", &cdn))
    });
    registry.put("latest", &image(&[b"layer"]));
    let error = Fixture::new().pull_with(&registry.reference("app"), logged_in()).expect_err("must fail");
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error:?}");
    assert!(service.seen().is_empty());
    assert!(sent_credentials(&stranger.seen()).is_empty());
}

#[test]
fn cve_2020_15157_a_foreign_layer_is_refused_and_its_url_not_visited() {
    use onggi_spec::image::media_type;
    let stranger = FakeRegistry::at(STRANGER, |_, _| Some(Reply::new(200).body("layer")));
    for media in [media_type::DOCKER_FOREIGN_GZIP, media_type::OCI_NONDIST_GZIP] {
        let mut image = image(&[b"layer"]);
        let mut layer = common::descriptor(media, b"layer");
        layer["urls"] = json!([format!("http://{}/layer", stranger.address)]);
        let manifest = json!({"schemaVersion": 2, "config": common::descriptor(media_type::OCI_CONFIG, &image.config), "layers": [layer]});
        image.manifest = manifest.to_string().into_bytes();
        let registry = FakeRegistry::start();
        registry.put("latest", &image);
        let error = Fixture::new().pull_with(&registry.reference("app"), logged_in()).expect_err("must fail");
        assert!(matches!(error, ImageError::ForeignLayer { .. }), "{error:?}");
    }
    assert!(stranger.seen().is_empty());
}

#[test]
fn cve_2020_15157_benign_urls_of_an_ordinary_layer_are_ignored_and_the_registry_is_used() {
    use onggi_spec::image::media_type;
    let stranger = FakeRegistry::at(STRANGER, |_, _| Some(Reply::new(200).body("layer")));
    let mut image = image(&[b"layer"]);
    let mut layer = common::descriptor(media_type::OCI_LAYER, b"layer");
    layer["urls"] = json!([format!("http://{}/layer", stranger.address)]);
    let manifest = json!({"schemaVersion": 2, "config": common::descriptor(media_type::OCI_CONFIG, &image.config), "layers": [layer]});
    image.manifest = manifest.to_string().into_bytes();
    let registry = FakeRegistry::start();
    registry.put("latest", &image);
    Fixture::new().pull(&registry.reference("app")).unwrap();
    assert!(stranger.seen().is_empty());
}

#[test]
fn cve_2021_41092_basic_credentials_do_not_follow_a_redirect_to_another_origin() {
    let stranger = FakeRegistry::at(STRANGER, |_, _| Some(Reply::new(401).header("WWW-Authenticate", "Basic realm=x")));
    let target = format!("http://{}/v2/app/manifests/latest", stranger.address);
    let expected = basic_header();
    let registry = FakeRegistry::with_hook(move |seen, _| {
        Some(if seen.header("authorization") == Some(&expected) {
            Reply::new(307).header("Location", &target)
        } else {
            Reply::new(401).header("WWW-Authenticate", "Basic realm=x")
        })
    });
    let error = Fixture::new().pull_with(&registry.reference("app"), logged_in()).expect_err("must fail");
    assert!(matches!(error, ImageError::Unauthorized { .. }), "{error:?}");
    assert!(!stranger.seen().is_empty() && sent_credentials(&stranger.seen()).is_empty());
}

#[test]
fn cve_2021_41092_benign_a_redirect_within_the_registry_keeps_the_authorisation() {
    let expected = basic_header();
    let registry = FakeRegistry::with_hook(move |seen, _| {
        if seen.header("authorization") != Some(&expected) {
            return Some(Reply::new(401).header("WWW-Authenticate", "Basic realm=x"));
        }
        match seen.path() {
            "/v2/app/manifests/latest" => Some(Reply::new(307).header("Location", "/v2/moved/manifests/latest")),
            _ => None,
        }
    });
    registry.put("latest", &image(&[b"a"]));
    Fixture::new().pull_with(&registry.reference("app"), logged_in()).unwrap();
}

#[test]
fn redirects_are_bounded_and_checked() {
    let cases = ["/v2/app/again", "file:///etc/passwd", "http://cdn.example/x", "", "gopher://127.0.0.1/"];
    for location in cases {
        let registry = FakeRegistry::with_hook(move |_, _| Some(Reply::new(302).header("Location", location)));
        let error = Fixture::new().pull(&registry.reference("app")).expect_err("must fail");
        assert!(matches!(error, ImageError::UnsafeRedirect { .. }), "{location} {error:?}");
        assert!(registry.seen().len() <= 6);
    }
}

/// `127.1` resolves to 127.0.0.1 but is not written like a loopback address: it stands for any other host.
fn elsewhere(registry: &FakeRegistry) -> onggi_spec::ImageReference {
    format!("127.1:{}/app", registry.address.port()).parse().unwrap()
}

#[test]
fn plain_http_is_refused_elsewhere_than_on_loopback() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"a"]));
    let error = Fixture::new().pull_with(&elsewhere(&registry), logged_in()).expect_err("must fail");
    assert!(matches!(error, ImageError::RegistryUnreachable { .. }), "{error:?}");
    assert!(registry.requests().iter().all(|r| !r.contains("/v2/")));
}

#[test]
fn plain_http_is_used_elsewhere_when_verification_is_switched_off() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"a"]));
    let options = with(|r| r.tls_verify = false);
    Fixture::new().pull_with(&elsewhere(&registry), options).unwrap();
}

#[test]
fn a_proxy_is_used_for_other_hosts_and_never_for_loopback() {
    let registry = FakeRegistry::start();
    registry.put("latest", &image(&[b"a"]));
    let proxy = FakeRegistry::with_hook(|_, _| Some(Reply::new(502)));
    let proxies = ProxySettings { http: Some(format!("http://{}", proxy.address)), ..ProxySettings::default() };
    let through = with(|r| (r.proxies, r.tls_verify) = (proxies.clone(), false));
    Fixture::new().pull_with(&registry.reference("app"), through.clone()).unwrap();
    assert!(proxy.seen().is_empty());
    Fixture::new().pull_with(&elsewhere(&registry), through).expect_err("the proxy refuses");
    assert!(!proxy.seen().is_empty());
    let past = ProxySettings { no_proxy: "127.1".into(), ..proxies };
    let past = with(|r| (r.proxies, r.tls_verify) = (past, false));
    Fixture::new().pull_with(&elsewhere(&registry), past).unwrap();
}

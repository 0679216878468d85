//! Pulls from Debian's docker-registry what skopeo pushed there: two programs that are not ours.
//!
//! They come with `cargo xtask setup`; without them the tests fail.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use common::{Fixture, config_json, descriptor, options, with};
use onggi_image::{FailureKind, ImageError, LayerReady, digest_of, pull};
use onggi_spec::{ImageReference, image::media_type, progress::Silent};
use serde_json::json;

/// Fails where a program is not in its usual place.
fn need(programs: &[&str]) {
    let missing: Vec<_> = programs.iter().filter(|p| !Path::new("/usr/bin").join(p).exists()).collect();
    assert!(missing.is_empty(), "not installed (`cargo xtask setup`): {missing:?}");
}

struct DebianRegistry {
    process: Child,
    port: u16,
}

impl DebianRegistry {
    fn start(dir: &Path, tls: Option<(&Path, &Path)>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tls =
            tls.map(|(cert, key)| format!("  tls:\n    certificate: {}\n    key: {}\n", cert.display(), key.display()));
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
            dir.join("registry").display(),
            tls.unwrap_or_default()
        );
        let path = dir.join("registry.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("/usr/bin/docker-registry");
        command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let mut registry = Self { process: command.spawn().unwrap(), port };
        registry.wait_until_up();
        registry
    }

    fn wait_until_up(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "docker-registry ended");
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn reference(&self, tail: &str) -> ImageReference {
        format!("127.0.0.1:{}/{tail}", self.port).parse().unwrap()
    }

    fn push(&self, layout: &Path, tail: &str) {
        let target = format!("docker://127.0.0.1:{}/{tail}", self.port);
        let policy = layout.with_extension("policy.json");
        fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        let output = Command::new("/usr/bin/skopeo")
            .arg("--policy")
            .arg(&policy)
            .args(["copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(target)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout with gzip layers, written by hand. Returns its manifest.
fn layout(dir: &Path, tars: &[Vec<u8>]) -> (PathBuf, Vec<u8>) {
    let root = dir.join("layout");
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(digest_of(bytes).hex()), bytes).unwrap();
    let config = config_json("amd64", tars);
    let layers: Vec<Vec<u8>> = tars.iter().map(|t| gzip(t)).collect();
    layers.iter().for_each(|l| put(l));
    put(&config);
    let listed: Vec<_> = layers.iter().map(|l| descriptor(media_type::OCI_LAYER_GZIP, l)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, &config), "layers": listed});
    let manifest = manifest.to_string().into_bytes();
    put(&manifest);
    let mut entry = descriptor(media_type::OCI_MANIFEST, &manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    fs::write(root.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).unwrap();
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    (root, manifest)
}

fn tars() -> Vec<Vec<u8>> {
    let noise =
        |seed: u32, n: u32| (0..n).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect();
    vec![noise(1, 2_000_000), noise(2, 10), noise(3, 300_000)]
}

#[test]
fn what_skopeo_pushed_to_docker_registry_is_pulled_byte_for_byte() {
    need(&["docker-registry", "skopeo"]);
    let fixture = Fixture::new();
    let registry = DebianRegistry::start(fixture.dir.path(), None);
    let tars = tars();
    let (layout, manifest) = layout(fixture.dir.path(), &tars);
    registry.push(&layout, "team/app:v1");
    let unpacked = Mutex::new(vec![Vec::new(); tars.len()]);
    let pulled =
        pull(&fixture.store, &registry.reference("team/app:v1"), options(), &Silent, &|ready: LayerReady<'_>| {
            let mut content = Vec::new();
            flate2::read::GzDecoder::new(ready.file).read_to_end(&mut content).unwrap();
            assert_eq!(digest_of(&content), ready.layer.diff_id);
            unpacked.lock().unwrap()[ready.index] = content;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(pulled.manifest_digest, digest_of(&manifest));
    assert_eq!(unpacked.into_inner().unwrap(), tars);
    drop(pulled.hold);
    let again = registry.reference("team/app").with_digest(digest_of(&manifest));
    assert_eq!(fixture.pull(&again).unwrap().config_digest, pulled.config_digest);
}

#[test]
fn docker_registrys_refusals_are_named() {
    need(&["docker-registry", "skopeo"]);
    let fixture = Fixture::new();
    let registry = DebianRegistry::start(fixture.dir.path(), None);
    let (layout, manifest) = layout(fixture.dir.path(), &tars());
    registry.push(&layout, "app:v1");
    let error = fixture.pull(&registry.reference("app:v2")).expect_err("must fail");
    assert!(matches!(&error, ImageError::UnknownTag { selector, .. } if selector == "v2"), "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("the tag")), "{error:?}");
    let forgotten = registry.reference("app").with_digest(digest_of(b"of another day"));
    let error = fixture.pull(&forgotten).expect_err("must fail");
    assert!(error.hint().is_some_and(|hint| hint.contains("the digest")), "{error:?}");
    let error = fixture.pull(&registry.reference("nothing:v1")).expect_err("must fail");
    assert!(matches!(&error, ImageError::UnknownImage { repository, .. } if repository == "nothing"), "{error:?}");
    // A blob that rots on the registry's disk.
    let config =
        serde_json::from_slice::<serde_json::Value>(&manifest).unwrap()["layers"][0]["digest"].as_str().unwrap()[7..]
            .to_owned();
    let rotten =
        fixture.dir.path().join(format!("registry/docker/registry/v2/blobs/sha256/{}/{config}/data", &config[..2]));
    let length = fs::metadata(&rotten).unwrap().len();
    fs::write(&rotten, vec![0; usize::try_from(length).unwrap()]).unwrap();
    let error = fixture.pull(&registry.reference("app:v1")).expect_err("must fail");
    assert!(matches!(error, ImageError::WrongDigest { .. }), "{error:?}");
}

#[test]
fn certificates_are_verified_unless_the_user_says_otherwise() {
    need(&["docker-registry", "skopeo", "openssl"]);
    let fixture = Fixture::new();
    let (cert, key) = certificate(fixture.dir.path());
    let registry = DebianRegistry::start(fixture.dir.path(), Some((&cert, &key)));
    let (layout, _) = layout(fixture.dir.path(), &tars());
    registry.push(&layout, "app:v1");
    let reference = registry.reference("app:v1");

    let error = fixture.pull(&reference).expect_err("an unknown authority");
    let ImageError::RegistryUnreachable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind, FailureKind::Tls);
    assert!(error.hint().is_some_and(|h| h.contains("--tls-verify=false")));

    let trusting = with(|r| r.authorities = vec![fs::read_to_string(&cert).unwrap()]);
    fixture.pull_with(&reference, trusting.clone()).unwrap();

    // The same authority, another name than the certificate's.
    let other = format!("localhost:{}/app:v1", registry.port).parse().unwrap();
    let error = Fixture::new().pull_with(&other, trusting).expect_err("another name");
    assert!(
        matches!(&error, ImageError::RegistryUnreachable { source, .. } if source.kind == FailureKind::Tls),
        "{error:?}"
    );

    let careless = with(|r| r.tls_verify = false);
    Fixture::new().pull_with(&other, careless).unwrap();
}

/// A certificate for 127.0.0.1 that is its own authority.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let output = Command::new("/usr/bin/openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (cert, key)
}

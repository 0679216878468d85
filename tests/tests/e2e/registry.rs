//! Registries: login, push, search, mirrors, tokens, resumed downloads, attachments; against Debian's docker-registry
//! and with skopeo and Podman looking at what came out.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use onggi_tests::{
    Onggi,
    gate::{Act, Gate},
    image::{self, Blob, Compression, Flavour, ImageBuilder, busybox_tree},
    isolated, machine,
    registry::Registry,
    tarball::Tarball,
};
use serde_json::{Value, json};

use crate::Stage;

/// `sha256:…` that skopeo sees under a name.
fn digest_at(reference: &str, options: &str) -> String {
    let line = format!("skopeo inspect --tls-verify=false {options} --format '{{{{.Digest}}}}' docker://{reference}");
    machine::sh(&line).trim().to_owned()
}

fn home(onggi: &Onggi) -> PathBuf {
    onggi.dir().join("home")
}

#[test]
fn e2e_a_login_is_checked_kept_and_forgotten() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::with_password());
    let source = registry.push("app", &image::busybox(Flavour::Oci));
    let refused = onggi.run(&["pull", &source]);
    assert!(refused.code == Some(1) && refused.stderr.contains("onggi login"), "{refused}");
    let config = home(&onggi).join(".docker/config.json");
    fs::create_dir_all(home(&onggi).join(".docker")).expect("make a directory");
    fs::write(&config, r#"{"psFormat":"kept","auths":{"other.example":{"auth":"eDp5"}}}"#).expect("write");
    let wrong = onggi.run(&["login", "-u", "alice", "-p", "wrong", &registry.host()]);
    assert!(wrong.code == Some(1) && !wrong.to_string().contains("Login Succeeded"), "{wrong}");
    let mut command = onggi.command(&["login", "-u", "alice", "--password-stdin", &registry.host()]);
    let secret = onggi.dir().join("secret");
    fs::write(&secret, "s:ecret\n").expect("write");
    command.stdin(fs::File::open(&secret).expect("open"));
    let right = onggi.finish(&mut command);
    assert!(right.code == Some(0) && right.stdout == "Login Succeeded\n", "{right}");
    assert_eq!(fs::metadata(&config).expect("stat").permissions().mode() & 0o777, 0o600);
    let kept: Value = serde_json::from_str(&fs::read_to_string(&config).expect("read")).expect("JSON");
    assert!(kept["psFormat"] == "kept" && kept["auths"]["other.example"]["auth"] == "eDp5", "{kept}");
    assert_eq!(onggi.ok(&["login", "--get-login", &registry.host()]), "alice");
    onggi.ok(&["pull", &source]);
    onggi.ok(&["tag", &source, &format!("{}/own/app:v1", registry.host())]);
    onggi.ok(&["push", &format!("{}/own/app:v1", registry.host())]);
    // The file is the one that skopeo reads, too.
    let shown = digest_at(&source, &format!("--authfile {}", config.display()));
    assert!(shown.starts_with("sha256:"), "{shown}");
    onggi.ok(&["logout", &registry.host()]);
    assert_eq!(onggi.run(&["pull", &source]).code, Some(1));
    assert!(onggi.ok(&["logout", &registry.host()]).starts_with("Not logged in"));
    onggi.assert_nothing_left();
}

#[test]
fn e2e_credential_helpers_keep_secrets_and_are_never_a_path() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::with_password());
    let source = registry.push("app", &image::busybox(Flavour::Oci));
    let bin = onggi.dir().join("bin");
    fs::create_dir(&bin).expect("make a directory");
    let helper = bin.join("docker-credential-test");
    let store = onggi.dir().join("kept");
    fs::write(
        &helper,
        format!(
            "#!/bin/sh\nin=$(cat)\ncase $1 in\nstore) printf %s \"$in\" > {0} ;;\n\
             get) [ -e {0} ] && cat {0} || {{ echo credentials not found in native keychain; exit 1; }} ;;\n\
             erase) rm -f {0} ;;\nesac\n",
            store.display()
        ),
    )
    .expect("write");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("chmod");
    let config = home(&onggi).join(".docker/config.json");
    fs::create_dir_all(home(&onggi).join(".docker")).expect("make a directory");
    fs::write(&config, r#"{"credsStore":"test"}"#).expect("write");
    let run = |args: &[&str]| {
        let mut command = onggi.command(args);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        onggi.finish(&mut command)
    };
    assert_eq!(run(&["pull", &source]).code, Some(1), "nothing is kept yet");
    let login = run(&["login", "-u", "alice", "-p", "s:ecret", &registry.host()]);
    assert_eq!(login.code, Some(0), "{login}");
    assert!(fs::read_to_string(&store).expect("kept").contains("s:ecret"));
    assert!(!fs::read_to_string(&config).expect("read").contains("auth\""));
    let pulled = run(&["pull", "-q", &source]);
    assert_eq!(pulled.code, Some(0), "{pulled}");
    assert_eq!(run(&["logout", &registry.host()]).code, Some(0));
    assert!(!store.exists());
    fs::write(&config, r#"{"credsStore":"../../tmp/evil"}"#).expect("write");
    let evil = run(&["pull", &source]);
    assert!(evil.code == Some(1) && evil.stderr.contains("no name of a credential helper"), "{evil}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_what_is_pushed_keeps_its_digest_for_skopeo_and_podman() {
    let stage = Stage::new();
    let registry = Registry::new();
    let onggi = &stage.onggi;
    let top = Tarball::new().file("own", 0o644, b"x").finish();
    for (flavour, compression) in
        [(Flavour::Docker, Compression::Gzip), (Flavour::Oci, Compression::Zstd), (Flavour::Oci, Compression::Plain)]
    {
        let image =
            ImageBuilder::new(flavour).layer(&busybox_tree().finish(), compression).layer(&top, compression).build();
        let tag = format!("{flavour:?}-{compression:?}").to_lowercase();
        let source = stage.registry.serve("src", &tag, &image);
        onggi.ok(&["pull", "-q", &source]);
        let target = format!("{}/dst/app:{tag}", registry.host());
        onggi.ok(&["tag", &source, &target]);
        let said = onggi.ok(&["push", &target]);
        assert!(
            said.contains(&format!("{tag}: digest: {} size: {}", image.manifest.digest(), image.manifest.bytes.len())),
            "{said}"
        );
        assert_eq!(digest_at(&target, ""), image.manifest.digest());
        let again = onggi.run(&["push", &target]);
        assert!(again.code == Some(0) && !again.stderr.contains(": Pushed"), "{again}");
    }
    // Another repository of the same registry gives the blobs.
    let other = format!("{}/other/app:v1", registry.host());
    onggi.ok(&["tag", &format!("{}/dst/app:docker-gzip", registry.host()), &other]);
    let mounted = onggi.run(&["push", &other]);
    assert!(mounted.code == Some(0) && mounted.stderr.contains("Mounted from dst/app"), "{mounted}");
    let storage = onggi.dir().join("podman");
    let pulled = machine::sh(&format!(
        "podman --root {0}/root --runroot {0}/run --storage-driver vfs pull -q --tls-verify=false {other} && podman --root {0}/root --runroot {0}/run --storage-driver vfs inspect --format '{{{{.Digest}}}}' {other}",
        storage.display()
    ));
    assert!(pulled.trim().ends_with(&digest_at(&other, "")), "{pulled}");
    // All tags of a repository, quietly; and to a destination.
    let quiet = onggi.ok(&["push", "-q", "--all-tags", &format!("{}/dst/app", registry.host())]);
    assert_eq!(quiet.lines().count(), 3, "{quiet}");
    let file = onggi.dir().join("digest");
    onggi.ok(&[
        "push",
        "--digestfile",
        &file.to_string_lossy(),
        &other,
        &format!("docker://{}/third:x", registry.host()),
    ]);
    assert_eq!(fs::read_to_string(&file).expect("read"), digest_at(&format!("{}/third:x", registry.host()), ""));
    // Plain layers can be compressed on the way, to the same bytes each time.
    let plain = format!("{}/dst/app:oci-plain", registry.host());
    let compressed = |to: &str| {
        let to = format!("{}/{to}", registry.host());
        onggi.ok(&["push", "-q", "--compression", "zstd", &plain, &to]);
        (digest_at(&to, ""), machine::sh(&format!("skopeo inspect --raw --tls-verify=false docker://{to}")))
    };
    let (first, second) = (compressed("zstd:a"), compressed("more/zstd:b"));
    assert!(first == second && first.1.contains("tar+zstd"), "{first:?} {second:?}");
    onggi.ok(&["pull", "-q", &format!("{}/zstd:a", registry.host())]);
    let absent = onggi.run(&["push", &format!("{}/absent", registry.host())]);
    assert_eq!(absent.code, Some(1), "{absent}");
    onggi.assert_nothing_left();
}

/// An index of this machine's platform and another.
fn two_platforms(stage: &Stage, name: &str) -> (String, String) {
    let here = image::busybox(Flavour::Oci);
    let there = ImageBuilder::new(Flavour::Oci)
        .architecture("s390x")
        .layer(&Tarball::new().file("there", 0o644, b"x").finish(), Compression::Gzip)
        .build();
    let entry = |image: &image::Image, architecture: &str| {
        stage.registry.serve(name, architecture, image);
        json!({ "mediaType": image.manifest.media_type, "digest": image.manifest.digest(),
            "size": image.manifest.bytes.len(), "platform": { "os": "linux", "architecture": architecture } })
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let entries = [entry(&there, "s390x"), entry(&here, "amd64")];
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
    let blob = Blob { media_type: kind.to_owned(), bytes: index.to_string().into_bytes() };
    stage.registry.route(&format!("/v2/{name}/manifests/{}", blob.digest()), blob.clone());
    stage.registry.route(&format!("/v2/{name}/manifests/latest"), blob.clone());
    (stage.registry.name(&format!("{name}:latest")), blob.digest())
}

#[test]
fn e2e_an_index_is_pushed_whole_or_as_the_one_image_of_it() {
    let stage = Stage::new();
    let registry = Registry::new();
    let onggi = &stage.onggi;
    let (source, digest) = two_platforms(&stage, "many");
    let target = format!("{}/many:all", registry.host());
    onggi.ok(&["pull", "-q", &source]);
    onggi.ok(&["tag", &source, &target]);
    // A removal collects garbage; the manifest inside the index is none.
    onggi.ok(&["pull", "-q", &stage.busybox]);
    onggi.ok(&["tag", &stage.busybox, "other"]);
    let single = onggi.ok(&["push", &target]);
    assert!(single.contains(&image::busybox(Flavour::Oci).manifest.digest()), "{single}");
    let lacking = onggi.run(&["push", "--all-platforms", &target]);
    assert!(lacking.code == Some(1) && lacking.stderr.contains("linux/s390x"), "{lacking}");
    onggi.ok(&["pull", "-q", "--all-platforms", &source]);
    onggi.ok(&["rmi", "-f", "other"]);
    let whole = onggi.ok(&["push", "--all-platforms", &target]);
    assert!(whole.contains(&digest), "{whole}");
    let there = machine::sh(&format!("skopeo inspect --raw --tls-verify=false docker://{target} | sha256sum"));
    assert_eq!(format!("sha256:{}", there.split(' ').next().expect("a sum")), digest);
    let shown = onggi.ok(&["image", "inspect", "-f", "{{.RepoDigests}}", &target]);
    assert!(shown.contains(&digest), "{shown}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_pull_of_all_tags_passes_over_what_is_no_image() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    let image = image::busybox(Flavour::Oci);
    let name = registry.push("signed", &image);
    let repository = name.trim_end_matches(":latest");
    let put = |tag: &str, kind: &str, document: serde_json::Value| {
        let file = onggi.dir().join(tag);
        std::fs::write(&file, document.to_string()).expect("write the document");
        machine::sh(&format!(
            "curl -sf -X PUT -H 'Content-Type: {kind}' --data-binary @{} http://{}/v2/signed/manifests/{tag}",
            file.display(),
            registry.host()
        ));
    };
    let (index, manifest) = ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json");
    put("a-none", index, json!({ "schemaVersion": 2, "mediaType": index, "manifests": [] }));
    let config = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": image.config.digest(),
        "size": image.config.bytes.len() });
    put("b-signature", manifest, json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [] }));
    let all = onggi.run(&["pull", "-q", "-a", repository]);
    assert_eq!((all.code, all.stdout.trim()), (Some(0), name.as_str()), "{all}");
    for tag in [":a-none is passed over", ":b-signature is passed over"] {
        assert!(all.stderr.contains(tag), "{all}");
    }
    let single = onggi.run(&["pull", "-q", &format!("{repository}:a-none")]);
    assert!(single.code == Some(1) && single.stderr.contains("names no image at all"), "{single}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_token_service_is_asked_for_the_right_scopes_and_its_identity_token_is_kept() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    let image = image::busybox(Flavour::Oci);
    registry.push("app", &image);
    let service = Gate::new(0, |asked| {
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        let known =
            asked.header("authorization") == "Basic YWxpY2U6c2VjcmV0" || form.contains("refresh_token=long-lived");
        match known {
            true => Act::json(200, &json!({ "token": "T", "refresh_token": "long-lived", "expires_in": 300 })),
            false => Act::json(401, &json!({})),
        }
    });
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"test\"", service.host());
    let gate = Gate::new(registry.port(), move |asked| match asked.header("authorization") {
        "Bearer T" => Act::Forward,
        _ => Act::challenge(&realm),
    });
    assert_eq!(onggi.run(&["login", "-u", "alice", "-p", "wrong", &gate.host()]).code, Some(1));
    onggi.ok(&["login", "-u", "alice", "-p", "secret", &gate.host()]);
    let config = fs::read_to_string(home(&onggi).join(".docker/config.json")).expect("read");
    assert!(config.contains("long-lived") && !config.contains("YWxpY2U6c2VjcmV0"), "{config}");
    onggi.ok(&["pull", "-q", &gate.name("app:latest")]);
    onggi.ok(&["tag", &gate.name("app:latest"), &gate.name("mine:v1")]);
    onggi.ok(&["push", "-q", &gate.name("mine:v1")]);
    let asked: Vec<String> = service.seen().iter().map(|a| String::from_utf8_lossy(&a.body).into_owned()).collect();
    assert!(asked.iter().any(|form| form.contains("scope=repository%3Aapp%3Apull&")), "{asked:?}");
    assert!(asked.iter().any(|form| form.contains("repository%3Amine%3Apull%2Cpush")), "{asked:?}");
    assert_eq!(digest_at(&format!("{}/mine:v1", registry.host()), ""), image.manifest.digest());
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_broken_pull_goes_on_where_it_ended() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        // xorshift: what no compression makes smaller.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(600_000)
    .collect();
    let layer = Tarball::new().file("noise", 0o644, &noise).finish();
    let image = ImageBuilder::new(Flavour::Oci).layer(&layer, Compression::Gzip).build();
    registry.push("app", &image);
    let blob = image.layers[0].digest();
    let broken = Arc::new(AtomicBool::new(true));
    let (state, name) = (Arc::clone(&broken), blob.clone());
    let gate = Gate::new(registry.port(), move |asked| match asked.method == "GET" && asked.target.ends_with(&name) {
        true if state.load(Ordering::Relaxed) && asked.before == 0 => Act::Cut(200_000),
        true if state.load(Ordering::Relaxed) => Act::Answer(403, Vec::new(), b"{}".to_vec()),
        _ => Act::Forward,
    });
    let failed = onggi.run(&["pull", &gate.name("app:latest")]);
    assert_eq!(failed.code, Some(1), "{failed}");
    broken.store(false, Ordering::Relaxed);
    onggi.ok(&["pull", &gate.name("app:latest")]);
    let ranges: Vec<String> =
        gate.seen().iter().map(|a| a.header("range").to_owned()).filter(|r| !r.is_empty()).collect();
    assert_eq!(ranges.last().map(String::as_str), Some("bytes=200000-"), "{ranges:?}");
    assert_eq!(fs::read_dir(onggi.root().join("tmp")).expect("tmp").count(), 0, "nothing is left of it");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_busy_registry_is_asked_again_when_it_says() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    registry.push("app", &image::busybox(Flavour::Oci));
    let gate = Gate::new(registry.port(), |asked| match (asked.method.as_str(), asked.before) {
        ("GET", 0) if asked.target.contains("/manifests/") => {
            Act::Answer(429, vec![("Retry-After", "1".to_owned())], b"{}".to_vec())
        }
        ("GET", 0) if asked.target.contains("/blobs/") => Act::Answer(
            503,
            vec![
                ("Date", "Sun, 06 Nov 1994 08:49:36 GMT".to_owned()),
                ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
            ],
            b"{}".to_vec(),
        ),
        _ => Act::Forward,
    });
    let pulled = onggi.run(&["pull", &gate.name("app:latest")]);
    assert!(pulled.code == Some(0) && pulled.stderr.contains("Retrying"), "{pulled}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_many_pulls_at_once_fetch_each_blob_once() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    let image = image::busybox(Flavour::Oci);
    registry.push("app", &image);
    let gate = Gate::new(registry.port(), |asked| match asked.target.contains("/blobs/") {
        true => Act::Late(Duration::from_millis(300)),
        false => Act::Forward,
    });
    let name = gate.name("app:latest");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| onggi.ok(&["pull", "-q", &name]));
        }
    });
    for digest in image.layers.iter().chain([&image.config]).map(onggi_tests::image::Blob::digest) {
        assert_eq!(gate.asked(&format!("GET /v2/app/blobs/{digest}")).len(), 1, "{digest}");
    }
    let tmp = fs::read_dir(onggi.root().join("tmp")).expect("list a directory").count();
    assert_eq!(tmp, 0, "nothing waits for another pull");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_mirrors_prefixes_blocks_and_short_names_are_followed() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    registry.push("hub/library/app", &image::busybox(Flavour::Oci));
    let host = registry.host();
    let conf = onggi.dir().join("registries.conf");
    fs::write(
        &conf,
        format!(
            "unqualified-search-registries = [\"127.0.0.1:1\", \"{host}/hub/library\"]\n[aliases]\n\"nick\" = \"docker.io/library/app\"\n\
             [[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1\"\n\
             [[registry.mirror]]\nlocation = \"{host}/hub\"\n\
             [[registry]]\nprefix = \"*.example.test\"\nlocation = \"{host}/hub\"\n\
             [[registry]]\nlocation = \"bad.test\"\nblocked = true\n"
        ),
    )
    .expect("write");
    let run = |args: &[&str]| {
        let mut command = onggi.command(args);
        command.env("CONTAINERS_REGISTRIES_CONF", &conf);
        onggi.finish(&mut command)
    };
    let mirrored = run(&["pull", "docker.io/library/app"]);
    assert!(mirrored.code == Some(0) && mirrored.stderr.contains("mirror 127.0.0.1:1 is passed over"), "{mirrored}");
    assert_eq!(mirrored.stdout, "docker.io/library/app:latest\n");
    let rewritten = run(&["pull", "-q", "sub.example.test/library/app"]);
    assert_eq!(rewritten.stdout, "sub.example.test/library/app:latest\n", "{rewritten}");
    let blocked = run(&["pull", "bad.test/app"]);
    assert!(blocked.code == Some(1) && blocked.stderr.contains("blocked"), "{blocked}");
    let nick = run(&["run", "--rm", "--network", "none", "nick", "echo", "runs"]);
    assert_eq!(nick.stdout, "runs\n", "{nick}");
    let searched = run(&["pull", "-q", "app:latest"]);
    assert_eq!(searched.stdout, format!("{host}/hub/library/app:latest\n"), "{searched}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_certificates_of_a_registry_are_found_by_its_name() {
    isolated();
    let onggi = Onggi::new();
    let dir = onggi.dir().join("tls");
    fs::create_dir(&dir).expect("make a directory");
    machine::sh(&format!(
        "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca 2>/dev/null
         for n in server client; do
           openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $n.key -out $n.csr -subj /CN=$n 2>/dev/null
           printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > ext
           openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $n.crt -days 2 -extfile ext 2>/dev/null
         done",
        dir.display()
    ));
    let registry = Registry::with_tls(&dir);
    let certs = home(&onggi).join(".config/containers/certs.d").join(registry.host());
    fs::create_dir_all(&certs).expect("make a directory");
    fs::copy(dir.join("ca.crt"), certs.join("ca.crt")).expect("copy");
    let source = format!("{}/app:latest", registry.host());
    let nobody = onggi.run(&["pull", &source]);
    assert_eq!(nobody.code, Some(1), "{nobody}");
    fs::copy(dir.join("client.crt"), certs.join("client.cert")).expect("copy");
    fs::copy(dir.join("client.key"), certs.join("client.key")).expect("copy");
    let stage = image::busybox(Flavour::Oci);
    let fake = onggi_tests::fake_registry::FakeRegistry::new();
    let plain = fake.serve("app", "latest", &stage);
    onggi.ok(&["pull", "-q", &plain]);
    onggi.ok(&["tag", &plain, &source]);
    let pushed = onggi.run(&["push", &source]);
    assert!(pushed.code == Some(0) && pushed.stdout.contains(&stage.manifest.digest()), "{pushed}");
    onggi.ok(&["pull", &source]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_search_shows_what_a_registry_has() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::new());
    for name in ["one/app", "two/app", "three/else"] {
        registry.push(name, &image::busybox(Flavour::Oci));
    }
    let found = onggi.ok(&["search", "--format", "{{.Name}}", &format!("{}/app", registry.host())]);
    assert_eq!(found, format!("{0}/one/app\n{0}/two/app", registry.host()));
    let tags = onggi.ok(&["search", "--list-tags", &format!("{}/one/app", registry.host())]);
    assert!(
        tags.lines().last().is_some_and(
            |l| l.split_whitespace().collect::<Vec<_>>() == [&format!("{}/one/app", registry.host()), "latest"]
        ),
        "{tags}"
    );
    let hub = Gate::new(0, |asked| {
        assert_eq!(asked.target, "/v1/search?q=web%26x&n=25");
        let line = |name: &str, stars, official| json!({ "name": name, "description": "A server\u{1b}[2J for the web and much more than that, really", "star_count": stars, "is_official": official });
        Act::json(200, &json!({ "results": [line("nginx", 20_000, true), line("me/nginx", 3, false)] }))
    });
    let table = onggi.ok(&["search", &format!("{}/web&x", hub.host())]);
    let head: Vec<&str> = table.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(head, ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    assert!(
        table.contains("20000") && table.contains("[OK]") && table.contains('…') && !table.contains('\u{1b}'),
        "{table}"
    );
    let few = onggi.ok(&[
        "search",
        "-f",
        "stars=100",
        "--no-trunc",
        "--format",
        "{{.Name}}",
        &format!("{}/web&x", hub.host()),
    ]);
    assert!(few.ends_with("/nginx") && few.lines().count() == 1, "{few}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_attached_referrers_are_pulled_listed_and_pushed() {
    let stage = Stage::new();
    let registry = Registry::new();
    let onggi = &stage.onggi;
    let subject = image::busybox(Flavour::Oci);
    let config = Blob { media_type: "application/vnd.oci.empty.v1+json".to_owned(), bytes: b"{}".to_vec() };
    let note = Blob { media_type: "text/plain".to_owned(), bytes: b"signed".to_vec() };
    let describe = |b: &Blob| json!({ "mediaType": b.media_type, "digest": b.digest(), "size": b.bytes.len() });
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let artifact = json!({ "schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.test.signature",
        "config": describe(&config), "layers": [describe(&note)], "subject": describe(&subject.manifest) });
    let artifact = Blob { media_type: kind.to_owned(), bytes: artifact.to_string().into_bytes() };
    let mut entry = describe(&artifact);
    entry["artifactType"] = json!("application/vnd.test.signature");
    let index_kind = "application/vnd.oci.image.index.v1+json";
    let list = json!({ "schemaVersion": 2, "mediaType": index_kind, "manifests": [entry] });
    let list = Blob { media_type: index_kind.to_owned(), bytes: list.to_string().into_bytes() };
    let tag = subject.manifest.digest().replace(':', "-");
    for (path, blob) in [
        (format!("manifests/{tag}"), &list),
        (format!("manifests/{}", artifact.digest()), &artifact),
        (format!("blobs/{}", config.digest()), &config),
        (format!("blobs/{}", note.digest()), &note),
    ] {
        stage.registry.route(&format!("/v2/busybox/{path}"), blob.clone());
    }
    let listed = onggi.ok(&["image", "referrers", &stage.busybox]);
    assert!(listed.contains("application/vnd.test.signature") && listed.contains(&artifact.digest()), "{listed}");
    onggi.ok(&["pull", "-q", "--referrers", &stage.busybox]);
    let stored = onggi.ok(&["image", "referrers", "--stored", "--format", "{{.Digest}}", &stage.busybox]);
    assert_eq!(stored, artifact.digest());
    let target = format!("{}/signed:v1", registry.host());
    onggi.ok(&["tag", &stage.busybox, &target]);
    onggi.ok(&["push", "-q", "--referrers", &target]);
    let there = onggi.ok(&["image", "referrers", "--format", "{{.Digest}} {{.ArtifactType}}", &target]);
    assert_eq!(there, format!("{} application/vnd.test.signature", artifact.digest()));
    onggi.assert_nothing_left();
}

#[test]
fn e2e_pull_policies_decide_when_a_registry_is_asked() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let requests = || stage.registry.asked().len();
    let never = onggi.run(&["pull", "--policy", "never", &stage.busybox]);
    assert!(never.code == Some(1) && requests() == 0, "{never}");
    onggi.ok(&["pull", "--policy=missing", &stage.busybox]);
    let after = requests();
    assert!(after > 0);
    onggi.ok(&["pull", "--policy=missing", &stage.busybox]);
    onggi.ok(&["run", "--pull=never", "--rm", "--network", "none", &stage.busybox, "true"]);
    assert_eq!(requests(), after);
    onggi.ok(&["run", "--pull=always", "--rm", "--network", "none", &stage.busybox, "true"]);
    assert!(requests() > after);
    let lines = onggi.run(&["pull", "--progress=json", &stage.busybox]).stderr;
    assert!(lines.lines().all(|l| serde_json::from_str::<Value>(l).is_ok_and(|v| v["status"].is_string())), "{lines}");
    onggi.assert_nothing_left();
}

#[test]
fn e2e_the_next_pull_opens_no_database_until_somebody_writes_to_it() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let (database, id) = (onggi.root().join("state.db"), || onggi.ok(&["images", "-q", "--no-trunc", &stage.busybox]));
    let asked_for = |args: &[&str]| {
        let before = stage.registry.asked().len();
        onggi.ok(args);
        stage.registry.asked()[before..].to_vec()
    };
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let pulled = id();
    // What was written to a moment ago is not noted.
    std::thread::sleep(Duration::from_millis(200));
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let memos = || fs::read_dir(onggi.runroot().join("pulled")).map_or(0, Iterator::count);
    assert_eq!(memos(), 1);
    // A database that nobody can read, and that looks as if nobody had touched it.
    let (content, written) = (fs::read(&database).expect("read"), fs::metadata(&database).expect("stat"));
    let replace = |bytes: &[u8]| {
        fs::write(&database, bytes).expect("write");
        let file = fs::File::options().write(true).open(&database).expect("open");
        file.set_modified(written.modified().expect("a time")).expect("set the time");
    };
    replace(&vec![0; content.len()]);
    assert_eq!(asked_for(&["pull", "-q", &stage.busybox]).len(), 1, "one question is all");
    assert_ne!(onggi.run(&["images"]).code, Some(0));
    replace(&content);
    // Another image has the name now, then none has.
    let small = ImageBuilder::new(Flavour::Oci).layer(&busybox_tree().finish(), Compression::Gzip).build();
    let other = stage.registry.serve("other", "latest", &small);
    onggi.ok(&["pull", "-q", &other]);
    onggi.ok(&["tag", &other, &stage.busybox]);
    assert_ne!(id(), pulled);
    onggi.ok(&["pull", "-q", &stage.busybox]);
    assert_eq!(id(), pulled);
    onggi.ok(&["rmi", &stage.busybox]);
    assert!(asked_for(&["pull", "-q", &stage.busybox]).len() > 1, "it has to be fetched");
    assert_eq!(id(), pulled);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_registry_of_this_machine_is_not_asked_before_it_is_known_to_be_allowed() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let conf = onggi.dir().join("registries.conf");
    let host = stage.busybox.split_once('/').expect("a registry").0;
    for (text, wanted) in [
        (format!("[[registry]]\nlocation = \"{host}\"\nblocked = true\n"), "blocked"),
        (format!("[[registry]]\nlocation = \"{host}\"\nblocked = maybe\n"), "malformed"),
    ] {
        fs::write(&conf, text).expect("write");
        let mut pull = onggi.command(&["pull", "-q", &stage.busybox]);
        let refused = onggi.finish(pull.env("CONTAINERS_REGISTRIES_CONF", &conf));
        assert!(refused.code == Some(1) && refused.stderr.contains(wanted), "{refused}");
        assert!(stage.registry.asked().is_empty());
    }
    assert_eq!(onggi.run(&["pull", "-q", "127.0.0.1:1/a"]).code, Some(1));
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_registry_whose_name_is_an_ipv6_address_is_like_any_other() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::on_ipv6());
    let tree = onggi.dir().join("tree.tar");
    fs::write(&tree, Tarball::new().file("hello", 0o644, b"hello\n").finish()).expect("write the tree");
    let name = format!("{}/deep/app", registry.host());
    let id = onggi.ok(&["import", &tree.display().to_string(), &format!("{name}:v1")]);
    let refused = onggi.run(&["push", "-q", &format!("{name}:v1")]);
    assert!(refused.code == Some(1) && refused.stderr.contains("onggi login"), "{refused}");
    onggi.ok(&["login", "-u", "alice", "-p", "s:ecret", &registry.host()]);
    onggi.ok(&["push", "-q", &format!("{name}:v1")]);
    onggi.ok(&["rmi", &format!("{name}:v1")]);
    // A proxy is none of the loopback's business, whatever its address looks like.
    let mut pull = onggi.command(&["pull", "-q", &format!("{name}:v1")]);
    let pulled = onggi.finish(pull.env("HTTP_PROXY", "http://127.0.0.1:1").env("http_proxy", "http://127.0.0.1:1"));
    assert_eq!((pulled.code, pulled.stdout.trim()), (Some(0), format!("{name}:v1").as_str()), "{pulled}");
    assert_eq!(
        onggi.ok(&["images", "--no-trunc", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"]),
        format!("{name} v1 {id}")
    );
    let digest = onggi.ok(&["images", "--digests", "--format", "{{.Digest}}"]);
    onggi.ok(&[
        "image",
        "copy",
        &format!("docker://{name}@{digest}"),
        &format!("docker://{}/other:2", registry.host()),
    ]);
    let found = onggi.ok(&["search", "--format", "{{.Name}}", &format!("{}/", registry.host())]);
    assert_eq!(found.lines().collect::<Vec<_>>(), [name, format!("{}/other", registry.host())]);
    onggi.ok(&["logout", &registry.host()]);
    assert_eq!(onggi.run(&["login", "--get-login", &registry.host()]).code, Some(1));
}

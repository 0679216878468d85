//! Registries with a certificate of their own, and the files with credentials for them.

use std::{fs, path::Path};

use onggi_tests::{
    Onggi, assert_refused,
    image::{self, Flavour},
    isolated, machine,
    registry::Registry,
};

use crate::Stage;

/// A certificate as the documentation of Docker and Podman makes one for a registry.
fn certificate(dir: &Path, more: &str) {
    fs::create_dir_all(dir).expect("make a directory");
    machine::sh(&format!(
        "cd {} && openssl req -newkey rsa:2048 -nodes -sha256 -x509 -days 2 -keyout server.key -out server.crt -subj /CN=localhost {more} 2>/dev/null
         cp server.crt ca.crt",
        dir.display()
    ));
}

#[test]
fn e2e_a_registry_with_the_certificate_of_dockers_documentation_is_believed_where_it_is_trusted() {
    isolated();
    let onggi = Onggi::new();
    let text = |path: &Path| path.display().to_string();
    let (own, other) = (onggi.dir().join("own"), onggi.dir().join("other"));
    certificate(&own, "-addext subjectAltName=DNS:localhost,IP:127.0.0.1");
    certificate(&other, "-addext subjectAltName=DNS:localhost,IP:127.0.0.1");
    // Nothing but the certificates belongs into such a directory.
    let trusted = onggi.dir().join("trusted");
    fs::create_dir(&trusted).expect("make a directory");
    fs::copy(own.join("server.crt"), trusted.join("ca.crt")).expect("copy");
    let registry = Registry::with_certificate(&own);
    let source = registry.push("app", &image::busybox(Flavour::Oci));
    let host = registry.host();
    let login = ["login", "-u", "alice", "-p", "s:ecret"];

    let nobody = onggi.run(&[&login[..], &[&host]].concat());
    assert_refused(
        &nobody,
        1,
        &["cannot be reached", "put exactly this certificate into", &format!("certs.d/{host}/ca.crt")],
    );
    // The registry's own key is nobody else's.
    let careless = onggi.run(&[&login[..], &["--cert-dir", &text(&own), &host]].concat());
    assert_refused(&careless, 1, &["server.cert is missing", "belongs to it alone"]);
    machine::sh(&format!("openssl x509 -in {0}/ca.crt -outform der -out {0}/client.crt", text(&own)));
    fs::remove_file(own.join("server.key")).expect("remove");
    let binary = onggi.run(&[&login[..], &["--cert-dir", &text(&own), &host]].concat());
    assert_refused(&binary, 1, &["client.crt", "(PEM)"]);
    fs::remove_file(other.join("server.key")).expect("remove");
    let another = onggi.run(&[&login[..], &["--cert-dir", &text(&other), &host]].concat());
    assert_refused(&another, 1, &["put exactly this certificate into"]);

    assert_eq!(onggi.ok(&[&login[..], &["--cert-dir", &text(&trusted), &host]].concat()), "Login Succeeded");
    onggi.ok(&["pull", "-q", "--cert-dir", &text(&trusted), &source]);
    let by_name = source.replace("127.0.0.1", "localhost");
    onggi.ok(&["pull", "-q", "--creds", "alice:s:ecret", "--cert-dir", &text(&trusted), &by_name]);
    let mut system = onggi.command(&["pull", "-q", &source]);
    system.env("SSL_CERT_FILE", own.join("server.crt"));
    assert_eq!(onggi.finish(&mut system).code, Some(0));
    let certs = onggi.dir().join("home/.config/containers/certs.d").join(&host);
    fs::create_dir_all(&certs).expect("make a directory");
    fs::copy(own.join("server.crt"), certs.join("ca.crt")).expect("copy");
    onggi.ok(&["pull", "-q", &source]);
    let target = format!("{host}/own/app:v1");
    onggi.ok(&["tag", &source, &target]);
    onggi.ok(&["push", "-q", &target]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_what_is_wrong_with_a_trusted_certificate_is_said() {
    isolated();
    let onggi = Onggi::new();
    for (name, more, said) in [
        ("nameless", "", "it has no subjectAltName"),
        ("elsewhere", "-addext subjectAltName=DNS:r.example", "not valid for name"),
    ] {
        let dir = onggi.dir().join(name);
        certificate(&dir, more);
        let registry = Registry::with_certificate(&dir);
        let certs = onggi.dir().join(format!("{name}.d"));
        fs::create_dir(&certs).expect("make a directory");
        fs::copy(dir.join("ca.crt"), certs.join("ca.crt")).expect("copy");
        let certs = certs.display().to_string();
        let pull = |more: &[&str]| {
            let source = format!("{}/app", registry.host());
            onggi.run(&[&["pull", "--creds", "alice:s:ecret", "--cert-dir", &certs][..], more, &[&source]].concat())
        };
        assert_refused(&pull(&[]), 1, &["cannot be reached", said, "subjectAltName"]);
        // Nothing is there, but that is known.
        assert_refused(&pull(&["--tls-verify=false"]), 1, &["not found"]);
    }
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_file_with_credentials_that_is_named_has_to_be_there() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    onggi.ok(&["pull", "-q", &stage.busybox]);
    let absent = onggi.dir().join("absent.json").display().to_string();
    let directory = onggi.dir().display().to_string();
    let host = stage.busybox.split_once('/').expect("a registry").0;
    let verbs: [(&[&str], &str, i32); 7] = [
        (&["run", "--rm", "--network", "none"], &stage.busybox, 125),
        (&["create"], &stage.busybox, 1),
        (&["pull"], &stage.busybox, 1),
        (&["push"], &stage.busybox, 1),
        (&["search"], &stage.busybox, 1),
        (&["logout"], host, 1),
        (&["logout"], "--all", 1),
    ];
    for (verb, last, code) in verbs {
        for named in [&absent, &directory] {
            let refused = onggi.run(&[verb, &["--authfile", named, last]].concat());
            assert_refused(&refused, code, &[&format!("credential file {named} is not accessible"), "onggi login"]);
        }
        let mut by_variable = onggi.command(&[verb, &[last]].concat());
        let refused = onggi.finish(by_variable.env("REGISTRY_AUTH_FILE", &absent));
        assert_refused(&refused, code, &["is not accessible", "REGISTRY_AUTH_FILE"]);
    }
    assert_eq!(onggi.ok(&["ps", "-aq"]), "");
    // A login makes the file.
    let registry = Registry::with_password();
    onggi.ok(&["login", "--authfile", &absent, "-u", "alice", "-p", "s:ecret", &registry.host()]);
    onggi.ok(&["create", "--authfile", &absent, "--name", "box", &stage.busybox]);
    onggi.ok(&["rm", "box"]);
    onggi.ok(&["logout", "--authfile", &absent, "--all"]);
    onggi.assert_nothing_left();
}

#[test]
fn e2e_a_login_is_kept_where_it_counts_tried_again_and_gone_after_a_logout() {
    isolated();
    let (onggi, registry) = (Onggi::new(), Registry::with_password());
    let (host, source) = (registry.host(), registry.push("app", &image::busybox(Flavour::Oci)));
    let home = onggi.dir().join("home");
    // What Podman knows is looked at before what Docker knows; here it is out of date.
    let (podman, docker) = (home.join(".config/containers/auth.json"), home.join(".docker/config.json"));
    fs::create_dir_all(podman.parent().expect("a parent")).expect("make a directory");
    let entry = |secret: &str| format!(r#"{{"auths":{{"{host}":{{"auth":"{secret}"}}}}}}"#);
    fs::write(&podman, entry("YWxpY2U6YmFk")).expect("write");
    let asked = onggi.run(&["login", &host]);
    assert_refused(&asked, 1, &["existing credentials", "not accepted any more", "stdin is not a terminal"]);
    assert_refused(&onggi.run(&["pull", &source]), 1, &["not accepted", "check user name and password"]);

    let login = onggi.ok(&["login", "--verbose", "-u", "alice", "-p", "s:ecret", &host]);
    assert_eq!(login, format!("Used:  {}\nLogin Succeeded", podman.display()));
    onggi.ok(&["pull", "-q", &source]);
    assert_eq!(onggi.ok(&["login", &host]), "Login Succeeded");
    assert!(!docker.exists());

    fs::create_dir_all(docker.parent().expect("a parent")).expect("make a directory");
    fs::copy(&podman, &docker).expect("copy");
    onggi.ok(&["logout", &host]);
    assert_eq!(onggi.run(&["login", "--get-login", &host]).code, Some(1));
    fs::write(&podman, entry("YWxpY2U6YmFk")).expect("write");
    fs::write(&docker, entry("YWxpY2U6YmFk").replace(&host, "r.example")).expect("write");
    let all = onggi.ok(&["logout", "--all"]);
    assert!(all.contains(&host) && all.contains("r.example"), "{all}");
    assert_eq!(onggi.ok(&["logout", "--all"]), "");
    onggi.assert_nothing_left();
}

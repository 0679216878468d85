//! I6: what runs with the host's rights is what the configuration names, in the environment that it names.

use std::fs;

use onggi_tests::isolated;
use serde_json::{Value, json};

use crate::jar::{Host, Jar};

/// A hook that writes down the environment with which it was executed.
fn witness(jar: &Jar, name: &str, env: &Value) -> Value {
    // A shell would add variables of its own.
    json!([{ "path": "/bin/cp", "args": ["cp", "/proc/self/environ", jar.path(name)], "env": env }])
}

fn environment(jar: &Jar, name: &str) -> Vec<String> {
    let bytes = fs::read(jar.path(name)).unwrap_or_else(|e| panic!("hook {name} has not run: {e}"));
    let text = String::from_utf8(bytes).expect("UTF-8");
    text.split('\0').filter(|v| !v.is_empty()).map(str::to_owned).collect()
}

const KINDS: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

#[test]
fn root_cve_2025_23266_2024_0132_hooks_inherit_nothing_of_the_image() {
    isolated();
    let mut jar = Jar::new("true");
    // What a hostile image can say.
    jar.config["process"]["env"] =
        json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "BASH_ENV=/evil", "NVIDIA_VISIBLE=all"]);
    jar.write("rootfs/evil.so", "not an object");
    jar.config["annotations"] = json!({ "LD_AUDIT": "/evil.so" });
    // Without a list, as engines and vendors write it, a hook has the runtime's environment, as with runc and crun.
    for kind in KINDS {
        jar.config["hooks"][kind] = witness(&jar, kind, &json!(null));
    }
    jar.save();
    let bundle = jar.dir().display().to_string();
    let mut run = jar.oci(&["run", "--bundle", &bundle, &jar.id]);
    let done = run.env_clear().env("PATH", "/usr/bin:/bin").output().expect("start the runtime");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for kind in KINDS {
        assert_eq!(environment(&jar, kind), ["PATH=/usr/bin:/bin"], "{kind}");
    }
}

/// An empty list is one.
#[test]
fn root_cve_2025_23266_2024_0132_hooks_with_an_empty_environment_have_none() {
    isolated();
    let mut jar = Jar::new("true");
    jar.config["process"]["env"] = json!(["PATH=/bin", "LD_PRELOAD=/evil.so"]);
    for kind in KINDS {
        jar.config["hooks"][kind] = witness(&jar, kind, &json!([]));
    }
    let done = jar.run();
    assert_eq!(done.code, 0, "{}", done.err);
    for kind in KINDS {
        assert_eq!(environment(&jar, kind), Vec::<String>::new(), "{kind}");
    }
}

/// Nothing is executed that the configuration does not name, and nothing out of the image.
#[test]
fn root_cve_2024_0132_no_program_of_the_image_runs_with_the_hosts_rights() {
    isolated();
    let mut jar = Jar::new("true");
    // Names that engines, helpers and libraries look for.
    for name in ["sh", "nsenter", "ldconfig", "newuidmap", "newgidmap", "mount", "apparmor_parser", "onggi-oci", "runc"]
    {
        let at =
            jar.write(&format!("rootfs/usr/bin/{name}"), format!("#!/bin/sh\necho x > {}\n", jar.decoy().display()));
        fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("make it executable");
    }
    for name in ["libnss_files.so.2", "libc.so.6"] {
        jar.write(&format!("rootfs/lib/x86_64-linux-gnu/{name}"), "not an object");
    }
    let wanted = jar.path("wanted");
    jar.write("rootfs/bin/hook", "#!/bin/sh\nexit 42\n");
    jar.config["hooks"]["createRuntime"] =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo host > {}", wanted.display())] }]);
    let host = Host::look(&jar);
    let done = jar.run();
    assert_eq!(done.code, 0, "{}", done.err);
    host.assert_unchanged(&jar);
    assert_eq!(fs::read_to_string(&wanted).expect("the host's shell has run"), "host\n");
    // A path of the image is not a path of the host.
    jar.config["hooks"]["createRuntime"] = json!([{ "path": "/bin/hook" }]);
    jar.run().refused();
    for relative in ["sh", "bin/hook", ""] {
        jar.config["hooks"]["createRuntime"] = json!([{ "path": relative }]);
        jar.run().refused();
    }
}

#[test]
fn root_cve_2025_23266_2024_0132_benign_hooks_get_the_environment_of_the_configuration() {
    isolated();
    let mut jar = Jar::new("true");
    let env = json!(["A=1", "LD_LIBRARY_PATH=/opt/vendor", "EMPTY=", "EQUALS=a=b"]);
    for kind in KINDS {
        jar.config["hooks"][kind] = witness(&jar, kind, &env);
    }
    let done = jar.run();
    assert_eq!(done.code, 0, "{}", done.err);
    for kind in KINDS {
        let mut got = environment(&jar, kind);
        got.sort();
        assert_eq!(got, ["A=1", "EMPTY=", "EQUALS=a=b", "LD_LIBRARY_PATH=/opt/vendor"], "{kind}");
    }
}

//! I17: what is too long for the kernel is an error, never something shorter.

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::Jar;

/// Around the 16-bit length field of a netlink attribute, and a page, and PATH_MAX.
const SIZES: [usize; 6] = [4_096, 4_097, 65_535, 65_536, 65_537, 70_000];

/// A member of the configuration and how it gets its value.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Jar));

fn long(size: usize) -> String {
    format!("/{}", "a/".repeat(size / 2)).chars().take(size).collect()
}

#[test]
fn root_cve_2021_43784_maps_that_are_too_long_are_refused() {
    isolated();
    for size in [341_u32, 5_461, 65_535, 65_536, 70_000] {
        let mut jar = Jar::small("exit 42");
        jar.add_namespace(json!({ "type": "user" }));
        let map: Vec<_> = (0..size).map(|n| json!({ "containerID": n, "hostID": 100_000 + n, "size": 1 })).collect();
        jar.config["linux"]["uidMappings"] = json!(map);
        jar.config["linux"]["gidMappings"] = json!(map);
        jar.run().refused();
    }
}

#[test]
fn root_cve_2021_43784_paths_and_names_that_are_too_long_are_refused() {
    isolated();
    for size in SIZES {
        let path = long(size);
        let changes: [Change<'_>; 7] = [
            ("cwd", &|jar| jar.config["process"]["cwd"] = json!(path)),
            ("destination", &|jar| jar.tmpfs("t", &path)),
            ("source", &|jar| jar.bind(&path, "/mnt")),
            ("root", &|jar| jar.config["root"]["path"] = json!(path)),
            ("namespace", &|jar| jar.add_namespace(json!({ "type": "network", "path": path }))),
            ("hostname", &|jar| {
                jar.add_namespace(json!({ "type": "uts" }));
                jar.config["hostname"] = json!(path.replace('/', "-"));
            }),
            ("hook", &|jar| jar.config["hooks"] = json!({ "createRuntime": [{ "path": path }] })),
        ];
        for (what, change) in changes {
            let mut jar = Jar::small("exit 42");
            change(&mut jar);
            let done = jar.run();
            assert!(done.code != 0 && done.code != 42, "{what} of {size} bytes: {}", done.code);
        }
        // An argument is not the runtime's to shorten: it arrives whole or not at all.
        let mut jar = Jar::small("");
        jar.args(&["sh", "-c", "echo ${#1}", "sh", &path]);
        jar.run().printed(&format!("{size}\n"));
    }
}

#[test]
fn root_cve_2021_43784_benign_many_mappings_arrive_whole() {
    isolated();
    let mut jar = Jar::small("wc -l < /proc/self/uid_map; wc -l < /proc/self/gid_map");
    jar.add_namespace(json!({ "type": "user" }));
    let map: Vec<_> = (0..200).map(|n| json!({ "containerID": n, "hostID": n, "size": 1 })).collect();
    jar.config["linux"]["uidMappings"] = json!(map);
    jar.config["linux"]["gidMappings"] = json!(map);
    jar.run().printed("200\n200\n");
}

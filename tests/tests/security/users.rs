//! I10: a user is the number that was asked for, or there is no process.

use std::fs;

use onggi_tests::isolated;
use serde_json::json;

use crate::jar::Jar;

/// An image that has given every number another meaning.
fn with_passwd(script: &str) -> Jar {
    let jar = Jar::new(script);
    jar.write("rootfs/etc/passwd", "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n");
    jar.write("rootfs/etc/group", "root:x:0:\n1000:x:0:\n0:x:1000:\n");
    jar
}

#[test]
fn root_cve_2016_3697_a_number_is_never_looked_up_as_a_name() {
    isolated();
    let mut jar = with_passwd("id -u; id -g; sleep 60");
    jar.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    jar.running();
    jar.until("the ids", |out| out == "1000\n1000\n");
    jar.exec(&["--user", "1000"], &["id", "-u"]).printed("1000\n");
    jar.exec(&["--user", "1:1000"], &["sh", "-c", "id -u; id -g"]).printed("1\n1000\n");
}

#[test]
fn root_cve_2016_3697_benign_root_is_root() {
    isolated();
    let jar = with_passwd("id -u; sleep 60");
    jar.running();
    jar.until("the id", |out| out == "0\n");
    jar.exec(&["--user", "0"], &["id", "-u"]).printed("0\n");
    jar.exec(&["--user", "0:0"], &["id", "-g"]).printed("0\n");
}

/// Two hundred strings that are no `UID[:GID]` in decimal.
fn bad_users() -> Vec<String> {
    let mut list: Vec<String> = [
        "",
        ":",
        "1:",
        ":1",
        "::",
        "1::",
        "1:2:3",
        ":0",
        "0:",
        "root",
        "root:root",
        "nobody",
        "-1",
        "-0",
        "+0",
        "+1",
        "0x0",
        "0x10",
        "0b1",
        "0o7",
        "1e3",
        "1.0",
        "1,000",
        "1_000",
        " 1",
        "1 ",
        "1\t",
        "\t1",
        "1\n",
        "\n1",
        "1\r",
        "1\u{a0}",
        "\u{661}",
        "\u{ff11}",
        "1\u{301}",
        "\u{0661}:0",
        "--",
        "*",
        "?",
        "%",
        "1%",
        "$UID",
        "${UID}",
        "`id`",
        "$(id)",
        "1;0",
        "1|0",
        "1&0",
        "1/0",
        "../0",
        "/etc/passwd",
        "1#0",
        "0#",
        "!0",
        "~",
        "~root",
        "1=0",
        "uid=0",
        "4294967295",
        "4294967296",
        "4294967297",
        "8589934592",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551617",
        "99999999999999999999999999999999",
        "-4294967296",
        "-4294967295",
        "1:-1",
        "1:+1",
        "1:4294967295",
        "1:4294967296",
        "1:18446744073709551616",
        "1: 1",
        "1 :1",
        "1:1 ",
        "1:0x0",
        "1:root",
        "root:1",
        "0:root",
        "\"0\"",
        "'0'",
        "[0]",
        "{0}",
        "(0)",
        "<0>",
        "0,0",
        "0.0",
        "0-0",
        "0+0",
        "NaN",
        "inf",
        "null",
        "true",
        "\u{200b}0",
        "0\u{200b}",
        "\u{feff}0",
        "a",
        "A",
        "é",
        "😀",
        "0a",
        "a0",
        "0:a",
        "0:0:",
        ":0:0",
        "0::0",
    ]
    .map(str::to_owned)
    .into();
    for n in 0..40 {
        list.push(format!("{}", 4_294_967_295_u64 + (1 << n)));
        list.push(format!("1:{}", 4_294_967_296_u64 << (n % 30)));
    }
    list.extend((0..16).map(|n| format!("-{}", 1_u64 << (n * 4))));
    list.push("9".repeat(1_000));
    list.push("0".repeat(70_000) + "x");
    list
}

#[test]
fn root_cve_2026_30892_two_hundred_strings_that_are_no_user_are_refused() {
    isolated();
    let bad = bad_users();
    assert!(bad.len() >= 200, "{}", bad.len());
    let jar = with_passwd("sleep 60");
    jar.running();
    for user in &bad {
        let done = jar.exec(&[&format!("--user={user}")], &["sh", "-c", "id -u > /ran"]);
        assert!(done.code != 0 && !done.err.is_empty(), "{user:?}: {done:?}");
    }
    assert!(!jar.root().join("ran").exists(), "a process has run: {:?}", fs::read(jar.root().join("ran")));
    // The same grammar in config.json, where JSON itself tells numbers apart.
    for uid in [json!(-1), json!(4_294_967_296_u64), json!("0"), json!(1.5), json!(null), json!([0]), json!(1e3)] {
        let mut jar = Jar::new("exit 42");
        jar.config["process"]["user"]["uid"] = uid.clone();
        let done = jar.run();
        // Null is "not set" to every JSON reader of this field.
        assert!(uid.is_null() || (done.code != 0 && done.code != 42), "{uid}: {done:?}");
    }
}

#[test]
fn root_cve_2026_30892_benign_numbers_are_taken_as_they_are() {
    isolated();
    let jar = with_passwd("sleep 60");
    jar.running();
    for (user, ids) in [
        ("1", "1\n"),
        ("0", "0\n"),
        ("65534", "65534\n"),
        ("2147483648", "2147483648\n"),
        ("4294967294", "4294967294\n"),
        ("1000:0", "1000\n"),
    ] {
        jar.exec(&["--user", user], &["id", "-u"]).printed(ids);
    }
    jar.exec(&["--user", "7:8"], &["sh", "-c", "id -u; id -g; id -G"]).printed("7\n8\n8\n");
}

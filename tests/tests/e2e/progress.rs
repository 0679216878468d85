//! What a pull shows while it works.

use std::process::{Command, Stdio};

use onggi_spec::shell::quote;
use onggi_tests::{
    image::{Compression, Flavour, ImageBuilder},
    tarball::Tarball,
};
use serde_json::Value;

use crate::Stage;

#[test]
fn e2e_progress_is_bars_on_a_terminal_lines_elsewhere_and_the_name_alone_when_quiet() {
    let stage = Stage::new();
    let onggi = &stage.onggi;
    let mut tar = Tarball::new();
    for part in 0..3u8 {
        let noise: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ part).collect();
        tar = tar.file(&format!("part-{part}"), 0o644, &noise);
    }
    let layers = [tar.finish(), Tarball::new().file("small", 0o644, b"x").finish()];
    let image =
        layers.iter().fold(ImageBuilder::new(Flavour::Oci), |b, layer| b.layer(layer, Compression::Gzip)).build();
    let name = stage.registry.serve("many", "latest", &image);
    let ids: Vec<String> = image.layers.iter().map(|l| l.digest()["sha256:".len()..][..12].to_owned()).collect();
    // A terminal: every layer has a line of its own that is written again and again.
    let command = onggi.command(&["pull", &name]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quote(&word.to_string_lossy())).collect();
    let on = |terminal: &str| {
        let line = format!("stty cols 120; TERM={terminal} {}", words.join(" "));
        let mut script = Command::new("script");
        let seen = script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().expect("script runs");
        String::from_utf8_lossy(&seen.stdout).into_owned()
    };
    let seen = on("xterm");
    for id in &ids {
        assert!(seen.contains(&format!("{id}: ")) && seen.contains("Pull complete"), "{seen:?}");
    }
    assert!(seen.contains("\u{1b}["), "nothing is written again: {seen:?}");
    onggi.ok(&["rmi", &name]);
    // One that can only go on gets lines.
    let seen = on("dumb");
    assert!(seen.contains("Pull complete") && !seen.contains('\u{1b}'), "{seen:?}");
    onggi.ok(&["rmi", &name]);
    let plain = onggi.run(&["pull", &name]);
    for id in &ids {
        let of_layer: Vec<&str> =
            plain.stderr.lines().chain(plain.stdout.lines()).filter(|l| l.starts_with(id)).collect();
        assert!(of_layer.first().is_some_and(|l| l.contains("Pulling fs layer")), "{plain}");
        assert!(of_layer.last().is_some_and(|l| l.contains("Pull complete")), "{plain}");
    }
    assert!(!plain.stderr.contains('\u{1b}') && !plain.stdout.contains('\u{1b}'), "{plain}");
    onggi.ok(&["rmi", &name]);
    let quiet = onggi.run(&["pull", "-q", &name]);
    assert!(quiet.code == Some(0) && quiet.stderr.is_empty() && quiet.stdout.lines().count() == 1, "{quiet}");
    // What JSON says of sizes is what the registry has.
    onggi.ok(&["rmi", &name]);
    let json = onggi.run(&["pull", "--progress", "json", &name]).stderr;
    let of = |digest: &str| -> Vec<Value> {
        let all = json.lines().map(|l| serde_json::from_str::<Value>(l).expect("an object a line"));
        all.filter(|v| v["digest"] == digest && v["status"] == "Downloading").collect()
    };
    for layer in &image.layers {
        let said = of(&layer.digest());
        let size = layer.bytes.len() as u64;
        assert!(!said.is_empty() && said.iter().all(|v| v["progressDetail"]["total"] == size), "{json}");
        let done = said.iter().filter_map(|v| v["progressDetail"]["current"].as_u64()).max();
        assert!(done.is_none_or(|done| done <= size), "{json}");
    }
    onggi.ok(&["rmi", &name]);
    onggi.assert_nothing_left();
}

//! What helps at the prompt: completion and manual pages.

use std::{fs, path::Path};

use onggi_tests::machine::sh;

use crate::Stage;

/// What bash offers for the last of `words`, with the script that the program prints.
fn offered(stage: &Stage, words: &[&str]) -> Vec<String> {
    let last = words.len();
    let words = words.join(" ");
    let bin = stage.onggi.program().parent().expect("a directory").display().to_string();
    let (root, runroot) = (stage.onggi.root(), stage.onggi.runroot());
    let line = format!("onggi --root {} --runroot {} {words}", root.display(), runroot.display());
    let script = format!(
        "PATH={bin}:$PATH; source <(onggi completion bash); COMP_WORDS=({line}); COMP_CWORD=$(({last}+4)); COMP_TYPE=9; \
         [ ${{#COMP_WORDS[@]}} -gt $COMP_CWORD ] || COMP_WORDS+=(''); \
         _clap_complete_onggi onggi \"${{COMP_WORDS[$COMP_CWORD]}}\" x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut found: Vec<String> = sh(&format!("bash -c {}", quoted(&script))).lines().map(str::to_owned).collect();
    found.sort();
    found
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn e2e_the_shell_completes_commands_options_and_names() {
    let stage = Stage::new();
    for name in ["boxer", "bozo", "other"] {
        stage.onggi.ok(&["create", "--name", name, &stage.busybox, "true"]);
    }
    assert_eq!(offered(&stage, &["stop", "bo"]), ["boxer", "bozo"]);
    assert_eq!(offered(&stage, &["rm", "-f", "boxer", "o"]), ["other"]);
    assert_eq!(offered(&stage, &["exec", "boxer", "bo"]), [""], "the arguments of a command are its own");
    assert_eq!(offered(&stage, &["cp", "box"]), ["boxer:"]);
    assert!(offered(&stage, &["cp", "/etc/host"]).contains(&"/etc/hosts".to_owned()));
    assert_eq!(offered(&stage, &["comm"]), ["commit"]);
    assert_eq!(offered(&stage, &["run", "--read-"]), ["--read-only"]);
    assert_eq!(offered(&stage, &["completion", "z"]), ["zsh"]);
    stage.onggi.ok(&["rm", "boxer", "bozo", "other"]);
    stage.onggi.assert_nothing_left();
}

#[test]
fn e2e_completion_makes_no_store_and_says_nothing_on_stderr() {
    let stage = Stage::new();
    let root = stage.onggi.dir();
    let elsewhere = root.join("elsewhere");
    let line = format!(
        "_ONGGI_COMPLETE=bash _CLAP_COMPLETE_INDEX=4 {} -- onggi --root {} stop x 2>&1",
        stage.onggi.program().display(),
        elsewhere.display()
    );
    assert_eq!(sh(&line).trim(), "");
    assert!(!elsewhere.exists());
}

#[test]
fn e2e_every_command_of_the_help_has_a_manual_page() {
    let stage = Stage::new();
    let root = stage.onggi.dir();
    let dir = root.join("man");
    let dir_text = dir.to_str().expect("UTF-8");
    stage.onggi.ok(&["man", "--to", dir_text]);
    let help = stage.onggi.ok(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 30, "{help}");
    for command in commands {
        let page = fs::read_to_string(dir.join(format!("onggi-{command}.1"))).expect(command);
        assert!(page.contains(&format!(".TH onggi-{command} 1")), "{page}");
    }
    assert!(Path::new(&dir).join("onggi-ns-run.1").exists());
    let general = stage.onggi.ok(&["man"]);
    assert!(general.contains("127"), "{general}");
    let refused = stage.onggi.run(&["man", "nosuch"]);
    assert!(refused.stderr.contains("there is no command nosuch"), "{refused:?}");
}

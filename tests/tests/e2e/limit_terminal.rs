//! `limit` in a shell with job control, on a real terminal: its keys, its jobs, its size, its exit codes.

use std::fs;

use onggi_tests::{Onggi, eventually, isolated, machine::sh};

use crate::terminal::Terminal;

/// A shell that knows the program as `onggi`.
fn shell(onggi: &Onggi) -> Terminal {
    let rc = onggi.dir().join("rc");
    let programs = onggi.program().parent().expect("it is in a directory").display();
    let text = format!("PS1='ready> '\nPATH={programs}:$PATH\n");
    fs::write(&rc, text).expect("write");
    let terminal = Terminal::run(onggi.dir(), &format!("bash --noprofile --rcfile {}", rc.display()));
    terminal.shows(&["ready>"]);
    terminal
}

/// The states of all processes whose command line has the word, as proc_pid_stat(5) has them.
fn states(word: &str) -> String {
    // The brackets keep the shell that asks from being found.
    let (first, rest) = word.split_at(1);
    let found = format!("$(pgrep -f '[{first}]{rest}' || true)");
    sh(&format!("for p in {found}; do sed 's/.*) //' /proc/$p/stat 2> /dev/null | cut -c1; done"))
        .split_whitespace()
        .collect()
}

fn all_are(word: &str, wanted: fn(char) -> bool) {
    eventually(&format!("{word}: {}", states(word)), || {
        let now = states(word);
        (!now.is_empty() && now.chars().all(wanted)).then_some(())
    });
}

/// Types a line, and waits until its command has begun: `BEGUN` tells that, with a number that no other has.
fn begin(terminal: &Terminal, number: u8, line: &str) {
    // Not the word itself: what is typed is on the screen too.
    terminal.line(&line.replace("BEGUN", &format!("clear; echo be''gun {number}")));
    terminal.shows(&[&format!("begun {number}")]);
}

/// Presses a key that ends the command.
fn ends(terminal: &Terminal, key: &str, code: u8) {
    terminal.key(key);
    terminal.shows(&[&format!("code {code}")]);
}

#[test]
fn e2e_limit_on_a_terminal_hands_keys_jobs_and_window_size_on() {
    isolated();
    let onggi = Onggi::new();
    let terminal = shell(&onggi);
    // Ctrl-C reaches the command, and its end is told as a shell tells it.
    begin(&terminal, 1, "onggi limit --pids 20 sh -c 'BEGUN; exec sleep 301'; echo code $?");
    all_are("sleep 301", |c| c == 'S');
    ends(&terminal, "C-c", 130);
    // A command that handles it decides itself.
    let waits = "while :; do sleep 0.1; done'; echo code $?";
    begin(&terminal, 2, &format!("onggi limit --pids 20 bash -c 'trap \"exit 9\" INT; BEGUN; {waits}"));
    ends(&terminal, "C-c", 9);
    // Ctrl-Z stops both; fg lets both go on.
    begin(&terminal, 3, "onggi limit --pids 20 sh -c 'BEGUN; sleep 302; exit 7'");
    all_are("sleep 302", |c| c == 'S');
    terminal.key("C-z");
    terminal.shows(&["Stopped"]);
    all_are("sleep 302", |c| c == 'T');
    terminal.line("bg");
    all_are("sleep 302", |c| c == 'S');
    terminal.line("clear; fg; echo code $?");
    terminal.shows(&["limit --pids 20 sh -c"]);
    sh("kill $(pgrep -x -f 'sleep 302')");
    terminal.shows(&["code 7"]);
    // The size of the window is the command's too.
    begin(&terminal, 4, &format!("onggi limit --pids 20 bash -c 'trap \"stty size; exit 5\" WINCH; BEGUN; {waits}"));
    terminal.tmux(&["resize-window", "-x", "90", "-y", "25"]);
    terminal.shows(&["25 90", "code 5"]);
    background(&terminal);
}

/// Jobs in the background: a signal, the terminal's input, and limits that are kept without groups.
fn background(terminal: &Terminal) {
    terminal.line("clear; onggi limit --pids 20 sleep 303 &");
    all_are("sleep 303", |c| c == 'S');
    terminal.line("kill -TERM %1; wait %1; echo code $?");
    terminal.shows(&["code 143"]);
    terminal.line("clear; onggi limit --pids 20 cat &");
    all_are("pids 20 cat", |c| c == 'T');
    terminal.line("jobs");
    terminal.shows(&["Stopped"]);
    terminal.line("fg; echo code $?");
    terminal.shows(&["limit --pids 20 cat"]);
    terminal.line("a line");
    terminal.shows(&["a line\na line"]);
    terminal.key("C-d");
    terminal.shows(&["code 0"]);
    begin(terminal, 5, "onggi limit --no-cgroup --cpus 0.5 sh -c 'BEGUN; exec sleep 304'; echo code $?");
    all_are("sleep 304", |c| c == 'S');
    ends(terminal, "C-c", 130);
}

//! Signals of the host: handlers in Java, shutdown hooks, and the thread dump. What Java code sees is what it sees on `java`.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The example, which Cargo builds beside the tests.
fn isomorph() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/java")
}

fn compiled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Signals.java");
    let compiled = Command::new("javac").arg("-nowarn").arg("-d").arg(folder.path()).arg(source).output();
    let compiled = compiled.expect("JDK 17 is installed; run cargo xtask setup");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    folder
}

fn start(java: &Path, folder: &Path, words: &[&str]) -> Child {
    let mut command = Command::new(java);
    command.arg("-cp").arg(folder).args(words).stdout(Stdio::piped());
    command.spawn().expect("JDK 17 is installed; run cargo xtask setup")
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
    assert!(sent.unwrap().success());
}

/// What a program writes and how it ends, if each of these signals is sent when it is ready.
fn run(java: &Path, folder: &Path, words: &[&str], signals: &[&str]) -> (String, Option<i32>) {
    let mut child = start(java, folder, words);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    if !signals.is_empty() {
        while !text.ends_with("ready\n") && output.read_line(&mut text).unwrap() > 0 {}
        // It sleeps then.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    for signal in signals {
        send(&child, signal);
        if *signal == "QUIT" {
            while !text.contains("Found 1 deadlock.") && output.read_line(&mut text).unwrap() > 0 {}
        }
    }
    output.read_to_string(&mut text).unwrap();
    (text, child.wait().unwrap().code())
}

fn same(words: &[&str], signals: &[&str]) {
    let folder = compiled();
    let expected = run(Path::new("java"), folder.path(), words, signals);
    assert_eq!(run(&isomorph(), folder.path(), words, signals), expected);
}

#[test]
fn handlers_in_java() {
    same(&["Signals", "handlers"], &[]);
}

#[test]
fn the_end_by_a_signal_runs_hooks() {
    for signal in ["INT", "TERM", "HUP"] {
        same(&["Signals", "wait"], &[signal]);
    }
}

#[test]
fn what_threads_do() {
    let folder = compiled();
    let dump = |java: &Path| {
        let (text, code) = run(java, folder.path(), &["Signals", "states"], &["QUIT", "TERM"]);
        assert_eq!(code, Some(143), "{text}");
        text
    };
    let (ours, theirs) = (dump(&isomorph()), dump(Path::new("java")));
    let before = |text: &str| text.split("ready\n").next().unwrap().to_owned();
    assert_eq!(before(&ours), before(&theirs));
    for thread in
        ["main", "Reference Handler", "Finalizer", "parker", "timed parker", "waiter", "spinner", "one", "two"]
    {
        assert_eq!(thread_in(&ours, thread), thread_in(&theirs, thread), "{ours}");
    }
    let deadlock = |text: &str| {
        let text = &text[text.find("Found one Java-level deadlock:").unwrap()..];
        let lines = text.lines().take_while(|line| !line.starts_with("Java stack")).map(without_numbers);
        lines.collect::<Vec<_>>()
    };
    assert_eq!(deadlock(&ours), deadlock(&theirs));
}

/// A thread's part of a dump: the properties that are the same in each run, the state, and the frames that are not of lambda classes.
fn thread_in(dump: &str, name: &str) -> Vec<String> {
    let lines = dump.lines().skip_while(|line| !line.starts_with(&format!("\"{name}\" #")));
    let part = lines.take_while(|line| !line.is_empty());
    part.filter(|line| !line.contains("$$Lambda")).map(without_numbers).collect()
}

/// Addresses, times and numbers of threads are different each time.
fn without_numbers(line: &str) -> String {
    let head = line.starts_with('"');
    let line = line.split(" cpu=").next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').filter(|word| !head || !word.starts_with('#')).collect();
    let joined = words.join(" ");
    let mut text = String::new();
    let mut rest = joined.as_str();
    while let Some(at) = rest.find("0x") {
        text.push_str(&rest[..at]);
        text.push_str("0x");
        rest = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    text + rest
}

//! Java programs: their output, errors and status are those of `java`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup` installs a JDK"))
}

/// The example, which Cargo builds beside the tests.
fn isomorph() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/java")
}

fn same(program: &str, options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java").join(format!("{program}.java"));
    let compiled = run(Command::new("javac").arg("-d").arg(folder.path()).arg(source));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let sizes = options.iter().filter(|option| option.starts_with("-Xm") || option.starts_with("-XX:Max"));
    let expected = run(Command::new("java").args(sizes).arg("-cp").arg(folder.path()).arg(program));
    let ours = run(Command::new(isomorph()).args(options).arg("-cp").arg(folder.path()).arg(program));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&ours.stderr), text(&expected.stderr));
    assert_eq!(text(&ours.stdout), text(&expected.stdout));
    assert_eq!(ours.status.code(), expected.status.code());
}

#[test]
fn language_and_library() {
    same("Language", &[]);
}

/// Who loses such a race has the winner's class.
#[test]
fn threads_load_a_class_at_once() {
    for _ in 0..10 {
        same("Raced", &[]);
    }
}

#[test]
fn with_collections_all_the_time() {
    same("Language", &["-XX:CollectEveryAllocations=2000", "-XX:+VerifyHeap", "-Xmx100m"]);
}

#[test]
fn messages_of_exceptions_stack_walks_and_states_of_threads() {
    same("Messages", &[]);
}

#[test]
fn garbage_of_many_times_the_heap() {
    same("Collection", &["-Xmx64m"]);
}

#[test]
fn references_finalizers_threads_and_no_memory_left() {
    same("References", &["-Xmx64m"]);
    same("References", &["-Xmx64m", "-XX:CollectEveryAllocations=700", "-XX:+VerifyHeap"]);
}

#[test]
fn loaders_that_nobody_needs_go() {
    same("Unloading", &[]);
}

#[test]
fn loaders_go_with_collections_all_the_time() {
    same("Unloading", &["-XX:CollectEveryAllocations=20000", "-XX:+VerifyHeap", "-Xmx64m"]);
}

#[test]
fn classes_have_a_limit() {
    same("Metaspace", &["-XX:MaxMetaspaceSize=14m"]);
}

#[test]
fn beans_of_memory_are_those_of_the_serial_collector() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Beans.java");
    assert!(run(Command::new("javac").arg("-d").arg(folder.path()).arg(source)).status.success());
    let output = |java: &Path| {
        let options = ["-XX:+UseSerialGC", "-Xmx128m", "-Da=b", "-cp"];
        let done = run(Command::new(java).args(options).arg(folder.path()).arg("Beans"));
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    };
    assert_eq!(output(&isomorph()), output(Path::new("java")));
}

#[test]
fn what_older_versions_had() {
    same("Older", &[]);
}

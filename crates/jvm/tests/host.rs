//! Files, sockets, processes and the like through the class library, and errors of verification: output is that of `java`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The example, which Cargo builds beside the tests.
fn isomorph() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/java")
}

fn output(program: &Path, folder: &Path, class: &str) -> (String, Option<i32>) {
    let output = Command::new(program).arg("-cp").arg(folder).arg(class).output();
    let output = output.expect("JDK 17 is installed (cargo xtask setup), and the example is built with the tests");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code())
}

fn same(class: &str) {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/java/{class}.java"));
    let compiled = Command::new("javac").arg("-d").arg(folder.path()).arg(source).output();
    let compiled = compiled.expect("JDK 17 is installed; run cargo xtask setup");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let theirs = output(Path::new("java"), folder.path(), class);
    let ours = output(&isomorph(), folder.path(), class);
    assert_eq!(ours.0, theirs.0);
    assert_eq!(ours.1, theirs.1);
    assert!(!ours.0.contains("threw"), "{}", ours.0);
}

#[test]
fn the_host_through_the_class_library() {
    same("Host");
}

#[test]
fn what_errors_of_verification_say() {
    same("Refused");
}

#[test]
fn what_could_not_be_resolved_stays_so() {
    same("Unresolved");
}

#[test]
fn what_is_selected_where_a_class_hides_an_interfaces_method() {
    same("Selected");
}

#[test]
fn why_a_class_could_not_be_initialized() {
    same("Uninitialized");
}

//! The Java Native Interface: C code compiled here finds what it finds in `java`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup` installs a JDK and gcc"))
}

/// The example, which Cargo builds beside the tests.
fn isomorph() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/java")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with a program's classes and the library.
fn compiled(program: &str, library: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let java = sources.join(format!("java/{program}.java"));
    let compiled = run(Command::new("javac").arg("-d").arg(folder.path()).arg(java));
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    let java = run(Command::new("java").args(["-XshowSettings:properties", "-version"]));
    let home = text(&java.stderr).lines().find_map(|line| line.trim().strip_prefix("java.home = ").map(PathBuf::from));
    let home = home.expect("java says where it is");
    let headers = home.join("include");
    let compiled = run(Command::new("gcc")
        .args(["-w", "-shared", "-fPIC", "-O1", "-pthread", "-I"])
        .arg(&headers)
        .arg("-I")
        .arg(headers.join("linux"))
        .arg("-o")
        .arg(folder.path().join(format!("lib{library}.so")))
        .arg(sources.join(format!("c/{library}.c")))
        .arg("-Wl,--no-as-needed")
        .arg("-L")
        .arg(home.join("lib/server"))
        .arg("-ljvm"));
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    folder
}

fn program(java: &Path, folder: &Path, options: &[&str], words: &[&str]) -> Output {
    let library_path = format!("-Djava.library.path={}", folder.display());
    run(Command::new(java).args(options).arg(library_path).arg("-cp").arg(folder).args(words).env("LC_ALL", "C.UTF-8"))
}

fn same(options: &[&str]) {
    let folder = compiled("Jni", "checks");
    let expected = program(Path::new("java"), folder.path(), &[], &["Jni"]);
    let ours = program(&isomorph(), folder.path(), options, &["Jni"]);
    let paths = |output: &[u8]| text(output).replace(&folder.path().display().to_string(), "FOLDER");
    assert_eq!(paths(&ours.stdout), paths(&expected.stdout));
    assert_eq!(text(&ours.stderr), text(&expected.stderr));
    assert_eq!(ours.status.code(), expected.status.code());
}

#[test]
fn every_kind_of_function() {
    same(&[]);
}

#[test]
fn with_collections_all_the_time() {
    same(&["-XX:CollectEveryAllocations=977", "-XX:+VerifyHeap", "-Xmx100m"]);
}

#[test]
fn a_crash_is_told() {
    let folder = compiled("Crash", "crash");
    let end = |which: &str| {
        let ours = program(&isomorph(), folder.path(), &[], &["Crash", which]);
        let signal = std::os::unix::process::ExitStatusExt::signal(&ours.status);
        assert_eq!(signal, Some(6), "{ours:?}");
        text(&ours.stdout)
    };
    let told = end("0");
    for part in
        ["before", "#  SIGSEGV (0xb) at pc=0x", "# C  [libcrash.so+0x", "  Java_Crash_crash+0x", "0x0000000000000008"]
    {
        assert!(told.contains(part), "{part} is missing: {told}");
    }
    assert!(told.contains("\tat Crash.crash(Native Method)\n\tat Crash.inner(Crash.java:5)"), "{told}");
    let told = end("1");
    assert!(told.contains("FATAL ERROR in native method: no way on\n\tat Crash.crash(Native Method)"), "{told}");
    assert!(end("2").contains("before"));
}

#[test]
fn a_library_goes_with_its_loader() {
    let folder = compiled("Leaving", "leaves");
    let expected = program(Path::new("java"), folder.path(), &[], &["Leaving"]);
    assert_eq!(text(&expected.stdout).matches("library: unloaded").count(), 3, "{expected:?}");
    for options in [&[][..], &["-XX:CollectEveryAllocations=1000", "-XX:+VerifyHeap", "-Xmx64m"]] {
        let ours = program(&isomorph(), folder.path(), options, &["Leaving"]);
        assert_eq!(text(&ours.stdout), text(&expected.stdout));
        assert_eq!(text(&ours.stderr), text(&expected.stderr));
    }
}

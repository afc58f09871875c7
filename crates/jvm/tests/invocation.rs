//! A C program that starts a virtual machine finds in this library what it finds in the JDK's.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup` installs a JDK and gcc"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn java_home() -> PathBuf {
    let java = run(Command::new("java").args(["-XshowSettings:properties", "-version"]));
    let home = text(&java.stderr).lines().find_map(|line| line.trim().strip_prefix("java.home = ").map(PathBuf::from));
    home.expect("java says where it is")
}

#[test]
fn a_program_starts_a_virtual_machine() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let home = java_home();
    let compiled = run(Command::new("javac").arg("-d").arg(folder.path()).arg(sources.join("java/Hosted.java")));
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    let program = folder.path().join("host");
    let compiled = run(Command::new("gcc")
        .args(["-w", "-O1", "-pthread"])
        .args(["include", "include/linux"].map(|include| format!("-I{}", home.join(include).display())))
        .arg(sources.join("c/invocation.c"))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(home.join("lib/server"))
        .arg("-ljvm"));
    assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    // The example, which Cargo builds beside the tests.
    let own = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
    assert!(own.join("libjvm.so").is_file(), "Cargo builds examples for tests");
    let host = |libraries: &Path, how: &[&str]| {
        run(Command::new(&program)
            .arg(format!("-Djava.class.path={}", folder.path().display()))
            .args(how)
            .env("LD_LIBRARY_PATH", libraries)
            .env("JAVA_HOME", &home))
    };
    for how in [&[][..], &["leave"]] {
        let (expected, ours) = (host(&home.join("lib/server"), how), host(&own, how));
        assert_eq!(text(&ours.stdout), text(&expected.stdout), "{}", text(&ours.stderr));
        assert_eq!(ours.status.code(), expected.status.code());
    }
}

//! Pictures: java.desktop, whose natives are the JDK's own libraries, draws what it draws in `java`.

use std::path::Path;
use std::process::{Command, Output};

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup` installs a JDK"))
}

#[test]
fn what_is_drawn_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Drawing.java");
    let compiled = run(Command::new("javac").arg("-d").arg(folder.path()).arg(source));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    // The example, which Cargo builds beside the tests.
    let own = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/java");
    let draw = |java: &Path, options: &[&str]| {
        let output = run(Command::new(java)
            .args(options)
            .args(["-Djava.awt.headless=true", "-cp"])
            .arg(folder.path())
            .arg("Drawing"));
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let expected = draw(Path::new("java"), &[]);
    assert!(expected.0.contains("\nheadless true\n"), "{expected:?}");
    for options in [&[][..], &["-XX:CollectEveryAllocations=1000", "-XX:+VerifyHeap"]] {
        let (output, errors) = draw(&own, options);
        assert_eq!(output, expected.0, "{options:?}: {errors}");
    }
    // Of the libraries' own sins the same are found.
    let found = |(output, _): (String, String)| output.lines().filter(|line| line.starts_with("WARNING")).count();
    assert_eq!(found(draw(&own, &["-Xcheck:jni"])), found(draw(Path::new("java"), &["-Xcheck:jni"])));
}

//! Agents in Java: what they see and change is what `java` lets them see and change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example, which Cargo builds beside the tests.
fn isomorph() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/java")
}

fn run(program: &Path, folder: &Path, words: &[&str]) -> Output {
    let done = Command::new(program).args(words).current_dir(folder).output();
    done.unwrap_or_else(|error| panic!("{program:?}: {error}; `cargo xtask setup` installs a JDK"))
}

fn tool(name: &str, folder: &Path, words: &[&str]) {
    let done = run(Path::new(name), folder, words);
    assert!(done.status.success(), "{name} {words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A jar of classes in a folder with a manifest.
fn jar(folder: &Path, name: &str, manifest: &str, classes: &[&str]) {
    fs::write(folder.join("manifest"), manifest).unwrap();
    tool("jar", folder, &[&["cfm", name, "manifest"], classes].concat());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn classes_are_transformed_and_redefined() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Redefined.java");
    fs::copy(source, folder.path().join("Redefined.java")).unwrap();
    tool("javac", folder.path(), &["Redefined.java"]);
    let manifest = "Premain-Class: Redefined\nCan-Redefine-Classes: true\nCan-Retransform-Classes: true\n";
    jar(folder.path(), "agent.jar", manifest, &["Redefined.class"]);
    let words = ["-javaagent:agent.jar=some=options", "-cp", ".", "Redefined"];
    let expected = run(Path::new("java"), folder.path(), &words);
    for options in [&[][..], &["-XX:CollectEveryAllocations=5000", "-XX:+VerifyHeap"]] {
        let ours = run(&isomorph(), folder.path(), &[options, &words].concat());
        assert_eq!(text(&ours.stdout), text(&expected.stdout));
        assert_eq!(text(&ours.stderr), text(&expected.stderr));
        assert_eq!(ours.status.code(), expected.status.code());
    }
}

#[test]
fn agents_that_cannot_begin_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let source = "public class Bad {
        public static void premain(String options) { throw new IllegalStateException(\"no \" + options); }
        public static void agentmain(String options, java.lang.instrument.Instrumentation tool) {
            System.out.println(\"[\" + options + \"] \" + tool.isRedefineClassesSupported());
        }
        public static void main(String[] args) { System.out.println(\"main\"); }
    }
    class Hidden { static void premain(String options) {} }";
    fs::write(folder.join("Bad.java"), source).unwrap();
    tool("javac", folder, &["Bad.java"]);
    jar(folder, "plain.jar", "", &["Bad.class"]);
    jar(folder, "bad.jar", "Premain-Class: Bad\n", &["Bad.class"]);
    jar(folder, "none.jar", "Premain-Class: None\n", &["Bad.class"]);
    jar(folder, "hidden.jar", "Premain-Class: Hidden\n", &["Hidden.class"]);
    fs::write(folder.join("no.jar"), "no jar").unwrap();
    for agent in ["missing.jar", "no.jar", "plain.jar", "bad.jar=way", "none.jar", "hidden.jar", ""] {
        let option = format!("-javaagent:{agent}");
        let words = ["-XX:-CreateCoredumpOnCrash", &option, "-cp", ".", "Bad"];
        let (ours, expected) = (run(&isomorph(), folder, &words), run(Path::new("java"), folder, &words));
        // HotSpot adds where in itself that was.
        assert_eq!(text(&ours.stdout).lines().next(), text(&expected.stdout).lines().next(), "{agent}");
        let told = text(&expected.stderr);
        let told: String = told.split_inclusive('\n').filter(|line| !line.starts_with("***")).collect();
        assert_eq!(text(&ours.stderr), told, "{agent}");
        assert_eq!(ours.status.code(), expected.status.code(), "{agent}");
    }
    jar(folder, "own.jar", "Main-Class: Bad\nLauncher-Agent-Class: Bad\nCan-Redefine-Classes: true\n", &["Bad.class"]);
    let words = ["-jar", "own.jar"];
    let (ours, expected) = (run(&isomorph(), folder, &words), run(Path::new("java"), folder, &words));
    assert_eq!(text(&ours.stdout), text(&expected.stdout));
    assert_eq!(text(&ours.stderr), text(&expected.stderr));
}

//! Options of the command: output, errors and status are those of `java`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The example, which Cargo builds beside the tests.
fn isomorph() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/java")
}

fn tool(name: &str, folder: &Path, words: &[&str]) {
    let done = Command::new(name).args(words).current_dir(folder).output();
    let done = done.expect("JDK 17 is installed; run cargo xtask setup");
    assert!(done.status.success(), "{name} {words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A folder with classes, jars, a module and argument files.
fn folder() -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java/Launched.java");
    fs::copy(source, folder.join("Launched.java")).unwrap();
    fs::create_dir_all(folder.join("jars")).unwrap();
    fs::create_dir_all(folder.join("source/own/own")).unwrap();
    tool("javac", folder, &["-d", "classes", "Launched.java"]);
    let own = "package own; public class Main { public static void main(String[] a) { System.out.println(Main.class.getModule() + String.join(\",\", a)); } }";
    fs::write(folder.join("source/own/own/Main.java"), own).unwrap();
    fs::write(folder.join("source/own/module-info.java"), "module own { requires java.logging; }").unwrap();
    tool("javac", folder, &["-d", "modules", "--module-source-path", "source", "-m", "own"]);
    fs::write(folder.join("inside.txt"), "inside").unwrap();
    tool("jar", folder, &["cf", "jars/inside.jar", "inside.txt"]);
    let manifest = "Main-Class: Launched\nClass-Path: jars/inside.jar\nAdd-Opens: java.base/java.lang\n";
    fs::write(folder.join("manifest"), manifest).unwrap();
    tool("jar", folder, &["cfm", "app.jar", "manifest", "-C", "classes", "."]);
    tool("jar", folder, &["cf", "nomain.jar", "-C", "classes", "."]);
    fs::write(folder.join("arguments"), "-cp \"classes\" # where\n-Dp='from a \\'file\\''\n").unwrap();
    fs::write(folder.join("Script"), "#!/usr/bin/java --source 17\npublic class S { public static void main(String[] a) { System.out.println(a.length); } }").unwrap();
    fs::write(folder.join("Wrong.java"), "public class Wrong { int x = \"\"; }").unwrap();
    temporary
}

/// Output, errors and status; what names a virtual machine is left out.
fn run(java: &Path, folder: &Path, variables: &[(&str, &str)], words: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(java);
    command.args(words).current_dir(folder).envs(variables.iter().copied()).env("LC_ALL", "C.UTF-8");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that does not read ends before all is written.
    let _ = child.stdin.take().unwrap().write_all(b"1 2 39 end\n");
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let ours = |line: &&str| {
            !line.contains(" VM (build ") && !line.contains("Isomorph (build ") && !line.contains("\" VM")
        };
        text.lines().filter(ours).collect::<Vec<_>>().join("\n")
    };
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Lines without the times in front that a log gives them: `[0.001s][error]...`.
fn without_uptimes(text: &str) -> String {
    let without = |line| match str::strip_prefix(line, '[').and_then(|line| line.split_once("s]")) {
        Some((seconds, rest)) if seconds.parse::<f64>().is_ok() => rest,
        _ => line,
    };
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

/// Command lines, one each line; words in front with `=` are variables of the environment.
fn same(lines: &str) {
    let folder = folder();
    let mut different = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (variables, words): (Vec<&str>, Vec<&str>) =
            line.split(' ').partition(|word| word.starts_with(|c: char| c.is_ascii_uppercase()) && word.contains('='));
        let variables: Vec<(String, String)> = variables
            .iter()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace('~', " ")))
            .collect();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let theirs = run(Path::new("java"), folder.path(), &variables, &words);
        let ours = run(&isomorph(), folder.path(), &variables, &words);
        let comparable = |run: &(String, String, _)| (without_uptimes(&run.0), without_uptimes(&run.1), run.2);
        if comparable(&ours) != comparable(&theirs) {
            different += &format!("java {line}\n  ours: {ours:?}\n  java: {theirs:?}\n");
        }
    }
    assert!(different.is_empty(), "{different}");
}

#[test]
fn errors() {
    same(
        "-nosuch
        -Xnosuch
        --nosuch
        -d32 Launched
        -cp
        -jar
        -m
        -p
        --module-path
        --add-modules
        --source
        -jar nothere.jar
        -jar nomain.jar
        NoSuch
        -cp classes Launched$Other
        -Xmx
        -Xmxabc Launched
        -Xmx1k Launched
        -Xms2g -Xmx1g Launched
        -Xss1k Launched
        -Xssabc Launched
        @nosuch Launched
        -Xlog:nosuch Launched
        -Xlog:gc=loud Launched
        --add-modules nosuch -cp classes Launched
        --add-opens java.base -cp classes Launched
        -m nosuch
        -m nosuch/a.B
        -p modules -m own
        -p modules -m own/own.Nothing
        Wrong.java
        --source 17 nothere",
    );
}

#[test]
fn what_is_told() {
    same(
        "-version
        --version
        -cp classes -showversion Launched a
        -cp classes --show-version Launched a
        -help
        --help
        -X
        --help-extra
        --list-modules
        -p modules --list-modules
        -d java.logging
        --describe-module nosuch
        --validate-modules
        -cp classes --dry-run Launched throw",
    );
}

#[test]
fn classes_jars_and_modules() {
    same(
        "-cp classes Launched a b
        --class-path=classes Launched
        --class-path classes Launched
        -classpath classes:jars/* Launched path
        -cp jars/*:classes:none/* Launched resource
        CLASSPATH=classes Launched resource
        -jar app.jar resource
        -jar app.jar opened
        -cp classes --add-opens java.base/java.lang=ALL-UNNAMED Launched opened
        -cp classes --add-opens=java.base/java.lang=ALL-UNNAMED Launched opened
        -cp classes --add-exports nosuch/a=ALL-UNNAMED --add-reads java.base=nosuch Launched
        -p modules -m own/own.Main x y
        --module-path=modules --module=own/own.Main x
        -p modules --add-modules own -cp classes Launched
        --limit-modules java.base -cp classes Launched
        Launched.java resource
        --source 17 Launched.java a
        --source 17 Script a b c",
    );
}

#[test]
fn switches() {
    same(
        "-cp classes -ea Launched
        -cp classes -esa Launched
        -cp classes -ea:Launched Launched
        -cp classes -ea:Launched... Launched
        -cp classes -ea:... Launched
        -cp classes -ea -da:Launched Launched
        -cp classes -enableassertions -disableassertions:Launched$Other Launched
        -cp classes -ea:nothere... Launched
        -cp classes -Dp Launched
        -cp classes -Dp=q=r Launched
        @arguments Launched @arguments
        -cp classes @@arguments
        JDK_JAVA_OPTIONS=-Dp=x~-ea -cp classes Launched
        JAVA_TOOL_OPTIONS=-Dp=y -cp classes Launched
        -cp classes -Xint -Xbatch -Xshare:off -verbose:nosuch -splash:x.png -Xcheck:jni --enable-preview Launched
        -cp classes -Xlog:disable Launched a
        -cp classes -Xlog:class+load=off Launched a
        -cp classes -Xss4m Launched deep",
    );
}

#[test]
fn ends() {
    same(
        "-cp classes Launched throw
        -cp classes Launched handler
        -cp classes Launched exit
        -cp classes Launched halt
        -cp classes Launched input
        -cp classes -Xmx40m Launched memory",
    );
}

#[test]
fn logs() {
    let folder = folder();
    let (output, _, status) = run(&isomorph(), folder.path(), &[], &["-verbose:class", "-cp", "classes", "Launched"]);
    assert_eq!(status, Some(0));
    assert!(output.contains("s][info][class,load] java.lang.Object source: jrt:/java.base\n"), "{output}");
    let place = folder.path().join("classes").canonicalize().unwrap();
    assert!(output.contains(&format!("[class,load] Launched source: file:{}/\n", place.display())), "{output}");
    let words = ["-Xlog:gc:file=gc.log:level", "-Xmx40m", "-cp", "classes", "Launched", "memory"];
    let (output, _, _) = run(&isomorph(), folder.path(), &[], &words);
    assert!(!output.contains("Using Serial"), "{output}");
    let log = fs::read_to_string(folder.path().join("gc.log")).unwrap();
    assert!(log.starts_with("[info] Using Serial\n[info] GC(0) Pause "), "{log}");
}

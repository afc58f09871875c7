//! Linux programs for riscv64, next to the same source compiled for this host: same output, same status.
//!
//! Needs `riscv64-linux-gnu-gcc` and `gcc`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LIMIT: &str = "120";

fn compile(compiler: &str, name: &str, flags: &[&str], to: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(format!("{name}.c"));
    let output = to.join(format!("{name}-{compiler}{}", flags.concat()));
    let done = Command::new(compiler)
        .args(["-O1", "-w", "-pthread"])
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(&output)
        .args(["-lutil", "-lrt"])
        .output()
        .unwrap_or_else(|error| panic!("{compiler} (Debian's gcc, gcc-riscv64-linux-gnu): {error}"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    output
}

fn run(command: &[&Path]) -> Output {
    Command::new("timeout").args(["-k", "5", LIMIT]).args(command).output().unwrap()
}

/// Runs the program `name` on both, static and dynamic.
fn compare(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let native = compile("gcc", name, &[], directory.path());
    let fixed = compile("riscv64-linux-gnu-gcc", name, &["-static"], directory.path());
    let dynamic = compile("riscv64-linux-gnu-gcc", name, &[], directory.path());
    let expected = run(&[&native]);
    let isomorph = Path::new(env!("CARGO_BIN_EXE_isomorph"));
    for program in [&fixed, &dynamic] {
        let got = run(&[isomorph, Path::new("run"), program]);
        let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text(&got), text(&expected), "{}: {}", program.display(), String::from_utf8_lossy(&got.stderr));
        assert_eq!(got.status.code(), expected.status.code(), "{}", program.display());
    }
}

#[test]
fn signals() {
    compare("signals");
}

#[test]
fn threads() {
    compare("threads");
}

#[test]
fn processes() {
    compare("processes");
}

#[test]
fn events() {
    compare("events");
}

#[test]
fn files() {
    compare("files");
}

#[test]
fn faults() {
    compare("faults");
}

/// A link with an absolute target, a script with an interpreter, variables, and the system calls of all of it.
#[test]
fn told() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let program = compile("riscv64-linux-gnu-gcc", "told", &["-static"], directory.path());
    std::fs::create_dir_all(at("root/etc/isomorph")).unwrap();
    std::fs::create_dir_all(at("root/bin")).unwrap();
    std::fs::write(at("root/etc/behind"), "behind the link\n").unwrap();
    std::os::unix::fs::symlink("/etc/behind", at("root/etc/isomorph/link")).unwrap();
    std::fs::copy(&program, at("root/bin/told-really")).unwrap();
    std::os::unix::fs::symlink("/bin/told-really", at("root/bin/told")).unwrap();
    std::fs::write(at("script"), "#!/bin/told one two\n").unwrap();
    let root = at("root");
    let run = |flags: &[&str], what: &Path| {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", LIMIT, env!("CARGO_BIN_EXE_isomorph"), "run", "--sysroot"]).arg(&root);
        let done = command.args(flags).arg(what).output().unwrap();
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{error}");
        (String::from_utf8_lossy(&done.stdout).into_owned(), error)
    };

    let (out, _) = run(&["--env", "TOLD=a variable"], &at("script"));
    assert_eq!(out, format!("one two\n{}\na variable\nbehind the link\n", at("script").display()));
    let (out, _) = run(&[], &at("root/bin/told"));
    assert_eq!(out, "nothing\nbehind the link\nagain\nnothing\nbehind the link\n");

    let (_, error) = run(&["--strace"], &at("script"));
    assert!(error.contains(" openat(AT_FDCWD, \"/etc/isomorph/link\", 0, 0) = "), "{error}");
    assert!(error.contains(" exit_group(0) = ?\n"), "{error}");
    let log = at("log");
    run(&[&format!("--strace={}", log.display())], &at("root/bin/told"));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("\"again\\nnothing\\n") || log.contains("\"again\\n"), "the child's calls: {log}");
    assert_eq!(log.matches(" exit_group(").count(), 2, "{log}");
    assert!(log.contains(" execve("), "{log}");
}

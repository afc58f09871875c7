//! Linux programs for riscv64, next to the same source compiled for this host: same output, same status.
//!
//! Needs `riscv64-linux-gnu-gcc` and `gcc`; without them nothing is compared.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LIMIT: &str = "120";

fn compile(compiler: &str, name: &str, flags: &[&str], to: &Path) -> Option<PathBuf> {
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
        .ok()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(output)
}

fn run(command: &[&Path]) -> Output {
    Command::new("timeout").args(["-k", "5", LIMIT]).args(command).output().unwrap()
}

/// Runs the program `name` on both, static and dynamic.
fn compare(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let compilers = (
        compile("gcc", name, &[], directory.path()),
        compile("riscv64-linux-gnu-gcc", name, &["-static"], directory.path()),
        compile("riscv64-linux-gnu-gcc", name, &[], directory.path()),
    );
    let (Some(native), Some(fixed), Some(dynamic)) = compilers else {
        eprintln!("no compilers for riscv64 and for this host: not compared");
        return;
    };
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

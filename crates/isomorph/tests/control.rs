//! Verbs from outside, on machines of every kind in the middle of an endless loop.
//!
//! Needs `riscv64-linux-gnu-gcc` and `javac`.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A home with one machine in it, killed at the end.
struct Machine {
    folder: tempfile::TempDir,
    process: Child,
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isomorph"));
    command.env("ISOMORPH_HOME", folder.join("home")).env("XDG_CACHE_HOME", folder.join("cache"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn built(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Machine {
    /// Waits until it is listed.
    fn start(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let process = command(folder.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut machine = Self { folder, process };
        while machine.list().is_empty() {
            if let Some(status) = machine.process.try_wait().unwrap() {
                let mut error = String::new();
                machine.process.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                panic!("{status}: {error}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        machine
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        command(self.folder.path(), arguments).output().unwrap()
    }

    /// What a command that must succeed prints.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn list(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.told(&["ps", "--json"])).unwrap()
    }

    fn info(&self, name: &str) -> serde_json::Value {
        let infos: Vec<serde_json::Value> = serde_json::from_str(&self.told(&["info", "--json", name])).unwrap();
        infos[0].clone()
    }

    /// Processor time of the whole machine, which answers for little of it itself.
    fn cpu_ms(&self, name: &str) -> u64 {
        self.info(name)["cpu_time_ns"].as_u64().unwrap() / 1_000_000
    }

    fn wait(&mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes the machine through its life from outside: it works, stands still, works.
fn paused_and_resumed(machine: &Machine, kind: &str, name: &str) {
    let listed = &machine.list()[0];
    assert_eq!(listed["name"], name);
    assert_eq!((&listed["info"]["kind"], &listed["state"]), (&kind.into(), &"running".into()));
    assert_eq!(listed["pid"], machine.process.id());
    let works = || {
        let before = machine.cpu_ms(name);
        while machine.cpu_ms(name) < before + 20 {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    works();
    machine.told(&["pause", name]);
    assert_eq!(machine.info(name)["state"], "paused");
    assert_eq!(machine.list()[0]["state"], "paused");
    let error = String::from_utf8(machine.ask(&["pause", name]).stderr).unwrap();
    assert_eq!(error, format!("isomorph: machine '{name}': cannot pause a machine that is paused\n"));
    let before = machine.cpu_ms(name);
    std::thread::sleep(Duration::from_millis(300));
    let used = machine.cpu_ms(name) - before;
    assert!(used < 20, "{used} ms of processor time while it was paused");
    machine.told(&["resume", name]);
    works();
    assert!(machine.told(&["ps"]).contains(kind) && machine.told(&["stats", name]).contains("cpu time"));
}

fn nothing_is_left(machine: &Machine) {
    assert_eq!(std::fs::read_dir(machine.folder.path().join("home/machines")).unwrap().count(), 0);
}

fn wasm(flags: &[&str]) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    let program = r#"(module (func (export "_start") (loop $again (br $again))))"#;
    std::fs::write(folder.path().join("spin.wat"), program).unwrap();
    Machine::start(folder, &[&["run"], flags, &["spin.wat"]].concat())
}

#[test]
fn programs_of_linux_and_java_have_a_limit_of_processor_time() {
    let folder = tempfile::tempdir().unwrap();
    let program = spin(folder.path());
    let isomorph = env!("CARGO_BIN_EXE_isomorph");
    let run = |program: &Path| Command::new(isomorph).args(["run", "--cpu-time", "1"]).arg(program).output().unwrap();
    let output = run(&program);
    // SIGXCPU
    assert_eq!((output.status.signal(), &output.stdout[..]), (Some(24), &b"spinning\n"[..]));
    let source = folder.path().join("Spin.java");
    std::fs::write(&source, "class Spin { public static void main(String[] args) { for (;;) { } } }").unwrap();
    assert!(Command::new("javac").arg(&source).status().unwrap().success());
    let output = run(&source.with_extension("class"));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("it has used its 1 s of processor time; give it more with --cpu-time"), "{error}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn wasm_modules() {
    let mut machine = wasm(&["--name", "loop"]);
    paused_and_resumed(&machine, "wasm", "loop");
    let refused = String::from_utf8(machine.ask(&["snapshot", "create", "loop", "x"]).stderr).unwrap();
    assert!(refused.contains("if it was started with --snapshot"), "{refused}");
    machine.told(&["pause", "loop"]);
    machine.told(&["stop", "loop"]);
    assert_eq!(machine.wait(), Some(143));
    nothing_is_left(&machine);
    let error = String::from_utf8(machine.ask(&["stop", "loop"]).stderr).unwrap();
    assert_eq!(error, "isomorph: there is no machine 'loop': see 'isomorph ps'\n");
}

#[test]
fn a_name_is_made_up_and_kill_kills() {
    let mut machine = wasm(&[]);
    let name = format!("spin-{}", machine.process.id());
    assert_eq!(machine.list()[0]["name"], *name);
    machine.told(&["kill", &name]);
    assert_eq!(machine.wait(), Some(137));
    nothing_is_left(&machine);
}

/// A snapshot that is asked for in the middle of a call is taken when that returns.
#[test]
fn wasm_snapshots_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let program = r#"(module (global $count (mut i32) (i32.const 0))
        (func (export "count") (result i32) (local $n i64)
            (global.set $count (i32.add (global.get $count) (i32.const 1)))
            (if (i32.eq (global.get $count) (i32.const 1)) (then
                (loop $again
                    (local.set $n (i64.add (local.get $n) (i64.const 1)))
                    (br_if $again (i64.lt_u (local.get $n) (i64.const 3000000000))))))
            (global.get $count)))"#;
    std::fs::write(folder.path().join("count.wat"), program).unwrap();
    let run = ["run", "--name", "n", "--invoke", "count", "--snapshot", "own", "count.wat"];
    let mut machine = Machine::start(folder, &run);
    machine.told(&["snapshot", "create", "n", "asked"]);
    assert_eq!(machine.wait(), Some(0));
    for snapshot in ["./own", "./asked"] {
        assert_eq!(machine.told(&["run", "--invoke", "count", snapshot]), "2\n");
    }
}

fn spin(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/spin.c");
    let program = folder.join("spin");
    let mut compiler = Command::new("riscv64-linux-gnu-gcc");
    built(compiler.args(["-O1", "-w", "-static", "-pthread"]).arg(source).arg("-o").arg(&program));
    program
}

#[test]
fn linux_programs() {
    let folder = tempfile::tempdir().unwrap();
    spin(folder.path());
    let mut machine = Machine::start(folder, &["run", "--name", "work", "./spin", "3"]);
    paused_and_resumed(&machine, "linux", "work");
    let second = machine.ask(&["run", "--name", "work", "./spin", "3"]);
    let error = "isomorph: cannot be controlled from outside: machine 'work' is running already: give this one another name with --name\n";
    assert_eq!((second.status.code(), &*String::from_utf8_lossy(&second.stderr)), (Some(126), error));
    machine.told(&["pause", "work"]);
    machine.told(&["stop", "work"]);
    assert_eq!(machine.wait(), Some(3), "its handler of SIGTERM");
    let mut printed = String::new();
    machine.process.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "spinning\nasked to end\n");
    nothing_is_left(&machine);
}

/// A program that executes another one stays the machine that it was.
#[test]
fn linux_programs_that_become_others() {
    let folder = tempfile::tempdir().unwrap();
    spin(folder.path());
    let source = r#"#include <unistd.h>
        int main(void) { usleep(200000); execl("./spin", "spin", (char *)0); return 1; }"#;
    std::fs::write(folder.path().join("become.c"), source).unwrap();
    let mut compiler = Command::new("riscv64-linux-gnu-gcc");
    built(compiler.current_dir(&folder).args(["-O1", "-w", "-static", "become.c", "-o", "become"]));
    let mut machine = Machine::start(folder, &["run", "./become"]);
    let name = format!("become-{}", machine.process.id());
    loop {
        // Between the two there is a moment without control.
        if machine.list().first().is_some_and(|listed| listed["info"]["guest"] == "./spin") {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    paused_and_resumed(&machine, "linux", &name);
    machine.told(&["kill", &name]);
    assert_eq!(machine.wait(), None, "by SIGKILL");
    nothing_is_left(&machine);
}

#[test]
fn riscv_machines() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spin.s"), ".globl _start\n_start: addi t0, t0, 1\nj _start\n").unwrap();
    let mut compiler = Command::new("riscv64-linux-gnu-gcc");
    compiler.args(["-nostdlib", "-static", "-Wl,-Ttext=0x80200000,--build-id=none", "spin.s", "-o", "kernel"]);
    built(compiler.current_dir(&folder));
    let mut machine = Machine::start(
        folder,
        &["run", "--kernel", "kernel", "--cpus", "2", "--no-network", "--console", "none", "--name", "board"],
    );
    paused_and_resumed(&machine, "riscv64", "board");
    let note = String::from_utf8(machine.ask(&["stop", "board"]).stderr).unwrap();
    assert!(note.contains("cannot be asked to shut down"), "{note}");
    assert_eq!(machine.wait(), Some(143));
    nothing_is_left(&machine);
}

fn java(arguments: &[&str]) -> Machine {
    let folder = tempfile::tempdir().unwrap();
    let source = "class Spin { static volatile long n; public static void main(String[] a) { while (true) n++; } }";
    std::fs::write(folder.path().join("Spin.java"), source).unwrap();
    built(Command::new("javac").current_dir(&folder).arg("Spin.java"));
    Machine::start(folder, arguments)
}

#[test]
fn java_programs() {
    let mut machine = java(&["java", "-cp", ".", "Spin"]);
    let name = format!("Spin-{}", machine.process.id());
    paused_and_resumed(&machine, "java", &name);
    machine.told(&["stop", &name]);
    assert_eq!(machine.wait(), Some(143), "as java ends by SIGTERM");
    nothing_is_left(&machine);
}

/// Behind the fence of the kernel, too.
#[test]
fn java_programs_in_the_sandbox() {
    let mut machine = java(&["run", "--name", "fenced", "Spin.class"]);
    paused_and_resumed(&machine, "java", "fenced");
    machine.told(&["kill", "fenced"]);
    assert_eq!(machine.wait(), None, "by SIGKILL");
    nothing_is_left(&machine);
}

//! Whole guests, from text to their end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::lifecycle::{Machine, State, StopReason};
use machine::permissions::Permissions;
use wasm::{Cache, Host, LoadError, Process, Program, Settings};

fn program(text: &str) -> Program {
    Program::from_bytes(&Host::new(None).unwrap(), "test.wat", text.as_bytes()).unwrap()
}

fn settings() -> Settings {
    Settings { arguments: vec!["test".into()], memory_bytes: 64 << 20, ..Settings::default() }
}

/// Runs to the end.
fn run(text: &str, settings: Settings) -> StopReason {
    let process = Process::new(program(text), settings).unwrap();
    process.start().unwrap();
    process.wait()
}

fn fault(reason: StopReason) -> String {
    match reason {
        StopReason::Fault(text) => text,
        other => panic!("not a fault: {other:?}"),
    }
}

const ENDLESS: &str = r#"(module (memory 1) (func (export "_start") (loop (br 0))))"#;

#[test]
fn an_exit_status_is_the_guests_own() {
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 42))))"#;
    assert_eq!(run(text, settings()), StopReason::PowerOff(42));
    assert_eq!(run(r#"(module (func (export "_start")))"#, settings()), StopReason::PowerOff(0));
}

#[test]
fn a_trap_names_what_and_where() {
    let text = r#"(module (memory 1) (func $deepest (drop (i32.load (i32.const -4)))) (func $middle (call $deepest))
        (func (export "_start") (call $middle)))"#;
    let report = fault(run(text, settings()));
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], "out of bounds memory access");
    assert!(lines[1].starts_with("    at deepest (+0x") && lines[2].starts_with("    at middle (+0x"), "{report}");
}

#[test]
fn recursion_without_end_is_a_stack_overflow() {
    let report = fault(run(r#"(module (func $f (export "_start") (call $f)))"#, settings()));
    assert!(report.starts_with("stack overflow"), "{report}");
    assert!(report.lines().count() < 40, "{report}");
}

#[test]
fn an_endless_loop_is_paused_resumed_and_stopped() {
    let process = Arc::new(Process::new(program(ENDLESS), settings()).unwrap());
    assert_eq!(process.state(), State::Created);
    assert!(process.pause().is_err());
    process.start().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    process.pause().unwrap();
    let time = process.stats().time_ns;
    assert!(time > 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((process.state(), process.stats().time_ns), (State::Paused, time));
    process.resume().unwrap();
    assert_eq!(process.state(), State::Running);
    process.stop().unwrap();
    assert_eq!(process.wait(), StopReason::Requested);
    assert!(process.resume().is_err());
}

#[test]
fn an_endless_loop_is_held_however_soon_it_is_asked() {
    let process = Process::new(program(ENDLESS), settings()).unwrap();
    process.start().unwrap();
    for _ in 0..10_000 {
        process.pause().unwrap();
        process.resume().unwrap();
    }
    process.stop().unwrap();
    assert_eq!(process.wait(), StopReason::Requested);
}

#[test]
fn processor_time_is_limited() {
    let begin = Instant::now();
    let limited = Settings { cpu_time: Some(Duration::from_millis(100)), ..settings() };
    let report = fault(run(ENDLESS, limited));
    assert!(report.starts_with("it has used its 0.1 s of processor time"), "{report}");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn memory_is_limited_and_the_guest_told() {
    // Grows by a page until told that there is no more, and exits with the number of MiB it got.
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (local $n i32)
          (loop (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1))
            (then (local.set $n (i32.add (local.get $n) (i32.const 1))) (br 1))))
          (call $exit (local.get $n))))"#;
    assert_eq!(run(text, settings()), StopReason::PowerOff(63));
    let report = fault(run(r#"(module (memory 2000) (func (export "_start")))"#, settings()));
    assert!(report.contains("memory"), "{report}");
}

#[test]
fn tables_count_as_memory() {
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (table $t 1 funcref)
        (func (export "_start")
          (call $exit (i32.eq (i32.const -1) (table.grow $t (ref.null func) (i32.const 100000000))))))"#;
    assert_eq!(run(text, settings()), StopReason::PowerOff(1));
}

/// Opens the file of the first argument below the first directory, and exits with what WASI answers.
const OPEN: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
      (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1) (data (i32.const 100) "file")
    (func (export "_start")
      (call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 4)
        (i32.const RIGHTS_CREATE) (i64.const RIGHTS) (i64.const 0) (i32.const 0) (i32.const 200)))))"#;

#[test]
fn files_are_reached_only_by_permission() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "hello").unwrap();
    let read = OPEN.replace("RIGHTS_CREATE", "0").replace("RIGHTS", "2");
    let create = OPEN.replace("RIGHTS_CREATE", "9").replace("RIGHTS", "64");
    let with = |permissions: Permissions| Settings { permissions, ..settings() };
    let path = vec![folder.path().to_owned()];
    const BAD_DESCRIPTOR: i32 = 8;
    assert_eq!(run(&read, settings()), StopReason::PowerOff(BAD_DESCRIPTOR), "nothing was given");
    assert_eq!(run(&read, with(Permissions { read: path.clone(), ..Permissions::default() })), StopReason::PowerOff(0));
    let refused = run(&create, with(Permissions { read: path.clone(), ..Permissions::default() }));
    assert!(matches!(refused, StopReason::PowerOff(status) if status != 0), "{refused:?}");
    assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), b"hello");
    assert_eq!(run(&create, with(Permissions { write: path, ..Permissions::default() })), StopReason::PowerOff(0));
    assert_eq!(std::fs::read(folder.path().join("file")).unwrap(), b"", "truncated by the guest");
    let nowhere = with(Permissions { read: vec!["/no/such/directory".into()], ..Permissions::default() });
    assert!(fault(run(&read, nowhere)).contains("/no/such/directory"));
}

#[test]
fn functions_are_called_by_name() {
    let text = r#"(module (func (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1))))"#;
    let call = |arguments: &[&str]| Settings {
        invoke: Some("div".into()),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        ..settings()
    };
    assert_eq!(run(text, call(&["test", "84", "2"])), StopReason::PowerOff(0));
    assert!(fault(run(text, call(&["test", "1", "0"]))).starts_with("integer divide by zero"));
    assert_eq!(fault(run(text, call(&["test", "1"]))), "'div' takes 2 arguments, not 1");
    assert_eq!(fault(run(text, call(&["test", "1", "x"]))), "'x' is no i32 for 'div'");
    assert!(fault(run(text, settings())).contains("it exports div"));
}

#[test]
fn a_component_runs() {
    // The world of commands, by hand: `run` answers ok.
    let text = r#"(component
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run-interface (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run-interface)))"#;
    assert_eq!(run(text, settings()), StopReason::PowerOff(0));
    assert_eq!(run(&text.replace("i32.const 0", "i32.const 1"), settings()), StopReason::PowerOff(1));
}

#[test]
fn what_is_no_program_is_refused_in_one_line() {
    let host = Host::new(None).unwrap();
    let load = |bytes: &[u8]| match Program::from_bytes(&host, "x", bytes) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    };
    for bytes in
        [&b""[..], b"\0asm", b"\0asm\x01\0\0\0\xff", b"\0asm\x0d\0\x01\0\x07", b"(module", b"hello", b"\x7fELF"]
    {
        let line = load(bytes);
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = Program::load(&host, &folder.path().join("none.wasm"));
    assert!(matches!(missing, Err(LoadError::Read(_))));
}

#[test]
fn the_cache_gives_the_same_program() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 7))))"#;
    for _ in 0..3 {
        let host = Host::new(Some(Cache::new(folder.path().to_owned()))).unwrap();
        let program = Program::from_bytes(&host, "x", text.as_bytes()).unwrap();
        let process = Process::new(program, settings()).unwrap();
        process.start().unwrap();
        assert_eq!(process.wait(), StopReason::PowerOff(7));
    }
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1);
}

//! Snapshots of modules: all state comes back, and nothing else is touched.

use std::fs;
use std::path::Path;
use std::time::Instant;

use machine::lifecycle::{Machine, StopReason};
use machine::snapshot::{Identity, Snapshot, Writer};
use wasm::{Host, LoadError, Process, Program, Settings};

/// All kinds of state, each changed by `init`. `check` exits with 1 if all is as `init` left it, else with what is not; `spoil` changes it again.
const ALL: &str = r#"(module
    (type $answer (func (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory $m (export "memory") 1) (memory $second 0 8) (data (i32.const 0) "fresh")
    (table $t 4 20 funcref) (table $objects 2 externref) (elem (table $t) (i32.const 0) func $one)
    (elem declare func $two)
    (global $i (mut i32) (i32.const 0)) (global $l (mut i64) (i64.const 0)) (global $f (mut f32) (f32.const 0))
    (global $d (mut f64) (f64.const 0)) (global $v (mut v128) (v128.const i64x2 0 0)) (global $r (mut funcref) (ref.null func))
    (global $o (mut externref) (ref.null extern)) (global $constant i32 (i32.const 7)) (global $starts (mut i32) (i32.const 0))
    (start $start)
    (func $start (global.set $starts (i32.add (global.get $starts) (i32.const 1))))
    (func $one (result i32) (i32.const 1))
    (func $two (result i32) (i32.const 2))
    (func (export "init")
        (global.set $i (i32.const -5)) (global.set $l (i64.const -6)) (global.set $f (f32.const -0.0)) (global.set $d (f64.const nan:0x8000000000001))
        (global.set $v (v128.const i64x2 1 -2)) (global.set $r (ref.func $two))
        (drop (memory.grow $m (i32.const 99))) (drop (memory.grow $second (i32.const 2)))
        (i32.store8 (i32.const 4) (i32.const 33)) (i64.store (i32.const 6553592) (i64.const 0x1122334455667788))
        (i32.store8 $second (i32.const 70000) (i32.const 44))
        (drop (table.grow $t (ref.func $one) (i32.const 6))) (table.set $t (i32.const 0) (ref.null func)) (table.set $t (i32.const 9) (ref.func $two)))
    (func (export "spoil") (global.set $i (i32.const 1)) (i32.store8 (i32.const 4) (i32.const 1)) (table.set $t (i32.const 9) (ref.null func)))
    (func (export "check") (call $exit (call $all)))
    (func $all (result i32)
        (if (i32.ne (global.get $i) (i32.const -5)) (then (return (i32.const 100))))
        (if (i64.ne (global.get $l) (i64.const -6)) (then (return (i32.const 101))))
        (if (i32.ne (i32.reinterpret_f32 (global.get $f)) (i32.const 0x80000000)) (then (return (i32.const 102))))
        (if (i64.ne (i64.reinterpret_f64 (global.get $d)) (i64.const 0x7ff8000000000001)) (then (return (i32.const 103))))
        (if (i64.ne (i64x2.extract_lane 1 (global.get $v)) (i64.const -2)) (then (return (i32.const 104))))
        (if (i32.ne (memory.size $m) (i32.const 100)) (then (return (i32.const 105))))
        (if (i32.ne (memory.size $second) (i32.const 2)) (then (return (i32.const 106))))
        (if (i32.ne (i32.load8_u (i32.const 4)) (i32.const 33)) (then (return (i32.const 107))))
        (if (i32.ne (i32.load8_u (i32.const 0)) (i32.const 102)) (then (return (i32.const 108))))
        (if (i64.ne (i64.load (i32.const 6553592)) (i64.const 0x1122334455667788)) (then (return (i32.const 109))))
        (if (i32.ne (i32.load8_u $second (i32.const 70000)) (i32.const 44)) (then (return (i32.const 110))))
        (if (i32.ne (table.size $t) (i32.const 10)) (then (return (i32.const 111))))
        (if (i32.eqz (ref.is_null (table.get $t (i32.const 0)))) (then (return (i32.const 112))))
        (if (i32.ne (call_indirect $t (type $answer) (i32.const 8)) (i32.const 1)) (then (return (i32.const 113))))
        (if (i32.ne (call_indirect $t (type $answer) (i32.const 9)) (i32.const 2)) (then (return (i32.const 114))))
        (if (i32.eqz (ref.is_null (global.get $o))) (then (return (i32.const 115))))
        (if (i32.ne (global.get $starts) (i32.const 1)) (then (return (i32.const 116))))
        (table.set $t (i32.const 3) (global.get $r))
        (if (i32.ne (call_indirect $t (type $answer) (i32.const 3)) (i32.const 2)) (then (return (i32.const 117))))
        (drop (memory.grow $m (i32.const 1)))
        (if (i32.load (i32.const 6553600)) (then (return (i32.const 118))))
        (i32.const 1)))"#;

fn host() -> Host {
    Host::new(None).unwrap()
}

fn run(program: Program, function: &str, snapshot: Option<&Path>, memory_bytes: u64) -> StopReason {
    let settings = Settings {
        arguments: vec!["test".into()],
        memory_bytes,
        invoke: Some(function.into()),
        snapshot: snapshot.map(Into::into),
        ..Settings::default()
    };
    let process = Process::new(program, settings).unwrap();
    process.start().unwrap();
    process.wait()
}

fn file(folder: &Path, text: &str) -> std::path::PathBuf {
    let path = folder.join("all.wat");
    fs::write(&path, text).unwrap();
    path
}

const ROOM: u64 = 64 << 20;

#[test]
fn all_state_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, saved) = (file(folder.path(), ALL), folder.path().join("saved"));
    let program = Program::load_for_snapshots(&host(), &path).unwrap();
    assert_eq!(run(program, "init", Some(&saved), ROOM), StopReason::PowerOff(0));
    // As often as one likes, whatever those before did to their own copies.
    for _ in 0..2 {
        assert_eq!(run(Program::restore(&host(), &saved).unwrap(), "spoil", None, ROOM), StopReason::PowerOff(0));
        assert_eq!(run(Program::restore(&host(), &saved).unwrap(), "check", None, ROOM), StopReason::PowerOff(1));
    }
    // A snapshot of what went on from a snapshot.
    let again = folder.path().join("again");
    assert_eq!(run(Program::restore(&host(), &saved).unwrap(), "spoil", Some(&again), ROOM), StopReason::PowerOff(0));
    assert_eq!(run(Program::restore(&host(), &again).unwrap(), "check", None, ROOM), StopReason::PowerOff(100));
    let (first, second) = (Snapshot::open(&saved).unwrap(), Snapshot::open(&again).unwrap());
    assert_eq!(second.header().parent, Some(first.header().machine));
    first.verify().unwrap();
    // Limits hold for what is restored, too.
    let reason = run(Program::restore(&host(), &saved).unwrap(), "check", None, 1 << 20);
    assert!(matches!(&reason, StopReason::Fault(_)), "{reason:?}");
}

#[test]
fn a_large_memory_costs_no_more_than_a_small_one() {
    let folder = tempfile::tempdir().unwrap();
    let text = |pages: u32| {
        format!(
            r#"(module (memory 1 65536) (func (export "fill") (drop (memory.grow (i32.const {pages})))
                (memory.fill (i32.const 0) (i32.const 1) (i32.const {})))
                (func (export "touch") (i32.store8 (i32.const 0) (i32.const 9))))"#,
            pages * 0x10000
        )
    };
    let room = 1 << 30;
    let mut times = Vec::new();
    for pages in [16, 8192] {
        let (path, saved) = (file(folder.path(), &text(pages)), folder.path().join(format!("saved-{pages}")));
        let program = Program::load_for_snapshots(&host(), &path).unwrap();
        assert_eq!(run(program, "fill", Some(&saved), room), StopReason::PowerOff(0));
        let program = Program::restore(&host(), &saved).unwrap();
        let fastest = (0..20).map(|_| {
            let begin = Instant::now();
            assert_eq!(run(program.clone(), "touch", None, room), StopReason::PowerOff(0));
            begin.elapsed()
        });
        times.push(fastest.min().unwrap());
    }
    // 512 MiB would take a tenth of a second to read.
    assert!(times[1] < times[0] * 4 + std::time::Duration::from_millis(20), "{times:?}");
}

#[test]
fn what_cannot_be_saved_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    let load = |text: &str| Program::load_for_snapshots(&host(), &file(folder.path(), text));
    assert!(matches!(load("(component)"), Err(LoadError::Invalid(_))));
    assert!(
        matches!(load("(module (data \"x\") (func (data.drop 0)))"), Err(LoadError::Invalid(why)) if why.contains("drops"))
    );
    assert!(matches!(load("(module (func (result i32)))"), Err(LoadError::Invalid(_))));
    let objects =
        r#"(module (table $t 1 anyref) (func (export "f") (table.set $t (i32.const 0) (ref.i31 (i32.const 1)))))"#;
    let reason = run(load(objects).unwrap(), "f", Some(&saved), ROOM);
    assert!(matches!(&reason, StopReason::Fault(why) if why.contains("references to objects")), "{reason:?}");
    let trap = r#"(module (func (export "f") unreachable))"#;
    assert!(matches!(run(load(trap).unwrap(), "f", Some(&saved), ROOM), StopReason::Fault(_)));
    assert!(!saved.exists(), "a call that did not return leaves no snapshot");
    fs::create_dir(&saved).unwrap();
    let reason = run(load(r#"(module (func (export "f")))"#).unwrap(), "f", Some(&saved), ROOM);
    assert!(matches!(&reason, StopReason::Fault(why) if why.contains("is there and is no snapshot")), "{reason:?}");
}

/// Every section, changed anywhere, with its checksum made right again: refused, or a guest like any other.
#[test]
fn forged_snapshots_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (path, saved, forged) = (file(folder.path(), ALL), folder.path().join("saved"), folder.path().join("forged"));
    let program = Program::load_for_snapshots(&host(), &path).unwrap();
    assert_eq!(run(program, "init", Some(&saved), ROOM), StopReason::PowerOff(0));
    let cache = wasm::Cache::new(folder.path().join("cache"));
    let host = Host::new(Some(cache)).unwrap();
    let right = Snapshot::open(&saved).unwrap();
    let mut refused = 0;
    for victim in ["globals", "tables"] {
        let length =
            usize::try_from(right.header().sections.iter().find(|s| s.name == victim).unwrap().length).unwrap();
        for at in 0..length {
            let mut parts = right.parts();
            let mut writer = Writer::create(&forged, "wasm", Identity(1), None).unwrap();
            for section in &right.header().sections {
                let mut content = parts.section(&section.name, 1).unwrap();
                if section.name == victim {
                    content[at] ^= 0x81;
                }
                writer.section(&section.name, 1, &content).unwrap();
            }
            for memory in &right.header().memories {
                writer.memory(&memory.name, memory.length, |_, _| Ok(())).unwrap();
            }
            writer.finish().unwrap();
            match run(Program::restore(&host, &forged).unwrap(), "check", None, ROOM) {
                StopReason::Fault(_) => refused += 1,
                StopReason::PowerOff(status) => assert_ne!(status, 1),
                StopReason::Requested => panic!("nobody asked"),
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

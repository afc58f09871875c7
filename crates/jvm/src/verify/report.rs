//! The text of a VerifyError, in HotSpot's form: where, why, and what was known there.

use std::fmt::Write;

use classfile::mutf8::decode;
use classfile::opcode::Instruction;

use super::effects::Place;
use super::frame::Frame;
use super::stackmap::{self, MapFrame};
use super::types::{Names, Type};
use super::{Error, Problem};

/// The reason of what is wrong with the code, whatever the types.
const IN_CODE: &str = "Error exists in the bytecode";

/// What the problem of a method becomes: the error that the class is refused with.
pub(super) fn error<F>(
    place: &Place<'_>,
    names: &Names,
    problem: Problem<F>,
    at: u16,
    frame: Option<&Frame>,
) -> Error<F> {
    match problem {
        Problem::Load(failure) => Error::Load(failure),
        Problem::Format(message) => Error::Format(message),
        Problem::Verify { message, .. } if place.old => Error::Verify(format!(
            "(class: {}, method: {} signature: {}) {message}",
            decode(place.class.name),
            decode(place.method.name),
            decode(place.method.descriptor)
        )),
        Problem::Verify { message, reason, stackmap } => {
            let mut text = message;
            details(&mut text, place, names, at, reason, frame, stackmap.as_deref());
            Error::Verify(text)
        }
    }
}

fn details(
    text: &mut String,
    place: &Place<'_>,
    names: &Names,
    at: u16,
    reason: Option<String>,
    frame: Option<&Frame>,
    stackmap: Option<&MapFrame>,
) {
    let mnemonic = Instruction::decode(place.code.bytes, at).map_or("<illegal>", |found| found.opcode.mnemonic());
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        "\nException Details:\n  Location:\n    {}.{}{} @{at}: {mnemonic}\n  Reason:\n    {}\n",
        decode(place.class.name),
        decode(place.method.name),
        decode(place.method.descriptor),
        reason.as_deref().unwrap_or(IN_CODE)
    );
    // What is wrong with the code alone is so with any frame.
    let frame = frame.filter(|_| reason.as_deref().is_some_and(|reason| reason != IN_CODE));
    let expected = stackmap.map(|map| ("Stackmap Frame", map.offset, &map.frame));
    for (title, at, frame) in frame.map(|frame| ("Current Frame", at, frame)).into_iter().chain(expected) {
        let flags = if frame.this_uninitialized { " flagThisUninit " } else { " " };
        let _ = write!(
            text,
            "  {title}:\n    bci: @{at}\n    flags: {{{flags}}}\n    locals: {{{}}}\n    stack: {{{}}}\n",
            slots(names, &frame.locals),
            slots(names, &frame.stack)
        );
    }
    text.push_str("  Bytecode:\n");
    for (row, bytes) in place.code.bytes.chunks(16).enumerate() {
        let hex = |pair: &[u8]| pair.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let pairs: Vec<String> = bytes.chunks(2).map(hex).collect();
        let _ = writeln!(text, "    {:07x}: {:39}", row * 16, pairs.join(" "));
    }
    if !place.code.handlers.is_empty() {
        text.push_str("  Exception Handler Table:\n");
    }
    for range in place.code.handlers.iter() {
        let _ = writeln!(text, "    bci [{}, {}] => handler: {}", range.start, range.end, range.handler);
    }
    let maps = place.code.stack_map_table.map(stackmap::describe).unwrap_or_default();
    if !maps.is_empty() {
        text.push_str("  Stackmap Table:\n");
    }
    for map in maps {
        let _ = writeln!(text, "    {map}");
    }
}

/// The types of slots, without those behind the last that has one.
fn slots(names: &Names, all: &[Type]) -> String {
    let used = all.iter().rposition(|&slot| slot != Type::Top).map_or(0, |last| last + 1);
    let described: Vec<String> = all[..used].iter().map(|&slot| names.describe(slot)).collect();
    if described.is_empty() { " ".into() } else { format!(" {} ", described.join(", ")) }
}

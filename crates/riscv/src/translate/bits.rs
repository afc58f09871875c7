//! Not translated yet: left to the interpreter's handlers.

use super::emit::Emitter;
use crate::isa::Instruction;

/// Emits one of this module's instructions; false if it is none.
pub(super) fn emit(_: &mut Emitter<'_>, _: &Instruction) -> bool {
    false
}

//! What instructions do to the slots of a frame.

use classfile::opcode::{Instruction, Opcode};

use super::Constants;

/// What is in a slot: [`OTHER`], [`REFERENCE`], or [`RETURN`] plus an offset in the code.
pub(super) type Cell = u32;
/// No reference, or nothing that may be used.
pub(super) const OTHER: Cell = 0;
/// A reference.
pub(super) const REFERENCE: Cell = 1;
/// A return address.
pub(super) const RETURN: Cell = 2;

/// The slots of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) locals: Vec<Cell>,
    pub(super) stack: Vec<Cell>,
}

impl State {
    fn push(&mut self, cell: Cell) {
        self.stack.push(cell);
    }

    fn push_others(&mut self, count: usize) {
        self.stack.extend(std::iter::repeat_n(OTHER, count));
    }

    /// What the verifier accepted does not pop from an empty stack.
    fn pop(&mut self) -> Cell {
        self.stack.pop().unwrap_or(OTHER)
    }

    fn drop(&mut self, count: usize) {
        self.stack.truncate(self.stack.len().saturating_sub(count));
    }

    fn replace(&mut self, popped: usize, pushed: usize) {
        self.drop(popped);
        self.push_others(pushed);
    }

    /// Pushes a value of the type that a descriptor begins with.
    fn push_type(&mut self, descriptor: &[u8]) {
        match descriptor.first() {
            Some(b'L' | b'[') => self.push(REFERENCE),
            Some(b'J' | b'D') => self.push_others(2),
            Some(b'V') | None => {}
            Some(_) => self.push_others(1),
        }
    }

    /// Copies the uppermost `count` cells below `skipped` more.
    fn duplicate(&mut self, count: usize, skipped: usize) {
        if let Some(start) = self.stack.len().checked_sub(count + skipped) {
            for index in 0..count {
                let cell = self.stack[start + skipped + 2 * index];
                self.stack.insert(start + index, cell);
            }
        }
    }

    fn set_local(&mut self, index: u16, cell: Cell) {
        if let Some(local) = self.locals.get_mut(usize::from(index)) {
            *local = cell;
        }
    }
}

/// Calls `visit` for each argument of a method's descriptor: whether it is a reference, and how many slots it takes; the rest is the type of the result.
pub(super) fn arguments(descriptor: &[u8], mut visit: impl FnMut(bool, usize)) -> &[u8] {
    let mut rest = descriptor.strip_prefix(b"(").unwrap_or_default();
    loop {
        match rest.first() {
            None => return rest,
            Some(b')') => return &rest[1..],
            Some(b'J' | b'D') => visit(false, 2),
            Some(b'L' | b'[') => {
                visit(true, 1);
                let element = rest.iter().position(|&byte| byte != b'[').unwrap_or(rest.len());
                rest = &rest[element..];
                if rest.first() == Some(&b'L') {
                    let end = rest.iter().position(|&byte| byte == b';').unwrap_or(rest.len() - 1);
                    rest = &rest[end..];
                }
            }
            Some(_) => visit(false, 1),
        }
        rest = rest.get(1..).unwrap_or_default();
    }
}

/// The slots that the value of a field takes.
fn slots(descriptor: &[u8]) -> usize {
    if matches!(descriptor.first(), Some(b'J' | b'D')) { 2 } else { 1 }
}

/// Applies an instruction, but for where it goes. `jsr` has pushed its return address.
#[allow(clippy::too_many_lines, reason = "a table")]
pub(super) fn apply(state: &mut State, instruction: &Instruction<'_>, constants: &impl Constants) {
    use Opcode as O;
    let opcode = instruction.opcode;
    let byte = opcode as u8;
    let constant = instruction.constant().unwrap_or_default();
    // Kinds of values in the order of opcodes: int, long, float, double, reference.
    let wide = |kind: u8| if kind == 1 || kind == 3 { 2 } else { 1 };
    match opcode {
        O::Nop | O::IInc | O::Goto | O::GotoW | O::Return | O::Ret | O::CheckCast | O::Wide => {}
        O::AConstNull | O::New => state.push(REFERENCE),
        O::LConst0 | O::LConst1 | O::DConst0 | O::DConst1 | O::Ldc2W => state.push_others(2),
        _ if byte <= O::SiPush as u8 => state.push_others(1),
        O::Ldc | O::LdcW => state.push(if constants.is_reference(constant) { REFERENCE } else { OTHER }),
        _ if byte <= O::ALoad3 as u8 => {
            let kind = if byte < 0x1A { byte - 0x15 } else { (byte - 0x1A) / 4 };
            if kind == 4 {
                state.push(REFERENCE);
            } else {
                state.push_others(wide(kind));
            }
        }
        O::AALoad => {
            state.drop(2);
            state.push(REFERENCE);
        }
        _ if byte <= O::SALoad as u8 => state.replace(2, wide(byte - 0x2E)),
        _ if byte <= O::AStore3 as u8 => {
            let kind = if byte < 0x3B { byte - 0x36 } else { (byte - 0x3B) / 4 };
            let index = instruction.local().unwrap_or_default();
            if wide(kind) == 2 {
                state.drop(2);
                state.set_local(index, OTHER);
                state.set_local(index.saturating_add(1), OTHER);
            } else {
                let cell = state.pop();
                state.set_local(index, cell);
            }
        }
        _ if byte <= O::SAStore as u8 => state.drop(2 + wide(byte - 0x4F)),
        O::Pop => state.drop(1),
        O::Pop2 => state.drop(2),
        O::Dup => state.duplicate(1, 0),
        O::DupX1 => state.duplicate(1, 1),
        O::DupX2 => state.duplicate(1, 2),
        O::Dup2 => state.duplicate(2, 0),
        O::Dup2X1 => state.duplicate(2, 1),
        O::Dup2X2 => state.duplicate(2, 2),
        O::Swap => {
            let (a, b) = (state.pop(), state.pop());
            state.push(a);
            state.push(b);
        }
        _ if byte <= O::DRem as u8 => {
            let width = wide((byte - 0x60) % 4);
            state.replace(2 * width, width);
        }
        O::INeg | O::LNeg | O::FNeg | O::DNeg => {}
        O::IShl | O::IShr | O::IUShr => state.replace(2, 1),
        O::LShl | O::LShr | O::LUShr => state.replace(3, 2),
        O::IAnd | O::IOr | O::IXor => state.replace(2, 1),
        O::LAnd | O::LOr | O::LXor => state.replace(4, 2),
        O::I2L | O::I2D | O::F2L | O::F2D => state.replace(1, 2),
        O::L2I | O::L2F | O::D2I | O::D2F => state.replace(2, 1),
        _ if byte <= O::I2S as u8 => {}
        O::LCmp | O::DCmpL | O::DCmpG => state.replace(4, 1),
        O::FCmpL | O::FCmpG => state.replace(2, 1),
        _ if byte <= O::IfLe as u8 => state.drop(1),
        _ if byte <= O::IfACmpNe as u8 => state.drop(2),
        O::Jsr | O::JsrW => state.push(RETURN + instruction.end()),
        O::TableSwitch | O::LookupSwitch | O::IfNull | O::IfNonNull | O::MonitorEnter | O::MonitorExit => state.drop(1),
        O::IReturn | O::FReturn | O::AReturn | O::AThrow => state.drop(1),
        O::LReturn | O::DReturn => state.drop(2),
        O::GetStatic => state.push_type(constants.descriptor(constant, false)),
        O::PutStatic => state.drop(slots(constants.descriptor(constant, false))),
        O::GetField => {
            state.drop(1);
            state.push_type(constants.descriptor(constant, false));
        }
        O::PutField => state.drop(1 + slots(constants.descriptor(constant, false))),
        O::InvokeVirtual | O::InvokeSpecial | O::InvokeStatic | O::InvokeInterface | O::InvokeDynamic => {
            let descriptor = constants.descriptor(constant, opcode == O::InvokeDynamic);
            let mut count = usize::from(!matches!(opcode, O::InvokeStatic | O::InvokeDynamic));
            let result = arguments(descriptor, |_, slots| count += slots);
            state.drop(count);
            state.push_type(result);
        }
        O::NewArray | O::ANewArray => {
            state.drop(1);
            state.push(REFERENCE);
        }
        O::ArrayLength | O::InstanceOf => state.replace(1, 1),
        O::MultiANewArray => {
            state.drop(usize::from(instruction.bytes.get(3).copied().unwrap_or_default()));
            state.push(REFERENCE);
        }
        _ => {}
    }
}

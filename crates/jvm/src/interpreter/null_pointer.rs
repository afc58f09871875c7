//! Helpful messages of NullPointerException (JEP 358): which instruction could not be done, and which expression was null.
//!
//! ```text
//! method, instruction --simulate the method's code--> for each operand, the instruction that pushed it
//!                     --instruction-->  Cannot invoke "String.length()"
//!                     --its source, and the sources of that-->  because "a.b[i]" is null
//! ```
//!
//! The code is that of the class file. Where ways join, an operand that different instructions pushed has no source, and nothing is said of it.
//! Cost: nothing until a message is asked for; then about the method's length.

use classfile::opcode::{Instruction, Opcode};
use classfile::{ClassFile, Code, Options};

use crate::arena::Meta;
use crate::metadata::{BasicType, Method};

/// So many sources are followed.
const DETAIL: u32 = 5;

/// What is known of a frame before an instruction.
#[derive(Clone, Debug, PartialEq)]
struct State {
    /// The instruction that pushed each operand.
    stack: Vec<Option<u16>>,
    /// Local variables that were written; a bit for each of the first 64.
    written: u64,
}

/// A method that is looked at.
struct Message<'a> {
    file: &'a ClassFile<'a>,
    method: &'a classfile::Method<'a>,
    code: &'a Code<'a>,
    states: Vec<Option<State>>,
}

/// The message of a NullPointerException that an instruction threw; `None` if a program made it, or nothing is known.
pub(crate) fn message(method: Meta<Method>, bci: u16) -> Option<String> {
    let class = method.class;
    if class.name.bytes() == b"jdk/internal/reflect/NativeConstructorAccessorImpl" {
        return None;
    }
    let (start, length) = class.class_file;
    if length == 0 {
        return None;
    }
    // SAFETY: the class's file is in its loader's part of the arena or in the mapped image, as long as the class, and is never written.
    let bytes = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), length) };
    let options = Options { name: None, preview: class.minor_version == u16::MAX };
    let file = ClassFile::parse(bytes, options).ok()?;
    let same = |found: &&classfile::Method<'_>| {
        found.name == method.name.bytes() && found.descriptor == method.descriptor.bytes()
    };
    let found = file.methods.iter().find(same)?;
    let code = found.code.as_ref()?;
    let mut message = Message { file: &file, method: found, code, states: vec![None; code.bytes.len()] };
    message.simulate();
    let mut text = String::new();
    let instruction = Instruction::decode(code.bytes, bci).ok()?;
    let depth = message.null_depth(&instruction)?;
    message.failed_action(&instruction, &mut text)?;
    let mut cause = String::new();
    if message.source(bci, depth, DETAIL, false, true, &mut cause) {
        text += &cause;
        text += "\" is null";
    }
    Some(text)
}

/// Classes that everybody knows are written without their package.
fn well_known(name: &str) -> &str {
    match name {
        "java.lang.Object" => "Object",
        "java.lang.String" => "String",
        other => other,
    }
}

fn class_text(name: &[u8]) -> String {
    if name.first() == Some(&b'[') {
        return type_text(name);
    }
    well_known(&classfile::mutf8::decode(name).replace('/', ".")).to_owned()
}

fn type_text(descriptor: &[u8]) -> String {
    let dimensions = descriptor.iter().take_while(|&&byte| byte == b'[').count();
    let base = match &descriptor[dimensions..] {
        [b'L', name @ .., b';'] => class_text(name),
        [letter, ..] => BasicType::of(*letter).name().to_owned(),
        [] => String::new(),
    };
    base + &"[]".repeat(dimensions)
}

/// Slots of a field's value.
fn slots(descriptor: &[u8]) -> usize {
    if matches!(descriptor.first(), Some(b'J' | b'D')) { 2 } else { 1 }
}

/// The kind of value of a group of opcodes: int, long, float, double, reference, byte, char, short.
fn array_kind(opcode: Opcode, first: Opcode) -> &'static str {
    ["int", "long", "float", "double", "object", "byte/boolean", "char", "short"]
        .get(usize::from((opcode as u8).wrapping_sub(first as u8)))
        .copied()
        .unwrap_or_default()
}

impl Message<'_> {
    fn member(&self, instruction: &Instruction<'_>) -> (&[u8], &[u8], &[u8]) {
        let member = instruction.constant().and_then(|index| self.file.constants.member(index));
        member.map_or((b"", b"", b""), |member| (member.class, member.name, member.descriptor))
    }

    /// Finds the state before each instruction.
    fn simulate(&mut self) {
        let first = State { stack: Vec::new(), written: 0 };
        let mut work = Vec::new();
        self.flow(0, &first, &mut work);
        for range in self.code.handlers.iter() {
            let caught = State { stack: vec![Some(range.handler)], written: 0 };
            self.flow(usize::from(range.handler), &caught, &mut work);
        }
        while let Some(bci) = work.pop() {
            let Some(Some(state)) = self.states.get(bci) else { continue };
            let mut state = state.clone();
            let Ok(offset) = u16::try_from(bci) else { continue };
            let Ok(instruction) = Instruction::decode(self.code.bytes, offset) else { continue };
            self.apply(&instruction, &mut state);
            let mut targets: Vec<i64> = instruction.branch().into_iter().collect();
            if let Some(switch) = instruction.switch() {
                targets.push(switch.default);
                targets.extend(switch.cases().map(|(_, target)| target));
            }
            for target in targets.into_iter().filter_map(|target| usize::try_from(target).ok()) {
                self.flow(target, &state, &mut work);
            }
            use Opcode as O;
            if !matches!(instruction.opcode, O::Goto | O::GotoW | O::AThrow | O::Ret | O::TableSwitch | O::LookupSwitch)
                && !(O::IReturn as u8..=O::Return as u8).contains(&(instruction.opcode as u8))
            {
                self.flow(instruction.end() as usize, &state, &mut work);
            }
        }
    }

    /// Joins a state with that before an instruction.
    fn flow(&mut self, target: usize, state: &State, work: &mut Vec<usize>) {
        let Some(known) = self.states.get_mut(target) else { return };
        let Some(old) = known else {
            *known = Some(state.clone());
            work.push(target);
            return;
        };
        let mut new = old.clone();
        new.written |= state.written;
        for (source, other) in new.stack.iter_mut().zip(&state.stack) {
            if source != other {
                *source = None;
            }
        }
        if new != *old {
            *old = new;
            work.push(target);
        }
    }

    fn apply(&self, instruction: &Instruction<'_>, state: &mut State) {
        use Opcode as O;
        let opcode = instruction.opcode;
        let byte = opcode as u8;
        let (_, _, descriptor) = self.member(instruction);
        let own = Some(instruction.offset);
        let wide = |kind: u8| if kind == 1 || kind == 3 { 2 } else { 1 };
        let duplicate = |state: &mut State, count: usize, skipped: usize| {
            if let Some(start) = state.stack.len().checked_sub(count + skipped) {
                let top: Vec<_> = state.stack[start + skipped..].to_vec();
                state.stack.splice(start..start, top);
            }
        };
        let within = |low: O, high: O| (low as u8..=high as u8).contains(&byte);
        let (popped, pushed): (usize, usize) = match opcode {
            O::Dup => return duplicate(state, 1, 0),
            O::DupX1 => return duplicate(state, 1, 1),
            O::DupX2 => return duplicate(state, 1, 2),
            O::Dup2 => return duplicate(state, 2, 0),
            O::Dup2X1 => return duplicate(state, 2, 1),
            O::Dup2X2 => return duplicate(state, 2, 2),
            O::Swap => {
                if let [.., a, b] = state.stack.as_mut_slice() {
                    std::mem::swap(a, b);
                }
                return;
            }
            O::Nop | O::CheckCast | O::Goto | O::GotoW | O::Ret | O::Return | O::Wide => (0, 0),
            O::IInc => {
                write(instruction, state);
                (0, 0)
            }
            O::LConst0 | O::LConst1 | O::DConst0 | O::DConst1 | O::Ldc2W => (0, 2),
            _ if byte <= O::LdcW as u8 => (0, 1),
            _ if within(O::ILoad, O::ALoad) => (0, wide(byte - O::ILoad as u8)),
            _ if within(O::ILoad0, O::ALoad3) => (0, wide((byte - O::ILoad0 as u8) / 4)),
            _ if within(O::IALoad, O::SALoad) => (2, wide(byte - O::IALoad as u8)),
            _ if within(O::IStore, O::AStore3) => {
                write(instruction, state);
                let kind = if byte < O::IStore0 as u8 { byte - O::IStore as u8 } else { (byte - O::IStore0 as u8) / 4 };
                (wide(kind), 0)
            }
            _ if within(O::IAStore, O::SAStore) => (2 + wide(byte - O::IAStore as u8), 0),
            O::Pop => (1, 0),
            O::Pop2 => (2, 0),
            _ if within(O::IAdd, O::DRem) => {
                let size = wide((byte - O::IAdd as u8) % 4);
                (2 * size, size)
            }
            _ if within(O::INeg, O::DNeg) => {
                let size = wide(byte - O::INeg as u8);
                (size, size)
            }
            O::LShl | O::LShr | O::LUShr => (3, 2),
            O::IShl | O::IShr | O::IUShr | O::IAnd | O::IOr | O::IXor => (2, 1),
            O::LAnd | O::LOr | O::LXor => (4, 2),
            O::I2L | O::I2D | O::F2L | O::F2D => (1, 2),
            O::L2I | O::L2F | O::D2I | O::D2F => (2, 1),
            O::L2D | O::D2L => (2, 2),
            _ if within(O::I2F, O::I2S) => (1, 1),
            O::LCmp | O::DCmpL | O::DCmpG => (4, 1),
            O::FCmpL | O::FCmpG => (2, 1),
            _ if within(O::IfEq, O::IfLe) => (1, 0),
            _ if within(O::IfICmpEq, O::IfACmpNe) => (2, 0),
            O::Jsr | O::JsrW => (0, 1),
            O::LReturn | O::DReturn => (2, 0),
            O::TableSwitch | O::LookupSwitch | O::IReturn | O::FReturn | O::AReturn => (1, 0),
            O::GetStatic => (0, slots(descriptor)),
            O::PutStatic => (slots(descriptor), 0),
            O::GetField => (1, slots(descriptor)),
            O::PutField => (1 + slots(descriptor), 0),
            O::InvokeVirtual | O::InvokeSpecial | O::InvokeInterface | O::InvokeStatic => {
                let receiver = usize::from(opcode != O::InvokeStatic);
                let (arguments, result) = call_slots(descriptor);
                (arguments + receiver, result)
            }
            O::InvokeDynamic => {
                let dynamic = instruction.constant().and_then(|index| self.file.constants.dynamic(index));
                call_slots(dynamic.map_or(b"()V", |(_, descriptor)| descriptor))
            }
            O::New => (0, 1),
            O::NewArray | O::ANewArray | O::ArrayLength | O::InstanceOf => (1, 1),
            O::MultiANewArray => (usize::from(instruction.bytes.last().copied().unwrap_or(1)), 1),
            // athrow, monitorenter, monitorexit, ifnull, ifnonnull
            _ => (1, 0),
        };
        state.stack.truncate(state.stack.len().saturating_sub(popped));
        state.stack.extend(std::iter::repeat_n(own, pushed));
    }

    /// How far below the top the operand is that must not be null.
    fn null_depth(&self, instruction: &Instruction<'_>) -> Option<usize> {
        use Opcode as O;
        let (_, name, descriptor) = self.member(instruction);
        Some(match instruction.opcode {
            O::LAStore | O::DAStore => 3,
            O::IAStore | O::FAStore | O::AAStore | O::BAStore | O::CAStore | O::SAStore => 2,
            O::IALoad | O::LALoad | O::FALoad | O::DALoad | O::AALoad | O::BALoad | O::CALoad | O::SALoad => 1,
            O::ArrayLength | O::AThrow | O::MonitorEnter | O::MonitorExit | O::GetField => 0,
            O::PutField => slots(descriptor),
            // A constructor is called for what is new: a program has made the exception.
            O::InvokeVirtual | O::InvokeSpecial | O::InvokeInterface if name != b"<init>" => call_slots(descriptor).0,
            _ => return None,
        })
    }

    fn failed_action(&self, instruction: &Instruction<'_>, text: &mut String) -> Option<()> {
        use Opcode as O;
        let (_, name, _) = self.member(instruction);
        let opcode = instruction.opcode;
        let byte = opcode as u8;
        let action = match opcode {
            _ if (O::IALoad as u8..=O::SALoad as u8).contains(&byte) => {
                format!("Cannot load from {} array", array_kind(opcode, O::IALoad))
            }
            _ if (O::IAStore as u8..=O::SAStore as u8).contains(&byte) => {
                format!("Cannot store to {} array", array_kind(opcode, O::IAStore))
            }
            O::ArrayLength => "Cannot read the array length".into(),
            O::AThrow => "Cannot throw exception".into(),
            O::MonitorEnter => "Cannot enter synchronized block".into(),
            O::MonitorExit => "Cannot exit synchronized block".into(),
            O::GetField => format!("Cannot read field \"{}\"", classfile::mutf8::decode(name)),
            O::PutField => format!("Cannot assign field \"{}\"", classfile::mutf8::decode(name)),
            O::InvokeVirtual | O::InvokeSpecial | O::InvokeInterface => {
                format!("Cannot invoke \"{}\"", self.method_text(instruction))
            }
            _ => return None,
        };
        text.push_str(&action);
        Some(())
    }

    fn method_text(&self, instruction: &Instruction<'_>) -> String {
        let (class, name, descriptor) = self.member(instruction);
        let parameters: Vec<String> = classfile::names::MethodType::parse(descriptor)
            .map(|parsed| parsed.parameters().map(|parameter| type_text(parameter.descriptor)).collect())
            .unwrap_or_default();
        format!("{}.{}({})", class_text(class), classfile::mutf8::decode(name), parameters.join(", "))
    }

    /// Writes the expression that pushed an operand; whether something could be written.
    fn source(&self, bci: u16, depth: usize, detail: u32, inner: bool, prefix: bool, text: &mut String) -> bool {
        use Opcode as O;
        let Some(Some(state)) = self.states.get(usize::from(bci)).filter(|_| detail > 0) else { return false };
        let Some(index) = state.stack.len().checked_sub(depth + 1) else { return false };
        let Some(source) = state.stack[index] else { return false };
        let Ok(instruction) = Instruction::decode(self.code.bytes, source) else { return false };
        let opcode = instruction.opcode;
        let byte = opcode as u8;
        let call = matches!(opcode, O::InvokeVirtual | O::InvokeSpecial | O::InvokeStatic | O::InvokeInterface);
        if prefix && !call {
            text.push_str(" because \"");
        }
        let (class, name, _) = self.member(&instruction);
        let name = classfile::mutf8::decode(name);
        match opcode {
            O::ILoad | O::ALoad => self.local(source, &instruction, text),
            _ if (O::ILoad0 as u8..=O::ILoad3 as u8).contains(&byte)
                || (O::ALoad0 as u8..=O::ALoad3 as u8).contains(&byte) =>
            {
                self.local(source, &instruction, text);
            }
            O::AConstNull => text.push_str("null"),
            _ if (O::IConstM1 as u8..=O::IConst5 as u8).contains(&byte) => {
                text.push_str(&(i32::from(byte) - i32::from(O::IConst0 as u8)).to_string());
            }
            O::BiPush | O::SiPush => text.push_str(&instruction.immediate().to_string()),
            O::GetStatic => text.push_str(&format!("{}.{name}", class_text(class))),
            O::GetField => {
                if self.source(source, 0, detail - 1, inner, false, text) {
                    text.push('.');
                }
                text.push_str(&name);
            }
            O::IALoad | O::AALoad => {
                if !self.source(source, 1, detail - 1, inner, false, text) {
                    text.push_str("<array>");
                }
                text.push('[');
                if !self.source(source, 0, detail, true, false, text) {
                    text.push_str("...");
                }
                text.push(']');
            }
            _ if call => {
                if detail == DETAIL && !inner {
                    text.push_str(" because the return value of \"");
                }
                text.push_str(&self.method_text(&instruction));
            }
            _ => return false,
        }
        true
    }

    fn local(&self, bci: u16, instruction: &Instruction<'_>, text: &mut String) {
        let slot = instruction.local().unwrap_or_default();
        for variable in self.code.local_variables() {
            let end = u32::from(variable.start) + u32::from(variable.length);
            if variable.slot == slot && bci >= variable.start && u32::from(bci) < end {
                let name = self.file.constants.utf8(variable.name).unwrap_or_default();
                return text.push_str(&classfile::mutf8::decode(name));
            }
        }
        let written = match self.states.get(usize::from(bci)) {
            Some(Some(state)) => slot >= 64 || state.written >> slot & 1 != 0,
            _ => true,
        };
        let is_static = self.method.is_static();
        if !is_static && slot == 0 && !written {
            return text.push_str("this");
        }
        let mut current = u16::from(!is_static);
        let parsed = classfile::names::MethodType::parse(self.method.descriptor);
        for (number, parameter) in parsed.iter().flat_map(|parsed| parsed.parameters()).enumerate() {
            let size = parameter.slots();
            if (current..current + size).contains(&slot) && !written {
                return text.push_str(&format!("<parameter{}>", number + 1));
            }
            current += size;
        }
        text.push_str(&format!("<local{slot}>"));
    }
}

/// Slots of the arguments, without a receiver, and of the result.
fn call_slots(descriptor: &[u8]) -> (usize, usize) {
    classfile::names::MethodType::parse(descriptor).map_or((0, 0), |parsed| {
        let arguments = parsed.parameters().map(|parameter| usize::from(parameter.slots())).sum();
        (arguments, usize::from(parsed.returns().slots()))
    })
}

/// Notes that a local variable is written.
fn write(instruction: &Instruction<'_>, state: &mut State) {
    let slot = instruction.local().unwrap_or(u16::MAX);
    if slot < 64 {
        state.written |= 1 << slot;
        let byte = instruction.opcode as u8;
        let kind = byte.wrapping_sub(Opcode::IStore0 as u8) / 4;
        let wide = matches!(instruction.opcode, Opcode::LStore | Opcode::DStore)
            || (byte >= Opcode::IStore0 as u8 && (kind == 1 || kind == 3));
        if wide && slot < 63 {
            state.written |= 1 << (slot + 1);
        }
    }
}

//! Verification by type inference (JVMS 4.10.2), for class files that have no frames in them: data flow until nothing changes.
//!
//! ```text
//! waiting: instructions whose frame before changed
//!   take one; do it to a copy of its frame; merge what results into the frames of all that may follow
//! ```
//!
//! Subroutines (`jsr`, `ret`) are verified once for all callers: a frame keeps, for every subroutine that it is in, which local variables that
//! has touched. Behind a `jsr` those are as the `ret` leaves them, and the others as they were before the `jsr`.

use std::collections::BTreeSet;

use classfile::opcode::{Instruction, Malformed, Opcode};
use classfile::{ClassFile, Method};

use super::checking::{check_ranges, malformed, starts};
use super::effects::Place;
use super::frame::{Frame, State};
use super::types::{Names, Type};
use super::{Error, Hierarchy, Problem, report};

pub(super) fn verify<H: Hierarchy>(class: &ClassFile<'_>, hierarchy: &mut H) -> Result<(), Error<H::Failure>> {
    let mut names = Names::new();
    for method in &class.methods {
        let Some(code) = &method.code else { continue };
        let place = Place::new(&mut names, class, method, code, true);
        let mut flow = Flow {
            place,
            names: &mut names,
            hierarchy,
            before: vec![None; code.bytes.len()],
            waiting: BTreeSet::new(),
            returns: Vec::new(),
            at: 0,
        };
        let verdict = flow.run(method);
        let at = flow.at;
        verdict.map_err(|problem| report::error(&place, &names, problem, at, None))?;
    }
    Ok(())
}

/// A subroutine that code is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subroutine {
    /// Offset of its first instruction.
    entry: u16,
    /// By local variable: whether it was read or written since.
    touched: Vec<bool>,
}

/// What is known before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Before {
    frame: Frame,
    /// From the outermost in.
    subroutines: Vec<Subroutine>,
}

struct Flow<'f, 'a, H> {
    place: Place<'a>,
    names: &'f mut Names,
    hierarchy: &'f mut H,
    /// By offset in the code; `None` where no path leads, or no instruction begins.
    before: Vec<Option<Before>>,
    waiting: BTreeSet<u16>,
    /// Of each subroutine by its entry: the `ret` that ends it.
    returns: Vec<(u16, u16)>,
    at: u16,
}

impl<'a, H: Hierarchy> Flow<'_, 'a, H> {
    fn run(&mut self, method: &Method<'a>) -> Result<(), Problem<H::Failure>> {
        let code = self.place.code;
        for instruction in code.instructions() {
            if let Err((offset, why)) = instruction {
                return Err(Problem::new(match why {
                    Malformed::Truncated => {
                        format!("Code stops in the middle of instruction  starting at offset {offset}")
                    }
                    _ => format!("Illegal instruction found at offset {offset}"),
                }));
            }
        }
        let starts = starts(code).map_err(|(_, problem)| problem)?;
        check_ranges(self.place.class, code, &starts)?;
        self.check_static(&starts)?;
        self.check_catch_types()?;
        let is_object = self.place.class.name == b"java/lang/Object";
        let frame = Frame::initial(self.names, self.place.this, is_object, method, code.max_locals);
        self.before[0] = Some(Before { frame, subroutines: Vec::new() });
        self.waiting.insert(0);
        while let Some(offset) = self.waiting.pop_first() {
            self.at = offset;
            self.visit(offset)?;
        }
        Ok(())
    }

    /// What holds of instructions whether they are reached or not: branches go to instructions, constants have the right kinds.
    fn check_static(&mut self, starts: &[bool]) -> Result<(), Problem<H::Failure>> {
        let code = self.place.code;
        let is_start = |target: i64| usize::try_from(target).is_ok_and(|target| starts.get(target) == Some(&true));
        for instruction in code.instructions() {
            let instruction = instruction.map_err(|(_, why)| malformed(why))?;
            self.at = instruction.offset;
            if instruction.branch().is_some_and(|target| !is_start(target)) {
                return Err(Problem::new("Illegal target of jump or branch"));
            }
            if let Some(switch) = instruction.switch() {
                if instruction.padding().iter().any(|&byte| byte != 0) {
                    return Err(Problem::new("Non zero padding bytes in switch"));
                }
                if !is_start(switch.default) {
                    return Err(Problem::new("Illegal default target in switch"));
                }
                let mut last = None;
                for (key, target) in switch.cases() {
                    if last.is_some_and(|last| last >= key) {
                        return Err(Problem::new("Unsorted lookup switch"));
                    }
                    last = Some(key);
                    if !is_start(target) {
                        return Err(Problem::new("Illegal branch in tableswitch"));
                    }
                }
            }
            if let Some(local) = instruction.local() {
                let wide = is_wide(instruction.opcode);
                if usize::from(local) + usize::from(wide) >= usize::from(code.max_locals) {
                    return Err(Problem::new("Illegal local variable number"));
                }
            }
            self.check_constant(&instruction)?;
        }
        Ok(())
    }

    fn check_constant(&mut self, instruction: &Instruction<'a>) -> Result<(), Problem<H::Failure>> {
        use classfile::Constant as C;
        let Some(index) = instruction.constant() else { return Ok(()) };
        let class = self.place.class;
        let constant = class.constants.get(index);
        let fits = match instruction.opcode {
            Opcode::Ldc | Opcode::LdcW => match constant {
                C::Integer(_) | C::Float(_) | C::String(_) => true,
                C::Class(_) => class.major_version >= 49,
                _ => false,
            },
            Opcode::Ldc2W => matches!(constant, C::Long(_) | C::Double(_)),
            Opcode::GetField | Opcode::PutField | Opcode::GetStatic | Opcode::PutStatic => {
                matches!(constant, C::Field(_))
            }
            Opcode::InvokeVirtual | Opcode::InvokeSpecial | Opcode::InvokeStatic => matches!(constant, C::Method(_)),
            Opcode::InvokeInterface => matches!(constant, C::InterfaceMethod(_)),
            Opcode::New | Opcode::ANewArray | Opcode::CheckCast | Opcode::InstanceOf | Opcode::MultiANewArray => {
                matches!(constant, C::Class(_))
            }
            _ => return Err(Problem::new("invokedynamic bytecode is not supported in this class file version")),
        };
        if usize::from(index) >= class.constants.len() || index == 0 {
            return Err(Problem::new("Illegal constant pool index"));
        }
        if fits { Ok(()) } else { Err(Problem::new("Illegal type in constant pool")) }
    }

    fn check_catch_types(&mut self) -> Result<(), Problem<H::Failure>> {
        let throwable = self.names.reference(b"java/lang/Throwable");
        for range in self.place.code.handlers.iter().filter(|range| range.catch_type != 0) {
            let name = self.place.class.constants.class_name(range.catch_type).unwrap_or_default();
            let caught = self.names.reference(name);
            if !self.names.assignable(caught, throwable, false, self.hierarchy)? {
                return Err(Problem::new("catch_type not a subclass of Throwable"));
            }
        }
        Ok(())
    }

    fn visit(&mut self, offset: u16) -> Result<(), Problem<H::Failure>> {
        let code = self.place.code;
        let Some(before) = self.before[usize::from(offset)].clone() else { return Ok(()) };
        let instruction = Instruction::decode(code.bytes, offset).map_err(malformed)?;
        let mut after = before.clone();
        touch(&mut after.subroutines, &instruction);
        let mut state = State {
            frame: &mut after.frame,
            names: self.names,
            hierarchy: self.hierarchy,
            max_stack: usize::from(code.max_stack),
            old: true,
        };
        self.place.step(&mut state, &instruction)?;
        self.throw(&before, &after, &instruction)?;
        match instruction.opcode {
            Opcode::Jsr | Opcode::JsrW => {
                let target = instruction.branch().and_then(|target| u16::try_from(target).ok()).unwrap_or_default();
                if after.subroutines.iter().any(|subroutine| subroutine.entry == target) {
                    return Err(Problem::new("Recursive call to jsr entry"));
                }
                let touched = vec![false; usize::from(code.max_locals)];
                after.subroutines.push(Subroutine { entry: target, touched });
                // If the subroutine is known to return, what follows this call must be found out, too.
                if let Some(&(_, ret)) = self.returns.iter().find(|(entry, _)| *entry == target) {
                    self.waiting.insert(ret);
                }
                self.merge(target, after)
            }
            Opcode::Ret => self.return_from(&instruction, &after),
            _ => {
                if let Some(target) = instruction.branch() {
                    self.merge_target(target, &after)?;
                }
                if let Some(switch) = instruction.switch() {
                    self.merge_target(switch.default, &after)?;
                    for (_, target) in switch.cases() {
                        self.merge_target(target, &after)?;
                    }
                }
                if instruction.opcode.ends_block() {
                    return Ok(());
                }
                match u16::try_from(instruction.end()) {
                    Ok(next) if usize::from(next) < code.bytes.len() => self.merge(next, after),
                    _ => Err(Problem::new("Falling off the end of the code")),
                }
            }
        }
    }

    /// Merges into the handlers that cover the instruction: it may fail before or after it has had its effect on `this`.
    fn throw(
        &mut self,
        before: &Before,
        after: &Before,
        instruction: &Instruction<'a>,
    ) -> Result<(), Problem<H::Failure>> {
        let offset = instruction.offset;
        for range in self.place.code.handlers.iter().filter(|range| (range.start..range.end).contains(&offset)) {
            let caught = match range.catch_type {
                0 => self.names.reference(b"java/lang/Throwable"),
                index => {
                    let name = self.place.class.constants.class_name(index).unwrap_or_default();
                    self.names.reference(name)
                }
            };
            if self.place.code.max_stack == 0 {
                return Err(Problem::new("Stack size too large"));
            }
            let mut thrown = before.clone();
            thrown.frame.stack = vec![caught];
            self.merge(range.handler, thrown)?;
            if instruction.opcode == Opcode::InvokeSpecial {
                let mut thrown = after.clone();
                thrown.frame.stack = vec![caught];
                self.merge(range.handler, thrown)?;
            }
        }
        Ok(())
    }

    fn return_from(&mut self, instruction: &Instruction<'a>, after: &Before) -> Result<(), Problem<H::Failure>> {
        let code = self.place.code;
        let local = instruction.local().unwrap_or_default();
        let entry = match after.frame.locals.get(usize::from(local)) {
            Some(&Type::ReturnAddress(entry)) => entry,
            _ => return Err(Problem::new(format!("Cannot load return address from register {local}"))),
        };
        let Some(depth) = after.subroutines.iter().position(|subroutine| subroutine.entry == entry) else {
            return Err(Problem::new("Illegal return from subroutine"));
        };
        match self.returns.iter().find(|(known, _)| *known == entry) {
            Some(&(_, ret)) if ret != instruction.offset => {
                return Err(Problem::new("Multiple returns to single jsr"));
            }
            Some(_) => {}
            None => self.returns.push((entry, instruction.offset)),
        }
        let touched = &after.subroutines[depth].touched;
        for call in code.instructions().flatten() {
            if !matches!(call.opcode, Opcode::Jsr | Opcode::JsrW) || call.branch() != Some(i64::from(entry)) {
                continue;
            }
            let Some(caller) = self.before[usize::from(call.offset)].clone() else { continue };
            let mut locals = after.frame.locals.clone();
            for (slot, local) in locals.iter_mut().enumerate() {
                if !touched[slot] {
                    *local = caller.frame.locals[slot];
                }
                // The subroutines that were left are not returned to.
                let left = |entry: u16| !caller.subroutines.iter().any(|subroutine| subroutine.entry == entry);
                if matches!(local, Type::ReturnAddress(entry) if left(*entry)) {
                    *local = Type::Top;
                }
            }
            // What the subroutine touched, its callers have touched.
            let mut subroutines = caller.subroutines;
            for subroutine in &mut subroutines {
                for (outer, inner) in subroutine.touched.iter_mut().zip(touched) {
                    *outer |= inner;
                }
            }
            let frame =
                Frame { locals, stack: after.frame.stack.clone(), this_uninitialized: after.frame.this_uninitialized };
            match u16::try_from(call.end()) {
                Ok(next) if usize::from(next) < code.bytes.len() => self.merge(next, Before { frame, subroutines })?,
                _ => return Err(Problem::new("Falling off the end of the code")),
            }
        }
        Ok(())
    }

    fn merge_target(&mut self, target: i64, after: &Before) -> Result<(), Problem<H::Failure>> {
        match u16::try_from(target) {
            Ok(target) => self.merge(target, after.clone()),
            Err(_) => Err(Problem::new("Illegal target of jump or branch")),
        }
    }

    fn merge(&mut self, offset: u16, new: Before) -> Result<(), Problem<H::Failure>> {
        let slot = usize::from(offset);
        let Some(known) = self.before[slot].take() else {
            self.before[slot] = Some(new);
            self.waiting.insert(offset);
            return Ok(());
        };
        if known == new {
            self.before[slot] = Some(known);
            return Ok(());
        }
        let mut merged = known.clone();
        if known.frame.stack.len() != new.frame.stack.len() {
            return Err(Problem::new(format!(
                "Inconsistent stack height {} != {}",
                new.frame.stack.len(),
                known.frame.stack.len()
            )));
        }
        for (to, &from) in merged.frame.stack.iter_mut().zip(&new.frame.stack) {
            let joined = self.names.merge(*to, from, self.hierarchy)?;
            if joined == Type::Top && *to != Type::Top {
                return Err(Problem::new("Mismatched stack types"));
            }
            *to = joined;
        }
        for (to, &from) in merged.frame.locals.iter_mut().zip(&new.frame.locals) {
            *to = self.names.merge(*to, from, self.hierarchy)?;
        }
        merged.frame.this_uninitialized |= new.frame.this_uninitialized;
        merged.subroutines = common(&known.subroutines, &new.subroutines);
        if merged != known {
            self.waiting.insert(offset);
        }
        self.before[slot] = Some(merged);
        Ok(())
    }
}

/// The subroutines that both are in, and what either touched.
fn common(a: &[Subroutine], b: &[Subroutine]) -> Vec<Subroutine> {
    let mut merged = Vec::new();
    let mut rest = b;
    for subroutine in a {
        let Some(place) = rest.iter().position(|other| other.entry == subroutine.entry) else { continue };
        let touched = subroutine.touched.iter().zip(&rest[place].touched).map(|(a, b)| a | b).collect();
        merged.push(Subroutine { entry: subroutine.entry, touched });
        rest = &rest[place + 1..];
    }
    merged
}

/// Notes which local variables the instruction reads or writes.
fn touch(subroutines: &mut [Subroutine], instruction: &Instruction<'_>) {
    let Some(local) = instruction.local() else { return };
    let last = usize::from(local) + usize::from(is_wide(instruction.opcode));
    for subroutine in subroutines {
        for slot in subroutine.touched.iter_mut().take(last + 1).skip(usize::from(local)) {
            *slot = true;
        }
    }
}

/// Whether the local variable that the instruction names takes two slots.
fn is_wide(opcode: Opcode) -> bool {
    use Opcode::{
        DLoad, DLoad0, DLoad1, DLoad2, DLoad3, DStore, DStore0, DStore1, DStore2, DStore3, LLoad, LLoad0, LLoad1,
        LLoad2, LLoad3, LStore, LStore0, LStore1, LStore2, LStore3,
    };
    matches!(
        opcode,
        LLoad
            | LLoad0
            | LLoad1
            | LLoad2
            | LLoad3
            | DLoad
            | DLoad0
            | DLoad1
            | DLoad2
            | DLoad3
            | LStore
            | LStore0
            | LStore1
            | LStore2
            | LStore3
            | DStore
            | DStore0
            | DStore1
            | DStore2
            | DStore3
    )
}

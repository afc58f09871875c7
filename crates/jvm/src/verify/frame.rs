//! What a verifier knows at an instruction: the types of local variables and of the operand stack.

use super::types::{Name, Names, Type};
use super::{Hierarchy, Problem};

/// The types of all slots at a place in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// As many as the method has, those without a value `Top`.
    pub(super) locals: Vec<Type>,
    pub(super) stack: Vec<Type>,
    /// In a constructor: `this` has not been initialised.
    pub(super) this_uninitialized: bool,
}

/// What is demanded of an operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// That it can be used as this type.
    Type(Type),
    /// That it is a reference, initialised or not.
    Reference,
    /// The same, or a return address.
    ReferenceOrReturnAddress,
    /// That it takes one slot.
    Single,
}

impl Expect {
    fn describe(self, names: &Names) -> String {
        match self {
            Expect::Type(of) => names.describe(of),
            Expect::Reference | Expect::ReferenceOrReturnAddress => "reference type".into(),
            Expect::Single => "category1 type".into(),
        }
    }
}

/// A frame and what is needed to judge what an instruction does to it.
pub(super) struct State<'s, H: Hierarchy> {
    pub(super) frame: &'s mut Frame,
    pub(super) names: &'s mut Names,
    pub(super) hierarchy: &'s mut H,
    pub(super) max_stack: usize,
    /// Whether messages are those of the verifier for old class files.
    pub(super) old: bool,
}

impl<H: Hierarchy> State<'_, H> {
    pub(super) fn push(&mut self, of: Type) -> Result<(), Problem<H::Failure>> {
        let second = of.second();
        if self.frame.stack.len() + 1 + usize::from(second.is_some()) > self.max_stack {
            return Err(self.overflow());
        }
        self.frame.stack.push(of);
        self.frame.stack.extend(second);
        Ok(())
    }

    /// Pushes one slot, which may be the half of something.
    pub(super) fn push_slot(&mut self, slot: Type) -> Result<(), Problem<H::Failure>> {
        if self.frame.stack.len() >= self.max_stack {
            return Err(self.overflow());
        }
        self.frame.stack.push(slot);
        Ok(())
    }

    pub(super) fn pop_slot(&mut self) -> Result<Type, Problem<H::Failure>> {
        match self.frame.stack.pop() {
            Some(slot) => Ok(slot),
            None => self.underflow(),
        }
    }

    fn underflow(&self) -> Result<Type, Problem<H::Failure>> {
        if self.old {
            return Err(Problem::new("Unable to pop operand off an empty stack"));
        }
        Err(Problem::because("Operand stack underflow", "Attempt to pop empty stack.".into()))
    }

    pub(super) fn pop(&mut self, expect: Expect) -> Result<Type, Problem<H::Failure>> {
        if let Expect::Type(of) = expect
            && let Some(second) = of.second()
        {
            let depth = match self.frame.stack[..] {
                [.., first, last] if first == of && last == second => {
                    self.frame.stack.truncate(self.frame.stack.len() - 2);
                    return Ok(of);
                }
                [] | [_] => return self.underflow(),
                [..] => self.frame.stack.len() - 2,
            };
            return Err(self.bad_operand(self.frame.stack[depth], depth, &self.names.describe(of)));
        }
        let found = self.pop_slot()?;
        if self.meets(found, expect)? {
            return Ok(found);
        }
        let depth = self.frame.stack.len();
        self.frame.stack.push(found);
        Err(self.bad_operand(found, depth, &expect.describe(self.names)))
    }

    pub(super) fn pop_type(&mut self, of: Type) -> Result<Type, Problem<H::Failure>> {
        self.pop(Expect::Type(of))
    }

    pub(super) fn pop_object(&mut self) -> Result<Type, Problem<H::Failure>> {
        self.pop(Expect::Type(Type::Reference(Names::OBJECT)))
    }

    fn overflow(&self) -> Problem<H::Failure> {
        if self.old {
            return Problem::new("Stack size too large");
        }
        Problem::because("Operand stack overflow", "Exceeded max stack size.".into())
    }

    fn bad_operand(&self, found: Type, depth: usize, wanted: &str) -> Problem<H::Failure> {
        let reason = format!(
            "Type {} (current frame, stack[{depth}]) is not assignable to {wanted}",
            self.names.describe(found)
        );
        Problem::because("Bad type on operand stack", reason)
    }

    fn meets(&mut self, found: Type, expect: Expect) -> Result<bool, Problem<H::Failure>> {
        match expect {
            Expect::Type(of) => self.assignable(found, of, false),
            Expect::Reference => Ok(found.is_reference_or_uninitialized()),
            Expect::ReferenceOrReturnAddress => {
                Ok(found.is_reference_or_uninitialized() || matches!(found, Type::ReturnAddress(_)))
            }
            Expect::Single => Ok(found.is_single() && found != Type::Top),
        }
    }

    pub(super) fn assignable(&mut self, from: Type, to: Type, protected: bool) -> Result<bool, Problem<H::Failure>> {
        self.names.assignable(from, to, protected, self.hierarchy)
    }

    fn local_slots(&self, index: u16, of: Type) -> Result<usize, Problem<H::Failure>> {
        let index = usize::from(index);
        if index + usize::from(of.second().is_some()) >= self.frame.locals.len() {
            let reason = format!("Local index {index} is invalid");
            let halved = index < self.frame.locals.len();
            let message = if halved { "get long/double overflows locals" } else { "Local variable table overflow" };
            return Err(Problem::because(message, reason));
        }
        Ok(index)
    }

    pub(super) fn load(&mut self, index: u16, expect: Expect) -> Result<Type, Problem<H::Failure>> {
        let of = match expect {
            Expect::Type(of) => of,
            _ => Type::Top,
        };
        let slot = self.local_slots(index, of)?;
        let found = self.frame.locals[slot];
        let second_fits = of.second().is_none_or(|second| self.frame.locals[slot + 1] == second);
        if self.meets(found, expect)? && second_fits {
            return Ok(found);
        }
        if self.old {
            return Err(Problem::new(match (found, of.second()) {
                (Type::Top, None) => format!("Accessing value from uninitialized register {slot}"),
                (Type::Top, Some(_)) => format!("Accessing value from uninitialized register pair {slot}/{}", slot + 1),
                (_, None) => format!("Register {slot} contains wrong type"),
                (_, Some(_)) => format!("Register pair {slot}/{} contains wrong type", slot + 1),
            }));
        }
        let reason = format!(
            "Type {} (current frame, locals[{slot}]) is not assignable to {}",
            self.names.describe(found),
            expect.describe(self.names)
        );
        Err(Problem::because("Bad local variable type", reason))
    }

    pub(super) fn store(&mut self, index: u16, of: Type) -> Result<(), Problem<H::Failure>> {
        let slot = self.local_slots(index, of)?;
        self.frame.set_local(slot, of);
        Ok(())
    }

    /// The constructor for `of` was called: all that was uninitialised is now initialised.
    pub(super) fn initialize(&mut self, of: Type, initialized: Type) {
        let Frame { locals, stack, this_uninitialized } = &mut *self.frame;
        for slot in locals.iter_mut().chain(stack).filter(|slot| **slot == of) {
            *slot = initialized;
        }
        if of == Type::UninitializedThis {
            *this_uninitialized = false;
        }
    }
}

impl Frame {
    /// Sets a local variable that is within the frame. What it takes half of is no longer usable.
    pub(super) fn set_local(&mut self, slot: usize, of: Type) {
        if self.locals[slot].is_second() && slot > 0 {
            self.locals[slot - 1] = Type::Top;
        }
        let mut last = slot;
        if let Some(second) = of.second() {
            last = slot + 1;
            self.locals[slot] = of;
            if self.locals[last].second().is_some() && last + 1 < self.locals.len() {
                self.locals[last + 1] = Type::Top;
            }
            self.locals[last] = second;
            return;
        }
        if self.locals[last].second().is_some() && last + 1 < self.locals.len() {
            self.locals[last + 1] = Type::Top;
        }
        self.locals[slot] = of;
    }

    /// The frame at the beginning of a method: its arguments.
    pub(super) fn initial(
        names: &mut Names,
        class: Name,
        class_is_object: bool,
        method: &classfile::Method<'_>,
        max_locals: u16,
    ) -> Self {
        let mut frame =
            Self { locals: Vec::with_capacity(usize::from(max_locals)), stack: Vec::new(), this_uninitialized: false };
        if !method.is_static() {
            frame.this_uninitialized = method.name == b"<init>" && !class_is_object;
            let receiver = if frame.this_uninitialized { Type::UninitializedThis } else { Type::Reference(class) };
            frame.locals.push(receiver);
        }
        let parameters = classfile::names::MethodType::parse(method.descriptor);
        for parameter in parameters.iter().flat_map(classfile::names::MethodType::parameters) {
            let of = names.of(parameter);
            frame.locals.push(of);
            frame.locals.extend(of.second());
        }
        // Format checking made sure that the arguments fit.
        frame.locals.resize(usize::from(max_locals), Type::Top);
        frame
    }
}

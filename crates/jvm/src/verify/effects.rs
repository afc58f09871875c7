//! What an instruction does to a frame: one match for both verifiers. Where control goes is theirs.

use classfile::names::{FieldType, MethodType};
use classfile::opcode::{Instruction, Opcode};
use classfile::{ClassFile, Code, Constant, Method};

use super::constants::{bad_constant, class_at, loaded};
use super::frame::{Expect, State};
use super::invoke;
use super::types::{Name, Names, Type};
use super::{Hierarchy, MemberKind, Problem};

/// The method whose code is verified.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) class: &'a ClassFile<'a>,
    pub(super) this: Name,
    pub(super) method: &'a Method<'a>,
    pub(super) code: &'a Code<'a>,
    /// What the method returns; `Top` for nothing.
    pub(super) returns: Type,
    /// By the rules of old class files: subroutines, and no frames in the file.
    pub(super) old: bool,
}

/// What an instruction did that the frame does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Plain,
    /// The constructor of the superclass or another of this class was called on `this`.
    ThisInitialized,
    /// A constructor was called on what `new` made.
    ObjectInitialized,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        names: &mut Names,
        class: &'a ClassFile<'a>,
        method: &'a Method<'a>,
        code: &'a Code<'a>,
        old: bool,
    ) -> Self {
        let this = names.name(class.name);
        let returns = MethodType::parse(method.descriptor).map_or(Type::Top, |method| names.of(method.returns()));
        Self { class, this, method, code, returns, old }
    }

    /// Does one instruction to the frame.
    #[allow(clippy::too_many_lines, reason = "one arm a group of instructions, in the order of the opcodes")]
    pub(super) fn step<H: Hierarchy>(
        &self,
        state: &mut State<'_, H>,
        instruction: &Instruction<'a>,
    ) -> Result<Effect, Problem<H::Failure>> {
        use Opcode as O;
        use Type::{Double, Float, Int, Long, Null};
        let local = instruction.local().unwrap_or_default();
        let constant = instruction.constant().unwrap_or_default();
        match instruction.opcode {
            O::Nop | O::Goto | O::GotoW | O::Wide => {}
            O::AConstNull => state.push(Null)?,
            O::IConstM1 | O::IConst0 | O::IConst1 | O::IConst2 | O::IConst3 | O::IConst4 | O::IConst5 => {
                state.push(Int)?
            }
            O::LConst0 | O::LConst1 => state.push(Long)?,
            O::FConst0 | O::FConst1 | O::FConst2 => state.push(Float)?,
            O::DConst0 | O::DConst1 => state.push(Double)?,
            O::BiPush | O::SiPush => state.push(Int)?,
            O::Ldc | O::LdcW | O::Ldc2W => {
                let of = loaded(state.names, self.class, instruction.opcode, constant)?;
                state.push(of)?;
            }

            O::ILoad | O::ILoad0 | O::ILoad1 | O::ILoad2 | O::ILoad3 => Self::load(state, local, Expect::Type(Int))?,
            O::LLoad | O::LLoad0 | O::LLoad1 | O::LLoad2 | O::LLoad3 => Self::load(state, local, Expect::Type(Long))?,
            O::FLoad | O::FLoad0 | O::FLoad1 | O::FLoad2 | O::FLoad3 => Self::load(state, local, Expect::Type(Float))?,
            O::DLoad | O::DLoad0 | O::DLoad1 | O::DLoad2 | O::DLoad3 => Self::load(state, local, Expect::Type(Double))?,
            O::ALoad | O::ALoad0 | O::ALoad1 | O::ALoad2 | O::ALoad3 => Self::load(state, local, Expect::Reference)?,
            O::IStore | O::IStore0 | O::IStore1 | O::IStore2 | O::IStore3 => {
                Self::store(state, local, Expect::Type(Int))?;
            }
            O::LStore | O::LStore0 | O::LStore1 | O::LStore2 | O::LStore3 => {
                Self::store(state, local, Expect::Type(Long))?;
            }
            O::FStore | O::FStore0 | O::FStore1 | O::FStore2 | O::FStore3 => {
                Self::store(state, local, Expect::Type(Float))?;
            }
            O::DStore | O::DStore0 | O::DStore1 | O::DStore2 | O::DStore3 => {
                Self::store(state, local, Expect::Type(Double))?;
            }
            O::AStore | O::AStore0 | O::AStore1 | O::AStore2 | O::AStore3 => {
                let expect = if self.old { Expect::ReferenceOrReturnAddress } else { Expect::Reference };
                Self::store(state, local, expect)?;
            }

            O::IALoad => Self::array_load(state, instruction, &[b"[I"], Int)?,
            O::LALoad => Self::array_load(state, instruction, &[b"[J"], Long)?,
            O::FALoad => Self::array_load(state, instruction, &[b"[F"], Float)?,
            O::DALoad => Self::array_load(state, instruction, &[b"[D"], Double)?,
            O::BALoad => Self::array_load(state, instruction, &[b"[B", b"[Z"], Int)?,
            O::CALoad => Self::array_load(state, instruction, &[b"[C"], Int)?,
            O::SALoad => Self::array_load(state, instruction, &[b"[S"], Int)?,
            O::AALoad => {
                state.pop_type(Int)?;
                let element = Self::pop_reference_array(state, instruction)?;
                state.push(element)?;
            }
            O::IAStore => Self::array_store(state, instruction, &[b"[I"], Int)?,
            O::LAStore => Self::array_store(state, instruction, &[b"[J"], Long)?,
            O::FAStore => Self::array_store(state, instruction, &[b"[F"], Float)?,
            O::DAStore => Self::array_store(state, instruction, &[b"[D"], Double)?,
            O::BAStore => Self::array_store(state, instruction, &[b"[B", b"[Z"], Int)?,
            O::CAStore => Self::array_store(state, instruction, &[b"[C"], Int)?,
            O::SAStore => Self::array_store(state, instruction, &[b"[S"], Int)?,
            O::AAStore => {
                state.pop_object()?;
                state.pop_type(Int)?;
                // Whether the element fits is found out when it is stored.
                Self::pop_reference_array(state, instruction)?;
            }

            O::Pop | O::Pop2 | O::Dup | O::DupX1 | O::DupX2 | O::Dup2 | O::Dup2X1 | O::Dup2X2 | O::Swap => {
                Self::shuffle(state, instruction.opcode)?;
            }

            O::IAdd
            | O::ISub
            | O::IMul
            | O::IDiv
            | O::IRem
            | O::IAnd
            | O::IOr
            | O::IXor
            | O::IShl
            | O::IShr
            | O::IUShr => {
                Self::compute(state, &[Int, Int], Int)?;
            }
            O::LAdd | O::LSub | O::LMul | O::LDiv | O::LRem | O::LAnd | O::LOr | O::LXor => {
                Self::compute(state, &[Long, Long], Long)?;
            }
            O::FAdd | O::FSub | O::FMul | O::FDiv | O::FRem => Self::compute(state, &[Float, Float], Float)?,
            O::DAdd | O::DSub | O::DMul | O::DDiv | O::DRem => Self::compute(state, &[Double, Double], Double)?,
            O::LShl | O::LShr | O::LUShr => Self::compute(state, &[Int, Long], Long)?,
            O::INeg | O::I2B | O::I2C | O::I2S => Self::compute(state, &[Int], Int)?,
            O::LNeg => Self::compute(state, &[Long], Long)?,
            O::FNeg => Self::compute(state, &[Float], Float)?,
            O::DNeg => Self::compute(state, &[Double], Double)?,
            O::IInc => {
                state.load(local, Expect::Type(Int))?;
            }
            O::I2L => Self::compute(state, &[Int], Long)?,
            O::I2F => Self::compute(state, &[Int], Float)?,
            O::I2D => Self::compute(state, &[Int], Double)?,
            O::L2I => Self::compute(state, &[Long], Int)?,
            O::L2F => Self::compute(state, &[Long], Float)?,
            O::L2D => Self::compute(state, &[Long], Double)?,
            O::F2I => Self::compute(state, &[Float], Int)?,
            O::F2L => Self::compute(state, &[Float], Long)?,
            O::F2D => Self::compute(state, &[Float], Double)?,
            O::D2I => Self::compute(state, &[Double], Int)?,
            O::D2L => Self::compute(state, &[Double], Long)?,
            O::D2F => Self::compute(state, &[Double], Float)?,
            O::LCmp => Self::compute(state, &[Long, Long], Int)?,
            O::FCmpL | O::FCmpG => Self::compute(state, &[Float, Float], Int)?,
            O::DCmpL | O::DCmpG => Self::compute(state, &[Double, Double], Int)?,

            O::IfEq | O::IfNe | O::IfLt | O::IfGe | O::IfGt | O::IfLe | O::TableSwitch | O::LookupSwitch => {
                state.pop_type(Int)?;
            }
            O::IfICmpEq | O::IfICmpNe | O::IfICmpLt | O::IfICmpGe | O::IfICmpGt | O::IfICmpLe => {
                state.pop_type(Int)?;
                state.pop_type(Int)?;
            }
            O::IfACmpEq | O::IfACmpNe => {
                state.pop(Expect::Reference)?;
                state.pop(Expect::Reference)?;
            }
            O::IfNull | O::IfNonNull => {
                state.pop(Expect::Reference)?;
            }
            // Subroutines are only in old class files, whose verifier handles the flow.
            O::Jsr | O::JsrW | O::Ret if !self.old => {
                return Err(Problem::new(format!("Bad instruction: {:02x}", instruction.opcode as u8)));
            }
            O::Jsr | O::JsrW => {
                let target = instruction.branch().and_then(|target| u16::try_from(target).ok()).unwrap_or_default();
                state.push(Type::ReturnAddress(target))?;
            }
            O::Ret => {}

            O::IReturn => self.return_value(state, Expect::Type(Int))?,
            O::LReturn => self.return_value(state, Expect::Type(Long))?,
            O::FReturn => self.return_value(state, Expect::Type(Float))?,
            O::DReturn => self.return_value(state, Expect::Type(Double))?,
            O::AReturn => self.return_value(state, Expect::Reference)?,
            O::Return => {
                if self.returns != Type::Top {
                    return Err(Problem::new("Method expects a return value"));
                }
                if state.frame.this_uninitialized {
                    return Err(Problem::because(
                        "Constructor must call super() or this() before return",
                        "Error exists in the bytecode".into(),
                    ));
                }
            }

            O::GetStatic | O::PutStatic | O::GetField | O::PutField => {
                self.field(state, instruction.opcode, constant)?
            }
            O::InvokeVirtual | O::InvokeSpecial | O::InvokeStatic | O::InvokeInterface => {
                return invoke::method(self, state, instruction, constant);
            }
            O::InvokeDynamic => invoke::dynamic(self, state, instruction, constant)?,

            O::New => {
                let class = class_at(self.class, constant)?;
                if class.starts_with(b"[") {
                    return Err(Problem::new("Illegal new instruction"));
                }
                let made = Type::Uninitialized(instruction.offset);
                if self.old {
                    // The same place has not initialised what it made before: such may be dead in a local, not waiting on the stack.
                    if state.frame.stack.contains(&made) {
                        return Err(Problem::new("Uninitialized object on stack at creating point"));
                    }
                    for slot in state.frame.locals.iter_mut().filter(|slot| **slot == made) {
                        *slot = Type::Top;
                    }
                }
                state.push(made)?;
            }
            O::NewArray => {
                let of: &[u8] = match instruction.bytes[1] {
                    4 => b"[Z",
                    5 => b"[C",
                    6 => b"[F",
                    7 => b"[D",
                    8 => b"[B",
                    9 => b"[S",
                    10 => b"[I",
                    11 => b"[J",
                    _ => return Err(Problem::new("Illegal newarray instruction")),
                };
                state.pop_type(Int)?;
                let array = state.names.reference(of);
                state.push(array)?;
            }
            O::ANewArray => {
                let component = class_at(self.class, constant)?;
                if component.starts_with(&[b'['; 255]) {
                    return Err(Problem::new(if self.old {
                        "Array with too many dimensions"
                    } else {
                        "Illegal anewarray instruction, array has more than 255 dimensions"
                    }));
                }
                state.pop_type(Int)?;
                let array = state.names.array_of(component);
                state.push(array)?;
            }
            O::MultiANewArray => {
                let array = class_at(self.class, constant)?;
                let dimensions = array.iter().take_while(|&&byte| byte == b'[').count();
                let wanted = instruction.bytes[3];
                if dimensions == 0 {
                    return Err(Problem::new("Illegal constant pool index in multianewarray instruction"));
                }
                if wanted == 0 || dimensions < usize::from(wanted) {
                    return Err(Problem::new(format!("Illegal dimension in multianewarray instruction: {wanted}")));
                }
                for _ in 0..wanted {
                    state.pop_type(Int)?;
                }
                let array = state.names.reference(array);
                state.push(array)?;
            }
            O::ArrayLength => {
                let array = state.pop(Expect::Reference)?;
                let is_array = match array {
                    Null => true,
                    Type::Reference(name) => state.names.is_array(name),
                    _ => false,
                };
                if !is_array {
                    return Err(Self::bad_array(state, array, instruction));
                }
                state.push(Int)?;
            }
            O::AThrow => {
                let throwable = state.names.reference(b"java/lang/Throwable");
                state.pop_type(throwable)?;
            }
            O::CheckCast => {
                let to = class_at(self.class, constant)?;
                state.pop_object()?;
                let to = state.names.reference(to);
                state.push(to)?;
            }
            O::InstanceOf => {
                class_at(self.class, constant)?;
                state.pop_object()?;
                state.push(Int)?;
            }
            O::MonitorEnter | O::MonitorExit => {
                state.pop(Expect::Reference)?;
            }
        }
        Ok(Effect::Plain)
    }

    fn load<H: Hierarchy>(state: &mut State<'_, H>, local: u16, expect: Expect) -> Result<(), Problem<H::Failure>> {
        let of = state.load(local, expect)?;
        state.push(of)
    }

    fn store<H: Hierarchy>(state: &mut State<'_, H>, local: u16, expect: Expect) -> Result<(), Problem<H::Failure>> {
        let of = state.pop(expect)?;
        state.store(local, of)
    }

    fn compute<H: Hierarchy>(state: &mut State<'_, H>, operands: &[Type], to: Type) -> Result<(), Problem<H::Failure>> {
        for &operand in operands {
            state.pop_type(operand)?;
        }
        state.push(to)
    }

    fn bad_array<H: Hierarchy>(
        state: &State<'_, H>,
        found: Type,
        instruction: &Instruction<'_>,
    ) -> Problem<H::Failure> {
        let depth = state.frame.stack.len();
        let message = format!("Bad type on operand stack in {}", instruction.opcode.mnemonic());
        Problem::because(
            message,
            format!("Invalid type: {} (current frame, stack[{depth}])", state.names.describe(found)),
        )
    }

    fn pop_array<H: Hierarchy>(
        state: &mut State<'_, H>,
        instruction: &Instruction<'_>,
        arrays: &[&[u8]],
    ) -> Result<(), Problem<H::Failure>> {
        let array = state.pop(Expect::Reference)?;
        let fits = match array {
            Type::Null => true,
            Type::Reference(name) => arrays.contains(&&*state.names.text(name)),
            _ => false,
        };
        if fits { Ok(()) } else { Err(Self::bad_array(state, array, instruction)) }
    }

    fn array_load<H: Hierarchy>(
        state: &mut State<'_, H>,
        instruction: &Instruction<'_>,
        arrays: &[&[u8]],
        element: Type,
    ) -> Result<(), Problem<H::Failure>> {
        state.pop_type(Type::Int)?;
        Self::pop_array(state, instruction, arrays)?;
        state.push(element)
    }

    fn array_store<H: Hierarchy>(
        state: &mut State<'_, H>,
        instruction: &Instruction<'_>,
        arrays: &[&[u8]],
        element: Type,
    ) -> Result<(), Problem<H::Failure>> {
        state.pop_type(element)?;
        state.pop_type(Type::Int)?;
        Self::pop_array(state, instruction, arrays)
    }

    /// Pops an array of references. Returns the type of its elements.
    fn pop_reference_array<H: Hierarchy>(
        state: &mut State<'_, H>,
        instruction: &Instruction<'_>,
    ) -> Result<Type, Problem<H::Failure>> {
        let array = state.pop(Expect::Reference)?;
        let element = match array {
            Type::Null => Some(Type::Null),
            Type::Reference(name) => state.names.reference_component(name),
            _ => None,
        };
        element.ok_or_else(|| Self::bad_array(state, array, instruction))
    }

    /// Instructions that move slots of the stack about. None may part the halves of a long or double.
    fn shuffle<H: Hierarchy>(state: &mut State<'_, H>, opcode: Opcode) -> Result<(), Problem<H::Failure>> {
        // How many slots are taken as one above, and how many below it they are put.
        let (taken, under, copied) = match opcode {
            Opcode::Pop => (1, 0, false),
            Opcode::Pop2 => (2, 0, false),
            Opcode::Dup => (1, 0, true),
            Opcode::DupX1 => (1, 1, true),
            Opcode::DupX2 => (1, 2, true),
            Opcode::Dup2 => (2, 0, true),
            Opcode::Dup2X1 => (2, 1, true),
            Opcode::Dup2X2 => (2, 2, true),
            _ => {
                let first = state.pop(Expect::Single)?;
                let second = state.pop(Expect::Single)?;
                state.push(first)?;
                return state.push(second);
            }
        };
        let above = Self::pop_group(state, taken)?;
        let below = Self::pop_group(state, under)?;
        if copied {
            for &slot in above.iter().rev() {
                state.push_slot(slot)?;
            }
            for &slot in below.iter().rev() {
                state.push_slot(slot)?;
            }
            for &slot in above.iter().rev() {
                state.push_slot(slot)?;
            }
        }
        Ok(())
    }

    /// Pops slots that are whole values, the uppermost first.
    fn pop_group<H: Hierarchy>(state: &mut State<'_, H>, count: usize) -> Result<Vec<Type>, Problem<H::Failure>> {
        match count {
            0 => Ok(Vec::new()),
            1 => Ok(vec![state.pop(Expect::Single)?]),
            _ => {
                let top = state.frame.stack.last().copied();
                if top.is_some_and(Type::is_second) {
                    let second = state.pop_slot()?;
                    let first = if second == Type::LongSecond { Type::Long } else { Type::Double };
                    let found = state.pop_slot()?;
                    if found != first {
                        return Err(Problem::new("Bad type on operand stack"));
                    }
                    return Ok(vec![second, first]);
                }
                Ok(vec![state.pop(Expect::Single)?, state.pop(Expect::Single)?])
            }
        }
    }

    fn return_value<H: Hierarchy>(&self, state: &mut State<'_, H>, expect: Expect) -> Result<(), Problem<H::Failure>> {
        let found = state.pop(expect)?;
        if self.returns == Type::Top {
            return Err(Problem::new("Method does not expect a return value"));
        }
        if state.assignable(found, self.returns, false)? {
            return Ok(());
        }
        let depth = state.frame.stack.len();
        let reason = format!(
            "Type {} (current frame, stack[{depth}]) is not assignable to {} (from method signature)",
            state.names.describe(found),
            state.names.describe(self.returns)
        );
        state.frame.stack.push(found);
        Err(Problem::because("Bad return type", reason))
    }

    fn field<H: Hierarchy>(
        &self,
        state: &mut State<'_, H>,
        opcode: Opcode,
        constant: u16,
    ) -> Result<(), Problem<H::Failure>> {
        let Constant::Field(_) = self.class.constants.get(constant) else {
            return Err(bad_constant(self.class, constant));
        };
        let field = self.class.constants.member(constant).ok_or_else(|| bad_constant(self.class, constant))?;
        let of = FieldType::parse(field.descriptor).ok_or_else(|| bad_constant(self.class, constant))?;
        let of = state.names.of(of);
        let target = state.names.reference(field.class);
        let object = match opcode {
            Opcode::GetStatic => return state.push(of),
            Opcode::PutStatic => return state.pop_type(of).map(drop),
            Opcode::GetField => {
                let object = state.pop_type(target)?;
                self.check_protected(state, object, &field, MemberKind::Field, opcode)?;
                return state.push(of);
            }
            _ => {
                state.pop_type(of)?;
                state.pop_slot()?
            }
        };
        // A constructor may set fields of its own class before it calls another.
        let own = target == Type::Reference(self.this)
            && self.class.fields.iter().any(|own| own.name == field.name && own.descriptor == field.descriptor);
        let object = if object == Type::UninitializedThis && own { Type::Reference(self.this) } else { object };
        if !state.assignable(object, target, false)? {
            let depth = state.frame.stack.len();
            let reason = format!(
                "Type {} (current frame, stack[{depth}]) is not assignable to {}",
                state.names.describe(object),
                state.names.describe(target)
            );
            return Err(Problem::because("Bad type on operand stack in putfield", reason));
        }
        self.check_protected(state, object, &field, MemberKind::Field, opcode)
    }

    /// A protected member of a superclass in another package is accessed only by objects of this class.
    pub(super) fn check_protected<H: Hierarchy>(
        &self,
        state: &mut State<'_, H>,
        object: Type,
        member: &classfile::constants::Member<'_>,
        kind: MemberKind,
        opcode: Opcode,
    ) -> Result<(), Problem<H::Failure>> {
        let this = Type::Reference(self.this);
        if object == this || !state.hierarchy.has_superclass(member.class) {
            return Ok(());
        }
        let elsewhere = state.hierarchy.is_protected_elsewhere(member.class, member.name, member.descriptor, kind);
        if !elsewhere.map_err(Problem::Load)? {
            return Ok(());
        }
        // Arrays have a public clone().
        let is_array = matches!(object, Type::Reference(name) if state.names.is_array(name));
        if kind == MemberKind::Method && is_array && member.class == b"java/lang/Object" && member.name == b"clone" {
            return Ok(());
        }
        if state.assignable(object, this, true)? {
            return Ok(());
        }
        let depth = state.frame.stack.len();
        let reason = format!(
            "Type {} (current frame, stack[{depth}]) is not assignable to {}",
            state.names.describe(object),
            state.names.describe(this)
        );
        Err(Problem::because(format!("Bad access to protected data in {}", opcode.mnemonic()), reason))
    }
}

//! From Java into C: arguments are sorted into registers and stack as the System V ABI for x86-64 wants them (3.2.3).

use std::arch::naked_asm;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::environment::{Object, get, of, state};
use crate::interpreter::Arguments;
use crate::metadata::{BasicType, Method};
use crate::thread::{Result, Thread, Thrown};

/// A native method's function, and how it is called.
#[derive(Debug)]
pub(super) struct Binding {
    function: usize,
    parameters: Box<[BasicType]>,
}

impl Binding {
    pub(super) fn new(method: &Method, function: usize) -> Self {
        let parsed = classfile::names::MethodType::parse(method.descriptor.bytes());
        let parameters = parsed.map_or_else(Box::default, |parsed| {
            parsed.parameters().map(|parameter| BasicType::of(parameter.descriptor[0])).collect()
        });
        Self { function, parameters }
    }
}

/// What a call finds in registers.
#[repr(C)]
struct Registers {
    general: [u64; 6],
    vector: [u64; 8],
}

/// What a call leaves in registers.
#[repr(C)]
struct Returned {
    general: u64,
    vector: u64,
}

/// Most arguments that a method has, and the two that C functions have before them.
const ARGUMENTS_MAX: usize = 257;

/// Arguments as they are sorted.
struct Sorter {
    registers: Registers,
    general: usize,
    vector: usize,
    stack: [MaybeUninit<u64>; ARGUMENTS_MAX],
    depth: usize,
}

impl Sorter {
    fn push(&mut self, value: u64) {
        self.stack[self.depth].write(value);
        self.depth += 1;
    }

    fn general(&mut self, value: u64) {
        match self.registers.general.get_mut(self.general) {
            Some(register) => {
                *register = value;
                self.general += 1;
            }
            None => self.push(value),
        }
    }

    fn vector(&mut self, value: u64) {
        match self.registers.vector.get_mut(self.vector) {
            Some(register) => {
                *register = value;
                self.vector += 1;
            }
            None => self.push(value),
        }
    }
}

/// The [`Function`](crate::interpreter::Function) of all native methods that libraries implement.
pub(super) fn call(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let method = thread.top_frame().expect("a native method runs in its frame").method();
    let binding: *const Binding = std::ptr::with_exposed_provenance(method.library.load(Ordering::Acquire));
    // SAFETY: set before the method got this function, and never freed.
    let binding = unsafe { &*binding };
    let env = of(thread);
    let mut sorter = Sorter {
        registers: Registers { general: [0; 6], vector: [0; 8] },
        general: 0,
        vector: 0,
        stack: [const { MaybeUninit::uninit() }; ARGUMENTS_MAX],
        depth: 0,
    };
    sorter.general(env.expose_provenance() as u64);
    let mut slot = 0;
    if method.is_static() {
        let mirror = thread.handle(method.class.mirror());
        sorter.general(mirror.address().expose_provenance() as u64);
    } else {
        sorter.general(arguments.address(0) as u64);
        slot = 1;
    }
    for kind in &binding.parameters {
        let value = arguments.slot(slot);
        match kind {
            BasicType::Float | BasicType::Double => sorter.vector(value),
            // An argument's slot is a place that the collector knows, so its address is a local reference.
            BasicType::Reference if value == 0 => sorter.general(0),
            BasicType::Reference => sorter.general(arguments.address(slot) as u64),
            _ => sorter.general(value),
        }
        slot += kind.slots() as usize;
    }
    let callers = {
        // SAFETY: the environment is this thread's.
        let state = unsafe { state(env) };
        let own = super::environment::LocalFrame { handles: thread.handles.mark(), deleted: state.deleted.len() };
        (std::mem::replace(&mut state.frame, own), std::mem::take(&mut state.outer))
    };
    let mut returned = Returned { general: 0, vector: 0 };
    let control = Arc::as_ptr(&thread.control);
    // SAFETY: the control lives as long as the thread. The function is what its library says it is; the stack words are written up to `depth`.
    unsafe {
        (*control).enter_safe();
        invoke(
            binding.function,
            &raw const sorter.registers,
            sorter.stack.as_ptr().cast(),
            sorter.depth,
            &raw mut returned,
        );
    }
    // SAFETY: as above.
    let state = unsafe { state(env) };
    if std::mem::take(&mut state.critical) == 0 {
        // SAFETY: as above.
        unsafe { (*control).leave_safe() };
    }
    state.deleted.truncate(state.frame.deleted);
    (state.frame, state.outer) = callers;
    super::checks::asked(env);
    if !thread.exception.is_null() {
        return Err(Thrown);
    }
    Ok(result(method.returns, &returned))
}

/// What is returned, as a slot. The upper bits of a register are anything.
#[allow(clippy::cast_possible_truncation, reason = "a small number is in the low bits of a register")]
fn result(kind: BasicType, returned: &Returned) -> u64 {
    let small = |value: i32| u64::from(value.cast_unsigned());
    let bits = returned.general;
    match kind {
        BasicType::Boolean => u64::from(bits as u8 != 0),
        BasicType::Byte => small(i32::from(bits as u8 as i8)),
        BasicType::Char => u64::from(bits as u16),
        BasicType::Short => small(i32::from(bits as u16 as i16)),
        BasicType::Int => u64::from(bits as u32),
        BasicType::Long => bits,
        BasicType::Float => u64::from(returned.vector as u32),
        BasicType::Double => returned.vector,
        BasicType::Reference => {
            let object: Object = std::ptr::with_exposed_provenance_mut(bits as usize);
            get(object).slot()
        }
        BasicType::Void => 0,
    }
}

/// Calls a function with these registers and stack words.
///
/// # Safety
/// The function takes such arguments; `count` words are at `stack`.
#[unsafe(naked)]
unsafe extern "C" fn invoke(
    function: usize,
    registers: *const Registers,
    stack: *const u64,
    count: usize,
    returned: *mut Returned,
) {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "mov rbx, r8",
        "mov r11, rdi",
        "mov r10, rsi",
        // The stack pointer is a multiple of 16 when a function is called.
        "lea rax, [rcx + 1]",
        "and rax, -2",
        "shl rax, 3",
        "sub rsp, rax",
        "xor eax, eax",
        "2:",
        "cmp rax, rcx",
        "jae 3f",
        "mov r9, [rdx + rax * 8]",
        "mov [rsp + rax * 8], r9",
        "inc rax",
        "jmp 2b",
        "3:",
        "movsd xmm0, [r10 + 48]",
        "movsd xmm1, [r10 + 56]",
        "movsd xmm2, [r10 + 64]",
        "movsd xmm3, [r10 + 72]",
        "movsd xmm4, [r10 + 80]",
        "movsd xmm5, [r10 + 88]",
        "movsd xmm6, [r10 + 96]",
        "movsd xmm7, [r10 + 104]",
        "mov rdi, [r10]",
        "mov rsi, [r10 + 8]",
        "mov rdx, [r10 + 16]",
        "mov rcx, [r10 + 24]",
        "mov r8, [r10 + 32]",
        "mov r9, [r10 + 40]",
        // A function with variable arguments wants to know how many vector registers are used.
        "mov eax, 8",
        "call r11",
        "mov [rbx], rax",
        "movsd [rbx + 8], xmm0",
        "lea rsp, [rbp - 16]",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

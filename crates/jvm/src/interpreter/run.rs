//! The loop over bytecodes.
//!
//! Invariant: what is executed is verified code, or of the boot image, whose compiler is trusted: operand kinds, stack depth, indexes of locals
//! and targets of branches are right. The loop checks what verification cannot: null, bounds, array stores, casts, division, the stack's end.

#![allow(clippy::cast_possible_truncation, reason = "instructions narrow values as the JVMS says")]

use std::sync::atomic::{AtomicU8, Ordering};

use super::{messages, native, pop_frame, push_frame, quick, slow, unwind};
use crate::allocate;
use crate::arena::Meta;
use crate::exceptions;
use crate::frame::{HEADER, LOCK, METHOD, PC, SP};
use crate::handle::Global;
use crate::link::MethodKind;
use crate::metadata::{BasicType, Entry, Method};
use crate::monitor;
use crate::object::Reference;
use crate::thread::{Result, Thread, Thrown};

/// Why the inner loop stops.
enum Leave {
    /// Call a method whose arguments are at an address.
    Call(Meta<Method>, *mut u64),
    /// Return a value of so many slots.
    Return(u64, usize),
    /// An exception is pending.
    Throw,
}

/// The method of a frame that is there.
#[inline(always)]
fn method_of(frame: *const u64) -> Meta<Method> {
    // SAFETY: the slot of the method always holds one.
    unsafe { Meta::from_offset(frame.add(METHOD).read() as u32).unwrap_unchecked() }
}

/// Runs the youngest frame, which Rust code entered, until it returns.
///
/// # Errors
/// If it is left by an exception.
#[allow(clippy::too_many_lines, reason = "one arm for each instruction")]
#[allow(unused_assignments, reason = "the stack pointer behind the last value is not always looked at again")]
#[rustfmt::skip]
pub(super) fn run(thread: &mut Thread) -> Result<u64> {
    let mut frame: *mut u64;
    let mut locals: *mut u64;
    let mut pc: *const u8;
    let mut sp: *mut u64;

    // SAFETY of all blocks here: the invariant of the module. Slots are within the frame, which push_frame checked against the stack's end;
    // `pc` is within the method's code.
    // The frame's method, which is another one when the class is redefined while the frame is there.
    macro_rules! method { () => { method_of(frame) }; }
    macro_rules! reload {
        () => {{
            frame = thread.frame;
            // SAFETY: see above.
            unsafe {
                locals = frame.sub(method!().max_locals as usize);
                pc = std::ptr::with_exposed_provenance(frame.add(PC).read() as usize);
                sp = std::ptr::with_exposed_provenance_mut(frame.add(SP).read() as usize);
            }
        }};
    }
    macro_rules! save {
        () => {
            // SAFETY: see above.
            unsafe {
                frame.add(PC).write(pc.addr() as u64);
                frame.add(SP).write(sp.expose_provenance() as u64);
            }
        };
    }
    reload!();
    loop {
        let leave = 'leave: {
            macro_rules! throw {
                ($thrown:expr) => {{
                    save!();
                    let _: Thrown = $thrown;
                    break 'leave Leave::Throw;
                }};
            }
            macro_rules! attempt {
                ($result:expr) => {{
                    save!();
                    match $result {
                        Ok(value) => value,
                        Err(_) => break 'leave Leave::Throw,
                    }
                }};
            }
            macro_rules! push {
                ($value:expr) => {{
                    let value: u64 = $value;
                    // SAFETY: see above.
                    unsafe {
                        sp.write(value);
                        sp = sp.add(1);
                    }
                }};
            }
            macro_rules! push2 {
                ($value:expr) => {{
                    let value: u64 = $value;
                    // SAFETY: see above.
                    unsafe {
                        sp.write(value);
                        sp = sp.add(2);
                    }
                }};
            }
            macro_rules! push_int {
                ($value:expr) => {{
                    let value: i32 = $value;
                    push!(u64::from(value.cast_unsigned()))
                }};
            }
            macro_rules! pop {
                () => {{
                    // SAFETY: see above.
                    unsafe {
                        sp = sp.sub(1);
                        sp.read()
                    }
                }};
            }
            macro_rules! pop2 {
                () => {{
                    // SAFETY: see above.
                    unsafe {
                        sp = sp.sub(2);
                        sp.read()
                    }
                }};
            }
            macro_rules! pop_int { () => { (pop!() as u32).cast_signed() }; }
            macro_rules! pop_long { () => { pop2!().cast_signed() }; }
            macro_rules! pop_float { () => { f32::from_bits(pop!() as u32) }; }
            macro_rules! pop_double { () => { f64::from_bits(pop2!()) }; }
            macro_rules! pop_reference { () => { Reference::of_slot(pop!()) }; }
            macro_rules! push_long { ($value:expr) => {{ let value: i64 = $value; push2!(value.cast_unsigned()) }}; }
            macro_rules! push_float { ($value:expr) => {{ let value: f32 = $value; push!(u64::from(value.to_bits())) }}; }
            macro_rules! push_double { ($value:expr) => {{ let value: f64 = $value; push2!(value.to_bits()) }}; }
            macro_rules! peek {
                ($depth:expr) => {{
                    // SAFETY: see above.
                    unsafe { sp.sub($depth).read() }
                }};
            }
            macro_rules! poke {
                ($depth:expr, $value:expr) => {{
                    let value = $value;
                    // SAFETY: see above.
                    unsafe { sp.sub($depth).write(value) }
                }};
            }
            macro_rules! local {
                ($index:expr) => {{
                    let index = $index;
                    // SAFETY: see above.
                    unsafe { locals.add(index).read() }
                }};
            }
            macro_rules! set_local {
                ($index:expr, $value:expr) => {{
                    let (index, value) = ($index, $value);
                    // SAFETY: see above.
                    unsafe { locals.add(index).write(value) }
                }};
            }
            macro_rules! u1 {
                ($at:expr) => {{
                    // SAFETY: see above.
                    unsafe { pc.add($at).read() }
                }};
            }
            macro_rules! u2 {
                ($at:expr) => { u16::from_be_bytes([u1!($at), u1!($at + 1)]) };
            }
            macro_rules! s4_at {
                ($pointer:expr) => {{
                    let pointer: *const u8 = $pointer;
                    // SAFETY: see above.
                    i32::from_be(unsafe { pointer.cast::<i32>().read_unaligned() })
                }};
            }
            macro_rules! next {
                ($length:expr) => {{
                    pc = pc.wrapping_add($length);
                    continue;
                }};
            }
            macro_rules! jump {
                ($offset:expr) => {{
                    let offset: isize = $offset;
                    pc = pc.wrapping_offset(offset);
                    // A loop may be one instruction that jumps to itself.
                    if offset <= 0 {
                        let method = method!();
                        let count = method.back_edges.load(Ordering::Relaxed);
                        method.back_edges.store(count.wrapping_add(1), Ordering::Relaxed);
                        if thread.poll.load(Ordering::Relaxed) != 0 {
                            attempt!(slow::poll(thread));
                        }
                    }
                    continue;
                }};
            }
            macro_rules! branch {
                ($condition:expr) => {{
                    if $condition {
                        jump!(isize::from(u2!(1).cast_signed()));
                    }
                    next!(3);
                }};
            }
            macro_rules! null_check {
                ($reference:expr) => {{
                    let reference: Reference = $reference;
                    if reference.is_null() {
                        throw!(exceptions::null_pointer({ save!(); &mut *thread }));
                    }
                    reference
                }};
            }
            macro_rules! element {
                ($pop:ident) => {{
                    let index = pop_int!();
                    let array = null_check!(pop_reference!());
                    if index.cast_unsigned() >= array.length() {
                        throw!(messages::index({ save!(); &mut *thread }, index, array.length()));
                    }
                    (array, index.cast_unsigned())
                }};
            }
            macro_rules! load {
                ($type:ty, |$value:ident| $push:expr) => {{
                    let (array, index) = element!(pop);
                    let $value = array.element::<$type>(index);
                    $push;
                    next!(1);
                }};
            }
            macro_rules! store {
                ($value:expr, |$raw:ident, $array:ident, $index:ident| $write:expr) => {{
                    let $raw = $value;
                    let ($array, $index) = element!(pop);
                    $write;
                    next!(1);
                }};
            }
            macro_rules! binary {
                ($pop:ident, $push:ident, |$a:ident, $b:ident| $result:expr) => {{
                    let $b = $pop!();
                    let $a = $pop!();
                    $push!($result);
                    next!(1);
                }};
            }
            macro_rules! unary {
                ($pop:ident, $push:ident, |$a:ident| $result:expr) => {{
                    let $a = $pop!();
                    $push!($result);
                    next!(1);
                }};
            }
            macro_rules! if_int {
                (|$a:ident| $condition:expr) => {{
                    let $a = pop_int!();
                    branch!($condition)
                }};
                (|$a:ident, $b:ident| $condition:expr) => {{
                    let $b = pop_int!();
                    let $a = pop_int!();
                    branch!($condition)
                }};
            }
            macro_rules! pool { () => { method!().constants() }; }
            macro_rules! compare {
                ($pop:ident, $nan:expr) => {{
                    let b = $pop!();
                    let a = $pop!();
                    push_int!(if a > b { 1 } else if a == b { 0 } else if a < b { -1 } else { $nan });
                    next!(1);
                }};
            }
            loop {
                // SAFETY: see above; other threads may write opcodes.
                let opcode = unsafe { AtomicU8::from_ptr(pc.cast_mut()) }.load(Ordering::Relaxed);
                match opcode {
                    0x00 => { next!(1); }
                    0x01 => { push!(0); next!(1); }
                    0x2 => { push_int!(-1); next!(1); }
                    0x3 => { push_int!(0); next!(1); }
                    0x4 => { push_int!(1); next!(1); }
                    0x5 => { push_int!(2); next!(1); }
                    0x6 => { push_int!(3); next!(1); }
                    0x7 => { push_int!(4); next!(1); }
                    0x8 => { push_int!(5); next!(1); }
                    0x09 => { push2!(0); next!(1); }
                    0x0A => { push2!(1); next!(1); }
                    0xb => { push_float!(0.0); next!(1); }
                    0xc => { push_float!(1.0); next!(1); }
                    0xd => { push_float!(2.0); next!(1); }
                    0x0E => { push_double!(0.0); next!(1); }
                    0x0F => { push_double!(1.0); next!(1); }
                    0x10 => { push_int!(i32::from(u1!(1).cast_signed())); next!(2); }
                    0x11 => { push_int!(i32::from(u2!(1).cast_signed())); next!(3); }
                    0x12..=0x14 => { 
                        let short = opcode == 0x12;
                        let index = if short { u16::from(u1!(1)) } else { u2!(1) };
                        let (value, wide) = attempt!(slow::load_constant(thread, pool!(), pc, index, short));
                        if wide { push2!(value) } else { push!(value) }
                        next!(if short { 2 } else { 3 });
                     }
                    0x15 | 0x17 | 0x19 => { push!(local!(u1!(1) as usize)); next!(2); }
                    0x16 | 0x18 => { push2!(local!(u1!(1) as usize)); next!(2); }
                    0x1a => { push!(local!(0)); next!(1); }
                    0x1b => { push!(local!(1)); next!(1); }
                    0x1c => { push!(local!(2)); next!(1); }
                    0x1d => { push!(local!(3)); next!(1); }
                    0x1e => { push2!(local!(0)); next!(1); }
                    0x1f => { push2!(local!(1)); next!(1); }
                    0x20 => { push2!(local!(2)); next!(1); }
                    0x21 => { push2!(local!(3)); next!(1); }
                    0x22 => { push!(local!(0)); next!(1); }
                    0x23 => { push!(local!(1)); next!(1); }
                    0x24 => { push!(local!(2)); next!(1); }
                    0x25 => { push!(local!(3)); next!(1); }
                    0x26 => { push2!(local!(0)); next!(1); }
                    0x27 => { push2!(local!(1)); next!(1); }
                    0x28 => { push2!(local!(2)); next!(1); }
                    0x29 => { push2!(local!(3)); next!(1); }
                    0x2a => { push!(local!(0)); next!(1); }
                    0x2b => { push!(local!(1)); next!(1); }
                    0x2c => { push!(local!(2)); next!(1); }
                    0x2d => { push!(local!(3)); next!(1); }
                    0x2E => { load!(i32, |value| push_int!(value)) }
                    0x2F => { load!(u64, |value| push2!(value)) }
                    0x30 | 0x32 => { load!(u32, |value| push!(u64::from(value))) }
                    0x31 => { load!(u64, |value| push2!(value)) }
                    0x33 => { load!(i8, |value| push_int!(i32::from(value))) }
                    0x34 => { load!(u16, |value| push!(u64::from(value))) }
                    0x35 => { load!(i16, |value| push_int!(i32::from(value))) }
                    0x36 | 0x38 | 0x3A => { set_local!(u1!(1) as usize, pop!()); next!(2); }
                    0x37 | 0x39 => { set_local!(u1!(1) as usize, pop2!()); next!(2); }
                    0x3b => { set_local!(0, pop!()); next!(1); }
                    0x3c => { set_local!(1, pop!()); next!(1); }
                    0x3d => { set_local!(2, pop!()); next!(1); }
                    0x3e => { set_local!(3, pop!()); next!(1); }
                    0x3f => { set_local!(0, pop2!()); next!(1); }
                    0x40 => { set_local!(1, pop2!()); next!(1); }
                    0x41 => { set_local!(2, pop2!()); next!(1); }
                    0x42 => { set_local!(3, pop2!()); next!(1); }
                    0x43 => { set_local!(0, pop!()); next!(1); }
                    0x44 => { set_local!(1, pop!()); next!(1); }
                    0x45 => { set_local!(2, pop!()); next!(1); }
                    0x46 => { set_local!(3, pop!()); next!(1); }
                    0x47 => { set_local!(0, pop2!()); next!(1); }
                    0x48 => { set_local!(1, pop2!()); next!(1); }
                    0x49 => { set_local!(2, pop2!()); next!(1); }
                    0x4a => { set_local!(3, pop2!()); next!(1); }
                    0x4b => { set_local!(0, pop!()); next!(1); }
                    0x4c => { set_local!(1, pop!()); next!(1); }
                    0x4d => { set_local!(2, pop!()); next!(1); }
                    0x4e => { set_local!(3, pop!()); next!(1); }
                    0x4F | 0x51 => { store!(pop!(), |value, array, index| array.set_element(index, value as u32)) }
                    0x50 | 0x52 => { store!(pop2!(), |value, array, index| array.set_element(index, value)) }
                    0x53 => { 
                        let value = pop_reference!();
                        let (array, index) = element!(pop);
                        if !value.is_null() {
                            // SAFETY: verified code stores references into arrays of references, whose class has one for its elements.
                            let element = unsafe { array.class().element.unwrap_unchecked() };
                            if !value.class().is_subtype_of(element) {
                                throw!(messages::array_store({ save!(); &mut *thread }, value));
                            }
                        }
                        array.set_reference_element(index, value);
                        next!(1);
                     }
                    0x54 => { store!(pop!(), |value, array, index| {
                            let mask = if array.class().basic == BasicType::Boolean { 1 } else { 0xFF };
                            array.set_element(index, value as u8 & mask);
                        }) }
                    0x55 | 0x56 => { store!(pop!(), |value, array, index| array.set_element(index, value as u16)) }
                    0x57 => { pop!(); next!(1); }
                    0x58 => { pop2!(); next!(1); }
                    0x59 => { push!(peek!(1)); next!(1); }
                    0x5A => { let (a, b) = (peek!(1), peek!(2)); poke!(2, a); poke!(1, b); push!(a); next!(1); }
                    0x5B => { let (a, b, c) = (peek!(1), peek!(2), peek!(3)); poke!(3, a); poke!(2, c); poke!(1, b); push!(a); next!(1); }
                    0x5C => { let (a, b) = (peek!(1), peek!(2)); push!(b); push!(a); next!(1); }
                    0x5D => { let (a, b, c) = (peek!(1), peek!(2), peek!(3)); poke!(3, b); poke!(2, a); poke!(1, c); push!(b); push!(a); next!(1); }
                    0x5E => { let (a, b, c, d) = (peek!(1), peek!(2), peek!(3), peek!(4)); poke!(4, b); poke!(3, a); poke!(2, d); poke!(1, c); push!(b); push!(a); next!(1); }
                    0x5F => { let (a, b) = (peek!(1), peek!(2)); poke!(1, b); poke!(2, a); next!(1); }
                    0x60 => { binary!(pop_int, push_int, |a, b| a.wrapping_add(b)) }
                    0x61 => { binary!(pop_long, push_long, |a, b| a.wrapping_add(b)) }
                    0x62 => { binary!(pop_float, push_float, |a, b| a + b) }
                    0x63 => { binary!(pop_double, push_double, |a, b| a + b) }
                    0x64 => { binary!(pop_int, push_int, |a, b| a.wrapping_sub(b)) }
                    0x65 => { binary!(pop_long, push_long, |a, b| a.wrapping_sub(b)) }
                    0x66 => { binary!(pop_float, push_float, |a, b| a - b) }
                    0x67 => { binary!(pop_double, push_double, |a, b| a - b) }
                    0x68 => { binary!(pop_int, push_int, |a, b| a.wrapping_mul(b)) }
                    0x69 => { binary!(pop_long, push_long, |a, b| a.wrapping_mul(b)) }
                    0x6a => { binary!(pop_float, push_float, |a, b| a * b) }
                    0x6b => { binary!(pop_double, push_double, |a, b| a * b) }
                    0x6c => { 
                        let b = pop_int!();
                        let a = pop_int!();
                        if b == 0 {
                            throw!(messages::division({ save!(); &mut *thread }));
                        }
                        push_int!(a.wrapping_div(b));
                        next!(1);
                     }
                    0x6d => { 
                        let b = pop_long!();
                        let a = pop_long!();
                        if b == 0 {
                            throw!(messages::division({ save!(); &mut *thread }));
                        }
                        push_long!(a.wrapping_div(b));
                        next!(1);
                     }
                    0x6e => { binary!(pop_float, push_float, |a, b| a / b) }
                    0x6f => { binary!(pop_double, push_double, |a, b| a / b) }
                    0x70 => { 
                        let b = pop_int!();
                        let a = pop_int!();
                        if b == 0 {
                            throw!(messages::division({ save!(); &mut *thread }));
                        }
                        push_int!(a.wrapping_rem(b));
                        next!(1);
                     }
                    0x71 => { 
                        let b = pop_long!();
                        let a = pop_long!();
                        if b == 0 {
                            throw!(messages::division({ save!(); &mut *thread }));
                        }
                        push_long!(a.wrapping_rem(b));
                        next!(1);
                     }
                    0x72 => { binary!(pop_float, push_float, |a, b| a % b) }
                    0x73 => { binary!(pop_double, push_double, |a, b| a % b) }
                    0x74 => { unary!(pop_int, push_int, |a| a.wrapping_neg()) }
                    0x75 => { unary!(pop_long, push_long, |a| a.wrapping_neg()) }
                    0x76 => { unary!(pop_float, push_float, |a| -a) }
                    0x77 => { unary!(pop_double, push_double, |a| -a) }
                    0x78 => { binary!(pop_int, push_int, |a, b| a.wrapping_shl(b.cast_unsigned())) }
                    0x79 => { let b = pop_int!(); let a = pop_long!(); push_long!(a.wrapping_shl(b.cast_unsigned())); next!(1); }
                    0x7a => { binary!(pop_int, push_int, |a, b| a.wrapping_shr(b.cast_unsigned())) }
                    0x7b => { let b = pop_int!(); let a = pop_long!(); push_long!(a.wrapping_shr(b.cast_unsigned())); next!(1); }
                    0x7C => { binary!(pop_int, push_int, |a, b| a.cast_unsigned().wrapping_shr(b.cast_unsigned()).cast_signed()) }
                    0x7D => { let b = pop_int!(); let a = pop2!(); push2!(a.wrapping_shr(b.cast_unsigned())); next!(1); }
                    0x7e => { binary!(pop, push, |a, b| a & b) }
                    0x7f => { binary!(pop2, push2, |a, b| a & b) }
                    0x80 => { binary!(pop, push, |a, b| a | b) }
                    0x81 => { binary!(pop2, push2, |a, b| a | b) }
                    0x82 => { binary!(pop, push, |a, b| a ^ b) }
                    0x83 => { binary!(pop2, push2, |a, b| a ^ b) }
                    0x84 => { 
                        let index = u1!(1) as usize;
                        let value = (local!(index) as u32).wrapping_add(i32::from(u1!(2).cast_signed()).cast_unsigned());
                        set_local!(index, u64::from(value));
                        next!(3);
                     }
                    0x85 => { unary!(pop_int, push_long, |a| i64::from(a)) }
                    0x86 => { unary!(pop_int, push_float, |a| a as f32) }
                    0x87 => { unary!(pop_int, push_double, |a| f64::from(a)) }
                    0x88 => { unary!(pop_long, push_int, |a| a as i32) }
                    0x89 => { unary!(pop_long, push_float, |a| a as f32) }
                    0x8a => { unary!(pop_long, push_double, |a| a as f64) }
                    0x8b => { unary!(pop_float, push_int, |a| a as i32) }
                    0x8c => { unary!(pop_float, push_long, |a| a as i64) }
                    0x8d => { unary!(pop_float, push_double, |a| f64::from(a)) }
                    0x8e => { unary!(pop_double, push_int, |a| a as i32) }
                    0x8f => { unary!(pop_double, push_long, |a| a as i64) }
                    0x90 => { unary!(pop_double, push_float, |a| a as f32) }
                    0x91 => { unary!(pop_int, push_int, |a| i32::from(a as i8)) }
                    0x92 => { unary!(pop_int, push_int, |a| i32::from(a as u16)) }
                    0x93 => { unary!(pop_int, push_int, |a| i32::from(a as i16)) }
                    0x94 => { let b = pop_long!(); let a = pop_long!(); push_int!(a.cmp(&b) as i32); next!(1); }
                    0x95 => { compare!(pop_float, -1) }
                    0x96 => { compare!(pop_float, 1) }
                    0x97 => { compare!(pop_double, -1) }
                    0x98 => { compare!(pop_double, 1) }
                    0x99 => { if_int!(|a| a == 0) }
                    0x9f => { if_int!(|a, b| a == b) }
                    0x9a => { if_int!(|a| a != 0) }
                    0xa0 => { if_int!(|a, b| a != b) }
                    0x9b => { if_int!(|a| a < 0) }
                    0xa1 => { if_int!(|a, b| a < b) }
                    0x9c => { if_int!(|a| a >= 0) }
                    0xa2 => { if_int!(|a, b| a >= b) }
                    0x9d => { if_int!(|a| a > 0) }
                    0xa3 => { if_int!(|a, b| a > b) }
                    0x9e => { if_int!(|a| a <= 0) }
                    0xa4 => { if_int!(|a, b| a <= b) }
                    0xA5 => { let b = pop!(); let a = pop!(); branch!(a as u32 == b as u32) }
                    0xA6 => { let b = pop!(); let a = pop!(); branch!(a as u32 != b as u32) }
                    0xA7 => { branch!(true) }
                    0xA8 | 0xC9 => { 
                        let length = if opcode == 0xA8 { 3 } else { 5 };
                        push!((pc.addr() - method!().code.as_ptr().addr() + length) as u64);
                        jump!(if opcode == 0xA8 { isize::from(u2!(1).cast_signed()) } else { s4_at!(pc.wrapping_add(1)) as isize });
                     }
                    0xA9 => { pc = method!().code.as_ptr().wrapping_add(local!(u1!(1) as usize) as usize).cast_const(); continue; }
                    0xAA => { 
                        let table = pc.map_addr(|address| (address + 4) & !3);
                        let (default, low, high) = (s4_at!(table), s4_at!(table.wrapping_add(4)), s4_at!(table.wrapping_add(8)));
                        let value = pop_int!();
                        let offset = if value < low || value > high {
                            default
                        } else {
                            s4_at!(table.wrapping_add(12 + 4 * (value.wrapping_sub(low)).cast_unsigned() as usize))
                        };
                        jump!(offset as isize);
                     }
                    0xAB => { 
                        let table = pc.map_addr(|address| (address + 4) & !3);
                        let (default, count) = (s4_at!(table), s4_at!(table.wrapping_add(4)).cast_unsigned() as usize);
                        let value = pop_int!();
                        let (mut low, mut high) = (0, count);
                        let mut offset = default;
                        while low < high {
                            let middle = low.midpoint(high);
                            let pair = table.wrapping_add(8 + middle * 8);
                            match value.cmp(&s4_at!(pair)) {
                                std::cmp::Ordering::Less => high = middle,
                                std::cmp::Ordering::Greater => low = middle + 1,
                                std::cmp::Ordering::Equal => {
                                    offset = s4_at!(pair.wrapping_add(4));
                                    break;
                                }
                            }
                        }
                        jump!(offset as isize);
                     }
                    0xAC => { 
                        let value = pop!() as u32;
                        let value = match method!().returns {
                            BasicType::Boolean => value & 1,
                            BasicType::Byte => i32::from(value as i8).cast_unsigned(),
                            BasicType::Short => i32::from(value as i16).cast_unsigned(),
                            BasicType::Char => value & 0xFFFF,
                            _ => value,
                        };
                        break 'leave Leave::Return(u64::from(value), 1);
                     }
                    0xAE | 0xB0 => { break 'leave Leave::Return(pop!(), 1); }
                    0xAD | 0xAF => { break 'leave Leave::Return(pop2!(), 2); }
                    0xB1 => { break 'leave Leave::Return(0, 0); }
                    0xb2 => { attempt!(slow::field(thread, method!(), pc, true, false));
                        // Still slow while another thread, or this one, initialises the class.
                        if u1!(0) == 0xb2 {
                            let entry = pool!().field(u2!(1));
                            let mirror = entry.class.mirror();
                            let value = slow::read_field(mirror, entry.offset, entry.kind);
                            if entry.kind.slots() == 2 { push2!(value) } else { push!(value) }
                            next!(3);
                        }
                        continue;
                     }
                    0xb3 => { attempt!(slow::field(thread, method!(), pc, true, true));
                        // Still slow while another thread, or this one, initialises the class.
                        if u1!(0) == 0xb3 {
                            let entry = pool!().field(u2!(1));
                            let mirror = entry.class.mirror();
                            let value = if entry.kind.slots() == 2 { pop2!() } else { pop!() };
                            slow::write_field(mirror, entry.offset, entry.kind, value);
                            next!(3);
                        }
                        continue;
                     }
                    0xb4 => { attempt!(slow::field(thread, method!(), pc, false, false)); continue; }
                    0xb5 => { attempt!(slow::field(thread, method!(), pc, false, true)); continue; }
                    0xb6 => { attempt!(slow::call(thread, pool!(), pc, MethodKind::Virtual)); continue; }
                    0xb7 => { attempt!(slow::call(thread, pool!(), pc, MethodKind::Special)); continue; }
                    0xb9 => { attempt!(slow::call(thread, pool!(), pc, MethodKind::Interface)); continue; }
                    0xB8 => { 
                        attempt!(slow::call(thread, pool!(), pc, MethodKind::Static));
                        if u1!(0) == 0xB8 {
                            let entry = pool!().method(u2!(1));
                            break 'leave Leave::Call(entry.method, sp.wrapping_sub(entry.argument_slots));
                        }
                        continue;
                     }
                    0xBA => { 
                        let number = u32::from_ne_bytes([u1!(1), u1!(2), u1!(3), u1!(4)]);
                        attempt!(slow::call_site(thread, pool!(), pc, number));
                        continue;
                     }
                    0xBB => { let object = attempt!(slow::new(thread, pool!(), pc)); push!(object.slot()); next!(3); }
                    0xBC => { 
                        let length = pop_int!();
                        let array = attempt!(slow::primitive_array(thread, u1!(1), length));
                        push!(array.slot());
                        next!(2);
                     }
                    0xBD => { attempt!(slow::class(thread, pool!(), pc, quick::ANEWARRAY_QUICK)); continue; }
                    0xBE => { let array = null_check!(pop_reference!()); push!(u64::from(array.length())); next!(1); }
                    0xBF => { let exception = null_check!(pop_reference!()); throw!(thread.throw(exception)); }
                    0xc0 => { 
                        // A null needs no class.
                        if peek!(1) as u32 == 0 {
                            next!(3);
                        }
                        attempt!(slow::class(thread, pool!(), pc, quick::CHECKCAST_QUICK));
                        continue;
                     }
                    0xc1 => { 
                        // A null needs no class.
                        if peek!(1) as u32 == 0 {
                            next!(3);
                        }
                        attempt!(slow::class(thread, pool!(), pc, quick::INSTANCEOF_QUICK));
                        continue;
                     }
                    0xC2 => { let object = null_check!(Reference::of_slot(peek!(1))); attempt!(monitor::enter(thread, object)); pop!(); next!(1); }
                    0xC3 => { let object = null_check!(Reference::of_slot(peek!(1))); attempt!(monitor::exit(thread, object)); pop!(); next!(1); }
                    0xC4 => { 
                        let index = u2!(2) as usize;
                        match u1!(1) {
                            0x15 | 0x17 | 0x19 => push!(local!(index)),
                            0x16 | 0x18 => push2!(local!(index)),
                            0x36 | 0x38 | 0x3A => set_local!(index, pop!()),
                            0x37 | 0x39 => set_local!(index, pop2!()),
                            0xA9 => {
                                pc = method!().code.as_ptr().wrapping_add(local!(index) as usize).cast_const();
                                continue;
                            }
                            _ => {
                                let value = (local!(index) as u32).wrapping_add(i32::from(u2!(4).cast_signed()).cast_unsigned());
                                set_local!(index, u64::from(value));
                                next!(6);
                            }
                        }
                        next!(4);
                     }
                    0xC5 => { 
                        let dimensions = u1!(3) as usize;
                        let counts: Vec<i32> = (0..dimensions).map(|at| (peek!(dimensions - at) as u32).cast_signed()).collect();
                        let array = attempt!(slow::multi_array(thread, pool!(), pc, &counts));
                        sp = sp.wrapping_sub(dimensions);
                        push!(array.slot());
                        next!(4);
                     }
                    0xC6 => { let a = pop!() as u32; branch!(a == 0) }
                    0xC7 => { let a = pop!() as u32; branch!(a != 0) }
                    0xC8 => { jump!(s4_at!(pc.wrapping_add(1)) as isize); }
                    quick::GETFIELD_BYTE => { 
                        let entry = pool!().field(u2!(1));
                        let object = null_check!(pop_reference!());
                        let value = object.read::<i8>(entry.offset);
                        push_int!(i32::from(value));
                        next!(3);
                     }
                    quick::GETFIELD_CHAR => { 
                        let entry = pool!().field(u2!(1));
                        let object = null_check!(pop_reference!());
                        let value = object.read::<u16>(entry.offset);
                        push!(u64::from(value));
                        next!(3);
                     }
                    quick::GETFIELD_SHORT => { 
                        let entry = pool!().field(u2!(1));
                        let object = null_check!(pop_reference!());
                        let value = object.read::<i16>(entry.offset);
                        push_int!(i32::from(value));
                        next!(3);
                     }
                    quick::GETFIELD_WORD => { 
                        let entry = pool!().field(u2!(1));
                        let object = null_check!(pop_reference!());
                        let value = object.read::<u32>(entry.offset);
                        push!(u64::from(value));
                        next!(3);
                     }
                    quick::GETFIELD_LONG => { 
                        let entry = pool!().field(u2!(1));
                        let object = null_check!(pop_reference!());
                        let value = object.read::<u64>(entry.offset);
                        push2!(value);
                        next!(3);
                     }
                    quick::GETFIELD_VOLATILE => { 
                        let entry = pool!().field(u2!(1));
                        let object = null_check!(pop_reference!());
                        let value = slow::read_field(object, entry.offset, entry.kind);
                        if entry.kind.slots() == 2 { push2!(value) } else { push!(value) }
                        next!(3);
                     }
                    quick::PUTFIELD_BYTE => { 
                        let entry = pool!().field(u2!(1));
                        let value = pop!();
                        let object = null_check!(pop_reference!());
                        object.write(entry.offset, value as u8);
                        next!(3);
                     }
                    quick::PUTFIELD_SHORT => { 
                        let entry = pool!().field(u2!(1));
                        let value = pop!();
                        let object = null_check!(pop_reference!());
                        object.write(entry.offset, value as u16);
                        next!(3);
                     }
                    quick::PUTFIELD_WORD => { 
                        let entry = pool!().field(u2!(1));
                        let value = pop!();
                        let object = null_check!(pop_reference!());
                        object.write(entry.offset, value as u32);
                        next!(3);
                     }
                    quick::PUTFIELD_LONG => { 
                        let entry = pool!().field(u2!(1));
                        let value = pop2!();
                        let object = null_check!(pop_reference!());
                        object.write(entry.offset, value);
                        next!(3);
                     }
                    quick::PUTFIELD_REFERENCE => { 
                        let entry = pool!().field(u2!(1));
                        let value = pop!();
                        let object = null_check!(pop_reference!());
                        object.set_reference(entry.offset, Reference::of_slot(value));
                        next!(3);
                     }
                    quick::PUTFIELD_OTHER => { 
                        let entry = pool!().field(u2!(1));
                        let value = if entry.kind.slots() == 2 { pop2!() } else { pop!() };
                        let object = null_check!(pop_reference!());
                        slow::write_field(object, entry.offset, entry.kind, value);
                        next!(3);
                     }
                    quick::GETSTATIC_WORD => { 
                        let entry = pool!().field(u2!(1));
                        push!(u64::from(entry.class.mirror().read::<u32>(entry.offset)));
                        next!(3);
                     }
                    quick::GETSTATIC_QUICK => { 
                        let entry = pool!().field(u2!(1));
                        let value = slow::read_field(entry.class.mirror(), entry.offset, entry.kind);
                        if entry.kind.slots() == 2 { push2!(value) } else { push!(value) }
                        next!(3);
                     }
                    quick::PUTSTATIC_QUICK => { 
                        let entry = pool!().field(u2!(1));
                        let value = if entry.kind.slots() == 2 { pop2!() } else { pop!() };
                        slow::write_field(entry.class.mirror(), entry.offset, entry.kind, value);
                        next!(3);
                     }
                    quick::NEW_QUICK => { 
                        let index = u2!(1);
                        // SAFETY: the instruction is quick since its class is resolved.
                        let class = unsafe { pool!().class_at(index).unwrap_unchecked() };
                        let object = attempt!(allocate::instance(thread, class));
                        push!(object.slot());
                        next!(3);
                     }
                    quick::ANEWARRAY_QUICK => { 
                        let index = u2!(1);
                        // SAFETY: the instruction is quick since its class is resolved.
                        let class = unsafe { pool!().class_at(index).unwrap_unchecked() };
                        let length = pop_int!();
                        let array = attempt!(slow::reference_array(thread, class, length));
                        push!(array.slot());
                        next!(3);
                     }
                    quick::CHECKCAST_QUICK => { 
                        let object = Reference::of_slot(peek!(1));
                        if !object.is_null() {
                            let index = u2!(1);
                            // SAFETY: the instruction is quick since its class is resolved.
                            let class = unsafe { pool!().class_at(index).unwrap_unchecked() };
                            if !object.class().is_subtype_of(class) {
                                throw!(messages::class_cast({ save!(); &mut *thread }, object.class(), class));
                            }
                        }
                        next!(3);
                     }
                    quick::INSTANCEOF_QUICK => { 
                        let object = pop_reference!();
                        let index = u2!(1);
                        // SAFETY: the instruction is quick since its class is resolved.
                        let class = unsafe { pool!().class_at(index).unwrap_unchecked() };
                        push_int!(i32::from(!object.is_null() && object.class().is_subtype_of(class)));
                        next!(3);
                     }
                    quick::INVOKESTATIC_QUICK => { 
                        let entry = pool!().method(u2!(1));
                        break 'leave Leave::Call(entry.method, sp.wrapping_sub(entry.argument_slots));
                     }
                    quick::INVOKESPECIAL_QUICK => { 
                        let entry = pool!().special_method(u2!(1));
                        let base = sp.wrapping_sub(entry.argument_slots);
                        null_check!(Reference::of_slot(peek!(entry.argument_slots)));
                        break 'leave Leave::Call(entry.method, base);
                     }
                    quick::INVOKESPECIAL_INTERFACE => { 
                        let entry = pool!().method(u2!(1));
                        let base = sp.wrapping_sub(entry.argument_slots);
                        let receiver = null_check!(Reference::of_slot(peek!(entry.argument_slots)));
                        let class = pool!().class;
                        if class.is_interface() && !receiver.class().is_subtype_of(class) {
                            attempt!(Err(messages::not_below(thread, receiver.class(), class)));
                        }
                        break 'leave Leave::Call(entry.method, base);
                     }
                    quick::INVOKEVIRTUAL_DIRECT => { 
                        let entry = pool!().method(u2!(1));
                        let base = sp.wrapping_sub(entry.argument_slots);
                        null_check!(Reference::of_slot(peek!(entry.argument_slots)));
                        break 'leave Leave::Call(entry.method, base);
                     }
                    quick::INVOKEVIRTUAL_QUICK => { 
                        let entry = pool!().method(u2!(1));
                        let base = sp.wrapping_sub(entry.argument_slots);
                        let receiver = null_check!(Reference::of_slot(peek!(entry.argument_slots)));
                        let vtable = receiver.class().vtable;
                        // SAFETY: a receiver's class has at least the vtable of the class in which the method was resolved.
                        let target = unsafe { vtable.as_ptr().add(entry.vtable_index as usize).read() };
                        break 'leave Leave::Call(target, base);
                     }
                    quick::INVOKEINTERFACE_QUICK => { 
                        let index = u2!(1);
                        let entry = pool!().method(index);
                        let base = sp.wrapping_sub(entry.argument_slots);
                        let receiver = null_check!(Reference::of_slot(peek!(entry.argument_slots)));
                        let cache = pool!().entry(index).cache.load(Ordering::Acquire);
                        let target = if (cache >> 32) as u32 == receiver.class().offset() {
                            // SAFETY: the cache holds a class and a method.
                            unsafe { Meta::from_offset(cache as u32).unwrap_unchecked() }
                        } else {
                            attempt!(slow::interface_method(thread, pool!(), pc, receiver))
                        };
                        break 'leave Leave::Call(target, base);
                     }
                    quick::INVOKEHANDLE_QUICK => { 
                        let index = u2!(1);
                        let entry = pool!().method(index);
                        let appendix = pool!().entry(index).cache.load(Ordering::Acquire);
                        if let Some(appendix) = Global::of_index(appendix as u32) {
                            push!(appendix.get().slot());
                        }
                        break 'leave Leave::Call(entry.method, sp.wrapping_sub(entry.argument_slots));
                     }
                    quick::INVOKEDYNAMIC_QUICK => { 
                        let number = u32::from_ne_bytes([u1!(1), u1!(2), u1!(3), u1!(4)]);
                        let site = &pool!().call_sites.get()[number as usize];
                        // SAFETY: the instruction is quick since its site is linked.
                        let target = unsafe { site.method.get().unwrap_unchecked() };
                        if let Some(appendix) = Global::of_index(site.appendix.load(Ordering::Acquire) as u32) {
                            push!(appendix.get().slot());
                        }
                        break 'leave Leave::Call(target, sp.wrapping_sub(target.argument_slots as usize));
                     }
                    quick::LDC_REFERENCE => { 
                        let global = pool!().global_at(u16::from(u1!(1)));
                        push!(global.map_or(0, |global| global.get().slot()));
                        next!(2);
                     }
                    quick::LDC_W_REFERENCE => { 
                        let global = pool!().global_at(u2!(1));
                        push!(global.map_or(0, |global| global.get().slot()));
                        next!(3);
                     }
                    quick::LDC_WORD => { push!(pool!().entry(u16::from(u1!(1))).value); next!(2); }
                    // All of the rest by name, so that no check of bounds comes before the jump.
                    0xCA | 0xE9..=u8::MAX => {
                        throw!(exceptions::throw({ save!(); &mut *thread }, "java/lang/VerifyError", "Bad instruction"))
                    }
                }
            }
        };
        match leave {
            Leave::Call(target, base) => {
                let mut target = target;
                sp = base;
                save!();
                let result = loop {
                    match target.entry() {
                        Entry::Bytecode => match push_frame(thread, target, base, 0) {
                            Ok(pushed) => {
                                frame = pushed;
                                locals = base;
                                sp = frame.wrapping_add(HEADER);
                                // SAFETY: the frame has a header. While the thread waited for a lock, the class may have been redefined.
                                pc = std::ptr::with_exposed_provenance(unsafe { frame.add(PC).read() } as usize);
                                break Ok(());
                            }
                            Err(thrown) => break Err(thrown),
                        },
                        Entry::Native | Entry::NativeUnlinked => match native::call_native(thread, target, base) {
                            Ok(value) => {
                                // SAFETY: the caller's operand stack has room for the result.
                                unsafe { base.write(value) };
                                sp = base.wrapping_add(target.returns.slots() as usize);
                                // SAFETY: the opcode of the call.
                                pc = pc.wrapping_add(quick::call_length(unsafe { pc.read() }));
                                break Ok(());
                            }
                            Err(thrown) => break Err(thrown),
                        },
                        _ => match slow::redirect(thread, target, base) {
                            Ok(next) => target = next,
                            Err(thrown) => break Err(thrown),
                        },
                    }
                };
                if result.is_err() {
                    unwind::unwind(thread)?;
                    reload!();
                }
            }
            Leave::Return(value, slots) => {
                // SAFETY: the header is there.
                let lock = unsafe { frame.add(LOCK).read() };
                if lock != 0 {
                    save!();
                    // SAFETY: so that unwinding does not unlock again.
                    unsafe { frame.add(LOCK).write(0) };
                    if monitor::exit(thread, Reference::of_slot(lock)).is_err() {
                        unwind::unwind(thread)?;
                        reload!();
                        continue;
                    }
                }
                let base = locals;
                // SAFETY: it is the youngest frame.
                if unsafe { pop_frame(thread, frame) } {
                    return Ok(value);
                }
                reload!();
                // SAFETY: the caller's operand stack has room for the result; `pc` is at the call.
                unsafe {
                    base.write(value);
                    sp = base.wrapping_add(slots);
                    pc = pc.add(quick::call_length(pc.read()));
                }
                if thread.poll.load(Ordering::Relaxed) != 0 {
                    save!();
                    if slow::poll(thread).is_err() {
                        unwind::unwind(thread)?;
                        reload!();
                    }
                }
            }
            Leave::Throw => {
                unwind::unwind(thread)?;
                reload!();
            }
        }
    }
}

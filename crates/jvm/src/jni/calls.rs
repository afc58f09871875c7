//! Calling methods from C: by the receiver's class, of a given class, static; and making objects.

use std::mem::MaybeUninit;

use super::environment::{Env, MethodId, Object, class, get, making, method, running};
use super::variadic::{Source, VaList, variadic};
use crate::arena::Meta;
use crate::exceptions;
use crate::interpreter;
use crate::link;
use crate::metadata::{BasicType, Method};
use crate::object::Reference;
use crate::thread::{Result, Thread};

/// Which method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selection {
    /// That of the receiver's class.
    Virtual,
    /// That of the id.
    Direct,
}

/// Argument slots, as many as a method may have.
struct Slots {
    slots: [MaybeUninit<u64>; 256],
    count: usize,
}

impl Slots {
    fn new(method: Meta<Method>, receiver: Option<Reference>, mut arguments: impl Source) -> Self {
        let mut slots = Self { slots: [const { MaybeUninit::uninit() }; 256], count: 0 };
        if let Some(receiver) = receiver {
            slots.push(receiver.slot());
        }
        let descriptor = method.descriptor.bytes();
        let mut at = 1;
        while let Some(&letter) = descriptor.get(at)
            && letter != b')'
        {
            let kind = BasicType::of(letter);
            if kind == BasicType::Reference {
                at += descriptor[at..].iter().take_while(|&&byte| byte == b'[').count();
                if descriptor.get(at) == Some(&b'L') {
                    at += descriptor[at..].iter().position(|&byte| byte == b';').unwrap_or(0);
                }
            }
            at += 1;
            slots.push(arguments.next(kind));
            if kind.slots() == 2 {
                slots.push(0);
            }
        }
        slots
    }

    fn push(&mut self, slot: u64) {
        self.slots[self.count].write(slot);
        self.count += 1;
    }

    fn get(&self) -> &[u64] {
        // SAFETY: so many were written.
        unsafe { std::slice::from_raw_parts(self.slots.as_ptr().cast(), self.count) }
    }
}

fn invoke(
    thread: &mut Thread,
    receiver: Option<Object>,
    selection: Selection,
    id: MethodId,
    arguments: impl Source,
) -> Result<u64> {
    let mut target = method(id);
    let receiver = receiver.filter(|_| !target.is_static()).map(get);
    if let Some(receiver) = receiver {
        if receiver.is_null() {
            return Err(exceptions::null_pointer(thread));
        }
        if selection == Selection::Virtual {
            target = link::select_method(receiver.class(), target);
        }
    } else if !target.is_static() {
        return Err(exceptions::null_pointer(thread));
    }
    let slots = Slots::new(target, receiver, arguments);
    let result = interpreter::call(thread, target, slots.get());
    if super::checks::is_on() {
        super::checks::called(thread, target.returns, selection == Selection::Virtual, target.is_static());
    }
    result
}

fn construct(env: Env, class_object: Object, id: MethodId, arguments: impl Source) -> Object {
    making(env, |thread| {
        let class = class(class_object);
        let object = super::classes::allocate(thread, class)?;
        let object = thread.handle(object);
        let constructor = method(id);
        let slots = Slots::new(constructor, Some(object.get()), arguments);
        interpreter::call(thread, constructor, slots.get())?;
        Ok(object.get())
    })
}

pub(super) extern "C" fn new_object_list(env: Env, class: Object, id: MethodId, list: *mut VaList) -> Object {
    construct(env, class, id, list)
}

pub(super) extern "C" fn new_object_array(env: Env, class: Object, id: MethodId, values: *const u64) -> Object {
    construct(env, class, id, values)
}

variadic!(new_object, new_object_list, 3 arguments, list in "rcx");

/// What a call returns, made of a slot.
trait Returned: Copy + Default {
    fn of(slot: u64) -> Self;
}

macro_rules! returned {
    ($($type:ty: |$slot:ident| $value:expr;)*) => {$(
        impl Returned for $type {
            #[allow(clippy::cast_possible_truncation, reason = "a slot has small values in its low bits")]
            fn of($slot: u64) -> Self {
                $value
            }
        }
    )*};
}

returned! {
    (): |_slot| ();
    u8: |slot| slot as u8;
    i8: |slot| slot as u8 as i8;
    u16: |slot| slot as u16;
    i16: |slot| slot as u16 as i16;
    i32: |slot| slot as u32 as i32;
    i64: |slot| slot.cast_signed();
    f32: |slot| f32::from_bits(slot as u32);
    f64: |slot| f64::from_bits(slot);
}

fn value<T: Returned>(
    env: Env,
    receiver: Option<Object>,
    selection: Selection,
    id: MethodId,
    arguments: impl Source,
) -> T {
    running(env, T::default(), |thread| invoke(thread, receiver, selection, id, arguments).map(T::of))
}

fn reference(env: Env, receiver: Option<Object>, selection: Selection, id: MethodId, arguments: impl Source) -> Object {
    making(env, |thread| invoke(thread, receiver, selection, id, arguments).map(Reference::of_slot))
}

/// The nine functions for methods that return a type.
macro_rules! calls {
    ($($module:ident $type:ty, $function:ident;)*) => {$(
        pub(super) mod $module {
            use super::*;

            variadic!(virtual_, virtual_list, 3 arguments, list in "rcx");
            pub(in crate::jni) extern "C" fn virtual_list(env: Env, object: Object, id: MethodId, list: *mut VaList) -> $type {
                $function(env, Some(object), Selection::Virtual, id, list)
            }
            pub(in crate::jni) extern "C" fn virtual_array(env: Env, object: Object, id: MethodId, values: *const u64) -> $type {
                $function(env, Some(object), Selection::Virtual, id, values)
            }

            variadic!(direct, direct_list, 4 arguments, list in "r8");
            pub(in crate::jni) extern "C" fn direct_list(env: Env, object: Object, _: Object, id: MethodId, list: *mut VaList) -> $type {
                $function(env, Some(object), Selection::Direct, id, list)
            }
            pub(in crate::jni) extern "C" fn direct_array(env: Env, object: Object, _: Object, id: MethodId, values: *const u64) -> $type {
                $function(env, Some(object), Selection::Direct, id, values)
            }

            variadic!(static_, static_list, 3 arguments, list in "rcx");
            pub(in crate::jni) extern "C" fn static_list(env: Env, _: Object, id: MethodId, list: *mut VaList) -> $type {
                $function(env, None, Selection::Direct, id, list)
            }
            pub(in crate::jni) extern "C" fn static_array(env: Env, _: Object, id: MethodId, values: *const u64) -> $type {
                $function(env, None, Selection::Direct, id, values)
            }
        }
    )*};
}

calls! {
    object Object, reference;
    boolean u8, value;
    byte i8, value;
    char u16, value;
    short i16, value;
    int i32, value;
    long i64, value;
    float f32, value;
    double f64, value;
    void (), value;
}

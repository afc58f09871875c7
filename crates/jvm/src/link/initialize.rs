//! Initialisation (JVMS 5.5).

use std::collections::HashMap;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use super::{constraints, verification};
use crate::arena::Meta;
use crate::exceptions;
use crate::handle::{Global, Handle};
use crate::interpreter;
use crate::known;
use crate::loader;
use crate::metadata::{BasicType, Class, ClassState, Tag};
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Result, Thread, Thrown};

const IN_INITIALIZER: &str = "java/lang/ExceptionInInitializerError";

/// Held while a state changes, not while an initialiser runs. One for all classes: it is hardly ever contended.
static STATES: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

/// Links a class: its superclasses first, then verification.
pub fn link(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    if class.state() >= ClassState::Linked {
        return Ok(());
    }
    if let Some(super_class) = class.super_class {
        link(thread, super_class)?;
    }
    for &interface in class.interfaces.get() {
        link(thread, interface)?;
    }
    verification::verify(thread, class)?;
    constraints::check(thread, class)?;
    let _guard = STATES.lock().unwrap_or_else(PoisonError::into_inner);
    if class.state() == ClassState::Loaded {
        class.set_state(ClassState::Linked);
    }
    Ok(())
}

/// Initialises a class, or waits until the thread that does so is done.
pub fn initialize(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    if class.is_initialized() {
        return Ok(());
    }
    thread.scope(|thread| initialize_slow(thread, class))
}

fn initialize_slow(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    link(thread, class)?;
    {
        let mut guard = STATES.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match class.state() {
                ClassState::Initialized => return Ok(()),
                ClassState::Initializing
                    if class.initializer.load(std::sync::atomic::Ordering::Relaxed) == u32::from(thread.id) =>
                {
                    return Ok(());
                }
                ClassState::Initializing => {
                    drop(guard);
                    thread.blocked(|| {
                        let mut guard = STATES.lock().unwrap_or_else(PoisonError::into_inner);
                        while class.state() == ClassState::Initializing {
                            guard = CHANGED.wait(guard).unwrap_or_else(PoisonError::into_inner);
                        }
                    });
                    guard = STATES.lock().unwrap_or_else(PoisonError::into_inner);
                }
                ClassState::Erroneous => {
                    drop(guard);
                    return Err(throw_erroneous(thread, class));
                }
                ClassState::Loaded | ClassState::Linked => break,
            }
        }
        class.initializer.store(u32::from(thread.id), std::sync::atomic::Ordering::Relaxed);
        class.set_state(ClassState::Initializing);
    }
    let above = initialize_above(thread, class);
    let is_above_ready = above.is_ok();
    let mut result = above.and_then(|()| run(thread, class));
    if result.is_err() {
        let exception = thread.take_exception();
        let exception = thread.handle(exception);
        remember(thread, class, exception);
        result = Err(thread.throw(exception.get()));
    }
    let state = if result.is_ok() { ClassState::Initialized } else { ClassState::Erroneous };
    {
        let _guard = STATES.lock().unwrap_or_else(PoisonError::into_inner);
        class.set_state(state);
        CHANGED.notify_all();
    }
    result.map_err(|thrown| {
        if !is_above_ready || thread.exception.class().is_subtype_of(known::error()) {
            return thrown;
        }
        exceptions::throw_wrapping(thread, IN_INITIALIZER)
    })
}

/// Initialises the superclass, and of superinterfaces those that declare methods that are neither abstract nor static, in the order of a depth-first search.
fn initialize_above(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    if class.is_interface() {
        return Ok(());
    }
    if let Some(super_class) = class.super_class {
        initialize(thread, super_class)?;
    }
    class.interfaces.get().iter().try_for_each(|&interface| initialize_interface(thread, interface))
}

fn run(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    set_constants(thread, class)?;
    let initializer = class.declared_method(Symbol::new("<clinit>"), Symbol::new("()V"));
    initializer.map_or(Ok(()), |initializer| interpreter::call(thread, initializer, &[]).map(drop))
}

/// Why classes could not be initialised, by their offsets: each an ExceptionInInitializerError that has a message and a stack trace alone, so that it
/// keeps nothing alive that the exception itself does.
static REASONS: LazyLock<Mutex<HashMap<u32, Global>>> = LazyLock::new(Mutex::default);

/// Forgets those of classes that are unloaded, told by their offsets.
pub(super) fn forget(is_dead: impl Fn(u32) -> bool) {
    REASONS.lock().unwrap_or_else(PoisonError::into_inner).retain(|&class, _| !is_dead(class));
}

/// Remembers why a class could not be initialised, if there is memory for that.
fn remember(thread: &mut Thread, class: Meta<Class>, exception: Handle) {
    match thread.scope(|thread| reason(thread, exception)) {
        Ok(reason) => {
            let reason = loader::unit(class).keep(reason);
            REASONS.lock().unwrap_or_else(PoisonError::into_inner).insert(class.offset(), reason);
        }
        Err(_) => {
            thread.take_exception();
        }
    }
}

fn reason(thread: &mut Thread, exception: Handle) -> Result<Reference> {
    let trace = known::throwable()
        .declared_method(Symbol::new("getOurStackTrace"), Symbol::new("()[Ljava/lang/StackTraceElement;"))
        .expect("the library's exceptions tell their stack traces");
    let trace = Reference::of_slot(interpreter::call(thread, trace, &[exception.slot()])?);
    let trace = thread.handle(trace);
    let message = exception.get().reference(known::throwable_message());
    let message = if message.is_null() { String::new() } else { format!(": {}", strings::text(message)) };
    let during = thread.object.map_or(Reference::NULL, |object| object.get().reference(known::thread_name()));
    let during = if during.is_null() { String::new() } else { strings::text(during) };
    let name = exception.get().class().external_name();
    let message = format!("Exception {name}{message} [in thread \"{during}\"]");
    let reason = exceptions::make(thread, loader::boot_class(IN_INITIALIZER), Some(&message))?.get();
    reason.set_reference(known::throwable_stack_trace(), trace.get());
    Ok(reason)
}

/// Throws what whoever wants a class gets that could not be initialised before.
fn throw_erroneous(thread: &mut Thread, class: Meta<Class>) -> Thrown {
    let message = format!("Could not initialize class {}", class.external_name());
    let thrown = exceptions::throw(thread, "java/lang/NoClassDefFoundError", message);
    let reason = REASONS.lock().unwrap_or_else(PoisonError::into_inner).get(&class.offset()).copied();
    if let Some(reason) = reason
        && thread.exception.class().name.bytes() == b"java/lang/NoClassDefFoundError"
    {
        thread.exception.set_reference(known::throwable_cause(), reason.get());
    }
    thrown
}

fn initialize_interface(thread: &mut Thread, interface: Meta<Class>) -> Result<()> {
    for &parent in interface.interfaces.get() {
        initialize_interface(thread, parent)?;
    }
    if interface.has_default_methods { initialize(thread, interface) } else { Ok(()) }
}

/// Sets the static fields that have a `ConstantValue`.
#[allow(clippy::cast_possible_truncation, reason = "values of constants fit their fields; parsing checked the kinds")]
fn set_constants(thread: &mut Thread, class: Meta<Class>) -> Result<()> {
    let pool = class.constants();
    for &(field, constant) in pool.constant_values.get() {
        let field = &class.fields.get()[field as usize];
        let value = pool.entry(constant).value;
        if pool.tag(constant) == Tag::String {
            let string = strings::intern_symbol(thread, pool.symbol(constant))?;
            class.mirror().set_reference(field.offset, string.get());
            continue;
        }
        let mirror = class.mirror();
        match field.kind {
            BasicType::Boolean => mirror.write(field.offset, value as u8 & 1),
            BasicType::Byte => mirror.write(field.offset, value as u8),
            BasicType::Char | BasicType::Short => mirror.write(field.offset, value as u16),
            BasicType::Int | BasicType::Float => mirror.write(field.offset, value as u32),
            _ => mirror.write(field.offset, value),
        }
    }
    Ok(())
}

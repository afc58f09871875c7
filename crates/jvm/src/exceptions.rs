//! Throwing Java exceptions from Rust.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::allocate;
use crate::arena::Meta;
use crate::handle::{Global, Handle};
use crate::interpreter;
use crate::known;
use crate::link;
use crate::loader;
use crate::metadata::Class;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{Thread, Thrown};

thread_local! {
    /// Whether an OutOfMemoryError is being made, for which memory may run out too.
    static MAKING: Cell<bool> = const { Cell::new(false) };
}

static OUT_OF_MEMORY: OnceLock<Global> = OnceLock::new();
static STACK_OVERFLOW: OnceLock<Global> = OnceLock::new();

/// Makes the errors that are thrown when nothing can be made any more.
pub fn preallocate(thread: &mut Thread) -> Result<(), Thrown> {
    let class = loader::boot_class("java/lang/OutOfMemoryError");
    link::initialize(thread, class)?;
    let error = make(thread, class, Some("Java heap space"))?;
    let _ = OUT_OF_MEMORY.set(Global::new(error.get()));
    let class = loader::boot_class("java/lang/StackOverflowError");
    link::initialize(thread, class)?;
    let error = make(thread, class, None)?;
    let _ = STACK_OVERFLOW.set(Global::new(error.get()));
    Ok(())
}

/// Throws OutOfMemoryError: one of its own if what was refused was more than that takes, otherwise the one object that was made in advance.
#[cold]
pub fn out_of_memory(thread: &mut Thread) -> Thrown {
    if !MAKING.replace(true) {
        let class = loader::boot_class("java/lang/OutOfMemoryError");
        let made = thread.scope(|thread| make(thread, class, Some("Java heap space")).map(Handle::get));
        MAKING.set(false);
        if let Ok(error) = made {
            return thread.throw(error);
        }
    }
    let error = OUT_OF_MEMORY.get().expect("memory does not run out while the virtual machine boots");
    thread.throw(error.get())
}

/// What is done when memory has run out for the first time, besides throwing.
#[derive(Clone, Debug, Default)]
pub struct Reaction {
    /// Commands for the host's shell, in which `%p` is this process: `-XX:OnOutOfMemoryError`.
    pub commands: Vec<String>,
    /// The process ends with status 3: `-XX:+ExitOnOutOfMemoryError`.
    pub exits: bool,
    /// It is told on standard error, not output: `-XX:+DisplayVMOutputToStderr`.
    pub to_errors: bool,
}

static REACTION: OnceLock<Reaction> = OnceLock::new();

/// Sets what is done when memory has run out.
pub(crate) fn set_reaction(reaction: Reaction) {
    let _ = REACTION.set(reaction);
}

/// Does what the command line wants to be done when memory has run out, once.
#[cold]
pub(crate) fn react_to_no_memory(thread: &mut Thread, message: &str) {
    static DONE: AtomicBool = AtomicBool::new(false);
    let Some(reaction) = REACTION.get().filter(|reaction| reaction.exits || !reaction.commands.is_empty()) else {
        return;
    };
    if MAKING.get() || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    let tell = |text: String| if reaction.to_errors { eprintln!("{text}") } else { println!("{text}") };
    for command in &reaction.commands {
        tell(format!("#\n# java.lang.OutOfMemoryError: {message}\n# -XX:OnOutOfMemoryError=\"{command}\""));
        let command = command.replace("%p", &std::process::id().to_string());
        tell(format!("#   Executing /bin/sh -c \"{command}\"..."));
        if let Err(failure) = thread.blocked(|| crate::services::process::shell(&command)) {
            tell(format!("# {failure}"));
        }
    }
    if reaction.exits {
        tell(format!("Terminating due to java.lang.OutOfMemoryError: {message}"));
        std::process::exit(3);
    }
}

/// Throws StackOverflowError.
#[cold]
pub fn stack_overflow(thread: &mut Thread) -> Thrown {
    thread.with_reserve(|thread| {
        let class = loader::boot_class("java/lang/StackOverflowError");
        match make(thread, class, None) {
            Ok(error) => thread.throw(error.get()),
            Err(_) => {
                let error = STACK_OVERFLOW.get().expect("the stack does not overflow while the virtual machine boots");
                thread.throw(error.get())
            }
        }
    })
}

/// Makes an exception by its constructor that takes a message, or none.
pub fn make(thread: &mut Thread, class: Meta<Class>, message: Option<&str>) -> Result<Handle, Thrown> {
    link::initialize(thread, class)?;
    let exception = allocate::instance(thread, class)?;
    let exception = thread.handle(exception);
    let init = Symbol::new("<init>");
    if let Some(message) = message {
        let text = strings::new(thread, message)?;
        if let Some(constructor) = class.declared_method(init, Symbol::new("(Ljava/lang/String;)V")) {
            interpreter::call(thread, constructor, &[exception.slot(), text.slot()])?;
            return Ok(exception);
        }
        let text = thread.handle(text);
        let constructor = class.declared_method(init, Symbol::new("(Ljava/lang/Object;)V"));
        if let Some(constructor) = constructor {
            interpreter::call(thread, constructor, &[exception.slot(), text.slot()])?;
            return Ok(exception);
        }
        exception.get().set_reference(known::throwable_message(), text.get());
    }
    let constructor =
        class.declared_method(init, Symbol::new("()V")).expect("exceptions of the library have a plain constructor");
    interpreter::call(thread, constructor, &[exception.slot()])?;
    Ok(exception)
}

/// Throws an exception of a class of the library.
#[cold]
#[inline(never)]
pub fn throw(thread: &mut Thread, class: &str, message: impl AsRef<str>) -> Thrown {
    throw_new(thread, class, Some(message.as_ref()))
}

/// The same without a message.
#[cold]
#[inline(never)]
pub fn throw_plain(thread: &mut Thread, class: &str) -> Thrown {
    throw_new(thread, class, None)
}

fn throw_new(thread: &mut Thread, class: &str, message: Option<&str>) -> Thrown {
    let mark = thread.handles.mark();
    let class = loader::boot_class(class);
    let thrown = match make(thread, class, message) {
        Ok(exception) => thread.throw(exception.get()),
        Err(thrown) => thrown,
    };
    thread.handles.release(mark);
    thrown
}

/// Throws an exception whose cause is the one that is pending.
pub fn throw_caused(thread: &mut Thread, class: &str, message: &str) -> Thrown {
    let class = loader::boot_class(class);
    throw_for_pending(thread, |thread, cause| {
        let exception = make(thread, class, Some(message))?;
        exception.get().set_reference(known::throwable_cause(), cause.get());
        Ok(exception)
    })
}

/// The same by the constructor that takes a cause alone, and makes the message of it.
pub fn throw_wrapping(thread: &mut Thread, class: &str) -> Thrown {
    let class = loader::boot_class(class);
    throw_for_pending(thread, |thread, cause| {
        link::initialize(thread, class)?;
        let exception = allocate::instance(thread, class)?;
        let exception = thread.handle(exception);
        let constructor = class.declared_method(Symbol::new("<init>"), Symbol::new("(Ljava/lang/Throwable;)V"));
        let constructor = constructor.expect("the library's exceptions of this kind are made of a cause");
        interpreter::call(thread, constructor, &[exception.slot(), cause.slot()])?;
        Ok(exception)
    })
}

fn throw_for_pending(thread: &mut Thread, make: impl FnOnce(&mut Thread, Handle) -> Result<Handle, Thrown>) -> Thrown {
    let mark = thread.handles.mark();
    let cause = thread.take_exception();
    let cause = thread.handle(cause);
    let thrown = match make(thread, cause) {
        Ok(exception) => thread.throw(exception.get()),
        Err(thrown) => thrown,
    };
    thread.handles.release(mark);
    thrown
}

/// `NullPointerException`
#[cold]
#[inline(never)]
pub fn null_pointer(thread: &mut Thread) -> Thrown {
    throw_plain(thread, "java/lang/NullPointerException")
}

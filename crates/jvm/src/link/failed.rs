//! Constants that could not be resolved: whatever has changed since, each attempt fails with the error of the first (JVMS 5.4.3).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::arena::Meta;
use crate::exceptions;
use crate::known;
use crate::loader;
use crate::metadata::Class;
use crate::object::Reference;
use crate::strings;
use crate::thread::{Result, Thread, Thrown};

/// What of a class is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// The constant of an index.
    Constant(u16),
    /// The `invokedynamic` instruction of a number.
    CallSite(u32),
}

/// An error of the library's, as it is made again.
#[derive(Clone, Debug)]
struct Failure {
    class: String,
    message: Option<String>,
    cause: Option<(String, Option<String>)>,
}

type Failures = HashMap<(u32, What), Failure>;

/// By the class's offset and what it is of it.
static FAILURES: LazyLock<Mutex<Failures>> = LazyLock::new(Mutex::default);
/// Whether there is one at all: most programs have none, and resolve much.
static IS_ANY: AtomicBool = AtomicBool::new(false);

fn failures() -> MutexGuard<'static, Failures> {
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets those of a class that is redefined.
pub(super) fn forget_of(class: Meta<Class>) {
    failures().retain(|&(other, _), _| other != class.offset());
}

/// Forgets those of classes that are unloaded, told by their offsets.
pub(super) fn forget(is_dead: impl Fn(u32) -> bool) {
    failures().retain(|&(class, _), _| !is_dead(class));
}

/// What `resolve` finds, unless it has failed before. An error without a message gets `name` for one when it is thrown again.
pub(super) fn once<T>(
    thread: &mut Thread,
    (class, what): (Meta<Class>, What),
    name: impl FnOnce() -> String,
    resolve: impl FnOnce(&mut Thread) -> Result<T>,
) -> Result<T> {
    let key = (class.offset(), what);
    if IS_ANY.load(Ordering::Acquire) {
        let failure = failures().get(&key).cloned();
        if let Some(failure) = failure {
            return Err(throw_again(thread, &failure));
        }
    }
    let result = resolve(thread);
    if result.is_err()
        && let Some(mut failure) = Failure::of(thread.exception, what)
    {
        failure.message.get_or_insert_with(name);
        failures().entry(key).or_insert(failure);
        IS_ANY.store(true, Ordering::Release);
    }
    result
}

impl Failure {
    /// The failure that an exception is; none if another attempt may well do better.
    fn of(exception: Reference, what: What) -> Option<Self> {
        let is_linkage_error = exception.class().is_subtype_of(loader::boot_class("java/lang/LinkageError"));
        // Only those of the library can be made again by name.
        if !is_linkage_error || !exception.class().trusted {
            return None;
        }
        let told = |throwable: Reference| {
            let message = throwable.reference(known::throwable_message());
            (throwable.class().name.text(), (!message.is_null()).then(|| strings::text(message)))
        };
        let cause = exception.reference(known::throwable_cause());
        // A call site's is thrown without.
        let has_cause = !matches!(what, What::CallSite(_)) && !cause.is_null() && cause != exception;
        let (class, message) = told(exception);
        let cause = (has_cause && cause.class().trusted).then(|| told(cause));
        Some(Self { class, message, cause })
    }
}

fn throw_again(thread: &mut Thread, failure: &Failure) -> Thrown {
    let Failure { class, message, cause } = failure;
    let message = message.as_deref().unwrap_or_default();
    let Some((cause, why)) = cause else { return exceptions::throw(thread, class, message) };
    match why {
        Some(why) => exceptions::throw(thread, cause, why),
        None => exceptions::throw_plain(thread, cause),
    };
    exceptions::throw_caused(thread, class, message)
}

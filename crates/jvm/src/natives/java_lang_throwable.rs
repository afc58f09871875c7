//! `java.lang.Throwable` and `StackTraceElement`.
//!
//! A backtrace is an array of `long`: for each frame the method's place in the arena above, the instruction's index below. If classes are among them that
//! may be unloaded, it is an array of objects: that of `long`, and the mirrors of these classes, which it keeps.

use super::{Arguments, Table};
use crate::allocate;
use crate::arena::Meta;
use crate::frame::Frame;
use crate::known;
use crate::link;
use crate::loader;
use crate::metadata::{BasicType, Class, Method, extra};
use crate::object::{Kind, Reference};
use crate::strings;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    ("java/lang/Throwable", &[("fillInStackTrace", "(I)Ljava/lang/Throwable;", fill_in)]),
    (
        "java/lang/StackTraceElement",
        &[("initStackTraceElements", "", elements), ("initStackTraceElement", "", element_of_frame)],
    ),
    ("java/lang/NullPointerException", &[("getExtendedNPEMessage", "", null_pointer_message)]),
];

/// So many frames at most.
const FRAMES_MAX: usize = 1024;
/// In the first word: a hidden frame is above.
const BELOW_HIDDEN: u64 = 1 << 63;
/// In the place of an instruction's index: the method is native.
pub(super) const NATIVE: u64 = 0xFFFF;

fn fill_in(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = arguments.reference(0).class();
    // The frames of fillInStackTrace and of the constructors of the exception do not count.
    let mut constructing = true;
    let (mut below_hidden, mut any) = (false, false);
    let shown = |frame: &Frame| {
        let method = frame.method();
        if constructing {
            let name = method.name.bytes();
            if name == b"fillInStackTrace" || (name == b"<init>" && class.is_subtype_of(method.class)) {
                return false;
            }
            constructing = false;
        }
        let hidden = method.has(extra::HIDDEN) && !crate::bootstrap::hidden_frames();
        below_hidden |= hidden && !any;
        any |= !hidden;
        !hidden
    };
    let mut passing = Vec::new();
    let mut word = |frame: Frame| {
        note_passing(&mut passing, frame.method().class);
        word_of(&frame)
    };
    let mut entries: Vec<u64> = thread.frames().filter(shown).take(FRAMES_MAX).map(&mut word).collect();
    if let Some(first) = entries.first_mut().filter(|_| below_hidden) {
        *first |= BELOW_HIDDEN;
    }
    let depth = i32::try_from(entries.len()).unwrap_or(0);
    let mut backtrace = allocate::filled(thread, BasicType::Long, &entries)?;
    if !passing.is_empty() {
        let words = thread.handle(backtrace);
        backtrace = allocate::object_array(thread, u32::try_from(passing.len() + 1).unwrap_or(1))?;
        backtrace.set_reference_element(0, words.get());
        (1..).zip(&passing).for_each(|(index, class)| backtrace.set_reference_element(index, class.mirror()));
    }
    let exception = arguments.reference(0);
    exception.set_reference(known::throwable_backtrace(), backtrace);
    exception.write(known::throwable_depth(), depth);
    exception.set_reference(known::throwable_stack_trace(), Reference::NULL);
    let empty = known::throwable().declared_field(
        crate::symbol::Symbol::new("UNASSIGNED_STACK"),
        crate::symbol::Symbol::new("[Ljava/lang/StackTraceElement;"),
    );
    if let Some(field) = empty {
        let unassigned = known::throwable().mirror().reference(field.offset);
        exception.set_reference(known::throwable_stack_trace(), unassigned);
    }
    Ok(exception.slot())
}

/// Adds a class that may be unloaded to those that are kept.
fn note_passing(passing: &mut Vec<Meta<Class>>, class: Meta<Class>) {
    // Neighbouring frames are often of the same class.
    if class.shape.loader != 0 && passing.last() != Some(&class) && !passing.contains(&class) {
        passing.push(class);
    }
}

/// The words of an exception's backtrace; null if it has none.
pub(crate) fn backtrace(exception: Reference) -> Reference {
    let backtrace = exception.reference(known::throwable_backtrace());
    let keeps = !backtrace.is_null() && backtrace.shape().kind == Kind::ReferenceArray;
    if keeps { backtrace.reference_element(0) } else { backtrace }
}

fn null_pointer_message(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let backtrace = backtrace(arguments.reference(0));
    if backtrace.is_null() || backtrace.length() == 0 {
        return Ok(0);
    }
    let word: u64 = backtrace.element(0);
    let message = match unpack(word) {
        Some((method, Some(bci))) if word & BELOW_HIDDEN == 0 && !crate::bootstrap::plain_messages() => {
            crate::interpreter::null_pointer_message(method, bci)
        }
        _ => None,
    };
    match message {
        Some(message) => strings::new(thread, &message).map(Reference::slot),
        None => Ok(0),
    }
}

/// The method and instruction of a word of a backtrace.
fn unpack(word: u64) -> Option<(Meta<Method>, Option<u16>)> {
    #[allow(clippy::cast_possible_truncation, reason = "packed by `fill_in`")]
    // SAFETY: packed by `fill_in` from a method.
    let method = unsafe { Meta::<Method>::from_offset((word >> 16) as u32) }?;
    let bci = word & NATIVE;
    Some((method, u16::try_from(bci).ok().filter(|_| bci != NATIVE)))
}

fn elements(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let count = arguments.reference(0).length();
    for index in 0..count {
        let backtrace = backtrace(arguments.reference(1));
        if backtrace.is_null() || index >= backtrace.length() {
            break;
        }
        let Some((method, bci)) = unpack(backtrace.element(index)) else { break };
        let element = arguments.reference(0).reference_element(index);
        thread.scope(|thread| {
            let element = thread.handle(element);
            fill_element(thread, element, method, bci)
        })?;
    }
    Ok(0)
}

/// Fills a `StackTraceElement` from a `StackFrameInfo`.
fn element_of_frame(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    if let Some((method, bci)) = super::java_lang_stack_stream_factory::described(arguments.reference(1)) {
        let element = thread.handle(arguments.reference(0));
        fill_element(thread, element, method, bci)?;
    }
    Ok(0)
}

/// The words of a backtrace of a thread that stands still, hidden frames included; notes classes that may be unloaded.
pub(super) fn trace_of(thread: &Thread, passing: &mut Vec<Meta<Class>>) -> Vec<u64> {
    let word = |frame: Frame| {
        note_passing(passing, frame.method().class);
        word_of(&frame)
    };
    thread.frames().take(FRAMES_MAX).map(word).collect()
}

fn word_of(frame: &Frame) -> u64 {
    (u64::from(frame.method().offset()) << 16) | frame.bci().map_or(NATIVE, u64::from)
}

/// The `StackTraceElement[]` of a backtrace.
pub(super) fn trace_array(thread: &mut Thread, words: &[u64]) -> Result<Reference> {
    let class = known::stack_trace_element();
    link::initialize(thread, class)?;
    let count = u32::try_from(words.len()).unwrap_or(0);
    let array = allocate::reference_array(thread, class, count)?;
    let array = thread.handle(array);
    for (index, &word) in (0..count).zip(words) {
        let Some((method, bci)) = unpack(word) else { continue };
        thread.scope(|thread| -> Result<()> {
            let element = allocate::instance(thread, class)?;
            let element = thread.handle(element);
            array.get().set_reference_element(index, element.get());
            fill_element(thread, element, method, bci)
        })?;
    }
    Ok(array.get())
}

fn fill_element(
    thread: &mut Thread,
    element: crate::handle::Handle,
    method: Meta<Method>,
    bci: Option<u16>,
) -> Result<()> {
    let class = method.class;
    let set = |thread: &mut Thread, name: &str, text: &str| -> Result<()> {
        let string = strings::new(thread, text)?;
        let string = strings::intern(string);
        let offset = known::field(known::stack_trace_element(), name, "Ljava/lang/String;");
        element.get().set_reference(offset, string);
        Ok(())
    };
    set(thread, "declaringClass", &class.external_name())?;
    set(thread, "methodName", &method.name.text())?;
    if let Some(file) = class.source_file {
        set(thread, "fileName", &file.text())?;
    }
    if let Some(module) = link::module_name(class) {
        set(thread, "moduleName", &module)?;
        if class.trusted {
            set(thread, "moduleVersion", &crate::bootstrap::java_version())?;
        }
    }
    let data = loader::data(class.loader);
    if !data.is_boot() {
        let name = data.reference().reference(known::loader_name());
        let offset = known::field(known::stack_trace_element(), "classLoaderName", "Ljava/lang/String;");
        element.get().set_reference(offset, name);
    }
    let offset = known::field(known::stack_trace_element(), "declaringClassObject", "Ljava/lang/Class;");
    element.get().set_reference(offset, class.mirror());
    let line = match bci {
        None => -2,
        Some(bci) => method.line_at(bci).map_or(-1, i32::from),
    };
    element.get().write(known::field(known::stack_trace_element(), "lineNumber", "I"), line);
    Ok(())
}

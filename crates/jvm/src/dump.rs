//! The thread dump of SIGQUIT: what each thread does, what it holds and waits for, and which wait for each other in a circle; in the form that HotSpot's has,
//! which tools read.
//!
//! A frame does not list the monitors of its `synchronized` blocks. But compilers cover each such block by a handler that leaves the monitor in a local
//! variable: so the handlers around the current instruction tell which variables hold monitors.

use std::fmt::Write as _;

use crate::bootstrap;
use crate::frame::Frame;
use crate::handle;
use crate::interpreter;
use crate::known;
use crate::link;
use crate::loader;
use crate::lock;
use crate::object::Reference;
use crate::safepoint::Status;
use crate::services::process;
use crate::strings;
use crate::thread::{self, Thread};

/// Writes the dump of all threads to standard output.
pub(crate) fn print(thread: &mut Thread) {
    let mut text = String::new();
    thread.control.clone().stop_world(|| {
        let mut threads = Vec::new();
        thread::visit_all(|thread| {
            if let Some(told) = Told::of(thread) {
                threads.push(told);
            }
        });
        let _ = write_all(&mut text, &threads);
    });
    print!("{text}");
    let _ = std::io::Write::flush(&mut std::io::stdout());
}

/// What is told of a thread.
struct Told {
    id: u16,
    name: String,
    /// `"name" #number ...`
    head: String,
    state: &'static str,
    /// Its frames with what they hold.
    frames: String,
    /// What it waits to enter.
    blocked: Option<Reference>,
}

/// What a `threadStatus` says.
fn status_of(number: i32) -> Status {
    [Status::Sleeping, Status::Waiting, Status::WaitingTimed, Status::Parked, Status::ParkedTimed, Status::Blocked]
        .into_iter()
        .find(|&status| status as i32 == number)
        .unwrap_or(Status::Runnable)
}

/// How a thread waits, as the end of its first line and as `Thread.State`.
fn state_text(status: i32) -> (&'static str, &'static str) {
    match status_of(status) {
        Status::Sleeping => ("waiting on condition", "TIMED_WAITING (sleeping)"),
        Status::Waiting => ("in Object.wait()", "WAITING (on object monitor)"),
        Status::WaitingTimed => ("in Object.wait()", "TIMED_WAITING (on object monitor)"),
        Status::Parked => ("waiting on condition", "WAITING (parking)"),
        Status::ParkedTimed => ("waiting on condition", "TIMED_WAITING (parking)"),
        Status::Blocked => ("waiting for monitor entry", "BLOCKED (on object monitor)"),
        Status::Runnable => ("runnable", "RUNNABLE"),
    }
}

impl Told {
    fn of(thread: &Thread) -> Option<Self> {
        let object = thread.object?.get();
        let name = object.reference(known::thread_name());
        let name = if name.is_null() { String::new() } else { strings::text(name) };
        let status: i32 = object.read(known::thread_status());
        let (ending, state) = state_text(status);
        let number: i64 = object.read(known::field(known::thread(), "tid", "J"));
        let priority: i32 = object.read(known::thread_priority());
        let daemon = if object.read(known::thread_daemon()) { "daemon " } else { "" };
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let (cpu, elapsed) = (
            process::thread_cpu_ns(thread.host_id) as f64 / 1e6,
            bootstrap::clock().now_ns().saturating_sub(thread.started_ns) as f64 / 1e9,
        );
        let head = format!(
            "\"{name}\" #{number} {daemon}prio={priority} os_prio=0 cpu={cpu:.2}ms elapsed={elapsed:.2}s tid=0x{:016x} nid=0x{:x} {ending}  [0x{:016x}]",
            std::ptr::from_ref(thread).addr(),
            thread.host_id,
            thread.top_frame().map_or(0, |frame| frame.pointer().addr()),
        );
        let waiting = (!thread.waiting.is_null()).then_some(thread.waiting);
        let blocked = waiting.filter(|_| status_of(status) == Status::Blocked);
        let frames = frames(thread, object, status_of(status));
        Some(Self { id: thread.id, name, head, state, frames, blocked })
    }
}

/// An object as the dump has it.
fn object_text(object: Reference) -> String {
    let class = object.class();
    if class == known::class() {
        let name = loader::of_mirror(object).external_name();
        return format!("<0x{:016x}> (a java.lang.Class for {name})", object.address());
    }
    format!("<0x{:016x}> (a {})", object.address(), class.external_name())
}

fn frames(thread: &Thread, object: Reference, status: Status) -> String {
    let mut text = String::new();
    let shown = thread.frames().filter(|frame| !frame.method().has(crate::metadata::extra::HIDDEN));
    for (index, frame) in shown.enumerate() {
        let _ = writeln!(text, "\tat {}", frame_text(frame));
        if index == 0 {
            let waiting = thread.waiting;
            match status {
                Status::Waiting | Status::WaitingTimed if !waiting.is_null() => {
                    let _ = writeln!(text, "\t- waiting on {}", object_text(waiting));
                }
                Status::Blocked if !waiting.is_null() => {
                    let _ = writeln!(text, "\t- waiting to lock {}", object_text(waiting));
                }
                Status::Parked | Status::ParkedTimed => {
                    let offset = known::field(known::thread(), "parkBlocker", "Ljava/lang/Object;");
                    let blocker = object.reference(offset);
                    if !blocker.is_null() {
                        let _ = writeln!(text, "\t- parking to wait for  {}", object_text(blocker));
                    }
                }
                _ => {}
            }
        }
        for held in held(frame) {
            let _ = writeln!(text, "\t- locked {}", object_text(held));
        }
    }
    text
}

/// A frame as dumps and stack traces have it; the module with its version if it is one of the JDK.
pub(crate) fn frame_text(frame: Frame) -> String {
    let method = frame.method();
    let place = match (frame.bci(), method.class.source_file) {
        (None, _) => "Native Method".to_owned(),
        (Some(_), None) => "Unknown Source".to_owned(),
        (Some(bci), Some(file)) => match method.line_at(bci) {
            Some(line) => format!("{file}:{line}"),
            None => file.text(),
        },
    };
    let module = match link::module_name(method.class) {
        Some(module) if method.class.trusted => format!("{module}@{}/", bootstrap::java_version()),
        Some(module) => format!("{module}/"),
        None => String::new(),
    };
    format!("{}.{}({module}{place})", method.class.external_name(), method.name)
}

/// What a frame holds: the monitors of blocks from the innermost on, then that of the method.
pub(crate) fn held(frame: Frame) -> Vec<Reference> {
    let mut held = Vec::new();
    let method = frame.method();
    if let Some(bci) = frame.bci()
        && method.has(crate::metadata::extra::MONITORS)
    {
        let code = interpreter::original_code(&method);
        let mut locals = Vec::new();
        for handler in method.handlers.get() {
            if handler.catch_type == 0
                && (handler.start..handler.end).contains(&bci)
                && let Some(local) = released_by(&code, handler.target)
                && !locals.contains(&local)
            {
                locals.push(local);
                // SAFETY: a local variable of the frame, whose thread stands still; code that compilers made has the monitor in it within the block.
                let object = Reference::of_slot(unsafe { frame.locals().add(usize::from(local)).read() });
                if !object.is_null() {
                    held.push(object);
                }
            }
        }
    }
    let own = frame.locked();
    if !own.is_null() {
        held.push(own);
    }
    held
}

/// The local variable whose monitor a handler leaves first: `astore x; aload n; monitorexit`.
fn released_by(code: &[u8], target: u16) -> Option<u8> {
    let mut at = usize::from(target);
    // The exception goes into a variable.
    at += match code.get(at)? {
        0x3A => 2,
        0x4B..=0x4E => 1,
        _ => return None,
    };
    let local = match *code.get(at)? {
        0x19 => {
            at += 1;
            *code.get(at)?
        }
        short @ 0x2A..=0x2D => short - 0x2A,
        _ => return None,
    };
    (*code.get(at + 1)? == 0xC3).then_some(local)
}

fn write_all(text: &mut String, threads: &[Told]) -> std::fmt::Result {
    let property = |name: &str| {
        bootstrap::properties().iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    };
    let (name, version, info) = (property("java.vm.name"), property("java.vm.version"), property("java.vm.info"));
    writeln!(text, "{}\nFull thread dump {name} ({version} {info}):\n", process::local_time())?;
    for told in threads {
        writeln!(text, "{}\n   java.lang.Thread.State: {}\n{}", told.head, told.state, told.frames)?;
    }
    let (globals, weak) = handle::counts();
    writeln!(text, "JNI global refs: {globals}, weak refs: {weak}\n")?;
    write_deadlocks(text, threads)
}

fn write_deadlocks(text: &mut String, threads: &[Told]) -> std::fmt::Result {
    let holder = |told: &Told| {
        let id = lock::holder(told.blocked?);
        threads.iter().position(|other| other.id == id)
    };
    let mut seen = vec![false; threads.len()];
    let mut count = 0;
    for start in 0..threads.len() {
        let mut path = Vec::new();
        let mut next = Some(start);
        while let Some(index) = next
            && !seen[index]
        {
            seen[index] = true;
            path.push(index);
            next = holder(&threads[index]);
        }
        let Some(first) = next.and_then(|index| path.iter().position(|&other| other == index)) else { continue };
        count += 1;
        let circle = &path[first..];
        writeln!(text, "\nFound one Java-level deadlock:\n=============================")?;
        for (place, &index) in circle.iter().enumerate() {
            let told = &threads[index];
            let Some(object) = told.blocked else { continue };
            let other = &threads[circle[(place + 1) % circle.len()]].name;
            let (address, class) = (object.address(), object.class().external_name());
            writeln!(text, "\"{}\":", told.name)?;
            writeln!(
                text,
                "  waiting to lock monitor 0x{:016x} (object 0x{address:016x}, a {class}),",
                object.mark().as_ptr().addr()
            )?;
            writeln!(text, "  which is held by \"{other}\"\n")?;
        }
        writeln!(text, "Java stack information for the threads listed above:")?;
        writeln!(text, "===================================================")?;
        for &index in circle {
            write!(text, "\"{}\":\n{}", threads[index].name, threads[index].frames)?;
        }
        writeln!(text)?;
    }
    match count {
        0 => Ok(()),
        1 => writeln!(text, "Found 1 deadlock.\n"),
        _ => writeln!(text, "Found {count} deadlocks.\n"),
    }
}

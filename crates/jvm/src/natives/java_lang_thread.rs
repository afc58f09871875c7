//! `java.lang.Thread`, and `Unsafe.park`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::java_lang_throwable::{trace_array, trace_of};
use super::{Arguments, Table, boolean, nothing};
use crate::allocate;
use crate::exceptions;
use crate::handle::{Global, Handle};
use crate::interpreter;
use crate::known;
use crate::loader;
use crate::monitor;
use crate::object::Reference;
use crate::safepoint::{Control, Status};
use crate::symbol::Symbol;
use crate::thread::{HOST_STACK_SIZE, Result, Thread};

pub(super) const TABLES: &[Table] = &[(
    "java/lang/Thread",
    &[
        ("currentThread", "", current_thread),
        ("yield", "()V", |_, _| {
            std::thread::yield_now();
            Ok(0)
        }),
        ("sleep", "(J)V", sleep),
        ("start0", "()V", start),
        ("holdsLock", "", holds_lock),
        ("setPriority0", "", nothing),
        ("interrupt0", "()V", interrupt),
        ("clearInterruptEvent", "()V", clear_interrupt),
        ("setNativeName", "", nothing),
        ("getThreads", "", all_threads),
        ("dumpThreads", "", dump),
        ("stop0", "(Ljava/lang/Object;)V", stop),
        ("suspend0", "()V", suspend),
        ("resume0", "()V", |_, arguments| {
            if let Some(control) = control(arguments.reference(0)) {
                control.resume();
            }
            Ok(0)
        }),
    ],
)];

/// What other threads know of a thread, by the number in `eetop`.
struct Entry {
    number: i64,
    daemon: bool,
    control: Arc<Control>,
}

static THREADS: LazyLock<Mutex<Vec<Entry>>> = LazyLock::new(Mutex::default);
static ENDED: std::sync::Condvar = std::sync::Condvar::new();
static IDS: Mutex<Ids> = Mutex::new(Ids { next: 2, free: Vec::new() });

/// Numbers of threads, which are used again: locks have 16 bits for them.
struct Ids {
    next: u16,
    free: Vec<u16>,
}

impl Ids {
    fn take(&mut self) -> Option<u16> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        let id = self.next;
        self.next = id.checked_add(1)?;
        Some(id)
    }
}

fn ids() -> std::sync::MutexGuard<'static, Ids> {
    IDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enters a thread that runs, and returns its number.
pub(crate) fn enter(thread: &Thread, daemon: bool) -> i64 {
    let number = i64::from(thread.id);
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    threads.push(Entry { number, daemon, control: thread.control.clone() });
    number
}

/// Waits until only daemons run beside the current thread.
pub(crate) fn wait_for_others(thread: &mut Thread) {
    let own = i64::from(thread.id);
    thread.blocked(|| {
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.iter().any(|entry| !entry.daemon && entry.number != own) {
            threads = ENDED.wait(threads).unwrap_or_else(PoisonError::into_inner);
        }
    });
}

/// The control of a `java.lang.Thread` that runs.
fn control(object: Reference) -> Option<Arc<Control>> {
    let number: i64 = object.read(known::thread_eetop());
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    threads.iter().find(|entry| entry.number == number).map(|entry| entry.control.clone())
}

/// `this, exception`
fn stop(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let exception = arguments.reference(1);
    if exception.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    match control(arguments.reference(0)) {
        Some(control) if Arc::ptr_eq(&control, &thread.control) => Err(thread.throw(exception)),
        Some(control) => {
            let exception = Global::new(exception);
            // It may wait for the world's lock.
            thread.blocked(|| control.stop(exception));
            Ok(0)
        }
        None => Ok(0),
    }
}

fn suspend(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    if let Some(control) = control(arguments.reference(0)) {
        control.suspend(&thread.control.clone());
    }
    Ok(0)
}

/// Throws what `Thread.stop` wants this thread to throw, if it was called.
pub(super) fn stopped(thread: &mut Thread) -> Result<()> {
    match thread.control.take_stop() {
        Some(exception) => {
            let thrown = thread.throw(exception.get());
            exception.release();
            Err(thrown)
        }
        None => Ok(()),
    }
}

fn current_thread(thread: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(thread.object.map_or(Reference::NULL, Global::get).slot())
}

fn holds_lock(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    if arguments.reference(0).is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    boolean(monitor::is_held(thread, arguments.reference(0)))
}

fn sleep(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let Ok(millis) = u64::try_from(arguments.long(0)) else {
        return Err(exceptions::throw(thread, "java/lang/IllegalArgumentException", "timeout value is negative"));
    };
    let control = thread.control.clone();
    // Who is interrupted already does not even seem to sleep.
    let mut interrupted = control.parker.interrupted.swap(false, Ordering::AcqRel);
    if !interrupted {
        control.show(Status::Sleeping);
        interrupted = thread.blocked(|| control.parker.sleep(Duration::from_millis(millis)));
        control.show(Status::Runnable);
    }
    stopped(thread)?;
    if interrupted {
        forget_interruption(thread);
        return Err(exceptions::throw(thread, "java/lang/InterruptedException", "sleep interrupted"));
    }
    Ok(0)
}

/// An interruption that is thrown is forgotten, also by `java.lang.Thread`.
pub(crate) fn forget_interruption(thread: &Thread) {
    if let Some(object) = thread.object {
        let offset = known::field(known::thread(), "interrupted", "Z");
        object.get().write(offset, false);
    }
}

/// `Unsafe.park`
pub(super) fn park(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (absolute, time) = (arguments.boolean(1), arguments.long(2));
    let control = thread.control.clone();
    let wall_ms = || i64::try_from(machine::clock::wall_time_ns() / 1_000_000).unwrap_or(i64::MAX);
    let timeout = match (absolute, time) {
        (false, 0) => None,
        (false, nanos) => Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))),
        (true, millis) => Some(Duration::from_millis(u64::try_from(millis - wall_ms()).unwrap_or(0))),
    };
    control.show(if timeout.is_some() { Status::ParkedTimed } else { Status::Parked });
    thread.blocked(|| control.parker.park(timeout));
    control.show(Status::Runnable);
    Ok(0)
}

/// `Unsafe.unpark`
pub(super) fn unpark(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = arguments.reference(1);
    if !object.is_null()
        && let Some(control) = control(object)
    {
        control.parker.unpark();
    }
    Ok(0)
}

fn interrupt(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    if let Some(control) = control(arguments.reference(0)) {
        control.parker.interrupt();
    }
    Ok(0)
}

fn clear_interrupt(thread: &mut Thread, _: Arguments) -> Result<u64> {
    thread.control.parker.interrupted.store(false, Ordering::Release);
    Ok(0)
}

fn start(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = arguments.reference(0);
    let too_many = "unable to create native thread: possibly out of memory or process/resource limits reached";
    let Some(id) = ids().take() else {
        return Err(exceptions::throw(thread, "java/lang/OutOfMemoryError", too_many));
    };
    let daemon: bool = object.read(known::thread_daemon());
    object.write(known::thread_eetop(), i64::from(id));
    object.write(known::thread_status(), 5_i32);
    let global = Global::new(object);
    let (sender, receiver) = std::sync::mpsc::channel();
    let started =
        std::thread::Builder::new().stack_size(HOST_STACK_SIZE).spawn(move || run(id, daemon, global, &sender));
    // The new thread is known to others when `start` returns.
    let entered = started.is_ok() && thread.blocked(|| receiver.recv().is_ok());
    if !entered {
        ids().free.push(id);
        return Err(exceptions::throw(thread, "java/lang/OutOfMemoryError", too_many));
    }
    Ok(0)
}

/// The group around that of the main thread.
pub(crate) fn system_group() -> Reference {
    main_group().reference(known::field(known::thread_group(), "parent", "Ljava/lang/ThreadGroup;"))
}

/// Makes a thread of this host thread, which C code started.
pub(crate) fn attach(
    name: Option<&str>,
    daemon: bool,
    group: impl FnOnce() -> Reference,
) -> Option<&'static mut Thread> {
    let id = ids().take()?;
    let Ok(thread) = Thread::attach(id) else {
        ids().free.push(id);
        return None;
    };
    thread.limit_nesting(crate::services::process::stack_left());
    enter(thread, daemon);
    let group = thread.handle(group());
    if thread.scope(|thread| make_object(thread, name, daemon, group)).is_err() {
        thread.take_exception();
        leave(thread);
        return None;
    }
    Some(thread)
}

/// The `java.lang.Thread` of a thread that runs already.
fn make_object(thread: &mut Thread, name: Option<&str>, daemon: bool, group: Handle) -> Result<()> {
    let class = known::thread();
    let object = crate::allocate::instance(thread, class)?;
    object.write(known::thread_priority(), 5_i32);
    object.write(known::thread_eetop(), i64::from(thread.id));
    let object = match thread.object {
        Some(own) => {
            own.set(object);
            own
        }
        None => Global::new(object),
    };
    thread.object = Some(object);
    thread.control.set_object(object);
    if group.is_null() {
        let main = main_group();
        group.set(main);
    }
    let init = Symbol::new("<init>");
    let (descriptor, argument) = match name {
        Some(name) => ("(Ljava/lang/ThreadGroup;Ljava/lang/String;)V", crate::strings::new(thread, name)?),
        None => ("(Ljava/lang/ThreadGroup;Ljava/lang/Runnable;)V", Reference::NULL),
    };
    let constructor = class.declared_method(init, Symbol::new(descriptor)).expect("Thread has this constructor");
    interpreter::call(thread, constructor, &[object.get().slot(), group.slot(), argument.slot()])?;
    object.get().write(known::thread_daemon(), daemon);
    object.get().write(known::thread_status(), 5_i32);
    let descriptor = Symbol::new("(Ljava/lang/Thread;)V");
    if let Some(add) = known::thread_group().declared_method(Symbol::new("add"), descriptor) {
        interpreter::call(thread, add, &[group.slot(), object.get().slot()])?;
    }
    Ok(())
}

/// Ends the `java.lang.Thread` of the main thread, whose `main` has returned: others may join it. What is left to do is done as another thread.
pub(crate) fn end_main(thread: &mut Thread) {
    let Some(object) = thread.object else { return };
    end(thread, object);
    let made = thread.scope(|thread| {
        let group = thread.handle(main_group());
        make_object(thread, Some("DestroyJavaVM"), false, group)
    });
    if made.is_err() {
        thread.take_exception();
    }
}

/// The group of the main thread.
pub(crate) fn main_group() -> Reference {
    MAIN_GROUP.get().map_or(Reference::NULL, |group| group.get())
}

/// Tells which group threads of C code are in.
pub(crate) fn set_main_group(group: Reference) {
    let _ = MAIN_GROUP.set(Global::new(group));
}

static MAIN_GROUP: OnceLock<Global> = OnceLock::new();

/// Ends a thread that C code started; the host thread goes on.
pub(crate) fn detach(thread: &'static mut Thread) {
    if let Some(object) = thread.object {
        if !thread.exception.is_null() {
            dispatch_uncaught(thread, object);
        }
        end(thread, object);
        object.release();
    }
    leave(thread);
}

/// Takes a thread out of those that run.
fn leave(thread: &'static mut Thread) {
    let id = thread.id;
    thread.detach();
    THREADS.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| entry.number != i64::from(id));
    ids().free.push(id);
    ENDED.notify_all();
}

/// The `Thread` of all that run Java code.
pub(super) fn all_threads(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let mut found = Vec::new();
    let control = thread.control.clone();
    control.stop_world(|| {
        crate::thread::visit_all(|other| found.extend(other.object.map(|object| (object, object.get()))));
    });
    // Nothing has moved since: this thread was the one that stopped the world, and has not polled.
    let handles: Vec<_> = found.into_iter().map(|(_, object)| thread.handle(object)).collect();
    let count = u32::try_from(handles.len()).unwrap_or(0);
    let array = allocate::reference_array(thread, known::thread(), count)?;
    for (index, handle) in (0..count).zip(handles) {
        array.set_reference_element(index, handle.get());
    }
    Ok(array.slot())
}

/// The stack traces of threads; null for one that does not run.
fn dump(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    if arguments.reference(0).is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let count = arguments.reference(0).length();
    if count == 0 {
        return Err(exceptions::throw_plain(thread, "java/lang/IllegalArgumentException"));
    }
    let mut traces: Vec<Option<Vec<u64>>> = vec![None; count as usize];
    let control = thread.control.clone();
    let mut passing = Vec::new();
    control.stop_world(|| {
        crate::thread::visit_all(|other| {
            let Some(object) = other.object.map(Global::get) else { return };
            for (index, trace) in (0..count).zip(traces.iter_mut()) {
                if arguments.reference(0).reference_element(index) == object {
                    *trace = Some(trace_of(other, &mut passing));
                }
            }
        });
    });
    // Nothing was collected since. From now on these classes are kept.
    for class in passing {
        thread.handle(class.mirror());
    }
    let class = loader::array_class(thread, known::stack_trace_element())?;
    let array = allocate::reference_array(thread, class, count)?;
    let array = thread.handle(array);
    for (index, words) in (0..count).zip(traces) {
        if let Some(words) = words {
            let trace = thread.scope(|thread| trace_array(thread, &words))?;
            array.get().set_reference_element(index, trace);
        }
    }
    Ok(array.slot())
}

/// The life of a thread.
fn run(id: u16, daemon: bool, object: Global, entered: &std::sync::mpsc::Sender<()>) {
    let Ok(thread) = Thread::attach(id) else { return };
    thread.object = Some(object);
    thread.control.set_object(object);
    enter(thread, daemon);
    let _ = entered.send(());
    let method = object.get().class().find_method(Symbol::new("run"), Symbol::new("()V"));
    let method = method.expect("Thread has run");
    if interpreter::call(thread, method, &[object.get().slot()]).is_err() {
        dispatch_uncaught(thread, object);
    }
    end(thread, object);
    object.release();
    leave(thread);
}

/// Gives an exception that nobody caught to the thread's handler.
pub(crate) fn dispatch_uncaught(thread: &mut Thread, object: Global) {
    let exception = thread.take_exception();
    let descriptor = Symbol::new("(Ljava/lang/Throwable;)V");
    let handler = known::thread().find_method(Symbol::new("dispatchUncaughtException"), descriptor);
    let handler = handler.expect("Thread has dispatchUncaughtException");
    if interpreter::call(thread, handler, &[object.get().slot(), exception.slot()]).is_err() {
        thread.take_exception();
    }
}

/// What Java sees of the end of a thread: `Thread.exit` is run, it is not alive, and those that join it wake up.
fn end(thread: &mut Thread, object: Global) {
    if let Some(exit) = known::thread().declared_method(Symbol::new("exit"), Symbol::new("()V"))
        && interpreter::call(thread, exit, &[object.get().slot()]).is_err()
    {
        thread.take_exception();
    }
    if monitor::enter(thread, object.get()).is_ok() {
        object.get().write(known::thread_status(), 2_i32);
        object.get().write(known::thread_eetop(), 0_i64);
        let _ = monitor::notify(thread, object.get(), true);
        let _ = monitor::exit(thread, object.get());
    }
}

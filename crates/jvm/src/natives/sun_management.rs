//! `java.management`: what the virtual machine tells of itself.

use super::java_lang_thread::all_threads;
use super::sun_management_memory::usage_object;
use super::support::{double, field, int, long, make};
use super::{Arguments, Table, nothing, yes, zero};
use crate::allocate::{self, heap};
use crate::bootstrap;
use crate::handle::{Global, Handle};
use crate::heap::{Space, Usage};
use crate::known;
use crate::loader;
use crate::log;
use crate::metadata::BasicType;
use crate::object::Reference;
use crate::safepoint::Status;
use crate::services::system::{self, Clock};
use crate::strings;
use crate::thread::{Result, Thread};

fn unsigned(value: u64) -> u64 {
    long(i64::try_from(value).unwrap_or(i64::MAX))
}

fn count(value: usize) -> u64 {
    int(i32::try_from(value).unwrap_or(i32::MAX))
}

fn version(thread: &mut Thread, _: Arguments) -> Result<u64> {
    strings::new(thread, "4.0").map(Reference::slot)
}

/// The class begins with nothing supported.
fn optional_support(_: &mut Thread, _: Arguments) -> Result<u64> {
    let class = loader::boot_class("sun/management/VMManagementImpl");
    let supported = [
        "currentThreadCpuTimeSupport",
        "otherThreadCpuTimeSupport",
        "objectMonitorUsageSupport",
        "synchronizerUsageSupport",
    ];
    for name in supported {
        class.mirror().write(known::field(class, name, "Z"), true);
    }
    Ok(0)
}

/// The threads that live, as objects.
fn threads(thread: &mut Thread, arguments: Arguments) -> Result<Vec<Handle>> {
    let array = Reference::of_slot(all_threads(thread, arguments)?);
    Ok((0..array.length()).map(|index| thread.handle(array.reference_element(index))).collect())
}

fn thread_count(thread: &mut Thread, arguments: Arguments, daemons: bool) -> Result<u64> {
    let threads = threads(thread, arguments)?;
    let is_daemon = |object: &&Handle| object.get().read::<bool>(known::thread_daemon());
    Ok(count(if daemons { threads.iter().filter(is_daemon).count() } else { threads.len() }))
}

fn memory_usage(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let usage = if arguments.boolean(1) {
        let used = heap().used();
        let initial = [Space::Eden, Space::Survivor, Space::Tenured].map(|space| heap().usage(space).initial);
        let committed = heap().capacity().max(used);
        Usage { initial: initial.iter().sum(), used, committed, maximum: Some(heap().maximum()) }
    } else {
        // Classes and what belongs to them.
        heap().usage(Space::Metaspace)
    };
    usage_object(thread, usage).map(Handle::slot)
}

/// What a thread waits for, who has that, and which monitors it holds itself, each with its frame.
#[derive(Default)]
struct Locks {
    wanted: Reference,
    owner: Reference,
    held: Vec<(Reference, i32)>,
}

/// Looks at the locks of a thread. Its references are good until the current thread polls.
fn locks(thread: &mut Thread, object: Handle, monitors: bool) -> Locks {
    let class = loader::boot_class("java/util/concurrent/locks/AbstractOwnableSynchronizer");
    let owner = known::field(class, "exclusiveOwnerThread", "Ljava/lang/Thread;");
    let blocker = known::field(known::thread(), "parkBlocker", "Ljava/lang/Object;");
    let mut locks = Locks::default();
    thread.control.clone().stop_world(|| {
        let mut holder = 0;
        crate::thread::visit_all(|other| {
            let Some(own) = other.object.map(Global::get).filter(|&own| own == object.get()) else { return };
            match own.read::<i32>(known::thread_status()) {
                PARKED | PARKED_TIMED => {
                    locks.wanted = own.reference(blocker);
                    if !locks.wanted.is_null() && locks.wanted.class().is_subtype_of(class) {
                        locks.owner = locks.wanted.reference(owner);
                    }
                }
                _ => {
                    locks.wanted = other.waiting;
                    holder = if other.waiting.is_null() { 0 } else { crate::lock::holder(other.waiting) };
                }
            }
            if monitors {
                let shown = other.frames().filter(|frame| !frame.method().has(crate::metadata::extra::HIDDEN));
                for (depth, frame) in (0..).zip(shown) {
                    locks.held.extend(crate::dump::held(frame).into_iter().map(|held| (held, depth)));
                }
            }
        });
        if holder != 0 {
            crate::thread::visit_all(|other| {
                if other.id == holder {
                    locks.owner = other.object.map_or(Reference::NULL, Global::get);
                }
            });
        }
    });
    locks
}

/// The `ThreadInfo` of a thread, with so many frames at most, and with the monitors that it holds if they are asked for.
fn information(thread: &mut Thread, object: Handle, depth: usize, monitors: bool) -> Result<Handle> {
    let one = allocate::reference_array(thread, known::thread(), 1)?;
    one.set_reference_element(0, object.get());
    let descriptor = "([Ljava/lang/Thread;)[[Ljava/lang/StackTraceElement;";
    let traces = bootstrap::call_static(thread, "java/lang/Thread", "dumpThreads", descriptor, &[one.slot()])?;
    let trace = Reference::of_slot(traces).reference_element(0);
    let trace = thread.handle(trace);
    let length = if trace.is_null() { 0 } else { trace.get().length().min(u32::try_from(depth).unwrap_or(u32::MAX)) };
    let shown = allocate::reference_array(thread, known::stack_trace_element(), length)?;
    for index in 0..length {
        shown.set_reference_element(index, trace.get().reference_element(index));
    }
    let shown = thread.handle(shown);
    let Locks { wanted, owner, held } = locks(thread, object, monitors);
    let (wanted, owner) = (thread.handle(wanted), thread.handle(owner));
    let held: Vec<(Handle, i32)> = held.into_iter().map(|(held, depth)| (thread.handle(held), depth)).collect();
    let objects = allocate::object_array(thread, u32::try_from(held.len()).unwrap_or(0))?;
    for (index, (object, _)) in (0..).zip(&held) {
        objects.set_reference_element(index, object.get());
    }
    let objects = thread.handle(objects);
    let depths: Vec<i32> = held.iter().map(|&(_, depth)| depth).collect();
    let depths = allocate::filled(thread, BasicType::Int, &depths)?;
    let depths = thread.handle(depths);
    let synchronizers = allocate::object_array(thread, 0)?;
    let synchronizers = thread.handle(synchronizers);
    let constructor = "(Ljava/lang/Thread;ILjava/lang/Object;Ljava/lang/Thread;JJJJ[Ljava/lang/StackTraceElement;[Ljava/lang/Object;[I[Ljava/lang/Object;)V";
    make(thread, "java/lang/management/ThreadInfo", constructor, || {
        let status: i32 = object.get().read(known::thread_status());
        // Neither how often nor how long it was blocked is counted.
        let (none, unknown) = (0, (-1i64).cast_unsigned());
        let mut slots = vec![object.slot(), int(status), wanted.slot(), owner.slot()];
        slots.extend([none, 0, unknown, 0, none, 0, unknown, 0]);
        slots.extend([shown, objects, depths, synchronizers].map(Handle::slot));
        slots
    })
}

/// The thread of a number among those that live.
fn of_number(threads: &[Handle], number: i64) -> Option<Handle> {
    threads.iter().copied().find(|object| object.get().read::<i64>(field!("java/lang/Thread", "tid", "J")) == number)
}

/// `numbers, frames at most, where to`: -1 for all frames.
fn infos(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let depth = usize::try_from(arguments.int(1)).unwrap_or(usize::MAX);
    let threads = threads(thread, arguments)?;
    let length = arguments.reference(0).length().min(arguments.reference(2).length());
    for index in 0..length {
        if let Some(object) = of_number(&threads, arguments.reference(0).element(index)) {
            thread.scope(|thread| -> Result<()> {
                let information = information(thread, object, depth, false)?;
                arguments.reference(2).set_reference_element(index, information.get());
                Ok(())
            })?;
        }
    }
    Ok(0)
}

/// `numbers or null for all, monitors, synchronizers, frames at most`
fn dump(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let depth = usize::try_from(arguments.int(3)).unwrap_or(usize::MAX);
    let threads = threads(thread, arguments)?;
    let numbers = arguments.reference(0);
    let chosen: Vec<Option<Handle>> = if numbers.is_null() {
        threads.iter().copied().map(Some).collect()
    } else {
        (0..numbers.length()).map(|index| of_number(&threads, numbers.element(index))).collect()
    };
    let class = loader::boot_class("java/lang/management/ThreadInfo");
    let length = u32::try_from(chosen.len()).unwrap_or(0);
    let array = allocate::reference_array(thread, class, length)?;
    let array = thread.handle(array);
    for (index, object) in (0..length).zip(chosen) {
        let Some(object) = object else { continue };
        thread.scope(|thread| -> Result<()> {
            let information = information(thread, object, depth, arguments.boolean(1))?;
            array.get().set_reference_element(index, information.get());
            Ok(())
        })?;
    }
    Ok(array.slot())
}

/// A thread that waits for another one.
struct Waiting {
    id: u16,
    object: Reference,
    /// The number of who holds the monitor.
    holder: u16,
    /// The `Thread` that has the synchronizer.
    owner: Reference,
}

/// The threads that wait for each other in circles, for monitors and, with `synchronizers`, for locks of `java.util.concurrent`; `null` if none do.
fn deadlocked(thread: &mut Thread, synchronizers: bool) -> Result<u64> {
    let class = loader::boot_class("java/util/concurrent/locks/AbstractOwnableSynchronizer");
    let owner = known::field(class, "exclusiveOwnerThread", "Ljava/lang/Thread;");
    let blocker = known::field(known::thread(), "parkBlocker", "Ljava/lang/Object;");
    let mut found = Vec::new();
    thread.control.clone().stop_world(|| {
        let mut list = Vec::new();
        crate::thread::visit_all(|other| {
            let Some(object) = other.object.map(Global::get) else { return };
            let status: i32 = object.read(known::thread_status());
            let mut waiting = Waiting { id: other.id, object, holder: 0, owner: Reference::NULL };
            if status == Status::Blocked as i32 && !other.waiting.is_null() {
                waiting.holder = crate::lock::holder(other.waiting);
            } else if synchronizers && matches!(status, PARKED | PARKED_TIMED) {
                let blocker = object.reference(blocker);
                if !blocker.is_null() && blocker.class().is_subtype_of(class) {
                    waiting.owner = blocker.reference(owner);
                }
            }
            list.push(waiting);
        });
        let next = |waiting: &Waiting| {
            let is_it = |other: &&Waiting| {
                (waiting.holder != 0 && other.id == waiting.holder)
                    || (!waiting.owner.is_null() && other.object == waiting.owner)
            };
            list.iter().find(is_it)
        };
        for start in &list {
            let way = std::iter::successors(next(start), |&waiting| next(waiting));
            if way.take(list.len()).any(|waiting| std::ptr::eq(waiting, start)) {
                found.push(start.object);
            }
        }
    });
    if found.is_empty() {
        return Ok(0);
    }
    // Nothing has moved since: this thread was the one that stopped the world, and has not polled.
    let found: Vec<Handle> = found.into_iter().map(|object| thread.handle(object)).collect();
    let length = u32::try_from(found.len()).unwrap_or(0);
    let array = allocate::reference_array(thread, known::thread(), length)?;
    for (index, object) in (0..length).zip(found) {
        array.set_reference_element(index, object.get());
    }
    Ok(array.slot())
}

const PARKED: i32 = Status::Parked as i32;
const PARKED_TIMED: i32 = Status::ParkedTimed as i32;

/// `number, 0 for the current thread`: -1 if there is none, or its end is not known to us.
fn processor_time(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = arguments.long(0);
    if number == 0 {
        return Ok(unsigned(system::processor_time(Clock::Thread)));
    }
    let mut found = None;
    thread.control.clone().stop_world(|| {
        crate::thread::visit_all(|other| {
            let own = other.object.map(|object| object.get().read::<i64>(field!("java/lang/Thread", "tid", "J")));
            if own == Some(number) {
                found = Some(other.host_id);
            }
        });
    });
    let used = found.map_or(0, crate::services::process::thread_cpu_ns);
    Ok(if used == 0 { long(-1) } else { unsigned(used) })
}

fn uptime() -> u64 {
    bootstrap::clock().now_ns() / 1_000_000
}

/// What is not known: the API says that it is negative then.
fn unknown(_: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(double(-1.0))
}

pub(super) const TABLES: &[Table] = &[
    (
        "sun/management/VMManagementImpl",
        &[
            ("getVersion0", "", version),
            ("initOptionalSupportFields", "", optional_support),
            ("isThreadContentionMonitoringEnabled", "", zero),
            ("isThreadCpuTimeEnabled", "", yes),
            ("isThreadAllocatedMemoryEnabled", "", zero),
            ("getTotalClassCount", "", |_, _| Ok(crate::roots::class_counts().0)),
            ("getUnloadedClassCount", "", |_, _| Ok(crate::roots::class_counts().1)),
            ("getVerboseClass", "", |_, _| super::boolean(log::is_verbose(log::LOAD))),
            ("getVerboseGC", "", |_, _| super::boolean(log::is_verbose(log::GC))),
            ("getProcessId", "", |_, _| Ok(u64::from(std::process::id()))),
            ("getVmArguments0", "", |thread, _| {
                let words: Vec<Option<&String>> = bootstrap::arguments().iter().map(Some).collect();
                super::java_lang_system::string_array(thread, &words).map(Reference::slot)
            }),
            ("getStartupTime", "", |_, _| Ok((machine::clock::wall_time_ns() / 1_000_000).saturating_sub(uptime()))),
            ("getUptime0", "", |_, _| Ok(uptime())),
            ("getAvailableProcessors", "", |_, _| Ok(int(bootstrap::processors()))),
            ("getTotalCompileTime", "", zero),
            ("getTotalThreadCount", "", |thread, a| thread_count(thread, a, false)),
            ("getLiveThreadCount", "", |thread, a| thread_count(thread, a, false)),
            ("getPeakThreadCount", "", |thread, a| thread_count(thread, a, false)),
            ("getDaemonThreadCount", "", |thread, a| thread_count(thread, a, true)),
            ("getInitializedClassCount", "", |_, _| {
                let classes = loader::all().into_iter().flat_map(|data| data.defined());
                Ok(classes.filter(|class| class.is_initialized()).count() as u64)
            }),
        ],
    ),
    (
        "sun/management/MemoryImpl",
        &[
            ("getMemoryUsage0", "", memory_usage),
            ("setVerboseGC", "", |_, a| {
                log::set_verbose(log::GC, a.boolean(1));
                Ok(0)
            }),
        ],
    ),
    (
        "sun/management/ThreadImpl",
        &[
            ("getThreads", "", all_threads),
            ("getThreadInfo1", "", infos),
            ("findMonitorDeadlockedThreads0", "", |thread, _| deadlocked(thread, false)),
            ("findDeadlockedThreads0", "", |thread, _| deadlocked(thread, true)),
            ("dumpThreads0", "", dump),
            ("getThreadTotalCpuTime0", "(J)J", processor_time),
            ("getThreadUserCpuTime0", "(J)J", processor_time),
            ("setThreadCpuTimeEnabled0", "", nothing),
            ("resetPeakThreadCount0", "", nothing),
        ],
    ),
    (
        "sun/management/ClassLoadingImpl",
        &[("setVerboseClass", "", |_, a| {
            [log::LOAD, log::UNLOAD].into_iter().for_each(|tags| log::set_verbose(tags, a.boolean(0)));
            Ok(0)
        })],
    ),
    (
        "com/sun/management/internal/OperatingSystemImpl",
        &[
            ("initialize0", "", nothing),
            ("getCommittedVirtualMemorySize0", "", |_, _| Ok(unsigned(system::address_space().unwrap_or(0)))),
            ("getTotalSwapSpaceSize0", "", |_, _| Ok(unsigned(system::memory("SwapTotal").unwrap_or(0)))),
            ("getFreeSwapSpaceSize0", "", |_, _| Ok(unsigned(system::memory("SwapFree").unwrap_or(0)))),
            ("getTotalMemorySize0", "", |_, _| Ok(unsigned(system::memory("MemTotal").unwrap_or(0)))),
            ("getFreeMemorySize0", "", |_, _| Ok(unsigned(system::memory("MemFree").unwrap_or(0)))),
            ("getProcessCpuTime0", "", |_, _| Ok(unsigned(system::processor_time(Clock::Process)))),
            ("getOpenFileDescriptorCount0", "", |_, _| Ok(unsigned(system::open_descriptors().unwrap_or(0)))),
            ("getMaxFileDescriptorCount0", "", |_, _| Ok(long(i64::from(crate::services::network::descriptors_max())))),
            ("getCpuLoad0", "", unknown),
            ("getProcessCpuLoad0", "", unknown),
            ("getSingleCpuLoad0", "", unknown),
            ("getHostConfiguredCpuCount0", "", |_, _| {
                Ok(count(std::thread::available_parallelism().map_or(1, Into::into)))
            }),
            ("getHostOnlineCpuCount0", "", |_, _| {
                Ok(count(std::thread::available_parallelism().map_or(1, Into::into)))
            }),
            ("getHostTotalCpuTicks0", "", |_, _| Ok(unsigned(system::processor_ticks(None).map_or(0, |(_, all)| all)))),
        ],
    ),
];

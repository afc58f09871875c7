//! `java.management`: pools of memory and collectors as beans, thresholds, and notifications of collections.
//!
//! The beans have the names of HotSpot's serial collector, which the heap's spaces and collections correspond to. The class library keeps thresholds and
//! sensors in the beans; a thread of its own, which is started when the first is set, looks at them after each collection, and a few times each second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::java_lang_thread as threads;
use super::support::{field, int, long, make};
use super::{Arguments, Table, nothing};
use crate::allocate::{self, heap};
use crate::bootstrap;
use crate::boxing;
use crate::handle::{Global, Handle};
use crate::heap::{Record, SPACES, Scope, Space, Usage};
use crate::interpreter;
use crate::loader;
use crate::metadata::BasicType;
use crate::object::Reference;
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{HOST_STACK_SIZE, Result, Thread};

/// Pools by [`Space`], and whether a threshold of their usage and one of their usage after collections may be set.
const POOLS: [(&str, bool, bool); SPACES] = [
    ("Eden Space", false, true),
    ("Survivor Space", false, true),
    ("Tenured Gen", true, true),
    ("Metaspace", true, false),
    ("CodeCache", true, false),
];

/// Managers, and the pools that each has; the first two are collectors, of young space and of everything.
const MANAGERS: [(&str, &[Space]); 4] = [
    ("Copy", &[Space::Eden, Space::Survivor]),
    ("MarkSweepCompact", &[Space::Eden, Space::Survivor, Space::Tenured]),
    ("Metaspace Manager", &[Space::Metaspace]),
    ("CodeCacheManager", &[Space::CodeCache]),
];

/// The beans, once they are asked for.
#[derive(Debug)]
struct Beans {
    pools: [Global; SPACES],
    managers: [Global; MANAGERS.len()],
}

static BEANS: OnceLock<Beans> = OnceLock::new();

const POOL: &str = "java/lang/management/MemoryPoolMXBean";
const MANAGER: &str = "java/lang/management/MemoryManagerMXBean";
const COLLECTOR: &str = "com/sun/management/internal/GarbageCollectorExtImpl";

fn is_in_heap(space: Space) -> bool {
    !matches!(space, Space::Metaspace | Space::CodeCache)
}

fn beans(thread: &mut Thread) -> Result<&'static Beans> {
    if let Some(beans) = BEANS.get() {
        return Ok(beans);
    }
    let mut pools = Vec::new();
    for (space, (name, usage, collection)) in Space::ALL.into_iter().zip(POOLS) {
        let name = strings::new(thread, name)?;
        let none = |supported: bool| if supported { 0 } else { long(-1) };
        let of_heap = u64::from(is_in_heap(space));
        let arguments = [name.slot(), of_heap, none(usage), 0, none(collection), 0];
        let descriptor = "(Ljava/lang/String;ZJJ)Ljava/lang/management/MemoryPoolMXBean;";
        let factory = "sun/management/ManagementFactoryHelper";
        pools.push(bean(thread, factory, "createMemoryPool", descriptor, &arguments)?);
    }
    // A class library may come without the module that knows more of collectors.
    let extended = loader::load_boot(thread, Symbol::new(COLLECTOR))?.is_some();
    let mut managers = Vec::new();
    for (index, (name, _)) in MANAGERS.into_iter().enumerate() {
        let name = strings::new(thread, name)?;
        let factory = if extended && index < 2 { COLLECTOR } else { "sun/management/ManagementFactoryHelper" };
        managers.push(if index < 2 {
            let descriptor = "(Ljava/lang/String;Ljava/lang/String;)Ljava/lang/management/GarbageCollectorMXBean;";
            bean(thread, factory, "createGarbageCollector", descriptor, &[name.slot(), 0])?
        } else {
            let descriptor = "(Ljava/lang/String;)Ljava/lang/management/MemoryManagerMXBean;";
            bean(thread, factory, "createMemoryManager", descriptor, &[name.slot()])?
        });
    }
    // Another thread may have been faster: its beans count.
    let global = |handle: &Handle| Global::new(handle.get());
    Ok(BEANS.get_or_init(|| Beans {
        pools: std::array::from_fn(|index| global(&pools[index])),
        managers: std::array::from_fn(|index| global(&managers[index])),
    }))
}

fn bean(thread: &mut Thread, class: &str, name: &str, descriptor: &str, arguments: &[u64]) -> Result<Handle> {
    let made = bootstrap::call_static(thread, class, name, descriptor, arguments)?;
    Ok(thread.handle(Reference::of_slot(made)))
}

fn array(thread: &mut Thread, element: &str, beans: &[Global]) -> Result<u64> {
    let count = u32::try_from(beans.len()).unwrap_or(0);
    let array = allocate::reference_array(thread, loader::boot_class(element), count)?;
    for (index, bean) in (0..count).zip(beans) {
        array.set_reference_element(index, bean.get());
    }
    Ok(array.slot())
}

/// Which of the beans an object is.
fn position(beans: &[Global], object: Reference) -> Option<usize> {
    beans.iter().position(|bean| bean.get() == object)
}

/// The space of the pool that the receiver is.
fn space(arguments: Arguments) -> Option<Space> {
    BEANS.get().and_then(|beans| position(&beans.pools, arguments.reference(0))).map(|index| Space::ALL[index])
}

/// What the collector collects that an object is.
fn scope(collector: Reference) -> Option<Scope> {
    match BEANS.get().and_then(|beans| position(&beans.managers, collector))? {
        0 => Some(Scope::Young),
        1 => Some(Scope::Full),
        _ => None,
    }
}

/// A `MemoryUsage`.
pub(super) fn usage_object(thread: &mut Thread, usage: Usage) -> Result<Handle> {
    let number = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX).cast_unsigned();
    let maximum = usage.maximum.map_or((-1i64).cast_unsigned(), number);
    let slots = vec![number(usage.initial), 0, number(usage.used), 0, number(usage.committed), 0, maximum, 0];
    make(thread, "java/lang/management/MemoryUsage", "(JJJJ)V", || slots)
}

/// A native of a pool that tells a usage.
fn told(thread: &mut Thread, arguments: Arguments, usage: impl FnOnce(Space) -> Option<Usage>) -> Result<u64> {
    match space(arguments).and_then(usage) {
        Some(usage) => usage_object(thread, usage).map(Handle::slot),
        None => Ok(0),
    }
}

fn pools_of_manager(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let beans = beans(thread)?;
    let spaces = position(&beans.managers, arguments.reference(0)).map_or(&[][..], |index| MANAGERS[index].1);
    let pools: Vec<Global> = spaces.iter().map(|&space| beans.pools[space as usize]).collect();
    array(thread, POOL, &pools)
}

fn managers_of_pool(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let beans = beans(thread)?;
    let manages =
        |(_, (_, spaces)): &(&Global, (&str, &[Space]))| space(arguments).is_some_and(|own| spaces.contains(&own));
    let managers: Vec<Global> = beans.managers.iter().zip(MANAGERS).filter(manages).map(|(bean, _)| *bean).collect();
    array(thread, MANAGER, &managers)
}

fn collection_count(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let statistics = heap().statistics();
    Ok(match scope(arguments.reference(0)) {
        Some(Scope::Young) => statistics.young_count,
        Some(Scope::Full) => statistics.full_count,
        None => 0,
    })
}

fn collection_time(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let statistics = heap().statistics();
    Ok(match scope(arguments.reference(0)) {
        Some(Scope::Young) => statistics.young_ns / 1_000_000,
        Some(Scope::Full) => statistics.full_ns / 1_000_000,
        None => 0,
    })
}

/// `collector, count, names, types, descriptions`: what is told of a collection beside its time and its spaces.
fn fill_attributes(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    for (index, text) in [(3, "GcThreadCount"), (5, "Number of GC threads")] {
        let text = strings::new(thread, text)?;
        arguments.reference(index).set_reference_element(0, text);
    }
    arguments.reference(4).set_element(0, u16::from(b'I'));
    Ok(0)
}

/// `collector, count, values, types, before, after`: the `GcInfo` of its last collection; null if there was none.
fn last_information(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let Some(record) = scope(arguments.reference(1)).and_then(|scope| heap().last(scope)) else { return Ok(0) };
    let [builder, values, before, after] = [0, 3, 5, 6].map(|index| thread.handle(arguments.reference(index)));
    information(thread, &record, builder, values, [before, after]).map(Handle::slot)
}

fn information(
    thread: &mut Thread,
    record: &Record,
    builder: Handle,
    values: Handle,
    usages: [Handle; 2],
) -> Result<Handle> {
    for (array, usages) in usages.iter().zip(&record.usage) {
        let count = array.get().length();
        for (index, &usage) in (0..count).zip(usages) {
            thread.scope(|thread| -> Result<()> {
                let usage = usage_object(thread, usage)?;
                array.get().set_reference_element(index, usage.get());
                Ok(())
            })?;
        }
    }
    let one = boxing::box_value(thread, BasicType::Int, 1)?;
    values.get().set_reference_element(0, one);
    let constructor = "(Lcom/sun/management/internal/GcInfoBuilder;JJJ[Ljava/lang/management/MemoryUsage;\
        [Ljava/lang/management/MemoryUsage;[Ljava/lang/Object;)V";
    let [begin, end] = record.time_ns.map(|ns| ns / 1_000_000);
    make(thread, "com/sun/management/GcInfo", constructor, || {
        let [before, after] = usages;
        vec![builder.slot(), record.number, 0, begin, 0, end, 0, before.slot(), after.slot(), values.slot()]
    })
}

/// What the thread that tells of collections waits for.
static TOLD: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();
static LISTENS: AtomicBool = AtomicBool::new(false);
/// How long it waits at most, as a space may fill without a collection.
const PATIENCE: Duration = Duration::from_millis(200);

/// There was a collection.
pub(crate) fn collected() {
    if LISTENS.load(Ordering::Acquire) {
        drop(TOLD.lock().unwrap_or_else(PoisonError::into_inner));
        CHANGED.notify_all();
    }
}

/// Starts the thread that tells of collections and thresholds, unless it runs already.
fn listen() {
    if !LISTENS.swap(true, Ordering::AcqRel) {
        let builder = std::thread::Builder::new().name("Notification".into()).stack_size(HOST_STACK_SIZE);
        // Without the thread nobody is told, which the API allows: notifications may be lost.
        let _ = builder.spawn(tell);
    }
    collected();
}

fn tell() {
    let Some(thread) = threads::attach(Some("Notification Thread"), true, threads::system_group) else { return };
    // Whether the sensors of usage and of usage after collections are on, by pool; and the collections that these have seen.
    let (mut on, mut seen) = ([[false; 2]; SPACES], 0);
    loop {
        while let Some(record) = heap().take_notice() {
            if thread.scope(|thread| notify(thread, &record)).is_err() {
                thread.take_exception();
            }
        }
        let collections = heap().collections();
        if thread.scope(|thread| look_at_thresholds(thread, &mut on, collections != seen)).is_err() {
            thread.take_exception();
        }
        seen = collections;
        thread.blocked(|| {
            let guard = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
            if heap().collections() == seen {
                drop(CHANGED.wait_timeout(guard, PATIENCE).unwrap_or_else(PoisonError::into_inner));
            }
        });
    }
}

/// Calls a method of an object that has it.
fn call(thread: &mut Thread, object: Reference, name: &str, descriptor: &str, arguments: &[u64]) -> Result<Reference> {
    let method = object.class().find_method(Symbol::new(name), Symbol::new(descriptor));
    let Some(method) = method else { return Ok(Reference::NULL) };
    let mut slots = vec![object.slot()];
    slots.extend_from_slice(arguments);
    interpreter::call(thread, method, &slots).map(Reference::of_slot)
}

/// Sends the notification of a collection to whoever listens to its collector.
fn notify(thread: &mut Thread, record: &Record) -> Result<()> {
    let Some(beans) = BEANS.get() else { return Ok(()) };
    let (index, action) = match record.scope {
        Scope::Young => (0, "end of minor GC"),
        Scope::Full => (1, "end of major GC"),
    };
    let collector = beans.managers[index];
    let descriptor = "()Lcom/sun/management/internal/GcInfoBuilder;";
    let builder = call(thread, collector.get(), "getGcInfoBuilder", descriptor, &[])?;
    let builder = thread.handle(builder);
    let class = loader::boot_class("java/lang/management/MemoryUsage");
    let count = u32::try_from(SPACES).unwrap_or(0);
    let before = allocate::reference_array(thread, class, count)?;
    let before = thread.handle(before);
    let after = allocate::reference_array(thread, class, count)?;
    let after = thread.handle(after);
    let values = allocate::object_array(thread, 1)?;
    let values = thread.handle(values);
    let information = information(thread, record, builder, values, [before, after])?;
    let mut texts = Vec::new();
    for text in [MANAGERS[index].0, action, record.cause.text()] {
        let text = strings::new(thread, text)?;
        texts.push(thread.handle(text));
    }
    let time = record.time_ns[1] / 1_000_000;
    let arguments = [time, 0, texts[0].slot(), texts[1].slot(), texts[2].slot(), information.slot()];
    let descriptor = "(JLjava/lang/String;Ljava/lang/String;Ljava/lang/String;Lcom/sun/management/GcInfo;)V";
    call(thread, collector.get(), "createGCNotification", descriptor, &arguments)?;
    Ok(())
}

/// Triggers and clears the sensors of pools.
fn look_at_thresholds(thread: &mut Thread, on: &mut [[bool; 2]; SPACES], collected: bool) -> Result<()> {
    let Some(beans) = BEANS.get() else { return Ok(()) };
    for space in Space::ALL {
        let pool = beans.pools[space as usize];
        let thresholds = [
            pool.get().read::<i64>(field!("sun/management/MemoryPoolImpl", "usageThreshold", "J")),
            pool.get().read::<i64>(field!("sun/management/MemoryPoolImpl", "collectionThreshold", "J")),
        ];
        for (index, threshold) in thresholds.into_iter().enumerate() {
            let Ok(threshold @ 1..) = usize::try_from(threshold) else { continue };
            let usage = if index == 0 { heap().usage(space) } else { heap().after_collection(space) };
            let above = usage.used >= threshold;
            // Each collection after which there is too much counts; usage counts when it gets there.
            let triggers = above && (!on[space as usize][index] || (index == 1 && collected));
            let clears = !above && on[space as usize][index];
            on[space as usize][index] = above;
            if triggers || clears {
                let sensor = if index == 0 {
                    field!("sun/management/MemoryPoolImpl", "usageSensor", "Lsun/management/Sensor;")
                } else {
                    field!("sun/management/MemoryPoolImpl", "gcSensor", "Lsun/management/Sensor;")
                };
                thread.scope(|thread| -> Result<()> {
                    let usage = usage_object(thread, usage)?;
                    let sensor = pool.get().reference(sensor);
                    if sensor.is_null() {
                        return Ok(());
                    }
                    if triggers {
                        let descriptor = "(ILjava/lang/management/MemoryUsage;)V";
                        call(thread, sensor, "trigger", descriptor, &[1, usage.slot()])?;
                    } else {
                        call(thread, sensor, "clear", "()V", &[])?;
                    }
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}

/// Beans for whose collections notifications are wanted.
static NOTICED: Mutex<[bool; 2]> = Mutex::new([false; 2]);

/// `collector, whether`
fn set_notified(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    beans(thread)?;
    let wanted = arguments.boolean(2);
    if let Some(scope) = scope(arguments.reference(1)) {
        let mut noticed = NOTICED.lock().unwrap_or_else(PoisonError::into_inner);
        noticed[usize::from(scope == Scope::Full)] = wanted;
        heap().notice(noticed.contains(&true));
    }
    if wanted {
        listen();
    }
    Ok(0)
}

fn set_sensor(_: &mut Thread, _: Arguments) -> Result<u64> {
    listen();
    Ok(0)
}

pub(super) const TABLES: &[Table] = &[
    (
        "sun/management/MemoryImpl",
        &[
            ("getMemoryPools0", "", |thread, _| {
                let beans = beans(thread)?;
                array(thread, POOL, &beans.pools)
            }),
            ("getMemoryManagers0", "", |thread, _| {
                let beans = beans(thread)?;
                array(thread, MANAGER, &beans.managers)
            }),
        ],
    ),
    (
        "sun/management/MemoryPoolImpl",
        &[
            ("getUsage0", "", |thread, a| told(thread, a, |space| Some(heap().usage(space)))),
            ("getPeakUsage0", "", |thread, a| told(thread, a, |space| Some(heap().peak(space)))),
            ("getCollectionUsage0", "", |thread, a| {
                told(thread, a, |space| is_in_heap(space).then(|| heap().after_collection(space)))
            }),
            ("resetPeakUsage0", "", |_, a| {
                space(a).into_iter().for_each(|space| heap().forget_peak(space));
                Ok(0)
            }),
            // The class library keeps thresholds itself.
            ("setUsageThreshold0", "", nothing),
            ("setCollectionThreshold0", "", nothing),
            ("setPoolUsageSensor", "", set_sensor),
            ("setPoolCollectionSensor", "", set_sensor),
            ("getMemoryManagers0", "", managers_of_pool),
        ],
    ),
    ("sun/management/MemoryManagerImpl", &[("getMemoryPools0", "", pools_of_manager)]),
    (
        "sun/management/GarbageCollectorImpl",
        &[("getCollectionCount", "", collection_count), ("getCollectionTime", "", collection_time)],
    ),
    (COLLECTOR, &[("setNotificationEnabled", "", set_notified)]),
    (
        "com/sun/management/internal/GcInfoBuilder",
        &[
            ("getNumGcExtAttributes", "", |_, _| Ok(int(1))),
            ("fillGcAttributeInfo", "", fill_attributes),
            ("getLastGcInfo0", "", last_information),
        ],
    ),
];

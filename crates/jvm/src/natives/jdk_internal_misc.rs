//! `jdk.internal.misc.VM`, `CDS`, and natives of other internal classes.

use super::{Arguments, Table, int, long, nothing, yes, zero};
use crate::services::{files, system};
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    (
        "jdk/internal/misc/VM",
        &[
            ("initialize", "", nothing),
            ("initializeFromArchive", "", nothing),
            ("latestUserDefinedLoader0", "", latest_user_loader),
            ("getuid", "", |_, _| long(i64::from(system::ids().user))),
            ("geteuid", "", |_, _| long(i64::from(system::ids().effective_user))),
            ("getgid", "", |_, _| long(i64::from(system::ids().group))),
            ("getegid", "", |_, _| long(i64::from(system::ids().effective_group))),
            ("getNanoTimeAdjustment", "", nano_time_adjustment),
            ("getRuntimeArguments", "", |thread, _| {
                let words: Vec<Option<&String>> = crate::bootstrap::arguments().iter().map(Some).collect();
                super::java_lang_system::string_array(thread, &words).map(crate::object::Reference::slot)
            }),
        ],
    ),
    (
        "jdk/internal/misc/CDS",
        &[
            ("isDumpingClassList0", "", zero),
            ("isDumpingArchive0", "", zero),
            ("isSharingEnabled0", "", zero),
            ("initializeFromArchive", "", nothing),
            ("defineArchivedModules", "", nothing),
            ("getRandomSeedForDumping", "", zero),
        ],
    ),
    (
        "java/lang/ref/Reference",
        &[
            ("getAndClearReferencePendingList", "", |_, _| Ok(crate::allocate::heap().take_pending().slot())),
            ("hasReferencePendingList", "", |_, _| super::boolean(crate::allocate::heap().has_pending())),
            ("waitForReferencePendingList", "", wait_for_pending),
            ("refersTo0", "", refers_to),
            ("clear0", "", clear),
        ],
    ),
    ("java/lang/ref/PhantomReference", &[("refersTo0", "", refers_to), ("clear0", "", clear)]),
    ("java/lang/ref/Finalizer", &[("isFinalizationEnabled", "", yes)]),
    ("java/util/concurrent/atomic/AtomicLong", &[("VMSupportsCS8", "", yes)]),
    ("jdk/internal/misc/ScopedMemoryAccess", &[("closeScope0", "", yes)]),
    (
        "jdk/internal/perf/Perf",
        &[
            ("highResCounter", "", |_, _| Ok(crate::bootstrap::clock().now_ns())),
            ("highResFrequency", "", |_, _| long(1_000_000_000)),
            ("createByteArray", "", create_bytes),
            ("attach", "", |thread, _| {
                let message = "only the counters of this virtual machine's own process are known to it";
                Err(crate::exceptions::throw(thread, "java/lang/IllegalArgumentException", message))
            }),
            ("detach", "", nothing),
        ],
    ),
    (
        "java/io/ObjectStreamClass",
        &[("hasStaticInitializer", "", |_, a| {
            let class = crate::loader::of_mirror(a.reference(0));
            super::boolean(class.methods.get().iter().any(|method| method.is_class_initializer()))
        })],
    ),
    (
        "java/nio/MappedMemoryUtils",
        &[
            ("force0", "", |thread, a| mapping(thread, a, 1, files::flush_mapping)),
            ("load0", "", |thread, a| mapping(thread, a, 0, files::expect_mapping)),
            ("unload0", "", nothing),
            ("isLoaded0", "", is_loaded),
        ],
    ),
    // Limits of containers are asked of the host's files by the class library, if it is told to; memory is as the host has it.
    (
        "jdk/internal/platform/CgroupMetrics",
        &[
            ("isUseContainerSupport", "", zero),
            ("getTotalMemorySize0", "", |_, _| Ok(system::memory("MemTotal").unwrap_or(0))),
            ("getTotalSwapSize0", "", |_, _| Ok(system::memory("SwapTotal").unwrap_or(0))),
        ],
    ),
    // Vectors have the length that every host has.
    (
        "jdk/internal/vm/vector/VectorSupport",
        &[("registerNatives", "()I", zero), ("getMaxLaneCount", "", |_, _| int(-1))],
    ),
    (
        "jdk/internal/vm/VMSupport",
        &[
            ("initAgentProperties", "", |_, a| Ok(a.slot(0))),
            ("getVMTemporaryDirectory", "", |thread, _| {
                crate::strings::new(thread, "/tmp").map(crate::object::Reference::slot)
            }),
        ],
    ),
    ("sun/net/dns/ResolverConfigurationImpl", &[("fallbackDomain0", "", zero)]),
    ("sun/rmi/transport/GC", &[("maxObjectInspectionAge", "", |_, _| long(age_of_garbage()))]),
    ("java/lang/StringUTF16", &[("isBigEndian", "", |_, _| int(0))]),
];

/// The loader nearest up the stack that is not one of the class library's.
fn latest_user_loader(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let is_user = |id: &u32| {
        let data = crate::loader::data(*id);
        !data.is_boot()
            && !matches!(
                data.reference().class().name.bytes(),
                b"jdk/internal/loader/ClassLoaders$PlatformClassLoader" | b"jdk/internal/reflect/DelegatingClassLoader"
            )
    };
    let found = thread.frames().map(|frame| frame.method().class.loader).find(is_user);
    Ok(found.map_or(0, |id| crate::loader::data(id).reference().slot()))
}

/// `name, variability, units, value, longest`: a buffer that begins with the value. It stays as long as the program.
fn create_bytes(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let value = arguments.reference(4);
    if value.is_null() {
        return Err(crate::exceptions::null_pointer(thread));
    }
    let mut bytes = value.bytes();
    bytes.resize(usize::try_from(arguments.int(5)).unwrap_or(0).max(1), 0);
    let length = arguments.slot(5);
    let address = bytes.leak().as_mut_ptr().expose_provenance() as u64;
    let buffer = super::support::make(thread, "java/nio/DirectByteBuffer", "(JI)V", || vec![address, 0, length])?;
    Ok(buffer.slot())
}

/// What is done with a mapped range: its address and length are at `first`.
fn mapping(
    thread: &mut Thread,
    arguments: Arguments,
    first: usize,
    call: fn(i64, usize) -> crate::services::Result<()>,
) -> Result<u64> {
    let (address, length) = (arguments.long(first), arguments.long(first + 2));
    let length = usize::try_from(length).unwrap_or(0);
    let result = super::support::waiting(thread, || call(address, length));
    result.map(|()| 0).map_err(|failure| super::support::io_exception(thread, &failure))
}

/// `address, length, pages`
fn is_loaded(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let length = usize::try_from(arguments.long(2)).unwrap_or(0);
    let pages = usize::try_from(arguments.long(4)).unwrap_or(0);
    let loaded = files::is_mapping_loaded(arguments.long(0), length, pages);
    loaded.map_or_else(|failure| Err(super::support::io_exception(thread, &failure)), super::boolean)
}

/// Milliseconds since the whole heap was last looked through, or since the start: remote calls ask for a collection when that is long ago.
fn age_of_garbage() -> i64 {
    let now = crate::bootstrap::clock().now_ns() / 1_000_000;
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Nanoseconds beyond a number of seconds since 1970; -1 if they are too far apart.
fn nano_time_adjustment(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let now = i128::from(machine::clock::wall_time_ns());
    let difference = now - i128::from(arguments.long(0)) * 1_000_000_000;
    let near = difference.abs() < 1_000_000_000 << 32;
    long(if near { i64::try_from(difference).unwrap_or(-1) } else { -1 })
}

/// The reference handler's thread waits here for what the collector found.
fn wait_for_pending(thread: &mut Thread, _: Arguments) -> Result<u64> {
    crate::roots::wait_for_pending(thread);
    Ok(0)
}

fn refers_to(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let referent = arguments.reference(0).reference(crate::known::reference_referent());
    super::boolean(referent == arguments.reference(1))
}

fn clear(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    arguments.reference(0).set_reference(crate::known::reference_referent(), crate::object::Reference::NULL);
    Ok(0)
}

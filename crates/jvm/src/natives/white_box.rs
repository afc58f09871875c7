//! `jdk.test.whitebox.WhiteBox`, by which OpenJDK's tests ask what a virtual machine has: tuning flags, other collectors, archives, JFR and JVMTI,
//! of which there are hardly any here.

use super::{Arguments, Table, int, long, yes, zero};
use crate::object::Reference;
use crate::strings;
use crate::thread::{Result, Thread};

const METHODS: &[(&str, &str, super::Function)] = &[
    ("getBooleanVMFlag", "", flag),
    ("getIntVMFlag", "", zero),
    ("getUintVMFlag", "", zero),
    ("getIntxVMFlag", "", zero),
    ("getUintxVMFlag", "", zero),
    ("getUint64VMFlag", "", zero),
    ("getSizeTVMFlag", "", zero),
    ("getStringVMFlag", "", zero),
    ("getDoubleVMFlag", "", zero),
    ("isCDSIncluded", "", zero),
    ("isCDSIncludedInVmBuild", "", zero),
    ("isJFRIncluded", "", zero),
    ("isJFRIncludedInVmBuild", "", zero),
    ("isDTraceIncluded", "", zero),
    // Of which there is what agents in Java need.
    ("isJVMTIIncluded", "", yes),
    ("isJavaHeapArchiveSupported", "", zero),
    ("isSharingEnabled", "", zero),
    ("isContainerized", "", zero),
    ("isGCSupported", "", is_serial),
    ("isGCSelected", "", is_serial),
    ("isGCSelectedErgonomically", "", zero),
    ("isC2OrJVMCIIncludedInVmBuild", "", zero),
    ("isJVMCISupportedByGC", "", zero),
    ("getVMPageSize", "", |_, _| long(4096)),
    ("getCPUFeatures", "", |thread, _| text(thread, "")),
    ("getLibcName", "", |thread, _| text(thread, "glibc")),
    ("countAliveClasses0", "", |_, a| int(count(crate::roots::count_classes(*strings::symbol(a.reference(1)))))),
    ("getSymbolRefcount", "", |_, a| int(count(loaders_named(&strings::text(a.reference(1)))))),
    ("enqueueMethodForCompilation0", "", zero),
    ("isMethodCompiled0", "", zero),
    ("fullGC", "", collect),
    ("youngGC", "", collect),
];

pub(super) const TABLES: &[Table] = &[("jdk/test/whitebox/WhiteBox", METHODS), ("sun/hotspot/WhiteBox", METHODS)];

fn text(thread: &mut Thread, text: &str) -> Result<u64> {
    strings::new(thread, text).map(Reference::slot)
}

/// Whether a number is that of the serial collector, of which the heap here is one.
fn is_serial(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    super::boolean(arguments.int(1) == 1)
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Of HotSpot's switches, that which tests of unloading want on, and those of the command line; null for others.
fn flag(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = strings::text(arguments.reference(1));
    let given = |word: &String| {
        let switch = word.strip_prefix("-XX:")?;
        let on = switch.starts_with('+');
        (switch.strip_prefix(['+', '-'])? == name).then_some(on)
    };
    let on = match name.as_str() {
        "ClassUnloading" => Some(crate::loader::may_unload()),
        _ => crate::bootstrap::arguments().iter().rev().find_map(given),
    };
    let Some(on) = on else { return Ok(0) };
    crate::boxing::box_value(thread, crate::metadata::BasicType::Boolean, u64::from(on)).map(Reference::slot)
}

/// How many loaders have a name.
fn loaders_named(name: &str) -> usize {
    let has = |data: &&&crate::loader::LoaderData| {
        let object = data.reference();
        let text = if object.is_null() { object } else { object.reference(crate::known::loader_name()) };
        !text.is_null() && strings::text(text) == name
    };
    crate::loader::all().iter().filter(has).count()
}

fn collect(thread: &mut Thread, _: Arguments) -> Result<u64> {
    crate::roots::collect(thread, crate::heap::Cause::WhiteBox);
    Ok(0)
}

//! `java.lang.System`, `Runtime`, `Shutdown`, properties, environment, signals.

use super::{Arguments, Table, int, long, nothing};
use crate::allocate;
use crate::bootstrap;
use crate::exceptions;
use crate::known;
use crate::monitor;
use crate::object::{ELEMENTS_OFFSET, Reference};
use crate::services;
use crate::services::locale::{self, Category};
use crate::signals;
use crate::strings;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[
    (
        "java/lang/System",
        &[
            ("setIn0", "", |_, a| set_stream("in", "Ljava/io/InputStream;", a)),
            ("setOut0", "", |_, a| set_stream("out", "Ljava/io/PrintStream;", a)),
            ("setErr0", "", |_, a| set_stream("err", "Ljava/io/PrintStream;", a)),
            ("currentTimeMillis", "()J", current_time_millis),
            ("nanoTime", "()J", nano_time),
            ("arraycopy", "", arraycopy),
            ("identityHashCode", "", identity_hash_code),
            ("mapLibraryName", "", map_library_name),
        ],
    ),
    (
        "java/lang/Runtime",
        &[
            ("availableProcessors", "()I", |_, _| int(bootstrap::processors())),
            ("freeMemory", "()J", |_, _| {
                long(i64::try_from(allocate::heap().capacity().saturating_sub(allocate::heap().used())).unwrap_or(0))
            }),
            ("totalMemory", "()J", |_, _| long(i64::try_from(allocate::heap().capacity()).unwrap_or(0))),
            ("maxMemory", "()J", |_, _| long(i64::try_from(allocate::heap().maximum()).unwrap_or(0))),
            ("gc", "()V", |thread, _| {
                crate::roots::collect(thread, crate::heap::Cause::SystemGc);
                Ok(0)
            }),
        ],
    ),
    ("java/lang/Shutdown", &[("beforeHalt", "()V", nothing), ("halt0", "(I)V", halt)]),
    (
        "jdk/internal/util/SystemProps$Raw",
        &[("vmProperties", "", vm_properties), ("platformProperties", "", platform_properties)],
    ),
    (
        "jdk/internal/misc/Signal",
        &[("findSignal0", "", find_signal), ("handle0", "", handle_signal), ("raise0", "", raise)],
    ),
    ("java/lang/ProcessEnvironment", &[("environ", "", environ)]),
];

fn set_stream(name: &str, descriptor: &str, arguments: Arguments) -> Result<u64> {
    let class = known::system();
    class.mirror().set_reference(known::field(class, name, descriptor), arguments.reference(0));
    Ok(0)
}

fn current_time_millis(_: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(machine::clock::wall_time_ns() / 1_000_000)
}

fn nano_time(_: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(bootstrap::clock().now_ns())
}

fn arraycopy(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (from, to) = (arguments.reference(0), arguments.reference(2));
    if from.is_null() || to.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let (start, target, count) = (arguments.int(1), arguments.int(3), arguments.int(4));
    let (source_class, target_class) = (from.class(), to.class());
    for (class, word) in [(source_class, "source"), (target_class, "destination")] {
        if !class.is_array() {
            let message = format!("arraycopy: {word} type {} is not an array", class.external_name());
            return Err(exceptions::throw(thread, "java/lang/ArrayStoreException", message));
        }
    }
    let (Some(source), Some(destination)) = (source_class.element, target_class.element) else { return Ok(0) };
    if (source.primitive || destination.primitive) && source != destination {
        let text = |element: crate::arena::Meta<crate::metadata::Class>| {
            if element.primitive { format!("{}[]", element.name) } else { "object array[]".to_owned() }
        };
        let message = format!("arraycopy: type mismatch: can not copy {} into {}", text(source), text(destination));
        return Err(exceptions::throw(thread, "java/lang/ArrayStoreException", message));
    }
    let kind = if source.primitive { source.name.text() } else { "object array".into() };
    let bounds = |thread: &mut Thread, message: String| {
        Err(exceptions::throw(thread, "java/lang/ArrayIndexOutOfBoundsException", message))
    };
    if start < 0 {
        return bounds(thread, format!("arraycopy: source index {start} out of bounds for {kind}[{}]", from.length()));
    }
    if target < 0 {
        return bounds(
            thread,
            format!("arraycopy: destination index {target} out of bounds for {kind}[{}]", to.length()),
        );
    }
    if count < 0 {
        return bounds(thread, format!("arraycopy: length {count} is negative"));
    }
    let (start, target, count) = (start.cast_unsigned(), target.cast_unsigned(), count.cast_unsigned());
    if start.checked_add(count).is_none_or(|end| end > from.length()) {
        let end = u64::from(start) + u64::from(count);
        return bounds(
            thread,
            format!("arraycopy: last source index {end} out of bounds for {kind}[{}]", from.length()),
        );
    }
    if target.checked_add(count).is_none_or(|end| end > to.length()) {
        let end = u64::from(target) + u64::from(count);
        return bounds(
            thread,
            format!("arraycopy: last destination index {end} out of bounds for {kind}[{}]", to.length()),
        );
    }
    if !source.primitive && !source.is_subtype_of(destination) {
        return copy_checked(thread, from, to, start, target, count, destination);
    }
    let shift = source_class.shape.element_shift;
    let place = |array: Reference, index: u32| array.at_offset(ELEMENTS_OFFSET + ((index as usize) << shift));
    // SAFETY: both ranges are within their arrays, as checked above; overlapping ones are copied as if by way of a third.
    unsafe { place(from, start).copy_to(place(to, target), (count as usize) << shift) };
    if !source.primitive && count > 0 {
        let (first, last) = (place(to, target).addr(), place(to, target + count - 1).addr());
        let card = 1 << crate::heap::CARD_SHIFT;
        (first..=last).step_by(card).chain([last]).for_each(crate::heap::card_mark);
    }
    Ok(0)
}

/// Copies references, each of which must fit the elements of the target.
fn copy_checked(
    thread: &mut Thread,
    from: Reference,
    to: Reference,
    start: u32,
    target: u32,
    count: u32,
    element: crate::arena::Meta<crate::metadata::Class>,
) -> Result<u64> {
    for index in 0..count {
        let value = from.reference_element(start + index);
        if !value.is_null() && !value.class().is_subtype_of(element) {
            let source = from.class().element;
            let (of, to) = (source.map_or(String::new(), |class| class.external_name()), element.external_name());
            // Elements of one type may be of the other, or never are.
            let message = if source.is_some_and(|source| element.is_subtype_of(source)) {
                format!(
                    "arraycopy: element type mismatch: can not cast one of the elements of {of}[] to the type of the destination array, {to}"
                )
            } else {
                format!("arraycopy: type mismatch: can not copy {of}[] into {to}[]")
            };
            return Err(exceptions::throw(thread, "java/lang/ArrayStoreException", message));
        }
        to.set_reference_element(target + index, value);
    }
    Ok(0)
}

fn identity_hash_code(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = arguments.reference(0);
    int(if object.is_null() { 0 } else { monitor::identity_hash(object).cast_signed() })
}

fn map_library_name(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = arguments.reference(0);
    if name.is_null() {
        return Err(exceptions::null_pointer(thread));
    }
    let name = format!("lib{}.so", strings::text(name));
    strings::new(thread, &name).map(Reference::slot)
}

fn halt(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    crate::jni::invocation::halt(thread, arguments.int(0))
}

/// An array of strings, some of which may be missing.
pub(super) fn string_array<T: AsRef<str>>(thread: &mut Thread, texts: &[Option<T>]) -> Result<Reference> {
    let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
    let array = allocate::reference_array(thread, known::string(), count)?;
    let array = thread.handle(array);
    for (index, text) in (0..count).zip(texts) {
        if let Some(text) = text {
            let string = strings::new(thread, text.as_ref())?;
            array.get().set_reference_element(index, string);
        }
    }
    Ok(array.get())
}

fn vm_properties(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let mut texts: Vec<Option<String>> = Vec::new();
    for (name, value) in bootstrap::properties() {
        texts.push(Some(name.clone()));
        texts.push(Some(value.clone()));
    }
    texts.extend([None, None]);
    string_array(thread, &texts).map(Reference::slot)
}

fn platform_properties(thread: &mut Thread, _: Arguments) -> Result<u64> {
    let class = crate::loader::boot_class("jdk/internal/util/SystemProps$Raw");
    let constant = |name: &str| {
        let field = class.fields.get().iter().find(|field| field.name.bytes() == name.as_bytes());
        let pool = class.constants();
        let index = field.and_then(|field| {
            let at = class.fields.get().iter().position(|other| std::ptr::eq(other, field))?;
            pool.constant_values.get().iter().find(|(field, _)| *field as usize == at).map(|&(_, constant)| constant)
        });
        index.and_then(|index| usize::try_from(pool.entry(index).value).ok())
    };
    let mut texts: Vec<Option<String>> = vec![None; constant("FIXED_LENGTH").unwrap_or(0)];
    let mut set = |name: &str, value: String| {
        if let Some(text) = constant(name).and_then(|index| texts.get_mut(index)) {
            *text = Some(value);
        }
    };
    let environment = |name: &str| std::env::var(name).ok();
    let encoding = locale::encoding();
    let user = services::system::user(services::system::ids().user);
    set("_os_name_NDX", "Linux".into());
    set("_os_arch_NDX", "amd64".into());
    set("_os_version_NDX", std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into());
    set("_file_separator_NDX", "/".into());
    set("_path_separator_NDX", ":".into());
    set("_line_separator_NDX", "\n".into());
    set("_java_io_tmpdir_NDX", "/tmp".into());
    let name = user.as_ref().map(|(name, _)| name.clone()).filter(|name| !name.is_empty());
    set("_user_name_NDX", name.or_else(|| environment("USER")).unwrap_or_else(|| "?".into()));
    // A folder so short is none of a user's.
    let home = user.map(|(_, home)| home).filter(|home| home.len() >= 3);
    set("_user_home_NDX", home.or_else(|| environment("HOME")).unwrap_or_else(|| "?".into()));
    set(
        "_user_dir_NDX",
        std::env::current_dir().map_or_else(|_| "/".into(), |path| path.to_string_lossy().into_owned()),
    );
    for name in ["_file_encoding_NDX", "_sun_jnu_encoding_NDX"] {
        set(name, encoding.clone());
    }
    for (category, kind) in [(Category::Messages, "display"), (Category::Characters, "format")] {
        let locale::Locale { language, script, country } = locale::locale(category);
        for (part, value) in [("language", Some(language)), ("script", script), ("country", country)] {
            if let Some(value) = value {
                set(&format!("_{kind}_{part}_NDX"), value);
            }
        }
    }
    set("_sun_arch_data_model_NDX", "64".into());
    set("_sun_cpu_endian_NDX", "little".into());
    set("_sun_io_unicode_encoding_NDX", "UnicodeLittle".into());
    string_array(thread, &texts).map(Reference::slot)
}

fn find_signal(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    int(services::signals::by_name(&strings::text(arguments.reference(0))).unwrap_or(-1))
}

fn handle_signal(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    long(signals::handle(arguments.int(0), arguments.long(1)))
}

fn raise(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let number = arguments.int(0);
    thread.blocked(|| services::signals::raise(number));
    Ok(0)
}

fn environ(thread: &mut Thread, _: Arguments) -> Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let variables = crate::services::environment::variables();
    let count = u32::try_from(variables.len() * 2).unwrap_or(0);
    let bytes = crate::loader::primitive_array_class(crate::metadata::BasicType::Byte);
    let array = allocate::reference_array(thread, bytes, count)?;
    let array = thread.handle(array);
    for (index, text) in (0..count).zip(variables.iter().flat_map(|(name, value)| [name, value])) {
        let text = allocate::byte_array(thread, text.as_bytes())?;
        array.get().set_reference_element(index, text);
    }
    Ok(array.get().slot())
}

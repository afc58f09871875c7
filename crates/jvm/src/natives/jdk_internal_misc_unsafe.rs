//! `jdk.internal.misc.Unsafe`: memory by address, or by object and offset. It is trusted: offsets and addresses are the program's word.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::{Arguments, Table, boolean, int, java_lang_thread, long, yes, zero};
use crate::exceptions;
use crate::known;
use crate::link;
use crate::loader;
use crate::object::{ELEMENTS_OFFSET, Reference};
use crate::strings;
use crate::thread::{Result, Thread};

pub(super) const TABLES: &[Table] = &[(
    "jdk/internal/misc/Unsafe",
    &[
        ("getBoolean", "", get::<u8>),
        ("putBoolean", "", put::<u8>),
        ("getBooleanVolatile", "", get::<u8>),
        ("putBooleanVolatile", "", put::<u8>),
        ("getByte", "", get::<i8>),
        ("putByte", "", put::<i8>),
        ("getByteVolatile", "", get::<i8>),
        ("putByteVolatile", "", put::<i8>),
        ("getShort", "", get::<i16>),
        ("putShort", "", put::<i16>),
        ("getShortVolatile", "", get::<i16>),
        ("putShortVolatile", "", put::<i16>),
        ("getChar", "", get::<u16>),
        ("putChar", "", put::<u16>),
        ("getCharVolatile", "", get::<u16>),
        ("putCharVolatile", "", put::<u16>),
        ("getInt", "", get::<i32>),
        ("putInt", "", put::<i32>),
        ("getIntVolatile", "", get::<i32>),
        ("putIntVolatile", "", put::<i32>),
        ("getFloat", "", get::<u32>),
        ("putFloat", "", put::<u32>),
        ("getFloatVolatile", "", get::<u32>),
        ("putFloatVolatile", "", put::<u32>),
        ("getLong", "", get::<u64>),
        ("putLong", "", put::<u64>),
        ("getLongVolatile", "", get::<u64>),
        ("putLongVolatile", "", put::<u64>),
        ("getDouble", "", get::<u64>),
        ("putDouble", "", put::<u64>),
        ("getDoubleVolatile", "", get::<u64>),
        ("putDoubleVolatile", "", put::<u64>),
        ("getReference", "", get_reference),
        ("putReference", "", put_reference),
        ("getReferenceVolatile", "", get_reference),
        ("putReferenceVolatile", "", put_reference),
        ("compareAndSetInt", "", compare_and_set_int),
        ("compareAndSetLong", "", compare_and_set_long),
        ("compareAndSetReference", "", compare_and_set_reference),
        ("compareAndExchangeInt", "", compare_and_exchange_int),
        ("compareAndExchangeLong", "", compare_and_exchange_long),
        ("compareAndExchangeReference", "", compare_and_exchange_reference),
        ("allocateMemory0", "", allocate_memory),
        ("reallocateMemory0", "", reallocate_memory),
        ("freeMemory0", "", free_memory),
        ("setMemory0", "", set_memory),
        ("copyMemory0", "", copy_memory),
        ("copySwapMemory0", "", copy_swapped),
        ("arrayBaseOffset0", "", array_base),
        ("arrayIndexScale0", "", array_scale),
        ("addressSize0", "", |_, _| int(8)),
        ("pageSize", "", |_, _| int(4096)),
        ("objectFieldOffset0", "", field_offset),
        ("objectFieldOffset1", "", named_field_offset),
        ("staticFieldOffset0", "", field_offset),
        ("staticFieldBase0", "", field_base),
        ("shouldBeInitialized0", "", should_initialize),
        ("ensureClassInitialized0", "", ensure_initialized),
        ("allocateInstance", "", allocate_instance),
        ("throwException", "", throw_exception),
        ("isBigEndian0", "", zero),
        ("unalignedAccess0", "", yes),
        ("fullFence", "", full_fence),
        ("loadFence", "", full_fence),
        ("storeFence", "", full_fence),
        ("park", "", java_lang_thread::park),
        ("unpark", "", java_lang_thread::unpark),
        ("getLoadAverage0", "", load_average),
        ("defineClass0", "", define_class),
        ("getUncompressedObject", "", unsupported),
        // No memory is known that stays when the power goes: MappedByteBuffer does not ask for it.
        ("writeback0", "", unsupported),
        ("writebackPreSync0", "", full_fence),
        ("writebackPostSync0", "", full_fence),
    ],
)];

/// The address of a place: in an object, or in memory if it is null.
fn place(arguments: Arguments) -> *mut u8 {
    let object = arguments.reference(1);
    let offset = usize::try_from(arguments.long(2)).unwrap_or(usize::MAX);
    if object.is_null() { std::ptr::with_exposed_provenance_mut(offset) } else { object.at_offset(offset) }
}

/// Numbers as slots.
trait Number: Copy {
    fn from_slot(slot: u64) -> Self;
    fn slot(self) -> u64;
}

macro_rules! number {
    ($($type:ty, |$value:ident| $slot:expr;)*) => {$(
        impl Number for $type {
            #[allow(clippy::cast_possible_truncation, reason = "stores narrow")]
            fn from_slot(slot: u64) -> Self {
                slot as Self
            }
            fn slot(self) -> u64 {
                let $value = self;
                $slot
            }
        }
    )*};
}

number! {
    u8, |value| u64::from(value);
    i8, |value| u64::from(i32::from(value).cast_unsigned());
    u16, |value| u64::from(value);
    i16, |value| u64::from(i32::from(value).cast_unsigned());
    i32, |value| u64::from(value.cast_unsigned());
    u32, |value| u64::from(value);
    u64, |value| value;
}

fn get<T: Number>(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    // SAFETY: the program's word for the address. An aligned volatile read is one access of the host.
    let place = place(arguments).cast::<T>();
    let value = if place.is_aligned() {
        // SAFETY: as above.
        unsafe { place.read_volatile() }
    } else {
        // SAFETY: as above.
        unsafe { place.read_unaligned() }
    };
    fence(Ordering::Acquire);
    Ok(value.slot())
}

fn put<T: Number>(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let place = place(arguments).cast::<T>();
    let value = T::from_slot(arguments.slot(4));
    fence(Ordering::Release);
    if place.is_aligned() {
        // SAFETY: the program's word for the address.
        unsafe { place.write_volatile(value) };
    } else {
        // SAFETY: as above.
        unsafe { place.write_unaligned(value) };
    }
    fence(Ordering::SeqCst);
    Ok(0)
}

fn get_reference(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    get::<u32>(thread, arguments)
}

fn put_reference(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let offset = u32::try_from(arguments.long(2)).unwrap_or(0);
    fence(Ordering::Release);
    arguments.reference(1).set_reference(offset, arguments.reference(4));
    fence(Ordering::SeqCst);
    Ok(0)
}

fn exchange_word(arguments: Arguments) -> std::result::Result<u32, u32> {
    // SAFETY: the program's word for the address, which the class library aligns.
    let word = unsafe { AtomicU32::from_ptr(place(arguments).cast()) };
    let (expected, value) = (arguments.int(4).cast_unsigned(), arguments.int(5).cast_unsigned());
    word.compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst)
}

fn exchange_long(arguments: Arguments) -> std::result::Result<u64, u64> {
    // SAFETY: as above.
    let word = unsafe { AtomicU64::from_ptr(place(arguments).cast()) };
    word.compare_exchange(arguments.slot(4), arguments.slot(6), Ordering::SeqCst, Ordering::SeqCst)
}

fn exchange_reference(arguments: Arguments) -> std::result::Result<u32, u32> {
    let result = exchange_word(arguments);
    if result.is_ok() {
        crate::heap::card_mark(place(arguments).addr());
    }
    result
}

fn either<T>(result: std::result::Result<T, T>) -> T {
    match result {
        Ok(value) | Err(value) => value,
    }
}

fn compare_and_set_int(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    boolean(exchange_word(arguments).is_ok())
}

fn compare_and_set_long(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    boolean(exchange_long(arguments).is_ok())
}

fn compare_and_set_reference(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    boolean(exchange_reference(arguments).is_ok())
}

fn compare_and_exchange_int(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(u64::from(either(exchange_word(arguments))))
}

fn compare_and_exchange_long(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(either(exchange_long(arguments)))
}

fn compare_and_exchange_reference(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(u64::from(either(exchange_reference(arguments))))
}

/// Bytes before a block that hold its size.
const PREFIX: usize = 16;

fn layout(size: usize) -> Option<std::alloc::Layout> {
    std::alloc::Layout::from_size_align(size.checked_add(PREFIX)?, PREFIX).ok()
}

fn allocate_memory(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let size = usize::try_from(arguments.long(1)).unwrap_or(usize::MAX);
    let Some(layout) = layout(size) else { return Ok(0) };
    // SAFETY: the size is not 0, with the prefix.
    let block = unsafe { std::alloc::alloc(layout) };
    if block.is_null() {
        return Ok(0);
    }
    // SAFETY: the prefix is within the block.
    unsafe { block.cast::<usize>().write(size) };
    Ok((block.expose_provenance() + PREFIX) as u64)
}

fn free_block(address: usize) {
    if address == 0 {
        return;
    }
    let block: *mut u8 = std::ptr::with_exposed_provenance_mut(address - PREFIX);
    // SAFETY: the program frees what `allocate_memory` gave it, once.
    unsafe {
        if let Some(layout) = layout(block.cast::<usize>().read()) {
            std::alloc::dealloc(block, layout);
        }
    }
}

fn free_memory(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    free_block(usize::try_from(arguments.long(1)).unwrap_or(0));
    Ok(0)
}

fn reallocate_memory(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let old = usize::try_from(arguments.long(1)).unwrap_or(0);
    let size = usize::try_from(arguments.long(3)).unwrap_or(usize::MAX);
    let Some(new_layout) = layout(size) else { return Ok(0) };
    let _ = thread;
    // SAFETY: as for allocation; the old block has its size before it.
    unsafe {
        let block = std::alloc::alloc(new_layout);
        if block.is_null() {
            return Ok(0);
        }
        block.cast::<usize>().write(size);
        let new = block.add(PREFIX);
        if old != 0 {
            let from: *const u8 = std::ptr::with_exposed_provenance(old);
            let old_size = from.sub(PREFIX).cast::<usize>().read();
            new.copy_from_nonoverlapping(from, old_size.min(size));
            free_block(old);
        }
        Ok(new.expose_provenance() as u64)
    }
}

fn set_memory(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let size = usize::try_from(arguments.long(4)).unwrap_or(0);
    #[allow(clippy::cast_possible_truncation, reason = "a byte is wanted")]
    let value = arguments.int(6) as u8;
    // SAFETY: the program's word for the range.
    unsafe { place(arguments).write_bytes(value, size) };
    Ok(0)
}

fn copy_memory(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = arguments.reference(4);
    let offset = usize::try_from(arguments.long(5)).unwrap_or(0);
    let to = if object.is_null() { std::ptr::with_exposed_provenance_mut(offset) } else { object.at_offset(offset) };
    let size = usize::try_from(arguments.long(7)).unwrap_or(0);
    // SAFETY: the program's word for both ranges.
    unsafe { place(arguments).copy_to(to, size) };
    Ok(0)
}

/// Copies elements whose bytes are turned around.
fn copy_swapped(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let object = arguments.reference(4);
    let offset = usize::try_from(arguments.long(5)).unwrap_or(0);
    let to = if object.is_null() { std::ptr::with_exposed_provenance_mut(offset) } else { object.at_offset(offset) };
    let size = usize::try_from(arguments.long(7)).unwrap_or(0);
    let element = usize::try_from(arguments.long(9)).unwrap_or(1).max(1);
    // SAFETY: the program's word for both ranges, which may overlap: they are copied before they are turned around.
    let bytes = unsafe {
        place(arguments).copy_to(to, size);
        std::slice::from_raw_parts_mut(to, size)
    };
    bytes.chunks_exact_mut(element).for_each(<[u8]>::reverse);
    Ok(0)
}

/// `name, bytes, offset, length, loader, domain`
fn define_class(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (offset, length) = (arguments.int(3), arguments.int(4));
    let array = arguments.reference(2);
    super::support::check_range(thread, array, offset, length)?;
    let bytes = super::support::array_bytes(array, offset, length);
    let (class_loader, name, domain) = (arguments.reference(5), arguments.reference(1), arguments.reference(6));
    super::java_lang_classloader::define(thread, class_loader, name, &bytes, domain)
}

fn unsupported(thread: &mut Thread, _: Arguments) -> Result<u64> {
    Err(exceptions::throw_plain(thread, "java/lang/UnsupportedOperationException"))
}

/// `averages, how many`: how many were written.
fn load_average(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let load = crate::services::system::load_average();
    let wanted = arguments.int(2).cast_unsigned().min(arguments.reference(1).length());
    if load.is_empty() {
        return int(-1);
    }
    let mut count = 0;
    for (index, &value) in (0..wanted).zip(&load) {
        arguments.reference(1).set_element(index, value);
        count += 1;
    }
    int(count)
}

fn array_base(_: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(ELEMENTS_OFFSET as u64)
}

fn array_scale(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(1 << loader::of_mirror(arguments.reference(1)).shape.element_shift)
}

fn field_offset(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let field = arguments.reference(1);
    let class = loader::of_mirror(field.reference(known::field_class()));
    let slot: i32 = field.read(known::field_slot());
    Ok(u64::from(class.fields.get()[usize::try_from(slot).unwrap_or(0)].offset))
}

fn named_field_offset(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = loader::of_mirror(arguments.reference(1));
    let name = strings::symbol(arguments.reference(2));
    let found = class.superclasses().find_map(|class| class.fields.get().iter().find(|field| field.name == *name));
    match found {
        Some(field) => Ok(u64::from(field.offset)),
        None => Err(exceptions::throw(thread, "java/lang/InternalError", name.text())),
    }
}

fn field_base(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    Ok(arguments.reference(1).reference(known::field_class()).slot())
}

fn should_initialize(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    boolean(!loader::of_mirror(arguments.reference(1)).is_initialized())
}

fn ensure_initialized(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    link::initialize(thread, loader::of_mirror(arguments.reference(1)))?;
    Ok(0)
}

fn allocate_instance(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let class = loader::of_mirror(arguments.reference(1));
    if !class.is_instance_class() || class.is_abstract() {
        return Err(exceptions::throw(thread, "java/lang/InstantiationException", class.external_name()));
    }
    link::initialize(thread, class)?;
    crate::interpreter::new_instance(thread, class).map(Reference::slot)
}

fn throw_exception(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    Err(thread.throw(arguments.reference(1)))
}

fn full_fence(_: &mut Thread, _: Arguments) -> Result<u64> {
    fence(Ordering::SeqCst);
    long(0)
}

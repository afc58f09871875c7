//! Native methods of the class library in Rust: a file for each Java class, or a few that belong together.
//!
//! To add one: a function `fn(&mut Thread, Arguments) -> Result<u64>`, and its line in the table of its file, which is listed in [`TABLES`].
//! Arguments are slots of the native's frame, which the collector updates: read a reference again after whatever may collect. The result is a
//! slot: a reference by [`Reference::slot`](crate::object::Reference::slot), an `int` by [`int`], nothing by 0.

mod file_streams;
mod inet;
mod java_io_console;
mod java_io_file_cleanable;
mod java_io_file_descriptor;
mod java_io_file_input_stream;
mod java_io_file_output_stream;
mod java_io_random_access_file;
mod java_io_unix_file_system;
mod java_lang_class;
mod java_lang_classloader;
mod java_lang_invoke;
mod java_lang_module;
mod java_lang_object;
mod java_lang_process;
mod java_lang_reflect;
mod java_lang_reflect_array;
mod java_lang_stack_stream_factory;
mod java_lang_strict_math;
mod java_lang_system;
pub(crate) mod java_lang_thread;
pub(crate) mod java_lang_throwable;
mod java_net_network_interface;
mod java_net_plain_datagram_socket;
mod java_net_plain_socket;
mod java_security_access_controller;
mod java_util_prefs;
mod java_util_time_zone;
mod java_util_zip_adler32;
mod java_util_zip_crc32;
mod java_util_zip_deflater;
mod java_util_zip_inflater;
mod jdk_internal_misc;
mod jdk_internal_misc_unsafe;
mod jdk_internal_reflect_constant_pool;
mod jdk_net;
mod sun_instrument;
mod sun_management;
pub(crate) mod sun_management_memory;
mod sun_nio_ch_datagram;
mod sun_nio_ch_files;
mod sun_nio_ch_inherited_channel;
mod sun_nio_ch_multicast;
mod sun_nio_ch_net;
mod sun_nio_fs_linux;
mod sun_nio_fs_unix_native_dispatcher;
mod support;
#[cfg(test)]
mod tests;
mod white_box;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::arena::Meta;
pub(crate) use crate::interpreter::{Arguments, Function};
use crate::link;
use crate::metadata::Method;
use crate::thread::{Result, Thread};

/// The natives of a class: name, descriptor, function. An empty descriptor fits any.
pub(crate) type Table = (&'static str, &'static [(&'static str, &'static str, Function)]);

/// All natives.
const TABLES: &[&[Table]] = &[
    java_io_console::TABLES,
    java_io_file_cleanable::TABLES,
    java_io_file_descriptor::TABLES,
    java_io_file_input_stream::TABLES,
    java_io_file_output_stream::TABLES,
    java_io_random_access_file::TABLES,
    java_io_unix_file_system::TABLES,
    java_lang_stack_stream_factory::TABLES,
    java_lang_strict_math::TABLES,
    java_net_network_interface::TABLES,
    java_net_plain_datagram_socket::TABLES,
    java_net_plain_socket::TABLES,
    java_security_access_controller::TABLES,
    java_util_prefs::TABLES,
    java_util_time_zone::TABLES,
    jdk_net::TABLES,
    java_util_zip_adler32::TABLES,
    java_util_zip_crc32::TABLES,
    java_util_zip_deflater::TABLES,
    java_util_zip_inflater::TABLES,
    sun_nio_fs_linux::TABLES,
    sun_nio_fs_unix_native_dispatcher::TABLES,
    java_lang_process::TABLES,
    sun_instrument::TABLES,
    sun_management::TABLES,
    sun_management_memory::TABLES,
    sun_nio_ch_datagram::TABLES,
    sun_nio_ch_files::TABLES,
    sun_nio_ch_inherited_channel::TABLES,
    sun_nio_ch_multicast::TABLES,
    sun_nio_ch_net::TABLES,
    inet::TABLES,
    java_lang_class::TABLES,
    java_lang_classloader::TABLES,
    java_lang_invoke::TABLES,
    java_lang_module::TABLES,
    java_lang_object::TABLES,
    java_lang_reflect::TABLES,
    java_lang_reflect_array::TABLES,
    java_lang_system::TABLES,
    java_lang_thread::TABLES,
    java_lang_throwable::TABLES,
    jdk_internal_misc::TABLES,
    jdk_internal_misc_unsafe::TABLES,
    white_box::TABLES,
    jdk_internal_reflect_constant_pool::TABLES,
];

type Registry = HashMap<(&'static [u8], &'static [u8]), Vec<(&'static str, Function)>>;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let mut registry = Registry::new();
    for &(class, methods) in TABLES.iter().copied().flatten() {
        for &(name, descriptor, function) in methods {
            registry.entry((class.as_bytes(), name.as_bytes())).or_default().push((descriptor, function));
        }
    }
    registry
});

/// The function of a native method, which may be known by another name than its own.
pub(crate) fn find(method: Meta<Method>, name: &[u8]) -> Option<Function> {
    if let Some(candidates) = REGISTRY.get(&(method.class.name.bytes(), name)) {
        let fits = |descriptor: &str| descriptor.is_empty() || descriptor.as_bytes() == method.descriptor.bytes();
        if let Some(&(_, function)) = candidates.iter().find(|(descriptor, _)| fits(descriptor)) {
            return Some(function);
        }
    }
    let own = || link::module_name(method.class).is_none_or(|module| module == "java.base");
    (sets_up(method, name) && own()).then_some(nothing as Function)
}

/// Whether a native is one in which HotSpot binds others and looks up fields: here both are found when they are first used, so that where no library has it
/// there is nothing to do.
pub(crate) fn sets_up(method: Meta<Method>, name: &[u8]) -> bool {
    let named = matches!(name, b"registerNatives" | b"initIDs" | b"initNative");
    named && method.class.trusted && method.descriptor.bytes() == b"()V"
}

/// A native that does nothing.
pub(crate) fn nothing(_: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(0)
}

/// A native that answers 0, `false` or `null`.
pub(crate) fn zero(_: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(0)
}

/// A native that answers `true`.
pub(crate) fn yes(_: &mut Thread, _: Arguments) -> Result<u64> {
    Ok(1)
}

/// The slot of an `int`.
pub(crate) fn int(value: i32) -> Result<u64> {
    Ok(u64::from(value.cast_unsigned()))
}

/// The slot of a `long`.
pub(crate) fn long(value: i64) -> Result<u64> {
    Ok(value.cast_unsigned())
}

/// The slot of a `boolean`.
pub(crate) fn boolean(value: bool) -> Result<u64> {
    Ok(u64::from(value))
}

pub(crate) use java_lang_reflect::{reflected as reflected_method, reflected_field};
pub(crate) use java_lang_thread as threads;
pub(crate) use java_lang_thread::{dispatch_uncaught, wait_for_others};
pub(crate) use java_lang_throwable as throwable;

/// Enters the main thread among those that run; its number.
pub(crate) fn enter_main(thread: &Thread) -> i64 {
    java_lang_thread::enter(thread, false)
}

//! `libjvm.so`: the Java virtual machine for programs that start one themselves, by the invocation interface of JNI (chapter 5 of its specification).
//!
//! Such a program links with `-ljvm`, and finds this library in place of the JDK's by `LD_LIBRARY_PATH`. The class library is found as the command `java`
//! does, or, if this file is put into `lib/server` of a JDK 17, there.

use std::ffi::c_void;

use jvm::embedding::{self, StartArguments};

/// Starts a virtual machine, of whose threads the calling one becomes the main one. There is one in a process.
///
/// # Safety
/// The pointers are to what the specification says, and the arguments are valid until it returns.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name that the specification gives")]
pub unsafe extern "C" fn JNI_CreateJavaVM(
    vm: *mut *const c_void,
    environment: *mut *mut c_void,
    arguments: *const StartArguments,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { embedding::create(vm, environment, arguments) }
}

/// Tells which virtual machines there are: how many, and `room` of them at most.
///
/// # Safety
/// As above; `vms` has so much room.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name that the specification gives")]
pub unsafe extern "C" fn JNI_GetCreatedJavaVMs(vms: *mut *const c_void, room: i32, count: *mut i32) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { embedding::created(vms, room, count) }
}

/// Tells whether a version of the interface is known.
///
/// # Safety
/// As above.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name that the specification gives")]
pub unsafe extern "C" fn JNI_GetDefaultJavaVMInitArgs(arguments: *mut StartArguments) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { embedding::default_arguments(arguments) }
}

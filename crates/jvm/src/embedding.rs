//! The functions of JNI's invocation interface (chapter 5 of its specification), by their names.
//!
//! `libjvm.so` offers them to programs in C that start a virtual machine, and the command to libraries in C that ask which there are.

#![allow(non_snake_case, reason = "the names that the specification gives")]

use std::ffi::{CStr, c_char, c_void};

use crate::bootstrap::{self, StartError};
use crate::jni::{self, invocation};
use crate::natives::threads;
use crate::options;
use crate::services::libraries;
use crate::thread::HOST_STACK_SIZE;

/// `JNI_OK`
const OK: i32 = 0;
/// `JNI_ERR`
const ERROR: i32 = -1;
/// `JNI_EVERSION`
const WRONG_VERSION: i32 = -3;
/// `JNI_VERSION_1_1`, whose arguments were others.
const VERSION_1_1: i32 = 0x0001_0001;

/// `JavaVMOption`
#[repr(C)]
struct StartOption {
    text: *const c_char,
    _extra: *mut c_void,
}

/// `JavaVMInitArgs`
#[repr(C)]
#[derive(Debug)]
pub struct StartArguments {
    version: i32,
    count: i32,
    options: *const StartOption,
    ignores_unknown: u8,
}

/// Tells whether a version of the interface is known.
///
/// # Safety
/// `arguments` is null or leads to `JavaVMInitArgs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn JNI_GetDefaultJavaVMInitArgs(arguments: *mut StartArguments) -> i32 {
    // SAFETY: the caller's promise; older versions have more fields behind the first one, which is all that is read.
    let version = unsafe { arguments.cast::<i32>().as_ref() }.copied();
    if version.is_some_and(|version| invocation::is_known(version) && version != VERSION_1_1) { OK } else { ERROR }
}

/// Tells which virtual machines there are: how many, and `room` of them at most.
///
/// # Safety
/// `vms` has room for so many, `count` is null or leads to a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn JNI_GetCreatedJavaVMs(vms: *mut *const c_void, room: i32, count: *mut i32) -> i32 {
    let ready = invocation::ready();
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(vm) = ready.filter(|_| room > 0 && !vms.is_null()) {
            vms.write(vm);
        }
        if !count.is_null() {
            count.write(i32::from(ready.is_some()));
        }
    }
    OK
}

/// Starts a virtual machine, as whose main thread the calling one is attached. There is one in a process.
///
/// The start itself runs on a thread with a stack of its own, since that of the caller may be small.
///
/// # Safety
/// The pointers are to what the specification says; the arguments are there until it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn JNI_CreateJavaVM(
    vm: *mut *const c_void,
    env: *mut *mut c_void,
    arguments: *const StartArguments,
) -> i32 {
    if let Err(number) = invocation::claim() {
        return number;
    }
    // SAFETY: the caller's promise.
    let result = unsafe { arguments.as_ref() }.map_or(Err(ERROR), |arguments| {
        if !invocation::is_known(arguments.version) || arguments.version == VERSION_1_1 {
            return Err(WRONG_VERSION);
        }
        // SAFETY: the caller's promise.
        unsafe { start(arguments) }
    });
    match result.and_then(|environment| invocation::ready().map(|vm| (vm, environment)).ok_or(ERROR)) {
        Ok((own, environment)) => {
            // SAFETY: the caller's promise.
            unsafe {
                vm.write(own);
                env.write(environment);
            }
            OK
        }
        Err(number) => {
            invocation::unclaim();
            number
        }
    }
}

/// # Safety
/// The arguments have as many options as they say.
unsafe fn start(arguments: &StartArguments) -> Result<*mut c_void, i32> {
    let words = (0..usize::try_from(arguments.count).unwrap_or(0)).filter_map(|index| {
        // SAFETY: the caller's promise.
        let option = unsafe { &*arguments.options.add(index) };
        // SAFETY: texts of options end with NUL.
        (!option.text.is_null()).then(|| unsafe { CStr::from_ptr(option.text) }.to_string_lossy().into_owned())
    });
    // The functions that a program may give for ending and printing are for virtual machines that end the process by themselves.
    let words = words.filter(|word| !matches!(word.as_str(), "vfprintf" | "exit" | "abort")).collect();
    let home = libraries::containing((JNI_CreateJavaVM as *const ()).addr())
        .and_then(|library| library.ancestors().nth(3).map(std::path::Path::to_path_buf));
    let options = options::for_library(words, arguments.ignores_unknown != 0, home).map_err(|error| {
        error.print();
        ERROR
    })?;
    let main = std::thread::Builder::new().name("main".into()).stack_size(HOST_STACK_SIZE);
    let started = main.spawn(move || -> Result<(), StartError> {
        jni::report_crashes()?;
        crate::services::network::raise_descriptors();
        threads::detach(bootstrap::start(options)?);
        Ok(())
    });
    match started.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => {
            eprintln!("Error: {error}");
            return Err(ERROR);
        }
        _ => return Err(ERROR),
    }
    invocation::attach_as_main().ok_or(ERROR)
}

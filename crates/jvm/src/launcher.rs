//! Running a program: what the `java` command does after its options.

use std::path::Path;

use crate::allocate;
use crate::bootstrap::{self, Options, StartError};
use crate::interpreter;
use crate::jni::invocation;
use crate::known;
use crate::link;
use crate::loader;
use crate::log;
use crate::natives;
use crate::object::Reference;
use crate::options::{self, About, Mode, Request, Stream, Tell};
use crate::strings;
use crate::symbol::Symbol;
use crate::thread::{HOST_STACK_SIZE, Result, Thread};

/// Does what a command line of `java` says, without the command's name; the status to end with. `pulled` is where Isomorph's own copy of the class library
/// would be. What `begin` makes, which is given the program's name, is kept while a program runs.
#[must_use]
pub fn main<T>(words: Vec<String>, pulled: Option<&Path>, begin: impl FnOnce(&str) -> T) -> i32 {
    let request = match options::parse(options::with_environment(words), pulled) {
        Ok(request) => request,
        Err(error) => {
            error.print();
            return 1;
        }
    };
    let result = match request {
        Request::LogHelp => {
            println!("{}", log::HELP);
            Ok(0)
        }
        Request::Tell { options, what } => on_main_thread(*options, move |thread| tell(thread, &what)),
        Request::Run { options, mode, name, arguments, about } => {
            let _kept = begin(&name);
            crate::services::network::raise_descriptors();
            on_main_thread(*options, move |thread| run_main(thread, mode, &name, &arguments, &about))
        }
    };
    result.unwrap_or_else(|error| {
        match error {
            StartError::Modules => {}
            StartError::Heap(error) => println!("Error occurred during initialization of VM\n{error}"),
            error => eprintln!("Error: {error}"),
        }
        1
    })
}

/// Starts a virtual machine, runs the program's `main`, waits for its threads, and ends with its exit status.
///
/// # Errors
/// If no virtual machine can be started.
pub fn run(options: Options, mode: Mode, name: &str, arguments: &[String]) -> std::result::Result<i32, StartError> {
    let (name, arguments) = (name.to_owned(), arguments.to_vec());
    on_main_thread(options, move |thread| run_main(thread, mode, &name, &arguments, &About::default()))
}

/// Starts a virtual machine, and does something on its main thread.
fn on_main_thread(
    options: Options,
    body: impl FnOnce(&mut Thread) -> i32 + Send + 'static,
) -> std::result::Result<i32, StartError> {
    crate::jni::report_crashes()?;
    // Java frames nest host frames here and there, so the main thread gets a stack of its own size.
    let main = std::thread::Builder::new().name("main".into()).stack_size(HOST_STACK_SIZE);
    let thread = main.spawn(move || {
        let thread = bootstrap::start(options)?;
        Ok(body(thread))
    })?;
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The class of the JDK that knows what its launcher says.
const HELPER: &str = "sun/launcher/LauncherHelper";

fn run_main(thread: &mut Thread, mode: Mode, name: &str, arguments: &[String], about: &About) -> i32 {
    let status = match about_first(thread, about).and_then(|()| call_main(thread, mode, name, arguments, about.dry_run))
    {
        Ok(()) => 0,
        Err(_) => {
            if let Some(object) = thread.object {
                natives::dispatch_uncaught(thread, object);
            }
            1
        }
    };
    natives::threads::end_main(thread);
    invocation::end(thread);
    status
}

/// What is told before the program runs.
fn about_first(thread: &mut Thread, about: &About) -> Result<()> {
    if let Some(settings) = &about.settings {
        show_settings(thread, settings)?;
    }
    if about.resolution {
        bootstrap::call_static(thread, HELPER, "showResolvedModules", "()V", &[])?;
    }
    match about.version {
        Some(stream) => version(thread, stream),
        None => Ok(()),
    }
}

fn show_settings(thread: &mut Thread, option: &str) -> Result<()> {
    let text = strings::new(thread, option)?;
    let heap = allocate::heap().maximum() as u64;
    let stack = crate::thread::STACK_SIZE as u64;
    let arguments = [1, text.slot(), 0, 0, heap, 0, stack, 0];
    bootstrap::call_static(thread, HELPER, "showSettings", "(ZLjava/lang/String;JJJ)V", &arguments)?;
    Ok(())
}

fn version(thread: &mut Thread, stream: Stream) -> Result<()> {
    let to_error = [u64::from(stream == Stream::Error)];
    bootstrap::call_static(thread, "java/lang/VersionProps", "print", "(Z)V", &to_error)?;
    Ok(())
}

fn tell(thread: &mut Thread, what: &Tell) -> i32 {
    let status = i32::from(matches!(what, Tell::Usage(_, Some(_))));
    let told = match what {
        Tell::Version(stream, settings) => {
            let shown = settings.as_ref().map_or(Ok(()), |settings| show_settings(thread, settings));
            shown.and_then(|()| version(thread, *stream))
        }
        Tell::Usage(stream, reason) => {
            if let Some(reason) = reason.as_ref().filter(|reason| !reason.is_empty()) {
                eprintln!("{reason}");
            }
            usage(thread, *stream)
        }
        Tell::ExtraUsage(stream) => helper(thread, "printXUsageMessage", *stream),
        Tell::Modules => bootstrap::call_static(thread, HELPER, "listModules", "()V", &[]).map(drop),
        Tell::Module(name) => strings::new(thread, name).and_then(|name| {
            let descriptor = "(Ljava/lang/String;)V";
            bootstrap::call_static(thread, HELPER, "describeModule", descriptor, &[name.slot()]).map(drop)
        }),
        // They were validated while the virtual machine started.
        Tell::Validation => Ok(()),
    };
    let failed = told.is_err();
    if let Some(object) = thread.object.filter(|_| failed) {
        natives::dispatch_uncaught(thread, object);
    }
    natives::threads::end_main(thread);
    invocation::end(thread);
    if failed { 1 } else { status }
}

/// A method of the helper that writes to a stream.
fn helper(thread: &mut Thread, name: &str, stream: Stream) -> Result<()> {
    bootstrap::call_static(thread, HELPER, name, "(Z)V", &[u64::from(stream == Stream::Error)]).map(drop)
}

fn usage(thread: &mut Thread, stream: Stream) -> Result<()> {
    let program = strings::new(thread, "java")?;
    bootstrap::call_static(thread, HELPER, "initHelpMessage", "(Ljava/lang/String;)V", &[program.slot()])?;
    helper(thread, "printHelpMessage", stream)
}

fn call_main(thread: &mut Thread, mode: Mode, name: &str, arguments: &[String], dry_run: bool) -> Result<()> {
    let text = strings::new(thread, name)?;
    let call = [1, mode as u64, text.slot()];
    let mirror =
        bootstrap::call_static(thread, HELPER, "checkAndLoadMain", "(ZILjava/lang/String;)Ljava/lang/Class;", &call)?;
    let class = loader::of_mirror(Reference::of_slot(mirror));
    link::initialize(thread, class)?;
    if dry_run {
        return Ok(());
    }
    let method = class.find_method(Symbol::new("main"), Symbol::new("([Ljava/lang/String;)V"));
    let method = method.expect("LauncherHelper has checked that there is main");
    let count = u32::try_from(arguments.len()).unwrap_or(u32::MAX);
    let array = allocate::reference_array(thread, known::string(), count)?;
    let array = thread.handle(array);
    for (index, argument) in (0..count).zip(arguments) {
        let string = strings::new(thread, argument)?;
        array.get().set_reference_element(index, string);
    }
    interpreter::call(thread, method, &[array.slot()])?;
    Ok(())
}

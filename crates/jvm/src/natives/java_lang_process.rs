//! `java.lang.ProcessImpl` and `ProcessHandleImpl`: programs of the host.

use super::Table;
use super::support::{VOID, all_bytes, boolean, field, int, long, until_nul, waiting};
use crate::exceptions;
use crate::interpreter::Arguments;
use crate::object::Reference;
use crate::services::process::{self, Program};
use crate::services::{Failure, policy, system};
use crate::strings;
use crate::thread::{Result, Thread};

/// `this, mode, helper, program, arguments, count, environment, count, folder, descriptors, join errors`
fn start(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let name = until_nul(all_bytes(arguments.reference(3)));
    let block = all_bytes(arguments.reference(4));
    let count = usize::try_from(arguments.int(5)).unwrap_or(0);
    let environment = arguments.reference(6);
    let environment_block = all_bytes(environment);
    let environment_count = usize::try_from(arguments.int(7)).unwrap_or(0);
    let folder = arguments.reference(8);
    let folder_bytes = until_nul(all_bytes(folder));
    let numbers = arguments.reference(9);
    let descriptors = [0, 1, 2].map(|index| numbers.element::<i32>(index));
    let texts = |block: &'_ [u8]| block.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (argument_texts, variables) = (texts(&block), texts(&environment_block));
    let program = Program {
        name: &name,
        arguments: argument_texts.iter().take(count).map(Vec::as_slice).collect(),
        environment: (!environment.is_null())
            .then(|| variables.iter().take(environment_count).map(Vec::as_slice).collect()),
        folder: (!folder.is_null()).then_some(&folder_bytes),
        descriptors,
        errors_to_output: arguments.boolean(10),
    };
    match waiting(thread, || process::start(&program)) {
        Ok(started) => {
            for (index, pipe) in (0..3).zip(started.pipes) {
                arguments.reference(9).set_element(index, pipe);
            }
            Ok(int(started.id))
        }
        Err(failure @ Failure::Refused(_)) => Err(super::support::io_exception(thread, &failure)),
        Err(failure) => {
            let text = format!("error={}, {failure}", failure.number());
            Err(exceptions::throw(thread, "java/io/IOException", text))
        }
    }
}

/// What the host tells of a process, if the program may know: of its own, and with permission to run programs of all.
struct Seen {
    parent: i64,
    /// Milliseconds since 1970, which with the id tells processes apart.
    started: i64,
    /// Nanoseconds of processor time.
    used: i64,
}

fn look(id: i64) -> Option<Seen> {
    if id != i64::from(std::process::id()) && !policy().permissions.run {
        return None;
    }
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|text| text.parse::<i64>().ok())?;
    // The host counts 100 ticks a second for programs.
    Some(Seen {
        parent: number(1),
        started: boot * 1000 + number(19) * 10,
        used: (number(11) + number(12)) * 10_000_000,
    })
}

fn information(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let id = arguments.long(1);
    let Some(seen) = look(id) else { return Ok(VOID) };
    let this = arguments.reference(0);
    this.write(field!("java/lang/ProcessHandleImpl$Info", "startTime", "J"), seen.started);
    this.write(field!("java/lang/ProcessHandleImpl$Info", "totalTime", "J"), seen.used);
    let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let words: Vec<String> =
        line.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if let Ok(program) = std::fs::read_link(format!("/proc/{id}/exe")) {
        let text = strings::new(thread, &program.to_string_lossy())?;
        let place = field!("java/lang/ProcessHandleImpl$Info", "command", "Ljava/lang/String;");
        arguments.reference(0).set_reference(place, text);
    }
    let rest = words.get(1..words.len().saturating_sub(1)).unwrap_or_default();
    let count = u32::try_from(rest.len()).unwrap_or(0);
    let array = crate::allocate::reference_array(thread, crate::known::string(), count)?;
    let array = thread.handle(array);
    for (index, word) in (0..count).zip(rest) {
        let text = strings::new(thread, word)?;
        array.get().set_reference_element(index, text);
    }
    let place = field!("java/lang/ProcessHandleImpl$Info", "arguments", "[Ljava/lang/String;");
    arguments.reference(0).set_reference(place, array.get());
    if let Ok(entry) = std::fs::metadata(format!("/proc/{id}")) {
        let number = std::os::unix::fs::MetadataExt::uid(&entry);
        let name = system::user(number).map_or_else(|| number.to_string(), |(name, _)| name);
        let text = strings::new(thread, &name)?;
        let place = field!("java/lang/ProcessHandleImpl$Info", "user", "Ljava/lang/String;");
        arguments.reference(0).set_reference(place, text);
    }
    Ok(VOID)
}

/// `id, ids, parents, start times`: fills the arrays with children of a process, or with all if it is 0. Returns how many there are.
fn processes(_: &mut Thread, arguments: Arguments) -> Result<u64> {
    let wanted = arguments.long(0);
    let arrays = [arguments.reference(2), arguments.reference(3), arguments.reference(4)];
    let room = arrays.iter().filter(|array| !array.is_null()).map(|array| array.length()).min().unwrap_or(0);
    let mut count = 0;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for id in entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i64>().ok()) {
        let Some(seen) = look(id).filter(|seen| wanted == 0 || seen.parent == wanted) else { continue };
        if count < room {
            let set = |array: Reference, value: i64| {
                if !array.is_null() {
                    array.set_element(count, value);
                }
            };
            set(arrays[0], id);
            set(arrays[1], seen.parent);
            set(arrays[2], seen.started);
        }
        count += 1;
    }
    Ok(u64::from(count))
}

/// Whether the process that began then is there still.
fn same(id: i64, started: i64) -> Option<Seen> {
    look(id).filter(|seen| started == 0 || seen.started == started)
}

fn wait(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (id, reap) = (i32::try_from(arguments.long(0)).unwrap_or(-1), arguments.boolean(2));
    // `NOT_A_CHILD`
    Ok(int(waiting(thread, || process::wait(id, reap)).unwrap_or(-2)))
}

pub(super) const TABLES: &[Table] = &[
    ("java/lang/ProcessImpl", &[("init", "()V", |_, _| Ok(VOID)), ("forkAndExec", "(I[B[B[BI[BI[B[IZ)I", start)]),
    (
        "java/lang/ProcessHandleImpl",
        &[
            ("initNative", "()V", |_, _| Ok(VOID)),
            ("getCurrentPid0", "()J", |_, _| Ok(u64::from(std::process::id()))),
            ("waitForProcessExit0", "(JZ)I", wait),
            ("isAlive0", "(J)J", |_, a| Ok(long(look(a.long(0)).map_or(-1, |seen| seen.started)))),
            ("parent0", "(JJ)J", |_, a| Ok(long(same(a.long(0), a.long(2)).map_or(-1, |seen| seen.parent)))),
            ("destroy0", "(JJZ)Z", |_, a| {
                let id = i32::try_from(a.long(0)).unwrap_or(-1);
                let ended = id > 0 && same(a.long(0), a.long(2)).is_some() && process::end(id, a.boolean(4)).is_ok();
                Ok(boolean(ended))
            }),
            ("getProcessPids0", "(J[J[J[J)I", processes),
        ],
    ),
    ("java/lang/ProcessHandleImpl$Info", &[("initIDs", "()V", |_, _| Ok(VOID)), ("info0", "(J)V", information)]),
];

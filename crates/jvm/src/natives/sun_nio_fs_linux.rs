//! `sun.nio.fs.UnixCopyFile`, `LinuxNativeDispatcher` and `LinuxWatchService`: copying files, the host's mounts, watching folders.

use super::Table;
use super::sun_nio_fs_unix_native_dispatcher::unix_exception;
use super::support::{VOID, check_range, field, int, memory, text_at, waiting};
use crate::allocate;
use crate::interpreter::Arguments;
use crate::metadata::BasicType;
use crate::services::{self, Failure, files, network};
use crate::thread::{Result, Thread};

/// Bytes that are copied at a time, after which it may be cancelled.
const CHUNK: usize = 1 << 20;

/// `to, from, address of an int that is not 0 when it shall end`
fn copy(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let (to, from, cancel) = (arguments.int(0), arguments.int(1), arguments.long(2));
    let result = waiting(thread, || {
        let mut buffer = vec![0; CHUNK];
        loop {
            // SAFETY: the class's own int, or no address.
            if unsafe { memory(cancel, if cancel == 0 { 0 } else { 4 }) }.iter().any(|&byte| byte != 0) {
                return Err(Failure::Host(libc::ECANCELED));
            }
            let count = files::read(from, &mut buffer)?;
            if count == 0 {
                return Ok(VOID);
            }
            files::write_all(to, &buffer[..count])?;
        }
    });
    result.map_err(|failure| unix_exception(thread, &failure))
}

/// The host's mounts that were not yet given out: lines of a file.
type Mounts = std::vec::IntoIter<Vec<Vec<u8>>>;

fn open_mounts(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    // SAFETY: the class has put the path there.
    let path = unsafe { text_at(arguments.long(0)) };
    let text = match files::contents(path) {
        Ok(text) => text,
        Err(failure) => return Err(unix_exception(thread, &failure)),
    };
    // Spaces in names are written as \040 and so on.
    let plain = |word: &[u8]| {
        let mut plain = Vec::new();
        let mut rest = word;
        while let Some((&byte, after)) = rest.split_first() {
            let digits = after.get(..3).and_then(|digits| str::from_utf8(digits).ok());
            match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
                Some(code) => {
                    plain.push(code);
                    rest = &after[3..];
                }
                None => {
                    plain.push(byte);
                    rest = after;
                }
            }
        }
        plain
    };
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#');
    let mounts: Vec<Vec<Vec<u8>>> = lines
        .map(|line| line.split(|&byte| byte == b' ').map(plain).collect::<Vec<_>>())
        .filter(|words| words.len() >= 4)
        .collect();
    Ok(Box::into_raw(Box::new(mounts.into_iter())).expose_provenance() as u64)
}

fn mounts(arguments: Arguments) -> *mut Mounts {
    std::ptr::with_exposed_provenance_mut(usize::try_from(arguments.long(0)).unwrap_or(0))
}

/// Fills in the next mount. -1 if there is none.
fn next_mount(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    // SAFETY: made by `setmntent0`, not yet ended, and used by one thread at a time.
    let Some(words) = unsafe { &mut *mounts(arguments) }.next() else { return Ok(int(-1)) };
    let places = [
        field!("sun/nio/fs/UnixMountEntry", "name", "[B"),
        field!("sun/nio/fs/UnixMountEntry", "dir", "[B"),
        field!("sun/nio/fs/UnixMountEntry", "fstype", "[B"),
        field!("sun/nio/fs/UnixMountEntry", "opts", "[B"),
    ];
    for (place, word) in places.into_iter().zip(&words) {
        let bytes = allocate::byte_array(thread, word)?;
        arguments.reference(2).set_reference(place, bytes);
    }
    Ok(int(0))
}

fn number(thread: &mut Thread, result: services::Result<i32>) -> Result<u64> {
    result.map(int).map_err(|failure| unix_exception(thread, &failure))
}

/// Two connected descriptors into an `int[2]`.
fn pair(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    check_range(thread, arguments.reference(0), 0, 2)?;
    match network::pair() {
        Ok((first, second)) => {
            arguments.reference(0).set_element(0, first);
            arguments.reference(0).set_element(1, second);
            Ok(VOID)
        }
        Err(failure) => Err(unix_exception(thread, &failure)),
    }
}

/// Waits until either of two descriptors can be read. Returns how many can.
fn poll(thread: &mut Thread, arguments: Arguments) -> Result<u64> {
    let numbers = [arguments.int(0), arguments.int(1)];
    match waiting(thread, || network::poll_two(numbers)) {
        Err(Failure::Host(libc::EINTR)) => Ok(int(0)),
        result => number(thread, result),
    }
}

pub(super) const TABLES: &[Table] = &[
    ("sun/nio/fs/UnixCopyFile", &[("transfer", "(IIJ)V", copy)]),
    (
        "sun/nio/fs/LinuxNativeDispatcher",
        &[
            ("init", "()V", |_, _| Ok(VOID)),
            ("setmntent0", "(JJ)J", open_mounts),
            ("getmntent0", "", next_mount),
            ("endmntent", "(J)V", |_, a| {
                // SAFETY: made by `setmntent0`, and ended once.
                drop(unsafe { Box::from_raw(mounts(a)) });
                Ok(VOID)
            }),
        ],
    ),
    (
        "sun/nio/fs/LinuxWatchService",
        &[
            ("eventSize", "()I", |_, _| Ok(size_of::<libc::inotify_event>() as u64)),
            ("eventOffsets", "()[I", |thread, _| {
                // Of watch, mask, cookie, length and name: the name is behind the record.
                let offsets = [0i32, 4, 8, 12, 16];
                Ok(allocate::filled(thread, BasicType::Int, &offsets)?.slot())
            }),
            ("inotifyInit", "()I", |thread, _| number(thread, files::watcher())),
            ("inotifyAddWatch", "(IJI)I", |thread, a| {
                // SAFETY: the class has put the path there.
                let path = unsafe { text_at(a.long(1)) };
                let added = files::watch(a.int(0), path, a.int(3).cast_unsigned());
                number(thread, added)
            }),
            ("inotifyRmWatch", "(II)V", |thread, a| number(thread, files::unwatch(a.int(0), a.int(1)))),
            ("configureBlocking", "(IZ)V", |thread, a| {
                let set = network::set_blocking(a.int(0), a.boolean(1));
                number(thread, set.map(|()| 0))
            }),
            ("socketpair", "([I)V", pair),
            ("poll", "(II)I", poll),
        ],
    ),
];

//! System calls that the host's kernel answers as they are: same meaning, same layouts, only the number and the addresses differ.
//!
//! Both kernels are Linux on 64-bit little-endian machines, and riscv64 and x86-64 take most definitions from the same generic headers. Guest
//! memory is host memory, so a pointer needs its base added and nothing else; what it points to is checked by the kernel, which answers
//! `EFAULT` for a hole. Behind the guest's addresses lies a guard that no single call can reach past.
//!
//! A line is: number, the host's number, and a letter per argument.
//!
//! | letter | argument |
//! |---|---|
//! | `.` | a number |
//! | `p` | an address in the guest, or null |
//! | `i`, `o` | as `p`: bytes that go into the call, or come out of it; their count is the next argument |
//! | `c` | as `p`: a string |
//! | `s` | a path: as `c`, but it may be found in the sysroot |
//! | `l` | as `s`, of a link itself and not of what it leads to |
//! | `@` | a number: flags, of which `AT_SYMLINK_NOFOLLOW` makes `l` of `s` |
//!
//! `!` before the letters: the call may wait, so a signal must be able to end it.

use std::path::Path;

use crate::signal::host::{Mailbox, call};
use crate::space::AddressSpace;
use crate::sys::raw;
use crate::sysroot::redirect;

/// Bytes of a path at most, as in Linux.
const PATH_MAX: usize = 4096;

/// A line of the table, ready to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct {
    host: i64,
    /// Bit n: argument n is an address.
    pointers: u8,
    /// Bit n: argument n is a path.
    paths: u8,
    /// The path is of a link itself.
    of_link: bool,
    /// The argument with the flags that decide this as well.
    flags: Option<u8>,
    waits: bool,
}

/// One past the highest number in the table.
const NUMBERS: usize = 512;

static BY_NUMBER: [Option<Direct>; NUMBERS] = by_number();

macro_rules! table {
    ($($number:literal $host:ident $letters:literal;)*) => {
        const TABLE: &[(usize, i64, &str)] = &[$(($number, libc::$host, $letters)),*];
        /// Number, name with `SYS_` before it, and letters.
        const NAMES: &[(u64, &str, &str)] = &[$(($number, stringify!($host), $letters)),*];
    };
}

table! {
    // Files by path.
    5 SYS_setxattr "scp..";
    6 SYS_lsetxattr "lcp..";
    8 SYS_getxattr "scp.";
    9 SYS_lgetxattr "lcp.";
    11 SYS_listxattr "sp.";
    12 SYS_llistxattr "lp.";
    14 SYS_removexattr "sc";
    15 SYS_lremovexattr "lc";
    33 SYS_mknodat ".c..";
    34 SYS_mkdirat ".c.";
    35 SYS_unlinkat ".l.";
    36 SYS_symlinkat "c.c";
    37 SYS_linkat ".l.c.";
    38 SYS_renameat ".l.c";
    39 SYS_umount2 "c.";
    40 SYS_mount "ccc.p";
    45 SYS_truncate "s.";
    48 SYS_faccessat ".s.";
    49 SYS_chdir "s";
    51 SYS_chroot "s";
    53 SYS_fchmodat ".s.";
    54 SYS_fchownat ".s..@";
    43 SYS_statfs "sp";
    88 SYS_utimensat ".sp@";
    276 SYS_renameat2 ".l.c.";
    291 SYS_statx ".s@.p";
    437 SYS_openat2 "!.sp.";
    439 SYS_faccessat2 ".s.@";
    264 SYS_name_to_handle_at ".lpp.";
    // Files by descriptor.
    7 SYS_fsetxattr ".cp..";
    10 SYS_fgetxattr ".cp.";
    13 SYS_flistxattr ".p.";
    16 SYS_fremovexattr ".c";
    17 SYS_getcwd "p.";
    23 SYS_dup ".";
    24 SYS_dup3 "...";
    32 SYS_flock "!..";
    44 SYS_fstatfs ".p";
    46 SYS_ftruncate "..";
    47 SYS_fallocate "....";
    50 SYS_fchdir ".";
    52 SYS_fchmod "..";
    55 SYS_fchown "...";
    57 SYS_close ".";
    59 SYS_pipe2 "p.";
    61 SYS_getdents64 ".p.";
    62 SYS_lseek "...";
    63 SYS_read "!.o.";
    64 SYS_write "!.i.";
    67 SYS_pread64 "!.o..";
    68 SYS_pwrite64 "!.i..";
    71 SYS_sendfile "!..p.";
    76 SYS_splice "!.p.p..";
    77 SYS_tee "!....";
    81 SYS_sync "";
    82 SYS_fsync ".";
    83 SYS_fdatasync ".";
    84 SYS_sync_file_range "....";
    213 SYS_readahead "...";
    223 SYS_fadvise64 "....";
    267 SYS_syncfs ".";
    279 SYS_memfd_create "c.";
    285 SYS_copy_file_range ".p.p..";
    436 SYS_close_range "...";
    // Memory; what changes mappings is in `space`.
    227 SYS_msync "p..";
    228 SYS_mlock "p.";
    229 SYS_munlock "p.";
    230 SYS_mlockall ".";
    231 SYS_munlockall "";
    232 SYS_mincore "p.p";
    233 SYS_madvise "p..";
    284 SYS_mlock2 "p..";
    // Events.
    19 SYS_eventfd2 "..";
    20 SYS_epoll_create1 ".";
    26 SYS_inotify_init1 ".";
    27 SYS_inotify_add_watch ".s.";
    28 SYS_inotify_rm_watch "..";
    85 SYS_timerfd_create "..";
    86 SYS_timerfd_settime "..pp";
    87 SYS_timerfd_gettime ".p";
    // Time. What is asked often is answered in `time` instead.
    102 SYS_getitimer ".p";
    103 SYS_setitimer ".pp";
    107 SYS_timer_create ".pp";
    108 SYS_timer_gettime ".p";
    109 SYS_timer_getoverrun ".";
    110 SYS_timer_settime "..pp";
    111 SYS_timer_delete ".";
    112 SYS_clock_settime ".p";
    114 SYS_clock_getres ".p";
    101 SYS_nanosleep "!pp";
    115 SYS_clock_nanosleep "!..pp";
    153 SYS_times "p";
    170 SYS_settimeofday "pp";
    171 SYS_adjtimex "p";
    266 SYS_clock_adjtime ".p";
    // Threads and scheduling.
    118 SYS_sched_setparam ".p";
    119 SYS_sched_setscheduler "..p";
    120 SYS_sched_getscheduler ".";
    121 SYS_sched_getparam ".p";
    122 SYS_sched_setaffinity "..p";
    123 SYS_sched_getaffinity "..p";
    124 SYS_sched_yield "";
    125 SYS_sched_get_priority_max ".";
    126 SYS_sched_get_priority_min ".";
    127 SYS_sched_rr_get_interval ".p";
    168 SYS_getcpu "ppp";
    274 SYS_sched_setattr ".p.";
    275 SYS_sched_getattr ".p..";
    283 SYS_membarrier "...";
    // Processes and who they are.
    30 SYS_ioprio_set "...";
    31 SYS_ioprio_get "..";
    90 SYS_capget "pp";
    91 SYS_capset "pp";
    92 SYS_personality ".";
    95 SYS_waitid "!..p.p";
    97 SYS_unshare ".";
    129 SYS_kill "..";
    130 SYS_tkill "..";
    131 SYS_tgkill "...";
    136 SYS_rt_sigpending "p.";
    138 SYS_rt_sigqueueinfo "..p";
    240 SYS_rt_tgsigqueueinfo "...p";
    140 SYS_setpriority "...";
    141 SYS_getpriority "..";
    143 SYS_setregid "..";
    144 SYS_setgid ".";
    145 SYS_setreuid "..";
    146 SYS_setuid ".";
    147 SYS_setresuid "...";
    148 SYS_getresuid "ppp";
    149 SYS_setresgid "...";
    150 SYS_getresgid "ppp";
    151 SYS_setfsuid ".";
    152 SYS_setfsgid ".";
    154 SYS_setpgid "..";
    155 SYS_getpgid ".";
    156 SYS_getsid ".";
    157 SYS_setsid "";
    158 SYS_getgroups ".p";
    159 SYS_setgroups ".p";
    161 SYS_sethostname "p.";
    162 SYS_setdomainname "p.";
    163 SYS_getrlimit ".p";
    164 SYS_setrlimit ".p";
    165 SYS_getrusage ".p";
    166 SYS_umask ".";
    172 SYS_getpid "";
    173 SYS_getppid "";
    174 SYS_getuid "";
    175 SYS_geteuid "";
    176 SYS_getgid "";
    177 SYS_getegid "";
    178 SYS_gettid "";
    179 SYS_sysinfo "p";
    260 SYS_wait4 "!.p.p";
    261 SYS_prlimit64 "..pp";
    268 SYS_setns "..";
    272 SYS_kcmp ".....";
    278 SYS_getrandom "!p..";
    424 SYS_pidfd_send_signal "..p.";
    434 SYS_pidfd_open "..";
    438 SYS_pidfd_getfd "...";
    444 SYS_landlock_create_ruleset "p..";
    445 SYS_landlock_add_rule "..p.";
    446 SYS_landlock_restrict_self "..";
    // Message queues and System V IPC. `msgctl` and `shmctl` agree in layout; `semctl` does not.
    180 SYS_mq_open "c..p";
    181 SYS_mq_unlink "c";
    182 SYS_mq_timedsend "!.p..p";
    183 SYS_mq_timedreceive "!.p.pp";
    184 SYS_mq_notify ".p";
    185 SYS_mq_getsetattr ".pp";
    186 SYS_msgget "..";
    187 SYS_msgctl "..p";
    188 SYS_msgrcv "!.p...";
    189 SYS_msgsnd "!.p..";
    190 SYS_semget "...";
    192 SYS_semtimedop "!.p.p";
    193 SYS_semop "!.p.";
    194 SYS_shmget "...";
    195 SYS_shmctl "..p";
    // Sockets; those with addresses inside structures are in `net`.
    198 SYS_socket "...";
    199 SYS_socketpair "...p";
    200 SYS_bind ".p.";
    201 SYS_listen "..";
    202 SYS_accept "!.pp";
    203 SYS_connect "!.p.";
    204 SYS_getsockname ".pp";
    205 SYS_getpeername ".pp";
    206 SYS_sendto "!.i..p.";
    207 SYS_recvfrom "!.o..pp";
    209 SYS_getsockopt "...pp";
    210 SYS_shutdown "..";
    242 SYS_accept4 "!.pp.";
    // Keys.
    217 SYS_add_key "ccp..";
    218 SYS_request_key "ccc.";
}

const fn line(host: i64, letters: &str) -> Direct {
    let letters = letters.as_bytes();
    let waits = !letters.is_empty() && letters[0] == b'!';
    let first = if waits { 1 } else { 0 };
    let mut line = Direct { host, pointers: 0, paths: 0, of_link: false, flags: None, waits };
    let mut at = first;
    while at < letters.len() {
        let argument = at - first;
        match letters[at] {
            b'.' => {}
            #[allow(clippy::cast_possible_truncation, reason = "there are six")]
            b'@' => line.flags = Some(argument as u8),
            b'p' | b'i' | b'o' | b'c' => line.pointers |= 1 << argument,
            b's' | b'l' => {
                assert!(line.paths == 0, "one path in a call can be redirected");
                line.pointers |= 1 << argument;
                line.paths |= 1 << argument;
                line.of_link = letters[at] == b'l';
            }
            _ => panic!("a letter of the table's header"),
        }
        at += 1;
    }
    line
}

const fn by_number() -> [Option<Direct>; NUMBERS] {
    let mut lines = [None; NUMBERS];
    let mut at = 0;
    while at < TABLE.len() {
        let (number, host, letters) = TABLE[at];
        assert!(lines[number].is_none(), "one line for a number");
        lines[number] = Some(line(host, letters));
        at += 1;
    }
    lines
}

/// The line of system call `number`.
#[must_use]
pub fn find(number: u64) -> Option<Direct> {
    BY_NUMBER.get(usize::try_from(number).ok()?).copied().flatten()
}

/// The name of system call `number` and the letters of its arguments, if it is in the table.
#[must_use]
pub fn name(number: u64) -> Option<(&'static str, &'static str)> {
    let (_, name, letters) = NAMES.iter().find(|(at, ..)| *at == number)?;
    Some((name.trim_start_matches("SYS_"), letters.trim_start_matches('!')))
}

impl Direct {
    /// Makes the call in `space`, with paths looked up in `sysroot` first.
    #[must_use]
    pub fn call(self, mailbox: &Mailbox, space: &AddressSpace, sysroot: Option<&Path>, mut arguments: [u64; 6]) -> i64 {
        let mut path = None;
        let flags = self.flags.map_or(0, |at| arguments[usize::from(at)]);
        let follow = !self.of_link && flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
        for (number, argument) in arguments.iter_mut().enumerate() {
            if self.pointers >> number & 1 == 0 || *argument == 0 {
                continue;
            }
            if sysroot.is_some() && self.paths >> number & 1 != 0 {
                path = space.read_string(*argument, PATH_MAX).ok().and_then(|text| redirect(sysroot, &text, follow));
                if let Some(path) = &path {
                    *argument = path.as_ptr() as u64;
                    continue;
                }
            }
            match space.translate(*argument) {
                Some(host) => *argument = host,
                None => return -i64::from(libc::EFAULT),
            }
        }
        // SAFETY: the kernel reads and writes guest memory only, by the table's letters, and reads the path.
        let answer =
            unsafe { if self.waits { call(mailbox, self.host, arguments) } else { raw(self.host, arguments) } };
        drop(path);
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use riscv::hart::HartSignals;

    use super::*;

    #[test]
    fn addresses_are_translated_and_numbers_are_not() {
        let mailbox = Mailbox::new(Arc::new(HartSignals::new()), 0);
        let space = AddressSpace::new().unwrap();
        let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let at = space.map(0, 4096, 3, anonymous, u64::MAX, 0).unwrap();
        let socketpair = find(199).unwrap();
        assert_eq!(socketpair.call(&mailbox, &space, None, [1, 1, 0, at, 0, 0]), 0);
        let pair = space.read::<8>(at).unwrap();
        let pair = [pair[0], pair[4]];
        assert!(pair[0] > 2 && pair[1] > 2, "{pair:?}");
        for end in pair {
            // SAFETY: closes what was opened here.
            unsafe { raw(libc::SYS_close, [end.into(), 0, 0, 0, 0, 0]) };
        }
        // Nothing there, and outside of everything.
        for bad in [at + 4096, u64::MAX - 8] {
            assert_eq!(socketpair.call(&mailbox, &space, None, [1, 1, 0, bad, 0, 0]), -i64::from(libc::EFAULT));
        }
        assert_eq!(find(172).unwrap().call(&mailbox, &space, None, [0; 6]), i64::from(std::process::id()));
        assert_eq!(find(117), None);
        assert_eq!(find(u64::MAX), None);
    }

    /// The C library's header for riscv64 has the same names at the same numbers.
    #[test]
    fn numbers_are_those_of_the_header() {
        let header = std::fs::read_to_string("/usr/riscv64-linux-gnu/include/asm-generic/unistd.h")
            .expect("Debian's linux-libc-dev-riscv64-cross");
        // One space between words, and one after each line.
        let header = header.split_whitespace().fold(String::new(), |text, word| text + word + " ");
        let source = include_str!("direct.rs");
        let mut compared = 0;
        for line in source.lines() {
            let mut words = line.split_whitespace();
            let (Some(number), Some(name)) = (words.next(), words.next()) else { continue };
            let Some(name) = name.strip_prefix("SYS_") else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            let wanted = format!("__NR_{name} {number} ");
            let wanted_too = format!("__NR3264_{name} {number} ");
            assert!(header.contains(&wanted) || header.contains(&wanted_too), "{wanted} is not in the header");
            compared += 1;
        }
        assert!(compared > 100, "{compared}");
    }
}

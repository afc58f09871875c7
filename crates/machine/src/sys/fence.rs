//! A fence of the host's kernel around this process: what a guest may not do, the process cannot do either, whatever has become of it.
//!
//! A process machine checks what its guest asks for, and says which flag would have allowed it. That check is code, and guests look for
//! holes in code. So the worker gives up what the guest may not have before the guest's first instruction, for good:
//!
//! ```text
//! Landlock   files by where they are; TCP by port; abstract sockets and signals of others
//! seccomp    sockets at all; processes; metadata of files; what makes new ways (other processes' memory, io_uring, mounts, keys, BPF, ...)
//! ```
//!
//! It is wider than the check in three ways: a file that does not exist yet is allowed by its folder, a network address by its port, and that a
//! file is there can be seen (Landlock guards contents and names in folders, not the status of a known path). Programs that the guest starts stay
//! behind the fence.
//!
//! System calls are refused by name, not allowed by name: with [`Permissions::run`] any program may be behind the fence.
//!
//! Invariant: it is put up while the process has one thread. Both kinds hold for the calling thread and those that it starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::permissions::Permissions;

/// The newest of Landlock that is asked for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V6;

/// What every process reads: sources of zeroes and randomness, the zone of the host's clock, what the kernel is.
const COMMON: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo",
    "/proc/sys/kernel/osrelease",
];
/// What looking up names of hosts reads, and the C library's parts for it.
const NAMES: &[&str] = &[
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/sys/class/net",
    "/sys/devices",
];
/// What programs of the host are made of.
const PROGRAMS: &[&str] =
    &["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/etc/ld.so.cache", "/etc/alternatives"];

/// How much of the fence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// All of it.
    Full,
    /// The kernel's Landlock is older and lacks a part: its network, or sockets and signals of others.
    Older,
    /// The kernel has no Landlock: only system calls are refused.
    NoFiles,
}

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// A path of the permissions is not there.
    #[error("{path} cannot be given to the program: {cause}")]
    Path {
        /// The path, or the folder that would hold it.
        path: PathBuf,
        /// What the host says.
        cause: landlock::PathFdError,
    },
    /// Landlock refused a rule.
    #[error("the host's Landlock failed: {0}")]
    Landlock(#[from] RulesetError),
    /// The filter of system calls was not accepted.
    #[error("the host's seccomp failed: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// The same, by the library that makes filters.
    #[error("the host's seccomp failed: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// The version of Landlock that the kernel has; `None` without.
#[must_use]
pub fn landlock_version() -> Option<i64> {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call reads no memory and answers a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    (version > 0).then_some(version)
}

/// Confines this process, for good, to `permissions` and to reading `own`, the files that the machine itself needs; they may be executed if programs may.
/// Of `own`, what is not there is left out.
///
/// # Errors
/// A path of the permissions is not there, or the kernel has no seccomp.
pub fn raise(permissions: &Permissions, own: &[PathBuf]) -> Result<Strength, FenceError> {
    if *permissions == Permissions::all() {
        return Ok(Strength::Full);
    }
    let strength = confine_files(permissions, own)?;
    for program in filters(permissions)? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(strength)
}

fn confine_files(permissions: &Permissions, own: &[PathBuf]) -> Result<Strength, FenceError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?.scope(Scope::from_all(NEWEST))?;
    // A rule without a port means all ports: then there is nothing to handle.
    let any_port = permissions.network.iter().any(|endpoint| endpoint.port.is_none());
    if !any_port {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let mut rules = rules.create()?;
    let names = if permissions.network.is_empty() { &[] } else { NAMES };
    let execute = if permissions.run { AccessFs::Execute.into() } else { landlock::BitFlags::EMPTY };
    let common = COMMON.iter().chain(names).map(|path| (Path::new(path), read));
    for (path, access) in common.chain(own.iter().map(|path| (path.as_path(), read | execute))) {
        if let Ok(open) = PathFd::new(path) {
            rules = add(rules, path, open, access)?;
        }
    }
    if let Ok(open) = PathFd::new("/dev/null") {
        rules = rules.add_rule(PathBeneath::new(open, AccessFs::WriteFile))?;
    }
    if permissions.run {
        for path in PROGRAMS.iter().map(Path::new) {
            if let Ok(open) = PathFd::new(path) {
                rules = add(rules, path, open, read | AccessFs::Execute)?;
            }
        }
    }
    for path in &permissions.read {
        let open = PathFd::new(path).map_err(|cause| FenceError::Path { path: path.clone(), cause })?;
        rules = add(rules, path, open, read | execute)?;
    }
    for path in &permissions.write {
        // What is to be made is made in its folder.
        let place = if path.exists() { path.as_path() } else { path.parent().unwrap_or(path) };
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        let open = PathFd::new(place).map_err(|cause| FenceError::Path { path: place.into(), cause })?;
        rules = add(rules, place, open, write | execute)?;
    }
    if !any_port && !permissions.network.is_empty() {
        // A port of the host's choice.
        rules = rules.add_rule(NetPort::new(0, AccessNet::BindTcp))?;
        for port in permissions.network.iter().filter_map(|endpoint| endpoint.port) {
            rules = rules.add_rule(NetPort::new(port, AccessNet::from_all(NEWEST)))?;
        }
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Strength::Full,
        RulesetStatus::PartiallyEnforced => Strength::Older,
        RulesetStatus::NotEnforced => Strength::NoFiles,
    })
}

/// Allows `access`, of which only a part is for what is no folder.
fn add(
    rules: RulesetCreated,
    path: &Path,
    open: PathFd,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    rules.add_rule(PathBeneath::new(open, access))
}

/// Ways to reach what no permission is about: refused always.
const NEVER: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_mq_open,
    libc::SYS_msgget,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_semget,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_shmget,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Starting programs and processes.
const PROCESSES: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
];

/// Changing what is known of files, which Landlock does not guard.
const METADATA: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The calls with the numbers of x32, a second door to the same calls on x86-64.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Refuses a call, or with conditions those of it that meet one of them.
fn refuse(rules: &mut Rules, call: libc::c_long, conditions: Vec<SeccompRule>) {
    #[cfg(target_arch = "x86_64")]
    rules.insert(call | X32, Vec::new());
    rules.insert(call, conditions);
}

fn filters(permissions: &Permissions) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let when = |argument: u8, length: SeccompCmpArgLen, operator: SeccompCmpOp, value: u64| {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
    };
    let mut rules = Rules::new();
    // x32 has numbers of its own for some calls.
    #[cfg(target_arch = "x86_64")]
    rules.extend((512..548).map(|call| (call | X32, Vec::new())));
    for &call in NEVER {
        refuse(&mut rules, call, Vec::new());
    }
    // Typing into the terminal that the shell reads from.
    let typing =
        [libc::TIOCSTI, libc::TIOCLINUX].map(|request| when(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request));
    refuse(&mut rules, libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    let mut absent = Rules::new();
    if !permissions.run {
        for &call in PROCESSES {
            refuse(&mut rules, call, Vec::new());
        }
        let own = u64::from(std::process::id());
        for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
            refuse(&mut rules, call, vec![when(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own)?]);
        }
        let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
        let process = when(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
        refuse(&mut rules, libc::SYS_clone, vec![process]);
        // What this is called with is in memory, where a filter cannot look. Without it the C library uses the former.
        refuse(&mut absent, libc::SYS_clone3, Vec::new());
    }
    if permissions.write.is_empty() {
        for &call in METADATA {
            refuse(&mut rules, call, Vec::new());
        }
    }
    if permissions.network.is_empty() {
        refuse(&mut rules, libc::SYS_socket, Vec::new());
    } else {
        // Those of the Internet, and the kernel's own that tells of interfaces; each other family is another way out.
        let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(i32::cast_unsigned).map(u64::from);
        let others = families.map(|family| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family));
        let others = others.into_iter().collect::<Result<_, _>>()?;
        refuse(&mut rules, libc::SYS_socket, vec![SeccompRule::new(others)?]);
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let program = |rules: Rules, error: i32| {
        let refused = SeccompAction::Errno(error.cast_unsigned());
        SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
    };
    let mut programs = vec![program(rules, libc::EPERM)?];
    if !absent.is_empty() {
        programs.push(program(absent, libc::ENOSYS)?);
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_made_for_every_set_of_permissions() {
        let all = Permissions::all();
        for (run, network, write) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, false)]
        {
            let permissions = Permissions {
                run,
                network: if network { all.network.clone() } else { Vec::new() },
                write: if write { vec!["/tmp".into()] } else { Vec::new() },
                ..Permissions::default()
            };
            let programs = filters(&permissions).unwrap();
            assert_eq!(programs.len(), if run { 1 } else { 2 });
            assert!(programs.iter().all(|program| program.len() < 4096), "the kernel takes no longer ones");
        }
    }
}

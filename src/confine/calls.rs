//! System calls that belong together.

/// What an argument must be. All are 32 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// This argument is that.
    Is(u8, u64),
    /// Those bits of this argument are these.
    Bits(u8, u64, u64),
    /// This argument is our own process.
    Us(u8),
}

/// One way in which a call may be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Its name.
    pub(super) name: &'static str,
    /// The kernel's number for it.
    pub(super) number: i64,
    /// All of them hold.
    pub(super) checks: &'static [Check],
}

/// Calls by their names, some with checks on arguments: `SYS_read, SYS_fcntl [Is(1, 3)]`. Those
/// that only x86_64 has are older forms of others, and the C library there uses them still.
macro_rules! calls {
    ($($(#[$only:meta])? $name:ident $([$($check:expr),*])?),* $(,)?) => {
        &[$($(#[$only])? Call {
            name: stringify!($name),
            number: numbers::$name,
            checks: &[$($($check),*)?],
        }),*]
    };
}

use self::Check::{Bits, Is, Us};

/// The kernel's numbers.
mod numbers {
    pub(super) use libc::*;

    /// Missing in the crate, and what rename(3) is there.
    #[cfg(target_arch = "aarch64")]
    #[allow(non_upper_case_globals, reason = "the crate's way to write them")]
    pub(super) const SYS_renameat: libc::c_long = 38;
}

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
const PROT_WRITE: u64 = libc::PROT_WRITE as u64;
/// What of open's flags makes it more than reading.
const CHANGES: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
/// New namespaces: never.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
const THREAD: u64 = libc::CLONE_THREAD as u64;
const AF_UNIX: u64 = libc::AF_UNIX as u64;
const AF_INET: u64 = libc::AF_INET as u64;
const AF_INET6: u64 = libc::AF_INET6 as u64;
const AF_NETLINK: u64 = libc::AF_NETLINK as u64;
/// The type of a socket, without the flags beside it.
const SOCK_TYPE: u64 = 0xF;
const SOCK_STREAM: u64 = libc::SOCK_STREAM as u64;
// Of these the C libraries have different types.
const TCGETS: u64 = 0x5401;
const FIONREAD: u64 = 0x541B;
const SIOCGIFINDEX: u64 = 0x8933;
const SIOCGIFNAME: u64 = 0x8910;
const FIONBIO: u64 = 0x5421;
const SG_IO: u64 = 0x2285;
const SG_GET_SG_TABLESIZE: u64 = 0x227F;
const BLKSECTGET: u64 = 0x1267;

/// What the C library and the standard library do by themselves: memory, locks, time, the log, the
/// end of a thread, and of the process. Whatever descriptor a thread has may be read and written.
pub(super) const RUNTIME: &[Call] = calls![
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_close,
    SYS_futex,
    SYS_mmap[Bits(2, PROT_EXEC, 0)],
    SYS_munmap,
    SYS_mprotect[Bits(2, PROT_EXEC, 0)],
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_sched_yield,
    // A thread's start, and the allocator, count processors.
    SYS_sched_getaffinity,
    SYS_getcpu,
    SYS_getrandom,
    SYS_rt_sigreturn,
    SYS_rt_sigprocmask,
    SYS_sigaltstack,
    // The standard library's handlers of these two take themselves away, so that the process ends
    // by what has happened.
    SYS_rt_sigaction[Is(0, libc::SIGSEGV as u64)],
    SYS_rt_sigaction[Is(0, libc::SIGBUS as u64)],
    SYS_restart_syscall,
    SYS_gettid,
    SYS_getpid,
    // abort(3), and the end by SIGSYS.
    SYS_tgkill[Us(0)],
    // The name, for the line about a violation.
    SYS_prctl[Is(0, libc::PR_GET_NAME as u64)],
    SYS_exit,
    SYS_exit_group,
    // The journal's socket is not connected.
    SYS_sendto,
    SYS_sendmsg,
    // Every close of a descriptor in a debug build looks first.
    SYS_fcntl[Is(1, libc::F_GETFD as u64)],
    SYS_fcntl[Is(1, libc::F_SETFD as u64)],
];

/// Waiting for descriptors, and waking others up.
pub(super) const WAITING: &[Call] = calls![
    SYS_ppoll,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_fcntl[Is(1, libc::F_DUPFD_CLOEXEC as u64)],
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait,
];

/// Starting threads, and a filter for each.
pub(super) const THREADS: &[Call] = calls![
    // Answered with ENOSYS, see `filter`.
    SYS_clone3,
    SYS_clone [Bits(0, THREAD | NAMESPACES, THREAD)],
    SYS_set_robust_list,
    SYS_rseq,
    SYS_prctl [Is(0, libc::PR_SET_NAME as u64)],
    SYS_prctl [Is(0, libc::PR_SET_NO_NEW_PRIVS as u64), Is(1, 1)],
    SYS_seccomp [Is(0, libc::SECCOMP_SET_MODE_FILTER as u64)],
];

/// Looking at files and reading them; which, Landlock says.
pub(super) const READING: &[Call] = calls![
    SYS_openat[Bits(2, CHANGES, 0)],
    SYS_statx,
    SYS_newfstatat,
    SYS_fstat,
    SYS_lseek,
    SYS_pread64,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    SYS_open[Bits(1, CHANGES, 0)],
    #[cfg(target_arch = "x86_64")]
    SYS_stat,
    #[cfg(target_arch = "x86_64")]
    SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    SYS_access,
    #[cfg(target_arch = "x86_64")]
    SYS_readlink,
];

/// Making, changing, locking and removing files.
pub(super) const WRITING: &[Call] = calls![
    SYS_openat,
    SYS_fstatfs,
    SYS_ftruncate,
    SYS_fsync,
    SYS_flock,
    SYS_renameat,
    SYS_renameat2,
    SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    SYS_rename,
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir,
];

/// Removing a file, if it is the one that it should be.
pub(super) const REMOVING: &[Call] = calls![
    SYS_statx,
    SYS_newfstatat,
    SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    SYS_unlink,
];

/// Moving the data of an image that is open.
pub(super) const TRANSFERS: &[Call] = calls![
    SYS_preadv2,
    SYS_pwritev2,
    SYS_pread64,
    SYS_pwrite64,
    SYS_fstat,
    SYS_statx,
    SYS_lseek,
    SYS_fdatasync,
    SYS_fallocate,
    SYS_ftruncate,
    // Which pages of an image in memory are there.
    SYS_mincore,
];

/// Rings of io_uring, made and used.
pub(super) const RINGS: &[Call] =
    calls![SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register];

/// Using sockets that there are, and accepting connections.
pub(super) const SOCKETS: &[Call] = calls![
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_accept4,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_ioctl[Is(1, FIONBIO)],
    SYS_fcntl[Is(1, libc::F_GETFL as u64)],
    SYS_fcntl[Is(1, libc::F_SETFL as u64)],
];

/// Speaking with a target over a connection that a session's thread has made, beside reading and
/// writing as such.
pub(super) const CONNECTION: &[Call] = calls![
    SYS_recvfrom,
    SYS_setsockopt [Is(1, libc::IPPROTO_TCP as u64), Is(2, libc::TCP_CORK as u64)],
];

/// Connecting to a target by TCP.
pub(super) const TCP: &[Call] = calls![
    SYS_socket [Is(0, AF_INET), Bits(1, SOCK_TYPE, SOCK_STREAM)],
    SYS_socket [Is(0, AF_INET6), Bits(1, SOCK_TYPE, SOCK_STREAM)],
    SYS_connect,
    SYS_getpeername,
];

/// What libiscsi does beside: random numbers from a file, a portal's address by way of the C
/// library, which asks the kernel for routes.
pub(super) const LIBISCSI: &[Call] = calls![
    SYS_openat[Bits(2, CHANGES, 0)],
    SYS_fstat,
    SYS_newfstatat,
    SYS_socket[Is(0, AF_NETLINK), Is(2, libc::NETLINK_ROUTE as u64)],
    SYS_bind,
    // Where it takes CHAP's digest from libgcrypt, that asks whether FIPS is in force.
    SYS_faccessat,
    SYS_faccessat2,
    #[cfg(target_arch = "x86_64")]
    SYS_access,
];

/// Answered with an error, and no reason to end: the C library asks its cache of names on the way
/// from a portal's address to the same address, and goes on without.
pub(super) const NO_CACHE: &[Call] = calls![SYS_socket[Is(0, AF_UNIX)]];

/// The same: the allocator asks a file for a setting of the kernel's the first time that it gives
/// memory back, in whichever thread that is.
pub(super) const NO_FILES: &[Call] = calls![SYS_openat[Bits(2, CHANGES, 0)]];

/// Looking names and routes up, which takes datagrams, the kernel's tables and code that the C
/// library loads for the purpose.
pub(super) const NAMES: &[Call] = calls![
    SYS_socket[Is(0, AF_UNIX)],
    SYS_socket[Is(0, AF_INET)],
    SYS_socket[Is(0, AF_INET6)],
    SYS_socket[Is(0, AF_NETLINK)],
    SYS_connect,
    SYS_bind,
    SYS_sendmmsg,
    SYS_getpeername,
    SYS_uname,
    SYS_fstatfs,
    SYS_sysinfo,
    SYS_geteuid,
    SYS_getuid,
    SYS_getegid,
    SYS_getgid,
    SYS_ioctl[Is(1, FIONREAD)],
    // A resolver's address may name an interface: fe80::1%eth0.
    SYS_ioctl[Is(1, SIOCGIFINDEX)],
    SYS_ioctl[Is(1, SIOCGIFNAME)],
    SYS_mmap[Bits(2, PROT_EXEC | PROT_WRITE, PROT_EXEC)],
];

/// The kernel's events about devices.
pub(super) const UEVENTS: &[Call] = calls![SYS_socket[Is(0, AF_NETLINK)], SYS_bind];

/// Shared memory: what a front end has of the guest, and what is given to it.
pub(super) const SHARED_MEMORY: &[Call] = calls![
    SYS_memfd_create,
    SYS_ftruncate,
    SYS_fstat,
    SYS_statx,
    SYS_lseek,
    SYS_fcntl[Is(1, libc::F_ADD_SEALS as u64)],
    SYS_fcntl[Is(1, libc::F_GET_SEALS as u64)],
];

/// Commands to SCSI devices of the host.
pub(super) const SCSI: &[Call] = calls![
    SYS_ioctl[Is(1, SG_IO)],
    SYS_ioctl[Is(1, SG_GET_SG_TABLESIZE)],
    SYS_ioctl[Is(1, BLKSECTGET)],
];

/// Opening nodes of devices. O_EXCL of a disk is how its holders are found.
pub(super) const NODES: &[Call] = calls![SYS_openat];

/// What only the start and the end of the process need: sockets with their owners and modes,
/// signals.
pub(super) const PROCESS: &[Call] = calls![
    SYS_socket,
    SYS_socketpair,
    SYS_bind,
    SYS_listen,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchownat,
    SYS_rt_sigaction,
    // Is stderr a terminal?
    SYS_ioctl[Is(1, TCGETS)],
    SYS_prlimit64,
    SYS_uname,
    SYS_prctl[Is(0, libc::PR_SET_DUMPABLE as u64)],
    SYS_prctl[Is(0, libc::PR_GET_DUMPABLE as u64)],
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    SYS_chown,
];

//! Threads that do what they may not, in processes of their own: this test program, started again
//! for one test with a variable that says what to do.

use std::fs::File;
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use super::fence::{Access, Fence};
use super::*;

const WHAT: &str = "CONFINE_TEST";

/// Runs the test `name` once more, alone, to do `what`.
fn again(name: &str, what: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = format!("confine::tests::{name}");
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(WHAT, what);
    command.output().unwrap()
}

fn what() -> Option<String> {
    std::env::var(WHAT).ok()
}

/// What each class may and may not do, tried by a thread of that class.
fn act(what: &str) {
    let (class, deed) = what.rsplit_once(' ').unwrap();
    let class = *Class::ALL.iter().find(|one| one.name() == class).unwrap();
    let violation = if deed == "log" { Violation::Log } else { Violation::Kill };
    start(violation, "").unwrap();
    let deed = deed.to_owned();
    let thread = std::thread::Builder::new().name(class.name().to_owned()).spawn(move || {
        enter(class);
        match &*deed {
            "nothing" => {}
            "dumpable" => {
                hide_memory().unwrap();
                assert!(!trap_sys::is_dumpable());
            }
            "open" | "log" => drop(File::open("/proc/self/status")),
            "write" => drop(File::create("/tmp/vhost-user-scsi-mpath-test-of-confinement")),
            "udp" => drop(UdpSocket::bind("127.0.0.1:0")),
            "unix" => drop(std::os::unix::net::UnixDatagram::unbound()),
            "no-unix" => {
                let error = std::os::unix::net::UnixDatagram::unbound().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            }
            "no-open" => {
                let error = File::open("/proc/self/status").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            }
            // SAFETY: it is what this test is for: the process ends here.
            "crash" => _ = unsafe { std::ptr::without_provenance::<u8>(16).read_volatile() },
            "abort" => std::process::abort(),
            "thread" => drop(std::thread::spawn(|| ()).join()),
            "program" => drop(Command::new("/bin/true").status()),
            deed => panic!("{deed}?"),
        }
    });
    thread.unwrap().join().unwrap();
    // What libtest does when it ends is of no concern here.
    std::process::exit(0);
}

#[test]
fn violation_ends_the_process_and_says_which_call_it_was() {
    if let Some(what) = what() {
        return act(&what);
    }
    let dies = |what| {
        let output = again("violation_ends_the_process_and_says_which_call_it_was", what);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{what}: {output:?}");
        let thread = what.rsplit_once(' ').unwrap().0;
        assert!(said.contains(&format!("thread {thread} made system call ")), "{said}");
        assert!(said.contains("(confinement.seccomp)\n"), "{said}");
    };
    // Nobody starts a program, and these no thread. The C library blocks all signals meanwhile, so
    // that nothing is said.
    let programs = Class::ALL.map(|class| format!("{} program", class.name()));
    let threads = ["lane", "manager", "iscsi", "emulated-array", "sg ring"];
    let threads = threads.map(|class| format!("{class} thread"));
    for what in programs.into_iter().chain(threads) {
        let output = again("violation_ends_the_process_and_says_which_call_it_was", &what);
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{what}: {output:?}");
    }
    dies("lane write");
    dies("lane unix");
    dies("vhost-user write");
    dies("manager write");
    dies("manager udp");
    dies("control write");
    dies("metrics write");
    dies("iscsi write");
    dies("iscsi udp");
    dies("look-up write");
    dies("emulated-array udp");
}

/// What ends a process for other reasons is not taken for a violation.
#[test]
fn crash_and_abort_are_what_they_are() {
    if let Some(what) = what() {
        return act(&what);
    }
    for (what, signal) in [("lane crash", libc::SIGSEGV), ("manager abort", libc::SIGABRT)] {
        let output = again("crash_and_abort_are_what_they_are", what);
        assert_eq!(output.status.signal(), Some(signal), "{what}: {output:?}");
    }
}

#[test]
fn what_a_thread_may_do_it_does() {
    if let Some(what) = what() {
        return act(&what);
    }
    let lives = |what: &str| {
        let output = again("what_a_thread_may_do_it_does", what);
        assert_eq!(output.status.code(), Some(0), "{what}: {output:?}");
    };
    for class in Class::ALL {
        lives(&format!("{} nothing", class.name()));
    }
    lives("manager open");
    lives("look-up udp");
    lives("look-up unix");
    lives("opener write");
    lives("opener thread");
    lives("vhost-user thread");
    lives("iscsi no-unix");
    lives("lane no-open");
    lives("control no-open");
    lives("lane log");
    lives("start dumpable");
}

#[test]
fn fence_keeps_the_rest_out() {
    let Some(what) = what() else {
        let directory = tempfile::tempdir().unwrap();
        let output = again("fence_keeps_the_rest_out", directory.path().to_str().unwrap());
        assert!(output.status.success(), "{output:?}");
        return;
    };
    let inside = std::path::PathBuf::from(what);
    std::fs::write(inside.join("there"), "x").unwrap();
    let outside = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (open, shut) = (listener.local_addr().unwrap(), std::net::TcpListener::bind("127.0.0.1:0"));
    let shut = shut.unwrap();
    let fence = Fence {
        files: vec![(inside.clone(), Access::Files), ("/sys".into(), Access::Read)],
        connect: vec![open.port()],
        ..Fence::default()
    };
    let enforced = fence.close().unwrap();
    if enforced.version.is_none() {
        eprintln!("skipped: this kernel has no Landlock");
        return;
    }
    std::fs::write(inside.join("new"), "x").unwrap();
    std::fs::rename(inside.join("new"), inside.join("there")).unwrap();
    std::fs::remove_file(inside.join("there")).unwrap();
    assert!(File::open("/etc/hostname").is_err());
    assert!(std::fs::write(outside.path().join("new"), "x").is_err());
    assert!(std::fs::write("/sys/kernel/mm/ksm/run", "0").is_err());
    assert!(std::fs::read_dir("/sys").is_ok());
    if !enforced.gaps.contains(&"TCP ports") {
        assert!(std::net::TcpStream::connect(open).is_ok());
        let refused = std::net::TcpStream::connect(shut.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err());
    }
}

/// What no filter of any class lets through.
#[test]
fn table_has_nothing_that_reaches_other_processes() {
    let never = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kill,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_init_module,
        libc::SYS_setuid,
        libc::SYS_capset,
        libc::SYS_keyctl,
    ];
    for class in Class::ALL {
        let calls = class.calls();
        assert!(calls.iter().all(|call| !never.contains(&call.number)), "{}", class.name());
        // No memory that is written and then executed.
        let executable = calls.iter().filter(|call| call.number == libc::SYS_mprotect);
        assert!(executable.clone().all(|call| !call.checks.is_empty()), "{}", class.name());
        filter::rules(class).unwrap();
    }
}

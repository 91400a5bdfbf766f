//! iSCSI paths against a real target: tgtd on loopback, one for each test, skipped with the reason
//! where it is not installed; and against one that does what no real one can be made to do.

#![allow(clippy::unwrap_used)]

mod lanes;
mod puppet;
mod session;
mod slow;
mod target;

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use session::{Session, secret_file, settings, transfer};
use target::Tgt;
use vhost_user_scsi_mpath::buffer::{OwnedBuffer, Segments};
use vhost_user_scsi_mpath::path::address::Address;
use vhost_user_scsi_mpath::path::any::{OpenMode, ReloginIsProof};
use vhost_user_scsi_mpath::path::iscsi::IscsiPath;
use vhost_user_scsi_mpath::path::{Channel, Failure, Fate, Reach, Transport, TransportEvent};
use vhost_user_scsi_mpath::scsi::Status;

/// Bytes that tell their place.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at / 512) as u8 ^ (at % 251) as u8 ^ seed).collect()
}

/// `--check` with one path: whether it found a usable one, and all that it printed.
fn check(address: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vhost-user-scsi-mpath"))
        .args(["--check", "--path", address])
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn data_comes_back_as_it_was_written() {
    let Some(tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    for (at, len) in [512, 4096, 8192, 65536, 262_144, 1 << 20, 4 << 20].into_iter().enumerate() {
        let (first, bytes) = (at as u32 * 10_000, pattern(len, at as u8));
        session.write(first, bytes.clone());
        assert_eq!(session.read(first, len), bytes, "{len} bytes");
    }
}

#[test]
fn many_commands_at_once_all_end_well() {
    const COUNT: u16 = 400;
    let Some(tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    assert!(session.is_ready());
    for writes in [true, false] {
        let mut buffers = Vec::new();
        for at in 0..COUNT {
            let bytes = pattern(16384, at as u8);
            let (first, none) = (u32::from(at) * 32, Segments::new());
            let buffer =
                if writes { OwnedBuffer::from_vec(bytes) } else { OwnedBuffer::zeroed(16384) };
            match writes {
                true => session.submit(&transfer(0x2A, first, 16384), buffer.segments(), &none),
                false => session.submit(&transfer(0x28, first, 16384), &none, buffer.segments()),
            };
            buffers.push(buffer);
        }
        for end in session.ends(COUNT.into()) {
            assert!(matches!(&end.fate, Fate::Answered(answer) if answer.status == Status::GOOD));
            assert_ne!(end.session, 0);
        }
        for (at, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer.to_vec(), pattern(16384, at as u8), "command {at}");
        }
    }
}

#[test]
fn check_shows_the_lun_and_leaves_no_session() {
    let Some(tgt) = Tgt::start() else { return };
    let (found, text) = check(&tgt.address("", 1));
    assert!(found && text.contains("IET,VIRTUAL-DISK") && text.contains(": up"), "{text}");
    assert_eq!(tgt.sessions(), 0);
}

#[test]
fn check_disturbs_no_running_session() {
    let Some(tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    assert!(session.is_ready());
    session.up();
    assert!(check(&tgt.address("", 1)).0);
    assert!(session.is_ready());
    assert_eq!((session.path.events(), tgt.sessions()), (vec![], 1));
}

#[test]
fn lun_that_is_not_there_is_said_so() {
    let Some(tgt) = Tgt::start() else { return };
    let (found, text) = check(&tgt.address("", 7));
    assert!(!found && text.contains("no logical unit behind this port"), "{text}");
}

#[test]
fn target_that_is_not_there_is_said_so() {
    let Some(tgt) = Tgt::start() else { return };
    let (found, text) = check(&tgt.address("", 1).replace(":disk", ":other"));
    assert!(!found && text.contains("Target not found"), "{text}");
}

#[test]
fn chap_lets_in_who_knows_the_secret() {
    let Some(tgt) = Tgt::with_chap(&["me:my-own-secret-1"]) else { return };
    assert!(Session::open(&tgt.address("me%my-own-secret-1@", 1), &settings()).is_ready());
    let (_file, secret_file) = secret_file("my-own-secret-1\n");
    let settings = session_settings_with(secret_file);
    assert!(Session::open(&tgt.address("me@", 1), &settings).is_ready());
}

#[test]
fn chap_keeps_out_who_does_not_and_shows_no_secret() {
    let Some(tgt) = Tgt::with_chap(&["me:my-own-secret-1"]) else { return };
    for user in ["me%not-the-secret@", ""] {
        let (found, text) = check(&tgt.address(user, 1));
        println!("{text}");
        assert!(!found && text.to_lowercase().contains("auth"), "{text}");
        assert!(!text.contains("not-the-secret"), "{text}");
    }
}

#[test]
fn mutual_chap_wants_the_targets_secret_as_well() {
    let chap = ["me:my-own-secret-1", "it:its-own-secret-2:outgoing"];
    let Some(tgt) = Tgt::with_chap(&chap) else { return };
    let address = format!("{}?target_user=it", tgt.address("me@", 1));
    let (_file, right) = secret_file("my-own-secret-1\nits-own-secret-2\n");
    assert!(Session::open(&address, &session_settings_with(right)).is_ready());
    let (_file, wrong) = secret_file("my-own-secret-1\nits-other-secret\n");
    let mut session = Session::open(&address, &session_settings_with(wrong));
    let (_, why) = session.down();
    println!("{why}");
    assert!(!why.contains("secret-") && !why.contains("other-secret"), "{why}");
}

fn session_settings_with(
    secret_file: Option<std::path::PathBuf>,
) -> vhost_user_scsi_mpath::path::any::IscsiSettings {
    let mut settings = settings();
    settings.secret_file = secret_file;
    settings
}

#[test]
fn target_that_is_started_again_is_logged_in_to_again() {
    let Some(mut tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    session.write(8, pattern(4096, 1));
    session.up();
    tgt.kill();
    let (took, why) = session.down();
    println!("down after {took:?}: {why}");
    // A second of silence would have the target asked.
    assert!(took < Duration::from_millis(800));
    session.submit(&[0; 6], &Segments::new(), &Segments::new());
    let fate = session.ends(1).remove(0).fate;
    assert_eq!(fate, Fate::Failed(Failure::Disconnected, Reach::NotSent));
    tgt.start_again();
    println!("up after {:?}", session.up());
    assert_eq!(session.read(8, 4096), pattern(4096, 1));
}

#[test]
fn recall_gives_all_memory_back_at_once() {
    let Some(tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    assert!(session.is_ready());
    tgt.freeze();
    let (data, none) = (OwnedBuffer::from_vec(pattern(1 << 20, 3)), Segments::new());
    let write = session.submit(&transfer(0x2A, 0, 1 << 20), data.segments(), &none);
    let other = OwnedBuffer::zeroed(4096);
    let read = session.submit(&transfer(0x28, 0, 4096), &none, other.segments());
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    session.channel.recall(write);
    let ends = session.ends(2);
    println!("back after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_millis(500));
    for end in ends {
        let failure = if end.attempt == write { Failure::Recalled } else { Failure::Disconnected };
        assert!(end.attempt == write || end.attempt == read);
        assert_eq!(end.fate, Fate::Failed(failure, Reach::Unknown));
    }
    tgt.thaw();
    session.down();
    session.up();
    assert!(session.is_ready());
}

#[test]
fn silent_target_is_given_up_within_three_seconds() {
    let Some(tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    assert!(session.is_ready());
    session.up();
    tgt.freeze();
    let (took, why) = session.down();
    println!("down after {took:?}: {why}");
    assert!(took < Duration::from_secs(3) && why.contains("NOP-Out"), "{took:?} {why}");
    tgt.thaw();
    println!("up after {:?}", session.up());
    assert!(session.is_ready());
}

#[test]
fn channel_dropped_with_commands_under_way_waits_for_its_memory() {
    let Some(tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    assert!(session.is_ready());
    tgt.freeze();
    let (data, none) = (OwnedBuffer::from_vec(pattern(4 << 20, 3)), Segments::new());
    session.submit(&transfer(0x2A, 0, 4 << 20), data.segments(), &none);
    std::thread::sleep(Duration::from_millis(50));
    session.channel = session.path.channel().unwrap();
    drop(data);
    tgt.thaw();
    session.down();
    session.up();
    assert!(session.is_ready());
}

#[test]
fn backends_with_one_name_do_not_disturb_each_other() {
    let Some(tgt) = Tgt::start() else { return };
    let mut first = Session::open(&tgt.address("", 1), &settings());
    let mut other = settings();
    other.identity = "other".to_owned();
    let mut second = Session::open(&tgt.address("", 1), &other);
    first.up();
    second.up();
    assert!(first.is_ready() && second.is_ready());
    assert_eq!(tgt.sessions(), 2);
    assert_eq!((first.path.events(), second.path.events()), (vec![], vec![]));
}

/// The ISID of the first login that comes to a portal of our own.
fn isid_of(identity: &str, mode: OpenMode) -> [u8; 6] {
    let portal = TcpListener::bind("127.0.0.1:0").unwrap();
    // A name that stays: the port is part of it, and there is a new one each time.
    let port = portal.local_addr().unwrap().port();
    let mut settings = settings();
    settings.identity = identity.to_owned();
    let address = format!("iscsi://127.0.0.1:{port}/iqn.2003-01.org.example:disk/1");
    let Address::Iscsi(address) = address.parse().unwrap() else { panic!() };
    let mut isids = (0..2).map(|_| {
        let _path = IscsiPath::open(&address, &settings, mode).unwrap();
        let mut login = [0; 48];
        portal.accept().unwrap().0.read_exact(&mut login).unwrap();
        assert_eq!(
            (login[0] & 0x3F, &login[14..16]),
            (3, &[0, 0][..]),
            "a login without a session"
        );
        <[u8; 6]>::try_from(&login[8..14]).unwrap()
    });
    let (first, second) = (isids.next().unwrap(), isids.next().unwrap());
    assert_eq!(first, second, "started again it is the same");
    assert_eq!(first[0], 0x80, "of the random type");
    first
}

#[test]
fn isid_is_the_same_after_a_restart() {
    let isids = [
        isid_of("one", OpenMode::Serve),
        isid_of("two", OpenMode::Serve),
        isid_of("one", OpenMode::Check),
    ];
    assert!(isids[0] != isids[1] && isids[0] != isids[2] && isids[1] != isids[2]);
}

#[test]
fn login_proves_the_old_session_dead_where_an_admin_says_so() {
    let Some(tgt) = Tgt::start() else { return };
    for (rule, proves) in [(ReloginIsProof::Yes, true), (ReloginIsProof::Auto, false)] {
        let mut settings = settings();
        settings.relogin_is_proof = rule;
        let mut session = Session::open(&tgt.address("", 1), &settings);
        // The target says who it is.
        let data = OwnedBuffer::zeroed(36);
        session.run(&[0x12, 0, 0, 0, 36, 0], &Segments::new(), data.segments());
        session.up();
        tgt.freeze();
        let attempt = session.submit(&[0; 6], &Segments::new(), &Segments::new());
        std::thread::sleep(Duration::from_millis(50));
        session.channel.recall(attempt);
        let lost = session.ends(1).remove(0).session;
        tgt.thaw();
        let proven = |news: &TransportEvent| match news {
            TransportEvent::Proven { session } => Some(Some(*session)),
            TransportEvent::Up { .. } => Some(None),
            TransportEvent::Down(_) | TransportEvent::Returned { .. } => None,
        };
        assert_eq!(session.news(proven).1.is_some_and(|session| session >= lost), proves);
    }
}

#[test]
fn what_does_not_fit_into_a_pdu_is_refused_unsent() {
    let Some(tgt) = Tgt::start() else { return };
    let mut session = Session::open(&tgt.address("", 1), &settings());
    let data = OwnedBuffer::zeroed(512);
    let none = Segments::new();
    let long = session.run(&[0x7F; 32], &none, &none);
    let both = session.run(&[0x53; 10], data.segments(), data.segments());
    let refused = Fate::Failed(Failure::Unsupported, Reach::NotSent);
    assert_eq!((long, both), (refused.clone(), refused));
}

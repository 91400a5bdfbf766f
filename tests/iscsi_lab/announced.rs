//! What a target says of itself: that it is elsewhere, that it wants to be left, that it goes.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use crate::array::{Array, Kind};
use crate::herald::{Event, HEADER, Herald, LOGIN_RESPONSE, read_pdu};
use crate::initiator::{pattern, read, write};
use crate::qmp::Qmp;
use crate::scene::{SLACK, Scene, Settings, UP, WRITE_QUIESCE, sleep, wait_state};
use crate::tgtd::Tgtd;

const LBA: u32 = 2048;
const BLOCKS: u16 = 8;
/// Login status: the target has moved for now.
const MOVED: [u8; 2] = [1, 1];

/// A portal that sends everybody to `place`, or back to itself.
fn redirecting(place: Option<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            send_away(&stream.unwrap(), place.unwrap_or(address));
        }
    });
    address
}

fn send_away(mut stream: &TcpStream, place: SocketAddr) {
    // Who does not log in only looked whether anybody listens.
    let Ok(login) = read_pdu(stream) else { return };
    let text = format!("TargetAddress={place},1\0");
    let mut pdu = vec![0; HEADER];
    pdu[0] = LOGIN_RESPONSE;
    pdu[7] = text.len() as u8;
    // ISID and TSIH, and the task's tag.
    pdu[8..20].copy_from_slice(&login[8..20]);
    pdu[36..38].copy_from_slice(&MOVED);
    pdu.extend_from_slice(text.as_bytes());
    pdu.resize(pdu.len().next_multiple_of(4), 0);
    // The initiator ends the connection; one that is itself ending has done so already.
    let _ = stream.write_all(&pdu).and_then(|()| read_pdu(stream).map(drop));
}

#[test]
fn redirected_path_serves_where_it_was_sent() {
    let array = Array::tgtd();
    let before = array.proxies[0].accepted();
    let portal = redirecting(Some(array.proxies[0].address()));
    let address = format!("iscsi://{portal}/{}/{}", array.iqn(), array.lun(0));
    // Nothing has named the port to which it is sent.
    let output = Settings::new("redirected", "", "").check(std::slice::from_ref(&address));
    let words = String::from_utf8_lossy(&output.stderr);
    if !words.contains("cannot restrict TCP ports") && !words.contains("has no Landlock") {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(words.contains("confinement.allow_ports"), "{words}");
    }
    let port = array.proxies[0].address().port();
    let allowed = format!("[confinement]\nallow_ports = [{port}]");
    let settings = Settings::new("redirected", "", &allowed);
    let output = settings.check(std::slice::from_ref(&address));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let backend = settings.backend(&[address]);
    wait_state(&mut backend.qmp(), portal.port(), "up", UP);
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    queue.good(&write(LBA, pattern(1, BLOCKS.into())));
    assert_eq!(queue.good(&read(LBA, BLOCKS)).data, pattern(1, BLOCKS.into()));
    assert!(array.proxies[0].accepted() > before, "nobody came to where it was sent");
}

#[test]
fn redirected_in_a_circle_is_refused() {
    let portal = redirecting(None);
    let settings = Settings::new("redirected", "", "");
    let output = settings.check(&[format!("iscsi://{portal}/iqn.2003-01.org.example:tgt/1")]);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(words.contains("after too many others"), "{words}");
}

/// tgtd with a herald before the portal of path 0.
fn heralded() -> (Herald, Array) {
    let tgtd = Tgtd::start(1);
    let portal = tgtd.address();
    let herald = Herald::before(portal);
    let array = Array::behind(Kind::Tgtd(tgtd), [herald.address(), portal]);
    (herald, array)
}

/// Waits until a path leaves `up`, and says why it did.
fn reason(qmp: &mut Qmp) -> String {
    let down = qmp.event("PATH_STATE_CHANGED", SLACK, |data| data["from"] == "up");
    let down = down.expect("a path goes down");
    down["reason"].as_str().unwrap_or_default().to_owned()
}

/// Announces `event` on path 0 under load. Returns the logouts that came of it.
fn under_load(event: Event, fault: &str) -> usize {
    let (herald, array) = heralded();
    let mut scene = Scene::start(array);
    scene.qmp.forget_events();
    let before = scene.array.proxies[0].accepted();
    herald.announce(event);
    // A command that was lost may be heard of before the connection is: the words may be either's.
    assert_ne!(reason(&mut scene.qmp), "");
    scene.expect(0, "up", UP);
    assert!(scene.array.proxies[0].accepted() > before, "no new login");
    sleep(500);
    // Before the backend logs out by itself, which it does at its end.
    let logouts = herald.logouts();
    scene.finish(fault, SLACK, SLACK + WRITE_QUIESCE);
    logouts
}

#[test]
fn logout_that_the_target_asks_for_is_not_seen_by_the_guest() {
    assert_eq!(under_load(Event::Logout, "a logout is asked for"), 1);
}

#[test]
fn drop_that_the_target_announces_is_not_seen_by_the_guest() {
    assert_eq!(under_load(Event::Drop, "a drop is announced"), 0);
}

/// Announces `event` on paths with nothing under way, and holds the reason to have `word` in it.
fn is_told(event: Event, word: &str) {
    let (herald, array) = heralded();
    let settings = Settings::new("announced", "", "");
    let backend = settings.backend(&array.paths());
    let mut qmp = backend.qmp();
    for proxy in &array.proxies {
        wait_state(&mut qmp, proxy.address().port(), "up", UP);
    }
    qmp.forget_events();
    herald.announce(event);
    let reason = reason(&mut qmp);
    assert!(reason.contains(word), "{event:?}: {reason}");
    wait_state(&mut qmp, array.proxies[0].address().port(), "up", UP);
}

#[test]
fn logout_that_the_target_asks_for_is_told() {
    is_told(Event::Logout, "requests logout");
}

#[test]
fn drop_that_the_target_announces_is_told() {
    is_told(Event::Drop, "will drop this connection");
}

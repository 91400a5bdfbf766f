//! What a target says unasked: that it is elsewhere, that it wants to be left, that it goes, and
//! whether the initiator is still there.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

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

/// LIO asks each connection every 15 s, whatever else goes over it. libiscsi before 1.20 gives the
/// connection up where data of a write waits to be sent just then: the path goes and comes back.
#[test]
fn pings_among_large_writes_are_not_seen_by_the_guest() {
    const SLOTS: usize = 16;
    const SLOT_BLOCKS: u16 = 512;
    let (herald, array) = heralded();
    let settings = Settings::new("pinged", "", "");
    let backend = settings.backend(&array.paths()[..1]);
    let mut qmp = backend.qmp();
    wait_state(&mut qmp, array.proxies[0].address().port(), "up", UP);
    let mut device = backend.guest(1);
    let queue = device.queue();
    queue.settle();
    qmp.forget_events();
    let place = |slot: usize| slot as u32 * u32::from(SLOT_BLOCKS);
    let (mut free, mut under_way) = ((0..SLOTS).collect::<Vec<_>>(), HashMap::new());
    let (mut seeds, mut writes, begin) = ([0; SLOTS], 0_usize, Instant::now());
    loop {
        while begin.elapsed() < Duration::from_secs(3)
            && let Some(slot) = free.pop()
        {
            seeds[slot] = writes as u8;
            let data = pattern(seeds[slot], SLOT_BLOCKS.into());
            under_way.insert(queue.submit(&write(place(slot), data)), slot);
            writes += 1;
        }
        if under_way.is_empty() {
            break;
        }
        herald.ping();
        let (ticket, completion) = queue.next(UP).expect("an answer");
        assert!(completion.is_good(), "{completion:?}");
        free.extend(under_way.remove(&ticket));
    }
    for (slot, seed) in seeds.into_iter().enumerate() {
        let data = queue.good(&read(place(slot), SLOT_BLOCKS)).data;
        assert!(data == pattern(seed, SLOT_BLOCKS.into()), "slot {slot}");
    }
    let failed = |data: &Value| data["to"] == "failed";
    let mut losses = 0;
    while let Some(down) = qmp.event("PATH_STATE_CHANGED", Duration::from_millis(100), failed) {
        let reason = down["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("cannot answer the target's NOP-In"), "{reason}");
        losses += 1;
    }
    println!("{writes} writes, {} pings answered, {losses} times lost", herald.replies());
    assert!(writes > SLOTS && herald.replies() > 10);
}

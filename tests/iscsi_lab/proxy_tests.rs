//! The proxy does to a connection what it is told: an echoing server on loopback is the portal.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::proxy::{Door, Proxy, Way, Whom};
use crate::socket_sys;

/// Longer than anything takes that nothing is in the way of.
const PROMPT: Duration = Duration::from_secs(5);
/// So long nothing comes, so nothing will.
const QUIET: Duration = Duration::from_millis(200);

/// Answers every connection with what it says. Returns what was said, and `end` at each end.
fn echo() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, hears) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, heard) = (stream.unwrap(), heard.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let _ = heard.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
                    let _ = stream.write_all(&bytes[..count]);
                }
                let _ = heard.send("end".to_owned());
            });
        }
    });
    (address, hears)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    stream
}

/// What comes next, or why nothing does.
fn next(stream: &mut TcpStream) -> Result<String, ErrorKind> {
    let mut bytes = [0; 64];
    let count = stream.read(&mut bytes).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn is_quiet(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(QUIET)).unwrap();
    let quiet = next(stream) == Err(ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    quiet
}

fn say(stream: &mut TcpStream, words: &str) {
    stream.write_all(words.as_bytes()).unwrap();
}

#[test]
fn proxy_passes_both_ways_and_the_end() {
    let (target, heard) = echo();
    let proxy = Proxy::before(target);
    let mut stream = connect(&proxy);
    say(&mut stream, "one");
    assert_eq!(next(&mut stream).unwrap(), "one");
    drop(stream);
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "one");
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "end");
}

#[test]
fn proxy_cut_resets_both_sides_and_shuts_the_door() {
    let (target, heard) = echo();
    let proxy = Proxy::before(target);
    let mut stream = connect(&proxy);
    say(&mut stream, "one");
    assert_eq!(next(&mut stream).unwrap(), "one");
    proxy.cut(Door::Shut);
    assert_eq!(next(&mut stream), Err(ErrorKind::ConnectionReset));
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "one");
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "end");
    let refused = TcpStream::connect(proxy.address()).unwrap_err().kind();
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    proxy.restore();
    let mut stream = connect(&proxy);
    say(&mut stream, "two");
    assert_eq!(next(&mut stream).unwrap(), "two");
}

#[test]
fn proxy_cut_with_the_door_open_takes_the_next() {
    let (target, _heard) = echo();
    let proxy = Proxy::before(target);
    let mut stream = connect(&proxy);
    say(&mut stream, "one");
    assert_eq!(next(&mut stream).unwrap(), "one");
    proxy.cut(Door::Open);
    assert_eq!(next(&mut stream), Err(ErrorKind::ConnectionReset));
    let mut stream = connect(&proxy);
    say(&mut stream, "two");
    assert_eq!(next(&mut stream).unwrap(), "two");
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn proxy_silence_keeps_connections_and_takes_new_ones() {
    let (target, heard) = echo();
    let proxy = Proxy::before(target);
    let mut old = connect(&proxy);
    say(&mut old, "one");
    assert_eq!(next(&mut old).unwrap(), "one");
    proxy.silence();
    let mut new = connect(&proxy);
    for stream in [&mut old, &mut new] {
        say(stream, "two");
        assert!(is_quiet(stream));
    }
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["one"]);
    proxy.restore();
    for stream in [&mut old, &mut new] {
        assert_eq!(next(stream).unwrap(), "two");
    }
}

#[test]
fn proxy_holds_answers_while_requests_pass() {
    let (target, heard) = echo();
    let proxy = Proxy::before(target);
    let mut stream = connect(&proxy);
    proxy.hold(Way::Answers, Whom::All);
    say(&mut stream, "one");
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "one");
    assert!(is_quiet(&mut stream));
    assert_eq!(proxy.waiting(Way::Answers), 3);
    proxy.restore();
    assert_eq!(next(&mut stream).unwrap(), "one");
}

#[test]
fn proxy_delivers_held_requests_of_a_client_that_has_reset() {
    let (target, heard) = echo();
    let proxy = Proxy::before(target);
    let mut old = connect(&proxy);
    say(&mut old, "one");
    assert_eq!(next(&mut old).unwrap(), "one");
    proxy.hold(Way::Requests, Whom::Old);
    say(&mut old, "late");
    socket_sys::reset_on_close(&old);
    std::thread::sleep(QUIET);
    drop(old);
    let mut new = connect(&proxy);
    say(&mut new, "two");
    assert_eq!(next(&mut new).unwrap(), "two");
    std::thread::sleep(QUIET);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(proxy.waiting(Way::Requests), 4);
    proxy.restore();
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "late");
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "end");
}

#[test]
fn proxy_delays_each_way() {
    let (target, _heard) = echo();
    let proxy = Proxy::before(target);
    let mut stream = connect(&proxy);
    proxy.delay(QUIET);
    let sent = Instant::now();
    say(&mut stream, "one");
    assert_eq!(next(&mut stream).unwrap(), "one");
    assert!(sent.elapsed() >= 2 * QUIET, "{:?}", sent.elapsed());
}

#[test]
fn proxy_without_a_target_resets() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let proxy = Proxy::before(nobody);
    let mut stream = connect(&proxy);
    assert_eq!(next(&mut stream), Err(ErrorKind::ConnectionReset));
}

#[test]
fn proxy_silence_loses_what_a_client_sent_that_has_reset() {
    let (target, heard) = echo();
    let proxy = Proxy::before(target);
    let mut stream = connect(&proxy);
    say(&mut stream, "one");
    assert_eq!(next(&mut stream).unwrap(), "one");
    proxy.silence();
    say(&mut stream, "lost");
    socket_sys::reset_on_close(&stream);
    drop(stream);
    std::thread::sleep(QUIET);
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["one"], "the portal has heard of it");
    proxy.restore();
    assert_eq!(heard.recv_timeout(PROMPT).unwrap(), "end");
}

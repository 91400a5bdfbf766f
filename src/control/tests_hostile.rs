//! What the control socket does with clients that are broken, greedy or malicious.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::tests::{PATIENCE, Raw, client, fixture};
use super::*;
use crate::limits::{CONTROL_BACKLOG_MAX, CONTROL_CLIENTS_MAX, CONTROL_LINE_MAX};

#[test]
fn slow_reader_is_disconnected_and_slows_nobody() {
    let fixture = fixture();
    let mut slow = Raw::connect(&fixture.socket);
    slow.send("{\"execute\": \"qmp_capabilities\"}\n");
    slow.line();
    slow.line();
    let mut quick = client(&fixture);
    let reason = "x".repeat(10_000);
    // More than its socket and its backlog hold, in steps that the quick one follows.
    for _ in 0..(4 * CONTROL_BACKLOG_MAX / reason.len()) {
        let reason = reason.clone();
        let (from, to) = (PathState::Up, PathState::Failed);
        fixture.events.send(Event::PathStateChanged { name: "a".into(), from, to, reason });
        assert_eq!(quick.next_event().unwrap()["event"], "PATH_STATE_CHANGED");
    }
    assert!(slow.is_closed());
    quick.execute("query-lun", json!({})).unwrap();
}

#[test]
fn giant_line_ends_its_client_alone() {
    let fixture = fixture();
    let mut other = client(&fixture);
    let mut raw = Raw::connect(&fixture.socket);
    raw.line();
    let mut writer = raw.0.get_ref().try_clone().unwrap();
    std::thread::spawn(move || {
        // It fails at some point: that is what is tested.
        let _ = writer.write_all(&vec![b'x'; 64 * CONTROL_LINE_MAX]);
    });
    let desc = raw.line()["error"]["desc"].as_str().unwrap().to_owned();
    assert!(desc.starts_with("line longer than"), "{desc}");
    assert!(raw.is_closed());
    other.execute("query-lun", json!({})).unwrap();
    // As long as allowed is allowed.
    let mut raw = Raw::connect(&fixture.socket);
    raw.line();
    raw.send(&format!("{}\n", "y".repeat(CONTROL_LINE_MAX)));
    let desc = raw.line()["error"]["desc"].as_str().unwrap().to_owned();
    assert!(desc.starts_with("JSON parse error"), "{desc}");
}

#[test]
fn any_bytes_leave_the_server_standing() {
    let fixture = fixture();
    let mut seed = 1u32;
    for _ in 0..200 {
        let mut raw = Raw::connect(&fixture.socket);
        let bytes: Vec<u8> = (0..500)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *b"{}[]\":,\n\0\xffexecut1-".get((seed >> 24) as usize % 20).unwrap_or(&b'{')
            })
            .collect();
        raw.0.get_mut().write_all(&bytes).unwrap();
        raw.line();
    }
    client(&fixture).execute("query-lun", json!({})).unwrap();
}

#[test]
fn too_many_clients_are_told_so() {
    let fixture = fixture();
    let clients: Vec<Client> = (0..CONTROL_CLIENTS_MAX).map(|_| client(&fixture)).collect();
    let error = Client::connect(&fixture.socket, PATIENCE).unwrap_err();
    assert!(error.to_string().contains("clients are connected already"), "{error}");
    drop(clients);
    let begin = Instant::now();
    while Client::connect(&fixture.socket, PATIENCE).is_err() {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn order_of_a_client_that_has_gone_does_no_harm() {
    let fixture = fixture();
    let mut raw = Raw::connect(&fixture.socket);
    raw.send("{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"query-stats\"}\n");
    let reply = fixture.held.recv_timeout(PATIENCE).unwrap();
    drop(raw);
    client(&fixture).execute("query-lun", json!({})).unwrap();
    reply.answer(Ok(Reply::Stats(Box::default())));
    client(&fixture).execute("query-lun", json!({})).unwrap();
}

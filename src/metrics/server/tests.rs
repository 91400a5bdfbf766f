//! Clients good and bad, over both kinds of sockets.

use std::path::Path;

use super::*;
use crate::control::ReplyTo;

/// Answers nothing: what is asked is refused.
struct Silent;

impl OrderSink for Silent {
    fn submit(&self, _: Order, reply: ReplyTo) {
        reply.answer(Err("not now".to_owned()));
    }
}

fn tcp() -> Server {
    let server = Server::bind(&"127.0.0.1:0".parse().unwrap(), "").unwrap();
    server.start("lun0".to_owned(), Box::new(Silent)).unwrap();
    server
}

fn exchange(mut client: impl Read + Write, request: &[u8]) -> String {
    // The server may have answered and closed before it is all written.
    let _ = client.write_all(request);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn server_refuses_by_status() {
    let server = tcp();
    let ask = |request: &[u8]| {
        let client = TcpStream::connect(server.address().unwrap().unwrap()).unwrap();
        exchange(client, request)
    };
    let answer = ask(b"GET /other HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.ends_with("the metrics are at /metrics\n"), "{answer}");
    let answer = ask(b"DELETE /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = ask(b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let answer = ask(&vec![b'x'; METRICS_HEADER_MAX + 1]);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn server_serves_the_next_after_one_that_says_nothing() {
    let server = tcp();
    let address = server.address().unwrap().unwrap();
    let silent = TcpStream::connect(address).unwrap();
    let began = Instant::now();
    let answer = exchange(TcpStream::connect(address).unwrap(), b"GET / HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(began.elapsed() >= METRICS_CLIENT_TIMEOUT / 2, "the silent one had its time");
    drop(silent);
}

#[test]
fn server_on_a_file_takes_it_away_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metrics");
    let server = Server::bind(&MetricsListen::Unix(path.clone()), "").unwrap();
    server.start("lun0".to_owned(), Box::new(Silent)).unwrap();
    let answer = exchange(UnixStream::connect(&path).unwrap(), b"GET / HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let error = Server::bind(&MetricsListen::Unix(path.clone()), "").unwrap_err();
    assert!(error.to_string().contains("another process listens there"), "{error}");
    drop(server);
    assert!(!Path::new(&path).exists());
}

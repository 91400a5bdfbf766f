//! What people write: control clients, addresses, the configuration file.

use std::path::Path;

use serde_json::{Value, json};
use vhost_user_scsi_mpath::config::file;
use vhost_user_scsi_mpath::control::dialogue::{Dialogue, Step, answer};
use vhost_user_scsi_mpath::control::framing::Framer;
use vhost_user_scsi_mpath::path::address::Address;

use super::Bytes;

/// The requests in `bytes`, given in pieces of so many bytes, and what is left.
fn split(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut framer, mut held, mut requests) = (Framer::default(), Vec::new(), Vec::new());
    for bytes in bytes.chunks(piece) {
        held.extend_from_slice(bytes);
        while let Some(end) = framer.end(&held) {
            assert!((1..=held.len()).contains(&end));
            requests.push(held.drain(..end).collect());
        }
    }
    (requests, held)
}

/// What a control client sends.
pub fn control(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let piece = 1 + usize::from(bytes.u8() % 16);
    let sent = bytes.rest();
    let (requests, left) = split(sent, piece);
    assert_eq!((&requests, &left), (&split(sent, usize::MAX).0, &split(sent, usize::MAX).1));
    assert_eq!([requests.concat(), left].concat(), sent, "no byte is lost");
    // Whatever stands in the strings of a request, it ends with its own bracket.
    let whole = json!({"execute": String::from_utf8_lossy(sent), "id": [{"a": "}"}]}).to_string();
    let twice = [whole.as_bytes(), whole.as_bytes()].concat();
    let (both, left) = split(&twice, piece);
    assert_eq!((both.len(), left.len()), (2, 0), "{whole}");
    let mut dialogue = Dialogue::default();
    for request in &requests {
        say(&mut dialogue, request);
    }
    // A line that is wrong never spoils the next one.
    let ended = [sent, b"\n{\"execute\": \"query-version\", \"id\": 7}"].concat();
    let last = split(&ended, piece).0.pop().expect("it ends with its bracket");
    let said = say(&mut dialogue, &last).expect("it is answered at once");
    assert_eq!(said["id"], 7, "{said}");
}

/// The answer to one request, `None` where it is the manager's to give.
fn say(dialogue: &mut Dialogue, request: &[u8]) -> Option<Value> {
    let asked: Option<Value> = serde_json::from_slice(request).ok();
    let id = asked.as_ref().and_then(|asked| asked.as_object()?.get("id").cloned());
    let said = match dialogue.line(request) {
        Step::Say(said) => said,
        Step::Ask(_, told) => {
            assert!(dialogue.is_negotiated(), "nothing is done before the capabilities");
            assert_eq!(told, id);
            let said = answer(Err("no".to_owned()), told);
            check(&said, id);
            return None;
        }
    };
    check(&said, id);
    Some(said)
}

fn check(said: &Value, id: Option<Value>) {
    let said = said.as_object().expect("an answer is an object");
    assert_eq!(said.contains_key("return"), !said.contains_key("error"));
    assert_eq!(said.get("id"), id.as_ref());
    let text = serde_json::to_string(said).expect("a value has no error in it");
    assert!(!text.contains('\n'), "one line");
    if let Some(error) = said.get("error") {
        assert!(error["desc"].is_string() && error["class"].is_string());
    }
    let _ = json!(said);
}

/// A path's address.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let address = match Address::parse(text) {
        Ok(address) => address,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let shown = address.to_string();
    let _ = (address.short_name(), address.kind());
    let again = Address::parse(&shown);
    match (&address, &again) {
        (Address::Iscsi(one), Ok(Address::Iscsi(other))) => {
            assert_eq!(one.place(), other.place(), "{shown}");
            assert_eq!((&other.secret, &other.target_secret), (&None, &None), "{shown}");
        }
        // A node's name need not be text, and is shown as well as it can be.
        (Address::Host(_), Ok(Address::Host(_))) => {}
        (one, Ok(other)) => assert_eq!(one, other, "{shown}"),
        (_, Err(error)) => panic!("{shown}: {error}"),
    }
}

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = file::parse(Path::new("lun0.toml"), text) {
        let line = error.to_string();
        assert!(line.starts_with("lun0.toml"), "{line}");
        assert!(!line.contains('\n'), "{line:?}");
    }
}

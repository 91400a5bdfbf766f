//! Where one request ends and the next begins.
//!
//! People and scripts send a request per line. QEMU's own `qemu.qmp` sends none of the newlines,
//! and waits for the answer: so a request ends with the bracket that closes it, or with the line,
//! whichever comes first. A line that is wrong never spoils the next one.

/// Scans a stream piece by piece, each byte once.
#[derive(Debug, Default)]
pub struct Framer {
    /// Bytes of this request that have been looked at.
    scanned: usize,
    /// What they are so far.
    inside: Inside,
    /// Brackets that are open.
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    /// White space before a request.
    #[default]
    Nothing,
    /// An object or a list.
    Brackets,
    /// A string in one of those.
    Text,
    /// The same, after a backslash.
    Escape,
    /// What cannot be a request: all up to the line's end.
    Garbage,
}

impl Framer {
    /// The length of the request at the start of `bytes`, if its end is there. Called again when
    /// it is not, `bytes` must begin with the same ones.
    pub fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate().skip(self.scanned) {
            if self.is_last(*byte) {
                *self = Framer::default();
                return Some(at + 1);
            }
        }
        self.scanned = bytes.len();
        None
    }

    fn is_last(&mut self, byte: u8) -> bool {
        if byte == b'\n' {
            return true;
        }
        self.inside = match (self.inside, byte) {
            (Inside::Nothing, byte) if byte.is_ascii_whitespace() => Inside::Nothing,
            (Inside::Nothing | Inside::Brackets, b'{' | b'[') => {
                self.depth += 1;
                Inside::Brackets
            }
            (Inside::Brackets, b'}' | b']') => {
                self.depth -= 1;
                Inside::Brackets
            }
            (Inside::Brackets, b'"') | (Inside::Escape, _) => Inside::Text,
            (Inside::Text, b'\\') => Inside::Escape,
            (Inside::Text, b'"') => Inside::Brackets,
            (Inside::Nothing | Inside::Garbage, _) => Inside::Garbage,
            (inside @ (Inside::Brackets | Inside::Text), _) => inside,
        };
        self.inside == Inside::Brackets && self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests in `text`, given in pieces of `piece` bytes, and what is left.
    fn split(text: &str, piece: usize) -> (Vec<String>, String) {
        let (mut framer, mut held, mut requests) = (Framer::default(), Vec::new(), Vec::new());
        for bytes in text.as_bytes().chunks(piece) {
            held.extend_from_slice(bytes);
            while let Some(end) = framer.end(&held) {
                let request: Vec<u8> = held.drain(..end).collect();
                requests.push(String::from_utf8(request).unwrap());
            }
        }
        (requests, String::from_utf8(held).unwrap())
    }

    #[test]
    fn requests_end_with_their_bracket_or_their_line() {
        let text = " {\"a\": [{}, \"}\\\"]\"]}{}\r\n{\"b\"\n}x{}\n\"str\"\n[1] {\"c\"";
        let expected =
            [" {\"a\": [{}, \"}\\\"]\"]}", "{}", "\r\n", "{\"b\"\n", "}x{}\n", "\"str\"\n", "[1]"];
        for piece in 1..text.len() {
            let (requests, rest) = split(text, piece);
            assert_eq!(requests, expected);
            assert_eq!(rest, " {\"c\"");
        }
    }
}

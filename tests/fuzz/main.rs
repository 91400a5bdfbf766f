//! The fuzzers' inputs, replayed without a fuzzer, and some thousand mutations of each target's.
//!
//! `fuzz/inputs/TARGET.txt` has one input a line: printable characters as they are, all others and
//! the backslash as `\xNN`, four zeroes and more as `\zCOUNT;`. `fuzz/run` adds to it what is worth
//! keeping.

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Mutations of each target's inputs; `FUZZ_MUTATIONS` is another number.
const MUTATIONS: u64 = 3000;
/// Bytes of a mutated input at most.
const INPUT_MAX: usize = 4096;

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/inputs/{target}.txt"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| read(line).unwrap_or_else(|| panic!("{file:?}: {line}"))).collect()
}

fn read(line: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match (first, more) {
            (b'\\', [b'x', high, low, more @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push((digit(high)? << 4 | digit(low)?) as u8);
                rest = more;
            }
            (b'\\', [b'z', more @ ..]) => {
                let end = more.iter().position(|byte| *byte == b';')?;
                let count: usize = std::str::from_utf8(&more[..end]).ok()?.parse().ok()?;
                bytes.resize(bytes.len() + count, 0);
                rest = &more[end + 1..];
            }
            (b'\\', _) => return None,
            _ => bytes.push(*first),
        }
    }
    Some(bytes)
}

fn written(input: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = input;
    while let Some((first, more)) = rest.split_first() {
        let zeroes = rest.iter().take_while(|byte| **byte == 0).count();
        rest = more;
        match first {
            0 if zeroes >= 4 => {
                text += &format!("\\z{zeroes};");
                rest = &more[zeroes - 1..];
            }
            0x20..0x7F if *first != b'\\' => text.push(char::from(*first)),
            _ => text += &format!("\\x{first:02x}"),
        }
    }
    text
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// An input with some of it changed.
fn mutated(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        match random.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.next() as u8,
            2 if !input.is_empty() => input[at] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][random.below(6)],
            3 => input.truncate(at),
            4 => input.insert(at, random.next() as u8),
            5 if !input.is_empty() => {
                input.remove(at);
            }
            _ => {
                // The rest is another input's.
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input.truncate(INPUT_MAX);
    input
}

fn play(name: &str, input: &[u8]) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.expect("there is such a target");
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("the input, for fuzz/inputs/{name}.txt:\n{}", written(input));
        std::panic::resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "fuzz/inputs/{name}.txt is empty");
    inputs.iter().for_each(|input| play(name, input));
    play(name, &[]);
    let count =
        std::env::var("FUZZ_MUTATIONS").map_or(MUTATIONS, |count| count.parse().expect("a number"));
    for seed in 0..count {
        play(name, &mutated(&inputs, &mut Random(seed)));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, replayed);
        }
    };
}

targets! {
    rings region requests sense decision identity groups reservations fencing probe paths control
    address config array
}

#[test]
fn inputs_are_read_as_they_were_written() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(read(&written(&all)), Some(all));
    let zeroes = [&[0; 3][..], b"\\z7;", &[0; 400]].concat();
    assert_eq!(written(&zeroes), "\\x00\\x00\\x00\\x5cz7;\\z400;");
    assert_eq!(read(&written(&zeroes)), Some(zeroes));
    assert_eq!(read("a\\"), None);
    assert_eq!(read("a\\x0"), None);
}

//! Which blocks a queue asks for, and what for.

use clap::ValueEnum;

use crate::Options;

/// In which order blocks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    Random,
    Sequential,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    Read,
    Write,
    /// Seven reads to three writes.
    Mixed,
}

/// One command.
pub struct Ask {
    pub writes: bool,
    pub lba: u32,
    pub blocks: u16,
}

/// The commands of one queue: a part of the unit of its own.
pub struct Work {
    order: Order,
    mix: Mix,
    first: u32,
    places: u32,
    blocks: u16,
    next: u32,
    random: u64,
}

impl Work {
    /// The part of queue `at` of `queues`, on a unit of so many blocks.
    pub fn new(at: usize, queues: usize, blocks: u32, options: &Options) -> Self {
        let length = (options.size / 512) as u16;
        let share = blocks / queues as u32;
        assert!(length > 0 && share >= u32::from(length), "the unit is too small");
        Work {
            order: options.order,
            mix: options.mix,
            first: share * at as u32,
            places: share / u32::from(length),
            blocks: length,
            next: 0,
            random: 88_172_645_463_325_252 + at as u64,
        }
    }

    /// xorshift: the same commands in every run.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 16
    }

    /// The next command.
    pub fn next(&mut self) -> Ask {
        let place = match self.order {
            Order::Random => (self.random() % u64::from(self.places)) as u32,
            Order::Sequential => {
                self.next = (self.next + 1) % self.places;
                self.next
            }
        };
        let writes = match self.mix {
            Mix::Read => false,
            Mix::Write => true,
            Mix::Mixed => self.random() % 10 < 3,
        };
        Ask { writes, lba: self.first + place * u32::from(self.blocks), blocks: self.blocks }
    }
}

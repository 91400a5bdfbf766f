//! How many clones may be sent: a share of the reads, and none for a while when they do not help.

use std::time::Instant;

use crate::limits::{HEDGE_BURST, HEDGE_JUDGED, HEDGE_PAUSE, HEDGE_WINS_MIN};

/// What a clone costs; a read earns a share of it.
const CLONE: u64 = 1_000_000;

/// One lane's budget.
#[derive(Debug)]
pub struct Budget {
    earned_per_read: u64,
    tokens: u64,
    /// Clones judged since the last judgement, and those of them that were first.
    judged: u32,
    won: u32,
    paused_until: Option<Instant>,
}

impl Budget {
    /// So many clones a read at most, in the long run.
    pub fn new(share: f64) -> Self {
        let earned_per_read = (share.clamp(0.0, 1.0) * CLONE as f64) as u64;
        Budget { earned_per_read, tokens: 0, judged: 0, won: 0, paused_until: None }
    }

    /// A read was sent.
    pub fn earn(&mut self) {
        self.tokens = (self.tokens + self.earned_per_read).min(CLONE * u64::from(HEDGE_BURST));
    }

    /// True when a clone may be sent; it is paid for.
    pub fn spend(&mut self) -> bool {
        let left = self.tokens.checked_sub(CLONE);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }

    /// True while clones are not worth their while.
    pub fn is_paused(&mut self, now: Instant) -> bool {
        self.paused_until = self.paused_until.filter(|until| now < *until);
        self.paused_until.is_some()
    }

    /// A clone was first, or was not. True when that ends cloning for a while: where clones are no
    /// faster than what they are clones of, not one path is slow but the array.
    pub fn judge(&mut self, won: bool, now: Instant) -> bool {
        self.judged += 1;
        self.won += u32::from(won);
        if self.judged < HEDGE_JUDGED {
            return false;
        }
        let useless = self.won < HEDGE_WINS_MIN;
        (self.judged, self.won) = (0, 0);
        if useless {
            self.paused_until = Some(now + HEDGE_PAUSE);
        }
        useless
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_a_share_of_the_reads() {
        let mut budget = Budget::new(0.02);
        assert!(!budget.spend(), "nothing was earned");
        let mut spent = 0;
        for _ in 0..10_000 {
            budget.earn();
            spent += u32::from(budget.spend());
        }
        assert_eq!(spent, 200);
        (0..100_000).for_each(|_| budget.earn());
        let burst = (0..1000).filter(|_| budget.spend()).count();
        assert_eq!(burst, HEDGE_BURST as usize, "an idle hour saves up no storm");
    }

    #[test]
    fn clones_that_never_win_are_given_up_for_a_while() {
        let (mut budget, start) = (Budget::new(1.0), Instant::now());
        for at in 0..10 * HEDGE_JUDGED {
            let won = at % (HEDGE_JUDGED / HEDGE_WINS_MIN) == 0;
            assert!(!budget.judge(won, start), "enough of them win");
        }
        let pauses = (0..HEDGE_JUDGED).filter(|_| budget.judge(false, start)).count();
        assert_eq!(pauses, 1);
        assert!(budget.is_paused(start));
        assert!(!budget.is_paused(start + HEDGE_PAUSE));
    }
}

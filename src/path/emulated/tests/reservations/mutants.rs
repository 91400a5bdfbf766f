//! The comparison bites: each rule that the model breaks on purpose is found by some seed.

use super::model::MUTANTS;
use super::random::run;

/// Seeds within which a broken rule has to show.
const SEEDS: u64 = 2000;

#[test]
fn each_broken_rule_is_found() {
    for mutant in MUTANTS {
        let found = (0..SEEDS).find(|seed| run(*seed, Some(mutant)).is_err());
        let seed = found.unwrap_or_else(|| panic!("{mutant:?} was not found"));
        println!("{mutant:?}: seed {seed}");
    }
}

//! From the table to the kernel's filters.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::calls::{Call, Check};
use super::{Class, ConfineError, Violation};

/// Calls and the ways in which each may be made; any way, where there is none.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The calling thread, and those that it starts, may do what `class` may.
pub(super) fn install(class: Class, violation: Violation) -> Result<(), ConfineError> {
    let otherwise = match violation {
        Violation::Kill => SeccompAction::Trap,
        Violation::Log => SeccompAction::Log,
    };
    // Of several filters' answers an error counts more than a yes. It comes first: afterwards there
    // may be no further filter.
    if !class.refused().is_empty() {
        let refused = rules_of(class.refused()).map_err(wrong)?;
        refuse(refused, libc::EACCES)?;
    }
    let rules = rules(class).map_err(wrong)?;
    apply(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch()?).map_err(wrong)?)
}

/// clone3 has its flags in memory, where no filter can look: without it the C library uses clone.
pub(super) fn install_without_clone3() -> Result<(), ConfineError> {
    refuse(Rules::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

/// These calls are answered with an error.
fn refuse(rules: Rules, errno: i32) -> Result<(), ConfineError> {
    let answer = SeccompAction::Errno(errno as u32);
    apply(SeccompFilter::new(rules, SeccompAction::Allow, answer, arch()?).map_err(wrong)?)
}

fn arch() -> Result<TargetArch, ConfineError> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(wrong)
}

fn apply(filter: SeccompFilter) -> Result<(), ConfineError> {
    let program: BpfProgram = filter.try_into().map_err(wrong)?;
    apply_filter(&program).map_err(|error| match error {
        Error::Prctl(cause) | Error::Seccomp(cause) => ConfineError::Kernel(cause.to_string()),
        error => ConfineError::Kernel(error.to_string()),
    })
}

fn wrong(error: impl std::fmt::Display) -> ConfineError {
    ConfineError::Filter(error.to_string())
}

/// What a class may do, with what those may that it starts. A call that is allowed in two ways is
/// allowed in both; one that is allowed without conditions needs none of them.
pub(super) fn rules(class: Class) -> Result<Rules, seccompiler::BackendError> {
    rules_of(&class.calls())
}

fn rules_of(calls: &[Call]) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = Rules::new();
    let mut free = Vec::new();
    for call in calls {
        let ways = rules.entry(call.number).or_default();
        match call.checks {
            [] => free.push(call.number),
            checks => ways.push(SeccompRule::new(conditions(checks)?)?),
        }
    }
    for number in free {
        rules.insert(number, Vec::new());
    }
    Ok(rules)
}

fn conditions(checks: &[Check]) -> Result<Vec<SeccompCondition>, seccompiler::BackendError> {
    let condition = |check: &Check| {
        let (argument, operator, value) = match *check {
            Check::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
            Check::Bits(argument, mask, value) => (argument, SeccompCmpOp::MaskedEq(mask), value),
            Check::Us(argument) => (argument, SeccompCmpOp::Eq, std::process::id().into()),
        };
        // All of them are 32 bits wide, and the kernel ignores the rest.
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    checks.iter().map(condition).collect()
}

//! The asymmetric access states that a port of the built-in array may have, by their names.

use crate::scsi::alua::AccessState;

/// All of them: those of SPC-5 table 201, without LBA-dependent.
pub(super) const STATES: [AccessState; 6] = [
    AccessState::ActiveOptimized,
    AccessState::ActiveNonOptimized,
    AccessState::Standby,
    AccessState::Unavailable,
    AccessState::Offline,
    AccessState::Transitioning,
];

/// By the full name, as `query-paths` shows it, or a short one: `optimized`, `ao`,
/// `non-optimized`, `an`.
pub(super) fn from_name(name: &str) -> Option<AccessState> {
    match name {
        "optimized" | "ao" => Some(AccessState::ActiveOptimized),
        "non-optimized" | "nonoptimized" | "an" => Some(AccessState::ActiveNonOptimized),
        _ => STATES.into_iter().find(|state| state.to_string() == name),
    }
}

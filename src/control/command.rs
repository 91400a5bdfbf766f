//! The commands that become an [`Order`]: one table from name and arguments.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::arguments::{ArgumentError, Arguments};
use super::{FaultSpec, Order};

/// Takes a command's arguments.
type Read = fn(&mut Arguments) -> Result<Order, ArgumentError>;

/// Every command for the manager.
const COMMANDS: [(&str, Read); 22] = [
    ("query-backend", |_| Ok(Order::QueryBackend)),
    ("query-lun", |_| Ok(Order::QueryLun)),
    ("query-paths", |_| Ok(Order::QueryPaths)),
    ("query-stats", |_| Ok(Order::QueryStats)),
    ("query-history", |_| Ok(Order::QueryHistory)),
    ("query-settings", |_| Ok(Order::QuerySettings)),
    ("query-reservation", |_| Ok(Order::QueryReservation)),
    ("reservation-export", |_| Ok(Order::ReservationExport)),
    ("reservation-import", |arguments| {
        let exported = Box::new(value_of(arguments, "reservation")?);
        let at_arrival = arguments.optional_bool("at-arrival")?.unwrap_or(false);
        Ok(Order::ReservationImport { exported, at_arrival })
    }),
    ("path-add", |arguments| {
        let address = arguments.string("address")?;
        Ok(Order::PathAdd { address, name: arguments.optional_string("name")? })
    }),
    ("path-remove", |arguments| Ok(Order::PathRemove { name: arguments.string("name")? })),
    ("path-fail", |arguments| Ok(Order::PathFail { name: arguments.string("name")? })),
    ("path-reinstate", |arguments| Ok(Order::PathReinstate { name: arguments.string("name")? })),
    ("set-iopolicy", |arguments| value_of(arguments, "iopolicy").map(Order::SetIopolicy)),
    ("set-no-path-retry", |arguments| {
        value_of(arguments, "no-path-retry").map(Order::SetNoPathRetry)
    }),
    ("set-failback", |arguments| value_of(arguments, "failback").map(Order::SetFailback)),
    ("failback", |_| Ok(Order::Failback)),
    ("inject-fault", |arguments| {
        let path = arguments.string("path")?;
        Ok(Order::InjectFault { path, fault: FaultSpec::take(arguments)? })
    }),
    ("clear-faults", |arguments| {
        Ok(Order::ClearFaults { path: arguments.optional_string("path")? })
    }),
    ("reload", |_| Ok(Order::Reload)),
    ("quit", |_| Ok(Order::Quit)),
    ("takeover", |_| Ok(Order::Takeover)),
];

/// Why a command is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommandError {
    /// No such name.
    #[error("The command {0} has not been found")]
    NotFound(String),
    /// Wrong arguments.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
}

/// The names of all commands here.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(name, _)| *name)
}

/// Reads one command.
pub(super) fn read(name: &str, arguments: Map<String, Value>) -> Result<Order, CommandError> {
    let (_, read) = COMMANDS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| CommandError::NotFound(name.to_owned()))?;
    let mut arguments = Arguments(arguments);
    let order = read(&mut arguments)?;
    arguments.finish()?;
    Ok(order)
}

/// A value that reads the same here as in a file.
fn value_of<T: DeserializeOwned>(
    arguments: &mut Arguments,
    name: &'static str,
) -> Result<T, ArgumentError> {
    let value = arguments.any(name)?;
    serde_json::from_value(value).map_err(|error| ArgumentError::value(name, error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Failback, IoPolicy, NoPathRetry};

    fn order(name: &str, arguments: Value) -> Result<Order, String> {
        let Value::Object(arguments) = arguments else { panic!() };
        read(name, arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn command_words_become_orders() {
        assert_eq!(order("query-backend", json!({})), Ok(Order::QueryBackend));
        assert_eq!(order("query-lun", json!({})), Ok(Order::QueryLun));
        assert_eq!(order("query-history", json!({})), Ok(Order::QueryHistory));
        assert_eq!(order("query-settings", json!({})), Ok(Order::QuerySettings));
        assert_eq!(order("query-reservation", json!({})), Ok(Order::QueryReservation));
        assert_eq!(order("reservation-export", json!({})), Ok(Order::ReservationExport));
        let kept = json!({"key": "0xabc", "aptpl": false, "generation": 3, "array-generation": 8});
        let exported = json!({"version": 1, "wwid": "naa.1", "kept": kept});
        let Ok(Order::ReservationImport { exported: import, at_arrival: false }) =
            order("reservation-import", json!({"reservation": exported}))
        else {
            panic!("it is what was exported")
        };
        assert_eq!(serde_json::to_value(&import).unwrap(), exported);
        let add = Order::PathAdd { address: "null:1G".into(), name: Some("a".into()) };
        assert_eq!(order("path-add", json!({"address": "null:1G", "name": "a"})), Ok(add));
        let set = order("set-iopolicy", json!({"iopolicy": "round-robin"}));
        assert_eq!(set, Ok(Order::SetIopolicy(IoPolicy::RoundRobin)));
        let set = order("set-no-path-retry", json!({"no-path-retry": 0}));
        assert_eq!(set, Ok(Order::SetNoPathRetry(NoPathRetry::Fail)));
        let set = order("set-failback", json!({"failback": "manual"}));
        assert_eq!(set, Ok(Order::SetFailback(Failback::Manual)));
        assert_eq!(order("failback", json!({})), Ok(Order::Failback));
        assert_eq!(order("clear-faults", json!({})), Ok(Order::ClearFaults { path: None }));
        assert_eq!(order("reload", json!({})), Ok(Order::Reload));
        assert_eq!(order("quit", json!({})), Ok(Order::Quit));
        assert_eq!(order("takeover", json!({})), Ok(Order::Takeover));
    }

    #[test]
    fn command_errors_name_what_is_wrong() {
        let cases = [
            ("nonsense", json!({}), "The command nonsense has not been found"),
            ("query-lun", json!({"x": 1}), "Parameter 'x' is unexpected"),
            ("path-fail", json!({}), "Parameter 'name' is missing"),
            (
                "path-fail",
                json!({"name": 1}),
                "Invalid parameter type for 'name', expected: string",
            ),
            ("inject-fault", json!({}), "Parameter 'path' is missing"),
        ];
        for (name, arguments, expected) in cases {
            assert_eq!(order(name, arguments), Err(expected.to_owned()));
        }
        let error = order("set-iopolicy", json!({"iopolicy": "rr"})).unwrap_err();
        assert!(error.starts_with("Parameter 'iopolicy': unknown variant `rr`"), "{error}");
        let error = order("reservation-import", json!({"reservation": {"key": 7}})).unwrap_err();
        assert!(error.starts_with("Parameter 'reservation': "), "{error}");
        let error = order("set-no-path-retry", json!({"no-path-retry": "30"})).unwrap_err();
        assert!(error.starts_with("Parameter 'no-path-retry': `30` is not"), "{error}");
    }
}

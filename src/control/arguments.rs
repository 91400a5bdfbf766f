//! A command's arguments, strictly: each is taken by name and type, and none may be left over.
//! The messages are QEMU's own.

use serde_json::{Map, Value};

/// What is wrong with an argument.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgumentError {
    /// A required one is not there.
    #[error("Parameter '{0}' is missing")]
    Missing(&'static str),
    /// The wrong JSON type.
    #[error("Invalid parameter type for '{name}', expected: {expected}")]
    Type { name: &'static str, expected: &'static str },
    /// One that the command does not have.
    #[error("Parameter '{0}' is unexpected")]
    Unexpected(String),
    /// The right type and a value that cannot be.
    #[error("Parameter '{name}': {reason}")]
    Value { name: &'static str, reason: String },
}

impl ArgumentError {
    /// A value that cannot be.
    pub fn value(name: &'static str, reason: impl ToString) -> Self {
        ArgumentError::Value { name, reason: reason.to_string() }
    }
}

/// The arguments that have not been taken yet.
#[derive(Debug)]
pub(super) struct Arguments(pub Map<String, Value>);

impl Arguments {
    /// An argument of any type.
    pub fn any(&mut self, name: &'static str) -> Result<Value, ArgumentError> {
        self.0.remove(name).ok_or(ArgumentError::Missing(name))
    }

    /// A string that must be there.
    pub fn string(&mut self, name: &'static str) -> Result<String, ArgumentError> {
        self.optional_string(name)?.ok_or(ArgumentError::Missing(name))
    }

    /// A string that may be there.
    pub fn optional_string(&mut self, name: &'static str) -> Result<Option<String>, ArgumentError> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ArgumentError::Type { name, expected: "string" }),
        }
    }

    /// True or false, which may be there.
    pub fn optional_bool(&mut self, name: &'static str) -> Result<Option<bool>, ArgumentError> {
        let error = ArgumentError::Type { name, expected: "boolean" };
        self.0.remove(name).map(|value| value.as_bool().ok_or(error)).transpose()
    }

    /// A number that is not negative, which may be there.
    pub fn optional_u64(&mut self, name: &'static str) -> Result<Option<u64>, ArgumentError> {
        let error = ArgumentError::Type { name, expected: "uint64" };
        self.0.remove(name).map(|value| value.as_u64().ok_or(error)).transpose()
    }

    /// A number that may be there.
    pub fn optional_f64(&mut self, name: &'static str) -> Result<Option<f64>, ArgumentError> {
        let error = ArgumentError::Type { name, expected: "number" };
        self.0.remove(name).map(|value| value.as_f64().ok_or(error)).transpose()
    }

    /// Refuses what is left.
    pub fn finish(self) -> Result<(), ArgumentError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(ArgumentError::Unexpected(name)),
        }
    }
}

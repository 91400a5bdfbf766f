//! One thing that was looked at.

use serde_json::{Value, json};

use crate::paint::{Paint, Shade};

/// What was looked at, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which check, as one word for programs.
    pub check: &'static str,
    /// Of which backend; `None` is the host.
    pub backend: Option<String>,
    /// What was looked at.
    pub looked_at: String,
    /// What is wrong with it, and the line that mends it; `None` where nothing is.
    pub wrong: Option<Wrong>,
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub what: String,
    /// The line that mends it.
    pub mend: String,
}

impl Finding {
    /// Something is to be changed.
    pub fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }

    /// One line, and a second one with the remedy.
    pub fn text(&self, paint: Paint) -> String {
        let Finding { looked_at, wrong, .. } = self;
        let of = self.backend.as_deref().map_or_else(String::new, |name| format!("{name}: "));
        match wrong {
            None => format!("{}  {of}{looked_at}\n", paint.shade(Shade::Good, "ok    ")),
            Some(Wrong { what, mend }) => {
                let word = paint.shade(Shade::Bad, "change");
                format!("{word}  {of}{looked_at}: {what}\n        mend: {mend}\n")
            }
        }
    }

    fn json(&self) -> Value {
        let wrong = self.wrong.as_ref();
        json!({
            "check": self.check,
            "backend": self.backend,
            "looked-at": self.looked_at,
            "state": if self.is_wrong() { "change" } else { "ok" },
            "wrong": wrong.map(|wrong| &wrong.what),
            "mend": wrong.map(|wrong| &wrong.mend),
        })
    }
}

/// All of them, for programs.
pub fn document(findings: &[Finding]) -> Value {
    json!({"findings": findings.iter().map(Finding::json).collect::<Vec<_>>()})
}

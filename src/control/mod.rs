//! The control socket: QEMU's monitor protocol, spoken by one thread that owns no state of the LUN.
//!
//! ```text
//!   mpathctl, qmp-shell, ...           the control thread                        the manager
//!        |  JSON lines                        |                                       |
//!        +------ session (bytes) --> dialogue (protocol) --> command (words) -- Order + ReplyTo -->
//!        |       bounded both ways                                                    |
//!        <------ session <------------------- mail <----------- OrderResult ----------+
//!        <------ every session that has negotiated <----------- Event --- anyone (EventSink)
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`server`] | the loop: clients, their readiness, the mail |
//! | `session` | one client's bytes: bounded lines in, a bounded backlog out |
//! | `framing` | where a request ends; pure |
//! | `dialogue` | greeting, negotiation, requests and answers, as QEMU has them; pure |
//! | `command`, `arguments`, [`fault`] | from a command's words to an [`Order`], strictly checked; pure |
//! | [`mail`](mod@mail) | what crosses threads: answers and events, and the wake-up |
//! | `reload` | what another reading of the configuration has come to |
//! | [`report`], [`reservation`], [`history`], [`settings`] | what queries return, under the names that are promised |
//! | [`ask`] | orders from within the process |
//! | [`client`] | the other end, blocking: for mpathctl and for tests |
//!
//! The control thread never waits for the manager: it hands over an [`Order`] and goes on. A client
//! has one order at a time; its further lines wait in its buffer, then in the socket, so that
//! answers come in the order of the commands and a client can only fill its own memory's share.
//! A client that does not read its events is disconnected when its backlog is full.

mod arguments;
pub mod ask;
pub mod client;
mod command;
mod dialogue;
mod epoll_sys;
pub mod fault;
mod framing;
pub mod history;
pub mod mail;
mod reload;
pub mod report;
pub mod reservation;
pub mod server;
mod session;
pub mod settings;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;

use serde::Serialize;

pub use dialogue::event as event_message;
pub use fault::{FaultKind, FaultSpec};
pub use history::{HistoryReport, LunHistory, PathHistory};
pub use mail::{EventSink, Mailbox, ReplyTo, mail, reply_slot};
pub use reload::{ReloadReport, Renamed};
pub use report::{
    AccessState, BackendReport, Counters, HedgeStats, LatencyBucket, LunReport, LunState, PathKind,
    PathReport, PathState, PathStats, StatsReport,
};
pub use reservation::{Holder, PathRegistration, Registration, ReservationReport, StateKeeping};
pub use server::Server;
pub use settings::SettingsReport;

use crate::config::{Failback, IoPolicy, NoPathRetry};
use crate::state::Exported;

/// What a control client wants of the manager.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// `query-backend`, answered with [`Reply::Backend`].
    QueryBackend,
    /// `query-lun`, answered with [`Reply::Lun`].
    QueryLun,
    /// `query-paths`, answered with [`Reply::Paths`].
    QueryPaths,
    /// `query-stats`, answered with [`Reply::Stats`].
    QueryStats,
    /// `query-history`, answered with [`Reply::History`].
    QueryHistory,
    /// `query-settings`, answered with [`Reply::Settings`].
    QuerySettings,
    /// `query-reservation`, answered with [`Reply::Reservation`].
    QueryReservation,
    /// `reservation-export`, answered with [`Reply::ReservationExported`].
    ReservationExport,
    /// `reservation-import`: what another backend has exported is this one's.
    ReservationImport {
        /// What that is.
        exported: Box<Exported>,
        /// Not before the guest comes; until then nothing is done.
        at_arrival: bool,
    },
    /// `path-add`: answered at once, an event tells the rest.
    PathAdd {
        /// The path's address, as written.
        address: String,
        /// Its name, or the address's own short form.
        name: Option<String>,
    },
    /// `path-remove`: drains first.
    PathRemove {
        /// The path's name.
        name: String,
    },
    /// `path-fail`: no further use of the path until it is reinstated.
    PathFail {
        /// The path's name.
        name: String,
    },
    /// `path-reinstate`: ends a `path-fail`.
    PathReinstate {
        /// The path's name.
        name: String,
    },
    /// `set-iopolicy`.
    SetIopolicy(IoPolicy),
    /// `set-no-path-retry`.
    SetNoPathRetry(NoPathRetry),
    /// `set-failback`.
    SetFailback(Failback),
    /// `failback`: to the best group now.
    Failback,
    /// `inject-fault`, for emulated paths.
    InjectFault {
        /// The path's name.
        path: String,
        /// What shall go wrong.
        fault: FaultSpec,
    },
    /// `clear-faults`.
    ClearFaults {
        /// The path's name; without one, every path that has faults to clear.
        path: Option<String>,
    },
    /// `reload`: the configuration file is read again; answered with [`Reply::Reloaded`].
    Reload,
    /// `quit`: answered first, done then.
    Quit,
    /// `takeover`: as `quit`, and the vhost-user socket goes to the one who asks.
    Takeover,
}

/// What the manager answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Order::QueryBackend`].
    Backend(Box<BackendReport>),
    /// To [`Order::QueryLun`].
    Lun(Box<LunReport>),
    /// To [`Order::QueryPaths`].
    Paths(Vec<PathReport>),
    /// To [`Order::QueryStats`].
    Stats(Box<StatsReport>),
    /// To [`Order::QueryHistory`].
    History(Box<HistoryReport>),
    /// To [`Order::QuerySettings`].
    Settings(SettingsReport),
    /// To [`Order::QueryReservation`].
    Reservation(Box<ReservationReport>),
    /// To [`Order::ReservationExport`].
    ReservationExported(Box<Exported>),
    /// To [`Order::Reload`].
    Reloaded(Box<ReloadReport>),
    /// To everything else.
    Done,
}

/// The answer, or why not, in words for a person.
pub type OrderResult = Result<Reply, String>;

/// Takes orders; the manager's side of the boundary.
pub trait OrderSink: Send + 'static {
    /// Hands an order over. Called from the control thread, which serves all clients: it must
    /// return at once and do the work elsewhere. At most [`crate::limits::CONTROL_ORDERS_MAX`]
    /// orders are under way; one whose `reply` is dropped unanswered is answered with an error.
    fn submit(&self, order: Order, reply: ReplyTo);
}

/// What control clients are told without having asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", content = "data", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// A path went from one state to another.
    PathStateChanged {
        /// The path's name.
        name: String,
        /// The state before.
        from: PathState,
        /// The state now.
        to: PathState,
        /// Why, in words.
        reason: String,
    },
    /// The LUN went from one state to another.
    LunStateChanged {
        /// The state before.
        from: LunState,
        /// The state now.
        to: LunState,
        /// How its paths were then, in words.
        reason: String,
    },
    /// The LUN has another size.
    LunResized {
        /// Logical blocks now.
        blocks: u64,
    },
    /// Commands go over another path, or group of paths.
    Failover {
        /// Where they went.
        from: String,
        /// Where they go.
        to: String,
        /// How many were sent again.
        commands: u64,
    },
    /// Registrations or the reservation changed.
    ReservationChanged,
    /// A front end is there.
    FrontendConnected,
    /// It has gone.
    FrontendDisconnected,
}

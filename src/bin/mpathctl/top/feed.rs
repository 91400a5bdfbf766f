//! A thread that asks the backend once per interval, so that the keyboard never waits for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use serde_json::{Value, json};
use vhost_user_scsi_mpath::config::IoPolicy;
use vhost_user_scsi_mpath::control::client::Client;
use vhost_user_scsi_mpath::control::{LunReport, PathReport, StatsReport};
use vhost_user_scsi_mpath::limits::TOP_INTERVAL;

use crate::backends::{self, Failure};
use crate::events;
use crate::read::report;

/// What the backend reported at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// `query-lun`.
    pub lun: LunReport,
    /// `query-paths`.
    pub paths: Vec<PathReport>,
    /// `query-stats`.
    pub stats: StatsReport,
}

/// What the model is told.
#[derive(Debug)]
pub enum Told {
    /// A new report.
    Sample(Box<Sample>),
    /// An event, as a line.
    Event(String),
    /// What became of a wish, or why there is no report.
    Word(String),
}

/// What the backend is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `path-fail`.
    Fail(String),
    /// `path-reinstate`.
    Reinstate(String),
    /// `set-iopolicy`.
    Policy(IoPolicy),
}

/// The running thread. Dropped, it ends after its next report.
pub struct Feed {
    told: Receiver<Told>,
    wishes: Sender<Wish>,
}

impl Feed {
    /// Starts it.
    pub fn start(socket: &Path) -> io::Result<Feed> {
        let (to, told) = channel();
        let (wishes, wished) = channel();
        let socket = socket.to_owned();
        let run = move || Asking { socket, client: None, to, wished }.run();
        std::thread::Builder::new().name("feed".to_owned()).spawn(run)?;
        Ok(Feed { told, wishes })
    }

    /// What came in since the last call.
    pub fn told(&self) -> impl Iterator<Item = Told> + '_ {
        self.told.try_iter()
    }

    /// Passes a wish on. If the thread is gone, so is the view.
    pub fn wish(&self, wish: Wish) {
        let _ = self.wishes.send(wish);
    }
}

struct Asking {
    socket: PathBuf,
    client: Option<Client>,
    to: Sender<Told>,
    wished: Receiver<Wish>,
}

impl Asking {
    fn run(mut self) {
        let mut wish = None;
        loop {
            let told = match self.turn(wish.take()) {
                Ok(told) => told,
                Err(failure) => {
                    // The next turn connects anew.
                    self.client = None;
                    vec![Told::Word(failure.to_string())]
                }
            };
            for one in told {
                if self.to.send(one).is_err() {
                    return;
                }
            }
            match self.wished.recv_timeout(TOP_INTERVAL) {
                Ok(wished) => wish = Some(wished),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn turn(&mut self, wish: Option<Wish>) -> Result<Vec<Told>, Failure> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(backends::connect(&self.socket)?),
        };
        let mut told = Vec::new();
        if let Some(wish) = wish {
            told.push(Told::Word(carry_out(client, wish)));
        }
        let socket = &self.socket;
        let lun = report(socket, client.execute("query-lun", json!({}))?)?;
        let paths = report(socket, client.execute("query-paths", json!({}))?)?;
        let stats = report(socket, client.execute("query-stats", json!({}))?)?;
        // Before the reports: what they show has happened.
        told.extend(client.take_events().map(|event: Value| Told::Event(events::short(&event))));
        let at = Instant::now();
        told.push(Told::Sample(Box::new(Sample { at, lun, paths, stats })));
        Ok(told)
    }
}

/// What became of it, for the last line.
fn carry_out(client: &mut Client, wish: Wish) -> String {
    let (command, arguments, done) = match wish {
        Wish::Fail(name) => ("path-fail", json!({"name": name}), format!("{name} is out of use")),
        Wish::Reinstate(name) => {
            ("path-reinstate", json!({"name": name}), format!("{name} is checked"))
        }
        Wish::Policy(policy) => {
            ("set-iopolicy", json!({"iopolicy": policy}), format!("the policy is {policy}"))
        }
    };
    match client.execute(command, arguments) {
        Ok(_) => done,
        Err(error) => error.to_string(),
    }
}

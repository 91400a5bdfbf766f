//! `top`: a live view of one backend.
//!
//! ```text
//!   feed (a thread: asks once per interval) -- Told --> run: the loop of the terminal's thread
//!        ^                                               |  keys  |
//!        +------------------- Wish ----------------------+        v
//!                                                  model (pure) --> draw (pure, onto a buffer)
//! ```
//!
//! | file | what |
//! |---|---|
//! | `mod` | the terminal, and the loop |
//! | `model` | what is shown, and what a key means |
//! | `rates` | from two reports to what happened between them |
//! | `draw` | the model on a screen of any size |
//! | `feed` | the backend's reports and events, and the wishes to it |

mod draw;
mod feed;
mod model;
mod rates;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGINT, SIGTERM};
use vhost_user_scsi_mpath::limits::TOP_KEY_PATIENCE;

use crate::Output;
use crate::backends::{self, Failure};
use feed::Feed;
use model::{Act, Key, Model};

/// Shows one backend, or first a list of those that run, until the person has seen enough.
pub fn run(
    socket: Option<&Path>,
    directory: &Path,
    output: &mut Output<'_>,
) -> Result<u8, Failure> {
    let sockets = backends::all(socket, directory)?;
    if output.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        output.complain(
            &"top is for a person at a terminal; \"mpathctl stats --json\" is for programs",
        );
        return Ok(2);
    }
    // One that is not there is said without a screen in between.
    if let [only] = sockets.as_slice() {
        backends::connect(only)?;
    }
    let told_to_end = Arc::new(AtomicBool::new(false));
    // SIGHUP keeps its default, which ends the process: there is no terminal left to put in order,
    // and waiting for a key on one that is gone does not return.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_end))?;
    }
    // It also sees to it that a panic leaves the terminal as it was.
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &sockets, output.paint.on, &told_to_end);
    ratatui::try_restore()?;
    shown.map(|()| 0)
}

fn show(
    terminal: &mut DefaultTerminal,
    sockets: &[PathBuf],
    colours: bool,
    told_to_end: &AtomicBool,
) -> Result<(), Failure> {
    let names: Vec<String> = sockets.iter().map(|socket| backends::name(socket)).collect();
    let mut model = Model::new(names);
    let mut feed: Option<Feed> = None;
    while !told_to_end.load(Ordering::Relaxed) {
        match (model.watched(), &feed) {
            (Some(at), None) => feed = Some(Feed::start(&sockets[at])?),
            (None, Some(_)) => feed = None,
            _ => {}
        }
        for told in feed.iter().flat_map(Feed::told) {
            model.hear(told);
        }
        terminal.draw(|frame| draw::draw(frame, &model, colours))?;
        match key()?.map(|key| model.press(key)) {
            Some(Act::Quit) => return Ok(()),
            Some(Act::Wish(wish)) => {
                if let Some(feed) = &feed {
                    feed.wish(wish);
                }
            }
            Some(Act::Nothing) | None => {}
        }
    }
    Ok(())
}

/// The next key, if one comes soon. A change of the screen's size ends the wait as well.
fn key() -> io::Result<Option<Key>> {
    if !event::poll(TOP_KEY_PATIENCE)? {
        return Ok(None);
    }
    let event::Event::Key(key) = event::read()? else { return Ok(None) };
    if key.kind == KeyEventKind::Release {
        return Ok(None);
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(match key.code {
        KeyCode::Char('c') if control => Some(Key::Interrupt),
        KeyCode::Char(letter) if !control => Some(Key::Letter(letter)),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        _ => None,
    })
}

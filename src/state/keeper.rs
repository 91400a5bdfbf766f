//! The thread that reads and writes state, so that a slow or hanging disk of the host holds back
//! the guest's reservation command and nothing else.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::document::Owner;
use super::kept::Kept;
use super::store::{StateError, Store};
use crate::confine::{self, Class};

/// What the thread is asked for.
#[derive(Debug)]
enum Wish {
    Open(Owner),
    Write(u64, Kept),
}

/// What the thread has done.
#[derive(Debug)]
pub enum Done {
    /// The file was opened: where it is, and what was kept, if anything was.
    Opened(Result<(PathBuf, Option<Kept>), StateError>),
    /// The write of this number is over. After an error the file may have the old words or the new.
    Written(u64, Result<(), StateError>),
}

/// The way to the thread. Dropped, it ends when it has done what it was asked for.
#[derive(Debug)]
pub struct Keeper {
    wishes: Sender<Wish>,
}

impl Keeper {
    /// Starts the thread, for state in `directory`. What it has done it tells `done`, one call for
    /// each wish and in their order.
    pub fn start(directory: PathBuf, done: impl Fn(Done) + Send + 'static) -> io::Result<Keeper> {
        let (wishes, queue) = channel();
        let keep = move || {
            confine::enter(Class::State);
            keep(&directory, &queue, &done);
        };
        thread::Builder::new().name("state".to_owned()).spawn(keep)?;
        Ok(Keeper { wishes })
    }

    /// Opens the file of `owner`, as [`Done::Opened`] tells; the one before is closed.
    pub fn open(&self, owner: Owner) {
        self.wish(Wish::Open(owner));
    }

    /// Writes `kept`, as [`Done::Written`] tells with this number. A file must have been opened.
    pub fn write(&self, number: u64, kept: Kept) {
        self.wish(Wish::Write(number, kept));
    }

    fn wish(&self, wish: Wish) {
        // The thread ends only when this sender does.
        let _ = self.wishes.send(wish);
    }
}

fn keep(directory: &std::path::Path, queue: &Receiver<Wish>, done: &impl Fn(Done)) {
    let mut store: Option<Store> = None;
    while let Ok(wish) = queue.recv() {
        done(match wish {
            Wish::Open(owner) => {
                // First the old one: it may be the same file.
                store = None;
                Done::Opened(Store::open(directory, owner).map(|(opened, kept)| {
                    let file = opened.file().to_owned();
                    store = Some(opened);
                    (file, kept)
                }))
            }
            Wish::Write(number, kept) => Done::Written(
                number,
                match &store {
                    Some(store) => store.write(&kept),
                    None => Err(StateError::Host {
                        file: directory.to_owned(),
                        what: "keep state there",
                        cause: io::Error::other("no file of it is open"),
                    }),
                },
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::reservation::Key;

    #[test]
    fn keeper_does_all_in_order_and_tells_each_end() {
        let dir = tempfile::tempdir().unwrap();
        let (told, heard) = channel();
        let keeper = Keeper::start(dir.path().to_owned(), move |done| told.send(done).unwrap());
        let keeper = keeper.unwrap();
        let kept = |key| Kept { key: Some(Key(key)), ..Kept::default() };
        let owner = Owner { identity: "a".into(), wwid: "naa.1".into() };
        keeper.write(1, kept(1));
        keeper.open(owner.clone());
        keeper.write(2, kept(2));
        keeper.open(owner);
        drop(keeper);
        let next = || heard.recv().unwrap();
        assert!(matches!(next(), Done::Written(1, Err(_))), "no file was open");
        assert!(matches!(next(), Done::Opened(Ok((_, None)))));
        assert!(matches!(next(), Done::Written(2, Ok(()))));
        let Done::Opened(Ok((file, Some(last)))) = next() else { panic!("it was written") };
        assert_eq!(last, kept(2));
        assert!(file.starts_with(dir.path()));
        assert!(heard.recv().is_err(), "the thread has ended");
    }
}

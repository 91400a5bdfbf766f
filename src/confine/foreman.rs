//! The thread that starts threads for others, so that those need not be allowed to.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::{Class, enter};

/// One thread to be started.
struct Order {
    name: &'static str,
    life: Box<dyn FnOnce() + Send>,
    done: Sender<io::Result<()>>,
}

/// The way to it; may be cloned. It ends with the last of them.
#[derive(Clone, Debug)]
pub struct Foreman {
    orders: Sender<Order>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Order").field(&self.name).finish()
    }
}

impl Foreman {
    /// Starts it.
    pub fn start() -> io::Result<Self> {
        let (orders, queue) = channel();
        thread::Builder::new().name("foreman".to_owned()).spawn(move || work(&queue))?;
        Ok(Foreman { orders })
    }

    /// Starts a thread that confines itself to `class`, and does not wait for more than its start.
    ///
    /// # Errors
    /// As of [`thread::Builder::spawn`].
    pub fn spawn(
        &self,
        class: Class,
        name: &'static str,
        life: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let (done, told) = channel();
        let life = Box::new(move || {
            enter(class);
            life();
        });
        let gone = || io::Error::other("the thread that starts threads has ended");
        self.orders.send(Order { name, life, done }).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())?
    }
}

fn work(queue: &Receiver<Order>) {
    enter(Class::Foreman);
    while let Ok(Order { name, life, done }) = queue.recv() {
        let started = thread::Builder::new().name(name.to_owned()).spawn(life).map(drop);
        // Whoever asked waits for it.
        let _ = done.send(started);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spawn_starts_a_thread_of_that_name() {
        let foreman = Foreman::start().unwrap();
        let (to, told) = channel();
        let life = move || to.send(thread::current().name().map(str::to_owned)).unwrap();
        foreman.spawn(Class::Opener, "errand", life).unwrap();
        assert_eq!(told.recv().unwrap().as_deref(), Some("errand"));
    }
}

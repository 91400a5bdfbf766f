//! Paths are opened by threads of their own: the kernel may keep an open waiting for as long as an
//! adapter recovers from an error, and the manager has other paths to look after.

use super::fence::Bounds;
use super::members::Member;
use crate::config::PathConfig;
use crate::confine::{Class, Foreman};
use crate::control::ReplyTo;
use crate::engine::mailbox::Post;
use crate::limits::OPENINGS_MAX;
use crate::path::any::OpenOptions;
use crate::path::sg::host::DeviceId;

/// Who wants a path.
#[derive(Debug)]
pub enum Origin {
    /// A client of the control socket, who waits for the answer.
    Order(ReplyTo),
    /// Discovery.
    Found(DeviceId),
}

/// A path that was opened, or why it was not.
#[derive(Debug)]
pub struct Opened {
    /// Who wanted it.
    pub origin: Origin,
    /// It.
    pub result: Result<Member, String>,
}

/// Opens paths.
#[derive(Debug)]
pub struct Opener {
    options: OpenOptions,
    bounds: Bounds,
    post: Post<Opened>,
    foreman: Foreman,
    under_way: usize,
}

impl Opener {
    /// What is opened is posted to `post`, by threads that `foreman` starts.
    pub fn new(options: OpenOptions, bounds: Bounds, post: Post<Opened>, foreman: Foreman) -> Self {
        Opener { options, bounds, post, foreman, under_way: 0 }
    }

    /// Begins to open a path. Every call posts one [`Opened`], for which [`Opener::is_done`] is to
    /// be called.
    pub fn open(&mut self, config: PathConfig, origin: Origin) {
        self.under_way += 1;
        if self.under_way > OPENINGS_MAX {
            let result = Err("too many paths are being opened; try again later".to_owned());
            return self.post.send(Opened { origin, result });
        }
        // The origin must survive where there is no thread for it.
        let (sender, receiver) = std::sync::mpsc::channel();
        let (options, bounds) = (self.options.clone(), self.bounds.clone());
        let post = self.post.clone();
        let opens = move || {
            let Ok(origin) = receiver.recv() else { return };
            let result = Member::open_within(&bounds, &config, &options);
            let result = result.map_err(|error| error.to_string());
            post.send(Opened { origin, result });
        };
        match self.foreman.spawn(Class::Opener, "opener", opens) {
            // The thread waits for it.
            Ok(()) => drop(sender.send(origin)),
            Err(error) => {
                let result = Err(format!("no thread to open it: {error}"));
                self.post.send(Opened { origin, result });
            }
        }
    }

    /// One [`Opened`] has been taken.
    pub fn is_done(&mut self) {
        self.under_way -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Config;
    use crate::control::{Reply, reply_slot};
    use crate::engine::mailbox::{Mail, mailbox};
    use crate::path::any::OpenMode;

    fn next(mail: &Mail<Opened>) -> Opened {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(opened) = mail.next() {
                return opened;
            }
            assert!(Instant::now() < end, "nothing was opened");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn open_posts_one_answer_for_each_call() {
        let (post, mail) = mailbox().unwrap();
        let options = super::super::members::open_options(&Config::default(), OpenMode::Serve);
        let mut opener = Opener::new(options, Bounds::default(), post, Foreman::start().unwrap());
        let (reply, mut answer) = reply_slot().unwrap();
        let config =
            |address: &str| PathConfig { address: address.into(), ..PathConfig::default() };
        opener.open(config("null:1G"), Origin::Order(reply));
        let opened = next(&mail);
        assert_eq!(opened.result.unwrap().name, "null-1G");
        let Origin::Order(reply) = opened.origin else { panic!("it was an order") };
        reply.answer(Ok(Reply::Done));
        assert_eq!(answer(), Some(Ok(Reply::Done)));
        opener.is_done();
        let device = DeviceId { hctl: "1:0:0:0".parse().unwrap(), instance: 7 };
        opener.open(config("nonsense"), Origin::Found(device));
        let opened = next(&mail);
        assert!(opened.result.unwrap_err().contains("not an address"));
        assert!(matches!(opened.origin, Origin::Found(found) if found == device));
        opener.is_done();
        // Beyond the bound nothing is opened, and everybody hears of it.
        (0..=OPENINGS_MAX).for_each(|_| opener.open(config("null:1G"), Origin::Found(device)));
        let refused = (0..=OPENINGS_MAX).filter(|_| next(&mail).result.is_err()).count();
        assert_eq!(refused, 1);
    }
}

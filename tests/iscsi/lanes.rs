//! Lanes that wait for their answers as real ones do: by the channel's descriptor, never by time.

use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use epoll::{ControlOptions, Event, Events};
use vhost_user_scsi_mpath::buffer::{OwnedBuffer, Segments};
use vhost_user_scsi_mpath::ids::{AttemptId, Slot};
use vhost_user_scsi_mpath::path::iscsi::IscsiChannel;
use vhost_user_scsi_mpath::path::{Channel, Ended, Fate, Task, Transport};
use vhost_user_scsi_mpath::scsi::{Cdb, Status};

use crate::pattern;
use crate::session::{Session, settings, transfer};
use crate::target::Tgt;

/// How long a lane waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);
const BLOCK: usize = 4096;

struct Lane {
    channel: IscsiChannel,
    epoll: RawFd,
    next: u32,
}

impl Lane {
    fn new(channel: IscsiChannel) -> Self {
        let epoll = epoll::create(true).unwrap();
        let ready = channel.ready_fd().unwrap();
        let event = Event::new(Events::EPOLLIN, 0);
        epoll::ctl(epoll, ControlOptions::EPOLL_CTL_ADD, ready, event).unwrap();
        Lane { channel, epoll, next: 0 }
    }

    /// Submits; nothing is sent before the next [`Channel::flush`].
    fn submit(&mut self, cdb: &[u8], data_in: &Segments) -> AttemptId {
        self.next += 1;
        let attempt = AttemptId { slot: Slot(self.next as u16), generation: self.next };
        let none = Segments::new();
        let task = Task { cdb: &Cdb::new(cdb), data_out: &none, data_in };
        self.channel.submit(attempt, task, Instant::now());
        attempt
    }

    /// One turn of a lane's loop: what has ended, after a sleep where that is nothing.
    fn turn(&mut self) -> Vec<Ended> {
        self.channel.flush();
        let mut ended = Vec::new();
        self.channel.reap(Instant::now(), &mut ended);
        if ended.is_empty() {
            let mut events = [Event::new(Events::empty(), 0)];
            match epoll::wait(self.epoll, PATIENCE.as_millis() as i32, &mut events) {
                Ok(woken) => assert_eq!(woken, 1, "nothing came in {PATIENCE:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
            }
        }
        ended
    }

    /// Reads `commands` blocks, `depth` at a time, and looks at what has come; the longest pause
    /// between answers.
    fn load(&mut self, commands: usize, depth: usize) -> Duration {
        let buffers: Vec<_> = (0..depth).map(|_| OwnedBuffer::zeroed(BLOCK)).collect();
        let mut flying = vec![None; depth];
        let (mut sent, mut done) = (0, 0);
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while done < commands {
            for (at, slot) in flying.iter_mut().enumerate() {
                if slot.is_none() && sent < commands {
                    let block = sent % 16;
                    let cdb = transfer(0x28, (block * BLOCK / 512) as u32, BLOCK);
                    *slot = Some((self.submit(&cdb, buffers[at].segments()), block));
                    sent += 1;
                }
            }
            let ended = self.turn();
            if !ended.is_empty() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            for end in ended {
                let is_it = |slot: &Option<(AttemptId, usize)>| {
                    slot.is_some_and(|(attempt, _)| attempt == end.attempt)
                };
                let at = flying.iter().position(is_it).expect("each command ends once");
                let (_, block) = flying[at].take().unwrap();
                assert!(is_good(&end), "{end:?}");
                assert_eq!(buffers[at].to_vec(), pattern(BLOCK, block as u8), "block {block}");
                done += 1;
            }
        }
        longest
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = epoll::close(self.epoll);
    }
}

fn is_good(end: &Ended) -> bool {
    matches!(&end.fate, Fate::Answered(answer) if answer.status == Status::GOOD)
}

/// A session on a disk with a pattern of its own in each of the first blocks. Its channel is not a
/// lane's any more: nobody looks at it.
fn filled(tgt: &Tgt) -> Session {
    let mut session = Session::open(&tgt.address("", 1), &settings());
    assert!(session.is_ready());
    for block in 0..16 {
        session.write((block * BLOCK / 512) as u32, pattern(BLOCK, block as u8));
    }
    session
}

#[test]
fn lane_that_waits_is_woken_for_each_answer() {
    let Some(tgt) = Tgt::start() else { return };
    let session = filled(&tgt);
    let mut lane = Lane::new(session.path.channel().unwrap());
    lane.load(500, 1);
    lane.load(2000, 32);
    // While the session is idle it is asked whether it is alive, and goes on.
    std::thread::sleep(Duration::from_millis(3500));
    lane.load(500, 32);
    assert!(session.path.events().iter().all(|news| !format!("{news:?}").contains("Down")));
}

#[test]
fn lane_with_more_commands_than_the_target_takes_goes_on() {
    let Some(tgt) = Tgt::start() else { return };
    let session = filled(&tgt);
    let mut lane = Lane::new(session.path.channel().unwrap());
    // tgtd takes 128 at once, and libiscsi is given 32 more.
    let pause = lane.load(2000, 200);
    println!("longest pause between answers {pause:?}");
    // Were only the thread to send what has waited, it would after a second of silence.
    assert!(pause < Duration::from_millis(800), "{pause:?}");
}

#[test]
fn lane_that_has_just_come_waits_for_nobody() {
    let Some(tgt) = Tgt::start() else { return };
    for _ in 0..20 {
        // It has read until now, and looks no more.
        let session = filled(&tgt);
        let mut lane = Lane::new(session.path.channel().unwrap());
        // The thread may not know the lane yet, and then takes the batch.
        let pause = lane.load(1, 1);
        assert!(pause < Duration::from_millis(800), "{pause:?}");
    }
}

#[test]
fn lanes_with_one_session_all_get_their_answers() {
    let Some(tgt) = Tgt::start() else { return };
    let session = filled(&tgt);
    let channels: Vec<_> = (0..3).map(|_| session.path.channel().unwrap()).collect();
    let probe = session.path.probe_channel().unwrap();
    std::thread::scope(|scope| {
        for (depth, channel) in channels.into_iter().enumerate() {
            // In the end one is alone, so that the reading changes hands in both directions.
            let commands = 500 + 2000 * depth;
            scope.spawn(move || Lane::new(channel).load(commands, 1 + 7 * depth));
        }
        scope.spawn(move || Lane::new(probe).load(200, 1));
    });
}

#[test]
fn lane_that_does_not_look_keeps_no_answer_from_others() {
    let Some(tgt) = Tgt::start() else { return };
    let session = filled(&tgt);
    let mut lane = Lane::new(session.path.channel().unwrap());
    lane.load(100, 4);
    // From here on it does not look, as if its thread hung.
    let mut probe = Lane::new(session.path.probe_channel().unwrap());
    let begin = Instant::now();
    let asked = probe.submit(&[0; 6], &Segments::new());
    let ended = loop {
        let ended = probe.turn();
        if !ended.is_empty() {
            break ended;
        }
    };
    println!("answered after {:?}", begin.elapsed());
    assert!(ended.len() == 1 && ended[0].attempt == asked, "{ended:?}");
    assert!(is_good(&ended[0]), "{ended:?}");
    assert!(begin.elapsed() < Duration::from_millis(1500));
    lane.load(100, 4);
}

#[test]
fn lane_learns_that_its_connection_is_gone() {
    let Some(mut tgt) = Tgt::start() else { return };
    let session = filled(&tgt);
    let mut lane = Lane::new(session.path.channel().unwrap());
    lane.load(100, 4);
    tgt.freeze();
    let buffers: Vec<_> = (0..4).map(|_| OwnedBuffer::zeroed(BLOCK)).collect();
    for buffer in &buffers {
        lane.submit(&transfer(0x28, 0, BLOCK), buffer.segments());
    }
    let begin = Instant::now();
    lane.channel.flush();
    tgt.kill();
    let mut ended = Vec::new();
    while ended.len() < buffers.len() {
        ended.extend(lane.turn());
    }
    println!("failed after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_millis(500));
    assert!(ended.iter().all(|end| matches!(end.fate, Fate::Failed(..))), "{ended:?}");
}

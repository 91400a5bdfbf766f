//! The judge of attempts: what the engine sends, and what it may know when it does.

use std::time::Duration;

use vhost_user_scsi_mpath::buffer::Segments;
use vhost_user_scsi_mpath::ids::LaneId;
use vhost_user_scsi_mpath::lun::Repeat;
use vhost_user_scsi_mpath::multipath::Failback;
use vhost_user_scsi_mpath::multipath::classify::{Class, Executed, classify};
use vhost_user_scsi_mpath::path::{Answer, Failure, Fate, Reach, Task};
use vhost_user_scsi_mpath::scsi::alua::AccessState;
use vhost_user_scsi_mpath::scsi::{Asc, Status, opcode};

use crate::cluster::is_ours;
use crate::command::Op;
use crate::scene::{Rule, Scene};
use crate::sessions::Open;
use crate::verdict::PROBED_FOR_SURE;

impl Scene {
    /// A lane sends `task`; returns the command that it is about.
    pub fn judge_submission(
        &mut self,
        port: usize,
        client: LaneId,
        key: u64,
        task: &Task<'_>,
    ) -> Option<u64> {
        self.judge_blocked(port, client);
        if client == LaneId::MANAGER {
            return None;
        }
        let lent =
            [task.data_out, task.data_in].into_iter().find_map(|data| data.as_iovecs().first());
        let guests = lent.and_then(|piece| self.by_memory.get(&(piece.iov_base as usize)).copied());
        let serial = guests.or_else(|| self.read_elsewhere(client, task));
        let Some(serial) = serial else {
            self.broken(Rule::MemoryIsLentOnce, format!("unknown memory: {lent:?}"));
            return None;
        };
        self.judge_repetition(serial);
        self.judge_blocks(client, serial);
        self.judge_path(port, client, serial);
        if guests.is_none() {
            self.judge_elsewhere(port, serial, task);
        }
        self.judge_limping(port, serial);
        self.counts.sent_on_proof += u64::from(self.is_sent_on_proof(serial));
        let moved = self.commands[&serial].last_port.is_some_and(|last| last != port);
        let command = self.commands.get_mut(&serial)?;
        if command.cdb != *task.cdb {
            let text = format!("{serial} was sent as {:?}", task.cdb);
            self.broken(Rule::DataIsRight, text);
            return Some(serial);
        }
        match guests {
            Some(_) => command.live = Some(key),
            None => command.elsewhere.push((key, port)),
        }
        command.last_port = Some(port);
        command.attempts += 1;
        let makes = command.row.makes.is_some();
        self.counts.retries += u64::from(command.attempts > 1);
        self.counts.failovers += u64::from(moved);
        if makes {
            self.oracle.making += 1;
            self.oracle.doubted = self.now;
        }
        Some(serial)
    }

    /// The read that this is, if it goes to memory that is not the guest's.
    fn read_elsewhere(&self, client: LaneId, task: &Task<'_>) -> Option<u64> {
        self.options.deadlines.hedging?;
        let is_it = |serial: &&u64| {
            let command = &self.commands[serial];
            command.lane == client
                && command.taken
                && command.cdb == *task.cdb
                && command.op == Op::Read
                && command.memory.segments().len() == task.data_in.len()
        };
        self.outstanding.iter().find(is_it).copied()
    }

    /// A read goes to memory that is not the guest's: nobody else's either, and there are two such
    /// attempts at most, over different ports.
    fn judge_elsewhere(&mut self, port: usize, serial: u64, task: &Task<'_>) {
        let elsewhere = &self.commands[&serial].elsewhere;
        if elsewhere.len() > 1 || elsewhere.iter().any(|(_, other)| *other == port) {
            let text = format!("{serial} was sent over {port}, and is under way: {elsewhere:?}");
            self.broken(Rule::MemoryIsLentOnce, text);
        }
        let range = |piece: &libc::iovec| {
            let base = piece.iov_base as usize;
            base..base + piece.iov_len
        };
        let meets = |room: &Segments| {
            room.as_iovecs().iter().map(range).any(|one| {
                let mut mine = task.data_in.as_iovecs().iter().map(range);
                mine.any(|other| one.start < other.end && other.start < one.end)
            })
        };
        let lent = self.attempts.values().find(|one| one.live && meets(&one.room));
        if let Some(other) = lent.map(|one| one.serial) {
            let text = format!("{serial} was lent the memory of {other:?}");
            self.broken(Rule::MemoryIsLentOnce, text);
        }
    }

    fn judge_repetition(&mut self, serial: u64) {
        let command = &self.commands[&serial];
        let (op, repeat) = (command.op, command.row.repeat);
        let unproven = command.unproven || command.again;
        if command.over.is_some() || command.live.is_some() {
            let text =
                format!("{op:?} {serial} was sent, but: {:?} {:?}", command.over, command.live);
            self.broken(Rule::MemoryIsLentOnce, text);
        } else if repeat != Repeat::Freely && self.now < command.may_land_until() {
            let until = command.may_land_until();
            let text =
                format!("{op:?} {serial} was sent, an earlier attempt may land until {until:?}");
            self.broken(Rule::NoOvertaking, text);
        } else if repeat == Repeat::Never && unproven {
            let text = format!("{op:?} {serial} was sent again, it may have been executed");
            self.broken(Rule::NeverTwice, text);
        }
    }

    /// True when only a proof makes it right to send this command again already.
    fn is_sent_on_proof(&self, serial: u64) -> bool {
        let command = &self.commands[&serial];
        command.row.repeat != Repeat::Freely && self.now < command.quiet_from
    }

    fn judge_blocks(&mut self, client: LaneId, serial: u64) {
        let command = &self.commands[&serial];
        if command.unproven {
            // It has a hold of its own; the ledger lets them go one after the other.
            return;
        }
        let extent = command.extent;
        let held = self
            .view
            .as_ref()
            .is_some_and(|view| view.table.holds.iter().any(|hold| hold.extent.overlaps(extent)));
        let own = self.outstanding.iter().filter(|other| **other != serial).find(|other| {
            let other = &self.commands[other];
            other.lane == client && other.blocks_others && other.extent.overlaps(extent)
        });
        if let Some(own) = own {
            let text = format!("{serial} was sent over the blocks of the unproven {own}");
            self.broken(Rule::BlocksWait, text);
        } else if held {
            self.broken(Rule::BlocksWait, format!("{serial} was sent over blocks on hold"));
        }
    }

    fn judge_path(&mut self, port: usize, client: LaneId, serial: u64) {
        let Some(view) = self.view.clone().filter(|view| view.lane == client) else {
            return self.broken(Rule::PathIsUsable, format!("{serial} was sent outside of a turn"));
        };
        let entry = self.ports[port].path.and_then(|path| view.table.entry(path));
        if self.ports[port].removed || !entry.is_some_and(|entry| entry.is_usable()) {
            let known = entry.map(|entry| (entry.state, entry.access));
            let text = format!("{serial} was sent over port {port}, which is {known:?}");
            self.broken(Rule::PathIsUsable, text);
        } else if self.commands[&serial].attempts == 0
            && view.table.reserved.pin.is_none()
            && self.is_lesser(port)
        {
            let text = format!("{serial} was sent over port {port}, and a better one is there");
            self.broken(Rule::BestGroup, text);
        } else if self.oracle.suspects.contains(&(client, port)) {
            let text = format!("{serial} was sent over port {port}, which had just failed");
            self.broken(Rule::PathIsUsable, text);
        }
    }

    /// The port is not optimized, has not been for long, and another one has been all that time.
    fn is_lesser(&self, port: usize) -> bool {
        let options = &self.options;
        let by_chance = options.drop + options.lose + options.busy + options.aborted > 0;
        let long = |since: Duration| self.now - since > PROBED_FOR_SURE;
        let (access, since) = self.ports[port].access_since;
        let better = self.ports.iter().any(|port| port.best_since.is_some_and(long));
        options.failback == Failback::Immediate
            && !by_chance
            && access == AccessState::ActiveNonOptimized
            && long(since)
            && better
    }

    /// The array's answer is on its way to the engine.
    pub fn note_answer(&mut self, key: u64, answer: &Answer) {
        let Some(serial) = self.attempts.get(&key).and_then(|attempt| attempt.serial) else {
            return;
        };
        let Some(command) = self.commands.get_mut(&serial) else { return };
        if matches!(answer.status, Status::BUSY | Status::TASK_SET_FULL) {
            command.busy += 1;
        }
        if let Some(sense) = answer.sense.as_ref().and_then(|sense| sense.decode()) {
            command.senses.push(sense);
        }
    }

    /// An attempt has ended.
    pub fn note_end(&mut self, key: u64, fate: &Fate) {
        let Some(attempt) = self.attempts.get(&key) else { return };
        let (port, session) = (attempt.port, attempt.session);
        let lost = is_ours(attempt.client, &attempt.cdb)
            && attempt.cdb.opcode() == opcode::PERSISTENT_RESERVE_OUT
            && matches!(fate, Fate::Failed(..));
        if let Some(cluster) = self.cluster.as_mut().filter(|_| lost) {
            cluster.referee.lost += 1;
        }
        let until: Duration = self.now + self.options.write_quiesce;
        let command = attempt.serial.and_then(|serial| self.commands.get_mut(&serial));
        let Some(command) = command else { return };
        self.counts.left_behind += u64::from(command.over.is_some());
        command.live = command.live.filter(|live| *live != key);
        command.elsewhere.retain(|(live, _)| *live != key);
        if matches!(fate, Fate::Failed(_, Reach::Unknown)) {
            command.open.push(Open { port, session, until });
            command.quiet_from = until;
        }
    }

    /// The host hears that something else may be behind a port.
    pub fn note_doubt(&mut self, port: usize, fate: &Fate) {
        let class = classify(fate).class;
        if class == Class::Attention(Asc::MODE_PARAMETERS_CHANGED)
            && self.options.lies.attentions_repeat
        {
            self.ports[port].raise(Asc::MODE_PARAMETERS_CHANGED);
        }
        if matches!(class, Class::Doubt(_)) {
            let version = self.version;
            self.ports[port].doubt_told.get_or_insert(version);
        }
    }

    /// The engine knows of an end now.
    pub fn note_reaped(&mut self, port: usize, client: LaneId, serial: Option<u64>, fate: &Fate) {
        let now = self.now;
        if let Some(clearing) =
            self.ports[port].clearing.as_mut().filter(|_| client == LaneId::MANAGER)
        {
            clearing.found = clearing.found.min(now);
        }
        let verdict = classify(fate);
        let stops = match verdict.class {
            Class::PathFailed(failure) => failure != Failure::Recalled,
            Class::Doubt(_) | Class::Unmapped => true,
            _ => false,
        };
        if stops && client != LaneId::MANAGER {
            self.oracle.fresh_suspects.push((client, port));
        }
        let Some(command) = serial.and_then(|serial| self.commands.get_mut(&serial)) else {
            return;
        };
        let open =
            matches!(verdict.executed, Executed::Perhaps | Executed::Unknown | Executed::Parked);
        command.unproven |= open && command.row.repeat != Repeat::Freely;
        if command.row.makes.is_some() {
            self.oracle.making -= 1;
            self.oracle.doubted = self.now;
            if open {
                // The guest does not know either: should it be told, all is well. This port's nexus
                // has no copy then.
                self.oracle.excused += 1;
                self.ports[port].loses_copy(self.now);
            }
        }
    }

    /// A lane's turn is over: it knows now what it took from its paths. Within the turn it goes
    /// through the ends one by one.
    pub fn turn_over(&mut self) {
        self.view = None;
        let fresh = std::mem::take(&mut self.oracle.fresh_suspects);
        self.oracle.suspects.extend(fresh);
        for serial in &self.outstanding {
            if let Some(command) = self.commands.get_mut(serial) {
                command.blocks_others = command.unproven;
            }
        }
    }
}

//! Pages that are lost here, asked of peers.
//!
//! A checkpoint is the same on every replica, bytes and places. So a page is named by its place and its digest, and whoever has
//! these bytes there can give it. What comes is held against the digest by whoever opens the letter, and again by storage
//! against all that the parent of the page says. Neither a view nor an op matters: it works while a state is still being
//! opened, and between any two replicas that run.
//!
//! A peer that has another page there, or none, says so, and the next one is asked; so it is after a while without an answer. When each
//! has said so twice (a read may fail once), or was asked [`TRIES_MAX`] times, the page is lost, and the state is made
//! anew from the log.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_io::{Frame, Net, Packet};
use kimberlite_probe::mutant;
use kimberlite_storage::{Address, PageName};
use kimberlite_types::{Config, Instant, Op, ReplicaId, View};
use kimberlite_wire::header::Command;
use kimberlite_wire::message::Letter;
use kimberlite_wire::{LinkKeys, Malformed, Message};

/// Pages asked for at once; others wait for these. 16 x 8 KiB.
const ASKED_MAX: usize = 16;
/// Times that each peer is asked for one page. With the timing of production and two peers that is 1.6 seconds.
const TRIES_MAX: u32 = 8;
/// Times that each peer says that it does not have it.
const REFUSALS_MAX: u32 = 2;

/// How long a planted bug waits for an answer.
const FOREVER: Duration = Duration::from_hours(24);

/// A page that peers are asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Whom to ask next, counted on and on.
    turn: u32,
    tries: u32,
    refusals: u32,
    again_at: Instant,
}

/// What a packet about pages says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A peer lost this page.
    Wanted { by: ReplicaId, page: PageName },
    /// A page that was asked for.
    Came { page: PageName, bytes: Frame },
    /// Nothing to do.
    Nothing,
}

/// Pages that are asked for, and what it takes to ask.
pub(crate) struct Pages {
    config: Config,
    keys: LinkKeys,
    asked: BTreeMap<PageName, Asked>,
    queue: VecDeque<PageName>,
}

impl Pages {
    pub(crate) fn new(config: Config, secret: &[u8; 32]) -> Self {
        let keys = LinkKeys::derive(secret, config.replica);
        Self { config, keys, asked: BTreeMap::new(), queue: VecDeque::new() }
    }

    /// Pages that are asked for, or wait for that.
    pub(crate) fn under_way(&self) -> usize {
        self.asked.len() + self.queue.len()
    }

    /// Whether a packet is about pages. Says nothing of whether it is authentic.
    pub(crate) fn are_meant(packet: &Packet) -> bool {
        Command::peek(&packet.head)
            .is_some_and(|command| matches!(command, Command::RequestPage | Command::Page))
    }

    /// Wants a page of peers.
    pub(crate) fn want(&mut self, page: PageName) {
        kimberlite_probe::sometimes!("pages.wait", self.asked.len() >= ASKED_MAX);
        self.queue.push_back(page);
    }

    /// Nobody waits for pages any more.
    pub(crate) fn forget(&mut self) {
        self.asked.clear();
        self.queue.clear();
    }

    /// When [`Self::go_on`] is to be asked.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.again_at).min()
    }

    /// Opens a packet about pages.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        from: ReplicaId,
        packet: &Packet,
    ) -> Result<Heard, Malformed> {
        if from == self.config.replica || from.0 >= self.config.replicas {
            return Err(Malformed::Unknown);
        }
        let letter = Letter::open(packet, from, self.config.cluster, &self.keys)?;
        Ok(match letter.message {
            Message::RequestPage { address, digest } => {
                Heard::Wanted { by: from, page: PageName { address: Address(address), digest } }
            }
            Message::Page { address, digest, bytes } => {
                self.answered(now, PageName { address: Address(address), digest }, bytes)
            }
            _ => Heard::Nothing,
        })
    }

    fn answered(&mut self, now: Instant, page: PageName, bytes: Option<Frame>) -> Heard {
        let Some(asked) = self.asked.get_mut(&page) else { return Heard::Nothing };
        if let Some(bytes) = bytes {
            self.asked.remove(&page);
            return Heard::Came { page, bytes };
        }
        asked.refusals += 1;
        asked.again_at = now;
        Heard::Nothing
    }

    /// Asks for what is due; `needed`: what somebody still waits for. Answers the pages that cannot be had.
    pub(crate) fn go_on(
        &mut self,
        now: Instant,
        (view, commit): (View, Op),
        needed: impl Fn(&PageName) -> bool,
        net: &mut dyn Net,
    ) -> Vec<PageName> {
        self.asked.retain(|page, _| needed(page));
        while self.asked.len() < ASKED_MAX
            && let Some(page) = self.queue.pop_front()
        {
            if needed(&page) {
                // Not everybody asks the same peer first.
                let turn = u32::from(self.config.replica.0) + page.address.0 as u32 % 2;
                self.asked.insert(page, Asked { turn, tries: 0, refusals: 0, again_at: now });
            }
        }
        let peers: Vec<ReplicaId> = self.config.others().collect();
        let count = peers.len() as u32;
        let mut lost = Vec::new();
        for (page, asked) in &mut self.asked {
            if asked.again_at > now {
                continue;
            }
            if asked.tries >= TRIES_MAX * count || asked.refusals >= REFUSALS_MAX * count {
                kimberlite_probe::reachable!("pages.nobody_has_it");
                lost.push(*page);
                continue;
            }
            kimberlite_probe::reachable!("pages.asks");
            kimberlite_probe::sometimes!("pages.asks_next", asked.tries > 0);
            let to = peers[(asked.turn % count) as usize];
            asked.turn = asked.turn.wrapping_add(1);
            asked.tries += 1;
            let patience = if mutant!(PageAskedOnce) { FOREVER } else { self.config.timing.resend };
            asked.again_at = now.after(patience);
            let message = Message::RequestPage { address: page.address.0, digest: page.digest };
            let letter = Letter { from: self.config.replica, view, commit, message };
            net.send(to, letter.seal(self.config.cluster, &self.keys, to));
        }
        for page in &lost {
            self.asked.remove(page);
        }
        lost
    }

    /// Answers a peer.
    pub(crate) fn answer(
        &self,
        to: ReplicaId,
        page: PageName,
        bytes: Option<Frame>,
        (view, commit): (View, Op),
        net: &mut dyn Net,
    ) {
        let message = Message::Page { address: page.address.0, digest: page.digest, bytes };
        let letter = Letter { from: self.config.replica, view, commit, message };
        net.send(to, letter.seal(self.config.cluster, &self.keys, to));
    }
}

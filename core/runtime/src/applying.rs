//! The state: what is applied to it next, the pages that this takes, and its checkpoints.
//!
//! Committed prepares wait in order. Each entry is decided as soon as the pages are at hand that it needs; meanwhile
//! everything else goes on, and only what depends on the state waits behind it in the same queue: confirmed reads. Too long a
//! queue holds consensus back.
//!
//! What takes many steps is not waited for by reads, as long as nobody can have been told of it: it was proposed in the view in
//! which the read was confirmed, and in this life, so it is this node that tells, once it is applied for the first time. They read what
//! there was before. (A lone replica goes on in its view when it is started again, and a state that is made anew applies what it has told
//! of: seeds 802826 and 804393.)
//!
//! A checkpoint is taken right behind the op that makes it due, before anything else is applied, so that it is the same on
//! every replica. If the one before is still being written, everything waits for that.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_kernel::{Applied, EntryVerdict, Kernel};
use kimberlite_probe::mutant;
use kimberlite_storage::{CheckpointName, NewCheckpoint, PageRef, PagesAtHand};
use kimberlite_types::{Config, Op, View};
use kimberlite_wire::Prepare;

/// What waits, from which on consensus is held back: two pipelines of prepares. It hands out as much again at most before
/// it hears of it.
const QUEUE_MAX: usize = 16;

/// Bytes of the largest prepare for each row that one step looks at, about: a command that writes many takes several steps, and
/// everything else has its turn between them. Of the size of production, 2,176 rows: two or three milliseconds.
const STEP_ROW_BYTES: u32 = 512;

/// Something that waits for all that is in front of it.
#[expect(clippy::large_enum_variant, reason = "the large one is the common one, and is moved once")]
enum Waits {
    Prepare(Prepare),
    /// A read that was confirmed, in this view.
    Read(u64, View),
}

/// What a step comes to.
pub(crate) enum Step {
    Applied(Prepare, Applied),
    /// Everything that the read must see is in the state.
    Read(u64),
    /// These pages are needed to go on.
    Want(Vec<PageRef>),
    /// This page is needed and lost.
    Lost(PageRef),
    Checkpoint(Box<NewCheckpoint>),
    /// What is in front takes more steps.
    More,
}

/// The state and its queue.
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub(crate) struct Applying {
    pub(crate) kernel: Kernel,
    /// The checksum of the last prepare applied.
    checksum: Checksum,
    queue: VecDeque<Waits>,
    /// Whether what is in front takes many steps.
    is_slow: bool,
    /// Reads that need not wait for it.
    overtakes: VecDeque<u64>,
    /// The newest op that anybody may have been told of: the last one of the log that was opened, or applied since.
    told: Op,
    /// Of the prepare in front, so far.
    verdicts: Vec<EntryVerdict>,
    /// Whether pages are awaited, and those that were awaited before and are lost.
    awaits: bool,
    lost: Vec<PageRef>,
    /// Whether pages are kept at hand for the step that missed them.
    pins: bool,
    /// The checkpoint on its way.
    checkpoint: Option<Op>,
    /// Whether the state is gone, and nothing is taken until the log is handed out again.
    gone: bool,
}

impl Applying {
    pub(crate) fn new(config: &Config) -> Self {
        Self::of(Kernel::new(config.sessions_max), Checksum::ZERO)
    }

    fn of(kernel: Kernel, checksum: Checksum) -> Self {
        Self {
            kernel,
            checksum,
            queue: VecDeque::new(),
            is_slow: false,
            overtakes: VecDeque::new(),
            told: Op::ZERO,
            verdicts: Vec::new(),
            awaits: false,
            lost: Vec::new(),
            pins: false,
            checkpoint: None,
            gone: false,
        }
    }

    /// Takes the state that a checkpoint holds.
    pub(crate) fn restore(&mut self, kernel: Kernel, name: &CheckpointName) {
        *self = Self { told: self.told, ..Self::of(kernel, name.checksum) };
    }

    /// The log that was opened ends there.
    pub(crate) fn begins_behind(&mut self, head: Op) {
        self.told = self.told.max(head);
    }

    /// Gives the state up. Answers the reads that waited for it.
    pub(crate) fn give_up(&mut self, config: &Config) -> Vec<u64> {
        let (queue, overtakes) = (core::mem::take(&mut self.queue), core::mem::take(&mut self.overtakes));
        *self = Self { gone: true, told: self.told, ..Self::new(config) };
        let read = |waits: Waits| if let Waits::Read(ticket, _) = waits { Some(ticket) } else { None };
        overtakes.into_iter().chain(queue.into_iter().filter_map(read)).collect()
    }

    /// Whether the state is gone.
    pub(crate) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// The log is handed out from the first op on.
    pub(crate) fn begin_anew(&mut self) {
        self.gone = false;
    }

    /// Takes a prepare that was committed next.
    pub(crate) fn take(&mut self, prepare: Prepare) {
        // What an opened state holds already may be handed out again.
        let known = prepare.header.op <= self.kernel.applied();
        kimberlite_probe::sometimes!("applying.knows_op", known && !self.gone);
        if !self.gone && !known {
            self.queue.push_back(Waits::Prepare(prepare));
        }
    }

    /// Takes a read that was confirmed.
    pub(crate) fn take_read(&mut self, ticket: u64, view: View) {
        self.queue.push_back(Waits::Read(ticket, view));
        let known = |waits: &Waits| matches!(waits, Waits::Prepare(prepare) if prepare.header.view < view);
        if self.is_slow || mutant!(ReadOvertakesAll, self.queue.iter().any(known)) {
            self.overtake();
        }
    }

    /// Lets reads pass that wait for nothing that anybody can know of.
    fn overtake(&mut self) {
        // Ops and views grow along the queue.
        let front = self.queue.iter().find_map(|waits| match waits {
            Waits::Prepare(prepare) => Some((prepare.header.op, prepare.header.view)),
            Waits::Read(..) => None,
        });
        let Some((op, oldest)) = front else { return };
        let untold = op > self.told;
        let overtakes = &mut self.overtakes;
        self.queue.retain(|waits| {
            let Waits::Read(ticket, view) = waits else { return true };
            let passes = untold && oldest == *view;
            if !passes && !mutant!(ReadOvertakesAll, !passes) {
                return true;
            }
            kimberlite_probe::reachable!("applying.read_overtakes");
            overtakes.push_back(*ticket);
            false
        });
    }

    /// Whether so much waits that no more should come; `held`: whether this was said before.
    pub(crate) fn is_full(&self, held: bool) -> bool {
        self.queue.len() > if held { QUEUE_MAX / 2 } else { QUEUE_MAX }
    }

    /// The pages that were wanted are at hand, but for these.
    pub(crate) fn pages_came(&mut self, bad: Vec<PageRef>) {
        self.awaits = false;
        self.lost = bad;
    }

    /// The checkpoint of this op is durable. Answers whether it is the one on its way.
    pub(crate) fn checkpoint_durable(&mut self, op: Op) -> bool {
        let known = self.checkpoint == Some(op);
        if known {
            self.checkpoint = None;
        }
        known
    }

    /// Whether pages that were kept at hand are not needed any more.
    pub(crate) fn releases(&mut self) -> bool {
        !self.awaits && core::mem::take(&mut self.pins)
    }

    /// Goes on by one step, if anything can.
    pub(crate) fn step(&mut self, pages: PagesAtHand<'_>, config: &Config) -> Option<Step> {
        if let Some(ticket) = self.overtakes.pop_front() {
            return Some(Step::Read(ticket));
        }
        if self.awaits || self.gone {
            return None;
        }
        if self.kernel.is_checkpoint_due(&config.layout) {
            if self.checkpoint.is_some() {
                kimberlite_probe::reachable!("applying.waits_for_checkpoint");
                return None;
            }
            return Some(Step::Checkpoint(Box::new(self.checkpoint())));
        }
        match self.queue.front()? {
            Waits::Read(ticket, _) => {
                let ticket = *ticket;
                self.queue.pop_front();
                Some(Step::Read(ticket))
            }
            Waits::Prepare(prepare) => {
                let rows = (config.layout.prepare_size_max / STEP_ROW_BYTES) as usize;
                match self.kernel.apply_some(prepare, &pages, &mut self.verdicts, rows) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.lost.clear();
                        self.is_slow = true;
                        self.overtake();
                        return Some(Step::More);
                    }
                    Err(_) => return Some(self.miss(pages.missed())),
                }
                self.lost.clear();
                self.is_slow = false;
                let Some(Waits::Prepare(prepare)) = self.queue.pop_front() else {
                    unreachable!("it was in front")
                };
                self.checksum = prepare.header.checksum;
                self.told = self.told.max(prepare.header.op);
                let verdicts = core::mem::take(&mut self.verdicts);
                let applied = Applied { op: prepare.header.op, verdicts };
                Some(Step::Applied(prepare, applied))
            }
        }
    }

    fn miss(&mut self, missed: Vec<PageRef>) -> Step {
        kimberlite_probe::reachable!("applying.misses");
        if let Some(page) = missed.iter().find(|page| self.lost.contains(page)) {
            return Step::Lost(*page);
        }
        self.awaits = true;
        self.pins = true;
        Step::Want(missed)
    }

    fn checkpoint(&mut self) -> NewCheckpoint {
        let op = self.kernel.applied();
        self.checkpoint = Some(op);
        NewCheckpoint { op, checksum: self.checksum, pages: self.kernel.checkpoint() }
    }
}

/// Opens the state that a checkpoint holds.
pub(crate) fn open(
    config: &Config,
    name: &CheckpointName,
    pages: &PagesAtHand<'_>,
) -> Result<Kernel, kimberlite_kernel::OpenError> {
    let sessions_max =
        if mutant!(SessionsForgotten, config.sessions_max > 1) { 1 } else { config.sessions_max };
    let kernel = Kernel::open(sessions_max, &name.root, pages)?;
    if kernel.applied() != name.op {
        return Err(kimberlite_kernel::OpenError::Malformed("its image is of another op"));
    }
    Ok(kernel)
}

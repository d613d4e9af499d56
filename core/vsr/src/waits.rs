//! What a replica waits for, by name: so that a standstill explains itself.

use alloc::vec::Vec;
use core::fmt;

use kimberlite_types::{Op, ReplicaId, View};

use crate::merge::{Choice, choose};
use crate::replica::{Replica, Status};

/// Some replicas, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas(pub u8);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let mut between = "";
        for replica in (0..8).filter(|replica| self.0 & (1 << replica) != 0) {
            write!(f, "{between}{replica}")?;
            between = "+";
        }
        Ok(())
    }
}

/// One thing that a replica waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A quorum that wants a later view at the same time.
    Wishes {
        /// The view this replica wants.
        wanted: View,
        /// Replicas known to want that view or a later one.
        by: Replicas,
        /// How many it takes.
        needed: u8,
    },
    /// Votes for the view that this replica is to lead.
    Votes {
        /// The view.
        view: View,
        /// Whose votes came.
        from: Replicas,
        /// How many it takes.
        needed: u8,
    },
    /// A copy of an op, or word of enough replicas that never held it.
    Decision {
        /// The op.
        op: Op,
        /// Whose votes leave it undecided.
        from: Replicas,
    },
    /// The start of a view.
    Start {
        /// The view.
        view: View,
        /// Who is to lead it.
        primary: ReplicaId,
    },
    /// The own superblock.
    Superblock {
        /// The view whose log is being made durable there.
        view: View,
    },
    /// Acknowledgements of the first op in flight.
    Acks {
        /// The op.
        op: Op,
        /// Who acknowledged it.
        by: Replicas,
        /// How many it takes.
        needed: u8,
    },
    /// A prepare that others may have.
    Prepare {
        /// The op.
        op: Op,
        /// Whether its checksum is known.
        known: bool,
    },
    /// Answers to a leadership round.
    Round {
        /// Reads that wait for it.
        reads: usize,
        /// Who answered.
        by: Replicas,
        /// How many it takes.
        needed: u8,
    },
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wishes { wanted, by, needed } => {
                write!(f, "{needed} replicas that want view {wanted} (has {by})")
            }
            Self::Votes { view, from, needed } => write!(f, "{needed} votes for view {view} (has {from})"),
            Self::Decision { op, from } => write!(f, "the decision on op {op} (votes of {from})"),
            Self::Start { view, primary } => write!(f, "replica {primary} to start view {view}"),
            Self::Superblock { view } => write!(f, "its superblock to hold the log of view {view}"),
            Self::Acks { op, by, needed } => write!(f, "{needed} replicas to hold op {op} (has {by})"),
            Self::Prepare { op, known: true } => write!(f, "prepare {op}"),
            Self::Prepare { op, known: false } => write!(f, "prepare {op} of unknown checksum"),
            Self::Round { reads, by, needed } => {
                write!(f, "{needed} replicas to confirm {reads} reads (has {by})")
            }
        }
    }
}

impl Replica {
    /// Everything this replica waits for. Nothing, when it has nothing to do.
    pub fn waits(&self) -> Vec<Waits> {
        let mut all = Vec::new();
        if let Some(adoption) = &self.adoption {
            all.push(Waits::Superblock { view: adoption.view });
        } else if matches!(self.status(), Status::ViewChange | Status::Recovering) {
            self.waits_for_view(&mut all);
        }
        if let Some(front) = self.pipeline.front() {
            let by = Replicas(front.acks);
            all.push(Waits::Acks { op: front.op, by, needed: self.quorums.replication });
        }
        all.extend(self.wanted_by_checksum().map(|(op, known)| Waits::Prepare { op, known }));
        if let Some((reads, acks)) = self.reads.open_round() {
            all.push(Waits::Round { reads, by: Replicas(acks), needed: self.quorums.read });
        }
        all
    }

    fn waits_for_view(&self, all: &mut Vec<Waits>) {
        let bits = |replicas: &mut dyn Iterator<Item = ReplicaId>| {
            Replicas(replicas.fold(0, |bits, replica| bits | 1 << replica.0))
        };
        let primary = self.config.primary(self.view);
        let from = bits(&mut self.dvcs.iter().map(|dvc| dvc.replica));
        if primary != self.config.replica {
            all.push(Waits::Start { view: self.view, primary });
        } else if let Choice::Undecided(op) = choose(&self.dvcs, &self.quorums) {
            all.push(Waits::Decision { op, from });
        } else if self.log_view < self.view {
            all.push(Waits::Votes { view: self.view, from, needed: self.quorums.view_change });
        }
        let wanted = self.peers[usize::from(self.config.replica.0)].wanted;
        if wanted > self.view {
            let wants = |replica: &ReplicaId| self.peers[usize::from(replica.0)].wanted >= wanted;
            let by = bits(&mut (0..self.config.replicas).map(ReplicaId).filter(wants));
            all.push(Waits::Wishes { wanted, by, needed: self.quorums.view_change });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_is_waited_for_names_the_quorum_and_who_is_there_already() {
        let acks = Waits::Acks { op: Op(7), by: Replicas(0b101), needed: 3 };
        assert_eq!(acks.to_string(), "3 replicas to hold op 7 (has 0+2)");
        let votes = Waits::Votes { view: View(4), from: Replicas(0), needed: 2 };
        assert_eq!(votes.to_string(), "2 votes for view 4 (has none)");
    }
}

//! Named experiments.

/// What may break in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Every family.
    Default,
    /// Nothing.
    Calm,
    /// Processes and clocks.
    Crashes,
    /// Links, partitions, clogs, streams.
    Network,
    /// Disks.
    Storage,
    /// One replica: crashes, clocks, streams and slow disks, but no damage, since it has no peer.
    Solo,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Default, Self::Calm, Self::Crashes, Self::Network, Self::Storage, Self::Solo];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Calm => "calm",
            Self::Crashes => "crashes",
            Self::Network => "network",
            Self::Storage => "storage",
            Self::Solo => "solo",
        }
    }

    /// One sentence for people.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Default => "every family of faults, each on or off by the seed",
            Self::Calm => "no faults: everything must be committed and agreed on",
            Self::Crashes => "crashes with torn writes, crash loops, pauses, clocks, client crashes",
            Self::Network => "loss, duplicates, replays, corruption, partitions, clogs, broken streams",
            Self::Storage => "rot, unreadable sectors, lost and strayed writes, full, slow and dead disks",
            Self::Solo => "a single replica that crashes, stalls, runs out of space and loses clients",
        }
    }

    /// The scenario of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Counts that a swarm of at least [`Self::SWARM_MIN`] seeds must reach, or it showed nothing.
    pub const fn minimum(self) -> &'static [&'static str] {
        match self {
            Self::Default => {
                &["crashes", "view_changes", "partitions", "storage_faults", "repairs", "segments_sealed"]
            }
            Self::Calm => &["ops_committed", "segments_sealed"],
            Self::Crashes => &["crashes", "view_changes", "torn_writes", "segments_sealed"],
            Self::Network => &["partitions", "view_changes", "segments_sealed"],
            Self::Storage => &["storage_faults", "repairs", "damage_found", "segments_sealed"],
            Self::Solo => &["crashes", "torn_writes", "segments_sealed"],
        }
    }

    /// Seeds from which on a swarm has to reach its minimum.
    pub const SWARM_MIN: u64 = 100;
}

//! Data directories that real nodes wrote, and what was promised about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use kimberlite_crypto::Checksum;
use kimberlite_io::Place;
use kimberlite_types::Config;
use kimberlite_types::limits::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_wire::Prepare;

use crate::cluster::Cluster;
use crate::platter::Platter;

/// One data directory at one moment.
pub(crate) struct Image {
    pub(crate) config: Config,
    pub(crate) platter: Platter,
    /// Ops that this replica held durably at that moment and that were committed then or later.
    pub(crate) promised: Vec<(u64, Checksum)>,
    /// Which history it belongs to.
    pub(crate) history: usize,
}

impl Image {
    /// The last op that was promised.
    pub(crate) fn top(&self) -> u64 {
        self.promised.last().map_or(0, |(op, _)| *op)
    }
}

/// All images, and the prepares and superblocks of their histories.
pub(crate) struct Images {
    pub(crate) moments: Vec<Image>,
    /// By history: every prepare that was ever handed to a disk.
    pub(crate) written: Vec<BTreeMap<Checksum, Prepare>>,
    /// By replica and cluster size: every copy of a superblock that was seen, oldest first.
    pub(crate) superblocks: Vec<(Config, Vec<Vec<u8>>)>,
}

/// Made once: a history takes a few milliseconds.
pub(crate) fn images() -> &'static Images {
    static IMAGES: OnceLock<Images> = OnceLock::new();
    IMAGES.get_or_init(Images::make)
}

/// A moment of a history: each replica's disk, and what it held durably.
type Moment = Vec<(Platter, BTreeMap<u64, Checksum>)>;

impl Images {
    fn make() -> Self {
        let mut all = Self { moments: Vec::new(), written: Vec::new(), superblocks: Vec::new() };
        for (replicas, crashes) in [(1, false), (1, true), (3, false), (3, true)] {
            all.add_history(replicas, crashes);
        }
        assert!(all.moments.iter().any(|image| image.top() > 30), "segments seal and the ring comes round");
        all
    }

    fn add_history(&mut self, replicas: u8, crashes: bool) {
        let mut cluster = Cluster::new(replicas, 11);
        let mut moments: Vec<Moment> = Vec::new();
        let moment = |cluster: &Cluster| -> Moment {
            cluster
                .seats
                .iter()
                .map(|seat| seat.platter.clone())
                .zip(cluster.durable.iter().cloned())
                .collect()
        };
        cluster.settle();
        moments.push(moment(&cluster));
        for number in 0..48_usize {
            cluster.do_one(number * 977 % 5_000);
            if crashes && number % 9 == 8 {
                // Half of what is in flight lands.
                let leader = cluster.leader();
                let conn = cluster.conn(leader);
                let frame = cluster.next_request(3_000);
                cluster.say(leader, conn, &frame);
                let mut lands = false;
                cluster.restart(leader, || {
                    lands = !lands;
                    lands
                });
                moments.push(moment(&cluster));
                cluster.settle();
            }
            if number % 6 == 5 {
                moments.push(moment(&cluster));
            }
        }
        cluster.settle();
        moments.push(moment(&cluster));
        let history = self.written.len();
        for (index, seat) in cluster.seats.iter().enumerate() {
            let mut superblocks = BTreeSet::new();
            let mut ordered = Vec::new();
            for moment in &moments {
                let (platter, durable) = &moment[index];
                let kept = durable.iter().filter(|(op, checksum)| cluster.ledger.get(op) == Some(checksum));
                self.moments.push(Image {
                    config: seat.config,
                    platter: platter.clone(),
                    promised: kept.map(|(op, checksum)| (*op, *checksum)).collect(),
                    history,
                });
                for copy in copies(platter) {
                    if superblocks.insert(copy.clone()) {
                        ordered.push(copy);
                    }
                }
            }
            self.superblocks.push((seat.config, ordered));
        }
        let written = cluster.seats.iter_mut().flat_map(|seat| std::mem::take(&mut seat.written));
        self.written.push(written.collect());
    }
}

/// The four copies of the superblock on a disk.
pub(crate) fn copies(platter: &Platter) -> [Vec<u8>; SUPERBLOCK_COPIES] {
    std::array::from_fn(|index| {
        let place = Place::superblock(kimberlite_storage::inspect::superblock_offset(index));
        platter.bytes(place, SUPERBLOCK_COPY_SIZE)
    })
}

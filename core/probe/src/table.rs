//! Every mark: what it means, and the file it stands in.

use crate::mark::Kind::{Always, Reachable, Sometimes, Unreachable};
use crate::mark::{Kind, Mark};

const fn mark(file: &'static str, kind: Kind, name: &'static str, meaning: &'static str) -> Mark {
    Mark { name, kind, rare: false, file, meaning }
}

/// A mark that a hundred random clusters may well miss.
const fn rare(file: &'static str, kind: Kind, name: &'static str, meaning: &'static str) -> Mark {
    Mark { name, kind, rare: true, file, meaning }
}

const VSR_REPLICA: &str = "core/vsr/src/replica.rs";
const VSR_LOG: &str = "core/vsr/src/log.rs";
const VSR_MERGE: &str = "core/vsr/src/merge.rs";
const VSR_VIEW_CHANGE: &str = "core/vsr/src/view_change.rs";
const VSR_NORMAL: &str = "core/vsr/src/normal.rs";
const VSR_READS: &str = "core/vsr/src/reads.rs";
const VSR_REPAIR: &str = "core/vsr/src/repair.rs";
const STORAGE_SUPERBLOCK: &str = "core/storage/src/superblock.rs";
const STORAGE_RECOVERY: &str = "core/storage/src/recovery.rs";
const STORAGE_SEARCH: &str = "core/storage/src/recovery/search.rs";
const STORAGE_DECISION: &str = "core/storage/src/decision.rs";
const STORAGE_SCOUT: &str = "core/storage/src/scout.rs";
const STORAGE_JOURNAL: &str = "core/storage/src/journal.rs";
const STORAGE_ADOPTING: &str = "core/storage/src/journal/adopting.rs";
const STORAGE_SEALING: &str = "core/storage/src/journal/sealing.rs";
const STORAGE_RING: &str = "core/storage/src/ring.rs";
const STORAGE_SEALED: &str = "core/storage/src/sealed.rs";
const STORAGE_STORAGE: &str = "core/storage/src/storage.rs";
const STORAGE_ASKS: &str = "core/storage/src/asks.rs";
const STORAGE_VIEW: &str = "core/storage/src/view.rs";
const KERNEL_KERNEL: &str = "core/kernel/src/kernel.rs";
const KERNEL_STAGED: &str = "core/kernel/src/staged.rs";
const KERNEL_DECIDE: &str = "core/kernel/src/tables/decide.rs";
const KERNEL_INSERTS: &str = "core/kernel/src/tables/inserts.rs";
const RUNTIME_NODE: &str = "core/runtime/src/node.rs";
const RUNTIME_REQUESTS: &str = "core/runtime/src/node/requests.rs";
const RUNTIME_APPLYING: &str = "core/runtime/src/applying.rs";
const RUNTIME_PAGES: &str = "core/runtime/src/pages.rs";
const RUNTIME_SQL: &str = "core/runtime/src/sql.rs";
const RUNTIME_PROPOSALS: &str = "core/runtime/src/sql/proposals.rs";
const STORAGE_GRID: &str = "core/storage/src/grid/mod.rs";
const STORAGE_CACHE: &str = "core/storage/src/grid/cache.rs";
const RUNTIME_READS: &str = "core/runtime/src/reads.rs";
const CLIENT_CLIENT: &str = "core/client/src/client.rs";
const CLIENT_DRIVE: &str = "core/client/src/drive.rs";
const STORAGE_DOUBTFUL: &str = "core/storage/src/doubtful.rs";

/// All of them, by file, in the order in which they stand there.
#[rustfmt::skip]
pub const ALL: &[Mark] = &[
    mark(VSR_REPLICA, Reachable, "replica.opens_alone", "a lone replica opens: all it has is committed"),
    mark(VSR_REPLICA, Reachable, "replica.opens_in_doubt", "a replica opens and is not sure where its log ends"),
    mark(VSR_REPLICA, Reachable, "replica.opens_as_backup", "a backup opens in a view whose log it holds"),
    mark(VSR_REPLICA, Sometimes, "replica.opens_after_vote", "a replica opens between its vote and the log of that view"),
    mark(VSR_REPLICA, Sometimes, "replica.opens_as_old_primary", "a primary opens again and does not resume its view"),
    mark(VSR_REPLICA, Sometimes, "replica.opens_with_state", "a replica goes on behind an op that its parent has executed"),
    rare(VSR_REPLICA, Sometimes, "replica.opens_behind_state", "the log ends in front of what the parent has executed"),
    rare(VSR_REPLICA, Reachable, "replica.replays", "a log is handed out again from its first op on"),
    mark(VSR_REPLICA, Reachable, "replica.malformed", "a packet was not what its sender wrote"),
    mark(VSR_REPLICA, Reachable, "replica.cache_gives_newest_up", "memory is full of ops not executed, and the newest has to go"),

    mark(VSR_LOG, Sometimes, "log.adopts_with_hole", "the adopted headers do not connect to the log that was held"),

    mark(VSR_MERGE, Reachable, "merge.needs_quorum", "fewer votes than a quorum: the choice waits"),
    mark(VSR_MERGE, Sometimes, "merge.mixed_logs", "voters adopted their logs in different views"),
    mark(VSR_MERGE, Unreachable, "merge.committed_is_missing", "a voter knows of a commit that the newest log does not hold"),
    mark(VSR_MERGE, Reachable, "merge.committed_is_unnamed", "no voter names a committed op, and the new log begins behind it"),
    rare(VSR_MERGE, Reachable, "merge.cuts_unnamed", "an op that no voter names, and a nack quorum never held, is cut"),
    rare(VSR_MERGE, Reachable, "merge.undecided_unnamed", "an op that no voter names may have been held"),
    rare(VSR_MERGE, Reachable, "merge.cuts", "an op that a nack quorum never held is cut, and all behind it"),
    rare(VSR_MERGE, Reachable, "merge.undecided", "an op may be committed, and nobody heard so far holds it"),
    mark(VSR_MERGE, Sometimes, "merge.doubt_overruled", "a voter is in doubt, and a nack quorum never held what it doubts"),
    rare(VSR_MERGE, Reachable, "merge.undecided_behind", "a voter may have held an op behind the last one that anybody names"),
    mark(VSR_MERGE, Sometimes, "merge.keeps_uncommitted", "the new log keeps ops not known to be committed, because somebody holds them"),
    mark(VSR_MERGE, Unreachable, "merge.voters_contradict", "two voters name different ops in the log of one view"),

    mark(VSR_VIEW_CHANGE, Sometimes, "view_change.tries_again", "a view change leads nowhere and is tried again"),
    mark(VSR_VIEW_CHANGE, Sometimes, "view_change.loses_patience", "the primary is silent for too long"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.joins", "a peer is in a later view, and this replica joins it"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.quorum_agrees", "a quorum wants a later view at the same time"),
    rare(VSR_VIEW_CHANGE, Reachable, "view_change.finishes_adoption_first", "a later view is wanted while a log is being adopted"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.primary_resigns", "the primary leaves its view"),
    mark(VSR_VIEW_CHANGE, Always, "view_change.vote_is_durable", "the view is durable before the vote is cast"),
    mark(VSR_VIEW_CHANGE, Sometimes, "view_change.votes_in_doubt", "a replica that is not sure of its head votes"),
    rare(VSR_VIEW_CHANGE, Sometimes, "view_change.votes_around_gap", "a replica that lost ops with their headers votes with what stands on both sides"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.votes_for_itself", "the primary to be votes"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.votes", "a replica votes for another"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.stands_by_heard_view", "a view that was only heard of is made durable"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.vote_is_late", "a vote arrives after the view has started"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.not_led_again", "a restarted primary is voted for in the view it led"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.chooses_log", "the primary to be has chosen the log of its view"),
    mark(VSR_VIEW_CHANGE, Sometimes, "view_change.adopts_in_doubt", "a replica that is not sure of its head adopts a log"),
    mark(VSR_VIEW_CHANGE, Sometimes, "view_change.adopts_and_lacks", "the adopted log names ops that this replica does not hold"),
    mark(VSR_VIEW_CHANGE, Sometimes, "view_change.inherits", "a view begins with ops that are not known to be committed"),
    rare(VSR_VIEW_CHANGE, Reachable, "view_change.old_start_view", "a StartView from before this life is not believed"),
    rare(VSR_VIEW_CHANGE, Sometimes, "view_change.finds_back", "a replica that lost its head learns where its log stands"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.hears_later_primary", "the primary of a view that did not start here is heard"),
    mark(VSR_VIEW_CHANGE, Reachable, "view_change.tells_view", "the primary is asked which view it is"),

    rare(VSR_NORMAL, Reachable, "normal.queue_is_full", "a request finds no room to wait"),
    mark(VSR_NORMAL, Sometimes, "normal.requests_gather", "requests wait behind small prepares, to be sent together"),
    mark(VSR_NORMAL, Sometimes, "normal.pipeline_is_full", "requests wait because as many prepares are in flight as may be"),
    mark(VSR_NORMAL, Sometimes, "normal.group_commits", "a prepare carries several requests"),
    mark(VSR_NORMAL, Reachable, "normal.prepare_is_full", "a prepare takes no more requests"),
    mark(VSR_NORMAL, Reachable, "normal.prepare_of_later_view", "a prepare of a view arrives that did not start here"),
    mark(VSR_NORMAL, Reachable, "normal.prepare_again", "a prepare arrives that the log names already"),
    mark(VSR_NORMAL, Reachable, "normal.prepare_ahead", "a prepare arrives before its parent"),
    mark(VSR_NORMAL, Always, "normal.ack_in_durable_view", "what is acknowledged is acknowledged in a view that is durable"),
    mark(VSR_NORMAL, Reachable, "normal.durable_too_late", "a prepare is durable that the log no longer names"),
    mark(VSR_NORMAL, Sometimes, "normal.acks_twice", "a replica acknowledges the same op again"),
    mark(VSR_NORMAL, Sometimes, "normal.acked_out_of_order", "a quorum holds an op, and not yet one before it"),
    mark(VSR_NORMAL, Sometimes, "normal.commits_alone", "a quorum of one commits"),
    mark(VSR_NORMAL, Reachable, "normal.commit_learnt", "a backup learns that an op is committed"),
    rare(VSR_NORMAL, Reachable, "normal.cached_of_other_log", "what memory holds of the next op is of another log"),
    mark(VSR_NORMAL, Sometimes, "normal.not_heard", "a primary hears from no quorum"),
    mark(VSR_NORMAL, Sometimes, "normal.falls_silent", "a primary that nobody answers sends no heartbeat"),
    mark(VSR_NORMAL, Sometimes, "normal.stalls", "a primary whose disk stands still, or that lacks what everything waits for, gives up"),
    mark(VSR_NORMAL, Reachable, "normal.resends", "a prepare is sent again to who has not acknowledged it"),

    rare(VSR_READS, Reachable, "reads.refused", "a read finds no room to wait"),
    mark(VSR_READS, Reachable, "reads.round_waits", "a leadership round waits for a quorum"),
    rare(VSR_READS, Sometimes, "reads.share_round", "a round confirms several reads"),
    rare(VSR_READS, Sometimes, "reads.wait_for_execution", "a confirmed read waits until what was committed before it is executed"),
    mark(VSR_READS, Always, "reads.see_inherited", "what the view inherited is executed before a read is answered"),

    mark(VSR_REPAIR, Reachable, "repair.looks_again", "the own journal is asked again for what peers did not send"),
    rare(VSR_REPAIR, Sometimes, "repair.disk_is_busy", "a repair arrives while too many are being written"),
    rare(VSR_REPAIR, Sometimes, "repair.not_believed", "a wanted op arrives, and nothing proves that it is the right one"),
    mark(VSR_REPAIR, Sometimes, "repair.taken_on_word", "a prepare is taken whose sender vouches for it by its commit number"),
    mark(VSR_REPAIR, Sometimes, "repair.taken_by_checksum", "a prepare is taken that is known by its checksum"),
    mark(VSR_REPAIR, Reachable, "repair.asks_for_gap", "a backup asks for what it missed"),
    rare(VSR_REPAIR, Reachable, "repair.too_far_ahead", "prepares wait for their parents, and the last has to go"),
    rare(VSR_REPAIR, Sometimes, "repair.may_not_tell", "a backup is asked for an op that it does not know to be committed"),
    mark(VSR_REPAIR, Reachable, "repair.serves_from_memory", "a peer is sent a prepare from memory"),
    mark(VSR_REPAIR, Reachable, "repair.has_none_to_serve", "a peer asks for an op that is not held here either"),
    mark(VSR_REPAIR, Reachable, "repair.serves_from_journal", "a prepare is read for a peer"),
    mark(VSR_REPAIR, Reachable, "repair.vouches", "a replica that lost its copy tells which prepare was committed"),
    mark(VSR_REPAIR, Reachable, "repair.hears_vouch", "a peer tells which prepare was committed, and the own journal is searched for it"),
    mark(VSR_REPAIR, Sometimes, "repair.executes_from_disk", "an op older than the window is read to be executed"),
    mark(VSR_REPAIR, Sometimes, "repair.serves_in_doubt", "a peer is sent a prepare that nobody vouches for"),
    mark(VSR_REPAIR, Reachable, "repair.finds_at_home", "what was wanted from peers is found in the own journal"),
    rare(VSR_REPAIR, Reachable, "repair.journal_answers_late", "the journal answers for a log that was replaced meanwhile"),
    mark(VSR_REPAIR, Reachable, "repair.finds_damage", "a prepare thought to be held turns out to be damaged"),
    mark(VSR_REPAIR, Reachable, "repair.lost_old_op", "an op older than the window cannot be read"),

    mark(STORAGE_SUPERBLOCK, Sometimes, "superblock.newest_alone", "the newest superblock stands in one copy only and is taken"),
    rare(STORAGE_SUPERBLOCK, Sometimes, "superblock.two_intact", "a superblock is opened with two intact copies"),
    mark(STORAGE_SUPERBLOCK, Sometimes, "superblock.three_intact", "a superblock is opened with three intact copies"),
    mark(STORAGE_SUPERBLOCK, Sometimes, "superblock.four_intact", "a superblock is opened with four intact copies"),
    mark(STORAGE_SUPERBLOCK, Reachable, "superblock.lost", "fewer than two copies of a superblock are intact"),

    mark(STORAGE_RECOVERY, Reachable, "open.mends_superblock", "a copy of the superblock is written again"),
    mark(STORAGE_RECOVERY, Reachable, "open.reads_ring_by_sector", "a large read of the ring fails, and it is read sector by sector"),
    mark(STORAGE_RECOVERY, Reachable, "open.ring_sector_lost", "a sector of the ring cannot be read"),
    rare(STORAGE_RECOVERY, Reachable, "open.front_is_of_other_log", "what stands in front of the adopted headers is of another log"),
    mark(STORAGE_RECOVERY, Reachable, "open.knows_segment_end", "a footer tells that the log goes on in the next segment"),
    mark(STORAGE_RECOVERY, Reachable, "open.skips_sealed_segment", "a sealed segment is opened by its footer alone"),
    mark(STORAGE_RECOVERY, Reachable, "open.rebuilds_footer", "a footer is lost, and that of a later segment proves that it stood"),
    mark(STORAGE_RECOVERY, Reachable, "open.end_is_uncertain", "nobody knows whether something was held behind the head"),
    rare(STORAGE_RECOVERY, Reachable, "open.disowns", "an op behind a hole has no slot and is not held after all"),
    rare(STORAGE_RECOVERY, Reachable, "open.seals_bad_slot", "the damaged slot of a sealed op says so again, for its header is not known"),
    mark(STORAGE_RECOVERY, Reachable, "open.reserves_bad_slot", "a damaged slot of no op is reserved again"),
    rare(STORAGE_RECOVERY, Reachable, "open.names_sealed_op_again", "a damaged slot of a sealed op that a view change may ask about"),
    mark(STORAGE_RECOVERY, Reachable, "open.settles", "a prepare that the ring does not name is read, to be written again"),
    rare(STORAGE_RECOVERY, Sometimes, "open.settled_copy_is_gone", "a prepare that was seen cannot be read again"),
    mark(STORAGE_SEARCH, Reachable, "open.hole", "the log does not lead up to the adopted headers"),
    mark(STORAGE_SEARCH, Reachable, "open.gap", "an op behind the adopted headers is lost with its header"),
    mark(STORAGE_SEARCH, Reachable, "open.gap_has_no_end", "behind a lost op nothing is found that is surely of the log"),
    rare(STORAGE_SEARCH, Reachable, "open.goes_on_behind_gap", "the log goes on behind what was lost"),
    mark(STORAGE_SEARCH, Reachable, "open.scans_over_damage", "a hole is searched behind something that is no prepare"),
    rare(STORAGE_SEARCH, Sometimes, "open.hole_closes", "the search of a hole finds all of it"),

    mark(STORAGE_DECISION, Reachable, "open.keep", "prepare and slot agree"),
    mark(STORAGE_DECISION, Reachable, "open.sealed", "the slot of a prepare belongs to a later op by now"),
    mark(STORAGE_DECISION, Reachable, "open.settle", "a whole prepare whose slot does not name it"),
    mark(STORAGE_DECISION, Reachable, "open.faulty", "a slot names a prepare that is not there"),
    mark(STORAGE_DECISION, Reachable, "open.torn", "a power cut while a prepare was written"),
    rare(STORAGE_DECISION, Reachable, "open.stale", "where the log ends stands a prepare of an older log"),
    mark(STORAGE_DECISION, Reachable, "open.unknown", "both witnesses of an op are lost"),
    rare(STORAGE_DECISION, Reachable, "open.gone", "a prepare is lost whose slot was passed on"),
    mark(STORAGE_DECISION, Reachable, "open.adopted_missing", "an adopted op that was never held"),
    rare(STORAGE_DECISION, Reachable, "open.adopted_lost", "an adopted op that may have been held, and is lost"),

    mark(STORAGE_SCOUT, Reachable, "scout.looks_closer", "a large read fails, and the place is read alone"),
    mark(STORAGE_SCOUT, Reachable, "scout.reads_rest", "a prepare reaches beyond what was read"),

    mark(STORAGE_JOURNAL, Sometimes, "journal.mends", "a prepare is written over a damaged copy"),
    rare(STORAGE_JOURNAL, Reachable, "journal.replaces", "a committed prepare takes the place of another"),
    mark(STORAGE_JOURNAL, Reachable, "journal.believes", "an op held in doubt turns out to be of this log"),
    mark(STORAGE_JOURNAL, Reachable, "journal.tells_gap", "a hole is to be filled from above"),
    rare(STORAGE_JOURNAL, Reachable, "journal.write_waits", "a prepare waits for a write to its place"),
    mark(STORAGE_JOURNAL, Reachable, "journal.mends_sealed", "a prepare of a sealed segment is written again"),
    mark(STORAGE_JOURNAL, Sometimes, "journal.slot_waits_for_order", "a slot waits for the slots of the ops before it"),
    mark(STORAGE_JOURNAL, Sometimes, "journal.slot_waits_for_seal", "a slot is not passed on before the segment of its op is sealed"),
    rare(STORAGE_JOURNAL, Reachable, "journal.slot_was_passed_on", "a slot belongs to a later op already, which proves as much"),
    rare(STORAGE_JOURNAL, Reachable, "journal.leaves_slot_bad", "a damaged slot that may be of a later op is left as it is"),
    rare(STORAGE_RING, Reachable, "ring.distrusts_reserved", "a slot is reserved, though one that names a later op proves that it was issued"),
    rare(STORAGE_ADOPTING, Reachable, "journal.names_sealed_op_again", "a view adopts a sealed op whose slot was damaged or names another header"),
    rare(STORAGE_ADOPTING, Sometimes, "journal.finds_misnamed_op", "a held op is adopted whose slot names another header of it"),
    mark(STORAGE_ADOPTING, Reachable, "journal.adopts_with_hole", "the adopted headers do not lead down to what is held"),
    mark(STORAGE_ADOPTING, Sometimes, "journal.adopts_doubtful", "an adopted op may have been held here"),
    mark(STORAGE_SEALING, Reachable, "journal.seals", "a segment is sealed"),

    mark(STORAGE_SEALED, Reachable, "shelf.has_footer", "a sealed prepare is found by a footer in memory"),
    mark(STORAGE_SEALED, Reachable, "shelf.footer_is_broken", "a footer cannot be used and is built again"),
    mark(STORAGE_SEALED, Reachable, "shelf.rebuilds", "a footer was built again from the prepares"),
    rare(STORAGE_SEALED, Reachable, "shelf.rebuild_fails", "a footer cannot be built again: a prepare of its segment is lost, too"),

    rare(STORAGE_STORAGE, Sometimes, "storage.append_is_outdated", "a prepare that waited for a view is not of its log"),
    rare(STORAGE_STORAGE, Reachable, "storage.reads_doubtful", "a prepare held in doubt is asked for by its checksum"),
    rare(STORAGE_STORAGE, Reachable, "storage.reads_other_doubtful", "a prepare that the log names otherwise is asked for by its checksum"),
    rare(STORAGE_STORAGE, Reachable, "storage.superseded", "an op is asked for that the log no longer names so"),
    mark(STORAGE_STORAGE, Reachable, "storage.finds_damage", "a prepare that is read is damaged"),
    mark(STORAGE_STORAGE, Reachable, "storage.keeps_believed", "a prepare that was in doubt is made sure of"),
    rare(STORAGE_STORAGE, Reachable, "storage.append_waits_for_view", "a prepare waits for a view to become durable"),

    mark(STORAGE_ASKS, Reachable, "disk.room", "there is room again"),
    mark(STORAGE_ASKS, Reachable, "disk.full", "a write finds no room and waits"),
    rare(STORAGE_ASKS, Reachable, "disk.write_fails", "a write fails, and the replica stops"),

    mark(STORAGE_VIEW, Reachable, "view.queued", "a view is to be made durable while another superblock is being written"),
    mark(STORAGE_VIEW, Sometimes, "view.naming_waits", "a checkpoint is to be named while another superblock is being written"),
    rare(STORAGE_VIEW, Sometimes, "view.with_checkpoint", "a superblock brings a view and a checkpoint"),

    rare(STORAGE_GRID, Reachable, "grid.came_meanwhile", "pages that were missed are at hand when they are asked for"),
    rare(STORAGE_GRID, Sometimes, "grid.reads_wait", "more pages are wanted than are read at once"),
    mark(STORAGE_GRID, Sometimes, "grid.reads_page", "a page is read and is what its parent names"),
    rare(STORAGE_GRID, Reachable, "grid.reads_again", "a page could not be read, or is another, and is read once more"),
    mark(STORAGE_GRID, Sometimes, "grid.takes_from_peer", "a page that was lost came from a peer"),
    rare(STORAGE_GRID, Reachable, "grid.serves_at_hand", "a peer asks for a page that is at hand"),
    mark(STORAGE_GRID, Sometimes, "grid.serves_page", "a page is read for a peer"),
    rare(STORAGE_GRID, Sometimes, "grid.has_no_such_page", "a peer asks for a page that is not here, or damaged"),
    rare(STORAGE_GRID, Reachable, "grid.asks_for_what_is_replaced", "a checkpoint gives the place of a page to another while peers are asked for it"),
    rare(STORAGE_GRID, Reachable, "grid.waits_for_mending", "a checkpoint waits for a place that is being mended"),
    rare(RUNTIME_PAGES, Reachable, "pages.asks", "a peer is asked for a page that is lost here"),
    rare(RUNTIME_PAGES, Sometimes, "pages.asks_next", "the peer that was asked does not have it, or does not answer"),
    rare(RUNTIME_PAGES, Reachable, "pages.nobody_has_it", "no peer has the page, or none answers"),
    rare(RUNTIME_PAGES, Sometimes, "pages.wait", "more pages are lost than are asked for at once"),
    rare(STORAGE_GRID, Reachable, "grid.finds_damage", "a page cannot be read, or is another"),
    rare(STORAGE_CACHE, Reachable, "grid.reads_what_is_replaced", "a page is read while its place is given to another"),
    rare(STORAGE_CACHE, Reachable, "grid.evicts", "a page leaves the cache"),
    rare(STORAGE_CACHE, Sometimes, "grid.holds_more_than_fits", "more pages are needed at once than the cache should hold"),

    mark(STORAGE_RECOVERY, Reachable, "open.checkpoint_proves", "an op is known to be committed because the checkpoint names it"),

    mark(KERNEL_KERNEL, Reachable, "kernel.duplicate", "the log holds a request twice: the second does nothing"),
    rare(KERNEL_KERNEL, Reachable, "kernel.stale", "the log holds a request after a later one of its session"),
    rare(KERNEL_KERNEL, Reachable, "kernel.no_session", "a request names a session that is not there"),
    mark(KERNEL_KERNEL, Reachable, "kernel.refuses", "a command is refused, and the refusal is remembered"),
    mark(KERNEL_KERNEL, Reachable, "kernel.offset_mismatch", "an append names another offset than the stream has"),
    rare(KERNEL_KERNEL, Reachable, "kernel.decides_in_steps", "facts are so many that other things happen while they are decided"),
    rare(KERNEL_KERNEL, Reachable, "kernel.commits_staged", "facts that came in pieces are committed"),
    rare(KERNEL_STAGED, Reachable, "kernel.stage_is_gone", "a piece comes behind ones that are not kept any more"),
    rare(KERNEL_STAGED, Sometimes, "kernel.stages_expire", "pieces that nobody commits make room"),
    rare(KERNEL_DECIDE, Reachable, "kernel.several_batches", "a command writes more than one batch of the store holds"),
    rare(KERNEL_INSERTS, Reachable, "kernel.inserts", "rows are inserted without being decoded"),
    rare(KERNEL_KERNEL, Reachable, "kernel.evicts", "the session least recently used is forgotten"),

    rare(RUNTIME_REQUESTS, Reachable, "node.client_malformed", "a stream of a client is not the protocol"),
    mark(RUNTIME_REQUESTS, Reachable, "node.not_primary", "a request reaches a replica that is not the primary"),
    mark(RUNTIME_REQUESTS, Reachable, "node.filters_duplicate", "the primary answers a request that is decided already"),
    rare(RUNTIME_REQUESTS, Reachable, "node.filters_stale", "the primary refuses a request older than its session"),
    rare(RUNTIME_REQUESTS, Reachable, "node.already_under_way", "a request is sent again while it is under way"),
    mark(RUNTIME_NODE, Reachable, "node.opens_checkpoint", "a state is opened from its checkpoint"),
    rare(RUNTIME_NODE, Reachable, "node.defers", "the journal tells of something while the state is being opened"),
    rare(RUNTIME_NODE, Reachable, "node.loses_checkpoint", "a checkpoint is of no use, and the state is made anew"),
    rare(RUNTIME_NODE, Sometimes, "node.holds_consensus", "so much is to be applied that consensus is held back"),
    rare(RUNTIME_APPLYING, Sometimes, "applying.knows_op", "an op is handed out that the opened state holds already"),
    rare(RUNTIME_APPLYING, Reachable, "applying.waits_for_checkpoint", "a checkpoint is due while the one before is being written"),
    rare(RUNTIME_APPLYING, Reachable, "applying.read_overtakes", "a read does not wait for what takes many steps"),
    rare(RUNTIME_APPLYING, Reachable, "applying.misses", "what is applied needs pages that are not at hand"),
    rare(RUNTIME_SQL, Reachable, "sql.misses", "a statement needs pages that are not at hand"),
    mark(RUNTIME_REQUESTS, Reachable, "node.redirects", "a client is told who the primary is"),
    mark(RUNTIME_REQUESTS, Reachable, "node.knows_no_primary", "a client is told to come later"),
    rare(RUNTIME_NODE, Reachable, "node.resigned_meanwhile", "the primary resigns in the very step that a request arrives"),
    rare(RUNTIME_NODE, Reachable, "node.refuses_damage_alone", "a lone node refuses a damaged disk"),
    rare(RUNTIME_NODE, Reachable, "node.finds_damage_alone", "a lone node reads a damaged prepare"),
    mark(RUNTIME_NODE, Reachable, "node.sends_clients_away", "a primary that resigns sends its clients away"),

    mark(RUNTIME_READS, Reachable, "query.reads_journal", "a query takes records from a prepare that was read"),
    mark(RUNTIME_READS, Reachable, "query.waits_for_repair", "a query needs an op that the journal cannot give"),
    rare(RUNTIME_READS, Reachable, "query.ends_where_it_began", "a query leaves out what was appended after it was confirmed"),
    mark(RUNTIME_READS, Reachable, "query.answer_is_full", "an answer is full before the stream ends"),

    mark(RUNTIME_SQL, Reachable, "sql.outcome_is_unknown", "a primary resigns while a statement's facts are proposed"),
    rare(RUNTIME_PROPOSALS, Reachable, "sql.stages", "a statement's facts are too many for one command"),
    rare(RUNTIME_PROPOSALS, Reachable, "sql.waits_for_its_turn", "a statement waits for others of its tenant that were overtaken"),
    rare(CLIENT_DRIVE, Reachable, "client.replica_is_silent", "a replica that runs a statement gives no sign of life"),
    rare(RUNTIME_SQL, Reachable, "sql.looked_ahead_in_vain", "a statement came to something only by what is proposed ahead of it"),
    rare(RUNTIME_PROPOSALS, Reachable, "sql.log_is_full", "there is no room for a statement's facts"),
    rare(RUNTIME_PROPOSALS, Reachable, "sql.sessions_are_too_few", "a statement's session of the log was evicted as often as it may be"),
    rare(RUNTIME_PROPOSALS, Reachable, "sql.session_is_evicted", "a connection's session of the log is gone when its facts are decided"),
    mark(RUNTIME_PROPOSALS, Sometimes, "sql.plans_again", "a single statement was overtaken"),
    mark(RUNTIME_PROPOSALS, Sometimes, "sql.block_is_overtaken", "a transaction block was overtaken"),
    rare(RUNTIME_PROPOSALS, Reachable, "sql.constraint_comes_between", "facts break a constraint that they did not when they were planned"),
    mark(RUNTIME_SQL, Reachable, "sql.block_is_gone", "a statement belongs to a transaction block that is gone"),

    rare(CLIENT_CLIENT, Reachable, "client.evicted", "a client hears that its session is forgotten"),
    mark(CLIENT_CLIENT, Reachable, "client.too_large", "a command is larger than the cluster takes"),
    mark(CLIENT_CLIENT, Reachable, "client.redirected", "a client is sent to another replica"),
    rare(CLIENT_CLIENT, Reachable, "client.told_busy", "a primary has no room for a request"),
    mark(CLIENT_CLIENT, Reachable, "client.later_too_often", "a replica knows no primary for too long, and the client leaves it"),

    rare(CLIENT_DRIVE, Reachable, "client.redirected_in_circles", "replicas send a client to each other"),
    rare(CLIENT_DRIVE, Reachable, "client.gives_up_waiting", "a client gives up a command that was never sent"),
    rare(CLIENT_DRIVE, Sometimes, "client.gives_up_sent", "a client gives up something that was sent"),
    mark(CLIENT_DRIVE, Reachable, "client.connect_times_out", "a connection does not open in time"),
    mark(CLIENT_DRIVE, Reachable, "client.request_times_out", "a request is not answered in time"),
    mark(CLIENT_DRIVE, Sometimes, "client.sends_again", "a request is sent again on another connection"),

    rare(STORAGE_DOUBTFUL, Reachable, "doubtful.has_too_many", "more prepares are in doubt than are kept"),
    rare(STORAGE_DOUBTFUL, Reachable, "doubtful.is_damaged", "a prepare held in doubt turns out to be damaged"),
];

//! Every way in which the writing and the mending of a superblock can be cut short beside a damaged copy.

use kimberlite_io::Place;
use kimberlite_types::limits::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{Now, View};

use super::disk::{Ask, Author, Node, Platter, config, format};
use crate::{FormatInput, FormatOutput, Formatter, Input, Output, ViewState};
use kimberlite_io::{Event, Machine};

const OLD: View = View(3);
const NEW: View = View(4);
/// Old views that a lost write may leave behind.
const OLDER: View = View(2);

/// What a cut leaves of the copy that was being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landed {
    Nothing,
    Half,
    All,
}

const LANDED: [Landed; 3] = [Landed::Nothing, Landed::Half, Landed::All];

/// What the disk did to one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Unreadable,
    /// It holds what it held before its last write: that write was lost.
    Stale,
}

const HARMS: [Harm; 2] = [Harm::Unreadable, Harm::Stale];

fn copy_place(copy: usize) -> Place {
    Place::superblock((copy * SUPERBLOCK_COPY_SIZE) as u64)
}

/// The copy that is being written, if one is. More than one never is.
fn copy_in_flight(platter: &Platter) -> Option<usize> {
    let mut copies = platter.asks.iter().filter_map(|ask| match ask {
        Ask::Write(_, place, _) if place.zone == copy_place(0).zone => {
            Some(place.offset as usize / SUPERBLOCK_COPY_SIZE)
        }
        _ => None,
    });
    let first = copies.next();
    assert_eq!(copies.next(), None, "copies are written one at a time");
    first
}

fn cut(platter: &mut Platter, landed: Landed) {
    let mut unit = 0;
    platter.cut_power(|| {
        unit += 1;
        match landed {
            Landed::Nothing => false,
            Landed::Half => unit % 2 == 0,
            Landed::All => true,
        }
    });
}

/// Harms a copy. `stale` is what stood in each copy before.
fn harm(platter: &mut Platter, copy: usize, harm: Harm, stale: &Platter) {
    let place = copy_place(copy);
    match harm {
        Harm::Unreadable => platter.spoil(place),
        Harm::Stale => platter.put(place, &stale.bytes(place, SUPERBLOCK_COPY_SIZE)),
    }
}

fn persist(node: &mut Node, view: View) {
    // Each view adopts a longer log, so that its copies differ from the last ones in many units and can be torn.
    let mut state = ViewState::initial(config().cluster);
    let log = Author::new().log(0, view.0 as usize);
    state.headers.extend(log.iter().map(|prepare| prepare.header));
    node.input(Input::PersistView(ViewState { view, log_view: view, ..state }));
}

fn said_durable(node: &Node) -> bool {
    node.out.iter().any(|output| matches!(output, Output::ViewDurable { view: NEW, .. }))
}

/// A platter whose four copies say `OLD`, and one from before, whose copies say `OLDER`.
fn old() -> (Platter, Platter) {
    let mut node = Node::fresh(1);
    persist(&mut node, OLDER);
    node.run();
    let before = node.platter.clone();
    persist(&mut node, OLD);
    node.run();
    (node.platter, before)
}

/// Every end of an update of a superblock: cut after `answered` copies, or completed.
fn updates() -> Vec<(Platter, View)> {
    let (platter, _) = old();
    let mut ends = Vec::new();
    for answered in 0..=SUPERBLOCK_COPIES {
        for landed in LANDED {
            let mut node = Node::on(platter.clone(), 1);
            node.open();
            persist(&mut node, NEW);
            for copy in 0..answered {
                assert_eq!(copy_in_flight(&node.platter), Some(copy));
                node.answer(0);
            }
            let completed = answered == SUPERBLOCK_COPIES;
            assert_eq!(said_durable(&node), completed, "durable is said when all copies are");
            cut(&mut node.platter, landed);
            ends.push((node.platter, if completed { NEW } else { OLD }));
        }
    }
    ends
}

/// Starts a machine and answers until `mended` copies were mended and another is being written. None when there are
/// not so many: then it was opened, and what it opened with is promised.
fn mend(platter: Platter, mended: usize) -> (Node, Option<usize>) {
    let mut node = Node::on(platter, 2);
    node.input(Input::Start);
    let mut left = mended;
    while !node.platter.asks.is_empty() {
        if let Some(copy) = copy_in_flight(&node.platter) {
            if left == 0 {
                return (node, Some(copy));
            }
            left -= 1;
        }
        node.answer(0);
    }
    (node, None)
}

fn opened(platter: Platter) -> View {
    let mut node = Node::on(platter, 3);
    let view = node.open().view_state.view;
    assert_eq!(node.reopen().view_state.view, view, "what was opened with is durable");
    assert!(
        !node.out.iter().any(|output| matches!(output, Output::Damaged { .. })),
        "all copies were mended"
    );
    view
}

#[test]
fn whatever_cuts_an_update_and_its_mending_short_the_superblock_opens_and_never_goes_back() {
    let (old_platter, older) = old();
    let victims: Vec<Option<(usize, Harm)>> = std::iter::once(None)
        .chain((0..SUPERBLOCK_COPIES).flat_map(|copy| HARMS.map(|harm| Some((copy, harm)))))
        .collect();
    let (mut opens, mut cuts) = (0, 0);
    for (platter, promised) in updates() {
        for first in &victims {
            let mut platter = platter.clone();
            if let Some((copy, how)) = *first {
                // Where the update reached the copy, the lost write is the new one's.
                let reached = platter.bytes(copy_place(copy), SUPERBLOCK_COPY_SIZE)
                    != old_platter.bytes(copy_place(copy), SUPERBLOCK_COPY_SIZE);
                harm(&mut platter, copy, how, if reached { &old_platter } else { &older });
            }
            assert!(opened(platter.clone()) >= promised, "{first:?}");
            opens += 1;
            for mended in 0.. {
                let (node, writing) = mend(platter.clone(), mended);
                let promised = if writing.is_some() { promised } else { node.storage.view_state().view };
                for landed in LANDED {
                    // The same copy stays damaged, or, once it was mended, any other may be.
                    let mut cut_short = node.platter.clone();
                    cut(&mut cut_short, landed);
                    for second in &victims {
                        let intact = first.is_none_or(|(copy, _)| {
                            let place = copy_place(copy);
                            let whole = cut_short.bytes(place, SUPERBLOCK_COPY_SIZE);
                            cut_short.unreadable.is_empty()
                                && (0..SUPERBLOCK_COPIES).any(|other| {
                                    other != copy
                                        && cut_short.bytes(copy_place(other), SUPERBLOCK_COPY_SIZE) == whole
                                })
                        });
                        let same = first.map(|(copy, _)| copy) == second.map(|(copy, _)| copy);
                        if second.is_some() && !intact && !same {
                            continue;
                        }
                        let mut again = cut_short.clone();
                        if let Some((copy, how)) = *second {
                            harm(&mut again, copy, how, &old_platter);
                        }
                        let view = opened(again);
                        assert!(view >= promised, "{first:?}, {mended} mended, {landed:?}, {second:?}");
                        cuts += 1;
                    }
                }
                if writing.is_none() {
                    break;
                }
            }
        }
    }
    assert!(opens == 15 * 9 && cuts > 4_000, "{opens} opens, {cuts} second cuts");
}

#[test]
fn copies_that_are_not_intact_are_mended_before_those_that_are_only_older() {
    let (old_platter, _) = old();
    let mut node = Node::on(old_platter, 1);
    node.open();
    persist(&mut node, NEW);
    node.answer(0);
    cut(&mut node.platter, Landed::Half);
    node.platter.spoil(copy_place(3));
    let mut order = Vec::new();
    for mended in 0.. {
        match mend(node.platter.clone(), mended) {
            (_, Some(copy)) => order.push(copy),
            (node, None) => {
                assert_eq!(node.storage.view_state().view, NEW, "one copy alone was newer");
                break;
            }
        }
    }
    assert_eq!(order, [1, 3, 2]);
}

#[test]
fn a_format_cut_short_anywhere_beside_a_damaged_copy_is_opened_or_done_again() {
    let (mut again, mut opens) = (0, 0);
    for stop in 0.. {
        let mut finished = false;
        for landed in LANDED {
            for victim in std::iter::once(None).chain((0..SUPERBLOCK_COPIES).map(Some)) {
                let mut platter = Platter::default();
                finished = format_until(&mut platter, stop) == Some(FormatOutput::Done);
                cut(&mut platter, landed);
                if let Some(copy) = victim {
                    platter.spoil(copy_place(copy));
                }
                match format_until(&mut platter, usize::MAX) {
                    Some(FormatOutput::Done) => {
                        assert!(!finished, "what was formatted is never formatted again");
                        again += 1;
                    }
                    _ => opens += 1,
                }
                let mut node = Node::on(platter, 1);
                assert_eq!(node.open().view_state, ViewState::initial(config().cluster));
            }
        }
        if finished {
            break;
        }
    }
    assert!(again > 20 && opens > 20, "{again} formatted again, {opens} opened");
    assert_eq!(format().asks.len(), 0);
}

/// Formats a platter, at most `stop` answers long.
fn format_until(platter: &mut Platter, stop: usize) -> Option<FormatOutput> {
    let mut formatter = Formatter::new(config());
    let mut out = Vec::new();
    formatter.on(Now::default(), FormatInput::Start, platter, &mut out);
    for _ in 0..stop {
        if platter.asks.is_empty() {
            break;
        }
        let event: Event = platter.answer(0);
        formatter.on(Now::default(), FormatInput::Event(event), platter, &mut out);
    }
    out.pop()
}

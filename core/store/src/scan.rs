//! Many keys in order, in bounded steps.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use kimberlite_types::{LogPosition, TenantId};

use crate::cursor::{Cursor, Direction};
use crate::object::behind_prefix;
use crate::page::{Key, LeafCell, Page, Stored};
use crate::pointer::{Miss, POSITION_MAX, POSITION_MIN, Pages, Tree, after};
use crate::read::{Snapshot, Stop};
use crate::store::Store;

/// How much one step of a scan may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Rows to visit at most; at least 1.
    pub rows: u32,
    /// Pages of trees to read at most. A step reads a few more: it always gets past one key.
    pub pages: u32,
}

impl Default for StepLimits {
    /// 1,024 rows: a batch of a query's pipeline. 128 pages: 1 MiB of them is pinned at once.
    fn default() -> Self {
        Self { rows: 1_024, pages: 128 }
    }
}

/// Whether there is more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The step was cut short, by its limits or by pages that are missing; run another one.
    More,
    /// All was seen, or the visitor broke off.
    Done,
}

/// One row of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    /// The whole key, in two parts.
    pub key: Key<'r>,
    /// The command that wrote this version.
    pub begin: LogPosition,
    /// What was written.
    pub value: &'r [u8],
}

/// A scan between its steps: a plain value that holds no page, and stays good whatever is installed in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Whose rows.
    pub tenant: TenantId,
    /// Which versions.
    pub snapshot: Snapshot,
    /// Which way.
    pub direction: Direction,
    /// The first key that is still to be seen.
    pub low: Vec<u8>,
    /// The first key behind those to be seen; `None`: to the end of the tree.
    pub high: Option<Vec<u8>>,
}

/// How far one side of a merge has come.
enum Side<'a> {
    /// Nothing is known yet.
    Open,
    /// The next entry that the snapshot sees.
    At(&'a Page, usize),
    /// There are no more.
    End,
    /// All up to this entry, it included, was looked at and is not seen; behind it nothing was looked at.
    Passed(&'a Page, usize),
    /// The step ends; all up to this entry, it included, was looked at and is not seen.
    Stopped(Option<(&'a Page, usize)>, Option<Miss>),
}

impl Scan {
    /// All keys that begin with `prefix`: an object, or the entries of an index with these columns.
    pub fn of_prefix(tenant: TenantId, prefix: &[u8], snapshot: Snapshot, direction: Direction) -> Self {
        Self { tenant, snapshot, direction, low: prefix.to_vec(), high: behind_prefix(prefix) }
    }

    /// Nothing at or in front of this key is to be seen any more.
    fn pass(&mut self, key: &Key<'_>) {
        match self.direction {
            Direction::Forward => {
                self.low.clear();
                key.append_to(&mut self.low);
                self.low.push(0);
            }
            Direction::Backward => self.high = Some(key.to_vec()),
        }
    }

    /// Nothing in front of this key is to be seen any more.
    fn reach(&mut self, key: &Key<'_>) {
        let mut bytes = key.first(key.len());
        match self.direction {
            Direction::Forward => self.low = bytes,
            Direction::Backward => {
                bytes.push(0);
                self.high = Some(bytes);
            }
        }
    }

    fn holds(&self, key: &Key<'_>) -> bool {
        match self.direction {
            Direction::Forward => self.high.as_ref().is_none_or(|high| key.cmp_slice(high).is_lt()),
            Direction::Backward => key.cmp_slice(&self.low).is_ge(),
        }
    }

    /// Whether it holds all keys of a leaf from some of them on, in its direction.
    fn holds_rest(&self, page: &Page) -> bool {
        match self.direction {
            Direction::Forward => self.holds(&page.key(page.count() - 1)),
            Direction::Backward => self.holds(&page.key(0)),
        }
    }

    fn is_empty(&self) -> bool {
        self.high.as_ref().is_some_and(|high| *high <= self.low)
    }

    fn start(&self, cursor: &mut Cursor<'_>) -> Result<(), Miss> {
        match self.direction {
            Direction::Forward => cursor.seek(&self.low, POSITION_MIN),
            Direction::Backward => {
                cursor.seek_before(self.high.as_ref().map(|high| (&high[..], POSITION_MIN)))
            }
        }
    }

    /// Where reading ahead ends.
    fn until(&self) -> Vec<u8> {
        match self.direction {
            Direction::Forward => self.high.clone().unwrap_or_default(),
            Direction::Backward => self.low.clone(),
        }
    }
}

impl Store {
    /// Runs one step of a scan and moves `scan` past what `visit` was shown.
    ///
    /// When it gives an error, `visit` was not called and `scan` is as it was. A miss behind the first row ends the
    /// step early instead, so nothing is ever shown twice.
    ///
    /// Cost: a path from the root, and a page for each leaf. A snapshot of the past merges both trees; of the history it
    /// reads only pages with a version that ended behind it, and of these it passes over other versions of a key
    /// without looking at each.
    pub fn scan(
        &self,
        scan: &mut Scan,
        limits: StepLimits,
        pages: &dyn Pages,
        visit: impl FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, Stop> {
        self.check_horizon(scan.tenant, scan.snapshot)?;
        if scan.is_empty() {
            return Ok(Progress::Done);
        }
        let step = Step { store: self, pages, limits, rows: 0, last: None, value: Vec::new(), visit };
        match scan.snapshot {
            Snapshot::At(at) if !self.is_present(scan.tenant, at) => step.past(scan, at),
            _ => step.present(scan),
        }
    }
}

struct Step<'a, V> {
    store: &'a Store,
    pages: &'a dyn Pages,
    limits: StepLimits,
    rows: u32,
    /// The entry that was shown last.
    last: Option<(&'a Page, usize)>,
    value: Vec<u8>,
    visit: V,
}

impl<V: FnMut(&Row<'_>) -> ControlFlow<()>> Step<'_, V> {
    /// The current tree alone.
    fn present(mut self, scan: &mut Scan) -> Result<Progress, Stop> {
        let mut cursor = Cursor::new(self.store, self.pages, scan.tenant, Tree::Current, scan.direction)
            .reading_ahead(scan.until());
        let mut moved = scan.start(&mut cursor);
        loop {
            if let Err(miss) = moved {
                return self.stopped_by(miss, scan);
            }
            let Some((page, from)) = cursor.entry() else { return Ok(Progress::Done) };
            let (indexes, ends) = leaf_range(scan, page, from);
            let head = page.prefix();
            let (mut left, mut next) = (indexes.clone(), page.place(indexes.start));
            while !left.is_empty() {
                let (index, place) = match scan.direction {
                    Direction::Forward => {
                        left.start += 1;
                        (left.start - 1, next)
                    }
                    Direction::Backward => {
                        left.end -= 1;
                        (left.end, page.place(left.end))
                    }
                };
                let (cell, behind) = page.cell_at(place);
                next = behind;
                let value = match cell.value {
                    Stored::Inline(bytes) => bytes,
                    Stored::Elsewhere(blob) => {
                        self.value.clear();
                        if let Err(miss) = self.store.gather(self.pages, scan.tenant, &blob, &mut self.value)
                        {
                            return self.stopped_by(miss, scan);
                        }
                        &self.value
                    }
                };
                self.rows += 1;
                self.last = Some((page, index));
                let key = Key { head, tail: cell.tail };
                let flow = (self.visit)(&Row { key, begin: cell.begin, value });
                if flow.is_break() || self.rows >= self.limits.rows {
                    scan.pass(&key);
                    return Ok(if flow.is_break() { Progress::Done } else { Progress::More });
                }
            }
            if ends {
                return Ok(Progress::Done);
            }
            if cursor.touched >= self.limits.pages && self.rows > 0 {
                self.pass_last(scan);
                return Ok(Progress::More);
            }
            moved = cursor.next_leaf();
        }
    }

    /// Nothing up to the entry that was shown last is to be seen any more.
    fn pass_last(&self, scan: &mut Scan) {
        if let Some((page, index)) = self.last {
            scan.pass(&page.key(index));
        }
    }

    fn stopped_by(&self, miss: Miss, scan: &mut Scan) -> Result<Progress, Stop> {
        if self.rows == 0 {
            return Err(miss.into());
        }
        self.pass_last(scan);
        Ok(Progress::More)
    }

    /// Both trees, merged by key.
    fn past(mut self, scan: &mut Scan, at: LogPosition) -> Result<Progress, Stop> {
        let new = |tree| {
            Cursor::new(self.store, self.pages, scan.tenant, tree, scan.direction).reading_ahead(scan.until())
        };
        let mut merge = Merge {
            at,
            direction: scan.direction,
            limit: self.limits.pages,
            now: new(Tree::Current),
            then: new(Tree::History).skipping(at),
            finder: Cursor::new(self.store, self.pages, scan.tenant, Tree::History, Direction::Forward)
                .skipping(at),
            inside: None,
            edge: 0,
            key: Vec::new(),
        };
        let mut now = opened(scan.start(&mut merge.now));
        let mut then = opened(scan.start(&mut merge.then));
        loop {
            if matches!(then, Side::Open) {
                then = merge.seen_then(scan);
            }
            if matches!(now, Side::Open) {
                now = merge.seen_now(scan, &then);
            }
            let first = match (&now, &then) {
                // The current tree is not looked at further than the history has come: for a recent position that might be
                // far, and each step would do so again.
                (Side::Passed(b, j), Side::At(a, i)) if merge.is_up_to(&a.key(*i), &b.key(*j)) => false,
                (Side::Passed(b, j), Side::Stopped(Some((a, i)), _))
                    if merge.is_up_to(&a.key(*i), &b.key(*j)) =>
                {
                    return self.stop(scan, now, then);
                }
                (Side::Passed(b, j), _) => {
                    now = merge.go_on_now(b, *j);
                    continue;
                }
                (Side::End, Side::End) => return Ok(Progress::Done),
                // The other side looked at all up to here and beyond: this is the next one.
                (Side::At(a, i), Side::Stopped(Some((b, j)), _))
                    if merge.is_up_to(&a.key(*i), &b.key(*j)) =>
                {
                    true
                }
                (Side::Stopped(Some((b, j)), _), Side::At(a, i))
                    if merge.is_up_to(&a.key(*i), &b.key(*j)) =>
                {
                    false
                }
                (Side::Stopped(..), _) | (_, Side::Stopped(..)) => return self.stop(scan, now, then),
                (Side::At(..), Side::End) => true,
                (Side::End, Side::At(..)) => false,
                (Side::At(a, i), Side::At(b, j)) => {
                    let order = a.key(*i).cmp(&b.key(*j));
                    assert!(order.is_ne(), "a position sees one version of a key");
                    order.is_lt() == (scan.direction == Direction::Forward)
                }
                (Side::Open, _) | (_, Side::Open | Side::Passed(..)) => {
                    unreachable!("both sides were just looked at")
                }
            };
            let Side::At(page, index) = *(if first { &now } else { &then }) else {
                unreachable!("the first side has an entry")
            };
            let cell = page.leaf_cell(index);
            let value = match self.value_of(scan.tenant, &cell) {
                Ok(value) => value,
                Err(miss) => {
                    let stopped = Side::Stopped(None, Some(miss));
                    return self.stop_at(scan, &page.key(index), stopped);
                }
            };
            let key = page.key(index);
            self.rows += 1;
            self.last = Some((page, index));
            let flow = (self.visit)(&Row { key, begin: cell.begin, value: &value });
            if flow.is_break() || self.rows >= self.limits.rows {
                scan.pass(&key);
                return Ok(if flow.is_break() { Progress::Done } else { Progress::More });
            }
            if first {
                now = opened(merge.now.step());
            } else {
                then = opened(merge.pass_then());
            }
        }
    }

    fn value_of<'p>(&self, tenant: TenantId, cell: &LeafCell<'p>) -> Result<Cow<'p, [u8]>, Miss> {
        match cell.value {
            Stored::Inline(bytes) => Ok(Cow::Borrowed(bytes)),
            Stored::Elsewhere(blob) => {
                let mut bytes = Vec::with_capacity(blob.length as usize);
                self.store.gather(self.pages, tenant, &blob, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// A value is missing: all in front of its key was seen.
    fn stop_at(&self, scan: &mut Scan, key: &Key<'_>, side: Side<'_>) -> Result<Progress, Stop> {
        let Side::Stopped(_, Some(miss)) = side else { unreachable!("a value is missing") };
        let before = scan.clone();
        scan.reach(key);
        if self.rows == 0 && *scan == before {
            return Err(miss.into());
        }
        Ok(Progress::More)
    }

    /// The step ends where the side that came less far stands.
    fn stop(&self, scan: &mut Scan, now: Side<'_>, then: Side<'_>) -> Result<Progress, Stop> {
        let before = scan.clone();
        let forward = scan.direction == Direction::Forward;
        self.pass_last(scan);
        let start = scan.clone();
        let mut missing = Vec::new();
        let mut reached: Option<Scan> = None;
        for side in [now, then] {
            let mut here = start.clone();
            match side {
                Side::End | Side::Open => continue,
                Side::At(page, index) => here.reach(&page.key(index)),
                Side::Passed(page, index) => here.pass(&page.key(index)),
                Side::Stopped(examined, miss) => {
                    if let Some((page, index)) = examined {
                        here.pass(&page.key(index));
                    }
                    missing.extend(miss.into_iter().flat_map(Miss::into_pages));
                }
            }
            let nearer = reached.as_ref().is_none_or(|other| {
                if forward {
                    here.low < other.low
                } else {
                    match (&here.high, &other.high) {
                        (Some(here), Some(other)) => here > other,
                        (None, _) => true,
                        (_, None) => false,
                    }
                }
            });
            if nearer {
                reached = Some(here);
            }
        }
        let reached = reached.unwrap_or(start);
        if self.rows == 0 && reached == before && !missing.is_empty() {
            *scan = before;
            return Err(Miss::of_all(missing).into());
        }
        *scan = reached;
        Ok(Progress::More)
    }
}

fn opened<'a>(moved: Result<(), Miss>) -> Side<'a> {
    match moved {
        Ok(()) => Side::Open,
        Err(miss) => Side::Stopped(None, Some(miss)),
    }
}

/// The entries of a leaf that are in the range, and whether the range ends in it.
fn leaf_range(scan: &Scan, page: &Page, from: usize) -> (core::ops::Range<usize>, bool) {
    match scan.direction {
        Direction::Forward => {
            let end = match &scan.high {
                Some(high) if page.key(page.count() - 1).cmp_slice(high).is_ge() => {
                    page.lower_bound(high, POSITION_MIN)
                }
                _ => return (from..page.count(), false),
            };
            (from.min(end)..end, true)
        }
        Direction::Backward => {
            let end = from + 1;
            if page.key(0).cmp_slice(&scan.low).is_ge() {
                return (0..end, false);
            }
            let start = page.lower_bound(&scan.low, POSITION_MIN);
            (start.min(end)..end, true)
        }
    }
}

/// The two trees of a scan of the past.
struct Merge<'a> {
    at: LogPosition,
    direction: Direction,
    limit: u32,
    now: Cursor<'a>,
    then: Cursor<'a>,
    /// Looks for a version whose key's versions span leaves, when going backward.
    finder: Cursor<'a>,
    /// The leaf of the current tree that was last held against the range, and whether it holds what is left of it. Of the
    /// history, whose leaves have few keys, each key is.
    inside: Option<(&'a Page, bool)>,
    /// Where in its leaf the versions of the key that the history is at end, when going forward.
    edge: usize,
    key: Vec<u8>,
}

/// What a leaf of the history says of a key.
enum Versions {
    /// The position sees this one.
    Seen(usize),
    /// It sees none: this one ended later, and began later, too.
    Later(usize),
    /// It sees none: all ended before, and the next key stands here.
    Over(usize),
    /// All that are in this leaf ended before; the next leaf may hold more.
    Behind,
}

impl<'a> Merge<'a> {
    /// Whether a scan comes to `key` no later than to `other`.
    fn is_up_to(&self, key: &Key<'_>, other: &Key<'_>) -> bool {
        match self.direction {
            Direction::Forward => key.cmp(other).is_le(),
            Direction::Backward => key.cmp(other).is_ge(),
        }
    }

    /// Whether the range of the scan holds an entry of the current tree.
    fn is_inside(&mut self, scan: &Scan, page: &'a Page, index: usize) -> bool {
        let whole = match &mut self.inside {
            Some((known, whole)) if core::ptr::eq(*known, page) => *whole,
            other => other.insert((page, scan.holds_rest(page))).1,
        };
        whole || scan.holds(&page.key(index))
    }

    /// The next entry of the current tree that began in time, if it comes before what the history has.
    fn seen_now(&mut self, scan: &Scan, then: &Side<'a>) -> Side<'a> {
        loop {
            let Some((page, mut index)) = self.now.entry() else { return Side::End };
            loop {
                if !self.is_inside(scan, page, index) {
                    return Side::End;
                }
                if page.begin(index) <= self.at {
                    self.now.index = index;
                    return Side::At(page, index);
                }
                let next = match self.direction {
                    Direction::Forward => Some(index + 1).filter(|next| *next < page.count()),
                    Direction::Backward => index.checked_sub(1),
                };
                match next {
                    Some(next) => index = next,
                    None => break,
                }
            }
            if let Side::At(other, at) | Side::Stopped(Some((other, at)), _) = then
                && self.is_up_to(&other.key(*at), &page.key(index))
            {
                return Side::Passed(page, index);
            }
            match self.go_on_now(page, index) {
                Side::Open => {}
                stopped => return stopped,
            }
        }
    }

    /// Goes to the next leaf of the current tree, behind an entry that is not seen.
    fn go_on_now(&mut self, page: &'a Page, index: usize) -> Side<'a> {
        let examined = Some((page, index));
        if self.now.touched >= self.limit {
            return Side::Stopped(examined, None);
        }
        match self.now.next_leaf() {
            Ok(()) => Side::Open,
            Err(miss) => Side::Stopped(examined, Some(miss)),
        }
    }

    /// The next version of the history that the position sees.
    fn seen_then(&mut self, scan: &Scan) -> Side<'a> {
        match self.direction {
            Direction::Forward => self.seen_then_forward(scan),
            Direction::Backward => self.seen_then_backward(scan),
        }
    }

    fn seen_then_forward(&mut self, scan: &Scan) -> Side<'a> {
        let mut examined = None;
        loop {
            let Some((page, index)) = self.then.entry() else { return Side::End };
            if !scan.holds(&page.key(index)) {
                return Side::End;
            }
            let moved = match self.versions_from(page, index) {
                Versions::Seen(at) => {
                    self.then.index = at;
                    return Side::At(page, at);
                }
                Versions::Over(next) => {
                    examined = Some((page, index));
                    self.go_behind(page, next)
                }
                Versions::Later(at) => {
                    examined = Some((page, index));
                    self.then.index = at;
                    self.pass_then()
                }
                Versions::Behind => {
                    let moved = self.then.next_leaf();
                    let more = self.then.entry().filter(|_| moved.is_ok());
                    if more.is_some_and(|(next, at)| next.key(at).cmp(&page.key(index)).is_eq()) {
                        // Of the key nothing is known yet.
                        continue;
                    }
                    if moved.is_ok() {
                        examined = Some((page, index));
                    }
                    moved
                }
            };
            if let Err(miss) = moved {
                return Side::Stopped(examined, Some(miss));
            }
            if self.then.touched >= self.limit {
                return Side::Stopped(examined, None);
            }
        }
    }

    /// Of the key of this entry, the version in this leaf that the position sees. Versions of a key follow each other in
    /// time, so the first that ended later is the only candidate.
    fn versions_from(&mut self, page: &Page, index: usize) -> Versions {
        self.edge = if index == 0 { page.edge() } else { page.behind_key(index) };
        let last = self.edge - 1;
        // Mostly it is the last one that is seen, or none.
        if page.rank(last) <= self.at {
            return if self.edge == page.count() { Versions::Behind } else { Versions::Over(self.edge) };
        }
        if page.begin(last) <= self.at {
            return Versions::Seen(last);
        }
        let first = page.first_behind(index..self.edge, self.at);
        if first == page.count() {
            Versions::Behind
        } else if first == self.edge {
            Versions::Over(first)
        } else if page.begin(first) <= self.at {
            Versions::Seen(first)
        } else {
            Versions::Later(first)
        }
    }

    fn seen_then_backward(&mut self, scan: &Scan) -> Side<'a> {
        let mut examined = None;
        loop {
            let Some((page, index)) = self.then.entry() else { return Side::End };
            if !scan.holds(&page.key(index)) {
                return Side::End;
            }
            match self.version_of(page, index) {
                Err(miss) => return Side::Stopped(examined, Some(miss)),
                Ok(Some((page, index))) => return Side::At(page, index),
                Ok(None) => {}
            }
            examined = Some((page, index));
            if self.then.touched + self.finder.touched >= self.limit {
                return Side::Stopped(examined, None);
            }
            if let Err(miss) = self.pass_then_backward() {
                return Side::Stopped(examined, Some(miss));
            }
        }
    }

    /// Backward: of the key of this entry, its last one, the version that the position sees.
    fn version_of(&mut self, page: &'a Page, index: usize) -> Result<Option<(&'a Page, usize)>, Miss> {
        if page.rank(index) <= self.at {
            // The last version of the key ended before.
            return Ok(None);
        }
        let seen = |(page, index): (&'a Page, usize)| {
            let cell = page.leaf_cell(index);
            (cell.begin <= self.at && self.at < cell.end).then_some((page, index))
        };
        let (Ok(first) | Err(first)) = page.search_tail_from(0, page.tail(index), after(self.at));
        if first > 0 {
            return Ok(seen((page, first)));
        }
        // The candidate may stand in the leaf in front.
        self.key.clear();
        page.key(index).append_to(&mut self.key);
        self.finder.seek(&self.key, after(self.at))?;
        Ok(self.finder.entry().and_then(seen))
    }

    /// Goes past all versions of the key that the history is at.
    fn pass_then(&mut self) -> Result<(), Miss> {
        match self.direction {
            Direction::Forward => self.pass_then_forward(),
            Direction::Backward => self.pass_then_backward(),
        }
    }

    fn pass_then_forward(&mut self) -> Result<(), Miss> {
        let Some((page, index)) = self.then.entry() else { return Ok(()) };
        if self.edge < page.count() {
            return self.go_behind(page, self.edge);
        }
        self.then.next_leaf()?;
        let Some((next, at)) = self.then.entry() else { return Ok(()) };
        if next.key(at).cmp(&page.key(index)).is_ne() {
            return Ok(());
        }
        // More versions of the same key: however many leaves they fill, a path from the root gets behind them.
        let edge = next.behind_key(at);
        if edge < next.count() {
            return self.then.go_to(edge);
        }
        self.key.clear();
        page.key(index).append_to(&mut self.key);
        self.then.seek(&self.key, POSITION_MAX)
    }

    /// Goes on behind the versions of a key that end in this leaf: to the next leaf, if all others here ended in time.
    fn go_behind(&mut self, page: &Page, edge: usize) -> Result<(), Miss> {
        if page.is_over_from(edge, self.at) { self.then.next_leaf() } else { self.then.go_to(edge) }
    }

    fn pass_then_backward(&mut self) -> Result<(), Miss> {
        let Some((page, index)) = self.then.entry() else { return Ok(()) };
        let (Ok(edge) | Err(edge)) = page.search_tail_from(0, page.tail(index), POSITION_MIN);
        if edge > 0 {
            return self.then.go_back_from(edge);
        }
        self.key.clear();
        page.key(index).append_to(&mut self.key);
        self.then.next_leaf()?;
        // The same, backward.
        let same =
            self.then.entry().is_some_and(|(page, index)| page.key(index).cmp_slice(&self.key).is_eq());
        if same { self.then.seek_before(Some((&self.key, POSITION_MIN))) } else { Ok(()) }
    }
}

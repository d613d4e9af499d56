//! What a store should say: every version of every key, in a map.

use std::collections::BTreeMap;

use kimberlite_types::{LogPosition, Op};

pub(crate) fn at(op: u64) -> LogPosition {
    LogPosition { op: Op(op), index: (op % 3) as u32 }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) begin: LogPosition,
    pub(crate) end: Option<LogPosition>,
    pub(crate) value: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Past>>,
}

impl Model {
    pub(crate) fn apply(&mut self, position: LogPosition, key: &[u8], value: Option<&[u8]>) {
        let versions = self.keys.entry(key.to_vec()).or_default();
        if let Some(last) = versions.last_mut()
            && last.end.is_none()
        {
            if last.begin == position {
                versions.pop();
            } else {
                last.end = Some(position);
            }
        }
        if let Some(value) = value {
            versions.push(Past { begin: position, end: None, value: value.to_vec() });
        }
    }

    pub(crate) fn get(&self, key: &[u8], at: Option<LogPosition>) -> Option<&Past> {
        self.keys.get(key)?.iter().find(|version| match at {
            None => version.end.is_none(),
            Some(at) => version.begin <= at && version.end.is_none_or(|end| at < end),
        })
    }

    pub(crate) fn scan(
        &self,
        low: &[u8],
        high: Option<&[u8]>,
        at: Option<LogPosition>,
    ) -> Vec<(Vec<u8>, LogPosition, Vec<u8>)> {
        self.keys
            .range(low.to_vec()..)
            .take_while(|(key, _)| high.is_none_or(|high| key.as_slice() < high))
            .filter_map(|(key, _)| {
                self.get(key, at).map(|version| (key.clone(), version.begin, version.value.clone()))
            })
            .collect()
    }

    pub(crate) fn changed_since(&self, low: &[u8], high: Option<&[u8]>, since: LogPosition) -> bool {
        self.keys
            .range(low.to_vec()..)
            .take_while(|(key, _)| high.is_none_or(|high| key.as_slice() < high))
            .flat_map(|(_, versions)| versions)
            .any(|version| version.begin > since || version.end.is_some_and(|end| end > since))
    }

    pub(crate) fn history(&self, key: &[u8], from: LogPosition) -> Vec<Past> {
        let versions = self.keys.get(key).into_iter().flatten();
        versions.filter(|version| version.end.is_none_or(|end| end > from)).cloned().collect()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.keys.keys()
    }
}

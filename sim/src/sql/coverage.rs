//! What the grammar made: which clauses, and which of them together.

use std::collections::BTreeMap;

use super::deed::Deed;

/// Clauses, and pairs of clauses in one statement, with how often each was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

impl Coverage {
    /// A statement is said.
    pub(crate) fn count(&mut self, deed: &Deed) {
        let clauses: Vec<&'static str> = deed.clauses().into_iter().collect();
        for (at, first) in clauses.iter().enumerate() {
            for second in &clauses[at..] {
                *self.0.entry((first, second)).or_default() += 1;
            }
        }
    }

    /// Each by name: a clause, or two with a plus between them.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.0.iter().map(|((first, second), count)| {
            let name = if first == second { (*first).to_owned() } else { format!("{first} + {second}") };
            (name, *count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::deed::{Look, When};
    use crate::sql::grammar::Condition;
    use crate::sql::query::{Query, Shape};

    #[test]
    fn clauses_and_pairs_are_counted_by_name() {
        let mut coverage = Coverage::default();
        let of = Condition::TextIsNull(false);
        let query = Query { shape: Shape::Count, of };
        coverage.count(&Deed::Look(Look::Data(query), When::Position(3)));
        coverage.count(&Deed::Begin);
        let told: Vec<_> = coverage.iter().collect();
        let expected = ["AT POSITION", "AT POSITION + COUNT", "AT POSITION + IS NULL", "BEGIN"];
        assert_eq!(told[..4].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
        assert!(told.contains(&("COUNT + IS NULL".to_owned(), 1)));
    }
}

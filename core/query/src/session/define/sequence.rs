//! CREATE SEQUENCE.

use alloc::format;
use alloc::sync::Arc;

use kimberlite_row::cast::Willing;
use kimberlite_row::{Catalogue, Object, Sequence, SqlError, SqlState, Type};
use sqlparser::ast;

use super::{Definer, exists};
use crate::bind::{Binder, own_name, unsupported};
use crate::dialect::{ALTER_SEQUENCE, Restart, restart};
use crate::expr::Expr;

impl Definer<'_> {
    /// CREATE SEQUENCE.
    pub(in crate::session) fn create_sequence(
        &mut self,
        name: &ast::ObjectName,
        if_not_exists: bool,
        options: &[ast::SequenceOptions],
    ) -> Result<(), SqlError> {
        if let [schema, part, rest @ ..] = &name.0[..]
            && schema.as_ident().is_some_and(|ident| ident.value == ALTER_SEQUENCE)
        {
            let from = part.as_ident().map_or(Restart::No, |ident| restart(&ident.value));
            let name = ast::ObjectName(rest.to_vec());
            return self.alter_sequence(&name, if_not_exists, options, from);
        }
        let name = self.new_name(name)?;
        if self.catalogue.taken(&name) {
            if if_not_exists {
                self.notices.push(format!("relation \"{name}\" already exists, skipping"));
                return Ok(());
            }
            return Err(exists("relation", &name));
        }
        let mut sequence = Sequence {
            id: self.catalogue.take_id(),
            name,
            version: 1,
            start: 1,
            step: 1,
            low: 1,
            high: i64::MAX,
            cycle: false,
            last: None,
        };
        sequence_options(&mut sequence, options)?;
        self.put(Object::Sequence(Arc::new(sequence)));
        Ok(())
    }

    /// ALTER SEQUENCE: what an option does not name stays as it is.
    fn alter_sequence(
        &mut self,
        name: &ast::ObjectName,
        if_exists: bool,
        options: &[ast::SequenceOptions],
        from: Restart,
    ) -> Result<(), SqlError> {
        let name = own_name(name)?;
        let mut sequence = match self.catalogue.named(&name) {
            Some(Object::Sequence(sequence)) => (**sequence).clone(),
            Some(_) => {
                return Err(SqlError::new(
                    SqlState::WrongObjectType,
                    format!("\"{name}\" is not a sequence"),
                ));
            }
            None if if_exists => {
                self.notices.push(format!("relation \"{name}\" does not exist, skipping"));
                return Ok(());
            }
            None => return Err(self.missing("relation", &name)),
        };
        // Numbers that this transaction took are its own still.
        if let Some(own) = self.overlay.sequences.get(&sequence.id) {
            sequence.last = own.last;
        }
        let (start, named) =
            (sequence.start, |wanted: fn(&ast::SequenceOptions) -> bool| options.iter().any(wanted));
        let before = sequence.clone();
        sequence_options(&mut sequence, options)?;
        let turned = (before.step < 0) != (sequence.step < 0);
        if !turned && !named(|o| matches!(o, ast::SequenceOptions::MinValue(_))) {
            sequence.low = before.low;
        }
        if !turned && !named(|o| matches!(o, ast::SequenceOptions::MaxValue(_))) {
            sequence.high = before.high;
        }
        if !named(|o| matches!(o, ast::SequenceOptions::StartWith(..))) {
            sequence.start = start;
        }
        let restart = match from {
            Restart::No => None,
            Restart::AtStart => Some(sequence.start),
            Restart::At(number) => Some(number),
        };
        if let Some(number) = restart {
            // The next number is this one, which is what no number taken and another start say; or one step before it.
            sequence.last = number.checked_sub(sequence.step);
        }
        let bounds = sequence.low..=sequence.high;
        let next = restart.or(sequence.last).unwrap_or(sequence.start);
        if !bounds.contains(&next) || !bounds.contains(&sequence.start) {
            return Err(SqlError::new(
                SqlState::InvalidParameterValue,
                "the bounds of the sequence exclude its start or the number it is at",
            ));
        }
        sequence.version += 1;
        self.overlay.sequences.remove(&sequence.id);
        self.put(Object::Sequence(Arc::new(sequence)));
        Ok(())
    }
}

/// What the options of a sequence make of it.
pub(super) fn sequence_options(
    sequence: &mut Sequence,
    options: &[ast::SequenceOptions],
) -> Result<(), SqlError> {
    let number = |expr: &ast::Expr| -> Result<i64, SqlError> {
        let catalogue = Catalogue::default();
        let mut binder = Binder::new(&catalogue, "", 0);
        let typed = binder.expr(expr)?;
        match binder.coerce(typed, &Type::BigInt, Willing::Assignment)? {
            Expr::Const(kimberlite_row::Value::Int(n)) => Ok(n),
            Expr::Negate(inner, _) => match *inner {
                Expr::Const(kimberlite_row::Value::Int(n)) => Ok(-n),
                _ => Err(unsupported("this option of a sequence")),
            },
            _ => Err(unsupported("this option of a sequence")),
        }
    };
    let (mut start, mut low, mut high) = (None, None, None);
    let mut kind = Type::BigInt;
    for option in options {
        match option {
            ast::SequenceOptions::DataType(of) => {
                kind = Binder::type_of(of)?;
                if !kind.is_integer() {
                    let message = "sequence type must be smallint, integer, or bigint";
                    return Err(SqlError::new(SqlState::InvalidParameterValue, message));
                }
            }
            ast::SequenceOptions::IncrementBy(expr, _) => sequence.step = number(expr)?,
            ast::SequenceOptions::MinValue(Some(expr)) => low = Some(number(expr)?),
            ast::SequenceOptions::MaxValue(Some(expr)) => high = Some(number(expr)?),
            ast::SequenceOptions::StartWith(expr, _) => start = Some(number(expr)?),
            ast::SequenceOptions::Cycle(no) => sequence.cycle = !*no,
            _ => {}
        }
    }
    if sequence.step == 0 {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "INCREMENT must not be zero"));
    }
    let (least, most) = kimberlite_row::text::integer_bounds(&kind);
    if sequence.step < 0 {
        (sequence.low, sequence.high) = (least, -1);
    }
    sequence.high = sequence.high.min(most);
    for (bound, name) in [(low, "MINVALUE"), (high, "MAXVALUE")] {
        if let Some(bound) = bound.filter(|bound| !(least..=most).contains(bound)) {
            let message = format!("{name} ({bound}) is out of range for sequence data type {}", kind.name());
            return Err(SqlError::new(SqlState::InvalidParameterValue, message));
        }
    }
    sequence.low = low.unwrap_or(sequence.low);
    sequence.high = high.unwrap_or(sequence.high);
    sequence.start = start.unwrap_or(if sequence.step > 0 { sequence.low } else { sequence.high });
    if sequence.low >= sequence.high || !(sequence.low..=sequence.high).contains(&sequence.start) {
        return Err(SqlError::new(
            SqlState::InvalidParameterValue,
            "the bounds of the sequence exclude its start",
        ));
    }
    Ok(())
}

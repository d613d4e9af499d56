//! Series of figures, and reports of them for people and machines.

use kmb::output::{Colour, paint, takes_colour, thousands};
use serde_json::{Value, json};

use crate::machine::Machine;

/// One quantity, measured several times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// What was measured last.
    pub(crate) fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

impl From<f64> for Series {
    fn from(value: f64) -> Self {
        Self(vec![value])
    }
}

/// Where a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(wanted) => value >= wanted,
            Self::AtMost(wanted) => value <= wanted,
        }
    }
}

/// One line of a report.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) series: Series,
    pub(crate) aim: Option<Aim>,
}

/// What one measurement found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a figure.
    pub(crate) fn row(&mut self, name: impl Into<String>, unit: &'static str, series: Series) {
        self.rows.push(Row { name: name.into(), unit, series, aim: None });
    }

    /// Adds a figure that should be somewhere.
    pub(crate) fn aimed(&mut self, name: impl Into<String>, unit: &'static str, series: Series, aim: Aim) {
        self.rows.push(Row { name: name.into(), unit, series, aim: Some(aim) });
    }

    /// Adds a sentence.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

/// Prints reports for people.
pub(crate) fn print(machine: &Machine, reports: &[Report]) {
    let colour = takes_colour();
    for (name, value) in machine.lines() {
        println!("{name:<12} {value}");
    }
    for Report { title, rows, notes } in reports {
        println!("\n{title}");
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for Row { name, unit, series, aim } in rows {
            let median = series.median();
            let (low, high) = (shown(series.min()), shown(series.max()));
            let spread = if series.0.len() > 1 { format!("  ({low} to {high})") } else { String::new() };
            let aim = aim.map(|aim| {
                let (word, wanted) = match aim {
                    Aim::AtLeast(wanted) => ("at least", wanted),
                    Aim::AtMost(wanted) => ("at most", wanted),
                };
                let reached = aim.is_reached(median);
                let tint = if reached { Colour::Green } else { Colour::Yellow };
                let verdict = paint(if reached { "reached" } else { "missed" }, tint, colour);
                format!("  aim: {word} {}, {verdict}", shown(wanted))
            });
            println!("  {name:<width$}  {:>12} {unit:<9}{spread}{}", shown(median), aim.unwrap_or_default());
        }
        for note in notes {
            println!("  {note}");
        }
    }
}

/// Prints reports as one JSON object.
pub(crate) fn print_json(machine: &Machine, reports: &[Report]) {
    let machine: Value = machine.lines().into_iter().collect();
    let reports: Vec<Value> = reports.iter().map(as_json).collect();
    println!("{}", json!({ "machine": machine, "reports": reports }));
}

fn as_json(report: &Report) -> Value {
    let row = |row: &Row| {
        let aim = row.aim.map(|aim| match aim {
            Aim::AtLeast(wanted) => json!({ "at_least": wanted }),
            Aim::AtMost(wanted) => json!({ "at_most": wanted }),
        });
        let series = &row.series;
        json!({
            "name": row.name, "unit": row.unit, "median": series.median(), "min": series.min(),
            "max": series.max(), "values": series.0, "aim": aim,
            "reached": row.aim.map(|aim| aim.is_reached(series.median())),
        })
    };
    let rows: Vec<Value> = report.rows.iter().map(row).collect();
    json!({ "title": report.title, "figures": rows, "notes": report.notes })
}

/// A figure with about three digits.
fn shown(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    match value.abs() {
        #[expect(clippy::cast_sign_loss, reason = "figures that are counted in thousands are positive")]
        1000.0.. if value > 0.0 => thousands(value.round() as u64),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.0995.. | 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        for (values, median) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 4.0], 4.0), (vec![4.0, 1.0, 2.0, 100.0], 3.0)]
        {
            assert!((Series(values).median() - median).abs() < 1e-9);
        }
        assert!(Series::default().median().is_nan());
    }

    #[test]
    fn figures_have_about_three_digits() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (999.4, "999"),
            (12.34, "12.3"),
            (0.8049, "0.80"),
            (0.0123, "0.0123"),
            (0.0, "0.00"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn an_aim_is_reached_from_its_own_side() {
        assert!(Aim::AtLeast(0.8).is_reached(0.8) && !Aim::AtLeast(0.8).is_reached(0.79));
        assert!(Aim::AtMost(64.0).is_reached(64.0) && !Aim::AtMost(64.0).is_reached(65.0));
    }
}

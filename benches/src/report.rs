//! Goals beside what was measured.

use std::fmt;

/// What a number counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Things in a second.
    PerSecond,
    /// Seconds, shown in the unit that suits their size.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes, shown in millions.
    Megabytes,
    /// Bytes, shown in 2^20.
    Mebibytes,
    /// Times as much.
    Times,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
    /// Nothing: the line is for comparison.
    None,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    unit: Unit,
    goal: Goal,
    ours: f64,
    floor: Option<(String, f64, Unit)>,
}

/// The table. Each line is printed as it comes, and all of them at the end.
#[derive(Clone, Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Line {
    /// A line without a floor.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: Unit, goal: Goal, ours: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            goal,
            ours,
            floor: None,
        }
    }

    /// Sets what lies below, measured in the same run and the same unit.
    #[must_use]
    pub fn floor(mut self, name: impl Into<String>, value: f64) -> Self {
        self.floor = Some((name.into(), value, self.unit));
        self
    }

    fn verdict(&self) -> String {
        let (is_met, off) = match self.goal {
            Goal::AtLeast(goal) => (self.ours >= goal, 1.0 - self.ours / goal),
            Goal::AtMost(goal) => (self.ours <= goal, self.ours / goal - 1.0),
            Goal::None => return String::new(),
        };
        let percent = off.abs() * 100.0;
        if is_met {
            format!("met by {percent:.0} %")
        } else {
            format!("MISSED by {percent:.0} %")
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = match self.goal {
            Goal::AtLeast(goal) => format!(">= {}", shown(goal, self.unit)),
            Goal::AtMost(goal) => format!("<= {}", shown(goal, self.unit)),
            Goal::None => String::new(),
        };
        let ours = shown(self.ours, self.unit);
        let (floor, ratio) = match &self.floor {
            Some((name, value, unit)) => (
                format!("{} {name}", shown(*value, *unit)),
                format!("{:.2}", self.ours / value),
            ),
            None => (String::new(), String::new()),
        };
        let (name, verdict) = (&self.name, self.verdict());
        write!(
            formatter,
            "{name:<58} {goal:>12} {ours:>10}  {ratio:>6}  {floor:<42} {verdict}"
        )
    }
}

/// A number with its unit, short.
#[must_use]
pub fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        Unit::PerSecond if value >= 1e4 => format!("{:.0} k/s", value / 1e3),
        Unit::PerSecond if value >= 1e3 => format!("{:.2} k/s", value / 1e3),
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::Seconds if value >= 1.0 => format!("{value:.2} s"),
        Unit::Seconds if value >= 1e-3 => format!("{:.2} ms", value * 1e3),
        Unit::Seconds if value >= 1e-5 => format!("{:.0} us", value * 1e6),
        Unit::Seconds => format!("{:.0} ns", value * 1e9),
        Unit::Bytes => format!("{value:.1} B"),
        Unit::Megabytes => format!("{:.1} MB", value / 1e6),
        Unit::Mebibytes => format!("{:.2} MiB", value / f64::from(1 << 20)),
        Unit::Times => format!("{value:.2} x"),
    }
}

impl Report {
    /// Adds a line and shows it.
    pub fn add(&mut self, line: Line) {
        eprintln!("{line}");
        self.lines.push(line);
    }

    /// Adds a remark below the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<58} {:>12} {:>10}  {:>6}  {:<42} verdict",
            "what", "goal", "ours", "/floor", "floor, in the same run"
        )?;
        for line in &self.lines {
            writeln!(formatter, "{}", line.to_string().trim_end())?;
        }
        for note in &self.notes {
            writeln!(formatter, "* {note}")?;
        }
        Ok(())
    }
}

//! How many parameters a model has, by group: trained, frozen, and beside full fine-tuning.

use super::{Group, Ledger, Role};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Parameters of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GroupCount {
    /// Those that an optimizer moves.
    pub trained: usize,
    /// Those that stay.
    pub frozen: usize,
}

/// A count of a model's parameters; prints as a table. Running statistics are not parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterTable {
    groups: BTreeMap<Group, GroupCount>,
}

impl ParameterTable {
    /// Counts a ledger.
    pub fn of(ledger: &Ledger) -> Self {
        let mut groups = BTreeMap::<Group, GroupCount>::new();
        for entry in ledger.entries() {
            let count = entry.tensor().elem_count();
            match entry.role {
                Role::Trained(_) | Role::Counted(_) => groups.entry(entry.group).or_default().trained += count,
                Role::Frozen(_) | Role::Held(_) => groups.entry(entry.group).or_default().frozen += count,
                Role::Statistics(_) => {}
            }
        }
        Self { groups }
    }

    /// Each group that the model has, in the order of [`Group`].
    pub fn groups(&self) -> impl Iterator<Item = (Group, GroupCount)> {
        self.groups.iter().map(|(group, count)| (*group, *count))
    }

    /// Parameters that an optimizer moves.
    pub fn trained(&self) -> usize {
        self.groups.values().map(|count| count.trained).sum()
    }

    /// Parameters that stay as they are.
    pub fn frozen(&self) -> usize {
        self.groups.values().map(|count| count.frozen).sum()
    }

    /// All parameters.
    pub fn total(&self) -> usize {
        self.trained() + self.frozen()
    }

    /// What full fine-tuning of the same backbone and decoders would train: all but what the adapters add.
    pub fn full_fine_tuning(&self) -> usize {
        let decoder = |group: &Group| matches!(group, Group::Projections | Group::Heads | Group::SharedHeads);
        let kept = |group: &Group| decoder(group) || matches!(group, Group::Pretrained(_));
        self.groups.iter().filter(|(group, _)| kept(group)).map(|(_, count)| count.trained + count.frozen).sum()
    }
}

impl fmt::Display for ParameterTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>12} {:>12}", "group", "trained", "frozen")?;
        for (group, count) in self.groups() {
            writeln!(f, "{:<16} {:>12} {:>12}", group.name(), thousands(count.trained), thousands(count.frozen))?;
        }
        writeln!(f, "{:<16} {:>12} {:>12}", "total", thousands(self.trained()), thousands(self.frozen()))?;
        let full = self.full_fine_tuning();
        let ratio = full as f64 / self.trained().max(1) as f64;
        write!(f, "full fine-tuning trains {}: {ratio:.1} times as many", thousands(full))
    }
}

/// 1234567 as 1,234,567.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted() {
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}

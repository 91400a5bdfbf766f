//! How far memory nodes are from each other: what `numa` compares.

use std::collections::BTreeMap;

/// A node's distance from itself (ACPI 6.5, 5.2.17; the kernel's LOCAL_DISTANCE).
pub const LOCAL_DISTANCE: u32 = 10;
/// Between two nodes of which nothing else is known (the kernel's REMOTE_DISTANCE).
pub const REMOTE_DISTANCE: u32 = 20;

/// The distances between a host's memory nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes(BTreeMap<(u16, u16), u32>);

impl Nodes {
    /// From `from` to `to` it is so far.
    pub fn set(&mut self, from: u16, to: u16, distance: u32) {
        self.0.insert((from, to), distance);
    }

    /// The distance. An unknown node counts as the same one, as in the kernel.
    pub fn distance(&self, from: Option<u16>, to: Option<u16>) -> u32 {
        let (Some(from), Some(to)) = (from, to) else { return LOCAL_DISTANCE };
        let unknown = if from == to { LOCAL_DISTANCE } else { REMOTE_DISTANCE };
        self.0.get(&(from, to)).copied().unwrap_or(unknown)
    }

    /// The nodes of which something is known.
    pub fn known(&self) -> impl Iterator<Item = u16> {
        self.0.keys().filter(|(from, to)| from == to).map(|(from, _)| *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_of_an_unknown_node_is_local() {
        let mut nodes = Nodes::default();
        nodes.set(0, 0, 10);
        nodes.set(0, 1, 31);
        assert_eq!(nodes.distance(Some(0), Some(1)), 31);
        assert_eq!(nodes.distance(Some(1), Some(0)), REMOTE_DISTANCE);
        assert_eq!(nodes.distance(Some(7), Some(7)), LOCAL_DISTANCE);
        assert_eq!(nodes.distance(None, Some(1)), LOCAL_DISTANCE);
        assert_eq!(nodes.distance(Some(1), None), LOCAL_DISTANCE);
        assert_eq!(nodes.known().collect::<Vec<_>>(), [0]);
    }
}

//! Trees as they are used: flat, 16 bytes a node, several walked at once.
//!
//! What trains them is smartcore (`train`); its own representation is a boxed enum of options per node, eight times
//! as large, and takes a matrix to predict a row.

/// Trees walked at once.
const LANES: usize = 8;
/// Marks a leaf.
const LEAF: u32 = u32::MAX;

/// A node of a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// Not above this: to the left. Of a leaf: its value.
    pub value: f32,
    /// The feature that decides; of a leaf `u32::MAX`.
    pub feature: u32,
    /// Number of the node on the left.
    pub left: u32,
    /// Number of the node on the right.
    pub right: u32,
}

const _: () = assert!(size_of::<Node>() == 16);

impl Node {
    /// A leaf.
    #[must_use]
    pub fn leaf(value: f32) -> Self {
        Self {
            value,
            feature: LEAF,
            left: 0,
            right: 0,
        }
    }

    /// Whether it is one.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        self.feature == LEAF
    }
}

/// The sum of its trees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forest {
    nodes: Vec<Node>,
    roots: Vec<u32>,
}

/// Why nodes are not a forest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadForest {
    /// A root or child is not a node.
    #[error("node {0} leads nowhere")]
    Dangling(usize),
    /// A child is not after its parent, so that the walk might not end.
    #[error("node {0} leads back")]
    Backwards(usize),
    /// It asks for a feature that does not exist.
    #[error("node {0} asks for a feature that does not exist")]
    Feature(usize),
    /// A threshold or leaf is not a number.
    #[error("node {0} is not a number")]
    Value(usize),
}

impl Forest {
    /// Takes nodes from outside, after checking that every walk ends, at a leaf, with a number.
    pub fn checked(nodes: Vec<Node>, roots: Vec<u32>, width: usize) -> Result<Self, BadForest> {
        for (number, node) in nodes.iter().enumerate() {
            if !node.value.is_finite() {
                return Err(BadForest::Value(number));
            }
            if node.is_leaf() {
                continue;
            }
            if node.feature as usize >= width {
                return Err(BadForest::Feature(number));
            }
            for child in [node.left, node.right] {
                match child as usize {
                    child if child >= nodes.len() => return Err(BadForest::Dangling(number)),
                    child if child <= number => return Err(BadForest::Backwards(number)),
                    _ => {}
                }
            }
        }
        match roots.iter().find(|root| **root as usize >= nodes.len()) {
            Some(root) => Err(BadForest::Dangling(*root as usize)),
            None => Ok(Self { nodes, roots }),
        }
    }

    /// Adds a tree whose nodes are numbered from its own root.
    pub(in crate::health) fn add(&mut self, tree: &[Node]) {
        let base = self.nodes.len() as u32;
        self.roots.push(base);
        self.nodes
            .extend(tree.iter().map(|node| match node.is_leaf() {
                true => *node,
                false => Node {
                    left: node.left + base,
                    right: node.right + base,
                    ..*node
                },
            }));
    }

    /// The sum of the leaves that a row falls into.
    #[must_use]
    pub fn sum(&self, row: &[f32]) -> f32 {
        let mut sum = 0.0;
        for roots in self.roots.chunks(LANES) {
            // One walk waits for memory at every step; several do not wait for each other.
            let mut lanes = [0; LANES];
            let lanes = &mut lanes[..roots.len()];
            lanes.copy_from_slice(roots);
            loop {
                let mut moved = false;
                for lane in lanes.iter_mut() {
                    let node = &self.nodes[*lane as usize];
                    // A leaf's feature is none of the row's: it stays where it is.
                    let Some(value) = row.get(node.feature as usize) else {
                        continue;
                    };
                    let left = *value <= node.value;
                    *lane = if left { node.left } else { node.right };
                    moved = true;
                }
                if !moved {
                    break;
                }
            }
            sum += lanes
                .iter()
                .map(|lane| self.nodes[*lane as usize].value)
                .sum::<f32>();
        }
        sum
    }

    /// The nodes, tree after tree.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where each tree begins.
    #[must_use]
    pub fn roots(&self) -> &[u32] {
        &self.roots
    }
}

/// The leaf of one tree that a row falls into.
pub(super) fn walk(tree: &[Node], row: &[f32]) -> f32 {
    let mut node = &tree[0];
    while !node.is_leaf() {
        let left = row[node.feature as usize] <= node.value;
        node = &tree[if left { node.left } else { node.right } as usize];
    }
    node.value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stump(feature: u32, threshold: f32) -> Vec<Node> {
        let root = Node {
            value: threshold,
            feature,
            left: 1,
            right: 2,
        };
        vec![root, Node::leaf(-1.0), Node::leaf(2.0)]
    }

    #[test]
    fn sums_leaves_and_sends_equals_left() {
        let mut forest = Forest::default();
        forest.add(&stump(0, 0.5));
        forest.add(&stump(1, 0.0));
        assert_eq!(forest.sum(&[0.5, 1.0]), 1.0);
        assert_eq!(forest.sum(&[0.6, 0.0]), 1.0);
        assert_eq!(forest.sum(&[0.6, 0.1]), 4.0);
        let (nodes, roots) = (forest.nodes().to_vec(), forest.roots().to_vec());
        assert_eq!(Forest::checked(nodes, roots, 2), Ok(forest));
    }

    #[test]
    fn what_could_loop_or_panic_is_refused() {
        let check = |change: fn(&mut Vec<Node>), expected| {
            let mut nodes = stump(0, 0.5);
            change(&mut nodes);
            assert_eq!(Forest::checked(nodes, vec![0], 1), Err(expected));
        };
        check(|nodes| nodes[0].left = 0, BadForest::Backwards(0));
        check(|nodes| nodes[0].right = 3, BadForest::Dangling(0));
        check(|nodes| nodes[0].feature = 1, BadForest::Feature(0));
        check(|nodes| nodes[1].value = f32::NAN, BadForest::Value(1));
        assert_eq!(
            Forest::checked(stump(0, 0.5), vec![9], 1),
            Err(BadForest::Dangling(9))
        );
    }
}

//! Which command of one plan is which of another.
//!
//! Gets the flows of two plans, returns pairs. Commands that are alike and stand alike (what they read comes from
//! commands that are alike, and so on up; or what reads them is alike, and so on down) are paired first; what is left
//! is compared with less and less demanded, each pair found so far being a fixed point for the next. What holds then:
//! no command is in two pairs. Labels are asked last, and only to pair what would else be left over.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::inspect::diff::flow::{Flow, Likeness, family};

/// Rounds at one likeness; each adds a pair, and one is enough for plans that differ in one place.
const MAX_ROUNDS: usize = 64;

/// Pairs, seen from both sides.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// For each node of the first plan, its partner in the second.
    pub of_a: Vec<Option<usize>>,
    /// For each node of the second plan, its partner in the first.
    pub of_b: Vec<Option<usize>>,
}

/// Pairs the commands of two plans.
pub fn pair(a: &Flow, b: &Flow) -> Pairs {
    let mut pairs = Pairs { of_a: vec![None; a.nodes.len()], of_b: vec![None; b.nodes.len()] };
    for likeness in [Likeness::Whole, Likeness::Resized, Likeness::Kin, Likeness::Outside] {
        for _ in 0..MAX_ROUNDS {
            if !pairs.round(a, b, likeness) {
                break;
            }
        }
    }
    let label = |flow: &Flow, node: usize| {
        let kernel = flow.dispatch(node).map(|dispatch| family(&flow.plan.kernels[dispatch.kernel].label).to_owned());
        number(&(kernel, flow.command(node).label()))
    };
    let labels = |flow: &Flow| (0..flow.nodes.len()).map(|node| label(flow, node)).collect::<Vec<_>>();
    pairs.by(&labels(a), &labels(b));
    pairs
}

impl Pairs {
    /// One look at all that is not paired yet; whether it found anything.
    fn round(&mut self, a: &Flow, b: &Flow, likeness: Likeness) -> bool {
        let (ups_a, downs_a) = standing(a, likeness, &self.of_a, |node, _| node);
        let (ups_b, downs_b) = standing(b, likeness, &self.of_b, |_, partner| partner);
        let both = |ups: &[u64], downs: &[u64]| ups.iter().zip(downs).map(|pair| number(&pair)).collect::<Vec<_>>();
        let found = self.by(&both(&ups_a, &downs_a), &both(&ups_b, &downs_b));
        let found = self.by(&ups_a, &ups_b) || found;
        self.by(&downs_a, &downs_b) || found
    }

    /// Pairs what has equal numbers and is not paired yet, in the plans' order; whether there was any.
    fn by(&mut self, numbers_a: &[u64], numbers_b: &[u64]) -> bool {
        let mut free: HashMap<u64, Vec<usize>> = HashMap::new();
        for (node, number) in numbers_b.iter().enumerate().rev().filter(|(node, _)| self.of_b[*node].is_none()) {
            free.entry(*number).or_default().push(node);
        }
        let mut found = false;
        for (node, number) in numbers_a.iter().enumerate() {
            if self.of_a[node].is_some() {
                continue;
            }
            if let Some(partner) = free.get_mut(number).and_then(Vec::pop) {
                (self.of_a[node], self.of_b[partner]) = (Some(partner), Some(node));
                found = true;
            }
        }
        found
    }
}

/// For each node, a number for what leads to it and one for what it leads to, itself included in both. A node that is
/// paired is a fixed point: its number is that of the pair, `name`d by its node in the first plan.
fn standing(
    flow: &Flow,
    likeness: Likeness,
    paired: &[Option<usize>],
    name: impl Fn(usize, usize) -> usize,
) -> (Vec<u64>, Vec<u64>) {
    let count = flow.nodes.len();
    let (mut ups, mut downs) = (vec![0; count], vec![0; count]);
    let fixed = |node: usize| paired[node].map(|partner| number(&("pair", name(node, partner))));
    let keys: Vec<u64> = (0..count).map(|node| flow.key(node, likeness)).collect();
    for node in 0..count {
        // Sources stand before their readers.
        let sources = flow.nodes[node].ports.iter().map(|port| port.source.map(|(from, port)| (ups[from], port)));
        ups[node] = fixed(node).unwrap_or_else(|| number(&(keys[node], sources.collect::<Vec<_>>())));
    }
    for node in (0..count).rev() {
        let mut readers: Vec<(u64, usize)> =
            flow.nodes[node].readers.iter().map(|(reader, port)| (downs[*reader], *port)).collect();
        readers.sort_unstable();
        downs[node] = fixed(node).unwrap_or_else(|| number(&(keys[node], readers)));
    }
    (ups, downs)
}

fn number(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

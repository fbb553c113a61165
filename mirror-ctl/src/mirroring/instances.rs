//! The members of a VNI as the choice of mirrors sees them: ordered by name, domains numbered.

use super::sets::Member;
use crate::routing::NONE;

/// The instances that can sit, by position.
pub(super) struct Instances<'a> {
    members: &'a [Member<'a>],
    /// Positions by name.
    pub(super) order: Vec<u32>,
    ranks: Vec<u32>,
    /// Failure domains; those without one have one of their own each.
    domains: Vec<u32>,
    /// Sum of the weights.
    pub(super) total: f64,
}

impl<'a> Instances<'a> {
    pub(super) fn of(members: &'a [Member<'a>]) -> Self {
        let mut order: Vec<u32> = (0..members.len() as u32).collect();
        order.sort_unstable_by_key(|&position| members[position as usize].name);
        let mut ranks = vec![0; members.len()];
        for (rank, &position) in order.iter().enumerate() {
            ranks[position as usize] = rank as u32;
        }
        let mut numbers = std::collections::HashMap::new();
        let domains = members
            .iter()
            .enumerate()
            .map(|(position, member)| {
                let own = position as u32;
                member
                    .domain
                    .map_or(own, |domain| *numbers.entry(domain).or_insert(own))
            })
            .collect();
        let total = members.iter().map(|member| f64::from(member.weight)).sum();
        Self {
            members,
            order,
            ranks,
            domains,
            total,
        }
    }

    /// 0 for an instance that does not exist.
    pub(super) fn weight(&self, position: u32) -> f64 {
        self.members
            .get(position as usize)
            .map_or(0.0, |member| f64::from(member.weight))
    }

    /// What to sort a set by.
    pub(super) fn ranks(&self, set: &[u32]) -> Vec<u32> {
        set.iter()
            .map(|&m| self.ranks.get(m as usize).copied().unwrap_or(NONE))
            .collect()
    }

    pub(super) fn domain(&self, position: u32) -> u32 {
        self.domains[position as usize]
    }

    /// How many first mirrors `primary` can have, `wanted` at most: those of other domains, or
    /// any if there are none. At least one, which may stay empty.
    pub(super) fn seats(&self, primary: u32, wanted: usize) -> usize {
        let others = || {
            self.order
                .iter()
                .filter(|&&other| other != primary && self.weight(other) > 0.0)
        };
        let apart = others()
            .filter(|&&o| self.domain(o) != self.domain(primary))
            .take(wanted);
        match apart.count() {
            0 => others().take(wanted).count().max(1),
            count => count,
        }
    }

    /// The instances with a weight, by name, from the one after `position` on and round.
    pub(super) fn after(&self, position: u32) -> impl Iterator<Item = u32> {
        let next = self.ranks[position as usize] as usize + 1;
        let (before, after) = self.order.split_at(next.min(self.order.len()));
        after
            .iter()
            .chain(before)
            .copied()
            .filter(|&other| self.weight(other) > 0.0)
    }
}

//! Fills the mirror seats of replica sets evenly: who has the least to do for its weight takes
//! the next one, and what was filled before stays unless an instance is to be relieved.
//!
//! Exact assignment (minimum cost flow) was rejected: it reshuffles seats freely for the last
//! percent, where a few greedy swaps leave the others alone.

use super::instances::Instances;
use crate::routing::NONE;

/// An instance is relieved of a seat only if whoever takes it over ends below this part of its
/// relative load: what is gained must be worth a new set in the dataplane.
const RELIEF: f64 = 0.9;

/// Seats moved at one time, at most.
const RELIEFS_MAX: usize = 4096;

/// Volumes and loads are in this part of a weight: whole numbers, so that sums do not depend on
/// their order, and divisible by any small number of sets.
pub(super) const VOLUME_UNIT: u64 = 5040;

/// A mirror's place in a set.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    /// Which set. The seats of a primary follow each other.
    pub(super) set: usize,
    /// How much there is to mirror, in [`VOLUME_UNIT`] of a weight.
    pub(super) volume: u64,
    /// Who sits there.
    pub(super) held: u32,
}

/// The seats of all sets at one level: all first mirrors, all second ones, ...
pub(super) struct Level<'a> {
    instances: &'a Instances<'a>,
    /// The sets so far: without this level.
    sets: &'a [Vec<u32>],
    seats: &'a mut [Seat],
    /// Whether the seats of one primary are for different instances.
    distinct: bool,
    /// Most that an instance may get for the sake of domains, per weight.
    limit: f64,
    /// What each instance mirrors.
    loads: Vec<u64>,
}

impl<'a> Level<'a> {
    pub(super) fn new(
        instances: &'a Instances<'a>,
        sets: &'a [Vec<u32>],
        seats: &'a mut [Seat],
        distinct: bool,
        overload_max: f64,
    ) -> Self {
        let volume: u64 = seats.iter().map(|seat| seat.volume).sum();
        let limit = overload_max.max(1.0) * volume as f64 / instances.total;
        let loads = vec![0; instances.order.len()];
        Self {
            instances,
            sets,
            seats,
            distinct,
            limit,
            loads,
        }
    }

    /// Keeps who can stay, fills what is empty, then relieves who has too much.
    pub(super) fn settle(&mut self) {
        for number in 0..self.seats.len() {
            let held = std::mem::replace(&mut self.seats[number].held, NONE);
            if self.instances.weight(held) > 0.0 && self.may_sit(number, held) {
                self.sit(number, held);
            }
        }
        // The heavy ones first: they are the hardest to place.
        let mut empty: Vec<usize> = (0..self.seats.len())
            .filter(|&number| self.seats[number].held == NONE)
            .collect();
        empty.sort_by(|&a, &b| self.seats[b].volume.cmp(&self.seats[a].volume));
        for number in empty {
            if let Some(best) = self.best(number) {
                self.sit(number, best);
            }
        }
        // Parting never shares a domain that was not shared and relieving never does either, so
        // this ends; the bound is for the reader.
        for _ in 0..self.seats.len() {
            self.part();
            if !self.relieve() {
                break;
            }
        }
    }

    /// The parts of a primary's sets of its buckets: first mirrors in proportion to weight, less
    /// for those which mirror many others. This is one step of iterative proportional fitting
    /// towards mirroring in proportion to weight.
    pub(super) fn shares(&self) -> Vec<u32> {
        let fair = self.loads.iter().sum::<u64>() as f64 / self.instances.total;
        self.seats
            .iter()
            .map(|seat| {
                if seat.held == NONE {
                    return 1;
                }
                let relative = self.relative(seat.held) / fair;
                ((1024.0 / relative).round() as u32).max(1)
            })
            .collect()
    }

    /// What an instance mirrors for its weight.
    fn relative(&self, instance: u32) -> f64 {
        self.loads[instance as usize] as f64 / self.instances.weight(instance)
    }

    /// What it would be with one more seat.
    fn relative_with(&self, number: usize, instance: u32) -> f64 {
        let load = self.loads[instance as usize] + self.seats[number].volume;
        load as f64 / self.instances.weight(instance)
    }

    fn sit(&mut self, number: usize, instance: u32) {
        self.stand(number);
        self.seats[number].held = instance;
        self.loads[instance as usize] += self.seats[number].volume;
    }

    fn stand(&mut self, number: usize) {
        let held = std::mem::replace(&mut self.seats[number].held, NONE);
        if held != NONE {
            self.loads[held as usize] -= self.seats[number].volume;
        }
    }

    fn primary(&self, number: usize) -> u32 {
        self.sets[self.seats[number].set][0]
    }

    /// Not in the set already, nor, if they are to differ, in another seat of the primary.
    fn may_sit(&self, number: usize, instance: u32) -> bool {
        if self.sets[self.seats[number].set].contains(&instance) {
            return false;
        }
        if !self.distinct {
            return true;
        }
        let same = |other: &usize| self.primary(*other) == self.primary(number);
        let before = (0..number).rev().take_while(same);
        let after = (number + 1..self.seats.len()).take_while(same);
        before
            .chain(after)
            .all(|other| self.seats[other].held != instance)
    }

    /// Whether nobody in the set shares the instance's failure domain.
    fn apart(&self, number: usize, instance: u32) -> bool {
        let domain = self.instances.domain(instance);
        self.sets[self.seats[number].set]
            .iter()
            .all(|&other| self.instances.domain(other) != domain)
    }

    /// Whether the instance's domain speaks for it, and its load not against it.
    fn preferred(&self, number: usize, instance: u32) -> bool {
        self.apart(number, instance) && self.relative_with(number, instance) <= self.limit
    }

    /// Who of those who may sit there has the least to do with it, the preferred ones first, and
    /// of equals the next by name.
    fn best(&self, number: usize) -> Option<u32> {
        let mut best: Option<(bool, f64, u32)> = None;
        for instance in self.instances.after(self.primary(number)) {
            let relative = self.relative_with(number, instance);
            // Most are out here, before the dear questions.
            if best.is_some_and(|(disliked, least, _)| !disliked && relative >= least)
                || !self.may_sit(number, instance)
            {
                continue;
            }
            let disliked = !self.preferred(number, instance);
            if best.is_none_or(|(worse, least, _)| (disliked, relative) < (worse, least)) {
                best = Some((disliked, relative, instance));
            }
        }
        best.map(|(_, _, instance)| instance)
    }

    /// Replaces who sits in the domain of somebody of the set, now that there may be a better one.
    fn part(&mut self) {
        for number in 0..self.seats.len() {
            let held = self.seats[number].held;
            if held == NONE || self.apart(number, held) {
                continue;
            }
            if let Some(better) = self.best(number)
                && self.preferred(number, better)
            {
                self.sit(number, better);
            }
        }
    }

    /// Moves seats from the most loaded instances to the least loaded that may take them, as
    /// long as it is worth it. Whether any was moved.
    fn relieve(&mut self) -> bool {
        let mut held = vec![Vec::new(); self.loads.len()];
        for (number, seat) in self
            .seats
            .iter()
            .enumerate()
            .filter(|(_, seat)| seat.held != NONE)
        {
            held[seat.held as usize].push(number);
        }
        let busiest_first = |level: &Self| {
            let mut busy: Vec<u32> = level.instances.order.clone();
            busy.retain(|&instance| level.loads[instance as usize] > 0);
            busy.sort_by(|&a, &b| level.relative(b).total_cmp(&level.relative(a)));
            busy
        };
        let mut moved = false;
        // Every move lessens the greater of two loads, which cannot go on for ever; the bound is
        // to keep it short.
        for _ in 0..RELIEFS_MAX {
            let found = busiest_first(self).into_iter().find_map(|most| {
                let (number, taker) = self.relief(most, &held[most as usize])?;
                Some((most, number, taker))
            });
            let Some((most, number, taker)) = found else {
                break;
            };
            self.sit(number, taker);
            held[most as usize].retain(|&other| other != number);
            held[taker as usize].push(number);
            moved = true;
        }
        moved
    }

    /// A seat of `most` and who should take it.
    fn relief(&self, most: u32, held: &[usize]) -> Option<(usize, u32)> {
        let enough = self.relative(most) * RELIEF;
        let mut takers: Vec<u32> = self.instances.order.clone();
        takers.retain(|&taker| self.instances.weight(taker) > 0.0 && self.relative(taker) < enough);
        takers.sort_by(|&a, &b| self.relative(a).total_cmp(&self.relative(b)));
        takers.iter().find_map(|&taker| {
            let fits = |&&number: &&usize| {
                self.relative_with(number, taker) < enough
                    && self.may_sit(number, taker)
                    && (self.apart(number, taker) || !self.apart(number, most))
            };
            held.iter().find(fits).map(|&number| (number, taker))
        })
    }
}

//! Tells from the dataplane's evidence that an instance has fallen silent, within tens of
//! milliseconds and without asking anybody anything. Pure.
//!
//! Silent is who owes an answer for `silent_ms` while another instance of the same VNI has been
//! heard after that answer fell due. When nobody answers, it is not an instance's failure (the
//! clients, the network or this host are the likelier cause), and nothing is concluded.

use std::collections::HashMap;

use mirror_common::instance::Vitals;

/// One unanswered packet may simply be lost, and its repetition comes after 200 ms or so: until
/// an instance has been asked this often it has this many times as long.
const ASKED_MIN: u64 = 3;
const PATIENCE_TENTHS: u64 = 25;
/// Time during which the agent did not look counts as this many polls at most: when the whole
/// host stood still, nobody could have answered.
const POLLS_COUNTED_MAX: u64 = 4;

/// What is known of an instance now.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What the dataplane noticed.
    pub vitals: Vitals,
    /// Whether it is believed to be alive.
    pub alive: bool,
}

/// How long, and how often asked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How often the evidence is read.
    pub poll_ns: u64,
    /// How long an answer may be owed.
    pub silent_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    /// The instance owes since then; names the debt.
    since_ns: u64,
    /// Packets sent to it when the debt was first seen.
    sent: u64,
    /// For how long the debt has been looked at.
    watched_ns: u64,
}

/// Debts as they have been seen to last.
#[derive(Debug, Default)]
pub struct Silence {
    debts: HashMap<usize, Debt>,
    looked_ns: u64,
}

impl Silence {
    /// Takes one look at all instances; returns who has fallen silent. `groups`: the instances of
    /// each VNI. Instances are places in `samples`.
    pub fn look(
        &mut self,
        now_ns: u64,
        samples: &[Sample],
        groups: &[Vec<usize>],
        limits: Limits,
    ) -> Vec<usize> {
        let passed = now_ns.saturating_sub(self.looked_ns);
        let counted = passed.min(limits.poll_ns * POLLS_COUNTED_MAX);
        self.looked_ns = now_ns;
        let mut suspects = Vec::new();
        for (place, sample) in samples.iter().enumerate() {
            if self.watch(place, sample, now_ns, counted, limits) {
                suspects.push(place);
            }
        }
        let mut alive: Vec<bool> = samples.iter().map(|sample| sample.alive).collect();
        let mut silent = Vec::new();
        for suspect in suspects {
            if is_convicted(suspect, samples, &alive, groups) {
                alive[suspect] = false;
                silent.push(suspect);
            }
        }
        silent
    }

    /// Follows an instance's debt; whether it has lasted too long.
    fn watch(
        &mut self,
        place: usize,
        sample: &Sample,
        now_ns: u64,
        counted_ns: u64,
        limits: Limits,
    ) -> bool {
        let vitals = &sample.vitals;
        let owes = vitals.owes_since_ns != 0 && vitals.owes_since_ns >= vitals.heard_ns;
        if !sample.alive || !owes {
            self.debts.remove(&place);
            return false;
        }
        let debt = self.debts.get(&place).copied();
        let mut debt = match debt.filter(|debt| debt.since_ns == vitals.owes_since_ns) {
            Some(debt) => Debt {
                watched_ns: debt.watched_ns + counted_ns,
                ..debt
            },
            None => Debt {
                since_ns: vitals.owes_since_ns,
                sent: vitals.sent,
                watched_ns: now_ns.saturating_sub(vitals.owes_since_ns).min(counted_ns),
            },
        };
        // A map that was read twice in one instant.
        debt.watched_ns = debt.watched_ns.min(now_ns.saturating_sub(debt.since_ns));
        self.debts.insert(place, debt);
        // The first one was before the debt was seen.
        let asked = 1 + vitals.sent.saturating_sub(debt.sent);
        let limit = match asked {
            ASKED_MIN.. => limits.silent_ns,
            _ => limits.silent_ns * PATIENCE_TENTHS / 10,
        };
        debt.watched_ns >= limit
    }
}

/// Whether others bear witness, and every VNI keeps a live instance.
fn is_convicted(suspect: usize, samples: &[Sample], alive: &[bool], groups: &[Vec<usize>]) -> bool {
    let owes_since_ns = samples[suspect].vitals.owes_since_ns;
    let mut witnessed = false;
    for group in groups.iter().filter(|group| group.contains(&suspect)) {
        let others = group
            .iter()
            .filter(|&&place| place != suspect && alive[place]);
        let mut others = others.map(|&place| &samples[place]).peekable();
        if others.peek().is_none() {
            return false;
        }
        witnessed |= others.any(|other| other.vitals.heard_ns > owes_since_ns);
    }
    witnessed
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const LIMITS: Limits = Limits {
        poll_ns: 5 * MS,
        silent_ns: 80 * MS,
    };

    /// A world in which each instance answers 0.1 ms after it is asked, every millisecond.
    struct World {
        now_ms: u64,
        silence: Silence,
        vitals: Vec<Vitals>,
        alive: Vec<bool>,
        answers: Vec<bool>,
        groups: Vec<Vec<usize>>,
    }

    impl World {
        fn new(instances: usize) -> Self {
            Self {
                now_ms: 10_000,
                silence: Silence::default(),
                vitals: vec![Vitals::default(); instances],
                alive: vec![true; instances],
                answers: vec![true; instances],
                groups: vec![(0..instances).collect()],
            }
        }

        fn ask(&mut self) {
            for (vitals, answers) in self.vitals.iter_mut().zip(&self.answers) {
                vitals.sent += 1;
                if vitals.owes_since_ns == 0 {
                    vitals.owes_since_ns = self.now_ms * MS;
                }
                if *answers {
                    vitals.received += 1;
                    vitals.heard_ns = self.now_ms * MS + MS / 10;
                    vitals.owes_since_ns = 0;
                }
            }
        }

        fn look(&mut self) -> Vec<usize> {
            let samples: Vec<Sample> = self
                .vitals
                .iter()
                .enumerate()
                .map(|(place, vitals)| Sample {
                    vitals: *vitals,
                    alive: self.alive[place],
                })
                .collect();
            let now_ns = self.now_ms * MS;
            let silent = self.silence.look(now_ns, &samples, &self.groups, LIMITS);
            for place in &silent {
                self.alive[*place] = false;
            }
            silent
        }

        /// Lets time pass with a packet every `every_ms`; when and who.
        fn pass(&mut self, ms: u64, every_ms: u64) -> Vec<(u64, usize)> {
            let start = self.now_ms;
            let mut found = Vec::new();
            for _ in 0..ms {
                self.now_ms += 1;
                if (self.now_ms - start - 1).is_multiple_of(every_ms) {
                    self.ask();
                }
                if self.now_ms.is_multiple_of(5) {
                    let after = self.now_ms - start;
                    found.extend(self.look().into_iter().map(|number| (after, number)));
                }
            }
            found
        }
    }

    #[test]
    fn who_answers_is_not_silent() {
        assert!(World::new(3).pass(2_000, 1).is_empty());
    }

    #[test]
    fn one_of_two_is_found_in_time() {
        let mut world = World::new(2);
        world.pass(100, 1);
        world.answers[1] = false;
        let found = world.pass(1_000, 1);
        assert_eq!(found.len(), 1);
        let (after_ms, number) = found[0];
        assert_eq!(number, 1);
        assert!((80..=92).contains(&after_ms), "{after_ms}");
    }

    #[test]
    fn nobody_answers_is_nobodys_fault() {
        let mut world = World::new(3);
        world.pass(100, 1);
        world.answers = vec![false; 3];
        assert!(world.pass(5_000, 1).is_empty());
    }

    #[test]
    fn the_last_live_instance_is_kept() {
        let mut world = World::new(2);
        world.pass(100, 1);
        world.alive[0] = false;
        world.answers[1] = false;
        // The dead one is even heard.
        assert!(world.pass(1_000, 1).is_empty());
    }

    #[test]
    fn the_last_of_another_vni_is_kept() {
        let mut world = World::new(2);
        world.groups = vec![vec![0, 1], vec![1]];
        world.pass(100, 1);
        world.answers[1] = false;
        assert!(world.pass(1_000, 1).is_empty());
    }

    #[test]
    fn two_of_three_leave_the_third() {
        let mut world = World::new(3);
        world.pass(100, 1);
        world.answers = vec![false, true, false];
        let mut found: Vec<usize> = world.pass(500, 1).iter().map(|(_, n)| *n).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 2]);
    }

    #[test]
    fn one_lost_packet_is_forgiven() {
        let mut world = World::new(2);
        world.pass(100, 1);
        // Instance 1 misses one packet; the next comes 150 ms later and is answered.
        world.answers[1] = false;
        world.pass(1, 1);
        world.answers[1] = true;
        assert_eq!(world.pass(150, 1_000).len(), 0);
        assert!(world.pass(300, 1).is_empty());
    }

    #[test]
    fn a_single_request_without_an_answer_is_found_later() {
        let mut world = World::new(2);
        world.pass(100, 1);
        world.answers[1] = false;
        let found = world.pass(1_000, 500);
        assert_eq!(found.len(), 1);
        assert!((200..=215).contains(&found[0].0), "{found:?}");
    }

    #[test]
    fn a_host_that_stood_still_accuses_nobody() {
        let mut world = World::new(2);
        world.pass(100, 1);
        // Asked, and at once the host stops for a second; instance 0 got its answer out just in time.
        world.answers[1] = false;
        world.pass(2, 1);
        world.now_ms += 1_000;
        assert!(world.look().is_empty());
        world.answers[1] = true;
        assert!(world.pass(500, 1).is_empty());
    }
}

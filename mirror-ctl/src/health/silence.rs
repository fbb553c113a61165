//! Tells from the dataplane's evidence that an instance has fallen silent, within tens of
//! milliseconds and without asking anybody anything. Pure.
//!
//! Silent is who owes an answer for `silent_ms` (half of it when many packets went unanswered), was asked again meanwhile, had time to answer that
//! too, and saw another instance of the same VNI be heard after the debt began. When nobody
//! answers, it is not an instance's failure (the clients, the network or this host are the
//! likelier cause), and nothing is concluded.
//!
//! Being asked again matters: not every segment gets an answer (a client may send data and then a
//! reset), but every answer that is missing makes a living client repeat itself.

use std::collections::HashMap;

use mirror_common::instance::Vitals;

/// Time during which the agent did not look counts as this many polls at most: when the whole
/// host stood still, nobody could have answered.
const POLLS_COUNTED_MAX: u64 = 4;
/// A debt that nobody came back to for so long is void: the next packet begins a new one. Longer
/// than the first retransmission timeouts of a distant client.
const VOID_NS: u64 = 3_000_000_000;
/// A debt that is older than this when it is first seen was not watched (the agent has just
/// started, or the instance was out): it counts from the next packet.
const UNWATCHED_NS: u64 = 1_000_000_000;

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

/// After so many unanswered packets half the time will do: the more often somebody was asked, the
/// less one lost answer or a delayed acknowledgement explains.
const MANY: u64 = 64;

#[derive(Clone, Copy, Debug)]
struct Debt {
    /// The dataplane's beginning of the debt: names it.
    owes_since_ns: u64,
    /// When it began; none: it waits for the next packet.
    began_ns: Option<u64>,
    /// For how long it has been watched.
    watched_ns: u64,
    /// Packets sent to the instance when it began.
    sent_before: u64,
    /// Packets sent to the instance so far.
    sent: u64,
    /// When that number was last seen to grow.
    asked_ns: u64,
    /// When it was first seen to grow after a pause.
    burst_ns: u64,
}

impl Debt {
    fn new(vitals: &Vitals, now_ns: u64) -> Self {
        let is_fresh = now_ns.saturating_sub(vitals.owes_since_ns) <= UNWATCHED_NS;
        let began_ns = is_fresh.then_some(vitals.owes_since_ns);
        Self {
            owes_since_ns: vitals.owes_since_ns,
            began_ns,
            watched_ns: 0,
            sent_before: vitals.sent,
            sent: vitals.sent,
            asked_ns: began_ns.unwrap_or(0),
            burst_ns: began_ns.unwrap_or(0),
        }
    }

    /// Takes note of packets that were sent since the last look.
    fn ask(&mut self, sent: u64, now_ns: u64, silent_ns: u64) {
        if sent == self.sent {
            return;
        }
        self.sent = sent;
        let pause_ns = now_ns.saturating_sub(self.asked_ns);
        if self.began_ns.is_none() || pause_ns > VOID_NS {
            self.began_ns = Some(now_ns);
            self.watched_ns = 0;
            self.sent_before = sent;
        }
        if pause_ns > silent_ns {
            self.burst_ns = now_ns;
        }
        self.asked_ns = now_ns;
    }

    /// Since when it is owed, if for too long.
    fn is_overdue(&self, now_ns: u64, silent_ns: u64) -> Option<u64> {
        let began_ns = self.began_ns?;
        let silent_ns = match self.sent - self.sent_before {
            MANY.. => silent_ns / 2,
            _ => silent_ns,
        };
        let asked_again = self.asked_ns.saturating_sub(began_ns) >= silent_ns / 2;
        let had_time = now_ns.saturating_sub(self.burst_ns) >= silent_ns / 2;
        (self.watched_ns >= silent_ns && asked_again && had_time).then_some(began_ns)
    }
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
            let overdue = self.watch(place, sample, now_ns, counted, limits.silent_ns);
            suspects.extend(overdue.map(|since_ns| (place, since_ns)));
        }
        let mut alive: Vec<bool> = samples.iter().map(|sample| sample.alive).collect();
        let mut silent = Vec::new();
        for (suspect, since_ns) in suspects {
            if is_convicted(suspect, since_ns, samples, &alive, groups) {
                alive[suspect] = false;
                silent.push(suspect);
            }
        }
        silent
    }

    /// Follows an instance's debt; since when it is owed, if for too long.
    fn watch(
        &mut self,
        place: usize,
        sample: &Sample,
        now_ns: u64,
        counted_ns: u64,
        silent_ns: u64,
    ) -> Option<u64> {
        let vitals = &sample.vitals;
        let owes = vitals.owes_since_ns != 0 && vitals.owes_since_ns >= vitals.heard_ns;
        if !sample.alive || !owes {
            self.debts.remove(&place);
            return None;
        }
        let known = self.debts.get(&place).copied();
        let known = known.filter(|debt| debt.owes_since_ns == vitals.owes_since_ns);
        let mut debt = known.unwrap_or_else(|| Debt::new(vitals, now_ns));
        debt.ask(vitals.sent, now_ns, silent_ns);
        if let Some(began_ns) = debt.began_ns {
            // The first look may come long before one interval has passed.
            let passed_ns = now_ns.saturating_sub(began_ns);
            debt.watched_ns = (debt.watched_ns + counted_ns).min(passed_ns);
        }
        self.debts.insert(place, debt);
        debt.is_overdue(now_ns, silent_ns)
    }
}

/// Whether others bear witness, and every VNI keeps a live instance.
fn is_convicted(
    suspect: usize,
    since_ns: u64,
    samples: &[Sample],
    alive: &[bool],
    groups: &[Vec<usize>],
) -> bool {
    let mut witnessed = false;
    for group in groups.iter().filter(|group| group.contains(&suspect)) {
        let others = group
            .iter()
            .filter(|&&place| place != suspect && alive[place]);
        let mut others = others.map(|&place| &samples[place]).peekable();
        if others.peek().is_none() {
            return false;
        }
        witnessed |= others.any(|other| other.vitals.heard_ns > since_ns);
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
        /// When somebody was found silent last.
        found_ms: u64,
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
                found_ms: 0,
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
                self.found_ms = self.now_ms;
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
        let found = world.pass(1_000, 2);
        assert_eq!(found.len(), 1);
        let (after_ms, number) = found[0];
        assert_eq!(number, 1);
        assert!((80..=92).contains(&after_ms), "{after_ms}");
    }

    #[test]
    fn many_unanswered_packets_take_half_the_time() {
        for (asks_per_ms, expected_ms) in [(1, 64..=72), (2, 40..=50), (20, 40..=50)] {
            let mut world = World::new(2);
            world.pass(100, 1);
            world.answers[1] = false;
            let mut found = Vec::new();
            for _ in 0..200 {
                found.extend(world.pass(1, 1));
                (1..asks_per_ms).for_each(|_| world.ask());
            }
            assert_eq!(found.len(), 1);
            let after_ms = (world.found_ms - 10_100) as i32;
            assert!(expected_ms.contains(&after_ms), "{asks_per_ms}: {after_ms}");
        }
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
        assert!(world.pass(150, 1_000).is_empty());
        assert!(world.pass(300, 1).is_empty());
    }

    #[test]
    fn a_segment_without_an_answer_is_no_failure() {
        let mut world = World::new(2);
        world.pass(100, 1);
        // Data and a reset: instance 1 owes for ever, and the other goes on answering.
        world.vitals[1].sent += 2;
        world.vitals[1].owes_since_ns = world.now_ms * MS;
        for _ in 0..2_000 {
            world.now_ms += 5;
            world.vitals[0].heard_ns = world.now_ms * MS;
            assert!(world.look().is_empty());
        }
        // The next packet is about to be answered when it is looked at.
        world.vitals[1].sent += 1;
        assert!(world.look().is_empty());
        assert!(world.pass(500, 1).is_empty());
    }

    #[test]
    fn a_single_request_is_found_by_its_repetition() {
        let mut world = World::new(2);
        world.pass(100, 1);
        world.answers[1] = false;
        // The client repeats after 200 ms, 400 ms, ...
        let found = world.pass(1_000, 200);
        assert_eq!(found.len(), 1);
        assert!((240..=250).contains(&found[0].0), "{found:?}");
    }

    #[test]
    fn an_instance_that_is_back_begins_without_debts() {
        let mut world = World::new(2);
        world.pass(100, 1);
        world.answers[1] = false;
        assert_eq!(world.pass(1_000, 1).len(), 1);
        world.now_ms += 5_000;
        world.alive[1] = true;
        // Not asked, it owes nothing new, whatever the other answers.
        for _ in 0..200 {
            world.now_ms += 5;
            world.vitals[0].heard_ns = world.now_ms * MS;
            assert!(world.look().is_empty());
        }
        // Asked and dumb again.
        let found = world.pass(1_000, 2);
        assert_eq!(found.len(), 1);
        assert!((80..=92).contains(&found[0].0), "{found:?}");
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

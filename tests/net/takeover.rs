//! Established connections survive every fault, over IPv4 and IPv6, with
//! native and with generic XDP, by the same test.

use std::time::Duration;

use testbed::scenario::outcome::Outcome;
use testbed::scenario::{self, Fault, Plan, Unwatched};
use testbed::topology::Family;
use testbed::turns;

/// The demo's bound for unplanned takeovers. Few connections keep it within reach of a machine
/// that is busy with something else.
const STALL_P99_MS_MAX: f64 = 300.0;

/// Attempts at the stall: one that is due to the machine does not come again and again.
const ATTEMPTS: usize = 3;

#[track_caller]
fn check(fault: Fault, family: Family, mode: &str) {
    check_plan(&Plan {
        family,
        mode: mode.into(),
        before: Duration::from_millis(500),
        after: Duration::from_millis(1_500),
        ..Plan::new(fault, 20)
    });
}

#[track_caller]
fn check_plan(plan: &Plan) {
    let _turn = turns::alone();
    run(plan);
}

/// No connection is harmed in any attempt, and in one of them, which is what comes back, none stalls for too long.
#[track_caller]
pub(crate) fn run(plan: &Plan) -> Outcome {
    let plan = Plan {
        stall_p99_ms_max: STALL_P99_MS_MAX,
        ..plan.clone()
    };
    let mut stalls = Vec::new();
    for _ in 0..ATTEMPTS {
        let outcome = scenario::run(&plan, &mut Unwatched).unwrap();
        let misses = outcome.misses();
        if misses.is_empty() {
            return outcome;
        }
        let harm = misses.iter().any(|miss| !miss.starts_with("stall"));
        assert!(!harm, "{misses:?} {outcome:?}");
        stalls.push(outcome.stall_ms);
    }
    panic!("stalls for longer than {STALL_P99_MS_MAX} ms, {ATTEMPTS} times: {stalls:?}");
}

macro_rules! each_fault {
    ($($name:ident: $family:ident $mode:literal;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn killed() {
                check(Fault::Killed, Family::$family, $mode);
            }

            #[test]
            fn link_down() {
                check(Fault::LinkDown, Family::$family, $mode);
            }

            #[test]
            fn silent() {
                check(Fault::Silent, Family::$family, $mode);
            }

            #[test]
            fn evacuated() {
                check(Fault::Evacuated, Family::$family, $mode);
            }
        }
    )*};
}

each_fault! {
    ipv4_native: V4 "native";
    ipv6_native: V6 "native";
    ipv4_generic: V4 "generic";
    ipv6_generic: V6 "generic";
}

/// Whoever answers first answers the client, and nobody knows of a death but by that.
#[test]
fn the_first_to_answer_killed() {
    check_first(Fault::Killed, Family::V4, "native");
}

#[test]
fn the_first_to_answer_silent() {
    check_first(Fault::Silent, Family::V6, "generic");
}

#[track_caller]
fn check_first(fault: Fault, family: Family, mode: &str) {
    check_plan(&Plan {
        family,
        mode: mode.into(),
        mirrors: 2,
        first: true,
        ..Plan::new(fault, 20)
    });
}

#[test]
fn three_replicas() {
    check_plan(&Plan {
        mirrors: 2,
        ..Plan::new(Fault::Killed, 20)
    });
}

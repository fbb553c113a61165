//! Established connections survive every fault, over IPv4 and IPv6, with
//! native and with generic XDP, by the same test.

use std::time::Duration;

use testbed::scenario::{self, Fault, Plan, Unwatched};
use testbed::topology::Family;

use crate::support::alone;

/// The bounds of the demo are for the demo; a test fails when a connection is
/// harmed or left hanging, not when the machine is busy.
const STALL_P99_MS_MAX: f64 = 1_000.0;

#[track_caller]
fn check(fault: Fault, family: Family, mode: &str) {
    let _alone = alone();
    let plan = Plan {
        family,
        mode: mode.into(),
        before: Duration::from_millis(500),
        after: Duration::from_millis(1_500),
        stall_p99_ms_max: STALL_P99_MS_MAX,
        ..Plan::new(fault, 20)
    };
    let outcome = scenario::run(&plan, &mut Unwatched).unwrap();
    assert!(
        outcome.misses().is_empty(),
        "{:?} {outcome:?}",
        outcome.misses()
    );
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

#[test]
fn three_replicas() {
    let _alone = alone();
    let plan = Plan {
        mirrors: 2,
        stall_p99_ms_max: STALL_P99_MS_MAX,
        ..Plan::new(Fault::Killed, 20)
    };
    let outcome = scenario::run(&plan, &mut Unwatched).unwrap();
    assert!(
        outcome.misses().is_empty(),
        "{:?} {outcome:?}",
        outcome.misses()
    );
}

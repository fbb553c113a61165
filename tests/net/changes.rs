//! Whatever happens to the agent while as much traffic goes on as the machine carries: each frame is counted at both ends,
//! and none is lost.

use testbed::changes::Change;
use testbed::turns;

#[track_caller]
fn check(change: Change) {
    let _turn = turns::alone();
    let found = change.run().unwrap();
    println!(
        "{change:?}: took {} ms, {} datagrams and their answers in {} ms, longest wait {} ms, {:?}",
        found.took.as_millis(),
        found.datagrams.summary.bytes_sent,
        found.traffic.as_millis(),
        found.longest_wait_ms(),
        found.counted
    );
    assert_eq!(found.amiss(), Vec::<String>::new(), "{found:?}");
    // Who waited although no timer fired waited for the processor.
    let noticed = found.noticed();
    assert!(noticed == 0 || found.counted.timers == 0, "{found:?}");
}

#[test]
fn a_reload_loses_no_frame() {
    check(Change::Reload);
}

#[test]
fn an_applied_configuration_loses_no_frame() {
    check(Change::Apply);
}

#[test]
fn an_upgrade_loses_no_frame() {
    check(Change::Upgrade);
}

#[test]
fn an_upgrade_to_other_maps_loses_no_frame() {
    check(Change::Drain);
}

#[test]
fn a_restart_loses_no_frame() {
    check(Change::Restart);
}

#[test]
fn a_killed_agent_loses_no_frame() {
    check(Change::Kill);
}

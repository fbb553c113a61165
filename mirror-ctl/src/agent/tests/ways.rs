//! Ways to an instance, or from it, that carry nothing.

use super::*;

#[test]
fn an_instance_to_which_nothing_can_be_redirected_is_out_until_that_changes() {
    let mut state = world();
    let closed = |ifindexes: &[u32]| Change::Closed(ifindexes.iter().copied().collect());
    // Not its only failure, and not only where another lives.
    let actions = state.network(&closed(&[2, 77]), START + S);
    assert_eq!(actions[0], Action::WriteInstance(0));
    let told = Action::Closed {
        interface: "ia".to_owned(),
        instance: Some("a".to_owned()),
    };
    assert_eq!(actions.last(), Some(&told));
    assert_eq!(service(&state, "a"), (Service::Dead, Cause::NoRedirect));
    let again = state.tick(START + 9 * S);
    assert!(!again.contains(&told), "told once: {again:?}");
    state.network(&closed(&[]), START + 10 * S);
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Recovered));
    // In generic mode the kernel does not ask.
    state.is_native = false;
    assert_eq!(state.network(&closed(&[2]), START + 20 * S), []);
    assert_eq!(service(&state, "a").0, Service::Up);
}

#[test]
fn partly_computed_checksums_take_out_all_but_the_last() {
    let mut state = world();
    let report = |from| Report {
        kind: kind::PARTIAL_CHECKSUM,
        cause: 0,
        ..takeover(from, START)
    };
    // A client's.
    assert_eq!(state.reported(&[report(0xffff)], START + S), []);
    let actions = state.reported(&[report(0), report(0)], START + S);
    assert_eq!(actions[0], Action::WriteInstance(0));
    assert_eq!(
        service(&state, "a"),
        (Service::Dead, Cause::PartialChecksum)
    );
    assert_eq!(state.reported(&[report(2)], START + S), []);
    assert_eq!(service(&state, "c").0, Service::Up);
    state.tick(START + 2 * S);
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Probation));
    state.reported(&[report(0)], START + 2 * S + MS);
    assert_eq!(
        service(&state, "a"),
        (Service::Dead, Cause::PartialChecksum)
    );
}

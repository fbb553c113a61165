//! What the tests share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::process::Process;
use testbed::topology::config::Config;
use testbed::topology::{Family, Topology};
use testbed::traffic::program::{Client, Ended, serve, service};

/// Enough for anything that is going to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Only one test at a time has the machine: delays are part of what is tested.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed has cleaned up after itself.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A network with a server on every instance.
pub(crate) struct Site {
    pub(crate) topology: Topology,
    pub(crate) servers: Vec<Process>,
    _alone: MutexGuard<'static, ()>,
}

impl Site {
    #[track_caller]
    pub(crate) fn new(instances: usize) -> Self {
        let alone = alone();
        let topology = Topology::create(instances).unwrap();
        let servers = topology
            .instances
            .iter()
            .map(|i| serve(i).unwrap())
            .collect();
        Self {
            topology,
            servers,
            _alone: alone,
        }
    }

    #[track_caller]
    pub(crate) fn agent(&self, config: &Config) -> Agent<'_> {
        Agent::start(&self.topology, config).unwrap()
    }

    /// A client that runs until it is told to stop.
    #[track_caller]
    pub(crate) fn client(&self, family: Family, connections: usize) -> Client {
        let connections = connections.to_string();
        let arguments = ["--connections", connections.as_str()];
        let client = Client::start(&self.topology.client, service(family), &arguments).unwrap();
        assert_eq!(client.running.failed, 0, "{:?}", client.running);
        client
    }
}

/// Waits for some more traffic.
#[track_caller]
pub(crate) fn wait_replies(client: &mut Client, more: u64) {
    let start = client.progress().unwrap().replies;
    wait_until("replies", LIMIT, || {
        Ok((client.progress()?.replies >= start + more).then_some(()))
    })
    .unwrap();
}

/// Less than any retransmission timer: not one packet was lost.
const UNNOTICED_MS_MAX: f64 = 190.0;

/// As [`check_whole`], and no connection noticed anything.
#[track_caller]
pub(crate) fn check_unnoticed(ended: &Ended, connections: usize) {
    check_whole(ended, connections);
    assert!(
        ended.summary.stall_ms.max < UNNOTICED_MS_MAX,
        "{:?}",
        ended.summary
    );
}

/// Every connection came through with every byte.
#[track_caller]
pub(crate) fn check_whole(ended: &Ended, connections: usize) {
    let broken: Vec<_> = ended.connections.iter().filter(|c| !c.is_whole()).collect();
    assert!(
        broken.is_empty(),
        "{} broken, the first: {:?}",
        broken.len(),
        broken[0]
    );
    assert_eq!(ended.connections.len(), connections);
    assert_eq!(ended.summary.duplicates, 0);
}

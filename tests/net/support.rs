//! What the tests share.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::time::Duration;

use anyhow::Result;
use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;
use testbed::net::timers;
use testbed::netns::Namespace;
use testbed::process::Process;
use testbed::topology::config::Config;
use testbed::topology::{Family, Topology};
use testbed::traffic::program::{Client, Ended, serve, service};
use testbed::turns::{self, Turn};

/// Enough for anything that is going to happen, on a machine that is busy with other work too.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A network with a server on every instance.
pub(crate) struct Site {
    pub(crate) topology: Topology,
    pub(crate) servers: Vec<Process>,
    _turn: Turn,
}

impl Site {
    /// For a test that may run beside others.
    #[track_caller]
    pub(crate) fn new(instances: usize) -> Self {
        Self::within(turns::beside(), instances)
    }

    /// For a test of which times are a part, or that fills queues.
    #[track_caller]
    pub(crate) fn alone(instances: usize) -> Self {
        Self::within(turns::alone(), instances)
    }

    #[track_caller]
    fn within(turn: Turn, instances: usize) -> Self {
        let topology = Topology::create(instances).unwrap();
        let servers = topology
            .instances
            .iter()
            .map(|i| serve(i).unwrap())
            .collect();
        Self {
            topology,
            servers,
            _turn: turn,
        }
    }

    /// The agent's configuration for tests that are not about when an instance is silent or late.
    pub(crate) fn config(&self) -> Config {
        self.topology.config().patient()
    }

    #[track_caller]
    pub(crate) fn agent(&self, config: &Config) -> Agent<'_> {
        Agent::start(&self.topology, config).unwrap()
    }

    /// From now on clients are to notice nothing.
    #[track_caller]
    pub(crate) fn calm(&self) -> Calm<'_> {
        let instances = self.topology.instances.iter();
        let hosts = instances.map(|instance| &instance.namespace);
        Calm::begin(hosts.chain([&self.topology.client]).collect())
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

/// Waits until every flow has left an instance. What the tables tell of a flow changes with its next packet.
#[track_caller]
pub(crate) fn wait_moved(instance: &str, flows: impl Fn() -> Result<Vec<Flow>>) -> Vec<Flow> {
    wait_until(&format!("flows to leave {instance}"), LIMIT, || {
        let flows = flows()?;
        let left = flows.iter().all(|flow| flow.active != instance);
        Ok(left.then_some(flows))
    })
    .unwrap()
}

/// Less than any retransmission timer.
const UNNOTICED_MS_MAX: f64 = 190.0;

/// A time in which no connection is to notice anything.
pub(crate) struct Calm<'a> {
    hosts: Vec<&'a Namespace>,
    fired: u64,
}

impl<'a> Calm<'a> {
    /// From now on, on these hosts.
    #[track_caller]
    pub(crate) fn begin(hosts: Vec<&'a Namespace>) -> Self {
        let fired = timers_fired(&hosts);
        Self { hosts, fired }
    }

    /// As [`check_whole`], and nobody waited for what was lost: either for so short a time that nothing can have been
    /// repeated, or, on a busy machine, longer and without any timer that fired. To be called within [`calmly`].
    #[track_caller]
    pub(crate) fn check(&self, ended: &Ended, connections: usize) {
        check_whole(ended, connections);
        let summary = &ended.summary;
        let longest_ms = summary.baseline_ms.max.max(summary.stall_ms.max);
        let fired = timers_fired(&self.hosts) - self.fired;
        println!("longest wait {longest_ms} ms, {fired} timers fired");
        if longest_ms >= UNNOTICED_MS_MAX && fired > 0 {
            panic_any(Noticed);
        }
    }
}

/// Somebody has noticed something.
struct Noticed;

/// A wait that is due to the machine does not come again and again.
const ATTEMPTS: usize = 3;

/// Runs a test in which nobody is to notice anything, once more when somebody has.
pub(crate) fn calmly(test: impl Fn()) {
    for _ in 1..ATTEMPTS {
        match catch_unwind(AssertUnwindSafe(&test)) {
            Ok(()) => return,
            Err(reason) if reason.is::<Noticed>() => {}
            Err(reason) => resume_unwind(reason),
        }
    }
    test();
}

#[track_caller]
fn timers_fired(hosts: &[&Namespace]) -> u64 {
    hosts.iter().map(|host| timers::fired(host).unwrap()).sum()
}

/// Less than a SYN's first retransmission.
const CONNECT_MS_MAX: f64 = 700.0;

/// Connections were made at once: so soon that no SYN can have been repeated, or, on a busy machine, without one that was.
#[track_caller]
pub(crate) fn check_connected_at_once(topology: &Topology, repeated_before: u64, client: &Client) {
    let running = client.running;
    assert_eq!(running.failed, 0, "{running:?}");
    let repeated = timers::fired(&topology.client).unwrap() - repeated_before;
    assert!(
        running.connect_ms_max < CONNECT_MS_MAX || repeated == 0,
        "{repeated} repeated: {running:?}"
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

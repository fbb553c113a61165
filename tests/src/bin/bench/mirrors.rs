//! The kernel's own ways to send a packet to one instance and a copy of it to another.

use anyhow::{Context, Result};
use testbed::topology::{CLIENT_LINK, Family, Topology};

use crate::PEERS;
use testbed::packaged::Packaged;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirror {
    /// Traffic control's action.
    Mirred,
    /// nftables' statements at a device's ingress.
    Dup,
    /// iptables' target, before routing.
    Tee,
}

/// Takes a set-up off when it is dropped.
pub(crate) struct Undo<'a> {
    peer: Packaged,
    topology: &'a Topology,
    lines: Vec<String>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for line in &self.lines {
            if let Err(error) = self.peer.run(&self.topology.host, &words(line)) {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Mirror {
    pub(crate) const ALL: [Self; 3] = [Self::Mirred, Self::Dup, Self::Tee];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mirred => "tc mirred",
            Self::Dup => "nftables dup",
            Self::Tee => "iptables TEE",
        }
    }

    /// From now on every client's packet goes to the first instance and a copy to the second.
    pub(crate) fn start(self, topology: &Topology) -> Result<Undo<'_>> {
        let [first, second] = [&topology.instances[0], &topology.instances[1]];
        let (main, copy) = (&first.link, &second.link);
        let (names, lines, undo): (&[&str], _, _) = match self {
            Self::Mirred => (
                &["tc"],
                vec![
                    format!("qdisc add dev {CLIENT_LINK} clsact"),
                    format!(
                        "filter add dev {CLIENT_LINK} ingress protocol all u32 match u32 0 0 \
                         action mirred egress mirror dev {copy} action mirred egress redirect dev {main}"
                    ),
                ],
                format!("qdisc del dev {CLIENT_LINK} clsact"),
            ),
            Self::Dup => (
                &["nft"],
                vec![
                    "add table netdev bench".into(),
                    format!(
                        "add chain netdev bench in {{ type filter hook ingress device {CLIENT_LINK} priority 0 ; }}"
                    ),
                    format!("add rule netdev bench in dup to {copy} fwd to {main}"),
                ],
                "delete table netdev bench".into(),
            ),
            Self::Tee => {
                // Its way on is the route that the topology has to the first instance.
                let rule = |verb: char| {
                    let vni = Family::V4.vni();
                    let gateway = second.address(Family::V4);
                    format!(
                        "iptables -t mangle -{verb} PREROUTING -d {vni} -j TEE --gateway {gateway}"
                    )
                };
                (
                    &["xtables-nft-multi", "xtables-legacy-multi"],
                    vec![rule('A')],
                    rule('D'),
                )
            }
        };
        let peer = PEERS.find(names)?;
        let mut undo = Undo {
            peer,
            topology,
            lines: vec![undo],
        };
        for (done, line) in lines.iter().enumerate() {
            if let Err(error) = undo.peer.run(&topology.host, &words(line)) {
                if done == 0 {
                    // Nothing is there to be undone.
                    undo.lines.clear();
                }
                return Err(error).context(self.name());
            }
        }
        Ok(undo)
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

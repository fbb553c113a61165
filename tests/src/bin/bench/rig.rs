//! The dataplane on real links, with its maps filled by the bench: no agent, so that nothing happens but what is
//! measured.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::lpm_trie::Key;
use aya::maps::{
    Array, ArrayOfMaps, DevMap, DevMapHash, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray,
};
use aya::programs::{ProgramFd, Xdp};
use aya::{Ebpf, EbpfLoader};
use mirror_common::counts::{self, Counts};
use mirror_common::ethernet::Addresses;
use mirror_common::flow::{Flow, FlowKey, PlainFlow, TcpFlow, ipv4, protocol, state};
use mirror_common::instance::{Instance, state as health};
use mirror_common::limits::{MIRRORED_FLOWS, REPLICAS, STEERING_BUCKETS, VNIS};
use mirror_common::reason::Reason;
use mirror_common::replica_set::ReplicaSet;
use mirror_common::steering::Source;
use mirror_common::tcp::{Replica, TcpSync, flag as replica_flag, option, slot};
use mirror_common::time;
use mirror_common::vni::{Vni, VniKey, flag};
use nix::net::if_::if_nametoindex;
use testbed::net::MacAddr;
use testbed::topology::{CLIENT_LINK, HOST_LINK, Topology};

use crate::assemble::CLIENT_BASE;
use crate::frame::{CLIENT_PORT, Segment, VNI_PORT, bit};

/// Names the eBPF object.
const OBJECT_VARIABLE: &str = "MIRROR_EBPF_OBJECT";
/// Numbers of the flows' first bytes.
pub(crate) const CLIENT_SEQ: u32 = 1001;
const CANONICAL_ISN: u32 = 5000;
/// Windows so wide, and lag so generous, that no run comes to their end.
const EDGE: u32 = 0x7000_0000;
const LAG_BYTES_MAX: u32 = 0x4000_0000;
const LAG_MS_MAX: u32 = 600_000;

/// The programs, their maps and the network.
pub(crate) struct Rig {
    pub(crate) topology: Topology,
    ebpf: Ebpf,
    pub(crate) flows: HashMap<MapData, FlowKey, PlainFlow>,
    pub(crate) mirrored: HashMap<MapData, FlowKey, TcpFlow>,
    /// Instances are numbered from 1.
    pub(crate) instances: Array<MapData, Instance>,
    /// Tables by VNI.
    pub(crate) steering: ArrayOfMaps<MapData, Array<MapData, u32>>,
    /// The tables of flows once more: unmirrored, mirrored.
    pub(crate) flow_fds: [OwnedFd; 2],
    counters: PerCpuArray<MapData, Counts>,
    /// How many flows there are with how many mirrors.
    opened: [u32; REPLICAS],
    client_link: u32,
    links: Vec<u32>,
    /// It holds its inner maps.
    _set_ports: ArrayOfMaps<MapData, DevMap<MapData>>,
}

/// A program's size in instructions and bytes.
pub(crate) struct Size {
    pub(crate) name: String,
    pub(crate) verified: u32,
    pub(crate) translated: u32,
    pub(crate) jitted: u32,
}

impl Rig {
    /// One VNI for each number of mirrors from 0 to 3; the number is the VNI's.
    pub(crate) fn set_up() -> Result<Self> {
        Self::set_up_with(&object()?)
    }

    /// The same with the programs that measure nothing of instances.
    pub(crate) fn set_up_unmeasured() -> Result<Self> {
        let path = object()?.with_extension("unmeasured");
        ensure!(
            path.is_file(),
            "no eBPF object at {}: `cargo xtask bench` builds it",
            path.display()
        );
        Self::set_up_with(&path)
    }

    fn set_up_with(path: &Path) -> Result<Self> {
        let topology = Topology::create(REPLICAS)?;
        let mut loader = EbpfLoader::new();
        loader.override_global("AYA_LOG_LEVEL", &0u8, true);
        let mut ebpf = loader
            .map_max_entries("COUNTERS", counts::rows(0))
            .load_file(path)
            .with_context(|| format!("load {}", path.display()))?;
        for name in ["vni_ingress", "instance_return", "clone"] {
            let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().context(name)?;
        }
        let (client_link, links) = topology.host.run(|| {
            let links = topology.instances.iter();
            let links = links.map(|instance| if_nametoindex(instance.link.as_str()));
            nix::Result::Ok((
                if_nametoindex(CLIENT_LINK)?,
                links.collect::<Result<_, _>>()?,
            ))
        })??;
        let links: Vec<u32> = links;
        let (instances, steering, set_ports) = topology
            .host
            .run(|| fill(&mut ebpf, &topology, client_link, &links))??;
        let flow_fds = [fd_of(&ebpf, "FLOWS")?, fd_of(&ebpf, "MIRRORED_FLOWS")?];
        Ok(Self {
            flows: take(&mut ebpf, "FLOWS")?,
            mirrored: take(&mut ebpf, "MIRRORED_FLOWS")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            opened: [0; REPLICAS],
            topology,
            ebpf,
            client_link,
            links,
            instances,
            steering,
            flow_fds,
            _set_ports: set_ports,
        })
    }

    /// A program of the dataplane.
    pub(crate) fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let program: &Xdp = self.ebpf.program(name).context("program")?.try_into()?;
        Ok(program.fd()?.as_fd())
    }

    /// The VNI interface.
    pub(crate) fn client_link(&self) -> u32 {
        self.client_link
    }

    /// The interface that leads to an instance, from 0.
    pub(crate) fn link(&self, instance: usize) -> u32 {
        self.links[instance]
    }

    /// Interface number of the client's or an instance's own end.
    pub(crate) fn own_end(&self, namespace: &testbed::netns::Namespace) -> Result<u32> {
        Ok(namespace.run(|| if_nametoindex(HOST_LINK))??)
    }

    /// How often each reason was counted, over all processors.
    pub(crate) fn count(&self, reason: Reason) -> Result<u64> {
        let mut total = 0;
        for row in 0..self.counters.len() {
            let counts = self.counters.get(&row, 0)?;
            total += counts.iter().map(|of_cpu| of_cpu.of(reason)).sum::<u64>();
        }
        Ok(total)
    }

    /// How large the programs are.
    pub(crate) fn sizes(&self) -> Result<Vec<Size>> {
        let size = |(name, program): (&str, &aya::programs::Program)| {
            let program: &Xdp = program.try_into()?;
            let info = program.info()?;
            Ok(Size {
                name: name.into(),
                verified: info.verified_instruction_count().unwrap_or(0),
                translated: info.size_translated().unwrap_or(0),
                jitted: info.size_jitted(),
            })
        };
        self.ebpf.programs().map(size).collect()
    }

    /// Opens so many flows with so many mirrors, or puts them into their first state.
    pub(crate) fn open(&mut self, flows: u32, mirrors: usize) -> Result<()> {
        // The table of mirrored flows is as large as users have it, and not for several kinds of a million.
        let others: u32 = (1..REPLICAS)
            .filter(|n| *n != mirrors)
            .map(|n| self.opened[n])
            .sum();
        if mirrors > 0 && others + flows > MIRRORED_FLOWS {
            self.close_all()?;
        }
        self.opened[mirrors] = self.opened[mirrors].max(flows);
        let flow = self.established(mirrors);
        for number in 0..flows {
            let key = key(number, mirrors);
            match mirrors {
                0 => self.flows.insert(key, flow.flow.plain, 0),
                _ => self.mirrored.insert(key, flow, 0),
            }
            .context("open a flow")?;
        }
        Ok(())
    }

    /// Takes all flows away.
    pub(crate) fn close_all(&mut self) -> Result<()> {
        for key in self.flows.keys().collect::<Result<Vec<_>, _>>()? {
            self.flows.remove(&key)?;
        }
        for key in self.mirrored.keys().collect::<Result<Vec<_>, _>>()? {
            self.mirrored.remove(&key)?;
        }
        self.opened = [0; REPLICAS];
        Ok(())
    }

    fn established(&self, mirrors: usize) -> TcpFlow {
        let replicas = mirrors + 1;
        let now_s = time::s(testbed::clock::monotonic_ns());
        let instances = members(replicas);
        let flow = Flow {
            plain: PlainFlow {
                opened_s: now_s,
                seen_s: now_s,
                ifindex: self.client_link,
                addresses: Addresses::new(MacAddr::local(0, 2).0, MacAddr::local(0, 1).0),
                set: mirrors as u16,
                primary: instances[0],
                state: state::ESTABLISHED,
                ..PlainFlow::default()
            },
            instances,
            replicas: replicas as u8,
            ..Flow::default()
        };
        let mut sync = TcpSync {
            client_isn: CLIENT_SEQ - 1,
            client_fin: CLIENT_SEQ - 1,
            client_nxt: CLIENT_SEQ,
            client_ack: CANONICAL_ISN + 1,
            client_ts: 0x100,
            isn: CANONICAL_ISN,
            sent: CANONICAL_ISN + 1,
            told_ack: CLIENT_SEQ,
            told_edge: CLIENT_SEQ + EDGE,
            ts_sent: 0x100,
            client_window: 500,
            options: option::TIMESTAMP | option::SACK | option::WINDOW_SCALE,
            window_scale: 7,
            client_scale: 7,
            ..TcpSync::default()
        };
        for number in 0..replicas {
            let seq = replica_seq(number);
            sync.replicas[number] = Replica {
                isn: seq - 1,
                snd_nxt: seq,
                rcv_nxt: CLIENT_SEQ,
                edge: CLIENT_SEQ + EDGE,
                ts_last: 0x100,
                flags: replica_flag::SYN_ACK,
                state: slot::WARM,
                window_scale: 7,
                options: sync.options,
                ..Replica::default()
            };
        }
        TcpFlow { flow, sync }
    }
}

/// The number of a replica's first byte.
pub(crate) fn replica_seq(replica: usize) -> u32 {
    CANONICAL_ISN + 1 + 1_000_000_000 * replica as u32
}

/// Stands where the number of mirrors does, for the VNI without mirrors whose clients have a table of their own.
pub(crate) const ZONED: usize = REPLICAS;

/// The address of the VNI with so many mirrors. The first is the topology's.
pub(crate) fn vni_address(mirrors: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 100 + mirrors as u8)
}

/// A client's segment with so many bytes, which acknowledges what it has.
pub(crate) fn from_client(mirrors: usize, payload: usize, timestamps: bool) -> Segment {
    Segment {
        from: (Ipv4Addr::from_bits(CLIENT_BASE), CLIENT_PORT),
        to: (vni_address(mirrors), VNI_PORT),
        flags: bit::ACK,
        seq: CLIENT_SEQ,
        ack: CANONICAL_ISN + 1,
        timestamps,
        payload,
    }
}

/// A replica's segment with so many bytes.
pub(crate) fn from_replica(mirrors: usize, replica: usize, payload: usize) -> Segment {
    let client = from_client(mirrors, payload, true);
    Segment {
        from: client.to,
        to: client.from,
        seq: replica_seq(replica),
        ack: CLIENT_SEQ,
        ..client
    }
}

/// The number of the VNI with so many mirrors.
fn vni_number(mirrors: usize) -> u16 {
    counts::FIRST_VNI + mirrors as u16
}

pub(crate) fn key(number: u32, mirrors: usize) -> FlowKey {
    FlowKey {
        client: ipv4((CLIENT_BASE + number).to_be()),
        vni: vni_number(mirrors),
        address: 0,
        protocol: protocol::TCP,
        client_port: CLIENT_PORT,
        vni_port: VNI_PORT,
    }
}

/// Instances are numbered from 1.
fn members(replicas: usize) -> [u16; REPLICAS] {
    std::array::from_fn(|place| {
        if place < replicas {
            place as u16 + 1
        } else {
            0
        }
    })
}

/// Maps that are written later, or kept.
type Filled = (
    Array<MapData, Instance>,
    ArrayOfMaps<MapData, Array<MapData, u32>>,
    ArrayOfMaps<MapData, DevMap<MapData>>,
);

fn fill(ebpf: &mut Ebpf, topology: &Topology, client_link: u32, links: &[u32]) -> Result<Filled> {
    let clone: ProgramFd = {
        let program: &Xdp = ebpf.program("clone").context("clone")?.try_into()?;
        program.fd()?.try_clone()?
    };
    let mut ports: DevMapHash<MapData> = take(ebpf, "PORTS")?;
    let mut numbers: HashMap<MapData, u32, u32> = take(ebpf, "LINKS")?;
    let mut instances: Array<MapData, Instance> = take(ebpf, "INSTANCES")?;
    ports.insert(client_link, client_link, Some(&clone), 0)?;
    for (place, (&ifindex, instance)) in links.iter().zip(&topology.instances).enumerate() {
        let number = place as u32 + 1;
        ports.insert(ifindex, ifindex, Some(&clone), 0)?;
        numbers.insert(ifindex, number, 0)?;
        let entry = Instance {
            state: health::UP,
            ifindex,
            addresses: Addresses::new(instance.mac.0, MacAddr::local(number as u8, 1).0),
            deadline_ms: 0,
            mtu: 0,
        };
        instances.set(number, entry, 0)?;
    }
    let mut vnis: HashMap<MapData, VniKey, Vni> = take(ebpf, "VNIS")?;
    let mut sets: Array<MapData, ReplicaSet> = take(ebpf, "SETS")?;
    let mut steering: ArrayOfMaps<MapData, Array<MapData, u32>> = take(ebpf, "STEERING")?;
    let mut set_ports: ArrayOfMaps<MapData, DevMap<MapData>> = take(ebpf, "SET_PORTS")?;
    for mirrors in 0..REPLICAS {
        let address = VniKey {
            address: ipv4(u32::from_ne_bytes(vni_address(mirrors).octets())),
        };
        let mirrored = flag::MIRRORED | flag::HOLD_ACKS | flag::VOTE_ON_CLOSE;
        let vni = Vni {
            vni: vni_number(mirrors),
            flags: if mirrors == 0 { 0 } else { mirrored },
            lag_bytes_max: LAG_BYTES_MAX,
            lag_ms_max: LAG_MS_MAX,
            handshake_ms: LAG_MS_MAX,
            ..Vni::default()
        };
        vnis.insert(address, vni, 0)?;
        let number = mirrors as u32;
        let set = ReplicaSet {
            instances: members(mirrors + 1),
            replicas: mirrors as u8 + 1,
            ..ReplicaSet::default()
        };
        sets.set(number, set, 0)?;
        steering.set(vni_number(mirrors).into(), &steering_table(number)?, 0)?;
        let mut inner = inner_devmap()?;
        for (slot, &ifindex) in links[..=mirrors].iter().enumerate() {
            inner.set(slot as u32, ifindex, Some(&clone), 0)?;
        }
        set_ports.set(number, &inner, 0)?;
    }
    fill_zones(ebpf, &mut vnis, &mut steering)?;
    Ok((instances, steering, set_ports))
}

/// The VNI without mirrors once more, with a table for the clients of 1,024 prefixes, which are all there are.
fn fill_zones(
    ebpf: &mut Ebpf,
    vnis: &mut HashMap<MapData, VniKey, Vni>,
    steering: &mut ArrayOfMaps<MapData, Array<MapData, u32>>,
) -> Result<()> {
    const BITS: u32 = 10;
    let number = u32::from(vni_number(ZONED));
    let address = VniKey {
        address: ipv4(u32::from_ne_bytes(vni_address(ZONED).octets())),
    };
    let vni = Vni {
        vni: number as u16,
        flags: flag::ZONED,
        lag_bytes_max: LAG_BYTES_MAX,
        lag_ms_max: LAG_MS_MAX,
        handshake_ms: LAG_MS_MAX,
        ..Vni::default()
    };
    vnis.insert(address, vni, 0)?;
    steering.set(number, &steering_table(0)?, 0)?;
    steering.set(VNIS, &steering_table(0)?, 0)?;
    let mut sources: LpmTrie<MapData, Source, u32> = take(ebpf, "SOURCES")?;
    for prefix in 0..1u32 << BITS {
        let client = ipv4((prefix << (u32::BITS - BITS)).to_be());
        let source = Source {
            vni: number,
            client,
        };
        // Behind the VNI's number and what all mapped addresses begin with.
        let bits = Source::VNI_BITS + 96 + BITS;
        sources.insert(&Key::new(bits, source), VNIS, 0)?;
    }
    Ok(())
}

/// A table in which every bucket names one set, made as the agent makes them.
pub(crate) fn steering_table(set: u32) -> Result<Array<MapData, u32>> {
    let definition =
        aya_obj::Map::new_from_params(crate::sys::MAP_ARRAY, 4, 4, STEERING_BUCKETS, 0);
    let data = MapData::create(definition, "STEERING_inner", None)?;
    let buckets: Vec<u32> = (0..STEERING_BUCKETS).collect();
    crate::sys::update_batch(data.fd().as_fd(), &buckets, &vec![set; buckets.len()])?;
    Ok(Array::try_from(Map::from_map_data(data)?)?)
}

fn fd_of(ebpf: &Ebpf, name: &str) -> Result<OwnedFd> {
    match ebpf.map(name) {
        Some(Map::HashMap(data)) => Ok(data.fd().as_fd().try_clone_to_owned()?),
        _ => bail!("no map {name}"),
    }
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    let map = ebpf.take_map(name).with_context(|| format!("map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name}"))
}

fn inner_devmap() -> Result<DevMap<MapData>> {
    let definition =
        aya_obj::Map::new_from_params(crate::sys::MAP_DEVMAP, 4, 8, REPLICAS as u32, 0);
    let data = MapData::create(definition, "SET_PORTS_inner", None)?;
    Ok(DevMap::try_from(Map::from_map_data(data)?)?)
}

/// The object that is named, or the one that `cargo xtask build` leaves in the target directory.
fn object() -> Result<PathBuf> {
    let path = match std::env::var_os(OBJECT_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => {
            let own = std::env::current_exe()?;
            // target/PROFILE/bench
            let target = own.ancestors().nth(2).context("target directory")?;
            target.join("bpf/mirror-ebpf")
        }
    };
    ensure!(
        path.is_file(),
        "no eBPF object at {}: build it with `cargo xtask build`",
        path.display()
    );
    Ok(path)
}

/// The VNI's address as the topology has it is that of the VNI without mirrors.
pub(crate) fn check_addresses() -> Result<()> {
    let topology = testbed::topology::Family::V4.vni();
    ensure!(topology == IpAddr::V4(vni_address(0)), "addresses differ");
    Ok(())
}

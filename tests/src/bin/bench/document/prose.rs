//! What the document says apart from figures: how things are measured, and what each bench is about. No figure that was
//! measured belongs here.

use crate::Name;

/// Ahead of all results.
pub(super) fn beginning() -> String {
    let mut text = String::from(BEGINNING);
    for name in Name::ALL {
        text += &format!(
            "| [`{0}`](#{0}) | {1} | {2} |\n",
            name.label(),
            name.about(),
            name.duration()
        );
    }
    text + METHOD
}

const BEGINNING: &str = "\
# Benchmarks

<!-- Written by `cargo xtask bench --write-docs` from benchmarks.json. Never by hand: text is in tests/src/bin/bench/document. -->

What the dataplane costs, and what one would use instead costs on the same machine in the same minute.

    cargo xtask bench --list
    cargo xtask bench steering --json steering.json
    cargo xtask bench --write-docs                    everything, and this document from it
    cargo xtask bench cloning --quick                 few rounds: does it run at all?
    cargo xtask bench cloning --case \"64 B, dataplane\" only cases whose names contain that

nftables, iptables and HAProxy are got as the distribution's packages when the system does not have them, and unpacked into the
tools' cache (`MIRROR_PEERS=DIR` names another place); nothing is installed. A peer that cannot be got or set up is named under
the table and in the JSON (`missing`), with the reason.

| bench | what | takes about |
|---|---|---|
";

const METHOD: &str = "
## How everything is measured

* **In turns.** Each round measures every way once, in the same order; ratios are made of measurements of the same round. What the
  machine does besides hits both sides. One round more than is kept goes ahead as a warm-up.
* **Spread.** Median, least, greatest and interquartile range over the rounds. A row whose IQR is a good part of its median says nothing.
  In plots a bar ends at the median, and the line through it goes from the least to the greatest.
* **One processor**, the last one, for what is measured, at the highest priority that is not real time. Servers are elsewhere.
* **The load average** before and after is said. With a load above about 0.5 for each processor absolute figures are
  the machine's, and only ratios are worth a look; with much more, not even those of 99th percentiles.
* **What is measured is checked.** In `steering` every packet must have been counted under the reason that the case is about, in
  `cloning` copies that did not arrive are counted, in `latency` the agent is asked whether the mirrors were warm to the end, in
  `failure` every byte is checked by both ends.
* **Goals** are the project's own; a missed one is said to be missed and fails nothing.
";

/// What a bench measures, and how it is to be read.
pub(super) fn about(name: Name) -> &'static str {
    match name {
        Name::Steering => "\
What a packet costs in each program. A repetition of `BPF_PROG_TEST_RUN` goes on with the packet that the one before left, and these
programs rewrite packets. So a *feeder*, a program that the bench assembles itself, takes the metadata off, writes the head of the
frame anew, makes it the next flow's (and, for data, the next segment of that flow), and calls the program by a tail call. The same
feeder with an empty program behind it is measured in the same round and subtracted; the ratio is that to a plain redirect.

With one flow everything is in the nearest caches. Flows come in an order that no prefetcher follows, so 10^4 and 10^6 of them are measured
with caches as cold as their number makes them: at 10^6 hardly a byte of a flow is in any cache, nor where its page is, and a row says what
the machine's memory takes, not what the program does. On virtual machines whose memory is in small pages, most of that is walks
through page tables, the machine's and its host's. An empty program is what is subtracted, so it would be 0. SYNs are of new flows, find the
half-open table full, and each pushes the oldest out; sent again, they find their flow half-open. Where hardware
counters are missing, as on most virtual machines, instructions per packet cannot be counted; the table
begins with what the verifier walked and what the programs became. What the *collector* costs, that is what is measured of instances from the
packets that pass, is the difference to the same programs built without it, in the same rounds. The clock is read a few times
a tick of the kernel at most, which so many packets hide.",
        Name::Cloning => "\
Live frames leave by the client's end of its veth, and are counted and dropped by a program at the instances' ends. Sender,
forwarding and counters share one processor, so a rate is the reciprocal of what a frame costs on its whole way, and a ratio between two
ways is smaller than that between what they add. Bare ways are redirects without anything else: the floor.",
        Name::Latency => "\
The peers run on a network of their own, where no program of ours is attached. With two processors all servers,
mirrors' among them, share the first: what their kernels and processes do for a copy is in the figures, which it is not where
instances are machines. *20 ms late*: what the mirror sends is held up for 20 ms, and has been for long enough that it is relied on no more;
measured in rounds of their own, with a direct veth in each.",
        Name::Throughput => "\
The same networks as in `latency`. Processor time is that of all processes and of what the kernel does for their packets, mirrors' too: with
one mirror every byte is received twice.",
        Name::Failure => "\
300 connections of the traffic programs (requests, downloads, uploads, idle ones), of which those count that the failed instance
served, and a prober that opens a connection for each request, one after the other; a request that takes more than 500 ms has failed.
HAProxy proxies TCP, checks every 100 ms, takes an instance out after two failed checks and ends its sessions. nftables' DNAT checks
nothing. *Address move* is what keepalived does, without its negotiation: one instance has the address, and after two failed checks 100 ms
apart the next one has it. *Detected* is the time from a fault to the agent's first event that says so, of six instances under traffic, three of
which fail one after the other.",
        Name::Scale => "\
What grows with flows, and what must not. Memory is that which the kernel's slabs grow by when a million flows are opened, and the table's own
part: the kernel rounds each flow up to one of its sizes, which its account of the map does not say. Steering tables are computed by the
agent's own code. A flow is opened by its SYN, the SYN-ACK of each replica and the client's ACK. The VNIs
are served by two, three or four of four instances, so that eleven tables do for all of them.",
        Name::Operate => "\
With a million flows in the table, and traffic: what somebody waits for who looks at them, and what that costs the agent.",
        Name::Changes => "\
What clients notice while the agent is changed, replaced or killed, against when nothing happens. Lost is what was sent and did not come, by the
counts of the client, of each instance and of the VNI host, and what any interface, socket or program dropped: what exactly is
compared is in [operations.md](operations.md#what-changes-of-the-agent-cost-those-who-are-served). Segments are sent again when nothing happens
too: probes of a connection's tail, answered before they were needed. An upgrade's time is the verifier's, on what the traffic leaves of
the processors.",
        Name::Prediction => "\
What the Health Prediction Engine takes of the agent's processor each second, by `mirror-ctl health bench`: the readings of simulated
instances become features, and features risks. The model has 60 trees a hazard, as `health train` makes them, and is trained at the
beginning on a part of the simulated corpus: its size is what counts here.",
    }
}

/// Behind all results.
pub(super) const END: &str = "
## What guards against growth

Times differ between machines and hours, sizes do not: `tests/prog/sizes.rs` compares the instructions that the verifier walked, and the sizes
after translation and compilation, with `tests/prog/sizes.toml`, and fails when one differs by more than a tenth either way.

    MIRROR_UPDATE_SIZES=1 cargo xtask test --test prog -- sizes     # a change that is meant
";

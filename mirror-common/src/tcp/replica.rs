//! Packets from a replica: learn, hold, deliver in canonical numbers, or suppress.

use super::{
    Conditions, Notes, Segment, TcpFlow, closing, divergence, flag, handshake, option, roles,
    segment::bit, seq, slot,
};
use crate::{
    branchless::{is_before, is_equal, pick},
    event::cause,
    flow::state,
    limits::REPLICAS,
    reason::{Cold, Reason},
    vni,
};

/// What becomes of a replica's packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it to the client with the numbers of [`Output`].
    ToClient,
    /// Send it to the client as a pure ACK: payload and FIN cut off.
    AckToClient,
    /// Send it back to the replica as a bare segment of the client.
    TurnRound,
    /// Drop it.
    Drop,
}

/// A replica's packet after the protocol looked at it: verdict, reason and new header fields.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Under which reason it is counted.
    pub reason: Reason,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Timestamp value.
    pub ts_val: u32,
    /// Timestamp echo reply.
    pub ts_ecr: u32,
    /// Window field.
    pub window: u16,
    /// Flags of the bare segment that takes its place, when one does.
    pub flags: u8,
    /// Its FIN waits for the mirrors' and is cleared.
    pub strip_fin: bool,
    /// Its SACK blocks claim what a mirror may lack and are blanked.
    pub blank_sack: bool,
    /// Nobody has sent to the client yet what it says, or it is a SYN-ACK that is held, see [`Self::parks`].
    pub park: bool,
}

impl Output {
    /// Drops the packet.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Drop,
            reason,
            seq: 0,
            ack: 0,
            ts_val: 0,
            ts_ecr: 0,
            window: 0,
            flags: bit::ACK,
            strip_fin: false,
            blank_sack: false,
            park: false,
        }
    }

    /// Whether the packet is kept, because it may be the last that is heard of the replica before it has to take over. The push bit is the
    /// end of what an application wrote; and a client that has acknowledged all that it was sent says nothing that would make the
    /// replica go on. (Asked apart from [`receive`], or the verifier would follow each answer through all that comes after it there.)
    #[inline(always)]
    pub fn parks(&self, flow: &TcpFlow, packet: &Segment) -> bool {
        self.park && (packet.is(bit::PSH | bit::SYN) || flow.sync.client_ack == flow.sync.sent)
    }

    /// Ends a replica's connection: that of a cold one, which will never speak again and gets nothing
    /// any more, or one that the client knows nothing of (RFC 9293, section 3.10.7.3). The number is the one that it waits for by its own word (RFC 5961, section 3.2).
    #[inline(always)]
    pub fn refuse(packet: &Segment) -> Self {
        Self {
            verdict: Verdict::TurnRound,
            flags: bit::RST,
            seq: packet.ack,
            ..Self::drop(Reason::ColdReset)
        }
    }

    /// Answers the replica in the client's stead: the client has what the packet carries.
    #[inline(always)]
    pub fn turn_round(flow: &TcpFlow, from: u8, packet: &Segment) -> Self {
        let replica = flow.replica(from);
        let sync = &flow.sync;
        let own = sync.client_ack.wrapping_add(flow.delta(from));
        let ack = seq::min(own, replica.snd_nxt);
        Self {
            verdict: Verdict::TurnRound,
            seq: sync.client_nxt,
            ack,
            ts_val: sync.client_ts,
            ts_ecr: packet.ts_val,
            window: flow.window_behind(sync.client_window, own.wrapping_sub(ack)),
            ..Self::drop(Reason::TurnedRound)
        }
    }
}

/// What the client may be told of what was received.
#[derive(Clone, Copy)]
struct Told {
    ack: u32,
    edge: u32,
}

/// Takes in a packet of replica `from`.
#[inline(always)]
pub fn receive(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    notes: &mut Notes,
) -> Output {
    roles::follow_health(flow, conditions, notes);
    if packet.is(bit::SYN) {
        return handshake::syn_ack(flow, from, packet, conditions, notes);
    }
    if packet.is(bit::RST) {
        return closing::reset(flow, from, packet, conditions, notes);
    }
    if flow.replica(from).state == slot::COLD {
        return Output::refuse(packet);
    }
    // Until the client has answered its SYN-ACK a replica has nothing else to say.
    let young = flow.flow.state < state::ESTABLISHED;
    if young | !flow.is_warm(from, conditions) {
        return handshake::stale(flow, from, packet, conditions);
    }
    let leads = roles::leads(flow, from, packet, conditions);
    divergence::hear(flow, from, packet, &conditions.part, notes);
    if flow.replica(from).state == slot::COLD {
        return Output::refuse(packet);
    }
    let advanced = learn(flow, from, packet, notes);
    closing::judge(flow, from, packet, conditions, notes);
    roles::bound_lag(flow, conditions, notes);
    // It may have been too late.
    let leads = leads & is_equal(flow.replica(from).state.into(), slot::WARM.into());
    let shut = closing::is_shut(flow, from, conditions);
    let lost = shut | has_lost_bytes(flow, from, packet, advanced);
    let output = if lost {
        let why = if shut {
            Cold::ClosedEarly
        } else {
            Cold::LagBytes
        };
        flow.chill(from, why, notes);
        Output::drop(Reason::MirrorSuppressed)
    } else if (from == flow.flow.active) | (leads != 0) {
        roles::take_lead(flow, from, leads);
        from_active(flow, from, packet, conditions, advanced)
    } else {
        from_mirror(flow, from, packet, conditions, advanced)
    };
    // A FIN that is held and repeated for too long: one of those that do not close goes on with the
    // connection. The one that closed stays warm, should they agree after all.
    let alone = output.reason == Reason::FinHeld && roles::has_waited(flow, from, conditions);
    if lost | alone {
        let (why, limit) = match lost {
            true => (cause::DEAD, roles::cost::NEVER),
            false => (cause::CLOSED_ALONE, roles::cost::CLOSED),
        };
        // One call for both: the verifier follows each by itself.
        roles::promote(flow, conditions, why, limit, notes);
    }
    flow.close_when_done(notes);
    output
}

/// Keeps the replica's numbers. Returns whether it acknowledged or offered something new.
///
/// Its window may have opened further than the client was told, and a client may send beyond what it was told
/// (with a fast retransmission, or a FIN behind a probe's byte): such a segment teaches nothing, and the replica takes it in all the
/// same. Its acknowledgement counts as far as the client is known to have come, and its window as it is: the client
/// says the rest again.
#[inline(always)]
fn learn(flow: &mut TcpFlow, from: u8, packet: &Segment, notes: &mut Notes) -> bool {
    // What acknowledges more is of the port's last use.
    const NEAR: u32 = 1 << 16;
    let client_nxt = flow.sync.client_nxt;
    let replica = flow.replica_mut(from);
    let end = packet.end();
    let again = packet.payload > 0 && !seq::after(end, replica.snd_nxt);
    // A takeover's `from` is the instance that failed.
    if again && notes.takeover == 0 {
        notes.retransmission = true;
        notes.from = from;
    }
    replica.snd_nxt = seq::max(replica.snd_nxt, end);
    // Nothing comes after a FIN: an older one is of the port's last use.
    if packet.is(bit::FIN) & (replica.snd_nxt == end) {
        replica.flags |= flag::FIN;
        replica.fin = end;
    }
    if packet.options & option::TIMESTAMP != 0 {
        replica.ts_last = seq::max(replica.ts_last, packet.ts_val);
    }
    if !packet.is(bit::ACK) || seq::after(packet.ack, client_nxt.wrapping_add(NEAR)) {
        return false;
    }
    let edge = packet
        .ack
        .wrapping_add(u32::from(packet.window) << (replica.window_scale & 15));
    // By arithmetic: the verifier would follow a comparison through all that comes after.
    let beyond = is_before(client_nxt, packet.ack);
    let ack = pick(beyond, client_nxt, packet.ack);
    let advanced = seq::after(ack, replica.rcv_nxt) | seq::after(edge, replica.edge);
    if advanced {
        replica.rcv_nxt = seq::max(replica.rcv_nxt, ack);
        replica.edge = seq::max(replica.edge, edge);
        replica.behind_ms = 0;
    }
    advanced
}

/// Whether the active replica asks for bytes that the client was told to forget: an asynchronous
/// flow was taken over by a mirror that lacked them. The connection cannot go on with it.
#[inline(always)]
fn has_lost_bytes(flow: &TcpFlow, from: u8, packet: &Segment, advanced: bool) -> bool {
    (from == flow.flow.active)
        & !advanced
        & (packet.options & option::SACK != 0)
        & seq::before(flow.replica(from).rcv_nxt, flow.sync.told_ack)
}

/// The smallest acknowledgement and window edge of the active and of every warm replica that is
/// relied on. One that lacks what the client was told already is past being waited for: it catches
/// up, or goes cold.
#[inline(always)]
fn may_tell(flow: &TcpFlow, conditions: &Conditions) -> Told {
    let active = flow.replica(flow.flow.active);
    let mut told = Told {
        ack: active.rcv_nxt,
        edge: active.edge,
    };
    let holds_acks = conditions.has(vni::flag::HOLD_ACKS);
    for slot in 0..REPLICAS as u8 {
        let holds = holds_acks && flow.is_relied_on(slot, conditions) && !flow.is_lacking(slot);
        if slot < flow.flow.replicas && holds {
            let replica = flow.replica(slot);
            told.ack = seq::min(told.ack, replica.rcv_nxt);
            told.edge = seq::min(told.edge, replica.edge);
        }
    }
    // The active replica itself may lack what the client was told: less is never said again.
    told.ack = seq::max(told.ack, flow.sync.told_ack);
    told.edge = seq::max(told.edge, told.ack);
    told
}

/// Whether telling the client this would be news.
#[inline(always)]
fn is_news(flow: &TcpFlow, told: Told) -> bool {
    seq::after(told.ack, flow.sync.told_ack) || seq::after(told.edge, flow.sync.told_edge)
}

/// Notes what the client is told now and returns the window field that says it.
#[inline(always)]
fn tell(flow: &mut TcpFlow, told: Told) -> u16 {
    let sync = &mut flow.sync;
    sync.told_ack = seq::max(sync.told_ack, told.ack);
    sync.told_edge = seq::max(sync.told_edge, told.edge);
    let window = told.edge.wrapping_sub(told.ack) >> (sync.window_scale & 15);
    if window > 0xffff {
        0xffff
    } else {
        window as u16
    }
}

/// The replica's timestamp in the canonical clock. When its newest value would run backwards for
/// the client (another replica was active before, whose clock ran ahead), the replica's clock is
/// anchored anew. An older value, of a segment that is sent on late, is raised to what the client
/// has seen, or its TCP would drop the segment (RFC 7323, section 5.3). A segment that came without
/// one says nothing about the clock.
#[inline(always)]
fn canonical_ts(flow: &mut TcpFlow, from: u8, packet: &Segment) -> u32 {
    let ts_sent = flow.sync.ts_sent;
    if packet.options & option::TIMESTAMP == 0 {
        return ts_sent;
    }
    let ts_val = packet.ts_val;
    let replica = flow.replica_mut(from);
    let mut canonical = ts_val.wrapping_sub(replica.ts_offset);
    if seq::before(canonical, ts_sent) && ts_val == replica.ts_last {
        replica.ts_offset = ts_val.wrapping_sub(ts_sent);
        canonical = ts_sent;
    }
    if flow.flow.takeovers > 0 {
        canonical = seq::max(canonical, ts_sent);
    }
    flow.sync.ts_sent = seq::max(ts_sent, canonical);
    canonical
}

#[inline(always)]
fn from_active(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    advanced: bool,
) -> Output {
    let delta = flow.delta(from);
    let mut end = packet.end().wrapping_sub(delta);
    let mut strip_fin = false;
    if packet.is(bit::FIN)
        && conditions.has(vni::flag::VOTE_ON_CLOSE)
        && !closing::all_closed_at(flow, conditions, end)
    {
        strip_fin = true;
        end = end.wrapping_sub(1);
    }
    let told = may_tell(flow, conditions);
    let held = seq::after(flow.replica(from).rcv_nxt, told.ack);
    // It said something new, but a mirror holds it back: not a duplicate that the client may count.
    let kept = advanced & (held | seq::after(flow.replica(from).edge, told.edge));
    let news = is_news(flow, told);
    if packet.payload == 0 && (strip_fin || (!packet.is(bit::FIN) && kept)) && !news {
        return Output::drop(if strip_fin {
            Reason::FinHeld
        } else {
            Reason::AckHeld
        });
    }
    // A replica that became active while it was behind says what the client has already: that is
    // answered in the client's name. Its sequence numbers are old, and a stack drops what is old
    // with the acknowledgement in it: that is sent on with the newest number.
    let behind = seq::before(flow.produced(from), flow.sync.sent);
    let has_fin = packet.is(bit::FIN);
    let probes = behind & seq::before(packet.seq, flow.replica(from).snd_nxt);
    let is_old = (packet.payload > 0) | probes;
    if flow.flow.takeovers > 0 && is_old & !has_fin & !seq::after(end, flow.sync.client_ack) {
        if !news {
            return Output::turn_round(flow, from, packet);
        }
        let ts_val = canonical_ts(flow, from, packet);
        return acknowledge(flow, packet, told, ts_val, held);
    }
    // Nor does an empty segment say that what is in front of it was delivered: a FIN may be held.
    let ahead = seq::after(end, flow.sync.sent);
    if (behind | ahead) & (packet.payload == 0) & (strip_fin | !has_fin) {
        let ts_val = canonical_ts(flow, from, packet);
        return acknowledge(flow, packet, told, ts_val, held);
    }
    deliver(flow, from, packet, told, end, strip_fin, held)
}

/// Sends a replica's packet on as a pure ACK.
#[inline(always)]
fn acknowledge(
    flow: &mut TcpFlow,
    packet: &Segment,
    told: Told,
    ts_val: u32,
    blank_sack: bool,
) -> Output {
    Output {
        verdict: Verdict::AckToClient,
        seq: flow.sync.sent,
        ack: told.ack,
        window: tell(flow, told),
        ts_val,
        ts_ecr: packet.ts_ecr,
        blank_sack,
        ..Output::drop(Reason::AckRaised)
    }
}

/// Sends a replica's packet on in canonical numbers.
#[inline(always)]
fn deliver(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    told: Told,
    end: u32,
    strip_fin: bool,
    held: bool,
) -> Output {
    flow.sync.sent = seq::max(flow.sync.sent, end);
    if packet.is(bit::FIN) && !strip_fin && flow.flow.state < state::CLOSING {
        flow.flow.state = state::CLOSING;
    }
    let delta = flow.delta(from);
    Output {
        verdict: Verdict::ToClient,
        reason: Reason::Delivered,
        seq: packet.seq.wrapping_sub(delta),
        ack: told.ack,
        window: tell(flow, told),
        ts_val: canonical_ts(flow, from, packet),
        ts_ecr: packet.ts_ecr,
        strip_fin,
        blank_sack: held,
        ..Output::drop(Reason::Delivered)
    }
}

#[inline(always)]
fn from_mirror(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    advanced: bool,
) -> Output {
    let delta = flow.delta(from);
    let seq = packet.seq.wrapping_sub(delta);
    let end = packet.end().wrapping_sub(delta);
    let told = may_tell(flow, conditions);
    let active = *flow.replica(flow.flow.active);
    let park = (packet.payload > 0) & seq::after(end, flow.sync.sent);
    // The last FIN of the set closes, whoever sends it.
    if packet.is(bit::FIN)
        && seq::before(flow.sync.sent, end)
        && !seq::after(seq, flow.sync.sent)
        && closing::fin_of(flow, flow.flow.active) == Some(end)
        && closing::all_closed_at(flow, conditions, end)
    {
        let held = seq::after(active.rcv_nxt, told.ack);
        return deliver(flow, from, packet, told, end, false, held);
    }
    // Or it repeats that it lacks what the active one has: a clone was lost.
    let lacks = !advanced
        && packet.payload == 0
        && packet.options & option::SACK != 0
        && packet.ack == told.ack
        && seq::after(active.rcv_nxt, told.ack);
    if is_news(flow, told) || lacks {
        let own = packet.ts_val.wrapping_sub(flow.replica(from).ts_offset);
        let stamped = packet.options & option::TIMESTAMP != 0;
        let ts_sent = flow.sync.ts_sent;
        let ts_val = if stamped {
            seq::max(own, ts_sent)
        } else {
            ts_sent
        };
        flow.sync.ts_sent = ts_val;
        return Output {
            park,
            ..acknowledge(flow, packet, told, ts_val, !lacks)
        };
    }
    // Late data, a keep-alive or a window probe: nothing beyond what the client has.
    let speaks = packet.length() > 0 || seq::before(packet.seq, flow.replica(from).snd_nxt);
    if speaks && !seq::after(end, flow.sync.client_ack) {
        return Output::turn_round(flow, from, packet);
    }
    Output {
        park,
        ..Output::drop(Reason::MirrorSuppressed)
    }
}

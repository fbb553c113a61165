//! `trace` and `capture`: a flow's packets as they pass, as lines or as a file.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    net::SocketAddr,
};

use anyhow::{Context as _, Result, anyhow, bail};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::{
    args,
    ask::{Asker, print, print_json_line, small_runtime},
};
use crate::{
    api::{
        client::{ClientError, escape, messages},
        sse::Message,
        trace::{BEGUN, LOST, OVER, PACKET},
    },
    clock,
    trace::{
        Begun, Lost, Over, PacketRow, SegmentRow,
        capture::{Capture, Side},
    },
};

pub(super) fn trace(asker: &Asker<'_>, trace: &args::Trace) -> Result<()> {
    let path = path(trace.client, &trace.traced, "");
    let mut lines = Lines {
        json: asker.json,
        begun: None,
    };
    follow(asker, &path, trace.traced.count, &mut lines).map(drop)
}

pub(super) fn capture(asker: &Asker<'_>, capture: &args::Capture) -> Result<()> {
    let to_stdout = capture.write.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        bail!(
            "a capture is no text: name a file with -w, or pipe it (`| tcpdump -n -r -`, `| wireshark -k -i -`)"
        );
    }
    let out: Box<dyn Write> = match to_stdout {
        true => Box::new(io::stdout()),
        false => {
            let file = File::create(&capture.write);
            Box::new(file.with_context(|| format!("write {}", capture.write.display()))?)
        }
    };
    let more = format!("&frames=true&frame_bytes={}", capture.snaplen);
    let path = path(capture.flow, &capture.traced, &more);
    let mut file = CaptureFile {
        out: Some(out),
        sides: capture.side.clone(),
        filter: match capture.traced.vni {
            Some(vni) => format!("{} {vni}", capture.flow),
            None => capture.flow.to_string(),
        },
        capture: None,
    };
    let ended = follow(asker, &path, capture.traced.count, &mut file)?;
    let Some(capture) = file.capture else {
        return Ok(());
    };
    capture.finish(clock::now_ns(), ended.lost)?.flush()?;
    eprintln!("mirror-ctl: {} packets", ended.shown);
    Ok(())
}

fn path(client: SocketAddr, traced: &args::Traced, more: &str) -> String {
    let client = escape(&client.to_string());
    let vni = traced
        .vni
        .map(|vni| format!("&vni={}", escape(&vni.to_string())));
    let (vni, duration_s) = (vni.unwrap_or_default(), traced.duration);
    format!("/v1/trace?client={client}{vni}&duration_s={duration_s}{more}")
}

/// What is done with a trace.
pub(super) trait Reader {
    fn begin(&mut self, begun: Begun) -> Result<()>;
    /// Takes what is wanted of a packet, `room` more at most, and says how many that were.
    fn packet(&mut self, row: PacketRow, room: usize) -> Result<usize>;
}

/// How a trace went.
#[derive(Default)]
pub(super) struct Followed {
    shown: usize,
    pub(super) lost: u64,
    /// By its time or by the number of packets.
    over: bool,
}

/// Enough was seen.
#[derive(Debug, thiserror::Error)]
#[error("enough")]
struct Enough;

/// Reads a trace until it is over, there were enough packets, or somebody interrupts.
pub(super) fn follow(
    asker: &Asker<'_>,
    path: &str,
    count: Option<usize>,
    reader: &mut impl Reader,
) -> Result<Followed> {
    let mut followed = Followed::default();
    let read = small_runtime()?.block_on(async {
        let read = messages(asker.socket, Method::POST, path, |message| {
            take(&message, count, reader, &mut followed)
        });
        tokio::select! {
            read = read => read,
            _ = tokio::signal::ctrl_c() => Err(Enough.into()),
        }
    });
    match read {
        Err(error) if error.is::<Enough>() => {}
        // An agent that ends leaves its answer unfinished.
        Err(error) if matches!(error.downcast_ref(), Some(ClientError::Broken { .. })) => {
            return Err(anyhow!("the agent ended the trace"));
        }
        Err(error) => return Err(error),
        Ok(()) if followed.over => {}
        Ok(()) => bail!("the agent ended the trace"),
    }
    if followed.lost > 0 {
        eprintln!(
            "mirror-ctl: {} records were lost: packets came faster than they were read",
            followed.lost
        );
    }
    Ok(followed)
}

fn take(
    message: &Message,
    count: Option<usize>,
    reader: &mut impl Reader,
    followed: &mut Followed,
) -> Result<()> {
    fn data<T: DeserializeOwned>(message: &Message) -> Result<T> {
        Ok(serde_json::from_str(&message.data)?)
    }
    match message.event.as_str() {
        BEGUN => reader.begin(data(message)?)?,
        PACKET => {
            let room = count.map_or(usize::MAX, |count| count.saturating_sub(followed.shown));
            let taken = reader.packet(data(message)?, room)?;
            followed.shown += taken;
            if taken >= room {
                return Err(Enough.into());
            }
        }
        LOST => followed.lost = data::<Lost>(message)?.records,
        OVER => {
            let over: Over = data(message)?;
            followed.over = true;
            eprintln!("mirror-ctl: {}", over.reason);
        }
        _ => {}
    }
    Ok(())
}

/// Says on the terminal that packets are waited for.
fn said(begun: &Begun) {
    eprintln!("mirror-ctl: traced for {} s at most", begun.duration_s);
}

/// A line for each packet at each program.
struct Lines {
    json: bool,
    begun: Option<Begun>,
}

impl Reader for Lines {
    fn begin(&mut self, begun: Begun) -> Result<()> {
        said(&begun);
        self.begun = Some(begun);
        Ok(())
    }

    fn packet(&mut self, row: PacketRow, _room: usize) -> Result<usize> {
        match self.json {
            true => print_json_line(&row)?,
            false => {
                let began_ns = self.begun.as_ref().map_or(0, |begun| begun.time_ns);
                print(&format!("{}\n", line(&row, began_ns)))?;
            }
        }
        Ok(1)
    }
}

/// One packet at one program.
fn line(row: &PacketRow, began_ns: u64) -> String {
    let time_s = row.time_ns.saturating_sub(began_ns) as f64 / 1e9;
    let replica = match (row.slot, &row.instance) {
        (Some(slot), Some(instance)) => format!("{slot} {instance}"),
        (None, Some(instance)) => instance.clone(),
        (_, None) => "?".to_owned(),
    };
    let way = match row.direction.as_str() {
        "from-client" => "client ->".to_owned(),
        "to-replica" => format!("       -> {replica}"),
        _ => format!("       <- {replica}"),
    };
    let number = |of: fn(&SegmentRow) -> Option<u32>| {
        let (before, after) = (
            row.before.as_ref().and_then(of),
            row.after.as_ref().and_then(of),
        );
        match (before, after) {
            (Some(before), Some(after)) if before != after => format!("{before}=>{after}"),
            (Some(number), _) | (None, Some(number)) => number.to_string(),
            (None, None) => "-".to_owned(),
        }
    };
    let segment = row.before.as_ref().or(row.after.as_ref());
    let flags = segment
        .and_then(|segment| segment.flags.as_deref())
        .unwrap_or("-");
    let payload = segment.map_or(0, |segment| segment.payload);
    format!(
        "{time_s:>11.6} {way:<18} {flags:<3} seq {:<21} ack {:<21} len {payload:<5} {} [{}]",
        number(|segment| segment.seq),
        number(|segment| segment.ack),
        row.verdict,
        row.reasons.join(" ")
    )
}

/// A pcapng file.
struct CaptureFile {
    out: Option<Box<dyn Write>>,
    sides: Vec<Side>,
    filter: String,
    capture: Option<Capture<BufWriter<Box<dyn Write>>>>,
}

impl Reader for CaptureFile {
    fn begin(&mut self, begun: Begun) -> Result<()> {
        said(&begun);
        if let Some(out) = self.out.take() {
            let (sides, filter) = (self.sides.clone(), self.filter.clone());
            self.capture = Some(Capture::new(BufWriter::new(out), sides, &begun, filter)?);
        }
        Ok(())
    }

    fn packet(&mut self, row: PacketRow, room: usize) -> Result<usize> {
        match &mut self.capture {
            Some(capture) => Ok(capture.add(&row, room)?),
            None => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translated_packet_on_a_line() {
        let segment = |seq, ack| {
            Some(SegmentRow {
                seq: Some(seq),
                ack: Some(ack),
                window: Some(512),
                flags: Some("PA".to_owned()),
                payload: 17,
            })
        };
        let row = PacketRow {
            time_ns: 2_000_123_000,
            direction: "from-replica".to_owned(),
            instance: Some("b".to_owned()),
            slot: Some(1),
            verdict: "to-client".to_owned(),
            reasons: vec!["delivered".to_owned()],
            before: segment(900_000, 11),
            after: segment(1000, 11),
            ..PacketRow::default()
        };
        assert_eq!(
            line(&row, 1_000_000_000),
            "   1.000123        <- 1 b      PA  seq 900000=>1000          ack 11                    len 17    \
             to-client [delivered]"
        );
    }
}

//! A run to read: what every packet said, in numbers that begin at 0, and what became of it.

use mirror_common::tcp::segment::bit;

use super::{
    frame::Parsed,
    middle::{Step, To},
    world::World,
};

impl World {
    pub(super) fn trace(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.lines {
            let ms = self.now as f64 / 1_000.0;
            lines
                .borrow_mut()
                .push(format!("{ms:>12.3} ms  {}", line()));
        }
    }

    pub(super) fn trace_step(&self, from: Option<usize>, parsed: &Parsed, step: &Step) {
        if self.lines.is_none() {
            return;
        }
        let port = if from.is_some() {
            parsed.ports.1
        } else {
            parsed.ports.0
        };
        let entry = step.flow.as_ref().map(|(_, after)| after);
        let plan = match entry {
            Some(entry) => &self.scenario.flows[entry.number],
            None => match self.scenario.flows.iter().find(|plan| plan.port == port) {
                Some(plan) => plan,
                None => return,
            },
        };
        let canonical = entry.map_or(0, |entry| entry.flow.sync.isn);
        let client = plan.isns.0;
        let heard = match from {
            None => format!("client: {}", say(parsed, client, canonical)),
            Some(instance) => {
                let own = plan.isns.1[instance];
                format!("     {instance}: {}", say(parsed, own, client))
            }
        };
        let sent: Vec<_> = step
            .out
            .iter()
            .filter_map(|(to, frame)| Some((to, frame.parse()?)))
            .map(|(to, parsed)| match to {
                To::Client => format!("client [{}]", say(&parsed, canonical, client)),
                To::Instance(instance) => {
                    let own = plan.isns.1[*instance];
                    let segment = &parsed.segment;
                    format!(
                        "{instance} [ack {} ts {}]",
                        offset(segment.ack, own),
                        segment.ts_ecr
                    )
                }
            })
            .collect();
        let notes = &step.notes;
        let mut more = String::new();
        if let Some(entry) = entry.filter(|_| notes.takeover != 0) {
            more += &format!(
                " TAKEOVER by slot {} ({})",
                entry.flow.flow.active, notes.takeover
            );
        }
        if notes.went_cold != 0 {
            more += &format!(" COLD {:04b}", notes.went_cold);
        }
        if notes.closed {
            more += " CLOSED";
        }
        self.trace(|| {
            format!(
                "{port} {heard} => {} {}{more}",
                step.verdict,
                sent.join(", ")
            )
        });
    }
}

fn offset(number: u32, isn: u32) -> i32 {
    number.wrapping_sub(isn).wrapping_sub(1) as i32
}

fn say(parsed: &Parsed, own: u32, peer: u32) -> String {
    let segment = &parsed.segment;
    let names = [
        (bit::SYN, 'S'),
        (bit::FIN, 'F'),
        (bit::RST, 'R'),
        (bit::PSH, 'P'),
        (bit::ACK, '.'),
    ];
    let flags: String = names
        .iter()
        .filter(|(flag, _)| segment.is(*flag))
        .map(|&(_, name)| name)
        .collect();
    format!(
        "{flags} {}+{} ack {} win {} ts {} {}",
        offset(segment.seq, own),
        segment.payload,
        offset(segment.ack, peer),
        segment.window,
        segment.ts_val,
        segment.ts_ecr,
    )
}

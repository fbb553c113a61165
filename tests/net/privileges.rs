//! What an agent that root started may still do.

use std::{fs, path::Path};

use testbed::topology::Family;

use crate::support::{LIMIT, Site, calmly, wait_replies};

/// CAP_CHOWN, DAC_OVERRIDE, NET_ADMIN, NET_RAW, SYS_NICE, PERFMON, BPF (capability.h).
const KEPT: u64 = 1 | 1 << 1 | 1 << 12 | 1 << 13 | 1 << 23 | 1 << 38 | 1 << 39;
const NET_ADMIN: u64 = 1 << 12;

/// A set of capabilities from a `status` file of /proc.
fn set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    u64::from_str_radix(line.unwrap().trim_start_matches(':').trim(), 16).unwrap()
}

/// Name and status of each thread.
fn threads(pid: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).unwrap();
    let read = |file| fs::read_to_string(file).unwrap();
    tasks
        .map(|task| task.unwrap().path())
        .map(|task| (read(task.join("comm")), read(task.join("status"))))
        .collect()
}

#[test]
fn the_agent_keeps_the_rights_that_it_needs_and_its_api_none() {
    calmly(|| {
        let site = Site::alone(2);
        let mut agent = site.agent(&site.config());
        // Who answers has given its rights up.
        agent.text(&["status"]).unwrap();
        let threads = threads(agent.pid().unwrap());
        let (mut names, mut main) = (Vec::new(), 0);
        for (name, status) in &threads {
            for kind in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
                let rights = set(status, kind);
                assert_eq!(rights & !KEPT, 0, "{name}: {kind} {rights:x}");
                assert!(
                    name.trim() != "api" || kind == "CapBnd" || rights == 0,
                    "{name}: {kind} {rights:x}"
                );
            }
            main |= set(status, "CapEff") & NET_ADMIN;
            names.push(name.trim());
        }
        assert!(names.contains(&"api"), "{names:?}");
        assert_eq!(main, NET_ADMIN);

        // That is enough for everything: here for what the API's thread reads, orders, and another configuration.
        let mut client = site.client(Family::V4, 10);
        agent.wait_warm(10, LIMIT).unwrap();
        let calm = site.calm();
        agent.text(&["metrics"]).unwrap();
        agent.act("evacuate", "a").unwrap();
        let mut fewer = site.config();
        fewer.instance[0].weight = 1;
        fewer.write(agent.file()).unwrap();
        agent.text(&["reload"]).unwrap();
        wait_replies(&mut client, 100);
        calm.check(&client.finish().unwrap(), 10);
        agent.check_alive().unwrap();
    });
}

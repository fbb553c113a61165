//! Facts about the machine as a whole become findings. Interfaces have a file of their own.

use super::{Facts, Finding, Repair, Severity, interfaces};

/// Clock sources that are read without leaving the processor, or nearly so: the programs read the time for
/// each packet.
const CLOCKS: &[&str] = &[
    "tsc",
    "kvm-clock",
    "xen",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
];
/// Each replica set that is being filled takes a descriptor, and so does each connection to the API.
const FILES_MIN: u64 = 1_024;

/// Judges everything.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = requirements(facts);
    findings.push(bpffs(facts));
    findings.extend(pins(facts));
    findings.push(agent(facts));
    findings.extend(lockdown(facts));
    findings.extend(unprivileged(facts));
    findings.extend(jit(facts));
    findings.extend(clock(facts));
    findings.push(limits(facts));
    findings.extend(forwarding(facts));
    if !facts.configured {
        let what = "neither a file was named nor does an agent run: interfaces and instances were not looked at";
        let finding = Finding::new(Severity::Note, "configuration", what);
        findings.push(finding.advise("mirror-ctl doctor --config FILE"));
    }
    for port in &facts.ports {
        findings.extend(interfaces::judge(facts, port));
    }
    for instance in &facts.instances {
        findings.push(interfaces::neighbour(instance));
    }
    findings
}

fn requirements(facts: &Facts) -> Vec<Finding> {
    let found = |name| match name {
        "kernel" => format!("Linux {}", facts.release),
        "btf" => "the kernel has type information".to_owned(),
        _ => "all that are needed".to_owned(),
    };
    let judged = facts.requirements.iter();
    judged
        .map(|(name, complaint)| match complaint {
            Some(complaint) => Finding::new(Severity::Error, name, complaint),
            None => Finding::new(Severity::Fine, name, found(*name)),
        })
        .collect()
}

fn bpffs(facts: &Facts) -> Finding {
    let dir = facts.pin_dir.display();
    if facts.on_bpffs {
        return Finding::new(Severity::Fine, "bpffs", format!("{dir} is on one"));
    }
    let what = format!("{dir} is not on a bpffs: nothing can be pinned there");
    if facts.pin_dir.starts_with("/sys/fs/bpf") {
        let finding = Finding::new(Severity::Warning, "bpffs", what);
        return finding.repair(Repair::MountBpffs {
            pin_dir: facts.pin_dir.clone(),
        });
    }
    Finding::new(Severity::Error, "bpffs", what)
        .advise("name a pin_dir under /sys/fs/bpf in [agent]")
}

fn pins(facts: &Facts) -> Vec<Finding> {
    let pinned = &facts.pinned;
    let mut findings = Vec::new();
    if let Some(complaint) = &pinned.complaint {
        let what = format!("what is pinned cannot be adopted: it has {complaint}");
        let advice = format!(
            "take it off with the version that made it, or with `mirror-ctl unload --pin-dir {}` \
             (established connections lose their state)",
            facts.pin_dir.display()
        );
        findings.push(Finding::new(Severity::Error, "pins", what).advise(advice));
    }
    for path in &pinned.gone {
        let what = "a pinned link of an interface that is gone";
        let finding = Finding::new(Severity::Warning, "pins", what).on(path.display().to_string());
        findings.push(finding.repair(Repair::RemovePin { path: path.clone() }));
    }
    if pinned.adoptable && !facts.agent {
        let what = "a dataplane is pinned and no agent looks after it: failures are not seen";
        let finding = Finding::new(Severity::Warning, "pins", what);
        findings.push(
            finding.advise(
                "start the agent, which adopts it, or take it off with `mirror-ctl unload`",
            ),
        );
    }
    if findings.is_empty() {
        let what = match pinned.adoptable {
            true => "a dataplane is pinned, and its agent runs",
            false => "nothing is pinned",
        };
        findings.push(Finding::new(Severity::Fine, "pins", what));
    }
    findings
}

fn agent(facts: &Facts) -> Finding {
    match facts.agent {
        true => Finding::new(Severity::Fine, "agent", "it answers"),
        false => Finding::new(Severity::Note, "agent", "none answers on the socket")
            .advise("mirror-ctl agent --config FILE"),
    }
}

fn lockdown(facts: &Facts) -> Option<Finding> {
    // "[none] integrity confidentiality": the one in brackets is in force.
    let text = facts.lockdown.as_deref()?;
    let level = text.split_whitespace().find(|word| word.starts_with('['))?;
    Some(match level.trim_matches(['[', ']']) {
        level @ ("none" | "integrity") => Finding::new(Severity::Fine, "lockdown", level),
        level => Finding::new(Severity::Note, "lockdown", level)
            .advise("XDP is not touched by it; tracing of the programs is"),
    })
}

fn unprivileged(facts: &Facts) -> Option<Finding> {
    let check = "unprivileged-bpf";
    Some(match facts.unprivileged_bpf_disabled? {
        0 => Finding::new(Severity::Warning, check, "any user may load programs")
            .repair(Repair::sysctl("kernel.unprivileged_bpf_disabled", 2)),
        _ => Finding::new(Severity::Fine, check, "only with the rights for it"),
    })
}

fn jit(facts: &Facts) -> Option<Finding> {
    Some(match facts.jit? {
        0 => Finding::new(Severity::Warning, "jit", "programs are interpreted")
            .repair(Repair::sysctl("net.core.bpf_jit_enable", 1)),
        _ => Finding::new(Severity::Fine, "jit", "programs are compiled"),
    })
}

fn clock(facts: &Facts) -> Option<Finding> {
    let clock = facts.clock.as_deref()?;
    if CLOCKS.contains(&clock) {
        return Some(Finding::new(Severity::Fine, "clock", clock));
    }
    let what = format!("{clock} is slow to read, and is read for each packet");
    // Not repaired: the kernel left the fast one for a reason.
    Some(Finding::new(Severity::Warning, "clock", what).advise(
        "see why the kernel left the fast one (`dmesg | grep -i clocksource`); \
         /sys/devices/system/clocksource/clocksource0/available_clocksource lists the others",
    ))
}

fn limits(facts: &Facts) -> Finding {
    let files = facts.files_max;
    if files < FILES_MIN {
        let what =
            format!("a process may open {files} files, and the agent needs up to {FILES_MIN}");
        return Finding::new(Severity::Warning, "limits", what)
            .advise("LimitNOFILE= of the service, or `ulimit -Hn`");
    }
    // From 5.11 on, maps are charged to the control group; older kernels are refused altogether.
    let what = format!("{files} open files; locked memory needs no limit on this kernel");
    Finding::new(Severity::Fine, "limits", what)
}

fn forwarding(facts: &Facts) -> Option<Finding> {
    // What belongs to a VNI never meets the kernel's routing.
    Some(match facts.ip_forward? {
        0 => Finding::new(
            Severity::Note,
            "forwarding",
            "off: VNIs do not need it; what else instances send by this host goes no further",
        )
        .advise("sysctl -w net.ipv4.ip_forward=1, if instances are to reach others by this host"),
        _ => Finding::new(Severity::Fine, "forwarding", "on"),
    })
}

//! What an emulated machine says on its console, and whether it is as it must be. Pure.

use serde_json::{Value, json};

/// What the agent says when it will not run on a kernel at all.
const TOO_OLD: &str = "is too old:";
/// What it says when it will not clone in generic mode.
const CANNOT_CLONE: &str = "cannot clone:";
/// Without these steps nothing is known of a kernel.
const STEPS: [&str; 3] = ["load", "native", "generic"];

/// One kernel's.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) release: String,
    pub(super) programs: Vec<Loaded>,
    pub(super) steps: Vec<Step>,
    is_complete: bool,
}

/// A program that the kernel took.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) name: String,
    /// Instructions that the verifier walked.
    pub(super) verified: u64,
    pub(super) ms: u64,
}

/// A run of a test program.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) name: String,
    /// None while it runs.
    status: Option<u32>,
    pub(super) seconds: u64,
    passed: u64,
    failed: u64,
    /// Why the agent or the kernel would not.
    pub(super) refusal: Option<String>,
}

impl Step {
    pub(super) fn is_passed(&self) -> bool {
        self.status == Some(0) && self.failed == 0 && self.passed > 0
    }

    fn is_refused(&self, why: &str) -> bool {
        self.refusal.as_ref().is_some_and(|text| text.contains(why))
    }

    /// For the table.
    pub(super) fn outcome(&self) -> String {
        match &self.refusal {
            _ if self.is_passed() => format!("{} passed", self.passed),
            Some(_) => "refused".to_owned(),
            None => format!("{} passed, {} failed", self.passed, self.failed),
        }
    }
}

impl Report {
    /// Takes in a line of the console.
    pub(super) fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["@@", "kernel", release] => self.release = release.to_owned(),
            ["@@", "begin", name] => self.steps.push(Step {
                name: name.to_owned(),
                ..Step::default()
            }),
            ["@@", "end", _, status, seconds] => {
                if let Some(step) = self.steps.last_mut() {
                    step.status = status.parse().ok();
                    step.seconds = seconds.parse().unwrap_or(0);
                }
            }
            ["@@", "done"] => self.is_complete = true,
            _ => self.hear_step(line, &words),
        }
    }

    fn hear_step(&mut self, line: &str, words: &[&str]) {
        let Some(step) = self.steps.last_mut() else {
            return;
        };
        // Behind "test NAME ... ", if output is not captured.
        if let Some(at) = words.iter().position(|word| *word == "loaded")
            && let [
                _,
                name,
                verified,
                "instructions",
                "verified",
                "in",
                ms,
                "ms",
            ] = words[at..]
            && let (Ok(verified), Ok(ms)) = (verified.parse(), ms.parse())
        {
            let name = name.trim_end_matches(':').to_owned();
            self.programs.push(Loaded { name, verified, ms });
        }
        if let ["test", "result:", _, passed, "passed;", failed, ..] = words {
            step.passed = passed.parse().unwrap_or(0);
            step.failed = failed.parse().unwrap_or(0);
        }
        let is_refusal = [TOO_OLD, CANNOT_CLONE, "the kernel refused"]
            .iter()
            .any(|text| line.contains(text));
        if is_refusal && step.refusal.is_none() {
            step.refusal = Some(line.trim_start_matches("mirror-ctl: ").to_owned());
        }
    }

    /// What is not as it must be. Every kernel loads the programs. One that the agent refuses is as it must be when it is refused each
    /// time; on the others only cloning in generic mode may be refused.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.is_complete {
            let last = self.steps.last().map_or("the kernel", |step| &step.name);
            complaints.push(format!("it ended in {last}"));
        }
        let find = |name: &str| self.steps.iter().find(|step| step.name == name);
        complaints.extend(
            STEPS
                .into_iter()
                .filter(|name| find(name).is_none())
                .map(|name| format!("{name} was not tried")),
        );
        let is_shared = find("generic").is_some_and(|step| step.is_refused(CANNOT_CLONE));
        let is_too_old = find("native").is_some_and(|step| step.is_refused(TOO_OLD));
        for step in &self.steps {
            let is_right = match step.name.as_str() {
                "native" | "generic" if is_too_old => step.is_refused(TOO_OLD),
                // What they do on a kernel that the agent refuses does not matter.
                "prog" | "clones" if is_too_old => true,
                // They show why.
                "generic" | "clones" if is_shared => true,
                _ => step.is_passed(),
            };
            if !is_right {
                complaints.push(format!("{}: {}", step.name, step.outcome()));
            }
        }
        complaints
    }

    pub(super) fn to_json(&self) -> Value {
        let programs = self.programs.iter().map(
            |program| json!({"name": program.name, "verified": program.verified, "ms": program.ms}),
        );
        let steps = self.steps.iter().map(|step| {
            json!({"name": step.name, "passed": step.passed, "failed": step.failed,
                "seconds": step.seconds, "refusal": step.refusal})
        });
        json!({"kernel": self.release, "programs": programs.collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(), "complaints": self.complaints()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADED: &str = "@@ kernel 6.12.43\n@@ begin load\n\
        test a ... loaded clone: 194008 instructions verified in 1500 ms\n\
        test result: ok. 4 passed; 0 failed; 0 ignored\n@@ end load 0 12\n";
    const NATIVE: &str =
        "@@ begin native\ntest result: ok. 5 passed; 0 failed; 0 ignored\n@@ end native 0 40\n";

    #[track_caller]
    fn check(console: &str, expected: &[&str]) -> Report {
        let mut report = Report::default();
        console.lines().for_each(|line| report.hear(line));
        assert_eq!(report.complaints(), expected);
        report
    }

    fn generic(said: &str) -> String {
        format!(
            "@@ begin generic\n{said}\ntest result: FAILED. 0 passed; 5 failed; 0 ignored\n@@ end generic 101 9\n"
        )
    }

    #[test]
    fn only_generic_cloning_may_be_refused() {
        let refused = generic("mirror-ctl: vni \"web\": Linux 6.12.43 cannot clone: it gives");
        let report = check(&format!("{LOADED}{NATIVE}{refused}@@ done\n"), &[]);
        assert_eq!(report.release, "6.12.43");
        assert_eq!(report.programs[0].verified, 194_008);
        assert_eq!(report.programs[0].ms, 1500);
        let failed = generic("0 of 24 flows are warm");
        check(
            &format!("{LOADED}{NATIVE}{failed}@@ done\n"),
            &["generic: 0 passed, 5 failed"],
        );
        let native = refused.replace("generic", "native");
        check(
            &format!("{LOADED}{native}{refused}@@ done\n"),
            &["native: refused"],
        );
        let clones = failed.replace("generic", "clones");
        check(&format!("{LOADED}{clones}{NATIVE}{refused}@@ done\n"), &[]);
        check(
            &format!(
                "{LOADED}{clones}{NATIVE}{}@@ done\n",
                NATIVE.replace("native", "generic")
            ),
            &["clones: 0 passed, 5 failed"],
        );
    }

    #[test]
    fn a_kernel_that_is_too_old_is_refused_each_time() {
        let refused = generic("mirror-ctl: Linux 6.1.0 is too old: 6.9 or later is needed");
        let native = refused.replace("generic", "native");
        let prog = generic("not as on a newer one").replace("generic", "prog");
        check(&format!("{LOADED}{prog}{native}{refused}@@ done\n"), &[]);
        check(
            &format!("{LOADED}{native}{}@@ done\n", generic("")),
            &["generic: 0 passed, 5 failed"],
        );
        let load = "@@ begin load\nthe kernel refused vni_ingress: Argument list too long\n\
            test result: FAILED. 0 passed; 4 failed; 0 ignored\n@@ end load 101 85\n";
        check(
            &format!("{load}{native}{refused}@@ done\n"),
            &["load: refused"],
        );
    }

    #[test]
    fn a_machine_that_ends_early_has_shown_nothing() {
        check(
            &format!("{LOADED}@@ begin native\n"),
            &[
                "it ended in native",
                "generic was not tried",
                "native: 0 passed, 0 failed",
            ],
        );
        check(
            "",
            &[
                "it ended in the kernel",
                "load was not tried",
                "native was not tried",
                "generic was not tried",
            ],
        );
    }
}

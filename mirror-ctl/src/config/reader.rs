//! Reads a TOML tree with the line of everything in it, and goes on after each mistake, so that
//! all of them are reported at once. (serde stops at the first one.)

use std::{cell::RefCell, collections::HashSet, ops::RangeInclusive};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Finding, PerSecond};

/// A value and the line it stands in.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// Collects what is wrong with a text.
pub(super) struct Report {
    /// Where lines end.
    ends: Vec<usize>,
    findings: RefCell<Vec<Finding>>,
}

impl Report {
    pub(super) fn new(text: &str) -> Self {
        Self {
            ends: text.match_indices('\n').map(|(offset, _)| offset).collect(),
            findings: RefCell::default(),
        }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < offset)
    }

    pub(super) fn add(&self, line: usize, reason: impl Into<String>) {
        self.findings.borrow_mut().push(Finding {
            line,
            reason: reason.into(),
        });
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        let mut findings = self.findings.into_inner();
        findings.sort();
        findings.dedup();
        findings
    }
}

/// One table, with the keys that were asked for.
pub(super) struct Section<'a> {
    pub(super) report: &'a Report,
    /// What messages call it.
    pub(super) name: String,
    pub(super) line: usize,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<HashSet<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        report: &'a Report,
        name: impl Into<String>,
        line: usize,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        Self {
            report,
            name: name.into(),
            line,
            table,
            asked: RefCell::default(),
        }
    }

    /// Reports something wrong with this section.
    pub(super) fn wrong(&self, line: usize, reason: impl std::fmt::Display) {
        self.report.add(line, format!("{}: {reason}", self.name));
    }

    fn get(&self, key: &'static str) -> Option<At<&'a DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        let value: &'a Spanned<DeValue<'a>> = self.table?.get(key)?;
        Some(At {
            value: value.get_ref(),
            line: self.report.line(value.span().start),
        })
    }

    fn expected(&self, key: &str, at: &At<&DeValue<'_>>, what: &str) {
        let found = at.value.type_str();
        self.wrong(at.line, format!("{key} must be {what}, not {found}"));
    }

    pub(super) fn string(&self, key: &'static str) -> Option<At<String>> {
        let at = self.get(key)?;
        let Some(text) = at.value.as_str() else {
            self.expected(key, &at, "a string");
            return None;
        };
        Some(At {
            value: text.to_owned(),
            line: at.line,
        })
    }

    /// Like [`Self::string`], and reports its absence.
    pub(super) fn required(&self, key: &'static str) -> Option<At<String>> {
        let there = self.table.is_some_and(|table| table.contains_key(key));
        if !there {
            self.asked.borrow_mut().insert(key);
            self.wrong(self.line, format!("{key} is missing"));
            return None;
        }
        self.string(key)
    }

    /// A string that has a meaning of its own.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let at = self.string(key)?;
        match parse(&at.value) {
            Ok(value) => Some(At {
                value,
                line: at.line,
            }),
            Err(reason) => {
                self.wrong(at.line, format!("{key}: {reason}"));
                None
            }
        }
    }

    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(at) = self.string(key) else {
            return default;
        };
        let chosen = choices.iter().find(|(name, _)| *name == at.value);
        chosen.map(|(_, value)| *value).unwrap_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(n, _)| format!("{n:?}")).collect();
            self.wrong(
                at.line,
                format!("{key} must be {}, not {:?}", names.join(" or "), at.value),
            );
            default
        })
    }

    pub(super) fn integer(
        &self,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> At<u32> {
        let fallback = At {
            value: default,
            line: self.line,
        };
        let Some(at) = self.get(key) else {
            return fallback;
        };
        let Some(integer) = at.value.as_integer() else {
            self.expected(key, &at, "an integer");
            return fallback;
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.and_then(|value| u32::try_from(value).ok());
        match value.filter(|value| range.contains(value)) {
            Some(value) => At {
                value,
                line: at.line,
            },
            None => {
                let (low, high) = (range.start(), range.end());
                self.wrong(
                    at.line,
                    format!("{key} must be {low} to {high}, not {integer}"),
                );
                fallback
            }
        }
    }

    /// How often a second something may be: an integer, or no limit.
    pub(super) fn per_second(
        &self,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> PerSecond {
        const UNLIMITED: &str = "unlimited";
        let Some(at) = self.get(key) else {
            return PerSecond::Times(default);
        };
        if at.value.as_str() == Some(UNLIMITED) {
            return PerSecond::UNLIMITED;
        }
        let found = match at.value {
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::String(text) => format!("{text:?}"),
            other => other.type_str().to_owned(),
        };
        let number = at.value.as_integer();
        let number = number.and_then(|i| i64::from_str_radix(i.as_str(), i.radix()).ok());
        let number = number.and_then(|value| u32::try_from(value).ok());
        match number.filter(|value| range.contains(value)) {
            Some(value) => PerSecond::Times(value),
            None => {
                let (low, high) = (range.start(), range.end());
                self.wrong(
                    at.line,
                    format!("{key} must be {low} to {high} or {UNLIMITED:?}, not {found}"),
                );
                PerSecond::Times(default)
            }
        }
    }

    /// A number, whole or not.
    pub(super) fn number(&self, key: &'static str, low: f64, high: f64) -> Option<At<f64>> {
        let at = self.get(key)?;
        self.within(key, &at, low, high).map(|value| At {
            value,
            line: at.line,
        })
    }

    /// The same of a key that is a name.
    pub(super) fn number_of(&self, name: &At<String>, low: f64, high: f64) -> Option<f64> {
        let value: &'a Spanned<DeValue<'a>> = self.table?.get(name.value.as_str())?;
        let at = At {
            value: value.get_ref(),
            line: name.line,
        };
        self.within(&name.value, &at, low, high)
    }

    fn within(&self, key: &str, at: &At<&DeValue<'_>>, low: f64, high: f64) -> Option<f64> {
        let text = match at.value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            _ => {
                self.expected(key, at, "a number");
                return None;
            }
        };
        match text.parse::<f64>() {
            Ok(value) if (low..=high).contains(&value) => Some(value),
            _ => {
                self.wrong(
                    at.line,
                    format!("{key} must be {low} to {high}, not {text}"),
                );
                None
            }
        }
    }

    /// The keys of a table whose keys are names.
    pub(super) fn keys(&self) -> Vec<At<String>> {
        let keys = self.table.into_iter().flatten();
        keys.map(|(key, _)| At {
            value: key.get_ref().as_ref().to_owned(),
            line: self.report.line(key.span().start),
        })
        .collect()
    }

    /// A number between 0 and 1.
    pub(super) fn fraction(&self, key: &'static str, default: f64) -> f64 {
        let Some(at) = self.get(key) else {
            return default;
        };
        let text = match at.value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) => integer.as_str(),
            _ => {
                self.expected(key, &at, "a number");
                return default;
            }
        };
        match text.parse::<f64>() {
            Ok(value) if (0.0..=1.0).contains(&value) => value,
            _ => {
                self.wrong(at.line, format!("{key} must be 0.0 to 1.0, not {text}"));
                default
            }
        }
    }

    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        let Some(at) = self.get(key) else {
            return default;
        };
        at.value.as_bool().unwrap_or_else(|| {
            self.expected(key, &at, "true or false");
            default
        })
    }

    /// A list of strings; `None` when the key is absent.
    pub(super) fn strings(&self, key: &'static str) -> Option<Vec<At<String>>> {
        let at = self.get(key)?;
        let Some(array) = at.value.as_array() else {
            self.expected(key, &at, "a list of strings");
            return Some(Vec::new());
        };
        if array.is_empty() {
            self.wrong(at.line, format!("{key} is empty"));
        }
        let mut strings: Vec<At<String>> = Vec::new();
        for entry in array.iter() {
            let line = self.report.line(entry.span().start);
            let Some(text) = entry.get_ref().as_str() else {
                self.wrong(line, format!("{key} must hold strings only"));
                continue;
            };
            if strings.iter().any(|other| other.value == text) {
                self.wrong(line, format!("{key} names {text:?} twice"));
                continue;
            }
            strings.push(At {
                value: text.to_owned(),
                line,
            });
        }
        Some(strings)
    }

    /// A list of ports, of which there are no more than `most`; none when the key is absent.
    pub(super) fn ports(&self, key: &'static str, most: usize) -> Vec<u16> {
        let Some(at) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = at.value.as_array() else {
            self.expected(key, &at, "a list of ports");
            return Vec::new();
        };
        if array.len() > most {
            self.wrong(at.line, format!("{key} names more than {most} ports"));
        }
        let mut ports = Vec::new();
        for entry in array.iter() {
            let line = self.report.line(entry.span().start);
            let integer = entry.get_ref().as_integer();
            let port = integer.and_then(|i| u16::from_str_radix(i.as_str(), i.radix()).ok());
            match port {
                None | Some(0) => self.wrong(
                    line,
                    format!("{key} must hold ports only, which are 1 to 65535"),
                ),
                Some(port) if ports.contains(&port) => {
                    self.wrong(line, format!("{key} names {port} twice"));
                }
                Some(port) => ports.push(port),
            }
        }
        ports
    }

    /// A table in this one; an empty one when it is absent.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let at = self.get(key);
        let table = at.as_ref().and_then(|at| {
            let table = at.value.as_table();
            if table.is_none() {
                self.expected(key, at, "a table");
            }
            table
        });
        let line = at.map_or(self.line, |at| at.line);
        Section::new(self.report, self.nested(key), line, table)
    }

    /// Whether the key is there at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(at) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = at.value.as_array() else {
            self.report
                .add(at.line, format!("{key} must be written as [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for entry in array.iter() {
            let line = self.report.line(entry.span().start);
            match entry.get_ref().as_table() {
                Some(table) => {
                    sections.push(Section::new(self.report, key, line, Some(table)));
                }
                None => self
                    .report
                    .add(line, format!("{key} must be written as [[{key}]]")),
            }
        }
        sections
    }

    fn nested(&self, key: &str) -> String {
        match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{name}: {key}"),
        }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(&self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !asked.contains(name) {
                let line = self.report.line(key.span().start);
                let mut known: Vec<_> = asked.iter().copied().collect();
                known.sort_unstable();
                let place = self.nested(&format!("unknown key {name:?}"));
                self.report
                    .add(line, format!("{place} (known: {})", known.join(", ")));
            }
        }
    }
}

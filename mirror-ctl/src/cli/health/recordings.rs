//! Recordings named on the command line: files, and folders of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::health::{
    learning::{
        recorded::{Stretch, Unfit, stretches},
        rotation,
    },
    recording::Recording,
    truth::store::{self, Labelled},
};

const EXTENSION: &str = "rec";

/// Everything that was recorded there. The files of one VNI in a folder are one recording. Of recordings with the truth
/// beside them, who failed is known from there.
pub(super) fn load(places: &[PathBuf]) -> Result<Vec<Stretch>> {
    let mut all = Vec::new();
    for place in places {
        if store::is_in(place) {
            for of in store::load(place)? {
                all.extend(told(&of).with_context(|| of.name.clone())?);
            }
            continue;
        }
        for files in recordings(place)? {
            let mut moments = Vec::new();
            for file in &files {
                let recording =
                    Recording::load(file).with_context(|| file.display().to_string())?;
                if recording.torn > 0 {
                    let torn = recording.torn;
                    eprintln!(
                        "{}: {torn} bytes of a torn tail passed over",
                        file.display()
                    );
                }
                moments.extend(recording.moments);
            }
            let what = || {
                files
                    .first()
                    .map_or_else(String::new, |f| f.display().to_string())
            };
            all.extend(stretches(&moments).with_context(what)?);
        }
    }
    Ok(all)
}

fn told(of: &Labelled) -> Result<Vec<Stretch>, Unfit> {
    let at = |second: usize| of.label.from_ms + second as u64 * 1_000;
    let failures: Vec<_> = of
        .label
        .failures
        .iter()
        .map(|failure| {
            let time_ms = at(failure.from_s)..at(failure.until_s);
            (failure.instance.as_str(), time_ms)
        })
        .collect();
    let mut stretches = stretches(&of.recording.moments)?;
    stretches.iter_mut().for_each(|s| s.tell(&failures));
    Ok(stretches)
}

/// A file by itself; of a folder those of each VNI together, in their order, and others by themselves.
fn recordings(place: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let what = || place.display().to_string();
    if !fs::metadata(place).with_context(what)?.is_dir() {
        return Ok(vec![vec![place.to_owned()]]);
    }
    let mut found: BTreeMap<String, Vec<(u64, PathBuf)>> = BTreeMap::new();
    for entry in fs::read_dir(place).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path
            .extension()
            .is_none_or(|extension| extension != EXTENSION)
        {
            continue;
        }
        let (of, number) = match rotation::parse(&name) {
            Some((vni, number)) => (vni.to_owned(), number),
            None => (name.clone().into_owned(), 0),
        };
        found.entry(of).or_default().push((number, path));
    }
    if found.is_empty() {
        bail!("{}: there is no .{EXTENSION} file", what());
    }
    let in_order = |mut files: Vec<(u64, PathBuf)>| {
        files.sort();
        files.into_iter().map(|(_, path)| path).collect()
    };
    Ok(found.into_values().map(in_order).collect())
}

//! The model file: versioned, checksummed, and trusted in nothing.
//!
//! Layout, little-endian: 8 bytes of magic, version (u32), length of what follows the header (u64), CRC-32 of that
//! (u32); then the length of a JSON head (u32), the head, and each hazard's nodes (16 bytes) and roots (4 bytes).
//! The version is our own: smartcore's files of one release do not load in the next, and are not used.

use serde::{Deserialize, Serialize};

use crate::health::learning::drift::Reference;

use super::{
    calibrate::Calibration,
    features,
    forest::{BadForest, Forest, Node},
    model::{Card, HORIZONS_S, Hazard, Model},
};

const MAGIC: [u8; 8] = *b"MIRRORHP";
/// Of the layout above. Raised by any change of it.
pub const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 8 + 4;
const NODE: usize = 16;
/// A file with more is not one of ours; nothing is allocated for it.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Why a file is not a model that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It begins with something else.
    #[error("not a model file")]
    Magic,
    /// Another release wrote it.
    #[error("model file version {found}, but this program reads version {VERSION}; train it anew")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It ends too early.
    #[error("model file is truncated: {found} bytes of {expected}")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// It is larger than any model.
    #[error("model file is too large: {0} bytes")]
    TooLarge(u64),
    /// Its checksum is wrong.
    #[error("model file is corrupt: its checksum is {found:08x}, it says {expected:08x}")]
    Checksum {
        /// Of its content.
        found: u32,
        /// In its header.
        expected: u32,
    },
    /// Its head cannot be read.
    #[error("model file has a bad head")]
    Head(#[from] serde_json::Error),
    /// It was trained on other features.
    #[error("model was trained on other features than this program has; train it anew")]
    Features,
    /// Its trees cannot be walked.
    #[error("model has a bad tree")]
    Forest(#[from] BadForest),
    /// What it says of its features' distribution cannot be.
    #[error("model has a bad reference of its features")]
    Reference,
    /// A calibration falls, or is not a number.
    #[error("model has a bad calibration")]
    Calibration,
}

#[derive(Serialize, Deserialize)]
struct Head {
    card: Card,
    hazards: [HazardHead; HORIZONS_S.len()],
    #[serde(default)]
    reference: Option<Reference>,
}

#[derive(Serialize, Deserialize)]
struct HazardHead {
    bias: f32,
    calibration: Calibration,
    nodes: u32,
    roots: u32,
}

/// The file of a model.
pub fn encode(model: &Model) -> Result<Vec<u8>, ModelError> {
    let head = serde_json::to_vec(&Head {
        card: model.card.clone(),
        reference: model.reference.clone(),
        hazards: model.hazards.each_ref().map(|hazard| HazardHead {
            bias: hazard.bias,
            calibration: hazard.calibration.clone(),
            nodes: hazard.forest.nodes().len() as u32,
            roots: hazard.forest.roots().len() as u32,
        }),
    })?;
    let mut body = Vec::new();
    body.extend((head.len() as u32).to_le_bytes());
    body.extend(head);
    for hazard in &model.hazards {
        for node in hazard.forest.nodes() {
            body.extend(node.value.to_le_bytes());
            for part in [node.feature, node.left, node.right] {
                body.extend(part.to_le_bytes());
            }
        }
        for root in hazard.forest.roots() {
            body.extend(root.to_le_bytes());
        }
    }
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend((body.len() as u64).to_le_bytes());
    file.extend(crc32fast::hash(&body).to_le_bytes());
    file.extend(body);
    Ok(file)
}

/// The model of a file.
pub fn decode(file: &[u8]) -> Result<Model, ModelError> {
    let mut rest = Bytes(file);
    if rest.take::<8>().ok_or(ModelError::Magic)? != MAGIC {
        return Err(ModelError::Magic);
    }
    let cut = |expected: u64| ModelError::Truncated {
        found: file.len() as u64,
        expected,
    };
    let short = || cut(HEADER as u64);
    let version = rest.u32().ok_or_else(short)?;
    if version != VERSION {
        return Err(ModelError::Version { found: version });
    }
    let length = u64::from_le_bytes(rest.take().ok_or_else(short)?);
    let expected = rest.u32().ok_or_else(short)?;
    if length > FILE_BYTES_MAX as u64 {
        return Err(ModelError::TooLarge(length));
    }
    let Some(body) = rest.0.get(..length as usize) else {
        return Err(cut(HEADER as u64 + length));
    };
    let found = crc32fast::hash(body);
    if found != expected {
        return Err(ModelError::Checksum { found, expected });
    }
    if rest.0.len() > body.len() {
        return Err(ModelError::TooLarge(file.len() as u64));
    }
    // What the checksum covers and its head counts wrongly was written so: still no reason to trust it.
    read(Bytes(body), &cut(HEADER as u64 + length + 1))
}

fn read(mut body: Bytes<'_>, cut: &ModelError) -> Result<Model, ModelError> {
    let again = || match cut {
        ModelError::Truncated { found, expected } => ModelError::Truncated {
            found: *found,
            expected: *expected,
        },
        _ => ModelError::Magic,
    };
    let length = body.u32().ok_or_else(again)? as usize;
    let head = body.slice(length).ok_or_else(again)?;
    let head: Head = serde_json::from_slice(head)?;
    if head.card.features != features::names() {
        return Err(ModelError::Features);
    }
    if head.reference.as_ref().is_some_and(|r| !r.is_valid()) {
        return Err(ModelError::Reference);
    }
    let mut hazards = Vec::new();
    for of in head.hazards {
        let nodes = body.slice(of.nodes as usize * NODE).ok_or_else(again)?;
        let roots = body.slice(of.roots as usize * 4).ok_or_else(again)?;
        let nodes = nodes.chunks_exact(NODE).map(node).collect();
        let roots = roots
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if !of.calibration.is_valid() || !of.bias.is_finite() {
            return Err(ModelError::Calibration);
        }
        hazards.push(Hazard {
            forest: Forest::checked(nodes, roots.collect(), features::WIDTH)?,
            bias: of.bias,
            calibration: of.calibration,
        });
    }
    let hazards = hazards.try_into().map_err(|_| again())?;
    Ok(Model {
        hazards,
        card: head.card,
        reference: head.reference,
    })
}

fn node(bytes: &[u8]) -> Node {
    let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    Node {
        value: f32::from_le_bytes(word(0)),
        feature: u32::from_le_bytes(word(4)),
        left: u32::from_le_bytes(word(8)),
        right: u32::from_le_bytes(word(12)),
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn model() -> Model {
        let mut forest = Forest::default();
        let root = Node {
            value: 0.5,
            feature: 3,
            left: 1,
            right: 2,
        };
        forest.add(&[root, Node::leaf(-1.0), Node::leaf(1.0)]);
        let hazard = Hazard {
            forest,
            bias: -2.0,
            calibration: Calibration::Platt {
                slope: 1.0,
                intercept: 0.1,
            },
        };
        Model {
            hazards: std::array::from_fn(|_| hazard.clone()),
            card: Card {
                corpus: "by hand".to_owned(),
                features: features::names(),
                ..Card::default()
            },
            reference: Some(Reference::of(&[(&[0.5; features::WIDTH], 1.0)])),
        }
    }

    #[track_caller]
    fn check_refused(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut file = encode(&model()).unwrap();
        change(&mut file);
        let error = decode(&file).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_model_comes_back_as_it_was() {
        let model = model();
        assert_eq!(decode(&encode(&model).unwrap()).unwrap(), model);
    }

    #[test]
    fn what_is_wrong_is_said() {
        check_refused(|file| file[0] = b'X', "not a model file");
        check_refused(|file| file.clear(), "not a model file");
        check_refused(|file| file[8] = 9, "version 9");
        check_refused(|file| file.truncate(10), "truncated: 10 bytes of 24");
        check_refused(|file| file.truncate(file.len() - 1), "truncated");
        check_refused(|file| file[20] ^= 1, "corrupt");
        check_refused(|file| *file.last_mut().unwrap() ^= 1, "corrupt");
        check_refused(|file| file[16] = 0xff, "too large");
    }

    #[test]
    fn no_damage_is_a_panic_or_a_model() {
        let file = encode(&model()).unwrap();
        for length in 0..file.len() {
            assert!(decode(&file[..length]).is_err(), "{length} bytes");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            assert!(decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_rightly_sealed_wrong_model_is_refused() {
        let mut other = model();
        other.card.features.pop();
        assert!(matches!(
            decode(&encode(&other).unwrap()),
            Err(ModelError::Features)
        ));
        let mut odd = model();
        odd.reference = Some(Reference::default());
        assert!(matches!(
            decode(&encode(&odd).unwrap()),
            Err(ModelError::Reference)
        ));
        let mut falling = model();
        falling.hazards[2].calibration = Calibration::Platt {
            slope: -1.0,
            intercept: 0.0,
        };
        assert!(matches!(
            decode(&encode(&falling).unwrap()),
            Err(ModelError::Calibration)
        ));
    }

    proptest! {
        /// Whoever can write a file can write its checksum: such a model is refused, or it foresees probabilities all the same.
        #[test]
        fn a_rightly_sealed_model_of_any_bytes_is_refused_or_sound(
            changes in vec((any::<Index>(), any::<u8>()), 1..8),
            level in -60.0f32..60.0,
        ) {
            let mut file = encode(&model()).unwrap();
            for (at, byte) in changes {
                let at = HEADER + at.index(file.len() - HEADER);
                file[at] = byte;
            }
            let sum = crc32fast::hash(&file[HEADER..]).to_le_bytes();
            file[HEADER - 4..HEADER].copy_from_slice(&sum);
            if let Ok(model) = decode(&file) {
                let mut before = 0.0;
                for chance in model.predict(&[level; features::WIDTH]) {
                    prop_assert!((before..=1.0).contains(&chance), "{before}, {chance}");
                    before = chance;
                }
            }
        }
    }
}

//! A folder of servers: `NAME.train.csv.gz` without labels, `NAME.test.csv.gz` with `label` in its first column.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// A file that unpacks to more is refused: a small archive can hold an endless one.
const FILE_BYTES_MAX: u64 = 1 << 30;
const TRAIN: &str = ".train.csv.gz";
const TEST: &str = ".test.csv.gz";

/// Why a folder cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("{path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row is not what it should be.
    #[error("{path}, row {row}: {what}")]
    Row {
        /// Which file.
        path: PathBuf,
        /// Counted from 1, without the header.
        row: usize,
        /// What is wrong.
        what: String,
    },
    /// There is nothing in it.
    #[error("{path}: no pairs of *{TRAIN} and *{TEST}")]
    Empty {
        /// Which folder.
        path: PathBuf,
    },
}

/// Rows of metrics, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// Row after row.
    pub values: Vec<f32>,
    /// Metrics a row.
    pub width: usize,
}

impl Grid {
    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// A row.
    #[must_use]
    pub fn row(&self, number: usize) -> &[f32] {
        &self.values[number * self.width..][..self.width]
    }
}

/// A server's data.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Both halves, the unlabelled one first.
    pub grid: Grid,
    /// Rows of the unlabelled half.
    pub train_rows: usize,
    /// Of the test half: whether it was failing.
    pub failing: Vec<bool>,
}

impl Server {
    /// Only the first part of the labelled half: what choices were made on, apart from what they are judged by.
    pub fn cut(&mut self, share: f64) {
        let rows = (self.failing.len() as f64 * share.clamp(0.0, 1.0)) as usize;
        self.failing.truncate(rows);
        let rows = self.train_rows + rows;
        self.grid.values.truncate(rows * self.grid.width);
    }
}

/// All servers of a folder, by name.
pub fn load(folder: &Path) -> Result<Vec<Server>, DataError> {
    let read = |source| DataError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        if let Some(name) = name.to_string_lossy().strip_suffix(TEST) {
            names.push(name.to_owned());
        }
    }
    // Names decide the folds: their order must not depend on the file system's.
    names.sort();
    if names.is_empty() {
        return Err(DataError::Empty {
            path: folder.to_owned(),
        });
    }
    names.iter().map(|name| server(folder, name)).collect()
}

fn server(folder: &Path, name: &str) -> Result<Server, DataError> {
    let (mut grid, labels) = table(&folder.join(format!("{name}{TRAIN}")), None)?;
    debug_assert!(labels.is_empty());
    let train_rows = grid.rows();
    let (test, failing) = table(&folder.join(format!("{name}{TEST}")), Some(grid.width))?;
    grid.values.extend(test.values);
    Ok(Server {
        name: name.to_owned(),
        grid,
        train_rows,
        failing,
    })
}

/// One file. `labelled`: it has a label first, and then so many metrics.
fn table(path: &Path, labelled: Option<usize>) -> Result<(Grid, Vec<bool>), DataError> {
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let unpacked = MultiGzDecoder::new(file).take(FILE_BYTES_MAX);
    let mut reader = csv::Reader::from_reader(unpacked);
    let (mut grid, mut labels) = (Grid::default(), Vec::new());
    let mut record = csv::StringRecord::new();
    for row in 1.. {
        let wrong = |what: String| DataError::Row {
            path: path.to_owned(),
            row,
            what,
        };
        let more = reader
            .read_record(&mut record)
            .map_err(|error| wrong(error.to_string()))?;
        if !more {
            break;
        }
        let mut fields = record.iter();
        if labelled.is_some() {
            labels.push(match fields.next() {
                Some("0") => false,
                Some("1") => true,
                other => return Err(wrong(format!("label {other:?} is neither 0 nor 1"))),
            });
        }
        let before = grid.values.len();
        for field in fields {
            let value: f32 = field
                .parse()
                .map_err(|_| wrong(format!("{field:?} is not a number")))?;
            // A gap is the metric's last value: the published sets have none, others may.
            let last = before.checked_sub(grid.width.max(1));
            let known = last.map_or(0.0, |last| grid.values[last + grid.values.len() - before]);
            grid.values
                .push(if value.is_finite() { value } else { known });
        }
        let width = grid.values.len() - before;
        let expected = match (grid.width, labelled) {
            (0, Some(width)) => width,
            (0, None) => width,
            (known, _) => known,
        };
        if width != expected || width == 0 {
            return Err(wrong(format!("{width} metrics, expected {expected}")));
        }
        grid.width = expected;
    }
    Ok((grid, labels))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let file = File::create(folder.join(name)).unwrap();
        let mut packed = GzEncoder::new(file, Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap();
    }

    #[test]
    fn a_pair_becomes_a_server() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "b.train.csv.gz", "m0,m1\n1,2\n3,4\n");
        write(
            folder.path(),
            "b.test.csv.gz",
            "label,m0,m1\n1,5,nan\n0,7,8\n",
        );
        let servers = load(folder.path()).unwrap();
        assert_eq!(servers.len(), 1);
        assert_eq!((servers[0].train_rows, servers[0].grid.rows()), (2, 4));
        assert_eq!(servers[0].failing, [true, false]);
        assert!(servers[0].grid.values.iter().all(|value| value.is_finite()));
        assert_eq!(servers[0].grid.row(3), [7.0, 8.0]);
    }

    #[test]
    fn errors_name_file_and_row() {
        let folder = tempfile::tempdir().unwrap();
        let check = |test: &str, expected: &str| {
            write(folder.path(), "b.train.csv.gz", "m0\n1\n");
            write(folder.path(), "b.test.csv.gz", test);
            let error = load(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("label,m0\n2,1\n", "row 1: label Some(\"2\")");
        check("label,m0\n0,1\n0,x\n", "row 2: \"x\" is not a number");
        check("label,m0,m1\n0,1,2\n", "2 metrics, expected 1");
        std::fs::remove_file(folder.path().join("b.test.csv.gz")).unwrap();
        assert!(matches!(load(folder.path()), Err(DataError::Empty { .. })));
    }
}

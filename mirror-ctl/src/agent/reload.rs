//! Another configuration under traffic: from the file, or handed over and kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::info;

use super::{Agent, configure::Occasion};
use crate::config::Config;

/// What became of another configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Applied {
    /// What it changed.
    pub changes: Vec<String>,
    /// What the operator should know.
    pub warning: Option<String>,
}

impl Agent {
    /// Takes up what the file says now, or keeps everything as it is.
    pub(super) async fn reload(&mut self) -> Result<(), String> {
        let config = Config::load(&self.file).map_err(|error| error.to_string())?;
        self.put_in_force(config).await
    }

    /// Takes up another text and makes it the file's: a restart finds it there.
    pub(super) async fn put_in_force_and_keep(&mut self, text: &str) -> Result<Applied, String> {
        let config = Config::parse(&self.file, text).map_err(|error| error.to_string())?;
        let changes = self.state.config.diff(&config);
        self.put_in_force(config).await?;
        let kept = keep(&self.file, text);
        let warning = kept.err().map(|error| {
            let file = self.file.display();
            format!("in force, but not kept: {file}: {error}; a restart goes back to what is there")
        });
        Ok(Applied { changes, warning })
    }

    async fn put_in_force(&mut self, config: Config) -> Result<(), String> {
        if config.agent != self.state.config.agent {
            return Err("[agent] cannot be changed while the agent runs".to_owned());
        }
        if config == self.state.config {
            return Ok(());
        }
        let configured = self.configure(config, Occasion::Reload).await;
        configured.map_err(|error| error.to_string())?;
        info!("configuration reloaded");
        Ok(())
    }
}

/// Writes a file so that it is whole at every moment, and leaves the one before beside it.
fn keep(file: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(file).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let beside = |end: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    fs::write(beside(".new"), text)?;
    fs::copy(file, beside(".before"))?;
    fs::rename(beside(".new"), file)
}

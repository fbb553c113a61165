//! Kernel settings of a namespace.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// Writes settings by their dotted names; a `/` in a name stands for itself.
/// `/proc/sys/net` shows the network of the thread that opens it.
pub fn set(namespace: &Namespace, settings: &[(&str, &str)]) -> Result<()> {
    namespace.run(|| {
        for (name, value) in settings {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            fs::write(&path, value)
                .with_context(|| format!("sysctl {name}={value} in {}", namespace.name()))?;
        }
        Ok(())
    })?
}

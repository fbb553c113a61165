//! The commands of a document: what stands in its indented blocks. (Fenced blocks are what is printed, or files.) Nothing of
//! this package is used, because xtask includes this file as well.

/// A command, which may be of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The last heading before it.
    pub section: String,
    /// As it stands there, without its indentation.
    pub text: String,
}

impl Command {
    /// Its first line, without the remark behind it.
    #[must_use]
    pub fn name(&self) -> &str {
        without_remark(self.text.lines().next().unwrap_or_default())
    }
}

/// A line without the remark behind it.
#[must_use]
pub fn without_remark(line: &str) -> &str {
    line.split(" # ").next().unwrap_or_default().trim_end()
}

/// All commands of a document, in their order.
#[must_use]
pub fn commands(document: &str) -> Vec<Command> {
    let (mut commands, mut section) = (Vec::<Command>::new(), String::new());
    // The word that ends the file which a command is given, and whether a fenced block is open.
    let (mut until, mut fenced) = (None::<String>, false);
    for line in document.lines() {
        if let Some(word) = &until {
            let line = line.strip_prefix("    ").unwrap_or(line);
            if let Some(command) = commands.last_mut() {
                command.text.push('\n');
                command.text.push_str(line);
            }
            if line == word {
                until = None;
            }
        } else if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
        } else if let Some(heading) = line.strip_prefix('#') {
            section = heading.trim_start_matches('#').trim().to_owned();
        } else if let Some(text) = line.strip_prefix("    ") {
            let (section, text) = (section.clone(), text.to_owned());
            let end = text
                .split_once("<<'")
                .and_then(|(_, end)| end.split_once('\''));
            until = end.map(|(word, _)| word.to_owned());
            commands.push(Command { section, text });
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# A
text

    one --flag     # why
    cat > file <<'END'
    x

    END
    two

```text
    output
```
## B
";

    #[test]
    fn commands_are_found_with_their_files() {
        let found = commands(DOCUMENT);
        let texts: Vec<&str> = found.iter().map(|c| c.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "one --flag     # why",
                "cat > file <<'END'\nx\n\nEND",
                "two"
            ]
        );
        assert_eq!(found[0].name(), "one --flag");
        assert_eq!((found[0].section.as_str(), found.len()), ("A", 3));
    }
}

//! Server-sent events as they are read: pieces of any size in, messages out.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub event: String,
    /// What it says.
    pub data: String,
}

/// Puts messages together.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    /// Takes a piece and yields the messages that it completes.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for byte in piece {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            messages.extend(self.end_of_line(&String::from_utf8_lossy(&line)));
        }
        messages
    }

    fn end_of_line(&mut self, line: &str) -> Option<Message> {
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return (message != Message::default()).then_some(message);
        }
        // A line that begins with a colon is a comment: it only keeps the connection alive.
        let (field, value) = line.split_once(':')?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if !self.message.data.is_empty() {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_any_pieces() {
        let text = b": hello\n\nevent: a\nid: 7\ndata: {\"x\": 1}\n\ndata: one\r\ndata: two\r\n\r\nevent: b\n";
        let expected = [("a", "{\"x\": 1}"), ("", "one\ntwo")].map(|(event, data)| Message {
            event: event.to_owned(),
            data: data.to_owned(),
        });
        for size in [1, 3, text.len()] {
            let mut parser = Parser::default();
            let messages: Vec<_> = text
                .chunks(size)
                .flat_map(|piece| parser.feed(piece))
                .collect();
            assert_eq!(messages, expected, "in pieces of {size}");
        }
    }
}

//! What a driver's XDP can do, as the kernel knows it: the generic netlink family `netdev` (Linux 6.3,
//! Documentation/netlink/specs/netdev.yaml). One question, one answer, so the messages are made by hand.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};

const NETLINK_GENERIC: isize = 16;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// `nlmsghdr` and `genlmsghdr`.
const HEADERS: usize = 16 + 4;

/// What XDP can do on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    /// The driver runs programs.
    pub native: bool,
    /// Programs on it may redirect.
    pub redirect: bool,
    /// It takes redirected frames. Many network cards do so only while a program is attached.
    pub target: bool,
}

impl XdpFeatures {
    /// From the kernel's bits (`enum netdev_xdp_act`).
    fn of(bits: u64) -> Self {
        Self {
            native: bits & 1 != 0,
            redirect: bits & 2 != 0,
            target: bits & 4 != 0,
        }
    }
}

/// Asks for an interface's features; none: the kernel does not tell.
pub fn xdp_features(ifindex: u32) -> io::Result<Option<XdpFeatures>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let name = request(
        GENL_ID_CTRL,
        CTRL_CMD_GETFAMILY,
        CTRL_ATTR_FAMILY_NAME,
        b"netdev\0",
    );
    let family = match ask(&socket, &name) {
        Ok(answer) => {
            attribute(&answer, CTRL_ATTR_FAMILY_ID).and_then(|value| value.try_into().ok())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let Some(family) = family.map(u16::from_ne_bytes) else {
        return Ok(None);
    };
    let device = request(
        family,
        NETDEV_CMD_DEV_GET,
        NETDEV_A_DEV_IFINDEX,
        &ifindex.to_ne_bytes(),
    );
    let answer = ask(&socket, &device)?;
    let bits = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES);
    let bits = bits.and_then(|value| value.try_into().ok());
    Ok(bits.map(|bits| XdpFeatures::of(u64::from_ne_bytes(bits))))
}

fn ask(socket: &Socket, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match error(&answer) {
        Some(error) => Err(error),
        None => Ok(answer),
    }
}

/// A request with one attribute.
fn request(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let length = HEADERS + 4 + value.len().next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port numbers: one question at a time needs neither.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(length, 0);
    message
}

/// The kernel's refusal, if the message is one.
fn error(message: &[u8]) -> Option<io::Error> {
    if u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?) != NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    Some(io::Error::from_raw_os_error(-code))
}

/// The value of an attribute.
fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(HEADERS..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_cut_one_is_not() {
        let message = request(
            20,
            NETDEV_CMD_DEV_GET,
            NETDEV_A_DEV_XDP_FEATURES,
            &3u64.to_ne_bytes(),
        );
        assert_eq!(message.len(), 32);
        let value = attribute(&message, NETDEV_A_DEV_XDP_FEATURES).unwrap();
        assert_eq!(value, 3u64.to_ne_bytes());
        assert_eq!(attribute(&message, 9), None);
        for length in 0..message.len() {
            assert_eq!(
                attribute(&message[..length], NETDEV_A_DEV_XDP_FEATURES),
                None
            );
        }
        let features = XdpFeatures::of(3);
        assert!(features.native && features.redirect && !features.target);
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut message = request(NLMSG_ERROR, 0, 0, &[]);
        message[16..20].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(error(&message).unwrap().raw_os_error(), Some(libc::ENODEV));
        assert!(error(&request(20, 0, 0, &[])).is_none());
    }

    #[test]
    fn the_kernel_answers_or_does_not_know() {
        // Interface 1 is `lo` in every namespace.
        assert!(xdp_features(1).is_ok());
    }
}

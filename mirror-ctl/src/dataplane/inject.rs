//! Sends single frames: past the XDP programs, or through the one that takes in what instances send.

use std::{ops::Range, os::fd::OwnedFd};

use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;

use super::{
    DataplaneError,
    error::PathContext,
    host::Pins,
    object::{INSTANCE_RETURN, refused},
    sys,
};

/// Where an Ethernet header has its addresses.
const DESTINATION: Range<usize> = 0..6;
const SOURCE: Range<usize> = 6..12;
/// Room for any frame that is taken in.
const FRAME_MAX: usize = 2048;

/// A packet socket that only sends, and the program for replies.
pub struct Injector {
    socket: OwnedFd,
    instance_return: Xdp,
}

impl Injector {
    /// Opens the socket, in this network namespace. Needs `CAP_NET_RAW`.
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        let path = pins.programs().join(INSTANCE_RETURN);
        let program = Xdp::from_pin(path, XdpAttachType::Interface);
        Ok(Self {
            socket: sys::packet_socket().path("open", "a packet socket")?,
            instance_return: program.map_err(|e| refused(INSTANCE_RETURN, e.to_string()))?,
        })
    }

    /// Sends a frame that begins with its Ethernet header.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> Result<(), DataplaneError> {
        sys::send_frame(&self.socket, ifindex, frame)
            .path("send by", format!("interface {ifindex}"))
    }

    /// Takes in a frame as if it had come from the instance behind `link`, and sends what becomes of
    /// it: to the client by `client`, or back.
    ///
    /// The program runs by `BPF_PROG_TEST_RUN`, on the maps that it always has. Its redirect is not
    /// carried out by the kernel, so it does not matter whether the interface can be a target.
    pub fn take_in(&self, link: u32, client: u32, frame: &[u8]) -> Result<(), DataplaneError> {
        // enum xdp_action (include/uapi/linux/bpf.h).
        const REDIRECT: u32 = 4;
        let mut output = [0; FRAME_MAX];
        let context = context(frame.len() as u32, link);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = self.instance_return.test_run(options);
        let result = result.map_err(|error| refused(INSTANCE_RETURN, error.to_string()))?;
        let changed = output.get(..result.data_size_out as usize).unwrap_or(&[]);
        if result.return_value != REDIRECT {
            return Ok(());
        }
        // The run does not tell where to; what is turned round goes to the frame's sender.
        let is_back = changed.get(DESTINATION) == frame.get(SOURCE);
        self.send(if is_back { link } else { client }, changed)
    }
}

/// `struct xdp_md` (include/uapi/linux/bpf.h): data, data_end, data_meta, ingress_ifindex,
/// rx_queue_index, egress_ifindex.
fn context(length: u32, ingress: u32) -> [u8; 24] {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&length.to_ne_bytes());
    context[12..16].copy_from_slice(&ingress.to_ne_bytes());
    context
}

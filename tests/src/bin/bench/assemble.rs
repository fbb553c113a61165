//! The bench's own XDP programs, put together instruction by instruction.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Result;

use crate::sys;

/// Operation codes (include/uapi/linux/bpf.h, Documentation/bpf/standardization/instruction-set.rst).
mod op {
    pub(super) const MOV: u8 = 0xbf;
    pub(super) const MOV_IMM: u8 = 0xb7;
    pub(super) const ADD_IMM: u8 = 0x07;
    pub(super) const SUB: u8 = 0x1f;
    pub(super) const MUL_IMM: u8 = 0x27;
    pub(super) const DIV_IMM: u8 = 0x37;
    pub(super) const MOD_IMM: u8 = 0x97;
    pub(super) const TO_BE: u8 = 0xdc;
    pub(super) const LOAD_32: u8 = 0x61;
    pub(super) const LOAD_64: u8 = 0x79;
    pub(super) const STORE_IMM_32: u8 = 0x62;
    pub(super) const STORE_32: u8 = 0x63;
    pub(super) const STORE_64: u8 = 0x7b;
    pub(super) const ATOMIC_64: u8 = 0xdb;
    pub(super) const LOAD_IMM_64: u8 = 0x18;
    pub(super) const JUMP_ZERO: u8 = 0x15;
    pub(super) const JUMP_GREATER: u8 = 0x2d;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// Helper functions by number.
mod helper {
    pub(super) const LOOKUP: i32 = 1;
    pub(super) const TAIL_CALL: i32 = 12;
    pub(super) const REDIRECT: i32 = 23;
    pub(super) const REDIRECT_MAP: i32 = 51;
    pub(super) const ADJUST_META: i32 = 54;
}

pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
const XDP_ABORTED: u32 = 0;
/// `BPF_F_BROADCAST`
pub(crate) const BROADCAST: u32 = 1 << 3;

/// Relatively prime to every number of flows in use (powers of ten): flows come in an order that no prefetcher
/// follows, each as often as the others.
const STRIDE: i32 = 611_953;
/// The first client: 10.0.0.0.
pub(crate) const CLIENT_BASE: u32 = 0x0a00_0000;
/// Offset of the sequence number behind Ethernet and a plain IPv4 header.
const SEQ_OFFSET: i16 = 38;
/// Bytes of a feeder's state: its counter, then the head of the frame.
const STATE_BYTES: usize = 8 + HEAD_MAX;
const HEAD_MAX: usize = 72;

/// Instructions under way.
#[derive(Default)]
struct Program {
    code: Vec<u64>,
    /// Jumps to the end.
    bail: Vec<usize>,
}

impl Program {
    fn push(&mut self, op: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> &mut Self {
        self.code.push(
            u64::from(op)
                | u64::from(dst) << 8
                | u64::from(src) << 12
                | u64::from(offset.cast_unsigned()) << 16
                | u64::from(immediate.cast_unsigned()) << 32,
        );
        self
    }

    /// The address of a map (`pseudo` 1) or of its first value (2).
    fn load_map(&mut self, dst: u8, map: BorrowedFd<'_>, pseudo: u8, offset: i32) -> &mut Self {
        self.push(op::LOAD_IMM_64, dst, pseudo, 0, map.as_raw_fd());
        self.push(0, 0, 0, 0, offset)
    }

    fn call(&mut self, helper: i32) -> &mut Self {
        self.push(op::CALL, 0, 0, 0, helper)
    }

    fn ret(&mut self, verdict: u32) -> &mut Self {
        self.push(op::MOV_IMM, 0, 0, 0, verdict.cast_signed())
            .push(op::EXIT, 0, 0, 0, 0)
    }

    /// Ends; frames that are too short end here.
    fn load(&mut self) -> Result<OwnedFd> {
        let end = self.code.len();
        for at in std::mem::take(&mut self.bail) {
            self.code[at] |= ((end - at - 1) as u64) << 16;
        }
        self.ret(XDP_ABORTED);
        sys::load(&self.code)
    }
}

/// A program that returns a verdict.
pub(crate) fn constant(verdict: u32) -> Result<OwnedFd> {
    sys::load(&Program::default().ret(verdict).code)
}

/// A program that redirects to the entries of a devmap: the first, or with [`BROADCAST`] all.
pub(crate) fn redirect(devmap: BorrowedFd<'_>, flags: u32) -> Result<OwnedFd> {
    let mut program = Program::default();
    program
        .load_map(1, devmap, 1, 0)
        .push(op::MOV_IMM, 2, 0, 0, 0)
        .push(op::MOV_IMM, 3, 0, 0, flags.cast_signed())
        .call(helper::REDIRECT_MAP)
        .push(op::EXIT, 0, 0, 0, 0);
    sys::load(&program.code)
}

/// A program that counts a frame in the first entry of an array, at an offset, and drops it.
pub(crate) fn count_and_drop(counts: BorrowedFd<'_>, offset: u32) -> Result<OwnedFd> {
    let mut program = Program::default();
    program
        .load_map(1, counts, 2, offset.cast_signed())
        .push(op::MOV_IMM, 2, 0, 0, 1)
        .push(op::ATOMIC_64, 1, 2, 0, 0)
        .ret(XDP_DROP);
    sys::load(&program.code)
}

/// A program that looks up the flow of a client's packet, and nothing else. The key's other words are those of the
/// first flow.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8; 24], client_offset: i16) -> Result<OwnedFd> {
    /// Word of the key with the client's IPv4 address.
    const CLIENT: usize = 3;
    const KEY: i16 = -24;
    let mut program = Program::default();
    program
        .push(op::LOAD_32, 7, 1, 0, 0)
        .push(op::LOAD_32, 8, 1, 4, 0)
        .push(op::MOV, 1, 7, 0, 0)
        .push(op::ADD_IMM, 1, 0, 0, i32::from(client_offset) + 4);
    program.bail.push(program.code.len());
    program.push(op::JUMP_GREATER, 1, 8, 0, 0);
    for (place, word) in key.chunks_exact(4).enumerate() {
        let offset = KEY + 4 * place as i16;
        if place == CLIENT {
            program
                .push(op::LOAD_32, 3, 7, client_offset, 0)
                .push(op::STORE_32, 10, 3, offset, 0);
        } else {
            let word = i32::from_ne_bytes(std::array::from_fn(|byte| word[byte]));
            program.push(op::STORE_IMM_32, 10, 0, offset, word);
        }
    }
    program
        .load_map(1, map, 1, 0)
        .push(op::MOV, 2, 10, 0, 0)
        .push(op::ADD_IMM, 2, 0, 0, KEY.into())
        .call(helper::LOOKUP);
    program.bail.push(program.code.len());
    program.push(op::JUMP_ZERO, 0, 0, 0, 0).ret(XDP_PASS);
    program.load()
}

/// What a feeder does with a frame once it is as it should be.
pub(crate) enum Then<'a> {
    /// Goes on with a program.
    Run(BorrowedFd<'a>),
    /// Sends it out of an interface.
    Send(u32),
}

/// The frames that a feeder makes of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    /// How many clients there are.
    pub(crate) flows: u32,
    /// Offset of the client's address.
    pub(crate) client_offset: i16,
    /// Sequence number of each client's first frame.
    pub(crate) seq: u32,
    /// What each frame of a client adds to it.
    pub(crate) step: u32,
}

/// A program that puts the frame into its first state, since repetitions go on with what the last one left;
/// makes it the next flow's; and passes it on.
pub(crate) struct Feeder {
    pub(crate) program: OwnedFd,
    /// What it refers to.
    _maps: Vec<OwnedFd>,
}

impl Feeder {
    pub(crate) fn new(frame: &[u8], feed: Feed, then: &Then<'_>) -> Result<Self> {
        let head = frame.len().min(HEAD_MAX) & !7;
        let state = sys::map(sys::MAP_ARRAY, STATE_BYTES as u32, 1)?;
        let mut value = vec![0; STATE_BYTES];
        value[8..8 + head].copy_from_slice(&frame[..head]);
        sys::update(state.as_fd(), 0, &value)?;
        let mut program = Program::default();
        reset(&mut program, state.as_fd(), head);
        choose_flow(&mut program, feed);
        let mut maps = vec![state];
        match then {
            Then::Run(target) => {
                let programs = sys::map(sys::MAP_PROG_ARRAY, 4, 1)?;
                sys::update(programs.as_fd(), 0, &target.as_raw_fd().to_ne_bytes())?;
                program
                    .push(op::MOV, 1, 6, 0, 0)
                    .load_map(2, programs.as_fd(), 1, 0)
                    .push(op::MOV_IMM, 3, 0, 0, 0)
                    .call(helper::TAIL_CALL);
                maps.push(programs);
            }
            Then::Send(ifindex) => {
                program
                    .push(op::MOV_IMM, 1, 0, 0, ifindex.cast_signed())
                    .push(op::MOV_IMM, 2, 0, 0, 0)
                    .call(helper::REDIRECT)
                    .push(op::EXIT, 0, 0, 0, 0);
            }
        }
        Ok(Self {
            program: program.load()?,
            _maps: maps,
        })
    }
}

/// Takes metadata off and writes the frame's head anew. Leaves the context in r6, the frame in r7, the state in r9.
fn reset(program: &mut Program, state: BorrowedFd<'_>, head: usize) {
    program
        .push(op::MOV, 6, 1, 0, 0)
        .push(op::LOAD_32, 2, 6, 0, 0)
        .push(op::LOAD_32, 3, 6, 8, 0)
        .push(op::SUB, 2, 3, 0, 0)
        .call(helper::ADJUST_META)
        .push(op::LOAD_32, 7, 6, 0, 0)
        .push(op::LOAD_32, 8, 6, 4, 0)
        .push(op::MOV, 1, 7, 0, 0)
        .push(op::ADD_IMM, 1, 0, 0, head as i32);
    program.bail.push(program.code.len());
    program
        .push(op::JUMP_GREATER, 1, 8, 0, 0)
        .load_map(9, state, 2, 0);
    for offset in (0..head as i16).step_by(8) {
        program
            .push(op::LOAD_64, 1, 9, offset + 8, 0)
            .push(op::STORE_64, 7, 1, offset, 0);
    }
}

/// Counts the frame and writes the client and the sequence number that come next.
fn choose_flow(program: &mut Program, feed: Feed) {
    program
        .push(op::LOAD_64, 1, 9, 0, 0)
        .push(op::MOV, 2, 1, 0, 0)
        .push(op::ADD_IMM, 2, 0, 0, 1)
        .push(op::STORE_64, 9, 2, 0, 0);
    if feed.flows > 1 {
        let flows = feed.flows.cast_signed();
        program
            .push(op::MOV, 3, 1, 0, 0)
            .push(op::MUL_IMM, 3, 0, 0, STRIDE)
            .push(op::MOD_IMM, 3, 0, 0, flows)
            .push(op::ADD_IMM, 3, 0, 0, CLIENT_BASE.cast_signed())
            .push(op::TO_BE, 3, 0, 0, 32)
            .push(op::STORE_32, 7, 3, feed.client_offset, 0)
            .push(op::DIV_IMM, 1, 0, 0, flows);
    }
    if feed.step > 0 {
        program
            .push(op::MUL_IMM, 1, 0, 0, feed.step.cast_signed())
            .push(op::ADD_IMM, 1, 0, 0, feed.seq.cast_signed())
            .push(op::TO_BE, 1, 0, 0, 32)
            .push(op::STORE_32, 7, 1, SEQ_OFFSET, 0);
    }
}

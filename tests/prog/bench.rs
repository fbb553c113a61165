//! The bench that the programs run on: loaded once for all tests, used by one at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aya::programs::{ProgramError, ProgramInfo, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_obj::generated::{BPF_CALL, BPF_JMP, BPF_PSEUDO_CALL, bpf_insn};
use mirror_common::counts;
use mirror_common::plan::Plan;

use crate::network::Network;
use crate::tables::{FLOW_MAPS, FLOWS_MAX, Tables};

const OBJECT_VARIABLE: &str = "MIRROR_EBPF_OBJECT";
/// Frame and metadata of the largest frame that the kernel takes.
const OUTPUT_MAX: usize = 4096;

/// The programs that can be run by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    VniIngress,
    InstanceReturn,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::VniIngress => "vni_ingress",
            Self::InstanceReturn => "instance_return",
        }
    }
}

/// `enum xdp_action` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Aborted,
    Drop,
    Pass,
    Redirect,
}

impl Verdict {
    fn of(value: u32) -> Self {
        match value {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            4 => Self::Redirect,
            other => panic!("verdict {other}"),
        }
    }
}

/// What a program made of a packet.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// What it put in front of the packet.
    pub(crate) plan: Option<Plan>,
    pub(crate) frame: Vec<u8>,
}

/// `struct xdp_md` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

impl XdpMd {
    fn to_bytes(self) -> Vec<u8> {
        [
            self.data,
            self.data_end,
            self.data_meta,
            self.ingress_ifindex,
            self.rx_queue_index,
            self.egress_ifindex,
        ]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect()
    }
}

/// The loaded programs, their maps and their network.
pub(crate) struct Bench {
    ebpf: Ebpf,
    pub(crate) tables: Tables,
    pub(crate) network: Network,
}

/// Runs a test on the bench, with empty flow tables, inside the bench's namespace.
pub(crate) fn with_bench(test: impl FnOnce(&mut Bench) + Send) {
    static BENCH: Mutex<Option<Bench>> = Mutex::new(None);
    // A test that failed leaves nothing that `reset` does not put in order.
    let mut place = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
    let bench = match &mut *place {
        Some(bench) => bench,
        empty => empty.insert(Bench::set_up().unwrap_or_else(|error| panic!("{error:?}"))),
    };
    bench.reset();
    // The kernel looks interface numbers up in the namespace of whoever runs a program.
    let host = Arc::clone(&bench.network.host);
    host.run(|| test(bench)).unwrap();
}

impl Bench {
    fn set_up() -> Result<Self> {
        // First of all, because it says that root is needed.
        let network = Network::create()?;
        let mut ebpf = open(&object()?)?;
        for name in ["vni_ingress", "instance_return", "clone"] {
            let program = ebpf.program_mut(name).with_context(|| name.to_owned())?;
            let program: &mut Xdp = program.try_into()?;
            let start = Instant::now();
            program.load().map_err(|error| describe(name, error))?;
            let verified = program.info()?.verified_instruction_count();
            // `cargo xtask kernels` reads it.
            println!(
                "loaded {name}: {} instructions verified in {} ms",
                verified.unwrap_or(0),
                start.elapsed().as_millis()
            );
        }
        let tables = network
            .host
            .run(|| Tables::fill(&mut ebpf, &network))
            .context("fill the maps")??;
        Ok(Self {
            ebpf,
            tables,
            network,
        })
    }

    /// Forgets everything that earlier packets left.
    pub(crate) fn reset(&mut self) {
        self.tables.reset(&self.network).unwrap();
    }

    pub(crate) fn program(&mut self, program: Program) -> &mut Xdp {
        let program = self.ebpf.program_mut(program.name()).unwrap();
        program.try_into().unwrap()
    }

    /// What the kernel says of a program, the clone program among them.
    pub(crate) fn info(&self, name: &str) -> ProgramInfo {
        let program: &Xdp = self.ebpf.program(name).unwrap().try_into().unwrap();
        program.info().unwrap()
    }

    /// Runs a program once on a frame that came in by an interface.
    pub(crate) fn run(&mut self, program: Program, ingress: u32, frame: &[u8]) -> Outcome {
        let context = XdpMd {
            data_end: frame.len() as u32,
            ingress_ifindex: ingress,
            ..XdpMd::default()
        };
        let mut output = vec![0; OUTPUT_MAX];
        let mut context_out = context.to_bytes();
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ctx_in: Some(&context.to_bytes()),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::default()
        };
        let result = self.program(program).test_run(options);
        let result = result.unwrap_or_else(|error| panic!("{program:?}: {error:?}"));
        output.truncate(result.data_size_out as usize);
        // The output begins with the metadata, and `data` says how long they are.
        let metadata = u32::from_ne_bytes(context_out[..4].try_into().unwrap()) as usize;
        let plan = (metadata == size_of::<Plan>()).then(|| {
            // SAFETY: as many bytes as a plan has, which is made of integers only.
            unsafe { output.as_ptr().cast::<Plan>().read_unaligned() }
        });
        assert!(
            metadata == 0 || plan.is_some(),
            "{metadata} bytes of metadata"
        );
        output.drain(..metadata);
        Outcome {
            verdict: Verdict::of(result.return_value),
            plan,
            frame: output,
        }
    }

    /// Runs the ingress program on a frame and carries its redirect out.
    pub(crate) fn run_live(&mut self, frame: &[u8]) {
        let context = XdpMd {
            data_end: frame.len() as u32,
            ingress_ifindex: self.network.vni_interface(),
            ..XdpMd::default()
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context.to_bytes()),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        };
        let result = self.program(Program::VniIngress).test_run(options);
        result.unwrap_or_else(|error| panic!("live frame: {error:?}"));
    }
}

/// Opens an object, with maps of its own.
fn open(path: &Path) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.override_global("AYA_LOG_LEVEL", &0u8, true);
    loader.map_max_entries("COUNTERS", counts::rows(0));
    for name in FLOW_MAPS {
        loader.map_max_entries(name, FLOWS_MAX);
    }
    loader
        .load_file(path)
        .with_context(|| format!("load {}", path.display()))
}

/// The traced variant's programs, as the kernel has taken them in, by name.
pub(crate) fn traced() -> Result<Vec<(&'static str, ProgramInfo)>> {
    let mut ebpf = open(&object()?.with_extension("traced"))?;
    let mut programs = Vec::new();
    for name in ["vni_ingress", "instance_return", "clone"] {
        let program = ebpf.program_mut(name).with_context(|| name.to_owned())?;
        let program: &mut Xdp = program.try_into()?;
        program.load().map_err(|error| describe(name, error))?;
        programs.push((name, program.info()?));
    }
    Ok(programs)
}

/// How often each program calls a function of its own object, by name.
pub(crate) fn calls(of_traced: bool) -> Result<BTreeMap<String, u64>> {
    let mut path = object()?;
    if of_traced {
        path.set_extension("traced");
    }
    let object = aya_obj::Object::parse(&fs::read(path)?)?;
    let calls = object.functions.into_values().map(|function| {
        // By the other kinds of calls, helpers are (linux/bpf.h).
        let is_call = |insn: &&bpf_insn| {
            u32::from(insn.code) == BPF_JMP | BPF_CALL
                && u32::from(insn.src_reg()) == BPF_PSEUDO_CALL
        };
        let calls = function.instructions.iter().filter(is_call).count();
        (function.name, calls as u64)
    });
    Ok(calls.collect())
}

/// The object that `cargo xtask build` leaves in the target directory, unless another is named.
fn object() -> Result<PathBuf> {
    let path = match std::env::var_os(OBJECT_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => {
            // target/PROFILE/deps/prog-HASH
            let own = std::env::current_exe()?;
            let target = own.ancestors().nth(3).context("target directory")?;
            target.join("bpf/mirror-ebpf")
        }
    };
    if !path.is_file() {
        bail!(
            "no eBPF object at {}: build it with `cargo xtask build`, or name one by \
             {OBJECT_VARIABLE}",
            path.display()
        );
    }
    Ok(path)
}

/// An error with the end of the verifier's log, where the reason is.
fn describe(name: &str, error: ProgramError) -> anyhow::Error {
    const LINES: usize = 20;
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
            anyhow::anyhow!("the kernel refused {name}: {io_error}\n{tail}")
        }
        other => anyhow::Error::new(other).context(format!("load {name}")),
    }
}

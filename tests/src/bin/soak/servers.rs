//! The servers: three programs of the distribution in each instance, told to answer with the same bytes everywhere.
//!
//! lighttpd sends a `Date` header of its own unless it is given one, and an entity tag that depends on the
//! file system; redis and vsftpd say nothing of themselves as long as nobody asks.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::clock::wait_until;
use testbed::netns::NETNS_DIR;
use testbed::packaged::{Packaged, Packages};
use testbed::process::Process;
use testbed::topology::{Instance, Topology};

/// The file that is served.
pub(crate) const FILE: &str = "blob";
/// Its length.
pub(crate) const FILE_BYTES: usize = 1 << 20;
const START_LIMIT: Duration = Duration::from_secs(20);
const SERVERS: Packages = Packages {
    variable: "MIRROR_SERVERS",
    verb: "soak",
};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Ranges of a static file: lighttpd.
    Files,
    /// A key-value store: redis.
    Store,
    /// A line protocol, a process for each connection: vsftpd.
    Lines,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Files, Self::Store, Self::Lines];

    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Files => 80,
            Self::Store => 6379,
            Self::Lines => 21,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Files => "lighttpd",
            Self::Store => "redis-server",
            Self::Lines => "vsftpd",
        }
    }
}

/// What the servers say that depends on their versions, learnt from one of them before anything fails.
#[derive(Clone, Debug)]
pub(crate) struct Phrases {
    /// The header of a part of the file, of one byte from 0 on.
    pub(crate) part: String,
    /// The first line of the line protocol.
    pub(crate) greeting: String,
}

/// The programs and their configurations.
pub(crate) struct Kit {
    programs: [Packaged; 3],
    dir: PathBuf,
}

impl Kit {
    /// Finds the programs, writes their configurations and what they serve.
    pub(crate) fn new(topology: &Topology) -> Result<Self> {
        let dir = topology.dir().to_owned();
        // The line protocol's processes serve as a user without rights.
        for readable in [&dir, &dir.join("files")] {
            fs::create_dir_all(readable)?;
            fs::set_permissions(readable, fs::Permissions::from_mode(0o755))?;
        }
        fs::write(dir.join("files").join(FILE), content()).context("the served file")?;
        let programs = [
            SERVERS.find(&["lighttpd"])?,
            SERVERS.find(&["redis-server"])?,
            SERVERS.find(&["vsftpd"])?,
        ];
        let kit = Self { programs, dir };
        for service in Service::ALL {
            fs::write(kit.file(service), kit.configuration(service))
                .with_context(|| format!("configuration of {}", service.name()))?;
        }
        Ok(kit)
    }

    /// Starts one server and waits until it listens.
    pub(crate) fn start(&self, instance: &Instance, service: Service) -> Result<Process> {
        let program = &self.programs[service as usize];
        let file = self.file(service).display().to_string();
        let modules = program.path("usr/lib/lighttpd").display().to_string();
        let arguments: &[&str] = match service {
            Service::Files => &["-D", "-f", &file, "-m", &modules],
            Service::Store | Service::Lines => &[&file],
        };
        let what = format!("{} of {}", service.name(), instance.name);
        let mut command = program.command(&instance.namespace, arguments)?;
        command.current_dir(&self.dir);
        let mut process = Process::start(&what, command)?;
        wait_until(&format!("{what} listens"), START_LIMIT, || {
            let ended = process.try_wait()?;
            ensure!(ended.is_none(), "{what} ended{}", process.said());
            Ok(connect(instance, service)?.ok())
        })?;
        Ok(process)
    }

    fn file(&self, service: Service) -> PathBuf {
        self.dir.join(service.name()).with_extension("conf")
    }

    fn configuration(&self, service: Service) -> String {
        let files = self.dir.join("files");
        match service {
            Service::Files => files_configuration(&files),
            Service::Store => {
                "port 6379\nbind 0.0.0.0 -::*\nprotected-mode no\nsave \"\"\nappendonly no\n\
                 maxclients 20000\ntcp-keepalive 0\ntimeout 0\nlogfile /dev/null\n"
                    .into()
            }
            Service::Lines => lines_configuration(&files),
        }
    }
}

fn files_configuration(files: &Path) -> String {
    format!(
        "server.document-root = \"{}\"\n\
         server.port = {}\n\
         server.bind = \"[::]\"\n\
         server.set-v6only = \"disable\"\n\
         server.tag = \"\"\n\
         server.modules = ( \"mod_setenv\" )\n\
         server.max-fds = 20000\n\
         server.max-keep-alive-requests = 1000000\n\
         server.max-keep-alive-idle = 3600\n\
         server.max-read-idle = 3600\n\
         server.max-write-idle = 3600\n\
         etag.use-inode = \"disable\"\n\
         setenv.set-response-header = ( \"Date\" => \"Thu, 01 Jan 1970 00:00:00 GMT\" )\n",
        files.display(),
        Service::Files.port()
    )
}

fn lines_configuration(files: &Path) -> String {
    // `bin`: a user that every system has, with a home that exists. Sessions end by themselves should
    // their clients be gone without a word.
    format!(
        "listen=NO\nlisten_ipv6=YES\nbackground=NO\nlisten_port={}\nanonymous_enable=YES\nno_anon_password=YES\n\
         one_process_model=YES\nftp_username=bin\nanon_root={dir}\nsecure_chroot_dir={dir}\n\
         seccomp_sandbox=NO\nxferlog_enable=NO\nidle_session_timeout=120\nmax_clients=0\nmax_per_ip=0\n\
         tcp_wrappers=NO\nport_enable=NO\npasv_enable=NO\n",
        Service::Lines.port(),
        dir = files.display()
    )
}

/// Asks an instance's servers, directly, for what depends on their versions.
pub(crate) fn learn(instance: &Instance) -> Result<Phrases> {
    let mut files = connect(instance, Service::Files)??;
    files.set_read_timeout(Some(START_LIMIT))?;
    write!(
        files,
        "GET /{FILE} HTTP/1.1\r\nHost: vni\r\nRange: bytes=0-0\r\n\r\n"
    )?;
    let mut reader = BufReader::new(files);
    let mut part = String::new();
    while !part.ends_with("\r\n\r\n") {
        ensure!(
            reader.read_line(&mut part)? > 0,
            "no whole header: {part:?}"
        );
    }
    for wanted in ["HTTP/1.1 206 ", "Content-Length: 1\r\n", "bytes 0-0/"] {
        ensure!(part.contains(wanted), "not {wanted:?}: {part:?}");
    }
    let lines = connect(instance, Service::Lines)??;
    lines.set_read_timeout(Some(START_LIMIT))?;
    let mut greeting = String::new();
    BufReader::new(lines).read_line(&mut greeting)?;
    ensure!(greeting.starts_with("220 "), "no greeting: {greeting:?}");
    Ok(Phrases { part, greeting })
}

fn connect(instance: &Instance, service: Service) -> Result<std::io::Result<TcpStream>> {
    let connect = || TcpStream::connect(("127.0.0.1", service.port()));
    instance.namespace.run(connect)
}

/// Signals every process in an instance, those that its servers have forked too.
pub(crate) fn signal(instance: &Instance, signal: Signal) -> Result<()> {
    let place = Path::new(NETNS_DIR).join(instance.namespace.name());
    let network = fs::metadata(&place).context("namespace")?.ino();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let is_there = fs::metadata(entry.path().join("ns/net"));
        if is_there.is_ok_and(|there| there.ino() == network) {
            // One that has just ended has no need of it.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
    Ok(())
}

/// What is in the served file: bytes that differ at every place, the same in every run.
pub(crate) fn content() -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    fastrand::Rng::with_seed(0xb10b).fill(&mut bytes);
    bytes
}

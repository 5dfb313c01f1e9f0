//! The command line: every command, argument and exit code.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Tandem: a survivable SIP front end.
///
/// Servers of a deployment share one folder layout: `tandem init` makes one with certificates, users and a
/// topology that `tandem up` brings to life on this machine. Exit codes: 0 done, 1 refused or findings, 2
/// usage or a server that could not be reached.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, max_term_width = 100)]
pub struct Cli {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns for people.
    Table,
    /// One JSON document for programs; its fields only ever grow.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an example deployment: two paired pools, a branch, a control server, certificates, ten users a
    /// home.
    Init {
        /// A folder that does not exist yet, or is empty.
        dir: PathBuf,
    },
    /// Run every server of a deployment on this machine, each as its own process; Ctrl-C stops all.
    Up {
        /// The deployment's folder.
        dir: PathBuf,
        /// Seconds before a server that ended is started again; long enough to watch its partner take over.
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        restart_after: u64,
    },
    /// Run one server in the foreground until SIGTERM or Ctrl-C.
    Serve {
        /// The topology document; certificates and data lie beside it (see `tandem init`).
        #[arg(long)]
        topology: PathBuf,
        /// The server's name in the topology.
        #[arg(long)]
        server: String,
        /// End as well when standard input closes; how `tandem up` takes its servers with it.
        #[arg(long, hide = true)]
        until_stdin_closes: bool,
    },
    /// Check, show and compare topology documents.
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Users of the deployment.
    #[command(subcommand)]
    User(UserCommand),
    /// Pools of the deployment.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Registrations: which device of whom is reachable where.
    #[command(subcommand)]
    Registration(RegistrationCommand),
    /// The deployment's own certificates.
    #[command(subcommand)]
    Certificate(CertificateCommand),
}

/// Which deployment a command speaks to.
#[derive(Args, Clone, Debug)]
pub struct DeploymentArgument {
    /// The deployment's folder: its topology says where the servers are, its operator certificate lets you
    /// in.
    #[arg(long = "dir", env = "TANDEM_DIR", default_value = "deployment", value_name = "DIR")]
    pub dir: PathBuf,
}

/// `tandem topology ...`
#[derive(Debug, Subcommand)]
pub enum TopologyCommand {
    /// Print every finding; exit code 1 when one of them is an error.
    Lint {
        /// The topology document.
        file: PathBuf,
    },
    /// Print the topology with every default filled in.
    Show {
        /// The topology document.
        file: PathBuf,
    },
    /// Print what changes from one document to another; exit code 1 when the change would be refused.
    Diff {
        /// The document in force.
        old: PathBuf,
        /// The document that is to replace it.
        new: PathBuf,
    },
}

/// `tandem user ...`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user, or change password and home. The password comes from a prompt, or one line of standard
    /// input.
    Add {
        /// Address-of-record, like sip:alice@example.com.
        aor: String,
        /// Home pool: a front-end pool or a branch appliance.
        #[arg(long)]
        home: String,
        /// Digest algorithms offered to this user instead of the pool's, strongest first, like MD5 for an old
        /// phone.
        #[arg(long, value_delimiter = ',')]
        algorithms: Vec<String>,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// List users in the order of their addresses.
    List {
        /// Only those homed on this pool.
        #[arg(long)]
        home: Option<String>,
        /// Most users to print.
        #[arg(long, default_value_t = 1_000)]
        max: usize,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Remove a user and his registrations.
    Remove {
        /// Address-of-record.
        aor: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Say which pool is a user's home and which serves him now.
    Where {
        /// Address-of-record.
        aor: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Add many users from a CSV file with the columns address-of-record, password, home.
    Import {
        /// The file, or - for standard input. A first line that begins with `address` or `aor` is skipped.
        file: PathBuf,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// `tandem pool ...`
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Show each home pool: who owns it, in which epoch and mode, and who is registered.
    Status {
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// `tandem registration ...`
#[derive(Debug, Subcommand)]
pub enum RegistrationCommand {
    /// Show the bindings of a user on every server that has some.
    Show {
        /// Address-of-record.
        aor: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Remove a user's bindings, or one of them.
    Remove {
        /// Address-of-record.
        aor: String,
        /// Only the binding with this contact URI.
        #[arg(long)]
        contact: Option<String>,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// `tandem certificate ...`
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// Sign new certificates for every server and the operator; restart the servers afterwards.
    Renew {
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

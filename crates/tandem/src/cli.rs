//! The command line: every command, argument and exit code.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::user_cli::{ContactsCommand, PolicyCommand, SettingsCommand};

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
    /// Check, show and compare topology documents, and have running servers read theirs again.
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Users of the deployment.
    #[command(subcommand)]
    User(UserCommand),
    /// Pools of the deployment.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Changes that a lost pool had acknowledged and that contradict what was changed while it was away.
    #[command(subcommand)]
    Conflicts(ConflictsCommand),
    /// Registrations: which device of whom is reachable where.
    #[command(subcommand)]
    Registration(RegistrationCommand),
    /// Bans: addresses that servers do not listen to.
    #[command(subcommand)]
    Ban(BanCommand),
    /// What servers present over TLS: the deployment's own certificates and those for phones.
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
    /// Let every running server read its topology file again and act upon it. Online changes
    /// `associated_pool` of branches; anything else is refused with what needs a restart, and nothing
    /// changes.
    Reload {
        /// Show what would happen only.
        #[arg(long)]
        what_if: bool,
        #[command(flatten)]
        deployment: DeploymentArgument,
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
    /// The contact list of a user, with its groups.
    #[command(subcommand)]
    Contacts(ContactsCommand),
    /// What a user wants done with calls: forwarding, simultaneous ring, do-not-disturb.
    #[command(subcommand)]
    Settings(SettingsCommand),
    /// What a user may call.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show the calls of a user, newest first; at most the newest 100 are kept.
    Calls {
        /// Address-of-record.
        aor: String,
        /// Only those that the user did not answer.
        #[arg(long)]
        missed: bool,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// `tandem pool ...`
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Show each home pool: who owns it, in which epoch and mode, who is registered, and what would be lost
    /// now.
    Status {
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Let the partner serve a pool's users with everything they have. Nothing is lost while the pool is
    /// alive.
    Failover {
        /// The pool cannot be reached: go on without what it has not copied.
        #[arg(long)]
        disaster: bool,
        #[command(flatten)]
        arguments: OperationArguments,
    },
    /// Let the partner serve a pool's users while both are alive, for planned work: nothing is lost.
    Switchover {
        #[command(flatten)]
        arguments: OperationArguments,
    },
    /// Return the users of a pool that was failed over or switched over.
    Failback {
        /// The partner cannot be reached: go on without what it has not copied back.
        #[arg(long)]
        disaster: bool,
        #[command(flatten)]
        arguments: OperationArguments,
    },
    /// Undo the operation that is under way, while that is possible.
    Cancel {
        #[command(flatten)]
        arguments: OperationArguments,
    },
}

/// What every operation on a pool takes. Without `--apply` the plan is shown and nothing changes; exit code 1
/// when something speaks against it.
#[derive(Args, Clone, Debug)]
pub struct OperationArguments {
    /// The home pool.
    pub pool: String,
    /// Do it, and watch it to its end; giving the command again goes on watching.
    #[arg(long)]
    pub apply: bool,
    /// Show the plan only, whatever else is said.
    #[arg(long)]
    pub what_if: bool,
    /// Refuse when the receiving pool lacks changes older than this. Planned operations: 60 unless said.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub max_loss: Option<f64>,
    #[command(flatten)]
    pub deployment: DeploymentArgument,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("a number of seconds, 0 or more".to_owned()),
    }
}

/// `tandem conflicts ...`
#[derive(Debug, Subcommand)]
pub enum ConflictsCommand {
    /// List the conflicts that wait.
    List {
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Show both versions of one.
    Show {
        /// Its name, as the list shows it.
        id: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// End one.
    Resolve {
        /// Its name, as the list shows it.
        id: String,
        /// What stays: what there is, or what the lost pool had.
        #[arg(long, value_enum)]
        keep: KeepArgument,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// What stays of two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepArgument {
    /// What there is now.
    Present,
    /// What the lost pool had.
    Orphan,
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

/// `tandem ban ...`. Each server bans for itself; without `--server` all are asked.
#[derive(Debug, Subcommand)]
pub enum BanCommand {
    /// List the bans in force: whom, why, since when and until when.
    List {
        /// Only those of this server.
        #[arg(long)]
        server: Option<String>,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Ban an address for a while.
    Add {
        /// IPv4 address, IPv6 address (its /64 is banned), or /64.
        address: String,
        /// For how long, like 90s, 10m, 1h or 7d.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = crate::ban::length)]
        lasts: Duration,
        /// Only at this server.
        #[arg(long)]
        server: Option<String>,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Listen to an address again, and forget what it did.
    Remove {
        /// As the list shows it, or any address in it.
        address: String,
        /// Only at this server.
        #[arg(long)]
        server: Option<String>,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// `tandem certificate ...`
#[derive(Debug, Subcommand)]
pub enum CertificateCommand {
    /// Sign new certificates for every server and the operator. Running servers take them up by themselves
    /// within half a minute, or at once with `tandem certificate reload`.
    Renew {
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Show the certificates in force on every server: for what, whose, until when; exit code 1 when a server
    /// has refused newer files.
    Show {
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Let every running server read its certificates and keys again, as SIGHUP does for one. What cannot be
    /// used is refused with the reason, exit code 1, and the former ones stay in force there.
    Reload {
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

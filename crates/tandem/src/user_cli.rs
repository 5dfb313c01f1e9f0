//! The command line of users' documents: `tandem user contacts`, `settings`, `policy`, `calls`.

use clap::{Args, Subcommand, ValueEnum};
use model::documents::{CallPermission, GroupName};

use crate::cli::DeploymentArgument;

/// `tandem user contacts ...`
#[derive(Debug, Subcommand)]
pub enum ContactsCommand {
    /// List a user's contacts with their groups.
    List {
        /// Address-of-record of the user whose list it is.
        aor: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Put a contact into the list, or change its name and groups.
    Add {
        /// Address-of-record of the user whose list it is.
        aor: String,
        /// Address-of-record of the contact.
        contact: String,
        /// How the user calls the contact.
        #[arg(long, default_value = "")]
        name: String,
        /// A group the contact is in, made when it is missing; may be given several times. The contact leaves
        /// the groups that are not named.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<GroupName>,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Take a contact out of the list.
    Remove {
        /// Address-of-record of the user whose list it is.
        aor: String,
        /// Address-of-record of the contact.
        contact: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Make a group.
    AddGroup {
        /// Address-of-record of the user whose list it is.
        aor: String,
        /// Name of the group.
        group: GroupName,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Remove a group; its contacts stay in the list.
    RemoveGroup {
        /// Address-of-record of the user whose list it is.
        aor: String,
        /// Name of the group.
        group: GroupName,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// `tandem user settings ...`
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Show what a user wants done with calls.
    Show {
        /// Address-of-record.
        aor: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Change what is named, leave the rest.
    ///
    /// A destination is sip:, sips: or tel:; sip: may be left out.
    Set {
        /// Address-of-record.
        aor: String,
        #[command(flatten)]
        wishes: Box<Wishes>,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// Changes of a user's settings.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct Wishes {
    /// Send every call there; no phone rings.
    #[arg(long, value_name = "DESTINATION", conflicts_with = "clear_forward_always")]
    pub forward_always: Option<String>,
    /// Ring the user's phones again.
    #[arg(long)]
    pub clear_forward_always: bool,
    /// Send calls there when a phone is busy or the user does not want to be disturbed.
    #[arg(long, value_name = "DESTINATION", conflicts_with = "clear_forward_busy")]
    pub forward_busy: Option<String>,
    /// Do nothing more when a phone is busy.
    #[arg(long)]
    pub clear_forward_busy: bool,
    /// Send calls there when nobody answers in time.
    #[arg(long, value_name = "DESTINATION", conflicts_with = "clear_forward_no_answer")]
    pub forward_no_answer: Option<String>,
    /// After so many seconds nobody has answered, 5 to 120; 20 unless it was set before.
    #[arg(long, value_name = "SECONDS", conflicts_with = "clear_forward_no_answer")]
    pub no_answer_after: Option<u32>,
    /// Let the phones ring.
    #[arg(long)]
    pub clear_forward_no_answer: bool,
    /// Send calls there when no phone is registered or reached.
    #[arg(long, value_name = "DESTINATION", conflicts_with = "clear_forward_not_reachable")]
    pub forward_not_reachable: Option<String>,
    /// Do nothing more when no phone is reached.
    #[arg(long)]
    pub clear_forward_not_reachable: bool,
    /// Ring this together with the user's phones; may be given several times, and replaces what was set.
    #[arg(long = "ring-also", value_name = "DESTINATION", conflicts_with = "clear_ring_also")]
    pub ring_also: Vec<String>,
    /// Ring the user's phones only.
    #[arg(long)]
    pub clear_ring_also: bool,
    /// Refuse calls without ringing.
    #[arg(long, value_enum, value_name = "ON|OFF")]
    pub do_not_disturb: Option<Switch>,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// `tandem user policy ...`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show what a user may call.
    Show {
        /// Address-of-record.
        aor: String,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
    /// Change what is named, leave the rest. Emergency calls are never refused.
    Set {
        /// Address-of-record.
        aor: String,
        #[command(flatten)]
        changes: PolicyChanges,
        #[command(flatten)]
        deployment: DeploymentArgument,
    },
}

/// Changes of a user's voice policy.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct PolicyChanges {
    /// Whom the user may call.
    #[arg(long, value_enum)]
    pub calls: Option<Calls>,
    /// Whether forwarding and simultaneous ring to destinations outside the deployment's domains are
    /// followed.
    #[arg(long, value_enum)]
    pub forwarding_outside: Option<Permission>,
}

/// Whom a user may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Calls {
    /// Everybody.
    Everybody,
    /// Users of the deployment's domains only.
    Internal,
    /// Nobody but emergency services.
    EmergencyOnly,
}

impl From<Calls> for CallPermission {
    fn from(calls: Calls) -> Self {
        match calls {
            Calls::Everybody => Self::Everybody,
            Calls::Internal => Self::Internal,
            Calls::EmergencyOnly => Self::EmergencyOnly,
        }
    }
}

/// Allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Permission {
    /// They are.
    Allowed,
    /// They are not.
    Refused,
}

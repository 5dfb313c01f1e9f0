//! Drives the ownership machines: asks the witness and the partner, publishes who may answer.

mod driver;
mod handover;
mod memory;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hashbrown::HashMap;
use model::PoolName;
use pairing::{
    Order, OrderId, OrderResult, Ownership, OwnershipError, Parties, PromiseAnswer, PromiseRequest, Settings,
    Tenure,
};
use store::{SingleVoterHotStore, SqliteUserStore};
use tokio::sync::{mpsc, oneshot, watch};
use topology::{PoolSettings, Topology};

use crate::{
    AuthorityTable, BindingStreams, Gates, Homes,
    backup_service::CopyLedger,
    clock,
    peers::{Endpoint, PeerClient},
};
use driver::{Calls, Driver, Message};
use handover::Handover;

/// Answers and questions waiting for one machine.
const INBOX_MAX: usize = 256;

/// How the rest of the server speaks to one machine.
#[derive(Clone, Debug)]
pub struct OwnershipHandle {
    inbox: mpsc::Sender<Message>,
    known: watch::Receiver<Option<Tenure>>,
}

impl OwnershipHandle {
    /// Puts the partner's question to the machine.
    ///
    /// `None` when the machine does not answer: its inbox is full or it ended.
    pub async fn ask(&self, body: PromiseRequest) -> Option<Result<PromiseAnswer, OwnershipError>> {
        let (answer, answered) = oneshot::channel();
        self.inbox.try_send(Message::Asked { body, answer }).ok()?;
        answered.await.ok()
    }

    /// Gives an operator's order to the machine. `None` as for [`Self::ask`].
    pub async fn order(&self, order: Order) -> Option<OrderResult> {
        let (answer, answered) = oneshot::channel();
        self.inbox.try_send(Message::Ordered { order, answer }).ok()?;
        answered.await.ok()
    }

    /// Asks the machine to undo the operation of an order. `None` as for [`Self::ask`].
    pub async fn cancel(&self, of: OrderId) -> Option<OrderResult> {
        let (answer, answered) = oneshot::channel();
        self.inbox.try_send(Message::Cancelled { of, answer }).ok()?;
        answered.await.ok()
    }

    /// Who owns the home pool, as far as the machine knows, and every later change.
    pub fn known(&self) -> watch::Receiver<Option<Tenure>> {
        self.known.clone()
    }
}

/// The machines of this server: of its own pool, where it is paired, and of its partner.
pub struct Ownerships {
    handles: HashMap<PoolName, OwnershipHandle>,
}

/// What the drivers of ownership need from the rest of the node.
#[derive(Clone)]
pub struct OwnershipContext {
    /// The deployment.
    pub topology: Arc<Topology>,
    /// Home pools by index.
    pub homes: Homes,
    /// Where decisions are published.
    pub authority: Arc<AuthorityTable>,
    /// Asks other servers.
    pub client: PeerClient,
    /// The server's data folder.
    pub data: PathBuf,
    /// User data.
    pub users: Arc<SqliteUserStore>,
    /// Bindings: whether they can be written.
    pub hot: Arc<SingleVoterHotStore>,
    /// Who holds what of it.
    pub copies: Arc<CopyLedger>,
    /// Bindings on their way to and from the partner.
    pub streams: Arc<BindingStreams>,
    /// Who is writing user data.
    pub gates: Arc<Gates>,
}

impl Ownerships {
    /// Starts one driver for each home pool that `pool` owns or may take over.
    pub fn start(context: &OwnershipContext, pool: &PoolName) -> Self {
        let mut handles = HashMap::new();
        if let Some(partner) = context.topology.partner_of(pool) {
            let parties = [
                Parties::at_home(pool.clone(), partner.name.clone()),
                Parties::at_partner(partner.name.clone(), pool.clone()),
            ];
            for parties in parties {
                let home = parties.home.clone();
                if let Some(handle) = start_one(context, parties) {
                    handles.insert(home, handle);
                }
            }
        }
        Self { handles }
    }

    /// The machine of a home pool.
    pub fn of(&self, home: &PoolName) -> Option<&OwnershipHandle> {
        self.handles.get(home)
    }
}

/// The time limits that a home pool's settings ask for.
pub fn settings_of(settings: &PoolSettings, has_witness: bool) -> Settings {
    Settings {
        ttl: settings.lease_ttl(),
        takeover_after: settings.takeover_after(),
        hold: settings.hold(),
        is_automatic: settings.automatic_takeover && has_witness,
        ..Settings::default()
    }
}

fn start_one(context: &OwnershipContext, parties: Parties) -> Option<OwnershipHandle> {
    let index = context.homes.index(&parties.home)?;
    let topology = &context.topology;
    let witness = topology
        .control_servers()
        .next()
        .map(|server| Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() });
    let partner = topology.servers_of(&parties.other).next()?;
    let settings = settings_of(&topology.pool(&parties.home)?.settings, witness.is_some());
    let memory = memory_file(&context.data, &parties.home);
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let (known, knowing) = watch::channel(None);
    let (now, remembered) = (clock::now(), memory::remembered(&memory));
    let handover = Handover {
        home: parties.home.clone(),
        other: parties.other.clone(),
        reader: partner.name.clone(),
        users: Arc::clone(&context.users),
        copies: Arc::clone(&context.copies),
        streams: Arc::clone(&context.streams),
        gates: Arc::clone(&context.gates),
    };
    let driver = Driver {
        index,
        key: ownership_key(&parties.home),
        home: parties.home.clone(),
        partner: Endpoint { address: partner.listen.internal_http, name: partner.fqdn.clone() },
        patience: settings.patience(),
        drain_max: settings.drain_max(),
        machine: match (witness.is_some(), parties.is_home()) {
            (true, _) => Ownership::paired(parties, settings, now, remembered),
            (false, _) => Ownership::unwitnessed(parties, settings, now, remembered),
        },
        witness,
        memory,
        handover,
        known,
        sender: sender.clone(),
        context: context.clone(),
        calls: Calls::default(),
        fenced: None,
        look_at: now,
        is_able: true,
    };
    tokio::spawn(driver.run(inbox));
    Some(OwnershipHandle { inbox: sender, known: knowing })
}

fn memory_file(data: &Path, home: &PoolName) -> PathBuf {
    data.join(format!("ownership-{home}.json"))
}

/// The owner of a home pool when this server last had a part in its ownership; `None`: it never had, as far
/// as its data folder says.
pub fn remembered_owner(data: &Path, home: &PoolName) -> Option<PoolName> {
    memory::remembered(&memory_file(data, home)).map(|tenure| tenure.owner)
}

/// Key of a home pool's ownership record in the control store.
pub fn ownership_key(home: &PoolName) -> String {
    format!("ownership/{home}")
}

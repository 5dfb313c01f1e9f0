//! Drives the ownership machines: asks the witness and the partner, publishes who may answer.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;
use model::{Machine, PoolName};
use pairing::{
    CallId, Event, Input, Output, Ownership, OwnershipError, OwnershipRecord, Parties, PromiseAnswer,
    PromiseRequest, RecordVersion, RequestId, Settings, StoredRecord, Tenure,
};
use tokio::sync::{mpsc, oneshot};
use topology::{PoolSettings, Topology};
use tracing::{info, warn};

use crate::{
    AuthorityTable, HomeIndex, Homes,
    api::control::{CompareAndSet, Record, Swap},
    clock,
    peers::{Endpoint, PeerClient},
};

/// Answers and questions waiting for one machine.
const INBOX_MAX: usize = 256;

/// How a pool asks one machine on behalf of its partner.
#[derive(Clone, Debug)]
pub struct OwnershipHandle {
    inbox: mpsc::Sender<Message>,
}

enum Message {
    Input(Input),
    Asked { body: PromiseRequest, answer: oneshot::Sender<Result<PromiseAnswer, OwnershipError>> },
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
    let partner = topology
        .servers_of(&parties.other)
        .next()
        .map(|server| Endpoint { address: server.listen.internal_http, name: server.fqdn.clone() })?;
    let settings = settings_of(&topology.pool(&parties.home)?.settings, witness.is_some());
    let memory = context.data.join(format!("ownership-{}.json", parties.home));
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let patience = settings.patience();
    let now = clock::now();
    let machine = match (witness.is_some(), parties.is_home()) {
        (true, _) => Ownership::paired(parties.clone(), settings, now, remembered(&memory)),
        (false, true) => Ownership::alone(parties.home.clone(), settings, now, remembered(&memory), false),
        (false, false) => Ownership::onlooker(parties.clone(), settings, now, remembered(&memory)),
    };
    let driver = Driver {
        machine,
        index,
        key: ownership_key(&parties.home),
        home: parties.home,
        witness,
        partner,
        patience,
        memory,
        calls: HashMap::new(),
        next_call: 0,
        sender: sender.clone(),
        context: context.clone(),
    };
    tokio::spawn(driver.run(inbox));
    Some(OwnershipHandle { inbox: sender })
}

/// Key of a home pool's ownership record in the control store.
pub fn ownership_key(home: &PoolName) -> String {
    format!("ownership/{home}")
}

struct Driver {
    machine: Ownership,
    index: HomeIndex,
    home: PoolName,
    key: String,
    witness: Option<Endpoint>,
    partner: Endpoint,
    patience: Duration,
    memory: PathBuf,
    calls: HashMap<CallId, oneshot::Sender<Result<PromiseAnswer, OwnershipError>>>,
    next_call: u64,
    sender: mpsc::Sender<Message>,
    context: OwnershipContext,
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        loop {
            self.drain();
            let deadline = self.machine.poll_timeout().map(clock::runtime_instant);
            let message = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), inbox.recv()).await,
                None => Ok(inbox.recv().await),
            };
            match message {
                Ok(Some(Message::Input(input))) => self.input(input),
                Ok(Some(Message::Asked { body, answer })) => self.asked(body, answer),
                Ok(None) => return,
                Err(_) => self.machine.handle_timeout(clock::now()),
            }
        }
    }

    fn input(&mut self, input: Input) {
        if let Err(error) = self.machine.handle(clock::now(), input) {
            warn!(pool = %self.home, %error, "input to the ownership machine refused");
        }
    }

    fn asked(
        &mut self,
        body: PromiseRequest,
        answer: oneshot::Sender<Result<PromiseAnswer, OwnershipError>>,
    ) {
        self.next_call += 1;
        let call = CallId(self.next_call);
        match self.machine.handle(clock::now(), Input::PromiseAsked { call, body }) {
            Ok(()) => {
                self.calls.insert(call, answer);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    /// Executes what the machine asks for, then publishes how things stand.
    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Read { request } => self.read(request),
                Output::CompareAndSet { request, expected, record } => self.swap(request, expected, record),
                Output::AskPartner { request, body } => self.ask_partner(request, body),
                Output::Answer { call, body } => {
                    if let Some(answer) = self.calls.remove(&call) {
                        let _ = answer.send(Ok(body));
                    }
                }
                Output::Authority(_) => self.publish(),
                Output::Remember(tenure) => remember(&self.memory, &tenure),
                Output::Event(event) => self.tell(&event),
            }
        }
        self.publish();
    }

    fn publish(&self) {
        self.context.authority.set(self.index, self.machine.standing(clock::now()));
    }

    fn read(&self, request: RequestId) {
        let Some(witness) = self.witness.clone() else { return self.fail(Input::WitnessFailed { request }) };
        let (client, sender, within) = (self.context.client.clone(), self.sender.clone(), self.patience);
        let path = format!("/v1/control/{}", self.key);
        tokio::spawn(async move {
            let input = match client.get::<Option<Record>>(&witness, &path, within).await {
                Ok(found) => match found.map(stored).transpose() {
                    Ok(found) => Input::RecordRead { request, found },
                    Err(_) => Input::WitnessFailed { request },
                },
                Err(_) => Input::WitnessFailed { request },
            };
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    fn swap(&self, request: RequestId, expected: Option<RecordVersion>, record: OwnershipRecord) {
        let Some(witness) = self.witness.clone() else { return self.fail(Input::WitnessFailed { request }) };
        let (client, sender, within) = (self.context.client.clone(), self.sender.clone(), self.patience);
        let path = format!("/v1/control/{}", self.key);
        tokio::spawn(async move {
            let failed = Input::WitnessFailed { request };
            let input = match serde_json::to_string(&record) {
                Ok(value) => {
                    let body = CompareAndSet { expected: expected.map_or(0, |version| version.0), value };
                    match client.post::<Swap>(&witness, &path, &body, within).await {
                        Ok(Swap::Stored { version }) => {
                            Input::Swapped { request, version: RecordVersion(version) }
                        }
                        Ok(Swap::Conflict { found }) => match found.map(stored).transpose() {
                            Ok(found) => Input::SwapRefused { request, found },
                            Err(_) => failed,
                        },
                        Err(_) => failed,
                    }
                }
                Err(_) => failed,
            };
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    fn ask_partner(&self, request: RequestId, body: PromiseRequest) {
        let (client, sender, within) = (self.context.client.clone(), self.sender.clone(), self.patience);
        let partner = self.partner.clone();
        tokio::spawn(async move {
            let answer = client.post::<PromiseAnswer>(&partner, "/v1/promise", &body, within).await;
            let input = match answer {
                Ok(answer) => Input::PartnerAnswered { request, answer },
                Err(_) => Input::PartnerFailed { request },
            };
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    /// Reports a failure that is known at once, by the same way as the others.
    fn fail(&self, input: Input) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let _ = sender.send(Message::Input(input)).await;
        });
    }

    fn tell(&self, event: &Event) {
        let pool = &self.home;
        match event {
            Event::OwnerKnown(tenure) => {
                info!(%pool, owner = %tenure.owner, epoch = tenure.epoch.number(), "owner known");
            }
            Event::ServingBegan { epoch } => info!(%pool, epoch = epoch.number(), "serving began"),
            Event::ServingEnded { epoch } => warn!(%pool, epoch = epoch.number(), "serving ended"),
            Event::TakeoverBegan { epoch } => warn!(%pool, epoch = epoch.number(), "takeover began"),
            Event::TakeoverAbandoned { epoch } => {
                warn!(%pool, epoch = epoch.number(), "takeover abandoned");
            }
            Event::ReturnBegan { epoch } => info!(%pool, epoch = epoch.number(), "return began"),
            Event::ReturnAbandoned { epoch } => warn!(%pool, epoch = epoch.number(), "return abandoned"),
            Event::OwnerImpossible(tenure) => {
                warn!(%pool, owner = %tenure.owner, "the control store names an owner outside the pair");
            }
            Event::WitnessBehind { known, .. } => {
                warn!(%pool, epoch = known.number(), "the control store holds an older ownership record");
            }
        }
    }
}

fn stored(record: Record) -> Result<StoredRecord, serde_json::Error> {
    let value = serde_json::from_str(&record.value)?;
    Ok(StoredRecord { version: RecordVersion(record.version), record: value })
}

fn remembered(file: &Path) -> Option<Tenure> {
    let text = std::fs::read_to_string(file).ok()?;
    match serde_json::from_str(&text) {
        Ok(tenure) => Some(tenure),
        Err(error) => {
            warn!(file = %file.display(), %error, "remembered ownership cannot be read; asking for it again");
            None
        }
    }
}

/// Writes what was learnt; losing it costs a question at the next start, never safety.
fn remember(file: &Path, tenure: &Tenure) {
    let written = serde_json::to_vec(tenure).map_err(std::io::Error::other).and_then(|content| {
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, content)?;
        std::fs::rename(&fresh, file)
    });
    if let Err(error) = written {
        warn!(file = %file.display(), %error, "ownership not remembered");
    }
}

//! A server of the front-end or branch role: shards, ownership, copies of accounts, API.

use std::{future::Future, path::Path, sync::Arc, thread, time::Duration};

use model::{Epoch, Instant, RoutingGroup};
use pairing::{Authority, Service, Standing};
use registrar::{Change, Command, Gruus, OperationId};
use store::{HotStore, SingleVoterHotStore, SqliteUserStore, StoreError, UserStore};
use tokio::{
    runtime::Builder,
    sync::{oneshot, watch},
    time::sleep,
};
use topology::{BranchRecovery, Role, Server};
use tracing::{error, info};
use transport::ShardConfig;

use super::{ServeError, say_ready};
use crate::{
    Associations, AuthorityTable, BackEnd, CallRecorder, CertificatesInForce, Counters, Defence, Deployment,
    Directory, FlowTokens, Gates, Homes, Links, Locator, OwnershipContext, Ownerships, Shared,
    TopologyInForce, accounts, api, associations, back_end,
    backup_service::{self, CopyLedger, purge_strangers},
    binding_stream::{self, BindingStreams},
    call_records::{self, Spool},
    certificates, clock,
    flow_token::keys_of_server,
    peers::{PeerClient, PeerServer},
    shard::{
        Shard, SharedLedger, Watchers,
        mail::{Mail, Mailer},
    },
};

/// Folder of bindings in the server's data folder.
const BINDINGS_FOLDER: &str = "bindings";
/// Folder of call records that wait for the owner of the user data.
const CALL_RECORDS_FOLDER: &str = "call-records";
/// Time between two rounds in which expired bindings are let go.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// Users whose expired bindings one round lets go in one routing group.
const EXPIRE_USERS_MAX: u32 = 1_000;
/// Time between two looks at what a branch reaches.
const BRANCH_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until `stop` is done.
pub async fn run(
    deployment: &Deployment,
    topology: Arc<TopologyInForce>,
    server: Server,
    role: Role,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let certificates = Arc::new(CertificatesInForce::open(deployment, &server)?);
    let client = own_client(&certificates, &server);
    let tls = Arc::clone(&certificates.now().internal_server);
    let listener = PeerServer::bind(server.listen.internal_http, tls, topology.now()).await?;
    let tls = listener.tls();
    certificates.follow(move |new| tls.store(Arc::clone(&new.internal_server)));
    let shared = open(deployment, topology, server, role, &client, Arc::clone(&certificates))?;
    let spool = Spool::open(&shared.data.join(CALL_RECORDS_FOLDER))?;
    let shards = start_shards(&shared)?;
    let mailers = shards.mailers.clone();
    certificates.follow(move |new| {
        mailers.iter().for_each(|mailer| mailer.post(Mail::Tls(Box::new(new.of_shard()))));
    });
    shared.links.watch(&client, shared.directory.homes(), &shared.authority);
    backup_service::start(&shared, &client);
    tokio::spawn(stand_alone(Arc::clone(&shared)));
    tokio::spawn(expire(Arc::clone(&shared)));
    tokio::spawn(Defence::watch(Arc::clone(&shared)));
    tokio::spawn(back_end::watch(Arc::clone(&shared)));
    binding_stream::start(&shared, &client);
    call_records::start(&shared, &client, spool);
    associations::start(&shared, &client);
    let routes = api::registrar_routes(Arc::clone(&shared));
    let routes = routes.merge(api::certificate_routes(Arc::clone(&certificates)));
    info!(node = %shared.server.name, pool = %shared.pool, users = shared.directory.len(), "server ready");
    say_ready();
    let ended = async {
        let (done, ended) = oneshot::channel();
        thread::spawn(move || {
            shards.threads.into_iter().for_each(|thread| drop(thread.join()));
            let _ = done.send(());
        });
        let _ = ended.await;
    };
    tokio::pin!(ended);
    tokio::select! {
        () = listener.run(routes) => {}
        () = certificates::watch(certificates) => {}
        () = stop => {}
        () = &mut ended => error!("a shard ended by itself"),
    }
    for mailer in &shards.mailers {
        mailer.post(Mail::Stop);
    }
    info!(node = %shared.server.name, "server stopped");
    Ok(())
}

/// Asks other servers from this server's own address.
fn own_client(certificates: &CertificatesInForce, server: &Server) -> PeerClient {
    let source = Some(server.listen.internal_http.ip()).filter(|ip| !ip.is_unspecified());
    let client = PeerClient::new(Arc::clone(&certificates.now().internal_client), source);
    let following = client.clone();
    certificates.follow(move |new| following.set_tls(Arc::clone(&new.internal_client)));
    client
}

/// Opens the stores and everything that all parts share.
fn open(
    deployment: &Deployment,
    topology: Arc<TopologyInForce>,
    server: Server,
    role: Role,
    client: &PeerClient,
    certificates: Arc<CertificatesInForce>,
) -> Result<Arc<Shared>, ServeError> {
    let data = deployment.data(&server.name);
    let unusable = |source| ServeError::Data { folder: data.clone(), source };
    std::fs::create_dir_all(&data).map_err(unusable)?;
    let nonce_key = nonce_key(&deployment.nonce_key(&server.name))?;
    let users = Arc::new(SqliteUserStore::open(&data.join(accounts::USERS_FILE))?);
    let hot = Arc::new(SingleVoterHotStore::open(&data.join(BINDINGS_FOLDER))?);
    let start = topology.now();
    let associations = Arc::new(Associations::open(&data, &start).map_err(unusable)?);
    purge_strangers(users.as_ref(), &start, &server.pool, &data)?;
    let homes = Homes::of(&start);
    let directory = Arc::new(Directory::new(homes.clone()));
    let (user_news, _) = watch::channel(0_u64);
    let copies = Arc::new(CopyLedger::new(server.name.clone()));
    let gates = Arc::new(Gates::of_homes(start.home_pools().map(|pool| &pool.name)));
    follow_users(&users, &directory, &copies, &user_news)?;
    let authority = Arc::new(AuthorityTable::new(&homes));
    let (follows, own_pool) = (Arc::clone(&topology), server.pool.clone());
    let binding_streams =
        BindingStreams::new(follows, own_pool, homes.clone(), Arc::clone(&authority), Arc::clone(&hot));
    let binding_streams = Arc::new(binding_streams);
    let context = OwnershipContext {
        topology: Arc::clone(&start),
        homes: homes.clone(),
        authority: Arc::clone(&authority),
        client: client.clone(),
        data: data.clone(),
        users: Arc::clone(&users),
        hot: Arc::clone(&hot),
        copies: Arc::clone(&copies),
        streams: Arc::clone(&binding_streams),
        gates: Arc::clone(&gates),
    };
    let boot = clock::random_seed();
    let settings = start.pool(&server.pool).map(|pool| pool.settings.clone()).unwrap_or_default();
    let (one, two) = keys_of_server(&nonce_key, &server.name);
    Ok(Arc::new(Shared {
        ownerships: Ownerships::start(&context, &server.pool),
        links: Arc::new(Links::of(&start, &homes, &server.name)),
        pool: server.pool.clone(),
        own_home: homes.index(&server.pool),
        tokens: FlowTokens::of_server(&nonce_key, &server.name, boot),
        gruus: Gruus::derived_from(&nonce_key),
        nonce_counts: SharedLedger::new(&settings),
        loop_key: one ^ two.rotate_left(17),
        defence: Defence::new(&start, &settings, two),
        calls: CallRecorder::default(),
        watchers: Watchers::default(),
        counters: Counters::default(),
        locator: Locator::start(&settings.dns_servers, settings.dns_timeout()),
        certificates,
        topology,
        associations,
        server,
        role,
        data,
        boot,
        directory,
        authority,
        hot,
        binding_streams,
        users,
        copies,
        back_end: BackEnd::new(settings.user_services_lost_after()),
        conflicts: Arc::default(),
        gates,
        user_news,
        nonce_key,
    }))
}

/// Lets the directory, the copies' account and who waits for news of users follow the store.
fn follow_users(
    users: &SqliteUserStore,
    directory: &Arc<Directory>,
    copies: &Arc<CopyLedger>,
    news: &watch::Sender<u64>,
) -> Result<(), StoreError> {
    let (directory, copies, news) = (Arc::clone(directory), Arc::clone(copies), news.clone());
    users.follow(Box::new(move |changes| {
        directory.apply(changes);
        copies.grew(changes.journal, changes.sequence, clock::now());
        news.send_modify(|number| *number += 1);
    }))
}

fn nonce_key(file: &Path) -> Result<[u8; 32], ServeError> {
    let unreadable = || ServeError::NonceKey { file: file.to_path_buf() };
    std::fs::read(file).map_err(|_| unreadable())?.try_into().map_err(|_| unreadable())
}

struct Shards {
    mailers: Vec<Mailer>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// One thread for each shard, all on the same addresses.
fn start_shards(shared: &Arc<Shared>) -> Result<Shards, ServeError> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let count = shared.server.shards.unwrap_or_else(|| u16::try_from(cores).unwrap_or(1));
    let mut mailers = Vec::new();
    let mut threads = Vec::new();
    let mut starts = Vec::new();
    for number in 0..count.max(1) {
        let listen = &shared.server.listen;
        let config = ShardConfig {
            shard: number,
            udp: listen.udp.clone(),
            tcp: listen.tcp.clone(),
            tls: listen.tls.clone(),
            ws: listen.ws.clone(),
            wss: listen.wss.clone(),
            internal: listen.internal_sip,
            tls_configs: shared.certificates.now().of_shard(),
            settings: transport::Settings::default(),
            banned: shared.defence.banned(),
        };
        let (bound, is_bound) = std::sync::mpsc::channel();
        let (start, started) = oneshot::channel::<Vec<Mailer>>();
        let shared = Arc::clone(shared);
        let run = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(bound.send(Err(ServeError::Thread(error)))),
            };
            runtime.block_on(async move {
                match Shard::bind(shared, config) {
                    Ok(shard) => {
                        let _ = bound.send(Ok(shard.mailer()));
                        if let Ok(others) = started.await {
                            shard.run(others).await;
                        }
                    }
                    Err(error) => drop(bound.send(Err(error.into()))),
                }
            });
        };
        let name = format!("shard-{number}");
        threads.push(thread::Builder::new().name(name).spawn(run).map_err(ServeError::Thread)?);
        let ended = || ServeError::Thread(std::io::Error::other("the shard ended"));
        mailers.push(is_bound.recv().map_err(|_| ended())??);
        starts.push(start);
    }
    shared.watchers.connect(mailers.clone());
    shared.defence.connect(mailers.clone());
    for start in starts {
        let _ = start.send(mailers.clone());
    }
    Ok(Shards { mailers, threads })
}

/// Authority that needs nobody's promise: of a pool without partner, and of a branch appliance, whose mode
/// follows what it reaches.
async fn stand_alone(shared: Arc<Shared>) {
    let Some(home) = shared.own_home else { return };
    if shared.topology().partner_of(&shared.pool).is_some() {
        return;
    }
    let epoch = unpaired_epoch(&shared);
    loop {
        let service = match shared.role {
            Role::Branch => branch_service(&shared),
            Role::FrontEnd | Role::Director | Role::Edge | Role::Mediation | Role::Control => Service::Full,
        };
        let authority = Authority { epoch, until: Instant::NEVER_ENDS, service };
        shared.authority.set(home, Standing::Serving(authority));
        sleep(BRANCH_LOOK_EVERY).await;
    }
}

/// The epoch of a pool that owns its users without a record: the highest that its stores have seen, since it
/// may have had a partner before and been failed over; what is written under a lower one is refused.
fn unpaired_epoch(shared: &Shared) -> Epoch {
    if shared.role == Role::Branch {
        return Epoch::ZERO;
    }
    let documents = shared.users.highest_epoch(&shared.pool).unwrap_or(Epoch::ZERO);
    documents.max(shared.hot.highest_epoch(&shared.pool))
}

/// What a branch appliance can give its users: everything while it reaches who gives them user services.
fn branch_service(shared: &Shared) -> Service {
    let now = clock::now();
    let full = || {
        let topology = shared.topology();
        let branch = topology.pool(&shared.pool)?;
        let associated = branch.associated_pool.as_ref()?;
        let claim = shared.links.serving(shared.directory.homes().index(associated)?, now)?;
        let follows = branch.settings.branch_recovery == BranchRecovery::Follow;
        (claim.is_full && (claim.is_at_home || follows)).then_some(())
    };
    full().map_or(Service::Resiliency, |()| Service::Full)
}

/// Lets go of expired bindings, a few at a time.
async fn expire(shared: Arc<Shared>) {
    loop {
        sleep(EXPIRE_EVERY).await;
        for home in shared.hot.homes() {
            let commands = RoutingGroup::all().map(|group| Command {
                home: home.clone(),
                group,
                epoch: shared.hot.highest_epoch(&home),
                operation: OperationId::new(accounts::fresh_operation().number()),
                now: clock::wall_time(),
                change: Change::Expire { users_max: EXPIRE_USERS_MAX },
            });
            shared.hot.submit(commands.collect(), Box::new(drop));
        }
    }
}

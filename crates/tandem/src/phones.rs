//! Ready-made accounts for baresip and linphone: `tandem init` writes them for the first two users of each home.

use std::path::PathBuf;

use anyhow::Result;
use model::PoolName;
use node::Deployment;
use store::DigestAlgorithm;
use topology::{Server, Topology};

use crate::{
    certificates::write,
    init::{self, ExampleUser},
};

/// Users of each home pool that get ready-made phones.
const PHONES_PER_HOME: usize = 2;

/// What these users are offered: baresip gives up on a challenge list that names anything but MD5.
pub const ALGORITHMS: [DigestAlgorithm; 1] = [DigestAlgorithm::Md5];

/// Folder with the files of the phones of the user with this user part.
pub fn folder(deployment: &Deployment, user: &str) -> PathBuf {
    deployment.root().join("phones").join(user)
}

/// User parts of the users homed on `home` that have ready-made phones in this deployment.
pub fn made(deployment: &Deployment, topology: &Topology, home: &PoolName) -> Vec<String> {
    let users = init::example_names(topology).into_iter().filter(|(_, pool)| pool == home);
    users.map(|(name, _)| name).filter(|name| folder(deployment, name).join("accounts").is_file()).collect()
}

/// The users that have ready-made phones, with the server they register at.
pub fn owners<'a>(
    topology: &'a Topology,
    users: &'a [ExampleUser],
) -> impl Iterator<Item = (&'a ExampleUser, &'a Server)> {
    topology.home_pools().flat_map(move |pool| {
        let server = topology.servers_of(&pool.name).next();
        users
            .iter()
            .filter(move |user| user.home == pool.name)
            .take(PHONES_PER_HOME)
            .filter_map(move |user| server.map(|server| (user, server)))
    })
}

/// Writes `phones/USER/accounts` (baresip -f) and `phones/USER/linphonerc` (linphonec -c).
pub fn write_all(deployment: &Deployment, topology: &Topology, users: &[ExampleUser]) -> Result<()> {
    for (user, server) in owners(topology, users) {
        let folder = folder(deployment, user.aor.user());
        write(&folder.join("accounts"), baresip(user, server).as_bytes(), 0o600)?;
        write(&folder.join("linphonerc"), linphone(user, server).as_bytes(), 0o600)?;
    }
    Ok(())
}

fn baresip(user: &ExampleUser, server: &Server) -> String {
    let address = server.listen.udp.first().map(ToString::to_string).unwrap_or_default();
    format!(
        "<sip:{name}@{domain};transport=udp>;auth_pass={password};outbound=\"sip:{address};transport=udp\"\n",
        name = user.aor.user(),
        domain = user.aor.domain(),
        password = user.password.reveal(),
    )
}

fn linphone(user: &ExampleUser, server: &Server) -> String {
    let address = server.listen.tcp.first().map(ToString::to_string).unwrap_or_default();
    let (name, domain) = (user.aor.user(), user.aor.domain());
    format!(
        "[sip]\nsip_port=-1\nsip_tcp_port=-1\nsip_tls_port=-1\ndefault_proxy=0\n\n\
         [proxy_0]\nreg_proxy=<sip:{address};transport=tcp>\nreg_route=<sip:{address};transport=tcp;lr>\n\
         reg_identity=sip:{name}@{domain}\nreg_expires=600\nreg_sendregister=1\npublish=0\n\n\
         [auth_info_0]\nusername={name}\ndomain={domain}\nrealm={domain}\npasswd={password}\n",
        password = user.password.reveal(),
    )
}

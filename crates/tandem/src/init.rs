//! `tandem init`: an example deployment with everything it needs to run.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use model::{AddressOfRecord, PoolName};
use node::{Deployment, Secret, accounts, clock};
use topology::{Server, Topology};

use crate::{
    certificates::{Authority, write},
    phones, serve,
};

const EXAMPLE: &str = include_str!("example.toml");
const USERS_PER_HOME: u32 = 10;
const PASSWORD_CHARACTERS: usize = 16;
const NONCE_KEY_BYTES: usize = 32;

/// One of the users that `tandem init` makes.
pub struct ExampleUser {
    /// Address-of-record.
    pub aor: AddressOfRecord,
    /// Password.
    pub password: Secret,
    /// Home pool.
    pub home: PoolName,
}

/// Makes the example deployment in `dir`.
pub fn run(dir: &Path) -> Result<()> {
    refuse_existing(dir)?;
    let deployment = Deployment::at(dir);
    write(&deployment.topology(), EXAMPLE.as_bytes(), 0o644)?;
    let topology = serve::read_topology(&deployment.topology())?;
    let authority = Authority::create(&deployment, topology.deployment.as_str())?;
    authority.sign_operator(&deployment, topology.deployment.as_str())?;
    let nonce_key = random_bytes(NONCE_KEY_BYTES)?;
    for server in &topology.servers {
        authority.sign_server(&deployment, &topology, server)?;
        write(&deployment.nonce_key(&server.name), &nonce_key, 0o600)?;
    }
    let users = example_users(&topology)?;
    write_users(&deployment, &users)?;
    for server in &topology.servers {
        store_users(&deployment, &topology, server, &users)?;
    }
    phones::write_all(&deployment, &topology, &users)?;
    println!(
        "{} holds the example deployment: {} servers, {} users.\nnext: tandem up {}",
        dir.display(),
        topology.servers.len(),
        users.len(),
        dir.display()
    );
    Ok(())
}

/// Signs new certificates for every server and the operator of an existing deployment.
pub fn renew_certificates(dir: &Path) -> Result<()> {
    let deployment = Deployment::at(dir);
    let topology = serve::read_topology(&deployment.topology())?;
    let authority = Authority::open(&deployment)?;
    authority.sign_operator(&deployment, topology.deployment.as_str())?;
    for server in &topology.servers {
        authority.sign_server(&deployment, &topology, server)?;
    }
    println!(
        "{} certificates signed; running servers take them up within half a minute, or at once with \
         `tandem certificate reload`",
        topology.servers.len() + 1
    );
    Ok(())
}

/// Where the passwords of the example users are written.
pub fn users_file(deployment: &Deployment) -> PathBuf {
    deployment.root().join("users.csv")
}

fn refuse_existing(dir: &Path) -> Result<()> {
    let is_taken = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", dir.display()));
        }
    };
    if is_taken {
        bail!("{} is not empty: name a new folder, or remove this one first", dir.display());
    }
    Ok(())
}

/// User parts and homes of the example users: 1001 to 1010 on the first home pool, 2001 to 2010 on the
/// second...
pub fn example_names(topology: &Topology) -> Vec<(String, PoolName)> {
    let homes = topology.home_pools().zip(1_u32..);
    let names = homes.flat_map(|(pool, thousand)| {
        (1..=USERS_PER_HOME).map(move |number| ((thousand * 1_000 + number).to_string(), pool.name.clone()))
    });
    names.collect()
}

fn example_users(topology: &Topology) -> Result<Vec<ExampleUser>> {
    let domain = topology.default_domain().context("a topology has a domain")?;
    let named = example_names(topology).into_iter().map(|(name, home)| {
        let aor = AddressOfRecord::new(&format!("sip:{name}@{domain}"))?;
        Ok(ExampleUser { aor, password: random_password()?, home })
    });
    named.collect()
}

fn write_users(deployment: &Deployment, users: &[ExampleUser]) -> Result<()> {
    let mut text = String::from("address-of-record,password,home\n");
    for user in users {
        text.push_str(&format!("{},{},{}\n", user.aor, user.password.reveal(), user.home));
    }
    write(&users_file(deployment), text.as_bytes(), 0o600)
}

/// Puts the users whose data a server's pool keeps into its store; the others learn of them by the journal.
fn store_users(
    deployment: &Deployment,
    topology: &Topology,
    server: &Server,
    users: &[ExampleUser],
) -> Result<()> {
    let journal =
        |home: &PoolName| topology.associated_of(home).map_or_else(|| home.clone(), |pool| pool.name.clone());
    let own: Vec<_> = users.iter().filter(|user| journal(&user.home) == server.pool).collect();
    if own.is_empty() {
        return Ok(());
    }
    let changes: Vec<_> = own
        .iter()
        .map(|user| {
            let has_phones = phones::owners(topology, users).any(|(owner, _)| owner.aor == user.aor);
            let algorithms = has_phones.then(|| phones::ALGORITHMS.to_vec());
            accounts::put(&user.home, &user.aor, &user.password, algorithms, clock::wall_time())
        })
        .collect::<Result<_, _>>()?;
    accounts::commit_offline(&deployment.data(&server.name), &server.pool, &changes)?;
    Ok(())
}

fn random_password() -> Result<Secret> {
    const CHARACTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes = random_bytes(PASSWORD_CHARACTERS)?;
    let characters = bytes.iter().filter_map(|byte| CHARACTERS.get(usize::from(byte % 32)));
    Ok(Secret::new(characters.map(|&octet| char::from(octet)).collect()))
}

fn random_bytes(count: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom cannot be read")?;
    Ok(bytes)
}

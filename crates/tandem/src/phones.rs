//! Ready-made accounts for baresip and linphone: `tandem init` writes them for the first two users of each
//! home.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
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
/// How often baresip registers anew, in seconds: how soon it notices that a registrar is gone.
const REGISTER_EVERY_S: u32 = 60;

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

/// Writes what a phone of each of these users needs: `accounts`, `config` and `contacts` in `phones/USER`
/// for `baresip -f`, and `linphonerc` there for `linphonec -c`.
///
/// `phones/USER-at-POOL` is the same phone registered at its backup registrar alone, for when the home pool
/// is gone: baresip calls out by its first registrar only. The files name the deployment's folder by its
/// absolute path, so that a phone starts from any working directory.
pub fn write_all(deployment: &Deployment, topology: &Topology, users: &[ExampleUser]) -> Result<()> {
    let root = deployment.root().canonicalize().context("the deployment's folder")?;
    let deployment = Deployment::at(root);
    let bench = Bench {
        authority: deployment.authority_certificate(),
        modules: baresip_modules(),
        sound: Sound::of_this_machine(),
    };
    for (user, server) in owners(topology, users) {
        let name = user.aor.user();
        let others = owners(topology, users).map(|(other, _)| other).filter(|other| other.aor != user.aor);
        let contacts = baresip_contacts(others);
        let backup = topology.backup_of(&user.home).and_then(|pool| topology.servers_of(&pool.name).next());
        write_phone(&folder(&deployment, name), user, server, backup, &contacts, &bench)?;
        if let Some(backup) = backup {
            let elsewhere = folder(&deployment, &format!("{name}-at-{}", backup.pool));
            write_phone(&elsewhere, user, backup, None, &contacts, &bench)?;
        }
    }
    Ok(())
}

fn write_phone(
    folder: &Path,
    user: &ExampleUser,
    server: &Server,
    backup: Option<&Server>,
    contacts: &str,
    bench: &Bench,
) -> Result<()> {
    let files = [
        ("accounts", baresip_account(user, server, backup)),
        ("config", baresip_config(user, server, bench)),
        ("contacts", contacts.to_owned()),
        ("linphonerc", linphone(user, server, folder, bench)),
    ];
    files.iter().try_for_each(|(name, text)| write(&folder.join(name), text.as_bytes(), 0o600))
}

/// What phones use of this machine.
struct Bench {
    authority: PathBuf,
    modules: &'static str,
    sound: Sound,
}

/// What a phone plays to and records from.
#[derive(Clone, Copy)]
enum Sound {
    /// The default device.
    Device,
    /// There is none: the phone sends back what it hears.
    Echo,
}

impl Sound {
    /// A sound card, or a sound server to which ALSA's default device leads.
    fn of_this_machine() -> Self {
        let cards = fs::read_dir("/dev/snd").into_iter().flatten().flatten();
        let has_card =
            cards.into_iter().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"pcm"));
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).unwrap_or_default();
        let has_server = std::env::var_os("PULSE_SERVER").is_some() || runtime.join("pulse/native").exists();
        if has_card || has_server { Self::Device } else { Self::Echo }
    }
}

/// Where baresip's modules lie: the first place of the usual ones that exists.
fn baresip_modules() -> &'static str {
    const PLACES: [&str; 4] = [
        "/usr/lib/baresip/modules",
        "/usr/local/lib/baresip/modules",
        "/usr/lib64/baresip/modules",
        "/opt/homebrew/lib/baresip/modules",
    ];
    PLACES.into_iter().find(|place| Path::new(place).is_dir()).unwrap_or(PLACES[0])
}

/// Registers at the home pool and, as the second flow of RFC 5626, at its backup registrar.
fn baresip_account(user: &ExampleUser, server: &Server, backup: Option<&Server>) -> String {
    let route = |server: &Server| {
        let address = server.listen.udp.first().map(ToString::to_string).unwrap_or_default();
        format!("\"sip:{address};transport=udp\"")
    };
    let mut account = format!(
        "<sip:{name}@{domain};transport=udp>;auth_pass={password};regint={REGISTER_EVERY_S};outbound={route}",
        name = user.aor.user(),
        domain = user.aor.domain(),
        password = user.password.reveal(),
        route = route(server),
    );
    if let Some(backup) = backup {
        account.push_str(&format!(";outbound2={};sipnat=outbound", route(backup)));
    }
    account.push('\n');
    account
}

fn baresip_config(user: &ExampleUser, server: &Server, bench: &Bench) -> String {
    let sound = match bench.sound {
        Sound::Device => "alsa,default".to_owned(),
        Sound::Echo => format!("aubridge,{}", user.aor.user()),
    };
    let module = match bench.sound {
        Sound::Device => "alsa.so",
        Sound::Echo => "aubridge.so",
    };
    // Without this baresip takes the address of a network card, and does not start where there is none.
    let is_local = server.listen.udp.iter().all(|address| address.ip().is_loopback());
    let interface = if is_local { "net_interface 127.0.0.1\n" } else { "" };
    format!(
        "# sound: alsa,default is the default device; aubridge sends back what the phone hears.\n\
         audio_player {sound}\naudio_source {sound}\naudio_alert {sound}\n\
         {interface}sip_cafile {authority}\n\n\
         module_path {modules}\nmodule stdio.so\nmodule g711.so\nmodule {module}\nmodule_tmp uuid.so\n\
         module_tmp account.so\nmodule_app contact.so\nmodule_app menu.so\n",
        authority = bench.authority.display(),
        modules = bench.modules,
    )
}

/// The other ready-made phones, to be called and written to.
fn baresip_contacts<'a>(others: impl Iterator<Item = &'a ExampleUser>) -> String {
    others.map(|other| format!("\"{}\" <{}>\n", other.aor.user(), other.aor)).collect()
}

/// Keeps its databases beside its configuration: linphone does not start where it cannot open them, and two
/// phones do not share them.
fn linphone(user: &ExampleUser, server: &Server, folder: &Path, bench: &Bench) -> String {
    let address = server.listen.tcp.first().map(ToString::to_string).unwrap_or_default();
    let (name, domain) = (user.aor.user(), user.aor.domain());
    let folder = folder.display();
    format!(
        "[storage]\nbackend=sqlite3\nuri={folder}/linphone.db\ncall_logs_db_uri={folder}/linphone-calls.db\n\
         zrtp_secrets_db_uri={folder}/linphone-zrtp.db\n\n\
         [sip]\nsip_port=-1\nsip_tcp_port=-1\nsip_tls_port=-1\ndefault_proxy=0\nroot_ca={authority}\n\n\
         [rtp]\naudio_rtp_port=-1\nvideo_rtp_port=-1\ntext_rtp_port=-1\n\n\
         [proxy_0]\nreg_proxy=<sip:{address};transport=tcp>\nreg_route=<sip:{address};transport=tcp;lr>\n\
         reg_identity=sip:{name}@{domain}\nreg_expires=600\nreg_sendregister=1\npublish=0\n\n\
         [auth_info_0]\nusername={name}\ndomain={domain}\nrealm={domain}\npasswd={password}\n",
        authority = bench.authority.display(),
        password = user.password.reveal(),
    )
}

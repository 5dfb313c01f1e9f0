//! How linphonec is set up for a test.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::Account;

/// Writes the phone's files; the command that starts it.
pub fn command(folder: &Path, account: &Account) -> Result<Command> {
    fs::write(folder.join("linphonerc"), configuration(folder, account))?;
    Ok(printed_command(folder))
}

/// The command that `tandem up` prints.
pub fn printed_command(folder: &Path) -> Command {
    let mut command = Command::new("linphonec");
    command.arg("-c").arg(folder.join("linphonerc"));
    command
}

/// Its TLS library finds no IP addresses in a certificate: the chain is verified, the name is not.
fn configuration(folder: &Path, account: &Account) -> String {
    let transport = account.via.parameter();
    let folder = folder.display();
    format!(
        "[storage]\nbackend=sqlite3\nuri={folder}/linphone.db\ncall_logs_db_uri={folder}/calls.db\n\
         zrtp_secrets_db_uri={folder}/zrtp.db\n\n\
         [sip]\nsip_port=-1\nsip_tcp_port=-1\nsip_tls_port=-1\ndefault_proxy=0\nroot_ca={authority}\n\
         verify_server_cn=0\n\n\
         [rtp]\naudio_rtp_port=-1\nvideo_rtp_port=-1\ntext_rtp_port=-1\n\n\
         [proxy_0]\nreg_proxy=<sip:{registrar};transport={transport}>\n\
         reg_route=<sip:{registrar};transport={transport};lr>\nreg_identity=sip:{user}@example.com\n\
         reg_expires={expires}\nreg_sendregister=1\npublish=0\n\n\
         [auth_info_0]\nusername={user}\ndomain=example.com\nrealm=example.com\npasswd={password}\n\n\
         [audio_codec_0]\nmime=PCMU\nrate=8000\nchannels=1\nenabled=1\n",
        authority = account.authority.display(),
        registrar = account.registrar,
        user = account.user,
        expires = account.expires_s,
        password = account.password,
    )
}

//! How baresip is set up for a test.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{Account, PRETENDED_ADDRESS};

/// Writes the phone's files; the command that starts it.
pub fn command(folder: &Path, account: &Account) -> Result<Command> {
    fs::write(folder.join("accounts"), account_line(account))?;
    fs::write(folder.join("config"), config(folder, account))?;
    fs::write(folder.join("contacts"), contacts())?;
    Ok(printed_command(folder))
}

/// The command that `tandem up` prints.
pub fn printed_command(folder: &Path) -> Command {
    let mut command = Command::new("baresip");
    command.arg("-f").arg(folder);
    command
}

fn account_line(account: &Account) -> String {
    let transport = account.via.parameter();
    let mut line = format!(
        "<sip:{user}@example.com;transport={transport}>;auth_pass={password};regint={expires};\
         outbound=\"sip:{registrar};transport={transport}\"",
        user = account.user,
        password = account.password,
        expires = account.expires_s,
        registrar = account.registrar,
    );
    if account.is_webrtc {
        line.push_str(";medianat=ice;mediaenc=dtls_srtp");
    }
    if let Some(backup) = account.backup {
        line.push_str(&format!(";outbound2=\"sip:{backup};transport={transport}\";sipnat=outbound"));
    }
    line.push('\n');
    line
}

fn config(folder: &Path, account: &Account) -> String {
    let folder = folder.display();
    // ICE has no candidates for a loopback address.
    let interface = if account.is_webrtc { PRETENDED_ADDRESS } else { "127.0.0.1" };
    let webrtc = if account.is_webrtc {
        "rtcp_mux yes\nmodule ice.so\nmodule srtp.so\nmodule dtls_srtp.so\n"
    } else {
        ""
    };
    format!(
        "net_interface {interface}\nsip_cafile {authority}\n\
         audio_source aufile,{folder}/tone.wav\naudio_player aubridge,{user}\naudio_alert aubridge,alert\n\
         snd_path {folder}\nstatmode_default off\nmodule_path /usr/lib/baresip/modules\n\
         module stdio.so\nmodule g711.so\nmodule sndfile.so\nmodule aufile.so\nmodule aubridge.so\n{webrtc}\
         module_tmp uuid.so\nmodule_tmp account.so\nmodule_app contact.so\nmodule_app menu.so\n",
        authority = account.authority.display(),
        user = account.user,
    )
}

/// Every example user that a test may write to.
fn contacts() -> String {
    let users = [1, 2, 3].into_iter().flat_map(|home| (1..=4).map(move |number| home * 1_000 + number));
    users.map(|user| format!("\"{user}\" <sip:{user}@example.com>\n")).collect()
}

//! `tandem user`: add, list, remove, where, import; what users have stands in `user_documents`.

use std::{
    io::{self, BufRead, IsTerminal},
    process::ExitCode,
};

use anyhow::{Context, Result};
use model::{AddressOfRecord, limits};
use node::{
    Secret, accounts,
    api::wire::{Changed, UserPut, UserRecord, UsersPut},
};
use store::DigestAlgorithm;

use crate::{
    cli::{Output, UserCommand},
    failure::Usage,
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote, address, escape, pool_name},
    user_documents, user_import,
};

/// Runs a `tandem user` command.
pub async fn run(output: Output, command: UserCommand) -> Result<ExitCode> {
    match command {
        UserCommand::Add { aor, home, algorithms, deployment } => {
            let remote = Remote::open(&deployment.dir)?;
            add(output, &remote, &aor, &home, &algorithms).await?;
        }
        UserCommand::List { home, max, deployment } => {
            list(output, &Remote::open(&deployment.dir)?, home.as_deref(), max).await?;
        }
        UserCommand::Remove { aor, deployment } => {
            remove(output, &Remote::open(&deployment.dir)?, &aor).await?;
        }
        UserCommand::Where { aor, deployment } => {
            find(output, &Remote::open(&deployment.dir)?, &aor).await?;
        }
        UserCommand::Contacts(command) => user_documents::contacts(output, command).await?,
        UserCommand::Settings(command) => user_documents::settings(output, command).await?,
        UserCommand::Policy(command) => user_documents::policy(output, command).await?,
        UserCommand::Calls { aor, missed, deployment } => {
            user_documents::calls(output, Remote::open(&deployment.dir)?, &aor, missed).await?;
        }
        UserCommand::Import { file, deployment } => {
            return user_import::run(output, &Remote::open(&deployment.dir)?, &file).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the API takes for a user with this password.
pub fn user_put(
    aor: AddressOfRecord,
    password: &Secret,
    algorithms: Option<Vec<DigestAlgorithm>>,
) -> Result<UserPut> {
    let credentials = accounts::credentials(&aor, password)?;
    Ok(UserPut {
        aor,
        ha1_md5: hex(&credentials.ha1_md5),
        ha1_sha256: hex(&credentials.ha1_sha256),
        algorithms: algorithms.map(|list| list.iter().map(ToString::to_string).collect()),
        operation: format!("{:032x}", accounts::fresh_operation().number()),
    })
}

async fn add(output: Output, remote: &Remote, aor: &str, home: &str, algorithms: &[String]) -> Result<()> {
    let aor = address(aor)?;
    let home = pool_name(home)?;
    remote.home_server(&home)?;
    let algorithms: Vec<DigestAlgorithm> = algorithms
        .iter()
        .map(|name| name.parse().map_err(|error| Usage(format!("{error}"))))
        .collect::<Result<_, _>>()?;
    let password = read_password(&aor)?;
    let algorithms = (!algorithms.is_empty()).then_some(algorithms);
    let body = UsersPut { home: home.clone(), users: vec![user_put(aor.clone(), &password, algorithms)?] };
    let endpoint = remote.owner(&home).await?;
    let changed: Changed = remote.client.post(&endpoint, "/v1/users", &body, ANSWER_WITHIN).await?;
    output::print(output, &changed, || {
        let mut table = Table::new(&["user", "home"]);
        table.push([aor.to_string(), home.to_string()]);
        table
    })?;
    Ok(())
}

/// From a prompt that shows nothing, or one line of standard input.
fn read_password(aor: &AddressOfRecord) -> Result<Secret> {
    let text = if io::stdin().is_terminal() {
        let first = rpassword::prompt_password(format!("password of {aor}: "))?;
        let again = rpassword::prompt_password("again: ")?;
        if first != again {
            return Err(Usage("the two passwords differ; nothing was changed".to_owned()).into());
        }
        first
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).context("standard input")?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if text.is_empty() {
        return Err(Usage("the password is empty; nothing was changed".to_owned()).into());
    }
    Ok(Secret::new(text))
}

async fn list(output: Output, remote: &Remote, home: Option<&str>, max: usize) -> Result<()> {
    let homes = match home {
        Some(home) => vec![pool_name(home)?],
        None => remote.topology.home_pools().map(|pool| pool.name.clone()).collect(),
    };
    let mut users: Vec<UserRecord> = Vec::new();
    for home in homes {
        let endpoint = remote.owner(&home).await?;
        let mut after: Option<AddressOfRecord> = None;
        while users.len() < max {
            let most = (max - users.len()).min(limits::ACCOUNTS_PER_PAGE_MAX);
            let after_query =
                after.as_ref().map(|aor| format!("&after={}", escape(aor.as_str()))).unwrap_or_default();
            let path = format!("/v1/users?home={home}&max={most}{after_query}");
            let page: Vec<UserRecord> = remote.client.get(&endpoint, &path, ANSWER_WITHIN).await?;
            after = page.last().map(|user| user.aor.clone());
            let is_last = page.len() < most;
            users.extend(page);
            if is_last {
                break;
            }
        }
    }
    output::print(output, &users, || {
        let mut table = Table::new(&["user", "home", "algorithms"]);
        for user in &users {
            let algorithms =
                user.algorithms.as_ref().map_or_else(|| "pool's".to_owned(), |list| list.join(","));
            table.push([user.aor.to_string(), user.home.to_string(), algorithms]);
        }
        table
    })?;
    Ok(())
}

async fn remove(output: Output, remote: &Remote, aor: &str) -> Result<()> {
    let aor = address(aor)?;
    let (home, endpoint) = remote.owner_of(&aor).await?;
    let path = format!("/v1/users?aor={}", escape(aor.as_str()));
    let changed: Changed = remote.client.delete(&endpoint, &path, ANSWER_WITHIN).await?;
    crate::registration::remove_everywhere(remote, &aor, None).await?;
    output::print(output, &changed, || {
        let mut table = Table::new(&["removed", "home"]);
        table.push([aor.to_string(), home.to_string()]);
        table
    })?;
    Ok(())
}

async fn find(output: Output, remote: &Remote, aor: &str) -> Result<()> {
    let found = remote.find(&address(aor)?).await?;
    output::print(output, &found, || {
        let mut table = Table::new(&["user", "home", "backup", "served by", "mode", "devices"]);
        let name = |pool: &Option<model::PoolName>| {
            pool.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
        };
        table.push([
            found.aor.to_string(),
            found.home.to_string(),
            name(&found.backup),
            name(&found.served_by),
            found.service.clone().unwrap_or_else(|| "-".to_owned()),
            found.devices.to_string(),
        ]);
        table
    })?;
    Ok(())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

//! Users of the home pools that this server owns the accounts of.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Query, State},
    http::StatusCode,
};
use model::{AddressOfRecord, PoolName, limits};
use serde::Deserialize;
use store::{
    Account, Change, CommitError, Condition, Credentials, DigestAlgorithm, OperationId, UserStore, Write,
};

use super::{
    ApiError, blocking, only_operator,
    wire::{Changed, UserPut, UserRecord, UserWhere, UsersPut},
};
use crate::{
    HomeIndex, Shared, accounts, clock,
    peers::Caller,
    writes::{self, WriteError},
};

/// Which users to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    home: PoolName,
    after: Option<AddressOfRecord>,
    max: Option<usize>,
}

/// `GET /v1/users`: users of a home pool in order, at most `limits::ACCOUNTS_PER_PAGE_MAX`.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<UserRecord>>, ApiError> {
    only_operator(&caller)?;
    let users = Arc::clone(&shared.users);
    let max = query.max.unwrap_or(limits::ACCOUNTS_PER_PAGE_MAX).min(limits::ACCOUNTS_PER_PAGE_MAX);
    let found = blocking(move || users.list(&query.home, query.after.as_ref(), max)).await?;
    let found = found.map_err(|error| ApiError::failed(&error))?;
    let mut records: Vec<UserRecord> = found.into_iter().map(record).collect();
    // On the way to another journal a user has an account in both.
    records.dedup_by(|next, kept| {
        let is_same = next.aor == kept.aor;
        kept.version = if is_same { kept.version.max(next.version) } else { kept.version };
        is_same
    });
    Ok(Json(records))
}

/// `POST /v1/users`: adds users or changes them, all or none; at the owner of the journal they live in.
pub async fn put(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<UsersPut>,
) -> Result<Json<Changed>, ApiError> {
    only_operator(&caller)?;
    let home = request.home;
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, format!("{home} is no home pool"));
    let index = shared.directory.homes().index(&home).ok_or_else(unknown)?;
    let journal = shared.journal_of(index).ok_or_else(unknown)?;
    let changes: Vec<Change> =
        request.users.into_iter().map(|user| change(&shared, &home, user)).collect::<Result<_, _>>()?;
    commit(&shared, journal, changes).await
}

/// Which user is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserQuery {
    aor: AddressOfRecord,
}

/// `DELETE /v1/users`: removes a user; registrations go with the account.
pub async fn remove(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<UserQuery>,
) -> Result<Json<Changed>, ApiError> {
    only_operator(&caller)?;
    let (index, home) = home_of(&shared, &query.aor)?;
    let journal = shared.journal_of(index).unwrap_or(home);
    let change = Change {
        operation: accounts::fresh_operation(),
        aor: query.aor,
        changed_at: clock::wall_time(),
        condition: Condition::Any,
        write: Write::RemoveAccount,
    };
    commit(&shared, journal, vec![change]).await
}

/// `GET /v1/users/where`: home pool, backup registrar and who serves the user now.
pub async fn find(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<UserQuery>,
) -> Result<Json<UserWhere>, ApiError> {
    let (index, home) = home_of(&shared, &query.aor)?;
    let (served_by, service) = shared.served_by(index);
    let devices = shared.bindings(index, &query.aor).len();
    Ok(Json(UserWhere {
        backup: shared.topology().backup_of(&home).map(|pool| pool.name.clone()),
        aor: query.aor,
        journal: shared.journal_of(index),
        home,
        served_by,
        service,
        devices,
    }))
}

async fn commit(
    shared: &Arc<Shared>,
    journal: PoolName,
    changes: Vec<Change>,
) -> Result<Json<Changed>, ApiError> {
    let done = writes::commit(shared, journal, changes).await.map_err(|error| not_written(&error))?;
    Ok(Json(Changed { changed: done.len() }))
}

/// Why user data were not written, as operators and other servers see it: 403 where somebody else is to be
/// asked, 503 where it makes sense to ask again.
pub fn not_written(error: &WriteError) -> ApiError {
    let status = match error {
        WriteError::NotOwner { owner: Some(_), .. } => StatusCode::FORBIDDEN,
        WriteError::NotOwner { owner: None, .. }
        | WriteError::Resiliency { .. }
        | WriteError::Arriving { .. } => StatusCode::SERVICE_UNAVAILABLE,
        WriteError::Moved { .. } | WriteError::Unknown => return ApiError::failed(error),
        WriteError::Commit(error) => return refused(error),
    };
    ApiError::new(status, error)
}

fn refused(error: &CommitError) -> ApiError {
    let status = match error {
        CommitError::TooMany { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        CommitError::Exists { .. }
        | CommitError::Changed { .. }
        | CommitError::HomedElsewhere { .. }
        | CommitError::OperationReused { .. }
        | CommitError::Stale(_) => StatusCode::CONFLICT,
        CommitError::Missing { .. } | CommitError::NoConflict { .. } => StatusCode::NOT_FOUND,
        CommitError::Edit { .. } | CommitError::DocumentTooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        CommitError::HoldsLess { .. } | CommitError::TooManyHomes { .. } => StatusCode::FORBIDDEN,
        CommitError::Unknown(_) | CommitError::Store(_) => return ApiError::failed(error),
    };
    ApiError::new(status, error)
}

fn home_of(shared: &Shared, aor: &AddressOfRecord) -> Result<(HomeIndex, PoolName), ApiError> {
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, format!("there is no user {aor}"));
    let user = shared.directory.user(aor).ok_or_else(unknown)?;
    let home = shared.directory.homes().name(user.home).ok_or_else(unknown)?;
    Ok((user.home, home.clone()))
}

fn record(account: Account) -> UserRecord {
    let names = |list: Vec<DigestAlgorithm>| list.iter().map(ToString::to_string).collect();
    UserRecord {
        aor: account.aor,
        home: account.home,
        algorithms: account.algorithms.map(names),
        version: account.version,
    }
}

fn change(shared: &Shared, home: &PoolName, user: UserPut) -> Result<Change, ApiError> {
    let aor = user.aor;
    if !shared.topology().domains.iter().any(|domain| domain.as_str() == aor.domain()) {
        return Err(ApiError::bad_request(format!(
            "{aor}: {} is no domain of this deployment",
            aor.domain()
        )));
    }
    let wrong =
        |what: &str| ApiError::bad_request(format!("{aor}: {what} is not hexadecimal of the right length"));
    let credentials = Credentials {
        ha1_md5: octets(&user.ha1_md5).ok_or_else(|| wrong("ha1_md5"))?,
        ha1_sha256: octets(&user.ha1_sha256).ok_or_else(|| wrong("ha1_sha256"))?,
    };
    let operation = octets::<16>(&user.operation).ok_or_else(|| wrong("operation"))?;
    let parse = |names: Vec<String>| names.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>();
    let algorithms = user.algorithms.map(parse).transpose().map_err(ApiError::bad_request)?;
    Ok(Change {
        operation: OperationId::new(u128::from_be_bytes(operation)),
        aor,
        changed_at: clock::wall_time(),
        condition: Condition::Any,
        write: Write::PutAccount { home: home.clone(), credentials, algorithms },
    })
}

/// Octets written in hexadecimal.
pub fn octets<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    });
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

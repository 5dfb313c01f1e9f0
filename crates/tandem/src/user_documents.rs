//! `tandem user contacts|settings|policy|calls`: documents of users, at whoever owns them now.

use anyhow::{Context, Result};
use model::{
    WallTime,
    documents::{
        CallLog, CallPermission, CallRecord, CallResult, ContactList, ContactListEdit, Destination,
        Direction, Document, DocumentKind, Edit, ListedContact, NoAnswer, UserSettings, VoicePolicy,
    },
};
use node::{
    accounts,
    api::wire::{DocumentPatch, DocumentRecord, Patched, UserDocuments},
    peers::Endpoint,
};
use serde::Serialize;

use crate::{
    cli::Output,
    failure::Usage,
    output::{self, Table},
    remote::{ANSWER_WITHIN, Remote, address, escape},
    time,
    user_cli::{ContactsCommand, Permission, PolicyChanges, PolicyCommand, SettingsCommand, Switch, Wishes},
};

/// Seconds after which nobody has answered, unless the operator says something else.
const NO_ANSWER_AFTER_S: u32 = 20;

/// Runs a `tandem user contacts` command.
pub async fn contacts(output: Output, command: ContactsCommand) -> Result<()> {
    match command {
        ContactsCommand::List { aor, deployment } => {
            let asked = Asked::of(Remote::open(&deployment.dir)?, &aor).await?;
            let Document::ContactList(list) = asked.document(DocumentKind::ContactList)?.document else {
                return Err(wrong_kind());
            };
            output::print(output, &list, || contacts_table(&list))?;
            Ok(())
        }
        ContactsCommand::Add { aor, contact, name, groups, deployment } => {
            let contact = address(&contact)?;
            let edit = ContactListEdit::Put { contact, listed: ListedContact { name, groups } };
            edit_contacts(output, Remote::open(&deployment.dir)?, &aor, edit).await
        }
        ContactsCommand::Remove { aor, contact, deployment } => {
            let edit = ContactListEdit::Remove { contact: address(&contact)? };
            edit_contacts(output, Remote::open(&deployment.dir)?, &aor, edit).await
        }
        ContactsCommand::AddGroup { aor, group, deployment } => {
            let edit = ContactListEdit::PutGroup { group };
            edit_contacts(output, Remote::open(&deployment.dir)?, &aor, edit).await
        }
        ContactsCommand::RemoveGroup { aor, group, deployment } => {
            let edit = ContactListEdit::RemoveGroup { group };
            edit_contacts(output, Remote::open(&deployment.dir)?, &aor, edit).await
        }
    }
}

/// Runs a `tandem user settings` command.
pub async fn settings(output: Output, command: SettingsCommand) -> Result<()> {
    match command {
        SettingsCommand::Show { aor, deployment } => {
            let asked = Asked::of(Remote::open(&deployment.dir)?, &aor).await?;
            let (settings, _) = asked.settings()?;
            output::print(output, &settings, || settings_table(&settings))?;
        }
        SettingsCommand::Set { aor, wishes, deployment } => {
            let asked = Asked::of(Remote::open(&deployment.dir)?, &aor).await?;
            let (mut settings, version) = asked.settings()?;
            change_settings(&mut settings, &wishes)?;
            asked.edit(Some(version), Edit::Settings(settings.clone())).await?;
            output::print(output, &settings, || settings_table(&settings))?;
        }
    }
    Ok(())
}

/// Runs a `tandem user policy` command.
pub async fn policy(output: Output, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Show { aor, deployment } => {
            let asked = Asked::of(Remote::open(&deployment.dir)?, &aor).await?;
            let (policy, _) = asked.policy()?;
            output::print(output, &policy, || policy_table(&policy))?;
        }
        PolicyCommand::Set { aor, changes, deployment } => {
            let asked = Asked::of(Remote::open(&deployment.dir)?, &aor).await?;
            let (mut policy, version) = asked.policy()?;
            change_policy(&mut policy, &changes);
            asked.edit(Some(version), Edit::VoicePolicy(policy.clone())).await?;
            output::print(output, &policy, || policy_table(&policy))?;
        }
    }
    Ok(())
}

/// Prints a user's calls, newest first.
pub async fn calls(output: Output, remote: Remote, aor: &str, only_missed: bool) -> Result<()> {
    let asked = Asked::of(remote, aor).await?;
    let Document::CallLog(log) = asked.document(DocumentKind::CallLog)?.document else {
        return Err(wrong_kind());
    };
    let calls = shown(&log, only_missed);
    output::print(output, &calls, || calls_table(&calls))?;
    Ok(())
}

/// The documents of a user, and where they can be edited.
struct Asked {
    remote: Remote,
    endpoint: Endpoint,
    found: UserDocuments,
}

impl Asked {
    /// Reads them at the pool that owns them now.
    async fn of(remote: Remote, aor: &str) -> Result<Self> {
        let aor = address(aor)?;
        let (_, endpoint) = remote.owner_of(&aor).await?;
        let path = format!("/v1/documents?aor={}", escape(aor.as_str()));
        let found = remote.client.get(&endpoint, &path, ANSWER_WITHIN).await?;
        Ok(Self { remote, endpoint, found })
    }

    fn document(&self, kind: DocumentKind) -> Result<DocumentRecord> {
        let found = self.found.documents.iter().find(|record| record.document.kind() == kind);
        found.cloned().with_context(|| format!("the server did not send the {kind}"))
    }

    fn settings(&self) -> Result<(UserSettings, u64)> {
        let DocumentRecord { document, version, .. } = self.document(DocumentKind::Settings)?;
        match document {
            Document::Settings(settings) => Ok((settings, version)),
            Document::ContactList(_) | Document::VoicePolicy(_) | Document::CallLog(_) => Err(wrong_kind()),
        }
    }

    fn policy(&self) -> Result<(VoicePolicy, u64)> {
        let DocumentRecord { document, version, .. } = self.document(DocumentKind::VoicePolicy)?;
        match document {
            Document::VoicePolicy(policy) => Ok((policy, version)),
            Document::ContactList(_) | Document::Settings(_) | Document::CallLog(_) => Err(wrong_kind()),
        }
    }

    /// Edits the version that was read, or any.
    async fn edit(&self, expected: Option<u64>, edit: Edit) -> Result<Patched> {
        let operation = format!("{:032x}", accounts::fresh_operation().number());
        let body = DocumentPatch { aor: self.found.aor.clone(), operation, expected, edit };
        Ok(self.remote.client.patch(&self.endpoint, "/v1/documents", &body, ANSWER_WITHIN).await?)
    }
}

fn wrong_kind() -> anyhow::Error {
    anyhow::anyhow!("the server sent another document than was asked for")
}

async fn edit_contacts(output: Output, remote: Remote, aor: &str, edit: ContactListEdit) -> Result<()> {
    let asked = Asked::of(remote, aor).await?;
    let patched = asked.edit(None, Edit::ContactList(edit)).await?;
    output::print(output, &patched, || {
        let mut table = Table::new(&["user", "version of the list"]);
        table.push([asked.found.aor.to_string(), patched.version.to_string()]);
        table
    })?;
    Ok(())
}

fn contacts_table(list: &ContactList) -> Table {
    let mut table = Table::new(&["contact", "name", "groups"]);
    let names =
        |listed: &ListedContact| listed.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    for (contact, listed) in list.contacts() {
        table.push([contact.to_string(), listed.name.clone(), names(listed)]);
    }
    let is_used = |group| list.contacts().any(|(_, listed)| listed.groups.contains(group));
    for group in list.groups().iter().filter(|group| !is_used(group)) {
        table.push(["-".to_owned(), String::new(), group.to_string()]);
    }
    table
}

/// Reads a destination as an operator types it; `sip:` may be left out.
fn destination(text: &str) -> Result<Destination> {
    let full = if text.contains(':') { text.to_owned() } else { format!("sip:{text}") };
    Destination::new(&full).map_err(|error| Usage(format!("{text:?}: {error}")).into())
}

fn change_settings(settings: &mut UserSettings, wishes: &Wishes) -> Result<()> {
    let forwarding = &mut settings.forwarding;
    for (place, new, is_cleared) in [
        (&mut forwarding.always, &wishes.forward_always, wishes.clear_forward_always),
        (&mut forwarding.busy, &wishes.forward_busy, wishes.clear_forward_busy),
        (&mut forwarding.not_reachable, &wishes.forward_not_reachable, wishes.clear_forward_not_reachable),
    ] {
        match new {
            Some(text) => *place = Some(destination(text)?),
            None if is_cleared => *place = None,
            None => {}
        }
    }
    change_no_answer(&mut forwarding.no_answer, wishes)?;
    if wishes.clear_ring_also || !wishes.ring_also.is_empty() {
        settings.simultaneous_ring =
            wishes.ring_also.iter().map(|text| destination(text)).collect::<Result<_>>()?;
    }
    if let Some(switch) = wishes.do_not_disturb {
        settings.do_not_disturb = switch == Switch::On;
    }
    settings.check().map_err(|error| Usage(error.to_string()).into())
}

fn change_no_answer(no_answer: &mut Option<NoAnswer>, wishes: &Wishes) -> Result<()> {
    if wishes.clear_forward_no_answer {
        *no_answer = None;
        return Ok(());
    }
    if wishes.forward_no_answer.is_none() && wishes.no_answer_after.is_none() {
        return Ok(());
    }
    let before = no_answer.take();
    let to = match (&wishes.forward_no_answer, &before) {
        (Some(text), _) => destination(text)?,
        (None, Some(before)) => before.to.clone(),
        (None, None) => {
            let message = "--no-answer-after needs --forward-no-answer: nothing is set yet".to_owned();
            return Err(Usage(message).into());
        }
    };
    let known = before.map_or(NO_ANSWER_AFTER_S, |before| before.after_s);
    *no_answer = Some(NoAnswer { to, after_s: wishes.no_answer_after.unwrap_or(known) });
    Ok(())
}

fn settings_table(settings: &UserSettings) -> Table {
    let mut table = Table::new(&["setting", "value"]);
    let text = |to: &Option<Destination>| to.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let forwarding = &settings.forwarding;
    let no_answer = forwarding.no_answer.as_ref();
    let together: Vec<String> = settings.simultaneous_ring.iter().map(ToString::to_string).collect();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    for (name, value) in [
        ("forward always", text(&forwarding.always)),
        ("forward when busy", text(&forwarding.busy)),
        (
            "forward when nobody answers",
            no_answer.map_or_else(
                || "-".to_owned(),
                |no_answer| format!("{} after {} s", no_answer.to, no_answer.after_s),
            ),
        ),
        ("forward when not reachable", text(&forwarding.not_reachable)),
        ("ring also", or_dash(together.join(", "))),
        ("do not disturb", if settings.do_not_disturb { "on" } else { "off" }.to_owned()),
    ] {
        table.push([name.to_owned(), value]);
    }
    table
}

fn change_policy(policy: &mut VoicePolicy, changes: &PolicyChanges) {
    if let Some(calls) = changes.calls {
        policy.calls = calls.into();
    }
    if let Some(permission) = changes.forwarding_outside {
        policy.no_forwarding_outside = permission == Permission::Refused;
    }
}

fn policy_table(policy: &VoicePolicy) -> Table {
    let mut table = Table::new(&["policy", "value"]);
    let calls = match policy.calls {
        CallPermission::Everybody => "everybody",
        CallPermission::Internal => "internal",
        CallPermission::EmergencyOnly => "emergency-only",
    };
    table.push(["calls".to_owned(), calls.to_owned()]);
    let outside = if policy.no_forwarding_outside { "refused" } else { "allowed" };
    table.push(["forwarding outside".to_owned(), outside.to_owned()]);
    table
}

/// A call as it is printed.
#[derive(Debug, Serialize)]
struct Call {
    direction: Direction,
    other: String,
    result: CallResult,
    began_at: String,
    answered_at: Option<String>,
    ended_at: Option<String>,
    /// Seconds between answer and end; `None` when it was not answered, or its end is not known.
    talked_s: Option<u64>,
}

fn shown(log: &CallLog, only_missed: bool) -> Vec<Call> {
    let is_shown = |record: &&CallRecord| {
        !only_missed || (record.direction == Direction::Received && record.answered_at.is_none())
    };
    log.records().iter().rev().filter(is_shown).map(call).collect()
}

fn call(record: &CallRecord) -> Call {
    let seconds = |time: WallTime| time.as_micros() / 1_000_000;
    let talked = record.answered_at.zip(record.ended_at);
    Call {
        direction: record.direction,
        other: record.other.clone(),
        result: record.result,
        began_at: time::utc(record.began_at),
        answered_at: record.answered_at.map(time::utc),
        ended_at: record.ended_at.map(time::utc),
        talked_s: talked.map(|(answered, ended)| seconds(ended).saturating_sub(seconds(answered))),
    }
}

fn calls_table(calls: &[Call]) -> Table {
    let mut table = Table::new(&["began", "direction", "other", "result", "talked s"]);
    for call in calls {
        let direction = match call.direction {
            Direction::Made => "made",
            Direction::Received => "received",
        };
        let result = match call.result {
            CallResult::Answered => "answered",
            CallResult::Missed => "missed",
            CallResult::Busy => "busy",
            CallResult::Declined => "declined",
            CallResult::Cancelled => "cancelled",
            CallResult::Failed => "failed",
        };
        let talked = call.talked_s.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
        table.push([
            call.began_at.clone(),
            direction.to_owned(),
            call.other.clone(),
            result.to_owned(),
            talked,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        wishes: Wishes,
    }

    fn changed(settings: &UserSettings, line: &str) -> Result<UserSettings> {
        let line = Line::try_parse_from(std::iter::once("set").chain(line.split(' ')))?;
        let mut settings = settings.clone();
        change_settings(&mut settings, &line.wishes).map(|()| settings)
    }

    #[test]
    fn every_setting_is_set_by_its_flag_and_cleared_by_another_and_the_rest_stays() {
        let all = changed(
            &UserSettings::default(),
            "--forward-always a@x.y --forward-busy b@x.y --forward-no-answer tel:+491 --no-answer-after 30 \
             --forward-not-reachable sips:d@x.y --ring-also e@x.y --ring-also f@x.y --do-not-disturb on",
        )
        .unwrap();
        assert_eq!(all.forwarding.always.as_ref().map(Destination::as_str), Some("sip:a@x.y"));
        assert_eq!(all.forwarding.no_answer.as_ref().map(|no_answer| no_answer.after_s), Some(30));
        assert_eq!(all.simultaneous_ring.len(), 2);

        let less = changed(&all, "--clear-forward-always --do-not-disturb off").unwrap();
        assert_eq!(less.forwarding.always, None);
        assert_eq!((&less.forwarding.busy, less.simultaneous_ring.len()), (&all.forwarding.busy, 2));

        let none = changed(
            &less,
            "--clear-forward-busy --clear-forward-no-answer --clear-forward-not-reachable --clear-ring-also",
        );
        assert_eq!(none.unwrap(), UserSettings::default());
    }

    #[test]
    fn the_time_of_no_answer_can_be_changed_alone_once_there_is_a_destination() {
        let empty = UserSettings::default();
        assert!(changed(&empty, "--no-answer-after 30").is_err());

        let set = changed(&empty, "--forward-no-answer a@x.y").unwrap();
        assert_eq!(set.forwarding.no_answer.as_ref().unwrap().after_s, NO_ANSWER_AFTER_S);
        let later = changed(&set, "--no-answer-after 60").unwrap();
        assert_eq!(later.forwarding.no_answer.as_ref().unwrap().after_s, 60);
        assert!(changed(&set, "--no-answer-after 600").is_err());
    }

    #[test]
    fn a_bad_destination_a_contradiction_and_nothing_at_all_are_refused() {
        let empty = UserSettings::default();
        for line in [
            "--forward-always mailto:a@x.y",
            "--forward-always a@x.y --clear-forward-always",
            "--ring-also sip:",
            "",
        ] {
            assert!(changed(&empty, line).is_err(), "{line}");
        }
    }
}

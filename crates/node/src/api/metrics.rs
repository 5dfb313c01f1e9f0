//! `GET /metrics`: how this server is, as Prometheus reads it.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::text,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use serde::Serialize;

use super::{
    ApiError, blocking, status,
    wire::{CertificateStatus, CopyStatus, HomeStatus, ServerStatus},
};
use crate::{Counters, Shared, backup_service::CopyState};

/// Media type of the answer. Source: OpenMetrics 1.0.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of one value: names and values.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// `GET /metrics`: everything of `GET /v1/status`, as text.
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let text = blocking(move || text_of(&status::read(&shared))).await?;
    let text = text.map_err(|error| ApiError::failed(&error))?;
    Ok(([(CONTENT_TYPE, TEXT)], text).into_response())
}

/// The text for one server.
///
/// Errors: never in practice.
pub fn text_of(status: &ServerStatus) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tandem");
    for ((name, value), meaning) in status.counters.iter().zip(Counters::meanings()) {
        registry.register(name, meaning.trim_end_matches('.'), ConstCounter::new(*value));
    }
    let is_healthy = u64::from(status.health == "ok");
    registry.register("healthy", "Whether bindings can be written: 1 or 0", ConstGauge::new(is_healthy));
    let users = u64::try_from(status.users_known).unwrap_or(u64::MAX);
    registry.register("users_known", "Users known here, wherever homed", ConstGauge::new(users));
    registry.register_with_unit(
        "uptime",
        "Time since the process started",
        Unit::Seconds,
        ConstGauge::new(status.uptime_s),
    );
    homes(&mut registry, &status.homes);
    copies(&mut registry, &status.copies);
    certificates(&mut registry, &status.certificates);
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let family = Gauges::default();
    registry.register(name, help, family.clone());
    family
}

fn homes(registry: &mut Registry, homes: &[HomeStatus]) {
    let owner = gauges(registry, "home_owner", "1 for the pool that owns the users of a home pool");
    let epoch = gauges(registry, "home_epoch", "The ownership epoch that is known here");
    let state = gauges(registry, "home_state", "1 for the state of a home pool");
    let serving =
        gauges(registry, "home_serving", "Whether this server serves the users, by service: 1 or 0");
    let users = gauges(registry, "home_users", "Users of a home pool");
    let bindings = gauges(registry, "home_bindings", "Registered contacts of its users kept here");
    let conflicts =
        gauges(registry, "home_conflicts", "Conflicts in its journal here that wait for an operator");
    let calls = gauges(registry, "home_calls", "Answered calls of its users not seen to end");
    for home in homes {
        let of = || vec![("home", home.home.to_string())];
        let with = |name: &'static str, value: String| vec![("home", home.home.to_string()), (name, value)];
        if let Some(pool) = &home.owner {
            owner.get_or_create(&with("owner", pool.to_string())).set(1.0);
        }
        if let Some(known) = home.epoch {
            epoch.get_or_create(&of()).set(float(known.number()));
        }
        if let Some(known) = home.state {
            state.get_or_create(&with("state", word(&known))).set(1.0);
        }
        for service in ["full", "resiliency"] {
            let is_served = home.service.as_deref() == Some(service);
            serving.get_or_create(&with("service", service.to_owned())).set(f64::from(u8::from(is_served)));
        }
        users.get_or_create(&of()).set(float(home.users));
        bindings.get_or_create(&of()).set(float(home.bindings));
        conflicts.get_or_create(&of()).set(float(home.conflicts));
        if let Some(count) = home.calls {
            calls.get_or_create(&of()).set(float(count));
        }
    }
}

fn copies(registry: &mut Registry, copies: &[CopyStatus]) {
    const STATES: [CopyState; 5] =
        [CopyState::Initialising, CopyState::Behind, CopyState::Steady, CopyState::Final, CopyState::Error];
    let entries = gauges(registry, "copy_lag_entries", "Changes that the reader of a copy has not confirmed");
    let age = Gauges::default();
    let help = "Age of the oldest change that the reader of a copy has not confirmed: what would be lost now";
    registry.register_with_unit("copy_lag", help, Unit::Seconds, age.clone());
    let silence = Gauges::default();
    let help = "Time since the other end of a copy was heard";
    registry.register_with_unit("copy_silence", help, Unit::Seconds, silence.clone());
    let state = gauges(registry, "copy_state", "1 for the state of a copy, 0 for the others");
    let pages = Family::<Labels, Counter>::default();
    registry.register("copy_pages", "Journal pages taken and refused, by outcome", pages.clone());
    for copy in copies {
        let from = copy.from.as_ref().map(ToString::to_string).unwrap_or_default();
        let labels: Labels = vec![
            ("home", copy.home.to_string()),
            ("what", word(&copy.what)),
            ("from", from),
            ("to", copy.to.to_string()),
        ];
        let with = |name: &'static str, value: String| {
            labels.iter().cloned().chain([(name, value)]).collect::<Labels>()
        };
        if let Some(lag) = copy.lag_entries {
            entries.get_or_create(&labels).set(float(lag));
        }
        if let Some(ms) = copy.lag_ms {
            age.get_or_create(&labels).set(float(ms) / 1_000.0);
        }
        if let Some(ms) = copy.silent_ms {
            silence.get_or_create(&labels).set(float(ms) / 1_000.0);
        }
        for known in STATES.into_iter().filter(|_| copy.state.is_some()) {
            let is_it = copy.state == Some(known);
            state.get_or_create(&with("state", word(&known))).set(f64::from(u8::from(is_it)));
        }
        let Some(counts) = copy.pages else { continue };
        let outcomes = [
            ("applied", counts.applied),
            ("damaged", counts.damaged),
            ("stale", counts.stale),
            ("gap", counts.gaps),
            ("diverged", counts.diverged),
            ("unwritten", counts.unwritten),
        ];
        for (outcome, count) in outcomes {
            pages.get_or_create(&with("outcome", outcome.to_owned())).inc_by(count);
        }
    }
}

fn certificates(registry: &mut Registry, certificates: &[CertificateStatus]) {
    let left = Gauges::default();
    let help = "Time until a certificate in force ends; negative afterwards";
    registry.register_with_unit("certificate_expiry", help, Unit::Seconds, left.clone());
    for certificate in certificates {
        let labels = vec![("part", certificate.part.clone()), ("subject", certificate.subject.clone())];
        let seconds = float(certificate.expires_in_s.unsigned_abs());
        left.get_or_create(&labels).set(if certificate.expires_in_s < 0 { -seconds } else { seconds });
    }
}

/// The word for a value as JSON has it.
fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or("-").to_owned()
}

/// Exact up to 2^53: no count here comes near.
#[allow(clippy::cast_precision_loss, reason = "metrics are floating-point numbers by their definition")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_is_told_in_the_text_format() {
        let counters = Counters::default();
        counters.requests_from_phones.add_many(7);
        let status = json!({
            "server": "east1", "pool": "east", "role": "front_end", "software": "1", "topology_version": 1,
            "uptime_s": 5, "users_known": 20, "health": "ok", "counters": counters.list(),
            "homes": [{
                "home": "east", "part": "home", "owner": "west", "epoch": 3, "service": null,
                "authority_ms": null, "bindings": 8, "state": "failed_over", "users": 10, "calls": 2,
                "conflicts": 1
            }],
            "copies": [{
                "home": "west", "what": "documents", "from": "west1", "to": "east1", "state": "behind",
                "lag_entries": 4, "lag_ms": 1500, "silent_ms": 20, "reason": null,
                "pages": { "applied": 6, "damaged": 1, "stale": 0, "gaps": 0, "diverged": 0, "unwritten": 0 }
            }],
            "certificates": [{
                "part": "phones", "listeners": ["tls 192.0.2.1:5061"], "file": "cert.pem",
                "subject": "CN=east1",
                "names": ["east1.example.com"], "not_after_s": 1_800_000_000, "expires_in_s": -5,
                "fingerprint": "00"
            }]
        });
        let status: ServerStatus = serde_json::from_value(status).unwrap();

        let text = text_of(&status).unwrap();

        for line in [
            "# HELP tandem_requests_from_phones Requests that came from phones.",
            "# TYPE tandem_requests_from_phones counter",
            "tandem_requests_from_phones_total 7",
            "tandem_healthy 1",
            "tandem_uptime_seconds 5",
            "tandem_home_owner{home=\"east\",owner=\"west\"} 1.0",
            "tandem_home_epoch{home=\"east\"} 3.0",
            "tandem_home_state{home=\"east\",state=\"failed_over\"} 1.0",
            "tandem_home_serving{home=\"east\",service=\"full\"} 0.0",
            "tandem_home_conflicts{home=\"east\"} 1.0",
            "tandem_copy_lag_entries{home=\"west\",what=\"documents\",from=\"west1\",to=\"east1\"} 4.0",
            "tandem_copy_lag_seconds{home=\"west\",what=\"documents\",from=\"west1\",to=\"east1\"} 1.5",
            "tandem_certificate_expiry_seconds{part=\"phones\",subject=\"CN=east1\"} -5.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        assert_eq!(text.matches("_total ").count(), counters.list().len());
        assert_eq!(text.matches("tandem_copy_state{").count(), 5);
        assert!(text.contains("outcome=\"damaged\"} 1"), "{text}");
    }
}

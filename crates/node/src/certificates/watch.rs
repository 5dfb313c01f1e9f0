//! Looks after the certificates of a running server: takes up files that change, warns before any ends.

use std::{sync::Arc, time::Duration};

use model::WallTime;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::sleep,
};
use tracing::{error, warn};
use transport::tls::CertificateFacts;

use super::{CertificatesInForce, InUse, seconds_left};
use crate::clock;

/// Time between two looks at the files. A renewed certificate is in force after two of them.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Time between two warnings of the same certificate.
const WARN_EVERY: Duration = Duration::from_secs(86_400);
/// Time before its end from which a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Runs until it is dropped. SIGHUP has the files read at once: what `systemctl reload` and hooks of certbot
/// send.
pub async fn watch(certificates: Arc<CertificatesInForce>) {
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut warn_at = clock::now();
    loop {
        if clock::now() >= warn_at {
            warn_at = clock::now() + WARN_EVERY;
            warn_of_ends(&certificates, clock::wall_time());
        }
        let is_asked = tokio::select! {
            () = sleep(LOOK_EVERY) => false,
            () = received(&mut hangup) => true,
        };
        let looked_at = Arc::clone(&certificates);
        let look = move || {
            let now = clock::wall_time();
            if is_asked {
                let _logged_and_shown = looked_at.reload(now);
            } else {
                looked_at.look(now);
            }
        };
        let _never_panics = spawn_blocking(look).await;
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn warn_of_ends(certificates: &CertificatesInForce, now: WallTime) {
    for InUse { part, file, facts } in &certificates.now().facts {
        let (part, subject, days) = (part.as_str(), &facts.subject, seconds_left(facts, now) / 86_400);
        match urgency(facts, now) {
            Urgency::None => {}
            Urgency::Soon => warn!(part, %subject, %file, days, "certificate ends soon: renew it"),
            Urgency::Ended => error!(part, %subject, %file, "certificate has ended: renew it"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    None,
    Soon,
    Ended,
}

/// Warned of are the last thirty days, or the last third of a life shorter than ninety: by then whatever
/// renews such certificates has failed to.
fn urgency(facts: &CertificateFacts, now: WallTime) -> Urgency {
    let life = Duration::from_secs(facts.ends.as_secs().saturating_sub(facts.begins.as_secs()));
    let before = WARN_BEFORE.min(life / 3);
    let left = seconds_left(facts, now);
    if left < 0 {
        Urgency::Ended
    } else if u64::try_from(left).is_ok_and(|left| left < before.as_secs()) {
        Urgency::Soon
    } else {
        Urgency::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn of_days(life: u64) -> CertificateFacts {
        CertificateFacts {
            subject: String::new(),
            names: Vec::new(),
            begins: WallTime::from_secs(1_000 * DAY),
            ends: WallTime::from_secs((1_000 + life) * DAY),
            fingerprint: String::new(),
        }
    }

    #[test]
    fn a_certificate_is_warned_of_thirty_days_before_its_end_and_a_short_one_in_its_last_third() {
        let at = |life, day: u64| urgency(&of_days(life), WallTime::from_secs((1_000 + day) * DAY));

        assert_eq!(
            (at(730, 699), at(730, 701), at(730, 731)),
            (Urgency::None, Urgency::Soon, Urgency::Ended)
        );
        assert_eq!((at(90, 59), at(90, 61)), (Urgency::None, Urgency::Soon));
        assert_eq!((at(6, 3), at(6, 5), at(6, 7)), (Urgency::None, Urgency::Soon, Urgency::Ended));
    }
}

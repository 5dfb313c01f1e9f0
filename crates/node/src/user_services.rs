//! What a user wants done with calls, and what the operator allows: the documents on which calls depend.

use std::time::Duration;

use model::{
    AddressOfRecord,
    documents::{CallPermission, Destination, Document, UserSettings, VoicePolicy},
    limits,
};

/// Settings and voice policy of one user; the directory keeps them only for users who have some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserServices {
    /// Forwarding, simultaneous ring, do-not-disturb.
    pub settings: UserSettings,
    /// Whom the user may call.
    pub policy: VoicePolicy,
}

/// Where a call goes, as far as voice policies care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Callee {
    /// Emergency services.
    Emergency,
    /// A user in one of the deployment's domains.
    Inside,
    /// Anybody else.
    Outside,
}

/// Why a call goes on to another destination. Source: RFC 5806, the `reason` of Diversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiversionReason {
    /// Every call does.
    Unconditional,
    /// A phone was busy.
    UserBusy,
    /// The user does not want to be disturbed.
    DoNotDisturb,
    /// Nobody answered in time.
    NoAnswer,
    /// No phone was reached.
    Unavailable,
    /// The destination rings together with the phones.
    FollowMe,
}

/// What is to be done with a call to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Send it there; no phone rings.
    SendOn(&'a Destination, DiversionReason),
    /// Answer 486: the user does not want to be disturbed.
    Refuse,
    /// Ring the phones.
    Ring(Ringing<'a>),
}

/// How the phones of a user ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ringing<'a> {
    /// What rings together with them.
    pub together: Vec<&'a Destination>,
    /// Where the call goes when a phone is busy.
    pub busy: Option<&'a Destination>,
    /// Where it goes when nobody answers, and after what time.
    pub no_answer: Option<(&'a Destination, Duration)>,
    /// Where it goes when no phone is reached.
    pub not_reachable: Option<&'a Destination>,
}

impl DiversionReason {
    /// The token of the `reason` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unconditional => "unconditional",
            Self::UserBusy => "user-busy",
            Self::DoNotDisturb => "do-not-disturb",
            Self::NoAnswer => "no-answer",
            Self::Unavailable => "unavailable",
            Self::FollowMe => "follow-me",
        }
    }

    /// The value of Diversion for a call that `user` sends on.
    pub fn header(self, user: &AddressOfRecord) -> String {
        format!("<{user}>;reason={};counter=1", self.as_str())
    }
}

impl UserServices {
    /// Whether this is what a user has who has no documents.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over settings or a voice policy; other documents are not kept here.
    pub fn put(&mut self, document: &Document) {
        match document {
            Document::Settings(settings) => self.settings = settings.clone(),
            Document::VoicePolicy(policy) => self.policy = policy.clone(),
            Document::ContactList(_) | Document::CallLog(_) => {}
        }
    }

    /// Whether the user may call there.
    pub const fn may_call(&self, callee: Callee) -> bool {
        match (self.policy.calls, callee) {
            (_, Callee::Emergency) | (CallPermission::Everybody, _) => true,
            (CallPermission::Internal, Callee::Inside) => true,
            (CallPermission::Internal, Callee::Outside) => false,
            (CallPermission::EmergencyOnly, Callee::Inside | Callee::Outside) => false,
        }
    }

    /// Whether calls to the user may be sent on there: the user must be allowed to call there too.
    pub const fn may_send_on(&self, callee: Callee) -> bool {
        let is_refused = self.policy.no_forwarding_outside && matches!(callee, Callee::Outside);
        self.may_call(callee) && !is_refused
    }

    /// What is to be done with a call to the user that was sent on `diversions` times already; `callee` says
    /// what a destination is. A destination that the policy does not allow is left out, as if it were not
    /// set. After `limits::DIVERSIONS_MAX` times the phones ring and the call goes nowhere else.
    pub fn wish(&self, diversions: usize, callee: impl Fn(&Destination) -> Callee) -> Wish<'_> {
        let is_followed =
            |to: &&Destination| diversions < limits::DIVERSIONS_MAX && self.may_send_on(callee(to));
        let forwarding = &self.settings.forwarding;
        let busy = forwarding.busy.as_ref().filter(is_followed);
        if let Some(always) = forwarding.always.as_ref().filter(is_followed) {
            return Wish::SendOn(always, DiversionReason::Unconditional);
        }
        if self.settings.do_not_disturb {
            return busy.map_or(Wish::Refuse, |to| Wish::SendOn(to, DiversionReason::DoNotDisturb));
        }
        let no_answer = forwarding.no_answer.as_ref();
        let after = |after_s: u32| Duration::from_secs(u64::from(after_s));
        Wish::Ring(Ringing {
            together: self.settings.simultaneous_ring.iter().filter(is_followed).collect(),
            busy,
            no_answer: no_answer
                .filter(|no_answer| is_followed(&&no_answer.to))
                .map(|no_answer| (&no_answer.to, after(no_answer.after_s))),
            not_reachable: forwarding.not_reachable.as_ref().filter(is_followed),
        })
    }
}

#[cfg(test)]
mod tests {
    use model::documents::{Forwarding, NoAnswer};

    use super::*;

    fn to(name: &str) -> Destination {
        Destination::new(&format!("sip:{name}")).unwrap()
    }

    /// Everything is set, to destinations inside but for simultaneous ring.
    fn services() -> UserServices {
        let settings = UserSettings {
            forwarding: Forwarding {
                always: None,
                busy: Some(to("busy@in")),
                no_answer: Some(NoAnswer { to: to("slow@in"), after_s: 20 }),
                not_reachable: Some(to("away@out")),
            },
            simultaneous_ring: vec![to("mobile@out"), to("desk@in")],
            do_not_disturb: false,
        };
        UserServices { settings, policy: VoicePolicy::default() }
    }

    fn callee(to: &Destination) -> Callee {
        if to.as_str().ends_with("@in") { Callee::Inside } else { Callee::Outside }
    }

    #[test]
    fn a_user_without_settings_is_rung() {
        assert_eq!(UserServices::default().wish(0, callee), Wish::Ring(Ringing::default()));
    }

    #[test]
    fn forwarding_of_every_call_comes_before_do_not_disturb_and_that_before_the_phones() {
        let mut services = services();
        services.settings.forwarding.always = Some(to("always@in"));
        services.settings.do_not_disturb = true;
        assert_eq!(services.wish(0, callee), Wish::SendOn(&to("always@in"), DiversionReason::Unconditional));

        services.settings.forwarding.always = None;
        assert_eq!(services.wish(0, callee), Wish::SendOn(&to("busy@in"), DiversionReason::DoNotDisturb));

        services.settings.forwarding.busy = None;
        assert_eq!(services.wish(0, callee), Wish::Refuse);
    }

    #[test]
    fn a_destination_that_the_policy_does_not_allow_is_as_if_it_were_not_set() {
        let mut services = services();
        let Wish::Ring(all) = services.wish(0, callee) else { panic!("the phones ring") };
        assert_eq!((all.together.len(), all.not_reachable), (2, Some(&to("away@out"))));

        for policy in [
            VoicePolicy { no_forwarding_outside: true, ..VoicePolicy::default() },
            VoicePolicy { calls: CallPermission::Internal, ..VoicePolicy::default() },
        ] {
            services.policy = policy;
            let Wish::Ring(inside) = services.wish(0, callee) else { panic!("the phones ring") };
            assert_eq!((inside.together, inside.not_reachable), (vec![&to("desk@in")], None));
            assert!(inside.busy.is_some() && inside.no_answer.is_some());
        }
        services.policy.calls = CallPermission::EmergencyOnly;
        assert_eq!(services.wish(0, callee), Wish::Ring(Ringing::default()));
    }

    #[test]
    fn a_call_that_was_sent_on_too_often_rings_here_or_is_refused() {
        let mut services = services();
        services.settings.forwarding.always = Some(to("always@in"));
        assert_eq!(services.wish(limits::DIVERSIONS_MAX, callee), Wish::Ring(Ringing::default()));

        services.settings.do_not_disturb = true;
        assert_eq!(services.wish(limits::DIVERSIONS_MAX, callee), Wish::Refuse);
        assert!(matches!(services.wish(limits::DIVERSIONS_MAX - 1, callee), Wish::SendOn(..)));
    }

    #[test]
    fn emergency_calls_are_never_refused() {
        for calls in [CallPermission::Everybody, CallPermission::Internal, CallPermission::EmergencyOnly] {
            let policy = VoicePolicy { calls, no_forwarding_outside: true };
            let services = UserServices { policy, ..UserServices::default() };
            assert!(services.may_call(Callee::Emergency));
            assert_eq!(services.may_call(Callee::Inside), calls != CallPermission::EmergencyOnly);
            assert_eq!(services.may_call(Callee::Outside), calls == CallPermission::Everybody);
        }
    }
}

//! What the two pools of a pair ask and answer each other.

use model::{Epoch, Instant, PoolName};

use super::{Ownership, requests::Kind, state::State};
use crate::{
    Ask, CallId, Output, OwnershipError, Planted, PoolState, PromiseAnswer, PromiseRequest, Refusal,
    RequestId, Tenure, Verdict,
};

impl Ownership {
    pub(super) fn promise_asked(
        &mut self,
        now: Instant,
        call: CallId,
        body: &PromiseRequest,
    ) -> Result<(), OwnershipError> {
        self.check(body)?;
        if let Some(tenure) = body.ask.tenure() {
            self.learn_by_word(now, tenure);
        }
        if let State::Word(word) = &mut self.state {
            word.heard(now);
        }
        let verdict = match &body.ask {
            Ask::Promise { tenure } => self.promise(now, tenure),
            Ask::Observe { .. } => Verdict::Observed,
            Ask::Return { .. } => self.note_return(now),
        };
        self.announce(now); // whoever learns from the answer that this pool stopped must be right
        let body = PromiseAnswer { known: self.known().cloned(), verdict };
        self.outputs.push_back(Output::Answer { call, body });
        Ok(())
    }

    fn check(&self, body: &PromiseRequest) -> Result<(), OwnershipError> {
        if body.home != self.parties.home {
            return Err(OwnershipError::WrongHome { home: body.home.clone() });
        }
        if body.from != self.parties.other || self.parties.other == self.parties.me {
            return Err(OwnershipError::Stranger { from: body.from.clone() });
        }
        let is_possible = |owner: &PoolName| match body.ask {
            Ask::Promise { .. } => *owner == body.from,
            Ask::Observe { .. } | Ask::Return { .. } => self.is_possible(owner),
        };
        match body.ask.tenure() {
            Some(tenure) if !is_possible(&tenure.owner) => {
                Err(OwnershipError::ImpossibleOwner { owner: tenure.owner.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Gives the owner the promise not to serve under a higher epoch for a while.
    fn promise(&mut self, now: Instant, tenure: &Tenure) -> Verdict {
        let granted = Verdict::Granted { epoch: tenure.epoch };
        let wait = self.settings.wait();
        match &mut self.state {
            State::Watching(watch) if watch.tenure.epoch == tenure.epoch => {
                watch.heard(now);
                watch.tenure = tenure.clone(); // the witness has the last word, with its next answer
                self.bound.give(now, wait);
                granted
            }
            State::TakingOver(attempt) if attempt.watch.tenure.epoch == tenure.epoch => {
                if self.settings.planted == Planted::GrantsTakingOver {
                    return granted;
                }
                Verdict::Refused { reason: Refusal::TakingOver }
            }
            State::Word(_)
            | State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_) => Verdict::Refused { reason: Refusal::StaleEpoch },
        }
    }

    fn note_return(&mut self, now: Instant) -> Verdict {
        let (hold, pause_max) = (self.settings.hold, self.settings.ttl);
        match &mut self.state {
            // What a command took over, a command returns.
            State::Owning(tenancy) if tenancy.tenure.state == PoolState::TakenOver => {
                let held = tenancy.ask_to_return(now, pause_max);
                Verdict::ReturnNoted { hold_left: hold.saturating_sub(held) }
            }
            State::Word(_)
            | State::Learning
            | State::Watching(_)
            | State::TakingOver(_)
            | State::Owning(_)
            | State::Leaving(_) => Verdict::Observed,
        }
    }

    pub(super) fn partner_answered(&mut self, now: Instant, request: RequestId, answer: &PromiseAnswer) {
        let Some(pending) = self.requests.take(request) else { return };
        if let Some(known) = answer.known.as_ref().filter(|known| self.is_possible(&known.owner)) {
            self.learn_by_word(now, known);
            self.release(now, pending.began, known.epoch);
        }
        if let State::Word(word) = &mut self.state {
            word.heard(now);
        }
        let base = if self.settings.planted == Planted::LeaseFromAnswer { now } else { pending.began };
        let until = base + self.settings.ttl;
        if let (Kind::Promise(epoch), Verdict::Granted { epoch: granted }) = (&pending.kind, answer.verdict)
            && let State::Owning(tenancy) = &mut self.state
            && *epoch == granted
            && tenancy.tenure.epoch == granted
            && pending.began >= tenancy.valid_from
        {
            tenancy.partner_until = tenancy.partner_until.max(Some(until));
        }
    }

    /// The other pool knows that this one is the owner: promises given to it for lower epochs are void.
    fn release(&mut self, now: Instant, began: Instant, known_there: Epoch) {
        if let State::Owning(tenancy) = &self.state
            && tenancy.tenure.epoch == known_there
        {
            self.bound.release(now, began, self.settings.margin);
        }
    }
}

impl Ask {
    /// The tenure that the asker knows.
    pub(crate) fn tenure(&self) -> Option<&Tenure> {
        match self {
            Self::Promise { tenure } | Self::Return { known: tenure } => Some(tenure),
            Self::Observe { known } => known.as_ref(),
        }
    }
}

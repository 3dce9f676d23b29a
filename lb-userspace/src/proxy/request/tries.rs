//! Trying backends until there is an answer.

use std::rc::Rc;

use super::{
    AnswerHead, RequestBody,
    attempt::{Failure, Times, attempt},
    exchange::Exchange,
    forward::Forwarding,
    hedge::race,
    retry::{Retrying, allows, is_idempotent},
};
use crate::proxy::{
    balance::{Tried, pick, stay},
    local::LocalPool,
    route::Route,
    upstream::Lease,
};

/// Tries until there is an answer, or no more may be tried.
pub(super) async fn tries(forwarding: &mut Forwarding) -> Result<(AnswerHead, Lease), Failure> {
    let timers = forwarding.exchange.link.worker.timers.clone();
    let service = forwarding.exchange.service.clone();
    let route = &service.plan.routes.routes()[forwarding.route];
    let Forwarding {
        exchange,
        head,
        pool,
        hash,
        stays,
        ..
    } = forwarding;
    let (pool, head, hash) = (&*pool, &*head, *hash);
    let idempotent = is_idempotent(&head.method);
    let times = Times::of(&route.timeouts, &timers);
    let mut tried = Tried::default();
    let mut left = route.retries.attempts;
    let mut retrying: Option<Retrying> = None;
    let mut closed_before = false;
    loop {
        let first = stays.take().and_then(|place| stay(pool, place));
        let (first_place, mut upstream) = first
            .or_else(|| pick(pool, route.balance, hash, &tried))
            .ok_or(Failure::Breaker)?;
        tried.add(first_place);
        let body = match &exchange.source {
            None => RequestBody::Empty,
            Some(source) => source.again().ok_or(Failure::Reset)?,
        };
        exchange.goes_to(pool, &upstream);
        let source = exchange.source.as_ref();
        let link = &exchange.link;
        let caller = link.caller(&pool.plan);
        let hedge = route.retries.hedge_after;
        let hedge = hedge.filter(|_| idempotent && source.is_none());
        let first = attempt(&upstream, &timers, caller, (head, body), source, &times);
        let answered = match hedge {
            Some(delay) => {
                let mut other = None;
                let second = || {
                    let token = Retrying::begin(pool, &route.retries)?;
                    let (place, upstream) = pick(pool, route.balance, hash, &tried)?;
                    (place != first_place).then_some(())?;
                    other = Some(upstream.clone());
                    let (timers, times) = (&timers, &times);
                    Some(async move {
                        let _token = token;
                        let caller = link.caller(&pool.plan);
                        let request = (head, RequestBody::Empty);
                        attempt(&upstream, timers, caller, request, None, times).await
                    })
                };
                // In a box, as what is rare is to be no part of every request's future.
                let (answered, by_second) = Box::pin(race(&timers, delay, first, second)).await;
                if let Some(other) = other {
                    exchange.service.stats().retries.add(1);
                    if by_second {
                        exchange.goes_to(pool, &other);
                        upstream = other;
                    }
                }
                answered
            }
            None => first.await,
        };
        let failure = match answered {
            Ok((answer, lease)) => {
                let status = answer.status.as_u16();
                upstream.judge(pool, status);
                let failure = Failure::Status(status);
                let again = left > 0 && allows(&route.retries, &failure, idempotent, false);
                if !again || !may_again(exchange, pool, route, &mut retrying) {
                    exchange.answered(status);
                    return Ok((answer, lease));
                }
                failure
            }
            Err(failure) => {
                upstream.failed(pool, &failure);
                failure
            }
        };
        if left == 0
            || !allows(&route.retries, &failure, idempotent, closed_before)
            || !(matches!(failure, Failure::Status(_))
                || may_again(exchange, pool, route, &mut retrying))
        {
            return Err(failure);
        }
        closed_before |= matches!(failure, Failure::Closed);
        left -= 1;
        exchange.service.stats().retries.add(1);
    }
}

/// Whether there is a body to send again, and a retry left in the budget.
fn may_again(
    exchange: &Exchange,
    pool: &Rc<LocalPool>,
    route: &Route,
    retrying: &mut Option<Retrying>,
) -> bool {
    if exchange
        .source
        .as_ref()
        .is_some_and(|source| source.again().is_none())
    {
        return false;
    }
    if retrying.is_none() {
        *retrying = Retrying::begin(pool, &route.retries);
        if retrying.is_none() {
            exchange.service.stats().retries_refused.add(1);
        }
    }
    retrying.is_some()
}

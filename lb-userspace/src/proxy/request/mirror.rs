//! Copies of requests for another pool, whose answers are thrown away.

use std::rc::Rc;

use super::{
    RequestHead,
    attempt::{Times, attempt},
    body::Source,
};
use crate::proxy::{
    balance::{Tried, pick},
    client::Link,
    local::LocalService,
    route::Route,
};

/// Sends a copy, if the route wants one of this request and its whole body is there. Nobody waits
/// for it.
pub(super) fn mirror(
    link: &Rc<Link>,
    service: &LocalService,
    route: &Route,
    head: &RequestHead,
    source: Option<&Rc<Source>>,
) {
    let Some((pool, percent)) = service.plan.mirrors[route.number] else {
        return;
    };
    if fastrand::u32(..100) >= percent || source.is_some_and(|source| !source.has_ended()) {
        return;
    }
    let body = match source.map(|source| source.again()) {
        Some(None) => return,
        Some(Some(body)) => body,
        None => super::RequestBody::Empty,
    };
    // The client need not stay for it.
    let (pool, head) = (service.pools[pool].clone(), head.detached());
    let (timers, balance) = (link.worker.timers.clone(), route.balance);
    let times = Times::of(&route.timeouts, &timers);
    let caller = link.caller(&pool.plan);
    tokio::task::spawn_local(async move {
        let Some((_, upstream)) = pick(&pool, balance, fastrand::u64(..), &Tried::default()) else {
            return;
        };
        upstream.stats().requests.add(1);
        let answered = attempt(&upstream, &timers, caller, (&head, body), None, &times).await;
        if let Ok((answer, lease)) = answered {
            upstream.stats().answered(answer.status.as_u16());
            lease.throw_away().await;
        }
    });
}

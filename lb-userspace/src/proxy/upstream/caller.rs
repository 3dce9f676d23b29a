//! A client as backends that want a PROXY header see it. A connection with such a header is its
//! alone, for as long as it is connected itself.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    task::Context,
};

use super::{H1, H2, Upstream};
use crate::{
    config::http::ProxyProtocol,
    proxy::{
        proxy_protocol::{Addresses, Details, write},
        timers::ticks,
    },
};

/// The client, and its connections to backends that serve no request.
pub(crate) struct Caller {
    addresses: Addresses,
    details: Details,
    idle: RefCell<Vec<Kept<H1>>>,
    shared: RefCell<Vec<Kept<Rc<H2>>>>,
}

/// A connection of the client's.
struct Kept<T> {
    connection: T,
    upstream: Weak<Upstream>,
    /// How the backend was spoken to then.
    manner: u32,
}

impl<T> Kept<T> {
    fn is_of(&self, upstream: &Rc<Upstream>) -> bool {
        std::ptr::eq(self.upstream.as_ptr(), Rc::as_ptr(upstream))
    }
}

impl Caller {
    /// Without connections.
    pub(crate) fn new(addresses: Addresses, details: Details) -> Rc<Self> {
        Rc::new(Self {
            addresses,
            details,
            idle: RefCell::default(),
            shared: RefCell::default(),
        })
    }

    /// What its connections begin with.
    pub(super) fn header(&self, version: ProxyProtocol) -> Vec<u8> {
        write(version, self.addresses, &self.details)
    }

    /// An HTTP/1 connection to a backend that serves no request.
    pub(super) fn take_idle(&self, upstream: &Rc<Upstream>, cx: &mut Context<'_>) -> Option<H1> {
        let keepalive = ticks(upstream.pool.borrow().http.keepalive);
        loop {
            let mut idle = self.idle.borrow_mut();
            let place = idle.iter().rposition(|kept| kept.is_of(upstream))?;
            let kept = idle.swap_remove(place);
            drop(idle);
            let mut h1 = kept.connection;
            let idle_for = upstream.timers.now().saturating_sub(h1.idle_since);
            let fresh = kept.manner == upstream.manner.get() && idle_for < keepalive;
            if fresh && h1.is_usable(cx) {
                h1.reused = true;
                return Some(h1);
            }
        }
    }

    /// One serves no request any more.
    pub(super) fn put_idle(&self, upstream: &Rc<Upstream>, mut h1: H1) {
        h1.idle_since = upstream.timers.now();
        let most = upstream.pool.borrow().http.keep_idle as usize;
        let mut idle = self.idle.borrow_mut();
        if idle.len() < most {
            idle.push(Kept {
                connection: h1,
                upstream: Rc::downgrade(upstream),
                manner: upstream.manner.get(),
            });
        }
    }

    /// The HTTP/2 connection to a backend that has the fewest streams.
    pub(super) fn shared(&self, upstream: &Rc<Upstream>) -> Option<Rc<H2>> {
        let mut shared = self.shared.borrow_mut();
        let manner = upstream.manner.get();
        shared.retain(|kept| {
            kept.connection.is_open() && (!kept.is_of(upstream) || kept.manner == manner)
        });
        let own = shared.iter().filter(|kept| kept.is_of(upstream));
        let least = own.min_by_key(|kept| kept.connection.streams())?;
        Some(least.connection.clone())
    }

    /// There is another one.
    pub(super) fn share(&self, upstream: &Rc<Upstream>, h2: Rc<H2>) {
        self.shared.borrow_mut().push(Kept {
            connection: h2,
            upstream: Rc::downgrade(upstream),
            manner: upstream.manner.get(),
        });
    }
}

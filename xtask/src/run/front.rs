//! The demo's services, and the agent's configuration that makes them.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use lab::{
    Lab, Pair,
    load::{Load, Work},
};
use serde_json::{Map, Value, json};

/// Where the admin API is inside the agent's namespace.
pub(super) const LISTEN: &str = "127.0.0.1:9000";

/// A service, and its pool of the same name.
pub(super) struct Front {
    pub(super) name: &'static str,
    /// Of the VIP, and of the backends.
    pub(super) port: u16,
    mode: &'static str,
    address: fn(Pair) -> IpAddr,
}

/// All of them. A backend's port can belong to one `nat` service only, so `full-nat` has its own.
pub(super) const FRONTS: [Front; 3] = [
    Front {
        name: "nat-v4",
        port: 80,
        mode: "nat",
        address: |pair| pair.v4.into(),
    },
    Front {
        name: "nat-v6",
        port: 80,
        mode: "nat",
        address: |pair| pair.v6.into(),
    },
    Front {
        name: "full-nat-v4",
        port: 8080,
        mode: "full-nat",
        address: |pair| pair.v4.into(),
    },
];

impl Front {
    /// Its VIP and port.
    pub(super) fn target(&self, lab: &Lab) -> SocketAddr {
        ((self.address)(lab.vips()[0]), self.port).into()
    }

    /// Steady load, which leaves the machine most of its time.
    pub(super) fn load(&self, lab: &Lab) -> Result<Load> {
        let work = Work {
            clients: 8,
            // Weir chooses a backend for a connection, not for a request.
            per_connection: 4,
            // As browsers do: a server that is killed takes its connections with it.
            retries: 100,
            rest: Duration::from_millis(50),
            ..Work::endless(self.target(lab))
        };
        Load::http(lab.client(), work)
    }

    fn service(&self, lab: &Lab) -> Value {
        json!({
            "address": (self.address)(lab.vips()[0]),
            "port": self.port,
            "protocol": "tcp",
            "mode": self.mode,
            "pool": self.name,
        })
    }

    fn pool(&self, lab: &Lab) -> Value {
        let backends = lab.backends().iter().map(|backend| {
            let address = SocketAddr::new((self.address)(backend.addresses), self.port);
            (backend.name.clone(), json!({ "address": address }))
        });
        json!({
            "health_check": {
                "type": "http",
                "path": "/healthz",
                "interval": "500ms",
                "timeout": "500ms",
                "fall": 2,
                "rise": 2,
            },
            "backends": backends.collect::<Map<_, _>>(),
        })
    }
}

/// The agent's configuration.
pub(super) fn configuration(lab: &Lab, socket: &Path) -> Value {
    let interfaces = lab.lb_devices().iter();
    let interfaces = interfaces.map(|name| json!({ "name": name, "xdp": "native" }));
    let named = |make: fn(&Front, &Lab) -> Value| {
        let entries = FRONTS
            .iter()
            .map(|front| (front.name.to_owned(), make(front, lab)));
        entries.collect::<Map<_, _>>()
    };
    json!({
        "agent": {
            "interfaces": interfaces.collect::<Vec<_>>(),
            "admin": { "socket": socket, "listen": LISTEN },
            "pin": lab.pins(),
            "full_nat": { "addresses": [lab.lb_addresses().v4] },
        },
        "services": named(Front::service),
        "pools": named(Front::pool),
    })
}

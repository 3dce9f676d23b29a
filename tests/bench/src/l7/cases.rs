//! What clients do.

/// How clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// HTTP/1.1 on so many connections that are kept.
    Kept(u32),
    /// HTTP/1.1 with a connection for each request, 64 at a time.
    Each,
    /// HTTP/2 on 64 connections, eight requests at a time on each.
    Two,
}

/// What is aimed at: the CPU time of a request as a part of others'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    /// Of nginx's, and of HAProxy's.
    Both(f64, f64),
    /// Of the better of the two.
    Better(f64),
}

/// A kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    pub(crate) tls: bool,
    pub(crate) path: &'static str,
    pub(crate) aim: Aim,
    /// Whether latency at a fixed rate is measured too.
    pub(crate) paced: bool,
}

const PLAIN: Case = Case {
    name: "HTTP/1.1, 64 connections",
    client: Client::Kept(64),
    tls: false,
    path: "/",
    aim: Aim::Both(1.1, 1.0),
    paced: true,
};

/// All of them.
pub(crate) const CASES: [Case; 8] = [
    PLAIN,
    Case {
        name: "HTTP/1.1, 512 connections",
        client: Client::Kept(512),
        paced: false,
        ..PLAIN
    },
    Case {
        name: "a connection per request",
        client: Client::Each,
        aim: Aim::Better(1.1),
        paced: false,
        ..PLAIN
    },
    Case {
        name: "TLS 1.3, 64 connections",
        tls: true,
        aim: Aim::Better(0.9),
        ..PLAIN
    },
    Case {
        name: "TLS 1.3, a handshake per request",
        client: Client::Each,
        tls: true,
        aim: Aim::Better(0.9),
        paced: false,
        ..PLAIN
    },
    Case {
        name: "HTTP/2 over TLS, 64 connections",
        client: Client::Two,
        tls: true,
        aim: Aim::Better(0.9),
        ..PLAIN
    },
    Case {
        name: "HTTP/1.1, 10 KiB",
        path: "/10k",
        aim: Aim::Better(1.1),
        paced: false,
        ..PLAIN
    },
    Case {
        name: "HTTP/1.1, 1 MiB",
        path: "/1m",
        aim: Aim::Better(1.1),
        paced: false,
        ..PLAIN
    },
];

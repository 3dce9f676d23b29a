//! Services of mode `local`: the HTTP proxy, with real clients and servers in namespaces.

mod basics;
mod bodies;
mod browser;
mod clients;
mod drains;
mod failures;
mod floods;
mod grpc;
mod http2;
mod idle;
mod malformed;
mod metrics;
mod proxied;
mod routes;
mod scene;
mod shared_sessions;
mod slow;
mod takeover;
mod tls;
mod traces;
mod tunnels;
mod versions;

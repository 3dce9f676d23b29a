//! Services of mode `local`: the HTTP proxy, with real clients and servers in namespaces.

mod basics;
mod clients;
mod drains;
mod failures;
mod grpc;
mod idle;
mod malformed;
mod routes;
mod scene;
mod takeover;
mod tls;
mod tunnels;

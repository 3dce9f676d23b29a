//! A configuration that nodes share in etcd.

mod changes;
mod health;
mod scene;
mod trouble;

//! A configuration that nodes share in etcd.

mod changes;
mod scene;
mod trouble;

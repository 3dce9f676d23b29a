//! A configuration that nodes share in etcd.

mod changes;
mod etcd;
mod health;
mod scene;
mod trouble;

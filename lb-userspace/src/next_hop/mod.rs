//! stub
#![allow(missing_docs)]
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};
use tokio::sync::watch;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    pub ifindex: u32,
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    pub vlan: Option<u16>,
    pub mtu: u32,
    pub on_link: bool,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    Resolved(NextHop),
    Unresolved(()),
}
#[derive(Default)]
pub struct Table {
    pub next_hops: BTreeMap<IpAddr, Resolution>,
    pub epoch: u32,
}
pub struct Resolver {
    pub table: watch::Receiver<Arc<Table>>,
    _t: watch::Sender<Arc<Table>>,
}
impl Resolver {
    pub fn request(&self, _address: IpAddr, _ifindex: u32) {}
}
pub fn spawn(_targets: watch::Receiver<Arc<BTreeSet<IpAddr>>>) -> anyhow::Result<Resolver> {
    let (t, table) = watch::channel(Arc::default());
    Ok(Resolver { table, _t: t })
}

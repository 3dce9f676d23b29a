//! `weir detach`.

use std::path::Path;

use super::Show;
use crate::dataplane::{self, Leftover};

pub(super) fn run(show: Show, pin: &Path) -> anyhow::Result<()> {
    show.print(&dataplane::detach(pin)?, |left| text(left))
}

fn text(left: &[Leftover]) -> String {
    if left.is_empty() {
        return "nothing was left".to_owned();
    }
    let lines = left.iter().map(|Leftover { ifindex, mode }| {
        let name = nix::net::if_::if_indextoname(*ifindex).ok();
        let name = name.and_then(|name| name.into_string().ok());
        let name = name.unwrap_or_else(|| format!("interface {ifindex}, which is gone"));
        format!("{name}: detached ({mode})")
    });
    lines.collect::<Vec<_>>().join("\n")
}

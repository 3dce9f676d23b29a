//! `weir explain`.

use super::{Show, client::Client};
use crate::dataplane::{Explanation, Question};

pub(super) async fn run(client: &Client, show: Show, question: &Question) -> anyhow::Result<()> {
    let explanation: Explanation = client.post("/v1/explain", question).await?;
    show.print(&explanation, text)
}

fn text(explanation: &Explanation) -> String {
    let or_nobody = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".into());
    let Some(service) = &explanation.service else {
        return explanation.why.clone();
    };
    let mut lines = vec![format!("service {service}")];
    if let Some(slot) = explanation.slot {
        let tracked = if explanation.tracked {
            "tracked"
        } else {
            "stable"
        };
        lines.push(format!("slot {slot} of {}: {tracked}", explanation.slots));
        lines.push(format!("  current {}", or_nobody(&explanation.current)));
        lines.push(format!("  base {}", or_nobody(&explanation.base)));
    }
    if let Some(backend) = &explanation.remembered {
        lines.push(format!("remembered at {backend}"));
    }
    lines.push(format!(
        "open connections go to {}",
        or_nobody(&explanation.backend)
    ));
    let new = explanation.new_flows.as_deref();
    lines.push(format!(
        "new ones go to {}",
        new.unwrap_or("whom the algorithm picks then")
    ));
    lines.push(format!("because {}", explanation.why));
    lines.join("\n")
}

//! What a change costs, and what there may be of everything.

mod checks;
mod large;
mod memory;
mod report;
mod scene;
mod watcher;

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use lab::Lab;
use tokio::runtime::Runtime;

use self::{report::Report, scene::Scene};

/// Options of `changes`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Few rounds, and a tenth of everything: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Where to write the report, in Markdown.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Tell what so many services take, and so many backends in all, and nothing else: the
    /// benchmark asks itself.
    #[arg(long, hide = true, num_args = 2)]
    memory: Option<Vec<usize>>,
}

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) services: usize,
    pub(crate) backends: usize,
    pub(crate) rounds: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(&[services, backends]) = arguments.memory.as_deref() {
        return memory::tell(services, backends);
    }
    let scale = match arguments.quick {
        true => Scale {
            services: 400,
            backends: 10_000,
            rounds: 3,
        },
        false => Scale {
            services: 4096,
            backends: 100_000,
            rounds: 31,
        },
    };
    let mut report = Report::default();
    scene::inside(|lab, runtime| {
        single(runtime, lab, scale, &mut report)?;
        large::start(runtime, lab, scale, &mut report)?;
        large::flips(runtime, lab, scale, &mut report)
    })?;
    memory::measure(scale, &mut report)?;
    checks::measure(arguments.quick, &mut report)?;
    print!("{}", report.tables());
    if let Some(output) = &arguments.output {
        std::fs::write(output, report.document(scale)?)?;
    }
    Ok(())
}

/// One backend of a thousand, in one ring of 65,536 slots.
fn single(runtime: &Runtime, lab: &Lab, scale: Scale, report: &mut Report) -> Result<()> {
    let document = scene::document(1, 1000);
    let scene = Scene::start(lab, scale, scene::config(lab, scale, &document)?)?;
    runtime.block_on(async {
        for round in 0..scale.rounds {
            for (name, change) in scene::changes(round) {
                let started = Instant::now();
                scene.state.change_here(change).await?;
                report.add(name, started.elapsed());
            }
        }
        report.rate(scene::rate(&scene.state, scale.rounds as u32 * 100).await?);
        anyhow::Ok(())
    })?;
    scene.end(runtime)
}

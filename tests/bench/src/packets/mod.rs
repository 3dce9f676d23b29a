//! What a packet costs, by BPF_PROG_TEST_RUN.

mod cases;
mod feed;
mod feeder;
mod growth;
mod report;
mod scene;

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use lb_common::maglev::{self, Member};

use self::{
    cases::{cases, misses},
    feeder::Feeder,
    report::Report,
    scene::Scene,
};

/// Options of `packets`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Few and short rounds: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Where to write the report, in Markdown.
    #[arg(long)]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    crate::cpu::pin(crate::cpu::last()?)?;
    let lab = weir_tests::wire::lab()?;
    growth::route(&lab)?;
    let (rounds, packets) = if arguments.quick {
        (3, 2_000)
    } else {
        (41, 100_000)
    };
    let report = lab.lb().run(|| -> Result<Report> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let _inside = runtime.enter();
        let scene = Scene::new()?;
        let mut feeder = scene.feeder()?;
        let mut report = Report::default();
        for cases in [cases(&scene), misses(&scene)] {
            measure(&mut report, &mut feeder, &cases, rounds, packets)?;
        }
        drop((feeder, scene));
        for scene in [growth::services, growth::backends_of_services] {
            let scene = scene()?;
            let mut feeder = scene.feeder()?;
            measure(&mut report, &mut feeder, &scene.cases(), rounds, packets)?;
        }
        for backends in [100, 1000] {
            report.add_table(backends, build_times(backends, rounds));
        }
        Ok(report)
    })??;
    print!("{}", report.table());
    if let Some(output) = &arguments.output {
        let plot = output.with_extension("svg");
        std::fs::write(&plot, report.plot()?)?;
        let growth = output.with_file_name("benchmarks-growth.svg");
        std::fs::write(&growth, report.growth_plot()?)?;
        std::fs::write(output, report.document(rounds, packets)?)?;
    }
    Ok(())
}

/// Rounds over all cases, one after the other, so that what disturbs one disturbs all.
fn measure(
    report: &mut Report,
    feeder: &mut Feeder,
    cases: &[cases::Case],
    rounds: usize,
    packets: u32,
) -> Result<()> {
    for case in cases {
        feeder.check(case)?;
    }
    for _ in 0..rounds {
        for case in cases {
            let nanoseconds = feeder.run(case, packets)?;
            report.add(case, nanoseconds);
        }
    }
    Ok(())
}

/// Building a table of 65,536 slots, in nanoseconds.
fn build_times(backends: u32, rounds: usize) -> Vec<f64> {
    let members: Vec<Member> = (1..=backends)
        .map(|id| Member {
            key: u64::from(id) << 20,
            id,
            weight: 100,
        })
        .collect();
    let once = |_| {
        let start = Instant::now();
        std::hint::black_box(maglev::build(std::hint::black_box(&members), 16));
        start.elapsed().as_nanos() as f64
    };
    (0..rounds).map(once).collect()
}

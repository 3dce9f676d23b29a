//! Feeding packets to the program under test.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, ProgramArray},
    programs::Xdp,
};
use lb_common::abi::bench::Feed;
use lb_userspace::dataplane::{BENCH_OBJECT, DataPlane, Raw};
use weir_tests::wire::{Input, run};

use super::cases::Case;

const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// What packets are handed on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing: what feeding costs.
    Nothing = 0,
    /// The floor that swaps MACs.
    Swap = 1,
    /// The floor that parses.
    Parse = 2,
    /// The program under test.
    Weir = 3,
}

/// The loaded feeding program.
pub(crate) struct Feeder {
    ebpf: Ebpf,
    feed: Array<MapData, Raw<Feed>>,
    _targets: ProgramArray<MapData>,
}

impl Feeder {
    /// Loads the benchmarks' programs, in front of a data path.
    pub(crate) fn new(dataplane: &DataPlane) -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(BENCH_OBJECT)?;
        let map = ebpf.take_map("TARGETS").context("no map TARGETS")?;
        let mut targets: ProgramArray<MapData> = map.try_into()?;
        for (target, name) in [
            (Target::Nothing, "nothing"),
            (Target::Swap, "swap"),
            (Target::Parse, "parse_and_swap"),
        ] {
            let program = load(&mut ebpf, name)?;
            targets.set(target as u32, program.fd()?, 0)?;
        }
        load(&mut ebpf, "feed")?;
        let weir = |program: &Xdp| -> Result<()> {
            Ok(targets.set(Target::Weir as u32, program.fd()?, 0)?)
        };
        dataplane.with_program(weir)??;
        let map = ebpf.take_map("FEED").context("no map FEED")?;
        Ok(Self {
            feed: map.try_into()?,
            _targets: targets,
            ebpf,
        })
    }

    /// Opens the case's flows if they must be open, and sees to it that its packets are sent on.
    pub(crate) fn check(&mut self, case: &Case) -> Result<()> {
        if let Some(opening) = case.opening {
            self.feed(opening, case.target)?;
            self.test_run(case, case.flows)?;
        }
        self.feed(case.feed, case.target)?;
        for _ in 0..4 {
            let (verdict, _) = self.test_run(case, 1)?;
            ensure!(
                [XDP_TX, XDP_REDIRECT].contains(&verdict),
                "{} with {} flows: verdict {verdict}",
                case.name,
                case.flows
            );
        }
        Ok(())
    }

    /// Nanoseconds a packet.
    pub(crate) fn run(&mut self, case: &Case, packets: u32) -> Result<f64> {
        self.feed(case.feed, case.target)?;
        let (_, each) = self.test_run(case, packets)?;
        Ok(each.as_nanos() as f64)
    }

    fn feed(&mut self, mut feed: Feed, target: Target) -> Result<()> {
        feed.target = target as u32;
        Ok(self.feed.set(0, Raw(feed), 0)?)
    }

    /// The last packet's verdict, and the time that each took on average.
    fn test_run(&mut self, case: &Case, repeat: u32) -> Result<(u32, Duration)> {
        let program: &Xdp = self
            .ebpf
            .program("feed")
            .context("no program feed")?
            .try_into()?;
        let input = Input {
            data: &vec![0; case.length],
            metadata: 0,
            ingress: case.ingress,
            repeat,
        };
        // The kernel's own measure: a call's other costs are those of thousands of packets.
        let ran = run(program, input)?;
        Ok((ran.action, ran.each))
    }
}

fn load<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a Xdp> {
    let program = ebpf.program_mut(name);
    let program: &mut Xdp = program
        .with_context(|| format!("no program {name}"))?
        .try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    Ok(program)
}

//! Making frames.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, Pod,
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use lab::Namespace;
use lb_common::generate::Stream;

use crate::{Sources, Template, object, program};

/// Frames that are made at a time before they are sent; veth's rings hold 256.
const BATCH: u32 = 64;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct RawStream(Stream);

// SAFETY: integers and arrays of them, without padding.
unsafe impl Pod for RawStream {}

/// Sends frames out of a device.
pub struct Generator {
    ebpf: Ebpf,
    namespace: Namespace,
    next: Array<MapData, u64>,
    template: Template,
    flows: u64,
}

impl Generator {
    /// A generator at a device. Its frames reach the device's other end if that has a native
    /// XDP program or GRO.
    ///
    /// # Errors
    /// There is no such device, or no such number of sources from the template's on.
    pub fn new(
        namespace: &Namespace,
        device: &str,
        template: Template,
        sources: Sources,
    ) -> Result<Self> {
        let ifindex = namespace.run(|| nix::net::if_::if_nametoindex(device))?;
        let ifindex = ifindex.with_context(|| format!("{device} in {}", namespace.name()))?;
        let stream = template.stream(sources, ifindex)?;
        let mut ebpf = object()?;
        program(&mut ebpf, "generate")?;
        let map = ebpf.take_map("STREAM").context("no map STREAM")?;
        let mut streams: Array<_, RawStream> = map.try_into()?;
        streams.set(0, RawStream(stream), 0)?;
        let map = ebpf.take_map("NEXT").context("no map NEXT")?;
        Ok(Self {
            next: map.try_into()?,
            ebpf,
            namespace: namespace.clone(),
            template,
            flows: sources.flows(),
        })
    }

    /// Sends so many frames, and goes on with the flow after the last one. It takes one core,
    /// and those that receive over veth take the same one. How long it took includes about 25 ms
    /// that every call takes: send a million.
    ///
    /// # Errors
    /// The kernel refuses, or a signal came.
    pub fn send(&mut self, frames: u32) -> Result<Duration> {
        ensure!(frames > 0, "there are no frames to send");
        let before = self.next.get(&0, 0)?;
        let run: &Xdp = self
            .ebpf
            .program("generate")
            .context("no generator")?
            .try_into()?;
        let frame = &self.template.frame;
        let took = self.namespace.run(|| -> Result<Duration> {
            let started = Instant::now();
            run.test_run(TestRunOptions {
                data_in: Some(frame),
                repeat: frames,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            })?;
            Ok(started.elapsed())
        })??;
        let sent = self.next.get(&0, 0)? - before;
        ensure!(
            sent >= u64::from(frames),
            "{sent} frames were sent of {frames}"
        );
        Ok(took)
    }

    /// Frames sent so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sent(&self) -> Result<u64> {
        Ok(self.next.get(&0, 0)?)
    }

    /// How many different sources there are.
    pub fn flows(&self) -> u64 {
        self.flows
    }
}

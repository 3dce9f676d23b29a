//! Running a loaded program on a packet.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};

/// Room for any packet that a program may make.
const LONGEST: usize = 4096;

/// What a program is to be run on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The frame, at least 14 bytes, and before it `metadata` bytes.
    pub data: &'a [u8],
    /// Bytes of metadata, which take up headroom.
    pub metadata: usize,
    /// Index of the interface, in this thread's namespace, that it comes in by.
    pub ingress: u32,
    /// How often; the packet stays as it was left the time before.
    pub repeat: u32,
}

/// What it did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The XDP action.
    pub action: u32,
    /// The frame as it was left.
    pub frame: Vec<u8>,
    /// The kernel's own measure of the time that each took.
    pub each: Duration,
}

/// Runs a program on a frame.
///
/// # Errors
///
/// The kernel's.
pub fn run(program: &Xdp, input: Input<'_>) -> Result<Ran> {
    let (start, end) = (input.metadata as u32, input.data.len() as u32);
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress.
    let context = [start, end, 0, input.ingress, 0, 0].map(u32::to_ne_bytes);
    let mut frame = vec![0; LONGEST];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(input.data),
            data_out: Some(&mut frame),
            ctx_in: Some(context.as_flattened()),
            repeat: input.repeat,
            ..TestRunOptions::default()
        })
        .context("BPF_PROG_TEST_RUN")?;
    frame.truncate(result.data_size_out as usize);
    Ok(Ran {
        action: result.return_value,
        frame,
        each: result.duration,
    })
}

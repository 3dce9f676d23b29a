//! The driver's buffer as a frame: the one bounds check, the one resize.

use core::hint::black_box;

use aya_ebpf::{
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use lb_common::frame::{Frame, SHORTEST, Window, WindowMut};

/// A packet in an XDP program.
pub(crate) struct XdpFrame<'a> {
    context: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self { context }
    }

    /// Where `length` bytes from `offset` on start, if the packet has them.
    #[inline(always)]
    fn bytes(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let start = self.context.data() + offset;
        if start + length > self.context.data_end() {
            return None;
        }
        Some(start as *mut u8)
    }

    #[inline(always)]
    fn move_start(&mut self, by: i32) -> bool {
        // SAFETY: the context is the kernel's; windows borrow the frame, so none is alive.
        unsafe { bpf_xdp_adjust_head(self.context.ctx, by) == 0 }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.context.data_end() - self.context.data()
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<Window<'_, N>> {
        // SAFETY: `bytes` has checked N bytes.
        self.bytes(offset, N)
            .map(|start| unsafe { Window::new(start) })
    }

    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<WindowMut<'_, N>> {
        // SAFETY: `bytes` has checked N bytes, and the frame is borrowed mutably.
        self.bytes(offset, N)
            .map(|start| unsafe { WindowMut::new(start) })
    }

    #[inline(always)]
    fn grow_front(&mut self, by: usize) -> bool {
        self.move_start(-(by as i32))
    }

    #[inline(always)]
    fn shrink_front(&mut self, by: usize) -> bool {
        self.move_start(by as i32)
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) {
        let keep = if length < SHORTEST { SHORTEST } else { length };
        // Else the compiler subtracts from the end first, which the verifier forbids.
        let length = black_box(self.length());
        let over = length as i32 - keep as i32;
        if over > 0 {
            // SAFETY: as above. A frame that stays long has bytes behind the packet's end.
            unsafe { bpf_xdp_adjust_tail(self.context.ctx, -over) };
        }
    }
}

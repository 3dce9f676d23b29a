//! A thread that runs when it has to, however busy the machine is.

use std::io;

/// Above everything that has no real-time priority, below what the kernel itself does.
const PRIORITY: i32 = 10;

/// Gives the calling thread real-time priority (`SCHED_FIFO`). What it may start does not get it.
///
/// # Errors
///
/// The kernel does not allow it: it takes CAP_SYS_NICE, and room in the control group's budget.
pub(super) fn prefer_this_thread() -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: PRIORITY,
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the parameters outlive the call, which changes nothing but scheduling.
    match unsafe { libc::sched_setscheduler(0, policy, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! What the agent fixes when it loads the program: read-only, so the verifier knows the values.

use aya_ebpf::Global;

/// First half of the flow hash's secret.
#[unsafe(no_mangle)]
pub(crate) static HASH_KEY_LOW: Global<u64> = Global::new(0);

/// Second half of the flow hash's secret.
#[unsafe(no_mangle)]
pub(crate) static HASH_KEY_HIGH: Global<u64> = Global::new(0);

/// [`lb_common::front::shift`] of `SERVICES_FRONT`.
#[unsafe(no_mangle)]
pub(crate) static SERVICES_SHIFT: Global<u64> = Global::new(63);

/// [`lb_common::front::shift`] of `RETURNS_FRONT`.
#[unsafe(no_mangle)]
pub(crate) static RETURNS_SHIFT: Global<u64> = Global::new(63);

/// 1: what is remembered is told, for other nodes; 0: there are none.
#[unsafe(no_mangle)]
pub(crate) static TELL: Global<u32> = Global::new(0);

/// Turn that the first source endpoint is taken at, so that a node that takes over another's
/// flows does not begin where the other did.
#[unsafe(no_mangle)]
pub(crate) static FIRST_TURN: Global<u32> = Global::new(0);

/// Number of possible CPUs, at least 1.
#[unsafe(no_mangle)]
pub(crate) static CPUS: Global<u32> = Global::new(1);

/// Entries of `SERVICES` less one, a power of two.
#[unsafe(no_mangle)]
pub(crate) static SERVICE_MASK: Global<u64> = Global::new(0);

/// Entries of `BACKENDS` less one, a power of two.
#[unsafe(no_mangle)]
pub(crate) static BACKEND_MASK: Global<u64> = Global::new(0);

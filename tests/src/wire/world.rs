//! A loaded data path that packets can be fed to.

use anyhow::{Context as _, Result};
use lb_userspace::{
    dataplane::{DataPlane, Limits},
    desired::Desired,
};

use super::{
    case::Side,
    counts::{Counts, counts, difference},
    program::{Input, Ran, run},
    setting::{LIMITS, lab, load, resolved},
};

/// The data path in a lab of its own.
pub struct World {
    /// It.
    pub dataplane: DataPlane,
    /// What it was told last.
    pub desired: Desired,
    client_side: u32,
    backend_side: u32,
}

impl World {
    /// Makes one with this configuration, gives it to `test` and takes it down.
    ///
    /// # Errors
    ///
    /// The test's, or what kept the world from being made.
    pub fn with<T: Send>(
        desired: Desired,
        test: impl FnOnce(&mut Self) -> Result<T> + Send,
    ) -> Result<T> {
        Self::make(|| load(LIMITS, false), desired, test)
    }

    /// The same, with a data path that tells other nodes of its flows.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn with_peers<T: Send>(
        desired: Desired,
        test: impl FnOnce(&mut Self) -> Result<T> + Send,
    ) -> Result<T> {
        Self::make(|| load(LIMITS, true), desired, test)
    }

    /// The same, with flow tables of another size.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn with_room_for<T: Send>(
        flows: u32,
        desired: Desired,
        test: impl FnOnce(&mut Self) -> Result<T> + Send,
    ) -> Result<T> {
        let limits = Limits {
            flows,
            translations: flows,
            ..LIMITS
        };
        Self::make(|| load(limits, false), desired, test)
    }

    fn make<T: Send>(
        load: impl FnOnce() -> Result<DataPlane> + Send,
        desired: Desired,
        test: impl FnOnce(&mut Self) -> Result<T> + Send,
    ) -> Result<T> {
        let lab = lab()?;
        lab.lb().run(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let _inside = runtime.enter();
            let index =
                |name: &str| nix::net::if_::if_nametoindex(name).context("a device of the lab");
            let mut world = Self {
                dataplane: load()?,
                desired,
                client_side: index("client")?,
                backend_side: index("be1")?,
            };
            world.apply(|_| {})?;
            test(&mut world)
        })?
    }

    /// Changes what is desired.
    ///
    /// # Errors
    ///
    /// The data path refuses it.
    pub fn apply(&mut self, change: impl FnOnce(&mut Desired)) -> Result<()> {
        change(&mut self.desired);
        Ok(self.dataplane.apply(&self.desired)?)
    }

    /// Waits until the agent's resolver has found the way to all backends.
    ///
    /// # Errors
    ///
    /// It does not in time.
    pub fn resolved(&self) -> Result<()> {
        let backends = self.desired.pools.values().map(|pool| pool.len()).sum();
        resolved(&self.dataplane, backends)
    }

    /// The interface on a side.
    pub fn interface(&self, side: Side) -> u32 {
        match side {
            Side::Client => self.client_side,
            Side::Backend => self.backend_side,
        }
    }

    /// What becomes of a frame that comes in on a side.
    ///
    /// # Errors
    ///
    /// The kernel does not run the program.
    pub fn feed(&self, side: Side, frame: &[u8]) -> Result<Ran> {
        self.feed_behind(side, frame, 0)
    }

    /// The same, and what was counted for it.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn observe(&self, side: Side, frame: &[u8]) -> Result<(Ran, Counts)> {
        let before = counts(&self.dataplane.counters()?);
        let ran = self.feed(side, frame)?;
        let after = counts(&self.dataplane.counters()?);
        Ok((ran, difference(&before, &after)))
    }

    /// The same as [`World::feed`], where the first bytes of `data` are metadata, not the frame's.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn feed_behind(&self, side: Side, data: &[u8], metadata: usize) -> Result<Ran> {
        let input = Input {
            data,
            metadata,
            ingress: self.interface(side),
            repeat: 1,
        };
        self.dataplane.with_program(|program| run(program, input))?
    }
}

//! What a data path that is to outlive its agent begins with.

use anyhow::Context as _;

use super::{
    super::{
        apply,
        options::{Options, Pin},
    },
    Inherited, Pins, Stamp,
};

/// The pins, with what describes this agent's; none where nothing is to be pinned.
type Place = Option<(Pins, Stamp)>;

/// The pins, if there are to be any, and what an earlier agent has left in them.
///
/// # Errors
///
/// Another agent has them, or the kernel's.
pub(crate) fn begin(options: &Options) -> anyhow::Result<(Place, Option<Inherited>)> {
    let Some(pin) = &options.pin else {
        return Ok((None, None));
    };
    let (pins, stamp) = open(pin, options)?;
    let inherited = inherited(&pins, &stamp)?;
    Ok((Some((pins, stamp)), inherited))
}

fn open(pin: &Pin, options: &Options) -> anyhow::Result<(Pins, Stamp)> {
    let directory = &pin.directory;
    let pins = Pins::open(directory);
    let pins = pins.with_context(|| format!("`agent.pin`, {}", directory.display()))?;
    let sources = apply::sources(&pin.source_addresses, &pin.peer_source_addresses);
    let stamp = Stamp::new(options.hash_key, &sources, options.limits)?;
    Ok((pins, stamp))
}

/// What an earlier agent has left, as far as this one can go on with it.
fn inherited(pins: &Pins, stamp: &Stamp) -> anyhow::Result<Option<Inherited>> {
    let Some(maps) = pins.in_force()? else {
        return Ok(None);
    };
    match Inherited::read(maps, stamp) {
        Ok(inherited) => {
            tracing::info!("going on with what an earlier agent has left");
            if !inherited.same_hash() {
                tracing::warn!(
                    "`agent.hash_key` is another: connections that nobody remembers move"
                );
            }
            Ok(Some(inherited))
        }
        Err(why) => {
            tracing::warn!(
                "what an earlier agent has left is replaced, and connections that only that one \
                 remembered are lost: {why:#}"
            );
            Ok(None)
        }
    }
}

//! A worker's deadlines, to the tenth of a second. Setting one is a store, where a timer of the
//! runtime's would be an insertion into its wheel: requests set several each, and nearly none
//! ever passes.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(100);
const NEVER: u32 = u32::MAX;

/// Every deadline of a worker.
pub(crate) struct Timers {
    started: Instant,
    now: Cell<u32>,
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    list: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    deadline: u32,
    waker: Option<Waker>,
}

impl Timers {
    /// None yet.
    pub(crate) fn new() -> Rc<Timers> {
        Rc::new(Timers {
            started: Instant::now(),
            now: Cell::new(0),
            slots: RefCell::default(),
        })
    }

    /// Ticks since the worker began.
    pub(crate) fn now(&self) -> u32 {
        self.now.get()
    }

    /// Moves time on, for ever.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.started.elapsed().as_millis() / TICK.as_millis();
            self.advance(u32::try_from(now).unwrap_or(NEVER - 1));
        }
    }

    fn advance(&self, now: u32) {
        self.now.set(now);
        // Not while the slots are borrowed: what is woken may be dropped, with its timers.
        let due: Vec<Waker> = (self.slots.borrow_mut().list.iter_mut())
            .filter(|slot| slot.deadline <= now)
            .filter_map(|slot| slot.waker.take())
            .collect();
        due.into_iter().for_each(Waker::wake);
    }

    /// Wakes everything that has a timer: something else has changed that it must look at.
    pub(crate) fn wake_all(&self) {
        let slots = &mut self.slots.borrow_mut().list;
        let all: Vec<Waker> = slots
            .iter_mut()
            .filter_map(|slot| slot.waker.take())
            .collect();
        all.into_iter().for_each(Waker::wake);
    }
}

/// So many ticks, and never early.
pub(crate) fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(TICK.as_millis()) + 1).unwrap_or(NEVER / 2)
}

/// A deadline that can be set anew.
pub(crate) struct Timer {
    timers: Rc<Timers>,
    slot: u32,
}

impl Timer {
    /// Not set.
    pub(crate) fn new(timers: &Rc<Timers>) -> Timer {
        let empty = Slot {
            deadline: NEVER,
            waker: None,
        };
        let slots = &mut *timers.slots.borrow_mut();
        let slot = match slots.free.pop() {
            Some(slot) => {
                slots.list[slot as usize] = empty;
                slot
            }
            None => {
                slots.list.push(empty);
                slots.list.len() as u32 - 1
            }
        };
        Timer {
            timers: timers.clone(),
            slot,
        }
    }

    /// Set to this time from now.
    pub(crate) fn after(timers: &Rc<Timers>, time: Duration) -> Timer {
        let timer = Timer::new(timers);
        timer.set(ticks(time));
        timer
    }

    /// Passes so many ticks from now.
    pub(crate) fn set(&self, ticks: u32) {
        let deadline = self.timers.now().saturating_add(ticks).min(NEVER - 1);
        self.timers.slots.borrow_mut().list[self.slot as usize].deadline = deadline;
    }

    /// Ready once it has passed; until it is set again.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let slot = &mut self.timers.slots.borrow_mut().list[self.slot as usize];
        if slot.deadline <= self.timers.now() {
            return Poll::Ready(());
        }
        match &slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let slots = &mut *self.timers.slots.borrow_mut();
        slots.list[self.slot as usize] = Slot {
            deadline: NEVER,
            waker: None,
        };
        slots.free.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_when_it_is_time_and_not_before() {
        let timers = Timers::new();
        let timer = Timer::after(&timers, Duration::from_secs(1));
        let cx = &mut Context::from_waker(Waker::noop());
        timers.advance(10);
        assert!(timer.poll(cx).is_pending());
        timers.advance(11);
        assert!(timer.poll(cx).is_ready());
        timer.set(5);
        assert!(timer.poll(cx).is_pending());
        timers.advance(16);
        assert!(timer.poll(cx).is_ready());
    }

    #[test]
    fn slots_are_used_again() {
        let timers = Timers::new();
        drop(Timer::after(&timers, TICK));
        let timer = Timer::new(&timers);
        assert_eq!(timers.slots.borrow().list.len(), 1);
        timers.advance(1000);
        assert!(
            timer
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
    }
}

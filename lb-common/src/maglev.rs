//! The table that spreads a pool's flows over its backends: Maglev hashing (Eisenbud and
//! others, NSDI'16, section 3.4), weighted, with a power of two of slots.
//!
//! Each backend has an order of its own in which it likes the slots; backends take turns,
//! more often the heavier they are, and each takes the slot that it likes best of those
//! left. So every backend gets its share to the slot, and when one comes or goes few slots
//! change hands between the others. In a table of a power of two every odd step reaches
//! every slot, so orders are an offset and a step.
//!
//! The table depends on the set of members alone, not on their order or ids.

use alloc::{vec, vec::Vec};

/// Fewest slots a backend should have: then a slot is a percent of its share.
const SLOTS_PER_MEMBER: usize = 100;

/// Largest table, as a power of two.
pub const MAX_LOG2_SLOTS: u32 = 16;

/// A backend that takes flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is, the same on every node: decides which slots it likes.
    pub key: u64,
    /// What the table is to call it; never 0.
    pub id: u32,
    /// Its share, relative to the others; 0: none.
    pub weight: u32,
}

/// Size of the table for so many members, as a power of two.
pub const fn log2_slots(members: usize) -> u32 {
    let wanted = members.saturating_mul(SLOTS_PER_MEMBER);
    let mut log2 = 0;
    while log2 < MAX_LOG2_SLOTS && (1 << log2) < wanted {
        log2 += 1;
    }
    // One backend needs no choice.
    if members <= 1 { 0 } else { log2 }
}

/// The id of the owner of each of `1 << log2_slots` slots; 0 where no member has a weight.
///
/// With more members than slots, the lightest get none.
///
/// # Panics
///
/// Where `log2_slots` is above 30.
pub fn build(members: &[Member], log2_slots: u32) -> Vec<u32> {
    let slots = 1usize << log2_slots;
    let members = sorted(members);
    let mut table = vec![0; slots];
    if members.is_empty() {
        return table;
    }
    let mask = (slots - 1) as u32;
    let mut places: Vec<Place> = members.iter().map(|m| Place::new(m, mask)).collect();
    let mut taken = Taken::new(slots);
    let order = turns(&shares(&members, slots));
    // A search takes `slots / left` steps: the last few slots would cost more than all others.
    let (searched, counted) = order.split_at(slots - (1 << (log2_slots / 2)));
    for &turn in searched {
        let place = &mut places[turn as usize];
        place.go_to_free(&taken, mask);
        taken.take(place.next);
        table[place.next as usize] = place.id;
    }
    let mut left: Vec<u32> = taken.free().collect();
    for &turn in counted {
        let place = &mut places[turn as usize];
        place.go_to_nearest(&mut left, mask);
        table[place.next as usize] = place.id;
    }
    table
}

/// Owners in the order of their turns, each as often as its weight says and as evenly spread
/// as can be: for round robin.
pub fn in_turns(members: &[Member], log2_slots: u32) -> Vec<u32> {
    let slots = 1usize << log2_slots;
    let members = sorted(members);
    if members.is_empty() {
        return vec![0; slots];
    }
    turns(&shares(&members, slots))
        .into_iter()
        .map(|turn| members[turn as usize].id)
        .collect()
}

/// Those with a weight, in an order that depends on what they are alone.
fn sorted(members: &[Member]) -> Vec<Member> {
    let mut members: Vec<Member> = members.iter().copied().filter(|m| m.weight > 0).collect();
    members.sort_unstable_by_key(|member| (member.key, member.id));
    members
}

/// How much two nodes' tables are alike: equal where, slot by slot, the owners' keys are.
pub fn digest(owners: impl IntoIterator<Item = u64>) -> u64 {
    owners
        .into_iter()
        .fold(0, |digest: u64, key| mix(digest.rotate_left(5) ^ key))
}

/// Where a member is in its order of slots. In half words, for those of many members to fit in the
/// nearest cache.
struct Place {
    next: u32,
    step: u32,
    id: u32,
}

impl Place {
    fn new(member: &Member, mask: u32) -> Self {
        let first = mix(member.key);
        Self {
            next: first as u32 & mask,
            step: (mix(first) as u32 & mask) | 1,
            id: member.id,
        }
    }

    /// Goes to the first slot in its order that is not taken. Looks at several at once: a branch
    /// a slot would be guessed wrong as often as not.
    fn go_to_free(&mut self, taken: &Taken, mask: u32) {
        const AT_ONCE: u32 = 6;
        let at = |ahead: u32, next: u32| next.wrapping_add(ahead.wrapping_mul(self.step)) & mask;
        let mut next = self.next;
        loop {
            let mut free = 0;
            for ahead in 0..AT_ONCE {
                free |= taken.is_free(at(ahead, next)) << ahead;
            }
            if free != 0 {
                self.next = at(free.trailing_zeros(), next);
                return;
            }
            next = at(AT_ONCE, next);
        }
    }

    /// Goes to that slot of `left` which comes first in its order, and takes it out.
    fn go_to_nearest(&mut self, left: &mut Vec<u32>, mask: u32) {
        // Half words, of which the CPU takes twice as many at once.
        let (next, in_one) = (self.next, inverse(self.step));
        let steps = |slot: u32| slot.wrapping_sub(next).wrapping_mul(in_one) & mask;
        let nearest = left.iter().map(|&slot| steps(slot)).min();
        let at = left.iter().position(|&slot| Some(steps(slot)) == nearest);
        self.next = left.swap_remove(at.unwrap_or(0));
    }
}

/// What an odd number is to be multiplied with for 1, in words that wrap around.
const fn inverse(odd: u32) -> u32 {
    // Right in three bits; each round doubles them (Newton).
    let mut inverse = odd;
    let mut round = 0;
    while round < 4 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

/// A byte a slot, 1 where it is taken: quicker read than a bit, and a quarter of the table, which
/// no near cache would hold.
struct Taken(Vec<u8>);

impl Taken {
    fn new(slots: usize) -> Self {
        Self(vec![0; slots])
    }

    /// 1 for a slot that is not taken, else 0.
    fn is_free(&self, slot: u32) -> u64 {
        u64::from(self.0[slot as usize] ^ 1)
    }

    fn take(&mut self, slot: u32) {
        self.0[slot as usize] = 1;
    }

    /// The slots that are not taken.
    fn free(&self) -> impl Iterator<Item = u32> {
        (0..self.0.len() as u32).filter(|&slot| self.is_free(slot) == 1)
    }
}

/// Number of slots of each member: its exact share rounded down, and what is left to those
/// whose share lost most by that.
fn shares(members: &[Member], slots: usize) -> Vec<usize> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let exact = |member: &Member| u64::from(member.weight) * slots as u64;
    let mut shares: Vec<usize> = members
        .iter()
        .map(|member| (exact(member) / total) as usize)
        .collect();
    let left = slots - shares.iter().sum::<usize>();
    let mut order: Vec<usize> = (0..members.len()).collect();
    // Equal remainders by key: whom it hits must not depend on the others.
    order.sort_by_cached_key(|&index| {
        let member = &members[index];
        (
            core::cmp::Reverse(exact(member) % total),
            mix(member.key),
            index,
        )
    });
    for index in order.into_iter().take(left) {
        shares[index] += 1;
    }
    shares
}

/// Whose turn it is, slot after slot: each member's turns spread evenly over the whole. There are
/// as many moments as the one with most turns has, so that equal members take them in rounds.
fn turns(shares: &[usize]) -> Vec<u32> {
    let total: usize = shares.iter().sum();
    let moments = shares.iter().copied().max().unwrap_or(0).max(1);
    // Where nearly every member has a turn at nearly every moment nothing needs to be sorted.
    match moments * shares.len() <= 2 * total {
        true => in_rounds(shares, moments),
        false => by_counting(shares, moments),
    }
}

/// [`turns`], by a look at every member at every moment.
fn in_rounds(shares: &[usize], moments: usize) -> Vec<u32> {
    let mut walks: Vec<Walk> = (shares.iter())
        .map(|&share| Walk::new(share, moments))
        .collect();
    let mut order = Vec::with_capacity(shares.iter().sum());
    for moment in 0..moments as u32 {
        for (member, walk) in (0..).zip(&mut walks) {
            if walk.moment == moment {
                order.push(member);
                walk.go_on();
            }
        }
    }
    order
}

/// [`turns`], by a counting sort of every turn by its moment.
fn by_counting(shares: &[usize], moments: usize) -> Vec<u32> {
    let each = |visit: &mut dyn FnMut(usize, u32)| {
        for (member, &share) in (0..).zip(shares) {
            let mut walk = Walk::new(share, moments);
            for _ in 0..share {
                visit(walk.moment as usize, member);
                walk.go_on();
            }
        }
    };
    let mut starts = vec![0usize; moments + 1];
    each(&mut |moment, _| starts[moment + 1] += 1);
    for moment in 0..moments {
        starts[moment + 1] += starts[moment];
    }
    let mut order = vec![0; shares.iter().sum()];
    each(&mut |moment, member| {
        order[starts[moment]] = member;
        starts[moment] += 1;
    });
    order
}

/// A member's turns, one after the other: turn `t` of `share` is at `(t + 1/2) / share` of all
/// moments. Without a division a turn: where it is, and what was left of the division so far.
struct Walk {
    moment: u32,
    left: u32,
    step: u32,
    step_left: u32,
    whole: u32,
}

impl Walk {
    /// At the first; one of no turns is at the end.
    fn new(share: usize, moments: usize) -> Self {
        let (whole, moments) = (2 * share.max(1) as u32, moments as u32);
        Self {
            moment: if share == 0 { moments } else { moments / whole },
            left: moments % whole,
            step: 2 * moments / whole,
            step_left: 2 * moments % whole,
            whole,
        }
    }

    /// To the next; behind the last it is at the end, or further.
    fn go_on(&mut self) {
        self.moment += self.step;
        self.left += self.step_left;
        if self.left >= self.whole {
            self.left -= self.whole;
            self.moment += 1;
        }
    }
}

/// A permutation of the 64-bit words that leaves no pattern (the finalizer of SplitMix64).
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// By the definition: whose turn it is walks its order from the start to the first slot left.
    fn by_definition(members: &[Member], log2_slots: u32) -> Vec<u32> {
        let slots = 1usize << log2_slots;
        let mut table = vec![0; slots];
        for id in in_turns(members, log2_slots) {
            let Some(member) = members.iter().find(|member| member.id == id) else {
                panic!("nobody has the id {id}");
            };
            let Place { mut next, step, .. } = Place::new(member, slots as u32 - 1);
            while table[next as usize] != 0 {
                next = (next + step) & (slots as u32 - 1);
            }
            table[next as usize] = id;
        }
        table
    }

    #[test]
    fn shortcuts_change_nothing() {
        for (count, log2_slots) in [(1, 0), (2, 1), (3, 2), (7, 3), (5, 8), (40, 12), (9, 13)] {
            let member = |id: u32| Member {
                key: mix(u64::from(id + log2_slots)),
                id,
                weight: 1 + id * 7 % 5,
            };
            let members: Vec<Member> = (1..=count).map(member).collect();
            let expected = by_definition(&members, log2_slots);
            assert!(build(&members, log2_slots) == expected, "{count} members");
        }
    }

    proptest! {
        #[test]
        fn turns_are_the_same_either_way(shares in vec(0usize..300, 1..40)) {
            let moments = shares.iter().copied().max().unwrap_or(0).max(1);
            let order = by_counting(&shares, moments);
            prop_assert_eq!(&in_rounds(&shares, moments), &order);
            for (member, &share) in (0u32..).zip(&shares) {
                prop_assert_eq!(order.iter().filter(|&&turn| turn == member).count(), share);
            }
        }
    }

    #[test]
    fn inverses_give_one() {
        for odd in [1, 3, 0xffff, 0x1_2345, u32::MAX] {
            assert_eq!(odd.wrapping_mul(inverse(odd)), 1, "{odd}");
        }
    }
}

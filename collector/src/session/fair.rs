//! Whose batch is taken next: deficit round robin between hosts, by size.
//! Pure.
//!
//! Promises: what is on its way to the disk stays within the room, and within
//! each host's share of it; a single batch that is larger than either goes
//! when it is alone. Between two turns of a host that waits, every other host
//! gets at most one quantum and one batch. A host that has used its share
//! holds up nobody else.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How much may be on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) all: u64,
    pub(super) each: u64,
    /// What a host gets in one round.
    pub(super) quantum: u64,
}

/// The lines of all hosts; `T` is whoever waits.
pub(super) struct Fair<K, T> {
    room: Room,
    used: u64,
    lines: HashMap<K, Line<T>>,
    /// Hosts that wait and may be served, in the order of their turns.
    ring: VecDeque<K>,
}

struct Line<T> {
    waiting: VecDeque<(u64, T)>,
    used: u64,
    deficit: u64,
    in_ring: bool,
}

impl<K: Copy + Eq + Hash, T> Fair<K, T> {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            used: 0,
            lines: HashMap::new(),
            ring: VecDeque::new(),
        }
    }

    /// Takes room at once when nobody waits and there is some.
    pub(super) fn try_take(&mut self, host: K, size: u64) -> bool {
        let used_by_host = self.lines.get(&host).map_or(0, |line| line.used);
        let is_free = self.ring.is_empty()
            && self
                .lines
                .get(&host)
                .is_none_or(|line| line.waiting.is_empty())
            && fits(self.used, size, self.room.all)
            && fits(used_by_host, size, self.room.each);
        if is_free {
            self.line(host).used += size;
            self.used += size;
        }
        is_free
    }

    /// Puts someone at the end of a host's line.
    pub(super) fn wait(&mut self, host: K, size: u64, who: T) {
        self.line(host).waiting.push_back((size, who));
        self.enter_ring(host);
    }

    /// Gives back what was taken.
    pub(super) fn release(&mut self, host: K, size: u64) {
        self.used = self.used.saturating_sub(size);
        let line = self.line(host);
        line.used = line.used.saturating_sub(size);
        let (is_idle, waits) = (line.used == 0, !line.waiting.is_empty());
        if waits {
            self.enter_ring(host);
        } else if is_idle {
            self.lines.remove(&host);
        }
    }

    /// Who goes now, with the size that was taken for it.
    pub(super) fn next(&mut self) -> Option<(K, u64, T)> {
        loop {
            let host = *self.ring.front()?;
            let (room, used, alone) = (self.room, self.used, self.ring.len() == 1);
            let line = self.line(host);
            let Some(size) = line.waiting.front().map(|(size, _)| *size) else {
                self.leave_ring(host);
                continue;
            };
            if !fits(line.used, size, room.each) {
                self.leave_ring(host);
                continue;
            }
            if line.deficit < size && !alone {
                line.deficit += room.quantum;
                self.ring.rotate_left(1);
                continue;
            }
            if !fits(used, size, room.all) {
                return None;
            }
            line.deficit = line.deficit.saturating_sub(size);
            line.used += size;
            let (_, who) = line.waiting.pop_front()?;
            let waits = !line.waiting.is_empty();
            self.used += size;
            if !waits {
                self.leave_ring(host);
            }
            return Some((host, size, who));
        }
    }

    fn line(&mut self, host: K) -> &mut Line<T> {
        self.lines.entry(host).or_insert_with(|| Line {
            waiting: VecDeque::new(),
            used: 0,
            deficit: 0,
            in_ring: false,
        })
    }

    fn enter_ring(&mut self, host: K) {
        let line = self.line(host);
        if !std::mem::replace(&mut line.in_ring, true) {
            self.ring.push_back(host);
        }
    }

    /// Only ever the host at the front.
    fn leave_ring(&mut self, host: K) {
        let line = self.line(host);
        line.in_ring = false;
        line.deficit = 0;
        self.ring.pop_front();
    }
}

/// What is larger than all of the room goes when it is alone.
fn fits(used: u64, size: u64, room: u64) -> bool {
    used == 0 || used.saturating_add(size) <= room
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room {
        all: 100,
        each: 40,
        quantum: 10,
    };

    /// Everybody asks, then what goes is finished in order, one by one.
    fn order(asked: &[(u32, u64)]) -> Vec<(u32, u64)> {
        let mut fair = Fair::new(ROOM);
        for (host, size) in asked {
            fair.wait(*host, *size, ());
        }
        let (mut on_their_way, mut order) = (VecDeque::new(), Vec::new());
        loop {
            while let Some((host, size, ())) = fair.next() {
                order.push((host, size));
                on_their_way.push_back((host, size));
            }
            let Some((host, size)) = on_their_way.pop_front() else {
                assert_eq!((fair.used, fair.lines.len(), fair.ring.len()), (0, 0, 0));
                return order;
            };
            fair.release(host, size);
        }
    }

    #[test]
    fn a_flood_does_not_delay_a_calm_host_by_more_than_its_share() {
        let mut asked = vec![(0, 10); 1_000];
        asked.extend((1..=50).map(|calm| (calm, 1)));
        let order = order(&asked);
        let last_calm = order.iter().rposition(|(host, _)| *host > 0).unwrap();
        let flooded: u64 = order[..last_calm]
            .iter()
            .filter(|(host, _)| *host == 0)
            .map(|(_, size)| size)
            .sum();
        // It came first, and took no more than its share until all had a turn.
        assert!(flooded <= ROOM.each + ROOM.quantum, "{flooded}");
    }

    #[test]
    fn hosts_with_large_and_with_small_batches_get_the_same() {
        let mut asked = vec![(0, 20); 50];
        asked.extend(vec![(1, 2); 500]);
        let order = order(&asked);
        let half: u64 = order.iter().map(|(_, size)| size).sum::<u64>() / 2;
        let (mut of, mut sum) = ([0_u64; 2], 0);
        for (host, size) in order.iter().take_while(|(_, size)| {
            sum += size;
            sum <= half
        }) {
            of[*host as usize] += size;
        }
        let difference = of[0].abs_diff(of[1]);
        assert!(difference <= 2 * ROOM.each, "{of:?}");
    }

    #[test]
    fn a_batch_larger_than_all_room_goes_when_it_is_alone() {
        assert_eq!(order(&[(0, 5), (1, 1_000), (0, 5)]).len(), 3);
    }

    proptest! {
        #[test]
        fn everybody_goes_in_the_order_of_its_host_and_the_room_is_kept_to(
            asked in proptest::collection::vec((0_u32..5, 1_u64..60), 0..60),
        ) {
            let order = order(&asked);
            for host in 0..5 {
                let of = |all: &[(u32, u64)]| -> Vec<u64> {
                    all.iter().filter(|(h, _)| *h == host).map(|(_, size)| *size).collect()
                };
                prop_assert_eq!(of(&order), of(&asked));
            }
        }

        #[test]
        fn room_is_never_exceeded_and_never_left_unused_while_someone_fits(
            steps in proptest::collection::vec((0_u32..4, 1_u64..120, any::<bool>()), 1..80),
        ) {
            let mut fair = Fair::new(ROOM);
            let mut held: VecDeque<(u32, u64)> = VecDeque::new();
            for (host, size, finish) in steps {
                if finish && let Some((host, size)) = held.pop_front() {
                    fair.release(host, size);
                }
                match fair.try_take(host, size) {
                    true => held.push_back((host, size)),
                    false => fair.wait(host, size, ()),
                }
                while let Some((host, size, ())) = fair.next() {
                    held.push_back((host, size));
                }
                let used: u64 = held.iter().map(|(_, size)| size).sum();
                prop_assert_eq!(used, fair.used);
                prop_assert!(used <= ROOM.all || held.len() == 1, "{:?}", held);
                for one in 0..4 {
                    let of: Vec<u64> = held.iter().filter(|(h, _)| *h == one).map(|(_, s)| *s).collect();
                    prop_assert!(of.iter().sum::<u64>() <= ROOM.each || of.len() == 1);
                }
                prop_assert!(!held.is_empty() || fair.ring.is_empty());
            }
        }
    }
}

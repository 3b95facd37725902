//! Which patterns may take long although the engine counts its steps: those
//! where many steps may read the whole text.
//!
//! The engine hands what has no look-around over to one that reads on by
//! itself. That happens once for `(?!.*x)y.*`; it happens at each place for
//! `(?:(?=.*b)a)*`, `.*(?=.*b)` or `(?:(?!x)a)*b*`, which is what is found here.

use super::Reader;

/// What is known of a group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Group {
    /// It looks around, or gives up no ground, or holds something that does.
    is_hard: bool,
    /// Something in it repeats without an end.
    repeats: bool,
    /// Something hard in it does.
    is_long: bool,
    /// Something before it does.
    follows_repetition: bool,
}

impl Group {
    pub(super) fn beginning(is_hard: bool, follows_repetition: bool) -> Self {
        Self {
            is_hard,
            follows_repetition,
            ..Self::default()
        }
    }
}

/// What is known of the pattern so far.
#[derive(Debug, Default)]
pub(super) struct Cost {
    /// The group that has just been closed.
    pub(super) last: Group,
    /// Something repeats without an end.
    pub(super) repeats: bool,
    /// Something hard is repeated.
    loops: bool,
}

impl Reader<'_> {
    /// A group ends.
    pub(super) fn close_group(&mut self) {
        let outer = self.open.len().checked_sub(2);
        let (Some(outer), Some(closed)) = (outer, self.open.last().map(|open| open.group)) else {
            return;
        };
        self.open.pop();
        let mut last = closed;
        last.is_long |= closed.is_hard && closed.repeats;
        self.out.is_costly |= last.is_long && closed.follows_repetition;
        if let Some(outer) = self.open.get_mut(outer) {
            outer.group.is_hard |= last.is_hard;
            outer.group.repeats |= last.repeats;
            outer.group.is_long |= last.is_long;
        }
        self.cost.last = last;
    }

    /// What was read last is repeated; `endless` where no number ends it.
    pub(super) fn repeat(&mut self, is_endless: bool) {
        let last = std::mem::take(&mut self.cost.last);
        self.out.is_costly |= last.is_long || (is_endless && self.cost.loops);
        self.cost.loops |= last.is_hard;
        if is_endless {
            self.cost.repeats = true;
            if let Some(open) = self.open.last_mut() {
                open.group.repeats = true;
            }
        }
    }

    /// A repetition gives up no ground: it is hard, and reads on by itself.
    pub(super) fn possess(&mut self) {
        self.out.is_costly |= self.cost.loops;
        if let Some(open) = self.open.last_mut() {
            open.group.is_hard = true;
            open.group.is_long = true;
        }
    }
}

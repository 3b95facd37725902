//! How much of a scan the network namespaces of others may take.
//!
//! Any account can make as many namespaces as it likes, and fill one so that
//! its tables take the kernel seconds to print (`/proc/PID/net/udp` costs the
//! square of its sockets). Promises: a scan has a time for all of them and one
//! for each; those that it does not get to are as the last scan that did found
//! them, and are read before others in the next ones. Never reads a table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Entry;
use super::table::Table;

/// Behind that much a scan begins with no further namespace.
const SCAN_TIME_MAX: Duration = Duration::from_secs(3);
/// The tables of one namespace are given up behind that much.
const NAMESPACE_TIME_MAX: Duration = Duration::from_secs(1);
/// The same for what is looked at between two scans, and for evidence.
const LOOK_TIME_MAX: Duration = Duration::from_millis(200);
/// Namespaces that are read in one scan.
const READS_MAX: usize = 1000;
/// Sockets that are kept for the next scan.
const KEPT_MAX: usize = 50_000;
/// A namespace that was never read has its turn as if it had been so many
/// scans ago: before most, but not before those that wait.
const NEW_SCANS: u64 = 2;

/// What is known of the namespaces of others, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<u64, Kept>);

#[derive(Debug)]
struct Kept {
    scan: u64,
    sockets: Vec<(u64, Entry)>,
}

/// A namespace that was met, when it was read, and what it has.
#[derive(Debug)]
struct Met {
    scan: u64,
    inodes: Vec<u64>,
}

/// The namespaces of others, in one scan.
#[derive(Debug)]
pub(super) struct Namespaces {
    known: Arc<Known>,
    scan: u64,
    left: Duration,
    each: Duration,
    reads_left: usize,
    /// What is known is as good as what would be read.
    is_content: bool,
    met: HashMap<u64, Met>,
    put_off: usize,
    is_cut: bool,
}

impl Namespaces {
    pub(super) fn for_scan(known: Arc<Known>, scan: u64) -> Self {
        Self {
            known,
            scan,
            left: SCAN_TIME_MAX,
            each: NAMESPACE_TIME_MAX,
            reads_left: READS_MAX,
            is_content: false,
            met: HashMap::new(),
            put_off: 0,
            is_cut: false,
        }
    }

    /// For what is looked at between two scans.
    pub(super) fn for_look(known: Arc<Known>) -> Self {
        Self {
            left: LOOK_TIME_MAX,
            each: LOOK_TIME_MAX,
            ..Self::for_scan(known, 0)
        }
    }

    /// For evidence about what a scan has just seen.
    pub(super) fn for_evidence(known: Arc<Known>) -> Self {
        Self {
            is_content: true,
            ..Self::for_look(known)
        }
    }

    /// Whether a namespace is to be read now.
    pub(super) fn is_due(&self, namespace: u64) -> bool {
        let is_known = self.known.0.contains_key(&namespace);
        self.reads_left > 0 && !self.left.is_zero() && !(self.is_content && is_known)
    }

    /// Until when a namespace may be read that is begun with now.
    pub(super) fn deadline(&self, began: Instant) -> Instant {
        began + self.each
    }

    /// Takes what was read of a namespace, in which time.
    pub(super) fn read(&mut self, namespace: u64, inodes: Vec<u64>, took: Duration) {
        self.left = self.left.saturating_sub(took);
        self.reads_left = self.reads_left.saturating_sub(1);
        self.is_cut |= took >= self.each;
        let scan = self.scan;
        self.met.insert(namespace, Met { scan, inodes });
    }

    /// Fills in what is known of a namespace that is not read now.
    pub(super) fn put_off(&mut self, namespace: u64, table: &mut Table) {
        self.put_off += 1;
        let kept = self.known.0.get(&namespace);
        for (inode, entry) in kept.iter().flat_map(|kept| &kept.sockets) {
            table.insert(*inode, entry.clone());
        }
        let sockets = kept.iter().flat_map(|kept| &kept.sockets);
        let met = Met {
            scan: kept.map_or(self.scan.saturating_sub(NEW_SCANS), |kept| kept.scan),
            inodes: sockets.map(|(inode, _)| *inode).collect(),
        };
        self.met.insert(namespace, met);
    }

    /// When the turn of a namespace is: smaller ones come first.
    pub(super) fn turn(&self, namespace: Option<u64>) -> u64 {
        let kept = namespace.and_then(|namespace| self.known.0.get(&namespace));
        kept.map_or(self.scan.saturating_sub(NEW_SCANS), |kept| kept.scan)
    }

    /// What the next scan is to know.
    pub(super) fn known(&self, table: &Table) -> Arc<Known> {
        let mut left = KEPT_MAX;
        let keep = |(namespace, met): (&u64, &Met)| {
            let entry = |inode: &u64| Some((*inode, table.get(*inode)?.clone()));
            let sockets: Vec<_> = met.inodes.iter().filter_map(entry).take(left).collect();
            left -= sockets.len();
            let scan = met.scan;
            (*namespace, Kept { scan, sockets })
        };
        Arc::new(Known(self.met.iter().map(keep).collect()))
    }

    /// What is wrong with them, in words.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.put_off > 0 {
            notes.push(format!(
                "there are more network namespaces than one scan has time for ({} left): the sockets of some are seen late",
                self.put_off
            ));
        }
        if self.is_cut {
            notes.push(
                "the sockets of a network namespace take too long to read: some are not seen"
                    .to_owned(),
            );
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample::listener;

    const QUICK: Duration = Duration::from_millis(1);

    /// Scans that have time for three of ten namespaces, and which those were.
    fn scan(known: Arc<Known>, scan: u64) -> (Arc<Known>, Vec<u64>, usize) {
        let mut namespaces = Namespaces::for_scan(known, scan);
        namespaces.reads_left = 3;
        let mut table = Table::default();
        let mut order: Vec<u64> = (1..=10).collect();
        order.sort_by_key(|namespace| namespaces.turn(Some(*namespace)));
        let mut read = Vec::new();
        for namespace in order {
            if namespaces.is_due(namespace) {
                let socket = listener("0.0.0.0:1");
                table.insert(namespace * 100, Entry { socket, uid: 1001 });
                namespaces.read(namespace, vec![namespace * 100], QUICK);
                read.push(namespace);
            } else {
                namespaces.put_off(namespace, &mut table);
            }
        }
        assert_eq!(namespaces.notes().len(), 1);
        (namespaces.known(&table), read, table.iter().count())
    }

    #[test]
    fn every_namespace_has_its_turn_and_stays_seen_until_the_next_one() {
        let mut known = Arc::default();
        let (mut met, mut sockets) = (Vec::new(), 0);
        for number in 10..14 {
            let (next, read, count) = scan(known, number);
            (known, sockets) = (next, count);
            met.extend(read);
        }
        met.sort_unstable();
        met.dedup();
        assert_eq!((met.len(), sockets), (10, 10));
    }

    #[test]
    fn a_namespace_that_takes_long_is_said_and_leaves_none_for_others() {
        let mut namespaces = Namespaces::for_scan(Arc::default(), 1);
        namespaces.read(1, Vec::new(), NAMESPACE_TIME_MAX);
        assert!(namespaces.is_due(2));
        assert_eq!(namespaces.notes().len(), 1);
        namespaces.read(2, Vec::new(), SCAN_TIME_MAX);
        assert!(!namespaces.is_due(3));
    }

    #[test]
    fn evidence_takes_what_the_scan_has_read() {
        let (known, read, _) = scan(Arc::default(), 1);
        let namespaces = Namespaces::for_evidence(known);
        assert!(!namespaces.is_due(*read.first().unwrap()));
        assert!(namespaces.is_due(4711));
    }
}

use std::sync::mpsc::{Sender, channel};

use procwarden_common::id::BootId;

use super::*;

const ALICE: Side = Side::Account(1000);
const BOB: Side = Side::Account(1001);

/// What is answered is answered before that on any machine.
const LONG: Duration = Duration::from_secs(120);

fn key(pid: u32) -> ProcessKey {
    ProcessKey {
        boot_id: BootId::from_slice(&[7; 16]).unwrap(),
        pid,
        start_time: 1,
    }
}

fn patient() -> Patience {
    Patience {
        wait: LONG,
        content_wait: LONG,
        ..Patience::default()
    }
}

/// Asks for what never comes while the sender lives.
fn hang(patience: &mut Patience, pid: u32, side: Side) -> Sender<()> {
    let (end, ended) = channel::<()>();
    let job = move || ended.recv().is_ok();
    patience.set_wait(Duration::from_millis(10));
    assert_eq!(patience.ask(key(pid), What::Memory, || side, job), None);
    patience.set_wait(LONG);
    end
}

fn answers(patience: &Patience, pid: u32, what: What, side: Side) -> bool {
    patience.ask(key(pid), what, || side, || true) == Some(true)
}

#[test]
fn who_hangs_is_not_asked_again_and_holds_up_nobody_else() {
    let mut patience = patient();
    assert!(answers(&patience, 1, What::Memory, ALICE) && patience.note().is_none());
    let _end = hang(&mut patience, 1, ALICE);
    assert!(!answers(&patience, 1, What::Memory, ALICE));
    assert!(answers(&patience, 1, What::File, ALICE));
    assert!(answers(&patience, 2, What::Memory, ALICE));
    assert!(patience.note().unwrap().contains("(1 of uid 1000)"));
}

#[test]
fn after_some_hangs_the_whole_account_is_not_asked() {
    let mut patience = patient();
    let _ends: Vec<_> = (0..3).map(|pid| hang(&mut patience, pid, ALICE)).collect();
    assert!(!answers(&patience, 9, What::Memory, ALICE));
    assert!(answers(&patience, 9, What::Memory, BOB));
    assert!(answers(&patience, 9, What::Memory, Side::Namespaces));
}

#[test]
fn threads_that_hang_are_limited_and_end_when_they_are_let_go() {
    let mut patience = patient();
    let many = u32::try_from(THREADS_MAX).unwrap();
    let ends: Vec<_> = (1..=many)
        .map(|pid| hang(&mut patience, pid, Side::Account(pid)))
        .collect();
    assert!(!answers(&patience, 99, What::Memory, ALICE));
    assert!(answers(&patience, 99, What::Memory, Side::Account(0)));
    drop(ends);
    while patience.lock().hangs.iter().any(Hang::is_on) {
        std::thread::yield_now();
    }
    assert!(answers(&patience, 99, What::Memory, ALICE));
    assert!(!answers(&patience, 1, What::Memory, ALICE));
    patience.lock().forget(Instant::now() + HANG_KEPT);
    assert!(answers(&patience, 1, What::Memory, ALICE) && patience.note().is_none());
}

#[test]
fn a_process_that_hangs_longer_than_a_hang_is_kept_is_not_asked_either() {
    let mut patience = patient();
    let _end = hang(&mut patience, 1, ALICE);
    patience.lock().forget(Instant::now() + HANG_KEPT * 2);
    assert!(!answers(&patience, 1, What::Memory, ALICE));
}

#[test]
fn the_time_of_a_reader_counts_for_who_asked() {
    let patience = patient();
    let work = || {
        let until = thread_cpu_micros() + 3000;
        while thread_cpu_micros() < until {}
    };
    let before = thread_cpu_micros();
    assert!(
        patience
            .ask(key(1), What::Content, || ALICE, work)
            .is_some()
    );
    assert!(thread_cpu_micros() - before >= 3000);
}

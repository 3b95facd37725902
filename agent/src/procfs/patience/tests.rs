use std::sync::mpsc::{Sender, channel};

use procwarden_common::id::BootId;

use super::hangs::THREADS_MAX;
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

/// One of somebody's, or with a uid of its own in a user namespace.
fn owner(pid: u32, side: Side) -> Owner {
    let uid = match side {
        Side::Account(uid) => uid,
        Side::Namespaces => 100_000 + pid,
    };
    Owner { key: key(pid), uid }
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
    hang_and_become(patience, owner(pid, side), side)
}

/// The same of a process that has another side when the hang is noticed.
fn hang_and_become(patience: &mut Patience, owner: Owner, side: Side) -> Sender<()> {
    loop {
        let (end, ended) = channel::<()>();
        let (say, begun) = channel();
        let job = move || say.send(()).is_ok() && ended.recv().is_ok();
        patience.set_wait(Duration::from_millis(10));
        assert_eq!(patience.ask(owner, What::Memory, || side, job), None);
        patience.set_wait(LONG);
        if begun.try_recv().is_ok() {
            return end;
        }
        // On a busy machine a thread may begin later, and then has nothing to
        // do: that is no hang.
        patience.lock().hangs.drop_last();
    }
}

fn answers(patience: &Patience, pid: u32, what: What, side: Side) -> bool {
    patience.ask(owner(pid, side), what, || side, || true) == Some(true)
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
    while patience.lock().hangs.threads() > 0 {
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
            .ask(owner(1, ALICE), What::Content, || ALICE, work)
            .is_some()
    );
    assert!(thread_cpu_micros() - before >= 3000);
}

/// Asks about some PIDs of ALICE at once. The job is given the PID, and gives
/// it back.
fn ask_some(
    patience: &Patience,
    pids: &[u32],
    job: impl FnMut(u32) -> u32 + Send + 'static,
) -> Vec<Answer<u32>> {
    let questions = pids.iter().map(|pid| (owner(*pid, ALICE), *pid)).collect();
    patience.ask_each(questions, What::Memory, |_| ALICE, job)
}

#[test]
fn a_hang_amid_others_takes_no_answer_but_its_own() {
    use Answer::{Given, Late, Withheld};
    let mut patience = patient();
    patience.set_wait(Duration::from_secs(2));
    let (end, ended) = channel::<()>();
    let (say, said) = channel();
    let answers = ask_some(&patience, &[1, 2, 3, 4, 5], move |pid| {
        say.send(pid).unwrap();
        if pid == 3 {
            ended.recv().unwrap_or_default();
        }
        pid
    });
    assert_eq!(answers, [Given(1), Given(2), Withheld, Late, Late]);
    // The next ones are answered on another thread while it hangs.
    patience.set_wait(LONG);
    let answers = ask_some(&patience, &[3, 4, 5], |pid| pid);
    assert_eq!(answers, [Withheld, Given(4), Given(5)]);
    assert!(patience.note().unwrap().contains("(3 of uid 1000)"));
    // Should it come back, it begins with none of those that were left.
    drop(end);
    assert_eq!(said.iter().collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn what_is_behind_slow_answers_is_late() {
    let answers = ask_some(&patient(), &[1, 2, 3, 4, 5, 6], |pid| {
        std::thread::sleep(Duration::from_millis(300));
        pid
    });
    let given = answers.iter().filter(|a| matches!(a, Answer::Given(_)));
    assert!((1..=4).contains(&given.count()), "{answers:?}");
    assert_eq!(answers.first(), Some(&Answer::Given(1)));
    assert_eq!(answers.last(), Some(&Answer::Late));
}

#[test]
fn who_is_waited_for_too_long_is_not_asked_and_is_named() {
    let patience = patient();
    let wait = |side, secs| {
        let (took, now) = (Duration::from_secs(secs), Instant::now());
        (patience.lock().waited).add_slow(side, What::Memory, took, now);
    };
    wait(ALICE, 29);
    assert!(answers(&patience, 1, What::Memory, ALICE) && patience.note().is_none());
    wait(ALICE, 1);
    assert!(!answers(&patience, 1, What::Memory, ALICE));
    assert!(answers(&patience, 1, What::File, ALICE));
    assert!(answers(&patience, 2, What::Memory, BOB));
    assert!(patience.note().unwrap().contains("(all of uid 1000, "));
    assert!(patience.hung().is_empty());
}

#[test]
fn the_time_that_hangs_were_waited_for_counts() {
    let mut patience = patient();
    let _end = hang(&mut patience, 1, ALICE);
    let (mut inner, now) = (patience.lock(), Instant::now());
    let rest = Duration::from_secs(60) - Duration::from_millis(10);
    assert!(!inner.waited.shuns(ALICE, What::Memory));
    inner.waited.add_hang(ALICE, What::Memory, rest, now);
    assert!(inner.waited.shuns(ALICE, What::Memory));
}

#[test]
fn who_answers_slowly_is_charged_for_it() {
    let patience = patient();
    let slowly = |pid| {
        std::thread::sleep(Duration::from_millis(120));
        pid
    };
    assert_eq!(ask_some(&patience, &[1, 2], slowly).len(), 2);
    // 240 ms and more were counted.
    let (mut inner, now) = (patience.lock(), Instant::now());
    let rest = Duration::from_secs(30) - Duration::from_millis(240);
    inner.waited.add_slow(ALICE, What::Memory, rest, now);
    assert!(inner.waited.shuns(ALICE, What::Memory));
}

#[test]
fn hangs_of_one_account_that_come_together_are_limited_as_well() {
    let mut patience = patient();
    patience.set_wait(Duration::from_millis(100));
    let (_end, ended) = channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    let mut left: Vec<u32> = (1..=20).collect();
    let mut rounds = 0;
    while !left.is_empty() {
        rounds += 1;
        let ended = Arc::clone(&ended);
        let answers = ask_some(&patience, &left, move |pid| {
            ended.lock().unwrap().recv().unwrap_or_default();
            pid
        });
        let late = |answer: &Answer<u32>| *answer == Answer::Late;
        let answers = left.iter().zip(&answers);
        left = answers.filter(|(_, a)| late(a)).map(|(p, _)| *p).collect();
    }
    // Behind the last hang they are asked once more, and nobody is.
    assert_eq!(rounds, HANGS_MAX + 1);
    assert_eq!(patience.lock().hangs.len(), HANGS_MAX);
}

#[test]
fn a_job_that_breaks_takes_only_its_own_answer() {
    let patience = patient();
    let answers = ask_some(&patience, &[1, 2, 3], |pid| {
        assert_ne!(pid, 2, "this one breaks on purpose");
        pid
    });
    assert_eq!(answers, [Answer::Given(1), Answer::Withheld, Answer::Late]);
    assert!(answers_all(&patience) && patience.note().is_none());
}

fn answers_all(patience: &Patience) -> bool {
    (1..4).all(|pid| answers(patience, pid, What::Memory, ALICE))
}

#[test]
fn an_account_answers_for_what_its_processes_did_whatever_they_became() {
    for became in [Side::Account(0), Side::Namespaces] {
        let mut patience = patient();
        let hang = |pid| hang_and_become(&mut patience, owner(pid, ALICE), became);
        let _ends: Vec<_> = (1..=3).map(hang).collect();
        assert!(!answers(&patience, 9, What::Memory, ALICE), "{became:?}");
        assert!(answers(&patience, 9, What::Memory, Side::Account(0)));
        assert!(answers(&patience, 9, What::Memory, BOB));
    }
}

#[test]
fn many_answers_that_are_a_little_slow_are_charged_where_they_end_a_stretch() {
    let charged = |pids: &[u32]| {
        let patience = patient();
        let a_little_slow = |pid| {
            std::thread::sleep(Duration::from_millis(60));
            pid
        };
        ask_some(&patience, pids, a_little_slow);
        let (mut inner, now) = (patience.lock(), Instant::now());
        let rest = Duration::from_millis(29_100);
        inner.waited.add_slow(ALICE, What::Memory, rest, now);
        inner.waited.shuns(ALICE, What::Memory)
    };
    let many: Vec<u32> = (1..=40).collect();
    assert!(charged(&many));
    assert!(!charged(&[1]));
}

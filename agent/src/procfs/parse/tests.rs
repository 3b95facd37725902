//! Captured bytes, hostile variants of them, and any bytes at all.

use proptest::prelude::*;

use super::*;

const TAIL: &[u8] = b" S 1 4242 4242 34816 4242 4194560 95 0 0 0 0 0 0 0 20 0 1 0 4711 \
    2301952 220 18446744073709551615 94001 94002 140001 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 \
    94003 94004 94005 140002 140003 140004 140005 0\n";

fn stat_of(comm: &[u8]) -> Vec<u8> {
    [b"4242 (", comm, b")", TAIL].concat()
}

#[test]
fn a_name_may_hold_anything() {
    for comm in [
        &b"sleep"[..],
        b"",
        b") R 1 1",
        b"a\nb",
        b"((",
        b" ) ",
        b"\xff\xfe",
        b"x) S 1 (",
    ] {
        let stat = stat(&stat_of(comm)).unwrap();
        assert_eq!(stat.comm, comm);
        assert_eq!(
            (stat.state, stat.ppid, stat.pgrp, stat.session),
            (b'S', 1, 4242, 4242)
        );
        assert_eq!(
            (stat.tty_nr, stat.threads, stat.start_time),
            (34816, 1, 4711)
        );
        assert_eq!((stat.vsz_bytes, stat.rss_pages), (2_301_952, 220));
        let layout = [94001, 140001, 140002, 140003, 140004, 140005];
        assert_eq!(stat.layout, layout);
        assert!(!stat.is_kernel_thread() && !stat.is_ending());
    }
}

#[test]
fn kernel_threads_are_known_by_their_flag() {
    let bytes = b"17 (kworker/0:1-events) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 29 0 0 1";
    let stat = stat(bytes).unwrap();
    assert!(stat.is_kernel_thread());
    assert_eq!((stat.ppid, stat.start_time), (2, 29));
}

#[test]
fn a_zombie_and_an_exiting_process_are_ending() {
    let zombie = b"9 (x) Z 1 9 9 0 -1 4227084 0 0 0 0 0 0 0 0 20 0 1 0 29 0 0 1";
    let exiting = b"9 (x) R 1 9 9 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 1 0 29 0 0 1";
    assert!(stat(zombie).unwrap().is_ending());
    assert!(stat(exiting).unwrap().is_ending());
}

#[test]
fn broken_stat_is_refused() {
    for bytes in [
        &b""[..],
        b"1",
        b"1 (x",
        b"1 )x( S",
        b"1 (x) S 1",
        b"1 (x) SS 1 1 1 1 1 1 1",
    ] {
        assert_eq!(stat(bytes), None);
    }
}

#[test]
fn status_gives_the_effective_uid() {
    let bytes =
        b"Name:\tx\\nUid:\t0\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t1000\t1001\t1002\t1003\n\
        Gid:\t1\t1\t1\t1\nVmPeak:\t  2300 kB\nVmSize:\t  2248 kB\nVmRSS:\t   880 kB\nThreads:\t1\n";
    let expected = Status {
        uid: 1001,
        is_root_s: false,
        vsz_bytes: 2248 * 1024,
        rss_bytes: 880 * 1024,
    };
    assert_eq!(status(bytes), Some(expected));
}

#[test]
fn root_s_is_whoever_has_root_in_any_uid() {
    for (uids, is_root_s) in [
        ("0\t65533\t0\t65533", true),
        ("65533\t65533\t0\t65533", true),
        ("1000\t0\t0\t0", true),
        ("1000\t1000\t1000\t0", true),
        ("0\t1000", true),
        ("1000\t1000\t1000\t1000", false),
        ("10\t100\t20\t30", false),
    ] {
        let seen = status(format!("Name:\tx\nUid:\t{uids}\n").as_bytes());
        assert_eq!(
            seen.map(|status| status.is_root_s),
            Some(is_root_s),
            "{uids}"
        );
    }
}

#[test]
fn status_without_memory_is_a_kernel_thread_or_a_zombie() {
    let expected = Status {
        uid: 0,
        is_root_s: true,
        vsz_bytes: 0,
        rss_bytes: 0,
    };
    assert_eq!(
        status(b"Name:\t\xff\xfe\nUid:\t0\t0\t0\t0\n"),
        Some(expected)
    );
    assert_eq!(status(b"Name:\tx\n"), None);
}

#[test]
fn namespaces_are_as_many_as_count_the_process() {
    assert_eq!(
        namespaces(b"Name:\tx\nNSpid:\t4711\nNSpgid:\t1\t2\n"),
        Some(1)
    );
    assert_eq!(namespaces(b"NSpid:\t4711\t23\t1\n"), Some(3));
    assert_eq!(namespaces(b"Name:\tx\nTgid:\t4711\n"), None);
}

#[test]
fn terminals_have_their_usual_names() {
    let table = [
        (0, ""),
        (0x8803, "pts/3"),
        (0x0401, "tty1"),
        (0x0440, "ttyS0"),
        (0x8900, "pts/256"),
    ];
    for (nr, name) in table {
        assert_eq!(tty_name(nr), name, "{nr:#x}");
    }
    assert_eq!(tty_name(0x0501), "console");
    assert_eq!(tty_name(-1), "4095:1048575");
}

#[test]
fn the_unified_cgroup_wins_unless_it_is_empty() {
    let table: [(&[u8], &[u8]); 5] = [
        (b"0::/user.slice/x\n", b"/user.slice/x"),
        (b"12:cpu:/old\n0::/new\n", b"/new"),
        (
            b"12:cpu:/\n1:name=systemd:/system.slice/a:b\n0::/\n",
            b"/system.slice/a:b",
        ),
        (b"0::/\n", b"/"),
        (b"\xff\n", b""),
    ];
    for (bytes, path) in table {
        assert_eq!(cgroup(bytes), path);
    }
}

#[test]
fn small_files_parse() {
    assert_eq!(loginuid(b"4294967295"), None);
    assert_eq!(loginuid(b"1000\n"), Some(1000));
    assert_eq!(bracketed_inode(b"socket:[4711]", b"socket"), Some(4711));
    assert_eq!(bracketed_inode(b"/tmp/socket:[1]", b"socket"), None);
    assert_eq!(uptime_millis(b"35.47 60.11\n"), Some(35_470));
    assert_eq!(uptime_millis(b"x"), None);
}

#[test]
fn numbers_are_digits_that_fit_into_their_type() {
    assert_eq!(number::<u64>(b"18446744073709551615"), Some(u64::MAX));
    assert_eq!(number::<u64>(b"18446744073709551616"), None);
    assert_eq!(number::<u32>(b"4294967296"), None);
    assert_eq!(number::<i32>(b"-2147483648"), Some(i32::MIN));
    assert_eq!(number::<u64>(b"-1"), None);
    for word in [&b""[..], b"-", b"+1", b"--1", b"1x", b"\xff", b"0x1"] {
        assert_eq!(number::<i32>(word), None);
    }
}

proptest! {
    #[test]
    fn words_are_what_lies_between_blanks(line in "[ \t\n\r\u{c}a-c]{0,40}") {
        let expected: Vec<&[u8]> = line.split_ascii_whitespace().map(str::as_bytes).collect();
        let found: Vec<&[u8]> = words(line.as_bytes()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), nr: i32) {
        let _ = (stat(&bytes), status(&bytes), cgroup(&bytes), loginuid(&bytes));
        let _ = (bracketed_inode(&bytes, b"net"), uptime_millis(&bytes), tty_name(nr));
    }

    #[test]
    fn any_name_is_kept_and_the_fields_behind_it_too(comm in proptest::collection::vec(any::<u8>(), 0..64)) {
        let stat = stat(&stat_of(&comm)).unwrap();
        prop_assert_eq!(stat.comm, comm);
        prop_assert_eq!(stat.start_time, 4711);
    }
}

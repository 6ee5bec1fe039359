//! Each rule of the cursor by itself.

use super::{Change, Cursor, HELD, Item, Missed, Outlet, Read, Step, Transient};

/// Takes `room` items and writes them down.
struct Wire {
    room: usize,
    said: Vec<String>,
}

impl Outlet<u64> for Wire {
    fn emit(&mut self, item: Item<'_, u64>) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.said.push(match item {
            Item::Change(event) => format!("change {event}"),
            Item::Count { unread, seq } => format!("count {unread} at {seq}"),
            Item::Refresh { reason, seq } => format!("{reason:?} at {seq}"),
            Item::Synced { seq, replayed } => format!("synced at {seq}, {replayed} replayed"),
        });
        true
    }
}

impl Wire {
    fn with_room(room: usize) -> Self {
        Self {
            room,
            said: Vec::new(),
        }
    }

    fn wide() -> Self {
        Self::with_room(usize::MAX)
    }

    /// What was said since the last time.
    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }
}

/// The change `seq`, after which ten times as many are unread.
fn change(seq: u64) -> Change<u64> {
    Change {
        seq,
        unread: seq * 10,
        event: seq,
    }
}

fn missed(changes: impl IntoIterator<Item = u64>, head: u64) -> Missed<u64> {
    let changes = changes.into_iter().map(|seq| (seq, seq)).collect();
    Missed {
        head,
        floor: 0,
        unread: head * 10,
        changes,
        too_many: false,
    }
}

fn read_of(step: Step) -> Read {
    match step {
        Step::Read(read) => read,
        Step::Nothing | Step::Subscribe | Step::Hold | Step::Stalled => {
            panic!("not a read: {step:?}")
        }
    }
}

/// A cursor of a client that resumes from `resume`, and its first read.
fn reading(resume: Option<u64>) -> (Cursor<u64>, Read) {
    let (mut cursor, _) = Cursor::new(resume, false);
    let read = read_of(cursor.subscribed());
    (cursor, read)
}

/// A cursor that is live at `head`.
fn live(head: u64) -> Cursor<u64> {
    let (mut cursor, read) = reading(Some(head));
    assert_eq!(
        cursor.caught_up(read, &missed([], head), &mut Wire::wide()),
        Step::Nothing
    );
    assert!(cursor.is_live());
    cursor
}

/// What a client is told first, that resumes from `resume` and finds `missed`.
fn greeting(resume: Option<u64>, missed: &Missed<u64>) -> Vec<String> {
    let (mut cursor, read) = reading(resume);
    let mut wire = Wire::wide();
    assert_eq!(cursor.caught_up(read, missed, &mut wire), Step::Nothing);
    assert_eq!(cursor.seq(), Some(missed.head));
    wire.said()
}

#[test]
fn nothing_is_read_before_the_subscription_is_confirmed() {
    let (mut cursor, step) = Cursor::<u64>::new(Some(5), false);
    assert_eq!(step, Step::Subscribe);
    assert_eq!(cursor.check(9), Step::Nothing);
    assert_eq!(cursor.epoch_changed(), Step::Nothing);
    assert_eq!(
        cursor.change(change(6), &mut Wire::with_room(0)),
        Step::Nothing
    );
    read_of(cursor.subscribed());
    assert_eq!(
        cursor.subscribed(),
        Step::Nothing,
        "only the first confirmation is news"
    );
}

#[test]
fn a_new_client_is_told_to_fetch_the_list() {
    assert_eq!(reading(None).1.since, None);
    assert_eq!(
        greeting(None, &missed([], 7)),
        ["count 70 at 7", "Connect at 7", "synced at 7, 0 replayed"]
    );
}

#[test]
fn a_new_client_among_many_is_told_to_fetch_the_list_later() {
    let (mut cursor, _) = Cursor::new(None, false);
    cursor.spread();
    let read = read_of(cursor.subscribed());
    assert_eq!(read.since, None);
    let mut wire = Wire::wide();
    assert_eq!(
        cursor.caught_up(read, &missed([], 7), &mut wire),
        Step::Nothing
    );
    assert_eq!(wire.said(), ["count 70 at 7", "synced at 7, 0 replayed"]);
    assert_eq!(cursor.transient(), Transient::Emit);

    // Live meanwhile, and a gap is filled as for anybody.
    assert_eq!(cursor.change(change(8), &mut wire), Step::Nothing);
    assert_eq!(read_of(cursor.check(9)).since, Some(8));
    assert_eq!(cursor.connect_due(&mut wire), Step::Nothing);
    wire.said();
    let (mut cursor, _) = Cursor::<u64>::new(None, false);
    cursor.spread();
    let read = read_of(cursor.subscribed());
    cursor_at(&mut cursor, read, 7, &mut wire);
    assert_eq!(cursor.connect_due(&mut wire), Step::Nothing);
    assert_eq!(wire.said(), ["Connect at 7"]);
    assert_eq!(cursor.connect_due(&mut wire), Step::Nothing);
    assert_eq!(wire.said(), Vec::<String>::new());
}

#[test]
fn a_client_that_resumes_is_not_told_later_to_fetch_the_list() {
    let (mut cursor, _) = Cursor::<u64>::new(Some(7), false);
    cursor.spread();
    let read = read_of(cursor.subscribed());
    assert_eq!(read.since, Some(7));
    let mut wire = Wire::wide();
    cursor_at(&mut cursor, read, 7, &mut wire);
    assert_eq!(cursor.connect_due(&mut wire), Step::Nothing);
    assert_eq!(wire.said(), Vec::<String>::new());
}

#[test]
fn a_client_that_is_to_fetch_the_list_later_is_not_told_of_a_gap_instead() {
    let (mut cursor, _) = Cursor::new(None, false);
    cursor.spread();
    let read = read_of(cursor.subscribed());
    let mut wire = Wire::wide();
    cursor_at(&mut cursor, read, 7, &mut wire);
    let read = read_of(cursor.check(900));
    let gap = Missed {
        too_many: true,
        ..missed([], 900)
    };
    let step = cursor.caught_up(read, &gap, &mut Wire::with_room(0));
    assert_eq!(step, Step::Stalled);
    assert_eq!(cursor.connect_due(&mut wire), Step::Nothing);
    let read = read_of(cursor.drained());
    assert_eq!(read.since, None);
    let step = cursor.caught_up(read, &missed([], 900), &mut wire);
    assert_eq!(step, Step::Nothing);
    assert_eq!(wire.said(), ["count 9000 at 900", "Connect at 900"]);
}

#[test]
fn a_client_that_was_told_of_a_reset_misses_nothing_though_it_was_to_fetch_the_list_later() {
    let (mut cursor, _) = Cursor::<u64>::new(None, false);
    cursor.spread();
    let _overtaken = read_of(cursor.subscribed());
    let read = read_of(cursor.epoch_changed());
    let mut wire = Wire::with_room(1);
    let step = cursor.caught_up(read, &missed([], 7), &mut wire);
    assert_eq!(
        (step, wire.said()),
        (Step::Stalled, vec!["Reset at 7".to_owned()])
    );

    // It has the list by now, and an eighth change is committed.
    let read = read_of(cursor.drained());
    assert_eq!(read.since, Some(7));
    let mut wire = Wire::wide();
    let step = cursor.caught_up(read, &missed([8], 8), &mut wire);
    assert_eq!(step, Step::Nothing);
    let said = ["change 8", "count 80 at 8", "synced at 8, 1 replayed"];
    assert_eq!(wire.said(), said);
    assert_eq!(cursor.connect_due(&mut wire), Step::Nothing);
    assert_eq!(wire.said(), Vec::<String>::new());
}

/// Answers the first read of a cursor, and forgets what was said.
fn cursor_at(cursor: &mut Cursor<u64>, read: Read, head: u64, wire: &mut Wire) {
    assert_eq!(
        cursor.caught_up(read, &missed([], head), wire),
        Step::Nothing
    );
    wire.said();
}

#[test]
fn a_returning_client_is_told_what_it_missed() {
    assert_eq!(reading(Some(5)).1.since, Some(5));
    let said = greeting(Some(5), &missed([6, 8], 9));
    assert_eq!(
        said,
        [
            "change 6",
            "change 8",
            "count 90 at 9",
            "synced at 9, 2 replayed"
        ]
    );
}

#[test]
fn a_returning_client_that_missed_nothing_gets_its_count() {
    assert_eq!(
        greeting(Some(5), &missed([], 5)),
        ["count 50 at 5", "synced at 5, 0 replayed"]
    );
}

#[test]
fn zero_resumes_from_the_beginning() {
    assert_eq!(reading(Some(0)).1.since, Some(0));
    assert_eq!(
        greeting(Some(0), &missed([1], 1)),
        ["change 1", "count 10 at 1", "synced at 1, 1 replayed"]
    );
}

#[test]
fn a_client_ahead_of_the_history_is_reset() {
    assert_eq!(
        greeting(Some(9), &missed([], 4)),
        ["Reset at 4", "count 40 at 4", "synced at 4, 0 replayed"]
    );
}

#[test]
fn a_client_of_another_epoch_is_reset_whatever_it_missed() {
    for resume in [None, Some(3)] {
        let (mut cursor, _) = Cursor::new(resume, true);
        let read = read_of(cursor.subscribed());
        let mut wire = Wire::wide();
        assert_eq!(read.since, None);
        assert_eq!(
            cursor.caught_up(read, &missed([], 4), &mut wire),
            Step::Nothing
        );
        assert_eq!(
            wire.said(),
            ["Reset at 4", "count 40 at 4", "synced at 4, 0 replayed"]
        );
    }
}

#[test]
fn what_is_no_longer_known_or_too_much_is_a_gap() {
    let gap = ["Gap at 9", "count 90 at 9", "synced at 9, 0 replayed"];
    assert_eq!(
        greeting(
            Some(2),
            &Missed {
                floor: 3,
                ..missed([5], 9)
            }
        ),
        gap
    );
    assert_eq!(
        greeting(
            Some(2),
            &Missed {
                too_many: true,
                ..missed([], 9)
            }
        ),
        gap
    );
    assert_eq!(
        greeting(
            Some(3),
            &Missed {
                floor: 3,
                ..missed([], 3)
            }
        )
        .len(),
        2,
        "the floor itself will do"
    );
}

#[test]
fn a_client_that_has_to_fetch_the_list_anyway_is_not_told_of_a_gap() {
    let answer = Missed {
        floor: 3,
        ..missed([], 9)
    };
    assert_eq!(greeting(None, &answer)[1], "Connect at 9");

    let (mut cursor, _) = Cursor::new(Some(2), true);
    let read = read_of(cursor.subscribed());
    let mut wire = Wire::wide();
    assert_eq!(cursor.caught_up(read, &answer, &mut wire), Step::Nothing);
    assert_eq!(wire.said()[0], "Reset at 9");
}

#[test]
fn the_next_change_goes_out_with_its_count() {
    let mut cursor = live(5);
    let mut wire = Wire::wide();
    assert_eq!(cursor.change(change(6), &mut wire), Step::Nothing);
    assert_eq!(wire.said(), ["change 6", "count 60 at 6"]);
    assert_eq!(cursor.seq(), Some(6));
}

#[test]
fn a_repeat_is_dropped() {
    let mut cursor = live(5);
    let mut wire = Wire::wide();
    for seq in [5, 1, 5] {
        assert_eq!(cursor.change(change(seq), &mut wire), Step::Nothing);
    }
    assert!(wire.said().is_empty());
}

#[test]
fn a_change_that_came_early_waits_for_the_one_before_it() {
    let mut cursor = live(5);
    let mut wire = Wire::wide();
    assert_eq!(cursor.change(change(8), &mut wire), Step::Hold);
    assert_eq!(
        cursor.change(change(7), &mut wire),
        Step::Nothing,
        "one timer will do"
    );
    assert_eq!(cursor.change(change(8), &mut wire), Step::Nothing);
    assert!(wire.said().is_empty());

    assert_eq!(cursor.change(change(6), &mut wire), Step::Nothing);
    let in_order = [
        "change 6",
        "count 60 at 6",
        "change 7",
        "count 70 at 7",
        "change 8",
        "count 80 at 8",
    ];
    assert_eq!(wire.said(), in_order);
    assert_eq!(
        cursor.hold_expired(),
        Step::Nothing,
        "the gap closed by itself"
    );
}

#[test]
fn a_gap_that_stays_is_read() {
    let mut cursor = live(5);
    let mut wire = Wire::wide();
    assert_eq!(cursor.change(change(7), &mut wire), Step::Hold);
    let read = read_of(cursor.hold_expired());
    assert_eq!(read.since, Some(5));
    assert_eq!(
        cursor.change(change(8), &mut wire),
        Step::Nothing,
        "held while the read is under way"
    );

    assert_eq!(
        cursor.caught_up(read, &missed([6, 7], 7), &mut wire),
        Step::Nothing
    );
    assert_eq!(
        wire.said(),
        [
            "change 6",
            "change 7",
            "count 70 at 7",
            "change 8",
            "count 80 at 8"
        ]
    );
}

#[test]
fn a_gap_behind_the_answer_gets_its_own_time() {
    let mut cursor = live(5);
    let read = read_of(cursor.check(6));
    assert_eq!(cursor.change(change(8), &mut Wire::wide()), Step::Nothing);
    assert_eq!(
        cursor.caught_up(read, &missed([6], 6), &mut Wire::wide()),
        Step::Hold
    );
}

#[test]
fn more_than_can_be_held_is_read() {
    let mut cursor = live(0);
    let held = (2..).take(HELD);
    let steps: Vec<Step> = held
        .map(|seq| cursor.change(change(seq), &mut Wire::wide()))
        .collect();
    assert_eq!(steps, [Step::Hold, Step::Nothing]);
    let read = read_of(cursor.change(change(9), &mut Wire::wide()));
    assert_eq!(read.since, Some(0));

    for seq in 4..=6 {
        assert_eq!(cursor.change(change(seq), &mut Wire::wide()), Step::Nothing);
    }
    let mut wire = Wire::wide();
    let step = cursor.caught_up(read, &missed([3], 3), &mut wire);
    assert_eq!(
        read_of(step).since,
        Some(5),
        "4 and 5 were held, 6 was dropped"
    );
}

#[test]
fn a_repair_that_finds_nothing_says_nothing() {
    let mut cursor = live(5);
    let mut wire = Wire::wide();
    let read = read_of(cursor.check(4));
    assert_eq!(
        cursor.caught_up(read, &missed([], 5), &mut wire),
        Step::Nothing
    );
    assert!(
        wire.said().is_empty(),
        "the head that was checked was merely old"
    );
}

#[test]
fn a_repair_without_events_still_brings_the_count() {
    let mut cursor = live(5);
    let mut wire = Wire::wide();
    let read = read_of(cursor.check(6));
    assert_eq!(
        cursor.caught_up(read, &missed([], 6), &mut wire),
        Step::Nothing
    );
    assert_eq!(wire.said(), ["count 60 at 6"]);
    assert_eq!(cursor.check(6), Step::Nothing);
}

#[test]
fn a_repair_may_end_in_a_refresh() {
    let cases = [
        (
            Missed {
                too_many: true,
                ..missed([], 900)
            },
            "Gap at 900",
        ),
        (missed([], 3), "Reset at 3"),
    ];
    for (answer, refresh) in cases {
        let mut cursor = live(5);
        let mut wire = Wire::wide();
        let read = read_of(cursor.check(answer.head));
        assert_eq!(cursor.caught_up(read, &answer, &mut wire), Step::Nothing);
        assert_eq!(wire.said()[0], refresh);
        assert_eq!(cursor.seq(), Some(answer.head));
    }
}

#[test]
fn a_head_that_was_checked_during_a_read_is_not_forgotten() {
    let mut cursor = live(5);
    let read = read_of(cursor.check(6));
    assert_eq!(cursor.check(7), Step::Nothing);
    let step = cursor.caught_up(read, &missed([6], 6), &mut Wire::wide());
    assert_eq!(read_of(step).since, Some(6));
}

#[test]
fn only_the_answer_to_the_last_read_counts() {
    let mut cursor = live(5);
    let mut wire = Wire::wide();
    let first = read_of(cursor.check(6));
    let second = read_of(cursor.read_failed(first));
    assert_eq!(second.since, first.since);
    assert_eq!(cursor.read_failed(first), Step::Nothing);
    assert_eq!(
        cursor.caught_up(first, &missed([], 1), &mut wire),
        Step::Nothing
    );
    assert!(wire.said().is_empty());

    assert_eq!(
        cursor.caught_up(second, &missed([6], 6), &mut wire),
        Step::Nothing
    );
    assert_eq!(wire.said(), ["change 6", "count 60 at 6"]);
    assert_eq!(
        cursor.caught_up(second, &missed([6], 6), &mut wire),
        Step::Nothing
    );
    assert!(wire.said().is_empty());
}

#[test]
fn a_stalled_socket_resumes_where_it_stopped() {
    let mut cursor = live(5);
    assert_eq!(
        cursor.change(change(6), &mut Wire::with_room(0)),
        Step::Stalled
    );
    assert_eq!(
        cursor.change(change(7), &mut Wire::wide()),
        Step::Nothing,
        "ignored, and room or not"
    );
    assert_eq!(cursor.check(7), Step::Nothing);
    assert_eq!(read_of(cursor.drained()).since, Some(5));
    assert_eq!(cursor.drained(), Step::Nothing);
}

#[test]
fn a_count_without_room_is_owed_and_its_change_is_not_repeated() {
    let mut cursor = live(5);
    assert_eq!(
        cursor.change(change(6), &mut Wire::with_room(1)),
        Step::Stalled
    );
    let read = read_of(cursor.drained());
    assert_eq!(read.since, Some(6));
    let mut wire = Wire::wide();
    assert_eq!(
        cursor.caught_up(read, &missed([], 6), &mut wire),
        Step::Nothing
    );
    assert_eq!(wire.said(), ["count 60 at 6"]);
}

/// What a socket with room for one item is told until it is live, when each answer is as `answer` says.
fn told_one_by_one(resume: Option<u64>, answer: impl Fn(Read) -> Missed<u64>) -> Vec<String> {
    let (mut cursor, mut read) = reading(resume);
    let mut said = Vec::new();
    loop {
        let mut wire = Wire::with_room(1);
        let step = cursor.caught_up(read, &answer(read), &mut wire);
        said.extend(wire.said());
        if step == Step::Nothing {
            return said;
        }
        assert_eq!(step, Step::Stalled);
        assert_eq!(cursor.transient(), Transient::DropStalled);
        read = read_of(cursor.drained());
    }
}

#[test]
fn a_greeting_that_stalls_at_each_item_says_each_once() {
    let two = told_one_by_one(Some(5), |read| missed(read.since.unwrap() + 1..=7, 7));
    assert_eq!(
        two,
        [
            "change 6",
            "change 7",
            "count 70 at 7",
            "synced at 7, 2 replayed"
        ]
    );
    let new = told_one_by_one(None, |_| missed([], 7));
    assert_eq!(
        new,
        ["count 70 at 7", "Connect at 7", "synced at 7, 0 replayed"]
    );
    let reset = told_one_by_one(Some(9), |_| missed([], 7));
    assert_eq!(
        reset,
        ["Reset at 7", "count 70 at 7", "synced at 7, 0 replayed"]
    );
}

#[test]
fn a_refresh_once_decided_is_told_even_if_later_answers_would_not_ask_for_it() {
    let (mut cursor, read) = reading(Some(9));
    assert_eq!(
        cursor.caught_up(read, &missed([], 4), &mut Wire::with_room(0)),
        Step::Stalled
    );
    let read = read_of(cursor.drained());
    assert_eq!(read.since, None, "the changes are of no use any more");
    let mut wire = Wire::wide();
    assert_eq!(
        cursor.caught_up(read, &missed([], 12), &mut wire),
        Step::Nothing
    );
    assert_eq!(
        wire.said(),
        ["Reset at 12", "count 120 at 12", "synced at 12, 0 replayed"]
    );
}

#[test]
fn a_replaced_history_is_told_once_and_its_reads_begin_anew() {
    let mut cursor = live(5);
    let of_the_old = read_of(cursor.check(6));
    let read = read_of(cursor.epoch_changed());
    let mut wire = Wire::wide();
    assert_eq!(
        cursor.caught_up(of_the_old, &missed([6], 6), &mut wire),
        Step::Nothing
    );
    assert_eq!(cursor.seq(), None);
    assert_eq!(
        cursor.caught_up(read, &missed([], 3), &mut wire),
        Step::Nothing
    );
    assert_eq!(cursor.change(change(4), &mut wire), Step::Nothing);
    assert_eq!(
        wire.said(),
        ["Reset at 3", "count 30 at 3", "change 4", "count 40 at 4"]
    );
}

#[test]
fn transient_emits_wait_for_the_first_synchronisation_only() {
    let (mut cursor, read) = reading(Some(5));
    assert_eq!(cursor.transient(), Transient::DropSyncing);
    assert_eq!(
        cursor.caught_up(read, &missed([], 5), &mut Wire::wide()),
        Step::Nothing
    );
    assert_eq!(cursor.transient(), Transient::Emit);
    read_of(cursor.check(6));
    assert_eq!(
        cursor.transient(),
        Transient::Emit,
        "a repair holds up nothing that promises nothing"
    );
}

#[test]
fn an_idle_cursor_is_small() {
    assert!(size_of::<Cursor<std::sync::Arc<[u8]>>>() <= 80);
}

/// A change of another history is none that may be handed over: all it says is that the store knows more.
#[test]
fn what_is_only_said_to_be_reached_is_read() {
    let (mut cursor, mut wire) = (live(3), Wire::wide());
    assert_eq!(cursor.reached(3), Step::Nothing);
    let read = read_of(cursor.reached(4));
    assert_eq!(read.since, Some(3));
    let none = missed([], 3);
    assert_eq!(cursor.caught_up(read, &none, &mut wire), Step::Nothing);
    assert!(!wire.said().iter().any(|said| said.starts_with("change")));
    assert_eq!(cursor.change(change(4), &mut wire), Step::Nothing);
    assert_eq!(wire.said(), ["change 4", "count 40 at 4"]);
}

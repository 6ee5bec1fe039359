//! What devices saw, corrupted: dropped, made up, crossed, doubled, swapped.

use faults::check::Check;
use faults::history::Event;

use super::*;

#[test]
fn a_dropped_delivery_is_lost() {
    flags(Check::Lost, |history, random| {
        let at = pick(history, random, |event| {
            is_apply(event) && !matches!(event, Event::Apply { id, .. } if id.starts_with("info"))
        });
        take_delivery(history, at);
    });
}

#[test]
fn a_phantom_is_unexpected() {
    flags(Check::Unexpected, |history, random| {
        let at = pick(history, random, is_recv);
        if let Event::Recv { id, .. } = &mut history[at].event {
            *id = "phantom".to_owned();
        }
    });
    flags(Check::Unexpected, |history, random| {
        let at = pick(history, random, is_recv);
        if let Event::Recv { key, .. } = &mut history[at].event {
            *key = Some("nobody's".to_owned());
        }
    });
}

#[test]
fn a_crossed_user_is_flagged_by_owner_key_and_row() {
    flags(Check::WrongUser, |history, random| {
        let at = pick(history, random, is_recv);
        if let Event::Recv { owner, .. } = &mut history[at].event {
            *owner = Some("stranger".to_owned());
        }
    });
    // The server hides whose it is: the key, or the row, gives it away.
    flags(Check::WrongUser, |history, random| {
        let from = pick(
            history,
            random,
            |event| matches!(event, Event::Recv { user, .. } if user == "u0"),
        );
        let to = pick(
            history,
            random,
            |event| matches!(event, Event::Recv { user, .. } if user == "u1"),
        );
        let Event::Recv { id: stolen, .. } = history[from].event.clone() else {
            panic!("not a delivery")
        };
        if let Event::Recv { id, owner, key, .. } = &mut history[to].event {
            (*id, *owner, *key) = (stolen, None, None);
        }
    });
}

#[test]
fn a_change_shown_twice_is_duplicated() {
    flags(Check::Duplicated, |history, random| {
        let at = pick(history, random, is_apply);
        let again = history[at].clone();
        history.insert(at + 1, again);
    });
}

#[test]
fn swapped_changes_are_misordered() {
    for what in [is_recv, is_apply] {
        flags(Check::Misordered, |history, random| {
            // Two neighbours of one connection, without a list between.
            let pairs = pairs::neighbours(history, what);
            let (first, second) = pairs[random.below(pairs.len())];
            let (earlier, later) = (history[first].at, history[second].at);
            history.swap(first, second);
            (history[first].at, history[second].at) = (earlier, later);
        });
    }
}

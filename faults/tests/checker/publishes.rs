//! What publishers were told, corrupted: in another order, to some devices only, twice, not stored.

use faults::check::Check;
use faults::history::Event;

use super::*;

#[test]
fn a_later_publish_with_a_lower_seq_breaks_real_time_order() {
    flags(Check::RealTime, |history, random| {
        let pairs = pairs::successive_publishes(history);
        let (earlier, later) = pairs[random.below(pairs.len())].clone();
        for line in history {
            if let Event::Ok { key, seq, .. } = &mut line.event {
                if *key == earlier.0 {
                    *seq = later.1;
                } else if *key == later.0 {
                    *seq = earlier.1;
                }
            }
        }
    });
}

#[test]
fn an_uncertain_publish_that_only_some_devices_saw_is_flagged() {
    flags(Check::AllOrNone, |history, random| {
        let at = pick(
            history,
            random,
            |event| matches!(event, Event::Apply { id, .. } if id.starts_with("info")),
        );
        take_delivery(history, at);
    });
    flags(Check::AllOrNone, |history, random| {
        let at = pick(
            history,
            random,
            |event| matches!(event, Event::DatabaseRow { id, .. } if id.starts_with("info")),
        );
        history.remove(at);
    });
}

#[test]
fn two_rows_or_two_answers_for_one_key_are_flagged() {
    flags(Check::OneRow, |history, random| {
        let mut second = history[pick(history, random, is_row)].clone();
        if let Event::DatabaseRow { id, .. } = &mut second.event {
            *id = "second".to_owned();
        }
        history.push(second);
    });
    flags(Check::OneRow, |history, random| {
        let at = pick(history, random, |event| matches!(event, Event::Ok { .. }));
        let mut second = history[at].clone();
        if let Event::Ok { seq, .. } = &mut second.event {
            *seq += 1;
        }
        history.insert(at + 1, second);
    });
}

#[test]
fn what_was_acknowledged_and_is_not_stored_is_flagged() {
    flags(Check::Acknowledged, |history, random| {
        let at = pick(history, random, is_row);
        history.remove(at);
    });
    flags(Check::Acknowledged, |history, random| {
        let at = pick(history, random, is_row);
        if let Event::DatabaseRow { created_seq, .. } = &mut history[at].event {
            *created_seq += 1;
        }
    });
}

#[test]
fn what_was_refused_and_is_stored_is_flagged() {
    flags(Check::Acknowledged, |history, random| {
        let at = pick(history, random, |event| matches!(event, Event::Ok { .. }));
        let Event::Ok {
            key: refused, user, ..
        } = history[at].event.clone()
        else {
            panic!("not an answer")
        };
        for line in history {
            if matches!(&line.event, Event::Ok { key, .. } | Event::Info { key, .. } if *key == refused)
            {
                line.event = Event::Fail {
                    key: refused.clone(),
                    user: user.clone(),
                    why: "422".to_owned(),
                    millis: 1,
                };
            }
        }
    });
}

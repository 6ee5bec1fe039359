//! Any history, on both databases: no hole in the numbers, exact counts, and whoever was away sees what everybody sees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellhop::notification::{Notification, Reason};
use bellhop::store::{
    Address, Batch, Confirmation, Deletion, Edit, Gone, ListQuery, Missed, Retention, RowState,
    Store, StoreError, Updated,
};
use chrono::{TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::import::old;
use super::{draft, key, user};
use crate::databases::Database;

contract! {
    after_any_history_every_device_sees_the_same
    everything_at_once_on_two_inboxes_leaves_no_hole
}

const USERS: [&str; 3] = ["a", "B", "b:1"];

/// What one act did to the numbers: those that it took, user by user.
type Taken = Vec<(&'static str, u64)>;

/// Acts of every kind, on users and ids that it has met.
struct Actor {
    random: StdRng,
    users: &'static [&'static str],
    ids: Vec<(&'static str, Uuid)>,
    /// The last counters that an act answered, of the user it was about.
    told: Option<(&'static str, u64, u64)>,
}

impl Actor {
    fn new(seed: u64, users: &'static [&'static str]) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            users,
            ids: Vec::new(),
            told: None,
        }
    }

    fn user(&mut self) -> &'static str {
        self.users[self.random.random_range(0..self.users.len())]
    }

    fn notification(&mut self) -> (&'static str, Uuid) {
        if self.ids.is_empty() {
            return (self.users[0], Uuid::nil());
        }
        // Mostly one of the latest: most of the others are gone.
        let from = self.ids.len().saturating_sub(30);
        self.ids[self.random.random_range(from..self.ids.len())]
    }

    async fn act(&mut self, store: &Store) -> Result<Taken, StoreError> {
        self.told = None;
        match self.random.random_range(0..100) {
            0..28 => self.create(store).await,
            28..43 => {
                let ((to, id), read) = (self.notification(), self.random.random_bool(0.6));
                let updated = store.set_read(&user(to), id, read).await?;
                Ok(self.updated(to, updated))
            }
            43..55 => {
                let (to, id) = self.notification();
                let updated = store.set_clicked(&user(to), id).await?;
                Ok(self.updated(to, updated))
            }
            55..65 => self.edit(store).await,
            65..73 => {
                let (to, id) = self.notification();
                let deletion = store.delete(&user(to), id, Reason::Withdrawn).await?;
                Ok(match deletion {
                    Deletion::Done(counters) => self.took(to, counters.unread, counters.seq),
                    Deletion::Already | Deletion::Unknown => Vec::new(),
                })
            }
            73..77 => {
                let to = self.user();
                let bulk = store.read_all(&user(to)).await?;
                let counters = Some(bulk.counters).filter(|_| bulk.changed > 0);
                Ok(counters.map_or(Vec::new(), |now| self.took(to, now.unread, now.seq)))
            }
            77..79 => {
                let to = self.user();
                let bulk = store.clear(&user(to)).await?;
                let counters = Some(bulk.counters).filter(|_| bulk.changed > 0);
                Ok(counters.map_or(Vec::new(), |now| self.took(to, now.unread, now.seq)))
            }
            79..81 => {
                let to = self.user();
                let moved = store.erase(&user(to)).await?.moved;
                Ok(moved.map_or(Vec::new(), |now| self.took(to, now.unread, now.seq)))
            }
            81..83 => {
                let to = self.user();
                let now = store.revoke(&user(to)).await?.counters;
                Ok(self.took(to, now.unread, now.seq))
            }
            83..88 => {
                let limit = self.random.random_range(1..20);
                Ok(self.gone(store.expire(limit).await?))
            }
            88..92 => {
                let to = self.user();
                let retention = self.retention();
                Ok(self.gone(store.retain(&user(to), retention).await?.gone))
            }
            92..96 => self.import(store).await,
            _ => {
                let [one, other] = [self.user(), self.user()];
                let said = [one, other].map(|to| Confirmation {
                    user: user(to),
                    above: self.random.random_range(0..50),
                    seq: self.random.random_range(0..300),
                });
                store.confirm(&said).await?;
                Ok(Vec::new())
            }
        }
    }

    fn retention(&mut self) -> Retention {
        let changes = self.random.random_range(5..30);
        let days = self.random.random_range(0..2);
        Retention { days, changes }
    }

    fn took(&mut self, to: &'static str, unread: u64, seq: u64) -> Taken {
        self.told = Some((to, unread, seq));
        vec![(to, seq)]
    }

    fn updated(&mut self, to: &'static str, updated: Option<Updated>) -> Taken {
        let moved = updated.and_then(|updated| {
            assert_eq!(
                updated.moved.is_none(),
                !updated.newly_read && !updated.newly_clicked && !unread_or_edited(&updated)
            );
            updated.moved
        });
        moved.map_or(Vec::new(), |now| self.took(to, now.unread, now.seq))
    }

    fn gone(&mut self, gone: Vec<Gone>) -> Taken {
        let known = self.users;
        let mut taken = Vec::new();
        for Gone { user, counters, .. } in gone {
            let to = known.iter().find(|id| **id == user.as_str()).unwrap();
            taken.extend(self.took(to, counters.unread, counters.seq));
        }
        taken
    }

    async fn create(&mut self, store: &Store) -> Result<Taken, StoreError> {
        let mut to = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let (id, user) = (Uuid::now_v7(), user(self.user()));
            to.push(Address { user, id, draft: 0 });
        }
        let mut text = draft("created");
        text.expires_at = match self.random.random_range(0..6) {
            0 => Some(Utc::now() - TimeDelta::seconds(1)),
            1 => Some(Utc::now() + TimeDelta::hours(1)),
            _ => None,
        };
        let batch = Batch {
            drafts: vec![Arc::new(text)],
            to,
        };
        let name = Uuid::now_v7().to_string();
        let key = self.random.random_bool(0.5).then(|| key("shop", &name, 1));
        let created = store.create(&batch, key.as_ref()).await?;

        let known = self.users;
        let mut taken = Vec::new();
        for item in created.items {
            let to = known.iter().find(|id| **id == item.user.as_str()).unwrap();
            self.ids.push((to, item.id));
            taken.extend(self.took(to, item.unread, item.seq));
        }
        Ok(taken)
    }

    async fn edit(&mut self, store: &Store) -> Result<Taken, StoreError> {
        let (to, id) = self.notification();
        let title = format!("edited {}", self.random.random_range(0..3));
        let over = self.random.random_bool(0.2);
        let edit = Edit {
            title: Some(title.clone()),
            expires_at: over.then(|| Some(Utc::now() - TimeDelta::seconds(1))),
            ..Edit::default()
        };
        let Some(updated) = store.edit(&user(to), id, &edit).await? else {
            return Ok(Vec::new());
        };
        let moved = updated.moved;
        Ok(moved.map_or(Vec::new(), |now| self.took(to, now.unread, now.seq)))
    }

    /// For one user: so the numbers that it took are those below the new head.
    async fn import(&mut self, store: &Store) -> Result<Taken, StoreError> {
        let to = self.user();
        let mut given: Vec<Notification> = (0..self.random.random_range(1..6))
            .map(|_| old(to))
            .collect();
        given[0].is_read = true;
        given.push(given[0].clone());
        let imported = store.import(&given).await?;
        assert_eq!(
            (imported.created, imported.known),
            (given.len() as u64 - 1, 1)
        );
        let [(_, head)] = &imported.moved[..] else {
            panic!("one user moves")
        };
        self.ids.extend(given.iter().map(|old| (to, old.id)));
        Ok((head - imported.created + 1..=*head)
            .map(|seq| (to, seq))
            .collect())
    }
}

/// What else may move a notification: marking it unread.
fn unread_or_edited(updated: &Updated) -> bool {
    updated.moved.is_some() && !updated.notification.is_read
}

/// What a device shows: by id, the seq, the title, whether read and whether clicked.
type View = BTreeMap<Uuid, (u64, String, bool, bool)>;

fn shown(item: &Notification) -> (u64, String, bool, bool) {
    (
        item.seq,
        item.title.clone(),
        item.is_read,
        item.clicked_at.is_some(),
    )
}

async fn view(store: &Store, id: &str) -> (u64, View) {
    let query = ListQuery {
        limit: 10_000,
        ..ListQuery::default()
    };
    let page = store.list(&user(id), &query).await.unwrap();
    let view: View = page
        .items
        .iter()
        .map(|item| (item.id, shown(item)))
        .collect();
    let unread = view.values().filter(|(_, _, read, _)| !read).count() as u64;
    assert_eq!((page.unread, page.next), (unread, None));
    assert!(page.items.iter().all(|item| item.seq <= page.seq));
    (page.seq, view)
}

/// As a client does it: clear and read-all first, as far as they are news, then the rows in order.
fn caught_up(mut view: View, since: u64, missed: &Missed) -> View {
    if missed.cleared_seq > since {
        view.clear();
    }
    if missed.read_all_seq > since {
        view.values_mut().for_each(|(_, _, read, _)| *read = true);
    }
    for row in &missed.rows {
        match &row.state {
            RowState::Live(item) => {
                assert_eq!(item.seq, row.seq);
                view.insert(item.id, shown(item));
            }
            RowState::Deleted { id, .. } => {
                view.remove(id);
            }
        }
    }
    view
}

/// What must hold of one user's inbox after any history.
async fn check(store: &Store, id: &str) -> (u64, View) {
    let (head, view) = view(store, id).await;
    let missed = store.missed(&user(id), 0, 100_000).await.unwrap();
    assert_eq!(missed.head, head);
    assert!(missed.floor <= head && missed.read_all_seq <= head && missed.cleared_seq <= head);
    let seqs: Vec<u64> = missed.rows.iter().map(|row| row.seq).collect();
    assert!(
        seqs.is_sorted_by(|one, next| one < next)
            && seqs.iter().all(|seq| (1..=head).contains(seq))
    );
    let live = missed
        .rows
        .iter()
        .filter(|row| matches!(row.state, RowState::Live(_)));
    assert_eq!(live.count(), view.len());

    for row in missed.rows.iter().take(5) {
        let (id_of, live) = match &row.state {
            RowState::Live(item) => (item.id, true),
            RowState::Deleted { id, .. } => (*id, false),
        };
        let found = store.get(&user(id), id_of).await.unwrap().notification;
        assert_eq!(found.as_ref().map(shown), view.get(&id_of).cloned());
        assert_eq!(found.is_some(), live);
    }
    let inspection = store.inspect(&user(id), 7).await.unwrap();
    let latest: Vec<u64> = inspection.changes.iter().map(|row| row.seq).collect();
    assert_eq!(
        latest,
        seqs.iter().rev().take(7).copied().collect::<Vec<_>>()
    );
    assert_eq!(inspection.floor, missed.floor);
    (head, view)
}

async fn after_any_history_every_device_sees_the_same(store: Store) {
    for seed in 0..3 {
        history(&store, seed).await;
    }
}

async fn history(store: &Store, seed: u64) {
    let mut actor = Actor::new(seed, &USERS);
    let mut heads = BTreeMap::new();
    for id in USERS {
        heads.insert(id, view(store, id).await.0);
    }
    let mut devices: Vec<(&str, u64, View)> = Vec::new();
    for step in 0..250 {
        let taken = actor.act(store).await.unwrap();
        for (id, seq) in taken {
            let head = heads.get_mut(id).unwrap();
            *head += 1;
            assert_eq!(seq, *head, "seed {seed}, step {step}: {id}");
        }
        if let Some((id, unread, seq)) = actor.told {
            let now = store.standing(&user(id)).await.unwrap().counters;
            assert_eq!(
                (now.unread, now.seq),
                (unread, seq),
                "seed {seed}, step {step}: {id}"
            );
        }
        let id = USERS[step % USERS.len()];
        let (head, view) = check(store, id).await;
        assert_eq!(head, heads[id], "seed {seed}, step {step}: {id}");
        for (id, since, before) in devices.iter().filter(|(of, _, _)| *of == id) {
            let missed = store.missed(&user(id), *since, 10_000).await.unwrap();
            if *since >= missed.floor {
                let after = caught_up(before.clone(), *since, &missed);
                assert_eq!(after, view, "seed {seed}, step {step}: {id} since {since}");
            }
        }
        if step % 16 == 0 {
            devices.push((id, head, view));
        }
    }
    retain_until_done(store).await;
}

/// Whoever is due has something to do, and is not due when it is done.
async fn retain_until_done(store: &Store) {
    let retention = Retention {
        days: 1,
        changes: 8,
    };
    let page = store.users(None, 10, retention).await.unwrap();
    assert_eq!(page.next, None);
    for id in USERS {
        let retained = store.retain(&user(id), retention).await.unwrap();
        let did = !retained.gone.is_empty() || retained.removed > 0;
        assert_eq!(did, page.due.contains(&user(id)), "{id}");
        assert!(!retained.more);
        let (_, view) = check(store, id).await;
        assert!(view.len() <= 8);
    }
    assert_eq!(store.users(None, 10, retention).await.unwrap().due, []);
}

/// Eight at once, with every kind of act: nothing deadlocks, each change took one number.
async fn everything_at_once_on_two_inboxes_leaves_no_hole(store: Store) {
    const TWO: [&str; 2] = ["b", "a"];
    let mut actors = JoinSet::new();
    for seed in 0..8 {
        let store = store.clone();
        actors.spawn(async move {
            let mut actor = Actor::new(1000 + seed, &TWO);
            let mut taken = Taken::new();
            for _ in 0..120 {
                taken.extend(actor.act(&store).await.unwrap());
            }
            taken
        });
    }
    let taken: Taken = actors.join_all().await.into_iter().flatten().collect();
    for id in TWO {
        let (head, _) = check(&store, id).await;
        let of_user = taken.iter().filter(|(of, _)| *of == id);
        let seqs: BTreeSet<u64> = of_user.clone().map(|(_, seq)| *seq).collect();
        assert_eq!(of_user.count() as u64, head, "{id}");
        assert!(seqs.into_iter().eq(1..=head), "{id}");
    }
}

//! Long random histories of a wider world.

use proptest::prelude::*;

use super::world::{Fault, Limits, Move, World};

/// More moves than any of these worlds needs to settle.
const PATIENCE: usize = 2_000;

fn limits() -> impl Strategy<Value = Limits> {
    (1..6_usize, 0..6_usize, any::<bool>()).prop_map(|(capacity, replay, spread)| Limits {
        commits: 30,
        edits: true,
        spread,
        capacity,
        replay,
        duplicates: 10,
        losses: 5,
        give_ups: 2,
        failures: 5,
        reconnects: 4,
        failovers: 2,
    })
}

/// Lets everything come to rest that is under way, and no fault and no news come.
fn settle(world: &mut World, history: &mut Vec<Move>) -> Result<(), Fault> {
    for _ in 0..PATIENCE {
        let Some(&step) = world.settling_moves().first() else {
            return Ok(());
        };
        history.push(step);
        world.apply(step)?;
    }
    Err("the world does not come to rest")
}

/// Whatever happens in whatever order: when it is over, and the feed has looked once, the client has everything.
fn live_through(limits: Limits, choices: &[u16], history: &mut Vec<Move>) -> Result<(), Fault> {
    let mut world = World::new(limits);
    for choice in choices {
        let moves = world.moves();
        let Some(&step) = moves.get(usize::from(*choice) % moves.len().max(1)) else {
            break;
        };
        history.push(step);
        world.apply(step)?;
    }
    settle(&mut world, history)?;
    world.check();
    settle(&mut world, history)?;
    world.complete()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_the_client_has_everything(
        limits in limits(),
        choices in prop::collection::vec(any::<u16>(), 0..300),
    ) {
        let mut history = Vec::new();
        let outcome = live_through(limits, &choices, &mut history);
        prop_assert_eq!(outcome, Ok(()), "after {:?}", history);
    }
}

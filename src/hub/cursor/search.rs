//! An exhaustive search: every history of a small world, breadth first, so that what it finds is shortest.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::world::{Fault, Limits, Move, World};

/// How much was searched.
#[derive(Clone, Copy, Debug, Default)]
struct Explored {
    states: usize,
    moves: usize,
    /// States in which nothing is under way, so that the client has to have everything.
    quiescent: usize,
}

/// A history that ends in a fault; there is no shorter one.
#[derive(Debug)]
struct Violation {
    fault: Fault,
    history: Vec<Move>,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}, after", self.fault)?;
        self.history
            .iter()
            .zip(1..)
            .try_for_each(|(step, number)| writeln!(formatter, "{number:4}. {step:?}"))
    }
}

/// How each state was first reached: from which, by what.
type Trail = Vec<(usize, Move)>;

/// Visits every state that can be reached from `start`, once.
///
/// States are told apart by a hash of 64 bits: of a million, two share one with a chance of 3 in 10⁸.
fn search_from(start: World) -> Result<Explored, Violation> {
    let mut explored = Explored {
        states: 1,
        ..Explored::default()
    };
    let mut seen = HashSet::from([fingerprint(&start)]);
    let mut trail: Trail = Vec::new();
    let mut layer = vec![(start, 0)];

    while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for (world, origin) in layer {
            for step in world.moves() {
                let mut next = world.clone();
                explored.moves += 1;
                next.apply(step).map_err(|fault| Violation {
                    fault,
                    history: history(&trail, origin, step),
                })?;
                if seen.insert(fingerprint(&next)) {
                    explored.states += 1;
                    explored.quiescent += usize::from(next.is_quiescent());
                    trail.push((origin, step));
                    next_layer.push((next, trail.len()));
                }
            }
        }
        layer = next_layer;
    }
    Ok(explored)
}

/// The steps to the state `origin`, and `last`. State 0 is the start; state n was reached by `trail[n - 1]`.
fn history(trail: &Trail, mut origin: usize, last: Move) -> Vec<Move> {
    let mut steps = vec![last];
    while origin > 0 {
        let (before, step) = trail[origin - 1];
        steps.push(step);
        origin = before;
    }
    steps.reverse();
    steps
}

fn fingerprint(world: &World) -> u64 {
    let mut fingerprint = Fingerprint(0);
    world.hash(&mut fingerprint);
    fingerprint.finish()
}

/// Multiplies and folds: without optimisation, a fifth of the standard hasher's time.
struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        bytes
            .iter()
            .for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        let product = (self.0 ^ word ^ 0x2d35_8dcc_aa6c_78a5).wrapping_mul(0x8bb8_4b93_962e_acc9);
        self.0 = product ^ (product >> 32);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const NARROW: Limits = Limits {
    commits: 0,
    edits: false,
    spread: false,
    capacity: 2,
    replay: 1,
    duplicates: 0,
    losses: 0,
    give_ups: 0,
    failures: 0,
    reconnects: 0,
    failovers: 0,
};

/// How many states have to be searched at least, so that a narrower world is noticed.
const ENOUGH: usize = 1_000_000;

/// The worlds that are searched, each wide in one direction: order, room, coming back, other epochs, coming with
/// many others, the same with little room when history is replaced, and little room where the store fails.
const WORLDS: [Limits; 7] = [
    Limits {
        commits: 3,
        replay: 2,
        losses: 1,
        ..NARROW
    },
    Limits {
        commits: 3,
        capacity: 1,
        edits: true,
        ..NARROW
    },
    Limits {
        commits: 2,
        reconnects: 1,
        duplicates: 1,
        losses: 1,
        give_ups: 1,
        ..NARROW
    },
    Limits {
        commits: 2,
        reconnects: 1,
        failovers: 1,
        failures: 1,
        ..NARROW
    },
    Limits {
        commits: 2,
        spread: true,
        reconnects: 1,
        losses: 1,
        ..NARROW
    },
    Limits {
        commits: 2,
        spread: true,
        capacity: 1,
        failovers: 1,
        ..NARROW
    },
    Limits {
        commits: 2,
        edits: true,
        capacity: 1,
        losses: 1,
        failures: 2,
        duplicates: 1,
        ..NARROW
    },
];

/// Searches all worlds, each on a thread of its own.
fn search() -> Result<Explored, Violation> {
    let searches = WORLDS.map(|limits| std::thread::spawn(move || search_from(World::new(limits))));
    let explored = searches.map(|search| search.join().unwrap());
    explored
        .into_iter()
        .try_fold(Explored::default(), |sum, explored| {
            let explored = explored?;
            Ok(Explored {
                states: sum.states + explored.states,
                moves: sum.moves + explored.moves,
                quiescent: sum.quiescent + explored.quiescent,
            })
        })
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "how much was searched is part of the claim"
)]
fn the_search_finds_no_violation() {
    match search() {
        Ok(explored) => {
            println!("{explored:?}");
            assert!(explored.states >= ENOUGH, "the worlds are too narrow");
        }
        Err(violation) => panic!("{violation}"),
    }
}

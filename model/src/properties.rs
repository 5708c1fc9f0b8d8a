//! What must be true in every state, and what must be possible.

use crate::actions::Action;
use crate::state::{Phase, Volume, World};
use stateright::{Model, Property};

const ONE: &str = "at most one attachment serves";
const HELD: &str = "every in-sync replica holds what was acknowledged";
const FRESH: &str = "whoever serves reads nothing that was replaced";
/// What must never be broken.
pub(crate) const SAFETY: [&str; 3] = [ONE, HELD, FRESH];
/// How many things must be possible.
pub(crate) const POSSIBLE: usize = 5;

impl Model for Volume {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(self.possible(world));
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.act(&mut next, action);
        next.forget(self);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE, |volume: &Volume, world: &World| {
                world.attachments.iter().filter(|one| one.may_serve(volume)).count() <= 1
            }),
            Property::always(HELD, |_, world: &World| {
                world.of(world.record.in_sync).all(|replica| replica.value >= world.floor)
            }),
            Property::always(FRESH, |volume: &Volume, world: &World| {
                let serving = world.attachments.iter().filter(|one| one.may_serve(volume) && one.write.is_none());
                serving.clone().all(|one| world.of(one.in_sync()).all(|replica| replica.value >= world.floor))
            }),
            Property::sometimes("a write is acknowledged", |_, world: &World| world.floor > 0),
            Property::sometimes("one takes over from another that served", |volume: &Volume, world: &World| {
                world.attachments[0].has_served && world.attachments[1].may_serve(volume)
            }),
            Property::sometimes(
                "one that was replaced serves on under its lease while the other waits",
                |volume: &Volume, world: &World| {
                    world.attachments[0].may_serve(volume) && matches!(world.attachments[1].phase, Phase::Waiting(1))
                },
            ),
            Property::sometimes("a replica leaves and another write is acknowledged without it", |_, world: &World| {
                world.of(!world.record.in_sync).any(|replica| replica.value < world.floor)
            }),
            Property::sometimes("a replica joins by a swap that nobody waits for", |_, world: &World| {
                world.attachments.iter().any(|one| one.doubtful & world.record.in_sync & !one.in_sync() != 0)
            }),
        ]
    }
}

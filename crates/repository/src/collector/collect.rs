//! One collection, from wherever an earlier one left it.
//!
//! What a crash leaves after each step, and what the next collector does:
//! 1. `collections/<F+1>` says which points there are, and which packs none of them refers to: it is taken up;
//! 2. epoch F+1 is open: sessions begin in it, and know what they may use as parents; it is taken up;
//! 3. runs that were silent have a tombstone: they can never be published; it is taken up;
//! 4. some candidates are deleted that nothing refers to a second time: it is taken up, and marks anew;
//! 5. index runs, ended sessions, void points and signs of life are deleted, each of which means nothing any more: the same;
//! 6. `collections/<F+1>-done` says that it is over: the collection itself is deleted by the next one.

use super::look::{Look, Silence, Unfinished, look, mark, unfinished};
use super::machine::{Folder, Listed, Object, Port};
use super::objects::{Collection, MAX_CANDIDATES, Tombstone};
use super::rules::{Rule, Rules};
use crate::ids::{PackId, PointId, SessionId, WriterId};
use crate::layout::{ObjectName, RunId};
use crate::writer::PackInfo;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// How a collection is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// When a run is taken for dead, and revoked.
    pub(crate) silence: Silence,
    /// Finds out what would be done, and does nothing.
    pub(crate) dry_run: bool,
    /// Where the store does not refuse what exists, nobody else may write.
    pub(crate) alone: bool,
    /// The time that tombstones name, for people.
    pub(crate) now: Timestamp,
}

/// What became of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    pub(crate) state: State,
    /// An earlier collection was taken up.
    pub(crate) resumed: bool,
    /// Packs that were deleted, or would be.
    pub(crate) packs: Vec<PackInfo>,
    /// Packs that stay.
    pub(crate) kept: (u64, u64),
    pub(crate) index_runs: u64,
    pub(crate) void: Vec<PointId>,
    pub(crate) revoked: Vec<Unfinished>,
    pub(crate) waiting: Vec<Unfinished>,
}

/// How far it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It is over, or would be.
    #[default]
    Finished,
    /// There was nothing to collect.
    Nothing,
    /// Runs are under way that have to end first.
    Waiting,
}

/// Why nothing was collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The repository has lost its epochs.
    NoEpoch,
    /// Points that count, or may, cannot be followed: what they need is not known.
    Points(BTreeMap<PointId, String>),
    /// A session cannot be read, so it is not known what it works for.
    Session(SessionId, String),
}

/// Collects once.
pub(crate) async fn collect(port: Port, rules: Rules, plan: Plan) -> Result<Collected, Refused> {
    if plan.alone {
        let waiting = others(&port, &plan).await;
        if !waiting.is_empty() {
            return Ok(Collected { state: State::Waiting, waiting, ..Collected::default() });
        }
    }
    let mut referenced = BTreeSet::new();
    let (collection, resumed) = match begin(&port, rules, &plan, &mut referenced).await? {
        Begun::Collection { collection, resumed } => (collection, resumed),
        Begun::Over(collected) => return Ok(collected),
    };
    let before = collection.epoch - 1;
    if rules.keeps(Rule::WaitForSessions) && !plan.dry_run {
        port.create(Object::Epoch(collection.epoch)).await;
    }
    let seen = look(&port).await;
    let (revoked, waiting) = settle(&port, rules, &plan, &seen, before).await?;
    let mut collected = Collected { resumed, revoked, waiting, ..Collected::default() };
    if !collected.waiting.is_empty() && !plan.dry_run && rules.keeps(Rule::WaitForSessions) {
        collected.state = State::Waiting;
        return Ok(collected);
    }
    let over_before = port.exists(ObjectName::Collected(collection.epoch)).await;
    let seen = look(&port).await;
    if rules.keeps(Rule::MarkAgain) {
        mark(&port, &seen, &mut referenced).await.map_err(Refused::Points)?;
    }
    let over = match rules.keeps(Rule::LookAfterListing) {
        true => port.exists(ObjectName::Collected(collection.epoch)).await,
        false => over_before,
    };
    if over && rules.keeps(Rule::LookForDone) {
        return Ok(collected);
    }
    let unneeded = |pack: &&PackInfo| !referenced.contains(&pack.id) && !seen.repairs.contains(&pack.id.writer);
    collected.packs = collection.candidates.iter().filter(unneeded).copied().collect();
    collected.void = seen.void.keys().cloned().collect();
    if plan.dry_run {
        collected.kept = kept(&port.list(Folder::Packs).await, &collected.packs);
        return Ok(collected);
    }
    collected.packs = port.delete_packs(collected.packs).await;
    clean_up(&port, rules, &seen, before, &mut collected).await;
    port.create(Object::Collected(collection.epoch)).await;
    forget_collections(&port).await;
    Ok(collected)
}

enum Begun {
    Collection { collection: Collection, resumed: bool },
    Over(Collected),
}

/// Takes up the collection that is under way, or makes a new one.
async fn begin(port: &Port, rules: Rules, plan: &Plan, referenced: &mut BTreeSet<PackId>) -> Result<Begun, Refused> {
    loop {
        let epoch = port.greatest_epoch().await.ok_or(Refused::NoEpoch)?;
        for number in [epoch.saturating_add(1), epoch] {
            if let Some(collection) = under_way(port, number, plan).await {
                return Ok(Begun::Collection { collection, resumed: true });
            }
        }
        if let Some(begun) = make(port, rules, plan, epoch, referenced).await? {
            return Ok(begun);
        }
    }
}

/// Looks whether the collection that opens an epoch is under way.
///
/// One that is damaged or lost is given up: without having deleted anything, that is always allowed, because who deletes looks that it is
/// not over.
async fn under_way(port: &Port, number: u64, plan: &Plan) -> Option<Collection> {
    if port.exists(ObjectName::Collected(number)).await {
        return None;
    }
    match port.read(ObjectName::Collection(number)).await {
        Ok(Some(Object::Collection(collection))) => return Some(collection),
        Ok(None) if number <= 1 || !port.exists(ObjectName::Epoch(number)).await => return None,
        Ok(_) if port.exists(ObjectName::Collected(number)).await => return None,
        _ => {}
    }
    if !plan.dry_run {
        port.create(Object::Collected(number)).await;
        port.delete(ObjectName::Collection(number)).await;
    }
    None
}

/// Makes a collection of what nothing refers to; none if somebody else was faster, and is done already.
async fn make(
    port: &Port,
    rules: Rules,
    plan: &Plan,
    epoch: u64,
    referenced: &mut BTreeSet<PackId>,
) -> Result<Option<Begun>, Refused> {
    let listed = port.list(Folder::Packs).await;
    let seen = look(port).await;
    mark(port, &seen, referenced).await.map_err(Refused::Points)?;
    let unneeded = |pack: &PackInfo| !referenced.contains(&pack.id) && !seen.repairs.contains(&pack.id.writer);
    let unreferenced = packs(&listed).filter(|pack| pack.id.epoch <= epoch && unneeded(pack));
    let candidates: Vec<_> = unreferenced.take(MAX_CANDIDATES).collect();
    if candidates.is_empty() && nothing_else(port, plan, &seen, epoch, &listed).await {
        if !plan.dry_run {
            forget_collections(port).await;
        }
        let kept = kept(&listed, &[]);
        return Ok(Some(Begun::Over(Collected { state: State::Nothing, kept, ..Collected::default() })));
    }
    let number = epoch + 1;
    let points = seen.counted.into_keys().collect();
    let collection = Collection::new(number, points, candidates);
    let wanted = Object::Collection(collection.clone());
    if plan.dry_run || !rules.keeps(Rule::WaitForSessions) || port.create(wanted).await {
        return Ok(Some(Begun::Collection { collection, resumed: false }));
    }
    match port.read(ObjectName::Collection(number)).await {
        Ok(Some(Object::Collection(collection))) => Ok(Some(Begun::Collection { collection, resumed: true })),
        _ => Ok(None),
    }
}

/// Whether there is nothing to clean up but packs.
async fn nothing_else(port: &Port, plan: &Plan, seen: &Look, epoch: u64, listed: &[Listed]) -> bool {
    if !seen.void.is_empty() || seen.strays.keys().any(|point| seen.is_decided(point)) {
        return false;
    }
    if unfinished(port, seen, epoch, plan.silence).await.iter().any(|run| run.silent) {
        return false;
    }
    let living: BTreeSet<_> = seen.strays.values().flatten().map(|stray| stray.id).collect();
    let runs = port.list(Folder::Runs).await;
    if empty_runs(&seen.repairs, &runs, listed, epoch).any(|run| !living.contains(&run.session())) {
        return false;
    }
    let beats = port.list(Folder::Beats).await;
    beats.iter().all(|beat| matches!(beat.name, ObjectName::Beat(session, _) if living.contains(&session)))
}

/// The index runs of epochs up to one whose sessions have no packs any more.
fn empty_runs<'a>(
    repairs: &'a BTreeSet<WriterId>,
    runs: &'a [Listed],
    listed: &[Listed],
    up_to: u64,
) -> impl Iterator<Item = RunId> + use<'a> {
    let with_packs: BTreeSet<_> =
        packs(listed).map(|pack| SessionId { epoch: pack.id.epoch, writer: pack.id.writer }).collect();
    let runs = runs.iter().filter_map(|object| if let ObjectName::Run(run) = object.name { Some(run) } else { None });
    runs.filter(move |run| run.epoch <= up_to && !with_packs.contains(&run.session()) && !repairs.contains(&run.writer))
}

/// Revokes what has been silent for too long; gives what was revoked, and what must be waited for.
async fn settle(
    port: &Port,
    rules: Rules,
    plan: &Plan,
    seen: &Look,
    up_to: u64,
) -> Result<(Vec<Unfinished>, Vec<Unfinished>), Refused> {
    if let Some((id, what)) = seen.unreadable.iter().find(|(id, _)| id.epoch <= up_to) {
        return Err(Refused::Session(*id, what.clone()));
    }
    let (mut revoked, mut waiting) = (Vec::new(), Vec::new());
    for run in unfinished(port, seen, up_to, plan.silence).await {
        let name = ObjectName::Point(run.point.clone());
        if port.exists(name.clone()).await {
            continue;
        }
        if !run.silent {
            waiting.push(run);
        } else if plan.dry_run || !rules.keeps(Rule::TombstoneDecides) {
            revoked.push(run);
        } else {
            if !rules.keeps(Rule::TombstoneNeverReplaces) {
                port.delete(name).await;
            }
            // If it is published by now, it has ended as well.
            if port.create(Object::Tombstone(Tombstone::new(run.point.clone(), plan.now))).await {
                revoked.push(run);
            }
        }
    }
    Ok((revoked, waiting))
}

/// Runs of which there must be none where the store does not refuse what exists.
async fn others(port: &Port, plan: &Plan) -> Vec<Unfinished> {
    let seen = look(port).await;
    let runs = unfinished(port, &seen, u64::MAX, plan.silence).await;
    runs.into_iter().filter(|run| !run.silent).collect()
}

fn packs(listed: &[Listed]) -> impl Iterator<Item = PackInfo> + '_ {
    listed.iter().filter_map(|object| match object.name {
        ObjectName::Pack(id) => Some(PackInfo { id, bytes: object.bytes }),
        _ => None,
    })
}

/// How many packs stay, and their bytes.
fn kept(listed: &[Listed], deleted: &[PackInfo]) -> (u64, u64) {
    let deleted: BTreeSet<PackId> = deleted.iter().map(|pack| pack.id).collect();
    let kept = packs(listed).filter(|pack| !deleted.contains(&pack.id));
    kept.fold((0, 0), |(packs, bytes), pack| (packs + 1, bytes + pack.bytes))
}

/// Deletes what means nothing any more once the sessions up to an epoch have ended.
async fn clean_up(port: &Port, rules: Rules, seen: &Look, up_to: u64, collected: &mut Collected) {
    let listed = port.list(Folder::Packs).await;
    collected.kept = kept(&listed, &[]);
    let runs = port.list(Folder::Runs).await;
    let runs: Vec<_> = empty_runs(&seen.repairs, &runs, &listed, up_to).map(ObjectName::Run).collect();
    collected.index_runs = runs.len() as u64;
    port.delete_each(runs).await;
    for (point, strays) in &seen.strays {
        if !seen.is_decided(point) {
            continue;
        }
        let ended = strays.iter().filter(|stray| stray.id.epoch <= up_to).map(|stray| ObjectName::Session(stray.id));
        port.delete_each(ended.collect()).await;
        if seen.tombstones.contains(point) && !rules.keeps(Rule::TombstoneStays) {
            port.delete(ObjectName::Point(point.clone())).await;
        }
    }
    for (point, sessions) in &seen.void {
        port.delete_each(sessions.iter().copied().map(ObjectName::Session).collect()).await;
        port.delete(ObjectName::Point(point.clone())).await;
    }
    let mut beats: Vec<_> = port.list(Folder::Beats).await.into_iter().map(|beat| beat.name).collect();
    beats.retain(|beat| matches!(beat, ObjectName::Beat(id, _) if id.epoch <= up_to));
    port.delete_each(beats).await;
}

/// Deletes the collections that are over, also those that somebody made who did not know.
async fn forget_collections(port: &Port) {
    let listed: BTreeSet<_> = port.list(Folder::Collections).await.into_iter().map(|object| object.name).collect();
    let over = listed.iter().filter(
        |name| matches!(name, ObjectName::Collection(number) if listed.contains(&ObjectName::Collected(*number))),
    );
    port.delete_each(over.cloned().collect()).await;
}

//! The search: the best place for each replica, one after the other, and back where that leads nowhere.
//!
//! Invariant: a set of places is looked at once at most. What failed together with the places before it is not tried again deeper down; and spots that are
//! the same for every required rule fail together. So what is left out contains no choice that keeps the rules.

use crate::cluster::{Cluster, Node, Place, Request};
use crate::measure::{Rule, Spot, nodes, rules};
use crate::preference::rank;
use crate::refusal::{self, Refusal, Verdict};
use crate::strategy::Enforcement;
use std::collections::BTreeMap;

/// The most places that are tried for one request. Rules that can be kept take one for each replica, or little more; those that exclude each other in
/// intricate ways could take forever. At it the request is refused, and the refusal says so.
pub const MOST_TRIES: usize = 50_000;

/// Chooses places for the replicas that are wanted, in the order in which they were chosen.
///
/// # Errors
/// There is no such choice; the error says why, for each rule and each node.
pub fn place(cluster: &Cluster, request: &Request) -> Result<Vec<Place>, Refusal> {
    let field = Field::new(cluster, request);
    let mut search = Search { field: &field, tries: 0 };
    let mut chosen = field.present();
    let open = field.open.clone();
    match search.extend(&mut chosen, open, request.replicas) {
        Outcome::Found => Ok(chosen[request.present.len()..].iter().map(|spot| field.place(*spot)).collect()),
        Outcome::None => Err(field.refusal(false)),
        Outcome::GivenUp => Err(field.refusal(true)),
    }
}

/// Everything that a search looks at.
struct Field<'a> {
    request: &'a Request,
    /// Those of the replicas that are there come first.
    spots: Vec<Spot<'a>>,
    required: Vec<Rule>,
    preferred: Vec<Rule>,
    /// Spots that may take a replica, as far as they alone are concerned.
    open: Vec<usize>,
    /// For each spot: those of one class are the same for all rules that must be kept. Where a node has several spots, each is a class of its own, since they
    /// exclude each other.
    classes: Vec<usize>,
    /// What speaks against each node.
    verdicts: Vec<Verdict>,
}

impl<'a> Field<'a> {
    fn new(cluster: &'a Cluster, request: &'a Request) -> Self {
        let mut sorted: Vec<&Node> = cluster.nodes.iter().collect();
        sorted.sort_by(|one, other| one.name.cmp(&other.name));
        let mut spots: Vec<_> = request.present.iter().map(|place| Spot::present(cluster, place)).collect();
        let (mut open, mut verdicts) = (Vec::new(), Vec::new());
        for node in sorted {
            let mut reasons: Vec<_> = refusal::of_node(node, request).into_iter().collect();
            let pools = if reasons.is_empty() { node.pools.as_slice() } else { &[] };
            for pool in pools {
                match refusal::of_pool(pool, request.size) {
                    Some(reason) => reasons.push(reason),
                    None => {
                        open.push(spots.len());
                        spots.push(Spot::new(node, pool));
                    }
                }
            }
            verdicts.push(Verdict { node: node.name.clone(), reasons });
        }
        let present: Vec<_> = (0..request.present.len()).collect();
        let (required, preferred) = rules(cluster, request, &spots, &present)
            .into_iter()
            .partition(|rule| rule.enforcement == Enforcement::Required);
        let mut field = Self { request, spots, required, preferred, open, classes: Vec::new(), verdicts };
        field.close_what_breaks_a_rule();
        field.classes = field.classes();
        field
    }

    fn present(&self) -> Vec<usize> {
        (0..self.request.present.len()).collect()
    }

    fn place(&self, spot: usize) -> Place {
        Place { node: self.spots[spot].node.to_owned(), pool: self.spots[spot].pool.to_owned() }
    }

    /// Takes out the spots on which no replica of any choice can be, and says why.
    fn close_what_breaks_a_rule(&mut self) {
        let (present, all) = (self.present(), self.open.clone());
        let more = self.request.replicas;
        for spot in all.iter().copied().filter(|_| more > 0) {
            let with: Vec<_> = present.iter().copied().chain([spot]).collect();
            let others: Vec<_> =
                all.iter().copied().filter(|other| self.spots[*other].node != self.spots[spot].node).collect();
            let mut reasons = Vec::new();
            for rule in &self.required {
                let all_must_keep_it = rule.needed == rule.count(&present) + more;
                let can_be_kept = rule.reachable(&present, &all, more, &self.spots) >= rule.needed;
                let is_in_the_way = can_be_kept && rule.reachable(&with, &others, more - 1, &self.spots) < rule.needed;
                if let Some(reason) = rule.broken_at(spot).filter(|_| all_must_keep_it || is_in_the_way) {
                    reasons.push(reason);
                } else if is_in_the_way {
                    reasons.push(format!("with a replica here the others could not keep {}", rule.name));
                }
            }
            self.close(spot, reasons);
        }
    }

    fn close(&mut self, spot: usize, reasons: Vec<String>) {
        if reasons.is_empty() {
            return;
        }
        self.open.retain(|open| *open != spot);
        let Spot { node, pool, .. } = self.spots[spot];
        if let Some(verdict) = self.verdicts.iter_mut().find(|verdict| verdict.node == node) {
            verdict.reasons.extend(reasons.into_iter().map(|reason| format!("pool {pool}: {reason}")));
        }
    }

    fn classes(&self) -> Vec<usize> {
        let mut on_node: BTreeMap<&str, usize> = BTreeMap::new();
        for spot in &self.open {
            *on_node.entry(self.spots[*spot].node).or_default() += 1;
        }
        let mut numbers = BTreeMap::new();
        let class = |(number, spot): (usize, &Spot<'_>)| {
            let is_alone = on_node.get(spot.node) == Some(&1);
            let signature: Vec<_> = self.required.iter().map(|rule| rule.signature(number)).collect();
            let next = numbers.len();
            *numbers.entry((signature, (!is_alone).then_some(number))).or_insert(next)
        };
        self.spots.iter().enumerate().map(class).collect()
    }

    fn may_be_kept(&self, chosen: &[usize], open: &[usize], more: usize) -> bool {
        let is_reachable = |rule: &Rule| rule.reachable(chosen, open, more, &self.spots) >= rule.needed;
        nodes(open.iter().copied(), &self.spots) >= more && self.required.iter().all(is_reachable)
    }

    fn refusal(&self, gave_up: bool) -> Refusal {
        let (present, more) = (self.present(), self.request.replicas);
        let found = nodes(self.open.iter().copied(), &self.spots);
        let mut rules = Vec::new();
        for rule in &self.required {
            let most = rule.reachable(&present, &self.open, more, &self.spots);
            if most < rule.needed {
                rules.push(format!("{} can be kept by {most} of the {} replicas that have to", rule.name, rule.needed));
            }
        }
        if rules.is_empty() && found >= more {
            let names: Vec<_> = self.required.iter().map(|rule| rule.name.as_str()).collect();
            let said = if gave_up {
                format!("no choice was found in {MOST_TRIES} tries that keeps all of these at once; make them fewer")
            } else {
                "each of these can be kept, but not all of them at once".to_owned()
            };
            rules.push(format!("{said}: {}", names.join("; ")));
        }
        Refusal { wanted: more, size: self.request.size, found, rules, nodes: self.verdicts.clone() }
    }
}

enum Outcome {
    Found,
    None,
    GivenUp,
}

struct Search<'a> {
    field: &'a Field<'a>,
    tries: usize,
}

impl Search<'_> {
    /// Adds so many replicas on these spots, if that can be done.
    fn extend(&mut self, chosen: &mut Vec<usize>, mut open: Vec<usize>, more: usize) -> Outcome {
        let field = self.field;
        while field.may_be_kept(chosen, &open, more) {
            if more == 0 {
                return Outcome::Found;
            }
            self.tries += 1;
            let of = |spot: &usize| rank(*spot, chosen, &field.spots, &field.preferred, field.request.size);
            let Some(best) = open.iter().copied().min_by(|one, other| of(one).cmp(&of(other))) else {
                return Outcome::None;
            };
            if self.tries > MOST_TRIES {
                return Outcome::GivenUp;
            }
            let elsewhere = |spot: &usize| field.spots[*spot].node != field.spots[best].node;
            chosen.push(best);
            let rest = open.iter().copied().filter(elsewhere).collect();
            match self.extend(chosen, rest, more - 1) {
                Outcome::None => {}
                outcome => return outcome,
            }
            chosen.pop();
            open.retain(|spot| field.classes[*spot] != field.classes[best]);
        }
        Outcome::None
    }
}

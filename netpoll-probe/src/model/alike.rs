//! Waits that are alike in all that the tables tell apart, added up once before they go into the tables.
//!
//! A connection's waits mostly are: one goroutine waits on it, at one place in the code. In the tables each of them would be added up three
//! times, for its stack and peer, for its goroutine and for its fd. What nothing like was seen of lately goes into the tables at once.

use std::{hash::BuildHasher as _, rc::Rc};

use foldhash::fast::FixedState;

use super::{
    builder::Keys,
    profile::StackKey,
    sums::{Sample, Sums},
    wait::{Endpoint, Wait},
};

/// Groups that there is room for, a power of two: 2 MB where waits last from 1 µs to 10 s.
const GROUPS: usize = 512;

/// After so many waits of others at its place, and none of its own, a group gives way.
const PATIENCE: u8 = 32;

/// Waits that are alike.
#[derive(Debug)]
pub(super) struct Alike {
    pub(super) keys: Keys,
    pub(super) idle: bool,
    /// What they add up to.
    pub(super) sums: Sums,
    /// Theirs: with role and fd it tells the peer.
    endpoint: Rc<Endpoint>,
    patience: u8,
}

impl Alike {
    fn new(sample: &Sample<'_>) -> Self {
        let wait = sample.wait;
        let mut sums = Sums::default();
        sums.add(sample);
        let endpoint = Rc::clone(&wait.endpoint);
        Self { keys: Keys::of(sample), idle: wait.idle, sums, endpoint, patience: PATIENCE }
    }

    fn has(&self, wait: &Wait, stack: StackKey) -> bool {
        let Keys { cell, goroutine, fd } = &self.keys;
        goroutine.goid == wait.goid
            && fd.fd == wait.fd
            && goroutine.pid == wait.pid
            && cell.stack == stack
            && cell.role == wait.role
            && cell.outcome == wait.outcome
            && self.idle == wait.idle
            // Of equal ones in two places they are not known to be alike, and need not be.
            && Rc::ptr_eq(&self.endpoint, &wait.endpoint)
    }
}

/// Whether a group begins with a wait.
#[derive(Debug)]
pub(super) enum Begun {
    /// It does.
    Yes,
    /// It does, and this one gave way.
    InsteadOf(Box<Alike>),
    /// There is no room for it.
    No,
}

/// The groups.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Vec<Option<Alike>>,
}

impl Groups {
    /// None.
    pub(super) fn new() -> Self {
        Self { groups: std::iter::repeat_with(|| None).take(GROUPS).collect() }
    }

    /// The group of the waits that a wait is like.
    pub(super) fn find(&mut self, wait: &Wait, stack: StackKey) -> Option<&mut Alike> {
        let group =
            self.groups.get_mut(place_of(wait, stack))?.as_mut().filter(|group| group.has(wait, stack))?;
        group.patience = PATIENCE;
        Some(group)
    }

    /// Begins a group with a wait that none was found for, where there is room.
    pub(super) fn begin(&mut self, sample: &Sample<'_>) -> Begun {
        let Some(place) = self.groups.get_mut(place_of(sample.wait, sample.stack)) else { return Begun::No };
        if let Some(group) = place
            && group.patience > 0
        {
            group.patience -= 1;
            return Begun::No;
        }
        match place.replace(Alike::new(sample)) {
            Some(group) => Begun::InsteadOf(Box::new(group)),
            None => Begun::Yes,
        }
    }

    /// Takes all of them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Alike> + use<> {
        std::mem::take(&mut self.groups).into_iter().flatten()
    }
}

/// The stack stands for the direction, too.
fn place_of(wait: &Wait, stack: StackKey) -> usize {
    let hash = FixedState::default().hash_one((wait.pid, wait.goid, wait.fd, wait.idle, stack));
    usize::try_from(hash % GROUPS as u64).unwrap_or(0)
}

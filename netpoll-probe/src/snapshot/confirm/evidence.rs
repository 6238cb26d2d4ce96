//! What is found of one offset.
#![forbid(unsafe_code)]

use std::fmt;

/// Goroutines run while they are read, so that a few of many may contradict a fact that holds: one of so many.
const ONE_MAY_BE_WRONG_OF: usize = 10;

/// What the memory says of an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The fact holds, and so many cases would hardly do so by chance.
    Confirmed {
        /// How many.
        cases: usize,
    },
    /// The fact holds, but no case was seen that another offset would not have passed too.
    Unconfirmed,
    /// The fact does not hold.
    Contradicted {
        /// In so many cases.
        wrong: usize,
        /// Of so many.
        of: usize,
        /// What was found in one.
        found: String,
    },
}

/// One fact about one offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The field, such as `g.goid`.
    pub field: &'static str,
    /// Its offset.
    pub offset: u32,
    /// What must hold if the offset is right.
    pub fact: &'static str,
    /// Without it nothing can be recorded: a probe reads it at every wait, or no wait is found.
    pub required: bool,
    /// What the memory says.
    pub verdict: Verdict,
}

impl Finding {
    /// Whether the fact was seen to hold.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        matches!(self.verdict, Verdict::Confirmed { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, offset, fact, verdict, .. } = self;
        match verdict {
            Verdict::Confirmed { cases } => write!(f, "{field} at {offset}: {fact}, {cases} times"),
            Verdict::Unconfirmed => write!(f, "{field} at {offset} could not be seen: {fact}"),
            Verdict::Contradicted { wrong, of, found } => {
                write!(f, "{field} at {offset} is wrong: {fact}, but {found} ({wrong} of {of})")
            }
        }
    }
}

/// Counts the cases of one fact.
#[derive(Debug)]
pub(super) struct Cases {
    finding: Finding,
    total: usize,
    wrong: usize,
    proofs: usize,
    found: Option<String>,
}

impl Cases {
    /// A fact that must be confirmed.
    pub(super) fn required(field: &'static str, offset: u32, fact: &'static str) -> Self {
        let finding = Finding { field, offset, fact, required: true, verdict: Verdict::Unconfirmed };
        Self { finding, total: 0, wrong: 0, proofs: 0, found: None }
    }

    /// A fact that must not be contradicted.
    pub(super) fn wanted(field: &'static str, offset: u32, fact: &'static str) -> Self {
        let mut cases = Self::required(field, offset, fact);
        cases.finding.required = false;
        cases
    }

    /// A case in which the fact holds or not. `proves`: another offset would hardly have passed.
    pub(super) fn see(&mut self, holds: bool, proves: bool, found: impl FnOnce() -> String) {
        self.total += 1;
        if !holds {
            self.wrong += 1;
            self.found.get_or_insert_with(found);
        } else if proves {
            self.proofs += 1;
        }
    }

    /// What the cases come to.
    pub(super) fn finding(mut self) -> Finding {
        self.finding.verdict = if self.wrong * ONE_MAY_BE_WRONG_OF > self.total {
            let found = self.found.unwrap_or_default();
            Verdict::Contradicted { wrong: self.wrong, of: self.total, found }
        } else if self.proofs > 0 {
            Verdict::Confirmed { cases: self.proofs }
        } else {
            Verdict::Unconfirmed
        };
        self.finding
    }
}

//! User stacks: interned, leaf first, inlined frames expanded.

use std::sync::Arc;

use foldhash::HashMap;
use serde::Serialize;

/// A stack in a [`StackTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u32);

/// One frame. An unknown function is named by its reason in brackets, such as `[unknown: not in pclntab]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Frame {
    /// The function's full name, `net/http.(*conn).serve`.
    pub func: Arc<str>,
    /// The source file, empty when not known.
    pub file: Arc<str>,
    /// The line, 0 when not known.
    pub line: u32,
    /// The compiler inlined this call into the next frame.
    #[serde(skip)]
    pub inlined: bool,
}

/// A whole stack, leaf first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// The frames, leaf first.
    pub frames: Vec<Frame>,
    /// The walk was cut short: by its depth limit or by a broken chain of frame pointers.
    pub truncated: bool,
}

/// Stacks that a table tells apart; 16,384 of 30 frames take 20 MB. Programs have hundreds, recursion may have more.
const STACKS: usize = 1 << 14;

/// Every distinct stack once, up to a number.
#[derive(Debug, Default)]
pub struct StackTable {
    stacks: Vec<Arc<Stack>>,
    ids: HashMap<Arc<Stack>, StackId>,
}

impl StackTable {
    /// The id of `stack`, new or known. When the table is full, that of a stack which says so.
    pub fn intern(&mut self, stack: Stack) -> StackId {
        if let Some(id) = self.ids.get(&stack) {
            return *id;
        }
        match self.stacks.len() {
            0..STACKS => self.push(stack),
            STACKS => self.push(Stack {
                frames: vec![Frame {
                    func: format!("[other: more than {STACKS} distinct stacks]").into(),
                    file: "".into(),
                    line: 0,
                    inlined: false,
                }],
                truncated: false,
            }),
            full => StackId(u32::try_from(full - 1).unwrap_or(u32::MAX)),
        }
    }

    fn push(&mut self, stack: Stack) -> StackId {
        let id = StackId(u32::try_from(self.stacks.len()).unwrap_or(u32::MAX));
        let stack = Arc::new(stack);
        self.stacks.push(Arc::clone(&stack));
        self.ids.insert(stack, id);
        id
    }

    /// The stack of an id that this table gave out.
    #[must_use]
    pub fn get(&self, id: StackId) -> Option<&Arc<Stack>> {
        self.stacks.get(id.0 as usize)
    }

    /// All stacks, by rising id.
    pub fn iter(&self) -> impl Iterator<Item = &Stack> {
        self.stacks.iter().map(Arc::as_ref)
    }

    /// How many distinct stacks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stacks.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_says_so() {
        let mut table = StackTable::default();
        let stack = |line| Stack {
            frames: vec![Frame { func: "main.main".into(), file: "main.go".into(), line, inlined: false }],
            truncated: false,
        };
        let ids: Vec<_> = (0..).take(STACKS + 5).map(|line| table.intern(stack(line))).collect();
        assert_eq!(table.len(), STACKS + 1);
        assert!(ids[STACKS..].iter().all(|id| *id == ids[STACKS]));
        assert!(table.get(ids[STACKS]).unwrap().frames[0].func.starts_with("[other: "));
        assert_eq!(table.intern(stack(7)), ids[7], "known stacks are still found");
    }
}

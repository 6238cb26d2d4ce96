//! User stacks: interned, leaf first, inlined frames expanded.

use std::{collections::HashMap, sync::Arc};

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

/// Every distinct stack once.
#[derive(Debug, Default)]
pub struct StackTable {
    stacks: Vec<Arc<Stack>>,
    ids: HashMap<Arc<Stack>, StackId>,
}

impl StackTable {
    /// The id of `stack`, new or known.
    pub fn intern(&mut self, stack: Stack) -> StackId {
        if let Some(id) = self.ids.get(&stack) {
            return *id;
        }
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

//! Inline trees: which calls the compiler replaced by the body of the called function, per function.
//!
//! Funcdata 3 of a function is an array of `runtime.inlinedCall`; pcdata 2 gives the array's index for each instruction, −1
//! for the function's own. `parentPc` is an instruction of the caller's, which leads to the next outer index.

use super::{
    super::{
        bytes::u32_at,
        error::{Error, NoSymbol},
        source::{FileRange, ForwardReader, Source},
    },
    Pclntab,
    functab::{Found, NameOffsets},
    pcvalue::{PcValues, STEP_BUDGET},
    types::{
        FUNCDATA_INLINE_TREE, FuncRecord, GoFuncOffset, InlinedCall, NO_FUNCDATA, NameOffset,
        PCDATA_INLINE_TREE_INDEX, PcTabOffset,
    },
};

/// Most steps in pc-value tables, and entries of inline trees, of one pass over all functions. A program of 72 MB takes
/// some 3 million.
const PASS_STEP_BUDGET: u32 = 1 << 27;

/// The members of `runtime.inlinedCall` are words of this size, and aligned to it.
const WORD_BYTES: u32 = 4;

/// Most places that are looked at one by one; a profile-guided build of a large program has a few dozen.
const MAX_MENTIONS: usize = 1 << 16;

/// Where inline trees lie, as offsets from `gofunc`. What lies between them is no tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct TreeExtent {
    /// Where the first one starts.
    start: u64,
    /// Where the last one ends.
    end: u64,
    /// All of them start at whole words.
    aligned: bool,
}

/// Where names that were asked for are mentioned.
#[derive(Debug)]
enum Mentions {
    /// At these offsets, in order, and nowhere else. Chance can put the same number where no name is.
    At(Vec<u32>),
    /// They cannot be told without decoding all trees.
    Unknown,
}

/// Addresses from `start_vaddr` up to, not including, `end_vaddr`, as linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcRange {
    /// First address.
    pub start_vaddr: u64,
    /// One past the last address.
    pub end_vaddr: u64,
}

/// One place where a function was inlined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinedInstance {
    /// The function that was inlined, as asked for.
    pub name: String,
    /// The function whose machine code holds it now.
    pub into: String,
    /// Address of that function, as linked.
    pub into_entry_vaddr: u64,
    /// Its instructions, without those of calls inlined into it in turn. Empty when only those are left of it.
    pub pcs: Vec<PcRange>,
}

/// The inline tree of one function.
#[derive(Clone, Copy, Debug)]
pub(super) struct InlineTree {
    tree: GoFuncOffset,
    indices: PcTabOffset,
}

impl Pclntab {
    /// The inline tree of a function; `None` when nothing was inlined into it (or inlining is not known at all).
    pub(super) fn inline_tree(&self, source: &Source, found: &Found) -> Result<Option<InlineTree>, Error> {
        if self.gofunc.is_none() {
            return Ok(None);
        }
        let tree = self.funcdata(source, found.func, &found.record, FUNCDATA_INLINE_TREE)?;
        let indices = self.pcdata(source, found.func, &found.record, PCDATA_INLINE_TREE_INDEX)?;
        Ok(tree.zip(indices).map(|(tree, indices)| InlineTree { tree, indices }))
    }

    /// The index in the inline tree at `pc` (counted from the function's entry); `None` for the function itself.
    pub(super) fn inline_index(
        &self,
        source: &Source,
        tree: InlineTree,
        pc: u64,
        budget: &mut u32,
    ) -> Result<Option<u32>, Error> {
        let table = PcValues::new(source, self.pctab, tree.indices, self.header.quantum, budget);
        Ok(table.find(pc)?.and_then(|index| u32::try_from(index).ok()))
    }

    /// The call at `index` of the tree.
    pub(super) fn inlined_call(
        &self,
        source: &Source,
        tree: InlineTree,
        index: u32,
    ) -> Result<InlinedCall, Error> {
        let layout = self.header.layout;
        let size = layout.inlined_call_bytes();
        let relative = u64::from(tree.tree.0) + u64::from(index) * size as u64;
        let offset = self.gofunc.and_then(|gofunc| gofunc.at(relative, size as u64)).ok_or_else(|| {
            Error::broken("inline tree", relative, format!("entry {index} beyond its segment"))
        })?;
        let mut buf = [0; 20];
        let buf = buf.get_mut(..size).unwrap_or_default();
        source.read(offset, buf)?;
        InlinedCall::decode(buf, layout).ok_or_else(|| Error::broken("inline tree", offset, "too short"))
    }

    /// Where each of `names` was inlined. Trees lie together: whether a name is in any of them is found by looking for its
    /// offset in all of them at once, some 10 ms for a program of 100 MB, and only what is found is decoded.
    pub(in super::super) fn inlined_instances(
        &self,
        source: &Source,
        names: &[&str],
    ) -> Result<Vec<InlinedInstance>, Error> {
        let mut instances = Vec::new();
        let wanted = self.name_offsets(source, names)?;
        let Some(gofunc) = self.gofunc.filter(|_| !wanted.is_empty()) else { return Ok(instances) };
        let candidates = match self.mentions(source, gofunc, &wanted)? {
            Mentions::At(places) if places.is_empty() => return Ok(instances),
            Mentions::At(places) => Some(self.trees_around(source, &places)?),
            Mentions::Unknown => None,
        };
        let mut budget = PASS_STEP_BUDGET;
        self.for_each_tree(source, |found, tree| {
            if candidates.as_ref().is_none_or(|trees| trees.binary_search(&tree.tree.0).is_ok()) {
                self.instances_in(source, found, tree, &wanted, &mut budget, &mut instances)?;
            }
            Ok(())
        })?;
        Ok(instances)
    }

    /// Visits every function that has an inline tree.
    fn for_each_tree(
        &self,
        source: &Source,
        mut visit: impl FnMut(&Found, InlineTree) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let layout = self.header.layout;
        let fixed = layout.func_bytes();
        self.for_each_function(source, fixed, |entry, end, bytes| {
            let Some(record) = FuncRecord::decode(bytes, layout) else { return Ok(()) };
            if u32::from(record.funcdata_count) <= FUNCDATA_INLINE_TREE {
                return Ok(());
            }
            let found = Found {
                func: entry.func,
                record,
                entry_vaddr: self.vaddr(entry.entry),
                end_vaddr: self.vaddr(end),
            };
            // Nearly always the offsets that follow the record are in memory with it.
            let word =
                |index: u32| u32_at(bytes, fixed.checked_add(usize::try_from(index).ok()?.checked_mul(4)?)?);
            let tree = match record.pcdata_count.checked_add(FUNCDATA_INLINE_TREE).and_then(word) {
                Some(NO_FUNCDATA) => None,
                Some(tree) if record.pcdata_count > PCDATA_INLINE_TREE_INDEX => {
                    let indices = word(PCDATA_INLINE_TREE_INDEX).map(PcTabOffset);
                    indices.map(|indices| InlineTree { tree: GoFuncOffset(tree), indices })
                }
                _ => self.inline_tree(source, &found)?,
            };
            tree.map_or(Ok(()), |tree| visit(&found, tree))
        })
    }

    /// The offsets from `gofunc` of all words of the inline trees, and of what lies between them, that are one of `wanted`.
    fn mentions(
        &self,
        source: &Source,
        gofunc: FileRange,
        wanted: &NameOffsets<'_>,
    ) -> Result<Mentions, Error> {
        let extent = self.tree_extent(source)?;
        if !extent.aligned {
            return Ok(Mentions::Unknown);
        }
        let start = gofunc.start.saturating_add(extent.start);
        let end = gofunc.start.saturating_add(extent.end);
        let mut reader = ForwardReader::new(source, FileRange { start, end: end.min(gofunc.end) });
        let mut places = Vec::new();
        let mut at = start;
        while at < end.min(gofunc.end) {
            let window = reader.window(at)?;
            for (index, word) in (0u64..).zip(window.chunks_exact(WORD_BYTES as usize)) {
                if u32_at(word, 0).is_some_and(|word| wanted.get(NameOffset(word)).is_some()) {
                    let inside = at - gofunc.start + index * u64::from(WORD_BYTES);
                    places.push(u32::try_from(inside).unwrap_or(u32::MAX));
                }
            }
            if places.len() > MAX_MENTIONS {
                return Ok(Mentions::Unknown);
            }
            at += (window.len() as u64).next_multiple_of(u64::from(WORD_BYTES));
        }
        Ok(Mentions::At(places))
    }

    /// Where the trees lie: a pass over all functions, once.
    fn tree_extent(&self, source: &Source) -> Result<TreeExtent, Error> {
        if let Some(extent) = self.trees.get() {
            return Ok(*extent);
        }
        let (mut start, mut last, mut aligned) = (u64::MAX, None::<InlineTree>, true);
        self.for_each_tree(source, |_, tree| {
            start = start.min(u64::from(tree.tree.0));
            aligned &= tree.tree.0.is_multiple_of(WORD_BYTES);
            if last.is_none_or(|last| last.tree.0 < tree.tree.0) {
                last = Some(tree);
            }
            Ok(())
        })?;
        let mut extent = TreeExtent { start, end: start, aligned };
        if let Some(last) = last {
            let mut budget = PASS_STEP_BUDGET;
            let entries = u64::from(self.entry_count(source, last, &mut budget)?);
            let bytes = entries.saturating_mul(self.header.layout.inlined_call_bytes() as u64);
            extent.end = u64::from(last.tree.0).saturating_add(bytes);
        }
        Ok(*self.trees.get_or_init(|| extent))
    }

    /// The starts of the trees that hold `places` if any does, in order: of each place the last start before it.
    fn trees_around(&self, source: &Source, places: &[u32]) -> Result<Vec<u32>, Error> {
        let mut before = vec![None; places.len()];
        self.for_each_tree(source, |_, tree| {
            let next = places.partition_point(|place| *place < tree.tree.0);
            if let Some(before) = before.get_mut(next) {
                *before = (*before).max(Some(tree.tree.0));
            }
            Ok(())
        })?;
        let mut highest = None;
        let mut trees: Vec<u32> = before
            .into_iter()
            .filter_map(|before| {
                highest = highest.max(before);
                highest
            })
            .collect();
        trees.dedup();
        Ok(trees)
    }

    /// How many entries a tree has. It does not say so; the highest index in use does.
    fn entry_count(&self, source: &Source, tree: InlineTree, budget: &mut u32) -> Result<u32, Error> {
        let mut count = 0;
        let mut table = PcValues::new(source, self.pctab, tree.indices, self.header.quantum, budget);
        while let Some(range) = table.next()? {
            count = count.max(u32::try_from(range.value).map_or(0, |index| index.saturating_add(1)));
        }
        Ok(count)
    }

    fn instances_in(
        &self,
        source: &Source,
        found: &Found,
        tree: InlineTree,
        wanted: &NameOffsets<'_>,
        budget: &mut u32,
        instances: &mut Vec<InlinedInstance>,
    ) -> Result<(), Error> {
        let broken = |why: String| Error::broken("inline tree", u64::from(tree.tree.0), why);
        let count = self.entry_count(source, tree, budget)?;
        *budget = budget.checked_sub(count).ok_or_else(|| broken(format!("{count} entries")))?;
        for index in 0..count {
            let call = self.inlined_call(source, tree, index)?;
            let Some(name) = wanted.get(call.name) else { continue };
            let mut pcs = Vec::new();
            let mut table = PcValues::new(source, self.pctab, tree.indices, self.header.quantum, budget);
            while let Some(range) = table.next()? {
                if u32::try_from(range.value) == Ok(index) {
                    pcs.push(PcRange {
                        start_vaddr: found.entry_vaddr.saturating_add(range.start),
                        end_vaddr: found.entry_vaddr.saturating_add(range.end),
                    });
                }
            }
            instances.push(InlinedInstance {
                name: name.to_owned(),
                into: self.name(source, found.record.name)?,
                into_entry_vaddr: found.entry_vaddr,
                pcs,
            });
        }
        Ok(())
    }

    /// Holds a `gofunc` address against the trees of the first functions that have one: every entry met must name a
    /// function and point into the one it belongs to. `Ok(None)` when no function has a tree.
    pub(in super::super) fn gofunc_fits(&self, source: &Source) -> Result<Option<bool>, Error> {
        const TREES_CHECKED: u32 = 8;
        const FUNCTIONS_LOOKED_AT: u64 = 4096;
        let mut checked = 0;
        for index in 0..self.header.func_count.min(FUNCTIONS_LOOKED_AT) {
            let entry = self.functab_entry(source, index)?;
            let end = self.function_start(source, index + 1)?;
            let found = Found {
                func: entry.func,
                record: self.record(source, entry.func)?,
                entry_vaddr: self.vaddr(entry.entry),
                end_vaddr: self.vaddr(end),
            };
            let Some(tree) = self.inline_tree(source, &found)? else { continue };
            if !self.tree_fits(source, &found, tree).unwrap_or(false) {
                return Ok(Some(false));
            }
            checked += 1;
            if checked == TREES_CHECKED {
                break;
            }
        }
        Ok((checked > 0).then_some(true))
    }

    fn tree_fits(&self, source: &Source, found: &Found, tree: InlineTree) -> Result<bool, NoSymbol> {
        let mut budget = STEP_BUDGET;
        let mut table = PcValues::new(source, self.pctab, tree.indices, self.header.quantum, &mut budget);
        let size = found.end_vaddr.saturating_sub(found.entry_vaddr);
        while let Some(range) = table.next()? {
            let Ok(index) = u32::try_from(range.value) else { continue };
            let call = self.inlined_call(source, tree, index)?;
            let parent_inside = u64::try_from(call.parent_pc).is_ok_and(|pc| pc < size);
            // The byte before a name is the end of the one before it.
            let at_start_of_name = match call.name.0.checked_sub(1) {
                None => true,
                Some(before) => {
                    let before = self.funcname.at(u64::from(before), 2);
                    before.is_some_and(|before| {
                        source.read_array(before).is_ok_and(|[end, start]| end == 0 && start != 0)
                    })
                }
            };
            if !parent_inside || !at_start_of_name {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

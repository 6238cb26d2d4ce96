//! Inline trees: which calls the compiler replaced by the body of the called function, per function.
//!
//! Funcdata 3 of a function is an array of `runtime.inlinedCall`; pcdata 2 gives the array's index for each instruction, −1
//! for the function's own. `parentPc` is an instruction of the caller's, which leads to the next outer index.

use std::collections::HashMap;

use super::{
    super::{
        error::{Error, NoSymbol},
        source::Source,
    },
    Pclntab,
    functab::Found,
    pcvalue::{PcValues, STEP_BUDGET},
    types::{
        FUNCDATA_INLINE_TREE, FuncRecord, GoFuncOffset, InlinedCall, NameOffset, PCDATA_INLINE_TREE_INDEX,
        PcTabOffset,
    },
};

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

    /// Where each of `names` was inlined: a pass over all functions and their trees, some 100 ms for a big program.
    pub(in super::super) fn inlined_instances(
        &self,
        source: &Source,
        names: &[&str],
    ) -> Result<Vec<InlinedInstance>, Error> {
        let mut instances = Vec::new();
        let wanted = self.name_offsets(source, names)?;
        if wanted.is_empty() {
            return Ok(instances);
        }
        let layout = self.header.layout;
        self.for_each_function(source, layout.func_bytes(), |entry, end, bytes| {
            let Some(record) = FuncRecord::decode(bytes, layout) else { return Ok(()) };
            let found = Found {
                func: entry.func,
                record,
                entry_vaddr: self.vaddr(entry.entry),
                end_vaddr: self.vaddr(end),
            };
            if let Some(tree) = self.inline_tree(source, &found)? {
                self.instances_in(source, &found, tree, &wanted, &mut instances)?;
            }
            Ok(())
        })?;
        Ok(instances)
    }

    fn instances_in(
        &self,
        source: &Source,
        found: &Found,
        tree: InlineTree,
        wanted: &HashMap<NameOffset, &str>,
        instances: &mut Vec<InlinedInstance>,
    ) -> Result<(), Error> {
        let mut budget = STEP_BUDGET;
        let mut table = PcValues::new(source, self.pctab, tree.indices, self.header.quantum, &mut budget);
        // A function of n bytes has less than n inlined calls; a broken index beyond that is no index.
        let most = found.end_vaddr.saturating_sub(found.entry_vaddr);
        let mut ranges: HashMap<u32, Vec<PcRange>> = HashMap::new();
        let mut count = 0;
        while let Some(range) = table.next()? {
            let Ok(index) = u32::try_from(range.value) else { continue };
            if u64::from(index) >= most {
                return Err(Error::broken("inline tree", u64::from(tree.tree.0), format!("index {index}")));
            }
            count = count.max(index + 1);
            ranges.entry(index).or_default().push(PcRange {
                start_vaddr: found.entry_vaddr.saturating_add(range.start),
                end_vaddr: found.entry_vaddr.saturating_add(range.end),
            });
        }
        for index in 0..count {
            let call = self.inlined_call(source, tree, index)?;
            if let Some(name) = wanted.get(&call.name) {
                instances.push(InlinedInstance {
                    name: (*name).to_owned(),
                    into: self.name(source, found.record.name)?,
                    into_entry_vaddr: found.entry_vaddr,
                    pcs: ranges.remove(&index).unwrap_or_default(),
                });
            }
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
            let name_start = call.name.0.checked_sub(1).map(NameOffset);
            // The byte before a name is the end of the one before it.
            let at_start_of_name = match name_start {
                None => true,
                Some(before) => self.raw_name(source, before).is_ok_and(|name| name.is_empty()),
            };
            if !parent_inside || !at_start_of_name {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

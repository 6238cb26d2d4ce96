//! pc-value tables: a value for each range of instructions of a function, delta-coded.
//!
//! Encoding, from `src/runtime/symtab.go` (`step`, `pcvalue`): pairs of a zigzag varint (change of the value, which starts at
//! −1) and a varint (how many instruction quanta the value holds for); a zero change that is not the first ends the table.

use super::{
    super::{
        error::Error,
        source::{FileRange, Source},
    },
    types::PcTabOffset,
};

/// Most steps that one question may take over all the tables it needs. The biggest generated functions have some 100,000
/// steps; a broken table is stopped here, after a few milliseconds.
pub(super) const STEP_BUDGET: u32 = 1 << 20;

/// A value and the program counters it holds for, as offsets from the function's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PcValue {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) value: i32,
}

/// Walks one table.
pub(super) struct PcValues<'s, 'b> {
    source: &'s Source,
    at: u64,
    end: u64,
    quantum: u8,
    buffer: [u8; 128],
    filled: usize,
    taken: usize,
    pc: u64,
    value: i32,
    first: bool,
    budget: &'b mut u32,
}

impl<'s, 'b> PcValues<'s, 'b> {
    /// The table at `offset` of pctab; an offset of 0 is the empty table.
    pub(super) fn new(
        source: &'s Source,
        pctab: FileRange,
        offset: PcTabOffset,
        quantum: u8,
        budget: &'b mut u32,
    ) -> Self {
        let (at, end) = if offset.0 == 0 {
            (pctab.end, pctab.end)
        } else {
            (pctab.start.saturating_add(u64::from(offset.0)), pctab.end)
        };
        Self {
            source,
            at,
            end,
            quantum,
            buffer: [0; 128],
            filled: 0,
            taken: 0,
            pc: 0,
            value: -1,
            first: offset.0 != 0,
            budget,
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        if self.taken == self.filled {
            let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let count = left.min(self.buffer.len());
            let buffer = self.buffer.get_mut(..count).filter(|buffer| !buffer.is_empty());
            let buffer =
                buffer.ok_or_else(|| Error::broken("pctab", self.at, "a table runs past its end"))?;
            self.source.read(self.at, buffer)?;
            self.at += count as u64;
            self.filled = count;
            self.taken = 0;
        }
        let byte = self.buffer.get(self.taken).copied();
        self.taken += 1;
        byte.ok_or_else(|| Error::broken("pctab", self.at, "a table runs past its end"))
    }

    /// A varint of 32 bits as `runtime.readvarint` reads it.
    fn varint(&mut self) -> Result<u32, Error> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::broken("pctab", self.at, "a number has more than 32 bits"))
    }

    /// The next range, or `None` at the end of the table.
    pub(super) fn next(&mut self) -> Result<Option<PcValue>, Error> {
        if self.at == self.end && self.filled == 0 {
            return Ok(None);
        }
        *self.budget =
            self.budget.checked_sub(1).ok_or_else(|| Error::broken("pctab", self.at, "endless table"))?;
        let change = self.varint()?;
        if change == 0 && !self.first {
            (self.at, self.filled, self.taken) = (self.end, 0, 0);
            return Ok(None);
        }
        self.first = false;
        let magnitude = (change >> 1).cast_signed();
        let delta = if change & 1 == 0 { magnitude } else { !magnitude };
        self.value = self.value.wrapping_add(delta);
        let start = self.pc;
        let length = u64::from(self.varint()?) * u64::from(self.quantum);
        self.pc = self.pc.saturating_add(length);
        Ok(Some(PcValue { start, end: self.pc, value: self.value }))
    }

    /// The value at `pc`, counted from the function's entry. `None` when the table ends before, which Go treats as −1.
    pub(super) fn find(mut self, pc: u64) -> Result<Option<i32>, Error> {
        while let Some(range) = self.next()? {
            if pc < range.end {
                return Ok(Some(range.value));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(table: &[u8], quantum: u8) -> Result<Vec<PcValue>, Error> {
        let mut bytes = vec![0xff];
        bytes.extend_from_slice(table);
        let range = FileRange { start: 0, end: bytes.len() as u64 };
        let source = Source::new(Box::new(bytes)).unwrap();
        let mut budget = 1000;
        let mut walk = PcValues::new(&source, range, PcTabOffset(1), quantum, &mut budget);
        let mut all = Vec::new();
        while let Some(value) = walk.next()? {
            all.push(value);
        }
        assert_eq!(walk.next().unwrap(), None, "stays at the end");
        Ok(all)
    }

    #[test]
    fn decodes_deltas() {
        // −1 + 1 for 4 quanta, + 64 for 300, − 65 for 1
        let table = [2, 4, 0x80, 1, 0xac, 2, 0x81, 1, 1, 0];
        let all = values(&table, 4).unwrap();
        assert_eq!(
            all,
            [
                PcValue { start: 0, end: 16, value: 0 },
                PcValue { start: 16, end: 1216, value: 64 },
                PcValue { start: 1216, end: 1220, value: -1 },
            ]
        );
    }

    #[test]
    fn a_first_change_of_zero_does_not_end_the_table() {
        assert_eq!(values(&[0, 7, 0], 1).unwrap(), [PcValue { start: 0, end: 7, value: -1 }]);
    }

    #[test]
    fn broken_tables_are_errors() {
        assert!(values(&[2, 4], 1).is_err(), "no end");
        assert!(values(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80], 1).is_err(), "number too long");
        assert!(values(&[2, 0].repeat(2000), 1).is_err(), "longer than the budget");
    }
}

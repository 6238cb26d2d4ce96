//! TEMPORARY
use std::{fs::File, os::unix::fs::FileExt};
#[derive(Debug)]
pub struct GoBinary { f: File, segs: Vec<(u64,u64,u64)>, pub entry: u64, pub version: String, tab: Vec<u8>, tab_at: u64, text: u64, gofunc: u64, old: bool }
#[derive(Debug)]
pub struct NoSymbol;
impl std::fmt::Display for NoSymbol { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("not in Go's text") } }
#[derive(Debug)]
pub struct Location { pub func: String, pub file: String, pub line: u32, pub inlined: bool }
fn u32_(b: &[u8], o: usize) -> Option<u32> { Some(u32::from_le_bytes(b.get(o..o+4)?.try_into().ok()?)) }
fn u64_(b: &[u8], o: usize) -> Option<u64> { Some(u64::from_le_bytes(b.get(o..o+8)?.try_into().ok()?)) }
fn cstr(b: &[u8], o: usize) -> Option<String> { let s = b.get(o..)?; let n = s.iter().position(|c| *c == 0)?; Some(String::from_utf8_lossy(&s[..n]).into_owned()) }
fn varint(b: &[u8], o: &mut usize) -> Option<u32> { let mut v = 0u32; let mut s = 0; loop { let c = *b.get(*o)?; *o += 1; v |= u32::from(c & 0x7f) << s; if c < 0x80 { return Some(v) } s += 7; } }
impl GoBinary {
    pub fn open(f: File) -> Option<Self> {
        use object::{Object, ObjectSection, ObjectSegment, ReadCache};
        let cache = ReadCache::new(f.try_clone().ok()?);
        let o = object::File::parse(&cache).ok()?;
        let segs = o.segments().map(|s| (s.address(), s.size(), s.file_range().0)).collect();
        let sec = |n: &[&str]| n.iter().find_map(|n| o.section_by_name(n));
        let t = sec(&[".gopclntab", ".data.rel.ro.gopclntab"])?;
        let tab = t.data().ok()?.to_vec(); let tab_at = t.address();
        let bi = sec(&[".go.buildinfo"])?.data().ok()?.to_vec();
        let mut p = 32; let n = varint(&bi, &mut p)? as usize; let version = String::from_utf8_lossy(bi.get(p..p+n)?).into_owned();
        let minor: u32 = version.split('.').nth(1)?.parse().ok()?;
        let funcname = u64_(&tab, 32)?;
        let _ = funcname;
        let md = if let Some(s) = sec(&[".go.module"]) { s.data().ok()?.to_vec() } else {
            let d = sec(&[".noptrdata"])?.data().ok()?.to_vec();
            let pos = (0..d.len()/8).map(|i| i*8).find(|i| u64_(&d, *i) == Some(tab_at) && u64_(&d, *i+8) == Some(tab_at + u64_(&tab, 32).unwrap_or(0)))?;
            d[pos..].to_vec() };
        let text = u64_(&md, 176)?;
        let gofunc = u64_(&md, if minor <= 19 { 304 } else if minor <= 26 { 320 } else { 344 })?;
        let entry = o.entry();
        drop(o); drop(cache);
        Some(Self { f, segs, entry, version, tab, tab_at, text, gofunc, old: minor <= 19 })
    }
    pub fn file_offset(&self, a: u64) -> Option<u64> { self.segs.iter().find(|(v,s,_)| a >= *v && a < v+s).map(|(v,_,o)| a - v + o) }
    pub fn read(&self, a: u64, n: usize) -> Option<Vec<u8>> { let mut b = vec![0; n]; self.f.read_exact_at(&mut b, self.file_offset(a)?).ok()?; Some(b) }
    fn nfunc(&self) -> usize { u64_(&self.tab, 8).unwrap_or(0) as usize }
    fn off(&self, i: usize) -> usize { u64_(&self.tab, 24 + 8*i).unwrap_or(0) as usize }
    fn pcln(&self) -> usize { self.off(5) }
    fn func(&self, i: usize) -> Option<(u64, usize)> { let b = self.pcln() + 8*i; Some((self.text + u64::from(u32_(&self.tab, b)?), self.pcln() + u32_(&self.tab, b+4)? as usize)) }
    pub fn function(&self, name: &str) -> Option<(u64, u64)> { (0..self.nfunc()).find_map(|i| { let (e, f) = self.func(i)?; (cstr(&self.tab, self.off(1) + u32_(&self.tab, f+4)? as usize)? == name).then(|| (e, self.func(i+1).map(|x| x.0).unwrap_or(e)) ) }) }
    pub fn at(&self, pc: u64) -> Option<(u64, usize)> { let n = self.nfunc(); let (mut lo, mut hi) = (0, n); while lo < hi { let m = (lo+hi)/2; if self.func(m)?.0 <= pc { lo = m+1 } else { hi = m } } if lo == 0 { return None } if lo == n && self.func(n).is_none() { return None } self.func(lo-1) }
    fn pcvalue(&self, off: u32, entry: u64, pc: u64) -> Option<i32> { if off == 0 { return None } let mut p = self.off(4) + off as usize; let mut v = -1i32; let mut at = entry; let mut first = true; loop { let d = varint(&self.tab, &mut p)?; if d == 0 && !first { return None } first = false; v = v.wrapping_add(((d >> 1) as i32) ^ -((d & 1) as i32)); at += u64::from(varint(&self.tab, &mut p)?); if pc < at { return Some(v) } } }
    pub fn sp_delta(&self, pc: u64) -> Option<i64> { let (e, f) = self.at(pc)?; self.pcvalue(u32_(&self.tab, f+16)?, e, pc).map(i64::from) }
    fn name(&self, off: u32) -> String { cstr(&self.tab, self.off(1) + off as usize).unwrap_or_default() }
    fn file(&self, f: usize, fno: i32) -> String { let cu = u32_(&self.tab, f+32).unwrap_or(0) as usize; let o = u32_(&self.tab, self.off(2) + 4*(cu + fno.max(0) as usize)).unwrap_or(0); cstr(&self.tab, self.off(3) + o as usize).unwrap_or_default() }
    pub fn symbolize(&self, pc: u64) -> Result<Vec<Location>, NoSymbol> {
        let (e, f) = self.at(pc).ok_or(NoSymbol)?;
        let mut out = vec![];
        let g = |p: u64| -> Option<(String, u32)> { Some((self.file(f, self.pcvalue(u32_(&self.tab, f+20)?, e, p)?), self.pcvalue(u32_(&self.tab, f+24)?, e, p)? as u32)) };
        let npc = u32_(&self.tab, f+28).unwrap_or(0) as usize; let hdr = if self.old { 40 } else { 44 };
        let nfd = *self.tab.get(f + hdr - 1).unwrap_or(&0) as usize;
        let mut cur = pc;
        if npc > 2 && nfd > 3 {
            let tree = u32_(&self.tab, f + hdr + 4*npc + 4*3).unwrap_or(u32::MAX);
            if tree != u32::MAX { for _ in 0..64 {
                let Some(ix) = self.pcvalue(u32_(&self.tab, f + hdr + 8).unwrap_or(0), e, cur) else { break };
                if ix < 0 { break }
                let (sz, no, pp) = if self.old { (20, 12, 16) } else { (16, 4, 8) };
                let Some(ent) = self.read(self.gofunc + u64::from(tree) + ix as u64 * sz, sz as usize) else { break };
                let (file, line) = g(cur).unwrap_or_default();
                out.push(Location { func: self.name(u32_(&ent, no).unwrap_or(0)), file, line, inlined: true });
                cur = e + u64::from(u32_(&ent, pp).unwrap_or(0));
            } }
        }
        let (file, line) = g(cur).unwrap_or_default();
        out.push(Location { func: self.name(u32_(&self.tab, f+4).unwrap_or(0)), file, line, inlined: false });
        let _ = self.tab_at;
        Ok(out)
    }
}

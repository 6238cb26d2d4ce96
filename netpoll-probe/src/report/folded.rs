//! Folded stacks: `root;…;leaf;[phase] nanoseconds`, one line for each stack and phase, sorted.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{Options, name, unit::clean};
use crate::model::{
    profile::{Profile, StackKey},
    stack::Frame,
    wait::Phase,
};

/// Writes the folded stacks.
pub(super) fn render(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    for (stack, ns) in stacks(profile, options, &|frame| name::unescape(&frame.func)) {
        writeln!(out, "{stack} {ns}")?;
    }
    Ok(())
}

/// The folded stacks and their time, ns. Stacks of the same name are one; a phase that took no time has no line.
pub(super) fn stacks(
    profile: &Profile,
    options: &Options,
    frame_name: &dyn Fn(&Frame) -> String,
) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    let mut prefixes: BTreeMap<StackKey, String> = BTreeMap::new();
    profile.for_each_leaf(options.group_by, options.include_idle, |leaf| {
        let stack = prefixes.entry(leaf.stack).or_insert_with(|| fold(profile, leaf.stack, frame_name));
        let group = leaf.group.map(|key| frame(&name::group(profile, key)) + ";").unwrap_or_default();
        for phase in Phase::ALL {
            let ns = leaf.phases.get_ns(phase);
            if ns > 0 {
                *sums.entry(format!("{group}{stack};[{phase}]")).or_insert(0) += ns;
            }
        }
    });
    sums
}

/// One stack, root first. `runtime.goexit`, below every goroutine, says nothing.
fn fold(profile: &Profile, key: StackKey, frame_name: &dyn Fn(&Frame) -> String) -> String {
    let Some(stack) = profile.stack(key) else {
        return if key == StackKey::Other { name::OTHER_STACKS } else { name::NO_STACK }.to_owned();
    };
    let cut = stack.truncated.then(|| "[cut short]".to_owned());
    let frames = stack.frames.iter().rev().filter(|frame| &*frame.func != "runtime.goexit");
    cut.into_iter().chain(frames.map(|known| frame(&frame_name(known)))).collect::<Vec<_>>().join(";")
}

/// A name that stays one frame: the semicolon is the separator.
pub(super) fn frame(name: &str) -> String {
    clean(name).replace(';', ":")
}

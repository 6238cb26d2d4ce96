//! The offsets that are used, by the names that Go gives the members.

use crate::{
    goruntime::{
        epoll_data::EpollData,
        layout::{Layout, LayoutSource},
    },
    model::inspection::{Member, Offsets, Struct},
};

/// A binary's layouts, for people and scripts.
#[must_use]
pub fn describe(layout: &Layout) -> Offsets {
    let members = |members: &[(&'static str, Option<u32>)]| -> Vec<Member> {
        members.iter().filter_map(|(name, offset)| offset.map(|offset| Member { name, offset })).collect()
    };
    let (g, m, p, pd) = (layout.offsets.g, layout.offsets.m, layout.offsets.p, layout.offsets.poll_desc);
    Offsets {
        source: match layout.source {
            LayoutSource::Dwarf => "the binary's DWARF".to_owned(),
            LayoutSource::Table(release) => format!("the table of known versions, {release}"),
            LayoutSource::Confirmed(release) => {
                format!("the table of known versions, {release}, confirmed by the process's memory")
            }
        },
        epoll_data: match layout.epoll_data {
            EpollData::Pointer => "the pollDesc's address".to_owned(),
            EpollData::Tagged { tag_bits, align_bits } => format!(
                "the pollDesc's address without its {align_bits} low bits, and {tag_bits} bits of fdseq"
            ),
        },
        structs: vec![
            Struct {
                name: "runtime.g",
                size: Some(g.size),
                members: members(&[
                    ("stack.lo", Some(g.stack_lo)),
                    ("stack.hi", Some(g.stack_hi)),
                    ("m", Some(g.m)),
                    ("sched.sp", Some(g.sched_sp)),
                    ("sched.pc", Some(g.sched_pc)),
                    ("sched.bp", Some(g.sched_bp)),
                    ("syscallsp", Some(g.syscall_sp)),
                    ("syscallpc", Some(g.syscall_pc)),
                    ("param", Some(g.param)),
                    ("atomicstatus", Some(g.atomic_status)),
                    ("goid", Some(g.goid)),
                    ("waitsince", Some(g.wait_since)),
                    ("waitreason", Some(g.wait_reason)),
                    ("trackingSeq", Some(g.tracking_seq)),
                    ("gopc", Some(g.gopc)),
                    ("startpc", Some(g.start_pc)),
                    ("labels", Some(g.labels)),
                ]),
            },
            Struct {
                name: "runtime.m",
                size: None,
                members: members(&[
                    ("g0", Some(m.g0)),
                    ("procid", Some(m.procid)),
                    ("curg", Some(m.curg)),
                    ("p", Some(m.p)),
                    ("syscalltick", Some(m.syscall_tick)),
                ]),
            },
            Struct {
                name: "runtime.p",
                size: None,
                members: members(&[
                    ("id", Some(p.id)),
                    ("status", Some(p.status)),
                    ("schedtick", Some(p.sched_tick)),
                    ("syscalltick", Some(p.syscall_tick)),
                    ("m", Some(p.m)),
                ]),
            },
            Struct {
                name: "runtime.pollDesc",
                size: Some(pd.size),
                members: members(&[
                    ("fd", Some(pd.fd)),
                    ("fdseq", pd.fdseq),
                    ("atomicInfo", Some(pd.atomic_info)),
                    ("rg", Some(pd.rg)),
                    ("wg", Some(pd.wg)),
                    ("rd", Some(pd.rd)),
                    ("wd", Some(pd.wd)),
                ]),
            },
        ],
    }
}

//! What lies beyond what the programs read of a struct at once is named (`Config::beyond_reach`). Here and not beside it, because the committed
//! objects are held to every byte of the sources.

use netpoll_probe_common::{
    config::Config,
    limit::{POLL_DESC_BYTES, RUNTIME_STRUCT_BYTES},
};

/// How a field is set.
type Field = fn(&mut Config) -> &mut u32;

/// All fields that are read together with others, and where the last one may be. A `g` and an `m` are read up to what is last in them.
const FIELDS: [(&str, Field, u32); 9] = [
    ("runtime.pollDesc.fd", |config| &mut config.pd_fd, 56),
    ("runtime.pollDesc.fdseq", |config| &mut config.pd_fdseq, 56),
    ("runtime.pollDesc.atomicInfo", |config| &mut config.pd_atomic_info, 56),
    ("runtime.pollDesc.rg", |config| &mut config.pd_rg, 56),
    ("runtime.pollDesc.wg", |config| &mut config.pd_wg, 56),
    ("runtime.g.goid", |config| &mut config.g_goid, 352),
    ("runtime.g.labels", |config| &mut config.g_labels, 504),
    ("runtime.m.g0", |config| &mut config.m_g0, 208),
    ("runtime.m.p", |config| &mut config.m_p, 504),
];

/// As Go 1.26 has it.
fn real() -> Config {
    Config {
        g_goid: 152,
        g_labels: 352,
        m_g0: 0,
        m_p: 208,
        pd_has_fdseq: 1,
        pd_fd: 8,
        pd_fdseq: 16,
        pd_atomic_info: 24,
        pd_rg: 32,
        pd_wg: 40,
        ..Config::default()
    }
}

#[test]
fn a_field_is_within_reach_up_to_the_last_place() {
    assert_eq!(real().beyond_reach(), None);
    for (name, field, last) in FIELDS {
        let with = |at: u32| {
            let mut config = real();
            *field(&mut config) = at;
            config.beyond_reach()
        };
        assert_eq!(with(last), None, "{name}");
        assert_eq!(with(last + 8), Some((name, last + 8)));
        assert_eq!(with(1 << 31), Some((name, 1 << 31)));
        for at in last - 7..last {
            assert_eq!(with(at), Some((name, at)), "unaligned");
        }
    }
}

/// The bounds are those of what the programs read.
#[test]
fn the_last_place_is_where_the_reads_end() {
    let last_of = |name: &str| FIELDS.iter().find(|field| field.0 == name).map(|field| field.2 as usize);
    assert_eq!(last_of("runtime.pollDesc.wg"), Some(POLL_DESC_BYTES - 8));
    assert_eq!(last_of("runtime.g.labels"), Some(RUNTIME_STRUCT_BYTES - 8));
    let mut config = real();
    // What is last is what is beyond, and not what lies before it.
    config.g_labels = RUNTIME_STRUCT_BYTES as u32;
    config.g_goid = RUNTIME_STRUCT_BYTES as u32 - 8;
    assert_eq!(config.beyond_reach(), Some(("runtime.g.labels", 512)));
    config.m_p = RUNTIME_STRUCT_BYTES as u32;
    config.g_labels = 352;
    config.g_goid = 152;
    assert_eq!(config.beyond_reach(), Some(("runtime.m.p", 512)));
}

//! The bytes of a label set → labels.

use std::sync::Arc;

use netpoll_probe_common::record::LabelsRecord;

use crate::model::wait::Labels;

/// The labels of a record.
pub(super) fn of(record: &LabelsRecord) -> Labels {
    let text = |bytes: &[u8], length: u32| -> Arc<str> {
        let kept = bytes.get(..length as usize).unwrap_or_default();
        String::from_utf8_lossy(kept).into()
    };
    let mut labels: Vec<(Arc<str>, Arc<str>)> = record
        .labels
        .iter()
        .filter(|label| label.key_length > 0)
        .map(|label| (text(&label.key, label.key_length), text(&label.value, label.value_length)))
        .collect();
    labels.sort();
    labels.into()
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn labels_are_sorted_and_broken_lengths_are_empty() {
        let mut record = LabelsRecord::new_zeroed();
        for (label, (key, value)) in record.labels.iter_mut().zip([("tenant", "acme"), ("op", "read")]) {
            label.key[..key.len()].copy_from_slice(key.as_bytes());
            label.value[..value.len()].copy_from_slice(value.as_bytes());
            label.key_length = u32::try_from(key.len()).unwrap();
            label.value_length = u32::try_from(value.len()).unwrap();
        }
        record.labels[2].key_length = u32::MAX;
        let labels: Vec<_> = of(&record).iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["=", "op=read", "tenant=acme"]);
    }
}

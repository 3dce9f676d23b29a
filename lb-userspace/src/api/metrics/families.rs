//! Metrics as the encoder wants them.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// A metric's labels and value.
pub(super) type Sample<'a, const LABELS: usize, V = u64> = ([(&'static str, &'a str); LABELS], V);

/// What is counted of something: a name, help and the value.
pub(super) type Row<T> = (&'static str, &'static str, fn(&T) -> u64);

pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

impl Families<'_> {
    pub(super) fn counter<'a, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a, LABELS>>,
    ) -> fmt::Result {
        let mut family = (self.0).encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            match LABELS {
                0 => family.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                _ => ConstCounter::new(value).encode(family.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }

    pub(super) fn gauge<'a, const LABELS: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a, LABELS, V>>,
    ) -> fmt::Result {
        let mut family = (self.0).encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            match LABELS {
                0 => family.encode_gauge(&value)?,
                _ => ConstGauge::new(value).encode(family.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }
}

//! What many rounds say.

/// The value that `part` of the values are below.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * part) as usize;
    values
        .get(index.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The middle of what two are to each other, round by round: what shares the machine slows all that
/// is near in time.
pub(crate) fn median_of_pairs<R>(
    rounds: &[R],
    others: &[R],
    compare: impl Fn(&R, &R) -> f64,
) -> f64 {
    median(
        rounds
            .iter()
            .zip(others)
            .map(|(one, other)| compare(one, other)),
    )
}

/// The middle one.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(&values.collect::<Vec<_>>(), 0.5)
}

//! Delta_m: how much better than one model for each task.

/// Swin-T trained for each task of PASCAL-Context alone, as papers print it: degrees for normals, percent for all others; divide these by
/// 100 beside a [`Meter`](super::Meter), which gives fractions.
pub const PASCAL_SINGLE_TASK: [(&str, f64); 4] =
    [("semseg", 67.21), ("human_parts", 61.93), ("sal", 62.35), ("normals", 17.97)];

/// Swin-T trained for each task of NYUD alone: percent for semseg, metres for depth, degrees for normals.
pub const NYUD_SINGLE_TASK: [(&str, f64); 3] = [("semseg", 42.65), ("depth", 0.60), ("normals", 22.83)];

/// Delta_m: by what share figures are better than their references, on average over the tasks; `None` without a task.
///
/// `1/T Σ ± (value - reference) / |reference|`, minus where lower is better.
///
/// Takes value, reference, and whether higher is better. A reference nearer to 0 than 1e-3 counts as that, so that a metric that
/// starts at nothing does not outweigh all others.
///
/// ```
/// use tadformer::metrics::delta_m;
/// let gain = delta_m([(60.0, 50.0, true), (18.0, 20.0, false)]);
/// assert!((gain.unwrap() - 0.15).abs() < 1e-12);
/// ```
pub fn delta_m(tasks: impl IntoIterator<Item = (f64, f64, bool)>) -> Option<f64> {
    let gains: Vec<f64> = tasks
        .into_iter()
        .map(|(value, reference, higher)| {
            let gain = (value - reference) / reference.abs().max(1e-3);
            if higher { gain } else { -gain }
        })
        .collect();
    (!gains.is_empty()).then(|| gains.iter().sum::<f64>() / gains.len() as f64)
}

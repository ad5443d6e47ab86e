//! timm's names, which are the crate's, and the original code's, from which timm's came.

/// `layers.I.downsample` at the end of stage I to the start of the next.
pub(super) fn merging_at_start(name: &str) -> String {
    moved_merging(name, |stage| stage.checked_add(1)).unwrap_or_else(|| name.to_owned())
}

/// `layers.I.downsample` at the start of stage I to the end of the one before.
pub(super) fn merging_at_end(name: &str) -> String {
    moved_merging(name, |stage| stage.checked_sub(1)).unwrap_or_else(|| name.to_owned())
}

fn moved_merging(name: &str, to: fn(usize) -> Option<usize>) -> Option<String> {
    let (stage, rest) = name.strip_prefix("layers.")?.split_once(".downsample.")?;
    Some(format!("layers.{}.downsample.{rest}", to(stage.parse().ok()?)?))
}

/// The original's name as timm's: merging at the stage's start, the classifier one name further down.
pub(super) fn of_original(name: &str) -> String {
    match name.strip_prefix("head.") {
        Some(end @ ("weight" | "bias")) => format!("head.fc.{end}"),
        _ => merging_at_start(name),
    }
}

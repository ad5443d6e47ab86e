//! "Did you mean": the name most like one that is missing.

/// The candidate most like `name`, where one is alike at all.
///
/// Looks at no more than a few thousand candidates of ordinary length, so that a hostile file costs little.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const CANDIDATES: usize = 4096;
    const LENGTH: usize = 256;
    candidates
        .take(CANDIDATES)
        .filter(|candidate| candidate.len() <= LENGTH)
        .map(|candidate| (strsim::normalized_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_closest_name_or_none() {
        let names = ["layers.0.norm1.weight", "layers.0.norm2.weight", "head.bias"];
        assert_eq!(nearest("layers.0.norm1.weigth", names.into_iter()), Some("layers.0.norm1.weight"));
        assert_eq!(nearest("zzz", names.into_iter()), None);
    }
}

//! Edges by hand, and what has to hold whatever the maps.

use super::*;
use rand::{Rng as _, SeedableRng as _};

const SIZE: [usize; 2] = [24, 40];

fn truth(rule: BoundaryRule, label: &[u8], size: [usize; 2], unknown: Option<u8>) -> BoundaryTruth {
    BoundaryTruth::new(rule, Raster::new(label, size).unwrap(), unknown)
}

/// Segments and a prediction, drawn from a seed.
fn drawn(seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let centres: Vec<(usize, usize)> =
        (0..6).map(|_| (rng.random_range(0..SIZE[0]), rng.random_range(0..SIZE[1]))).collect();
    let nearest = |i: usize| {
        let (y, x) = (i / SIZE[1], i % SIZE[1]);
        (0..6).min_by_key(|k| centres[*k].0.abs_diff(y).pow(2) + centres[*k].1.abs_diff(x).pow(2)).unwrap_or(0) as u8
    };
    let segments: Vec<u8> = (0..SIZE[0] * SIZE[1]).map(nearest).collect();
    let near = truth(BoundaryRule::Segments, &segments, SIZE, None).to_vec();
    let prediction = near.iter().map(|edge| rng.random_range(0..150) + if *edge { 100 } else { 0 }).collect();
    (segments, prediction)
}

fn meter(recipe: BoundaryRecipe) -> BoundaryMeter {
    BoundaryMeter::new(recipe, 0.03).unwrap()
}

fn counted(meter: &BoundaryMeter, prediction: &[u8], truth: &BoundaryTruth) -> BoundaryCounts {
    meter.count(Raster::new(prediction, truth.size()).unwrap(), truth).unwrap()
}

#[test]
fn a_change_of_segment_is_an_edge_and_a_line_has_two_rims() {
    let segments = [1, 1, 2, 2, /**/ 1, 1, 2, 2];
    let edges = truth(BoundaryRule::Segments, &segments, [2, 4], None).to_vec();
    assert_eq!(edges, [false, true, false, false, false, true, false, false]);
    let line = [0, 0, 255, 0, 0];
    assert_eq!(truth(BoundaryRule::Segments, &line, [1, 5], None).to_vec(), [false, true, true, false, false]);
    assert_eq!(truth(BoundaryRule::Edges, &line, [1, 5], None).to_vec(), [false, false, true, false, false]);
}

#[test]
fn a_change_to_what_is_unknown_is_no_edge() {
    let segments = [1, 255, 2, 2, 3];
    let with_unknown = truth(BoundaryRule::Segments, &segments, [1, 5], Some(255)).to_vec();
    assert_eq!(with_unknown, [false, false, false, true, false]);
    assert_eq!(truth(BoundaryRule::Edges, &[1, 255, 0], [1, 3], Some(255)).to_vec(), [true, false, false]);
}

#[test]
fn what_is_predicted_where_nothing_is_known_does_not_count() {
    let label = [0, 0, 1, 0, 0, 255, 255, 255];
    let edges = truth(BoundaryRule::Edges, &label, [1, 8], Some(255));
    let counts = counted(&meter(BoundaryRecipe::Plain), &[0, 0, 200, 0, 0, 0, 200, 0], &edges);
    assert_eq!((counts.matched[49], counts.predicted[49], counts.truth), (1, 1, 1));
}

#[test]
fn an_image_of_which_nothing_is_known_leaves_no_trace() {
    let (segments, prediction) = drawn(1);
    let known = truth(BoundaryRule::Segments, &segments, SIZE, None);
    let unknown = truth(BoundaryRule::Segments, &vec![255; segments.len()], SIZE, Some(255));
    for recipe in BoundaryRecipe::ALL {
        let mut meter = meter(*recipe);
        meter.add(&counted(&meter, &prediction, &unknown)).unwrap();
        assert_eq!((meter.images(), meter.ods(), meter.ois()), (0, None, None));
        meter.add(&counted(&meter, &prediction, &known)).unwrap();
        let alone = meter.scores();
        meter.add(&counted(&meter, &prediction, &unknown)).unwrap();
        assert_eq!((meter.images(), meter.scores()), (1, alone));
    }
}

#[test]
fn precision_and_recall_where_one_side_is_empty() {
    let (nothing, line) = ([0; 5], [0, 0, 255, 0, 0]);
    for (label, prediction, expected) in
        [(line, nothing, (1.0, 0.0)), (nothing, line, (0.0, 1.0)), (nothing, nothing, (0.0, 1.0))]
    {
        let mut meter = meter(BoundaryRecipe::Plain);
        meter.add(&counted(&meter, &prediction, &truth(BoundaryRule::Edges, &label, [1, 5], None))).unwrap();
        let score = meter.curve()[49];
        assert_eq!(((score.precision, score.recall), score.f), (expected, 0.0));
    }
}

#[test]
fn each_image_at_its_own_threshold_is_ois() {
    // One image is right above 0.4, the other up to 0.4: no threshold is right for both.
    let edges = truth(BoundaryRule::Edges, &[1, 0, 0, 0, 0, 0, 0, 0, 1], [1, 9], None);
    let mut meter = meter(BoundaryRecipe::Plain);
    for prediction in [[255, 0, 0, 102, 0, 102, 0, 0, 255], [102, 0, 0, 0, 0, 0, 0, 0, 102]] {
        meter.add(&counted(&meter, &prediction, &edges)).unwrap();
    }
    let (ods, ois) = (meter.ods().unwrap(), meter.ois().unwrap());
    assert_eq!((ods.threshold, ods.precision, ods.recall), (Some(0.01), 4.0 / 6.0, 1.0));
    assert_eq!((ois.threshold, ois.f), (None, 1.0));
    assert_eq!(meter.scores().get("oisF"), Some(1.0));
}

#[test]
fn image_by_image_in_parts_and_at_once_is_the_same() {
    for recipe in BoundaryRecipe::ALL.iter().copied() {
        let (mut whole, mut parts) = (meter(recipe), [meter(recipe), meter(recipe)]);
        for seed in 0..4 {
            let (segments, prediction) = drawn(seed);
            let edges = truth(BoundaryRule::Segments, &segments, SIZE, None);
            let probabilities: Vec<f32> =
                prediction.iter().map(|p| (f32::from(*p) + 0.5) / 255.0).map(|p| p.min(1.0)).collect();
            whole.update(Raster::new(&probabilities, SIZE).unwrap(), &edges).unwrap();
            let part = &mut parts[seed as usize % 2];
            part.add(&counted(part, &prediction, &edges)).unwrap();
        }
        let [mut first, second] = parts;
        first.merge(&second).unwrap();
        assert_eq!((first.curve(), first.scores(), first.images()), (whole.curve(), whole.scores(), 4));
        assert!(whole.ods().unwrap().f > 0.3, "{:?}", whole.ods());
    }
}

#[test]
fn levels_are_how_many_thresholds_a_pixel_passes() {
    let levels = |recipe: BoundaryRecipe, map: &[u8], size| recipe.levels(Raster::new(map, size).unwrap());
    assert_eq!(levels(BoundaryRecipe::Plain, &[0, 2, 3, 51, 255], [1, 5]), [0, 0, 1, 20, 99]);
    // A ridge three wide, in the middle of a map: its crest alone is left.
    let across = |x: usize| match x {
        9 | 11 => 100,
        10 => 200,
        _ => 0,
    };
    let ridge: Vec<u8> = (0..20 * 20).map(|i| across(i % 20)).collect();
    let kept = levels(BoundaryRecipe::Suppressed, &ridge, [20, 20]);
    assert_eq!(kept[10 * 20 + 8..10 * 20 + 13], [0, 0, 79, 0, 0]);
    // Faded to nothing in the first row, to 0.2 of it in the second.
    assert_eq!((kept[10], kept[20 + 10]), (0, 16));
}

#[test]
fn maps_of_any_size_are_suppressed() {
    for size in [[0, 0], [0, 3], [1, 1], [1, 7], [6, 1], [2, 2], [3, 9]] {
        let map = vec![128; size[0] * size[1]];
        let edges = truth(BoundaryRule::Edges, &map, size, None);
        let mut meter = meter(BoundaryRecipe::Suppressed);
        meter.add(&counted(&meter, &map, &edges)).unwrap();
        assert_eq!(meter.images(), u64::from(!map.is_empty()), "{size:?}");
    }
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let message = |error: crate::Error| error.to_string();
    let edges = truth(BoundaryRule::Edges, &[1, 0], [1, 2], None);
    let mut plain = meter(BoundaryRecipe::Plain);
    for (probabilities, size, word) in [
        (vec![0.5, f32::NAN], [1, 2], "NaN"),
        (vec![0.5, 1.5], [1, 2], "1.5"),
        (vec![0.5, 0.5], [2, 1], "as the truth"),
    ] {
        let error = plain.update(Raster::new(&probabilities, size).unwrap(), &edges).unwrap_err();
        assert!(message(error).contains(word), "{word}");
    }
    assert_eq!(plain.images(), 0);
    assert!(message(Raster::new(&[0u8; 5], [2, 3]).unwrap_err()).contains("2 * 3"));
    assert!(message(plain.merge(&meter(BoundaryRecipe::Suppressed)).unwrap_err()).contains("suppressed"));
    let counts = counted(&meter(BoundaryRecipe::Suppressed), &[1, 0], &edges);
    assert!(message(plain.add(&counts).unwrap_err()).contains("99 thresholds"));
    for distance in [-0.1, 1.1, f64::NAN] {
        assert!(message(BoundaryMeter::new(BoundaryRecipe::Plain, distance).unwrap_err()).contains("diagonal"));
    }
    assert!(message("thin".parse::<BoundaryRecipe>().unwrap_err()).contains("plain, suppressed"));
    assert_eq!(serde_json::to_string(&BoundaryRecipe::Suppressed).unwrap(), "\"suppressed\"");
}

//! Images and labels moved together: values by hand, what is never invented, the same draws in any order, and each refusal.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "data")]

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use tadformer::data::{
    BatchOptions, Batches, Dataset, Outside, Place, Recipe, Scale, Shrink, Transform, Transformed, Transforms,
};
use tadformer::sample::IGNORE;
use tadformer::{Result, Sample, TaskSet};

const ALL: &str = "semseg=21,human_parts=7,sal=1,normals=3,depth=1,edge=1";
const FLIP: Transform = Transform::Flip { probability: 1.0 };

fn tasks() -> TaskSet {
    ALL.parse().unwrap()
}

fn warp(degrees: f64, scale: f64, outside: Outside) -> Transform {
    Transform::Warp { degrees: [degrees; 2], scale: Scale::Between(scale, scale), outside }
}

fn resize(height: usize, width: usize) -> Transform {
    Transform::Resize { height, width, shrink: Shrink::Sharp }
}

fn apply(steps: &[Transform], sample: Sample) -> Result<Sample> {
    Transforms::new(steps.to_vec())?.apply(sample, &tasks(), 3)
}

/// Random bytes and floats of a size, with unknown pixels among them.
fn sample(seed: u64, (h, w): (usize, usize)) -> Sample {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut bytes = |c: usize, values: &[u8]| {
        let map: Vec<u8> = (0..c * h * w).map(|_| values[next(values.len() as u64) as usize]).collect();
        Tensor::from_vec(map, (c, h, w), &Device::Cpu).unwrap()
    };
    let image = bytes(3, &(0..=255).collect::<Vec<u8>>());
    let labels = [
        ("semseg", bytes(1, &[0, 3, 20, 255])),
        ("human_parts", bytes(1, &[0, 1, 6])),
        ("sal", bytes(1, &[0, 1])),
        ("edge", bytes(1, &[0, 1]).to_dtype(DType::F32).unwrap()),
        ("depth", (bytes(1, &[2, 5, 9]).to_dtype(DType::F32).unwrap() * 0.5).unwrap()),
        ("normals", normal([0.6, 0.0, 0.8], (h, w))),
    ];
    Sample::new(image, labels).unwrap()
}

/// One normal everywhere, unknown in the upper left pixel.
fn normal(normal: [f32; 3], (h, w): (usize, usize)) -> Tensor {
    let value = |c: usize| (0..h * w).map(move |at| if at == 0 { IGNORE } else { normal[c] });
    Tensor::from_vec((0..3).flat_map(value).collect::<Vec<f32>>(), (3, h, w), &Device::Cpu).unwrap()
}

fn floats(map: &Tensor) -> Vec<f32> {
    map.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn equal(a: &Sample, b: &Sample) -> bool {
    let same = |a: &Tensor, b: &Tensor| a.dtype() == b.dtype() && a.dims() == b.dims() && floats(a) == floats(b);
    same(&a.image, &b.image) && a.labels.len() == b.labels.len() && a.labels.iter().all(|(k, v)| same(v, &b.labels[k]))
}

#[test]
fn a_flip_exchanges_columns_and_negates_what_points_right() -> Result<()> {
    let image = Tensor::new(&[[[1u8, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]], &Device::Cpu)?;
    let parts = Tensor::new(&[[[0f32, 1.0, 255.0]]], &Device::Cpu)?;
    let sample = Sample::new(image, [("human_parts", parts), ("normals", normal([0.6, -0.48, 0.64], (1, 3)))])?;
    let got = apply(&[FLIP], sample)?;
    assert_eq!(got.image.to_vec3::<u8>()?, [[[3, 2, 1]], [[6, 5, 4]], [[9, 8, 7]]]);
    assert_eq!(floats(&got.labels["human_parts"]), [255.0, 1.0, 0.0]);
    assert_eq!(floats(&got.labels["normals"]), [-0.6, -0.6, IGNORE, -0.48, -0.48, IGNORE, 0.64, 0.64, IGNORE]);
    Ok(())
}

/// Counter-clockwise as seen: what pointed right points up, and up is negative.
#[test]
fn a_quarter_turn_turns_normals_with_the_image() -> Result<()> {
    let got = apply(&[warp(90.0, 1.0, Outside::Zero)], sample(0, (4, 4)))?;
    let normals = floats(&got.labels["normals"]);
    // The upper row comes from outside, and the pixel that was unknown leaves the map.
    for at in 0..16 {
        let got = [normals[at], normals[16 + at], normals[32 + at]];
        match at {
            0..4 => assert_eq!(got, [IGNORE; 3]),
            _ => assert!(got.iter().zip([0.0, -0.6, 0.8]).all(|(a, b)| (a - b).abs() < 1e-6), "{at}: {got:?}"),
        }
    }
    Ok(())
}

#[test]
fn depths_are_divided_by_the_scale_and_unknown_outside() -> Result<()> {
    let depth = Tensor::new(&[[[2f32, 4.0, IGNORE, 8.0]]], &Device::Cpu)?;
    let sample = |depth| Sample::new(Tensor::zeros((3, 1, 4), DType::U8, &Device::Cpu)?, [("depth", depth)]);
    for outside in [Outside::Zero, Outside::Ignore] {
        let got = apply(&[warp(0.0, 0.5, outside)], sample(depth.clone())?)?;
        // Half as large about column 2: from columns -2, 0, 2 and 4, of which 2 is unknown.
        assert_eq!(floats(&got.labels["depth"]), [IGNORE, 4.0, IGNORE, IGNORE]);
    }
    let got = apply(&[warp(180.0, 1.0, Outside::Ignore)], sample(depth)?)?;
    assert_eq!(floats(&got.labels["depth"]), [IGNORE; 4], "turned about (2, 0.5), the row falls below the map");
    Ok(())
}

#[test]
fn what_a_warp_leaves_outside_is_ignored_or_zero_as_asked() -> Result<()> {
    for (outside, want) in [(Outside::Ignore, 255.0), (Outside::Zero, 0.0)] {
        let got = apply(&[warp(0.0, 0.5, outside)], sample(1, (8, 8)))?;
        for task in ["semseg", "human_parts", "sal", "edge"] {
            assert_eq!(floats(&got.labels[task])[0], want, "{task}");
        }
        assert_eq!([floats(&got.labels["normals"])[0], floats(&got.labels["depth"])[0]], [IGNORE; 2]);
        assert_eq!(floats(&got.image)[0], 0.0);
        assert_eq!((got.labels["semseg"].dtype(), got.labels["edge"].dtype()), (DType::U8, DType::F32));
    }
    Ok(())
}

#[test]
fn crops_and_pads_move_all_maps_alike() -> Result<()> {
    let whole = sample(2, (6, 8));
    let centre = |height, width| Transform::Crop { height, width, place: Place::Centre };
    let got = apply(&[centre(2, 4)], whole.clone())?;
    let part = |map: &Tensor| map.narrow(1, 2, 2)?.narrow(2, 2, 4);
    assert_eq!(floats(&got.image), floats(&part(&whole.image)?));
    assert!(whole.labels.iter().all(|(name, map)| floats(&got.labels[name]) == floats(&part(map).unwrap())));
    let padded = apply(&[Transform::Pad { height: 7, width: 3 }], whole.clone())?;
    assert_eq!(padded.image.dims(), [3, 7, 8], "no side gets smaller");
    assert!(padded.labels.values().all(|map| floats(map)[6 * 8..7 * 8] == [IGNORE; 8]));
    assert_eq!(padded.image.narrow(1, 6, 1)?.narrow(2, 0, 1)?.flatten_all()?.to_vec1::<u8>()?, [124, 116, 104]);
    let random = Transforms::new(vec![Transform::Crop { height: 2, width: 4, place: Place::Random }])?;
    let first: BTreeSet<Vec<u8>> = (0..64)
        .map(|seed| {
            random.apply(whole.clone(), &tasks(), seed).unwrap().image.flatten_all().unwrap().to_vec1().unwrap()
        })
        .collect();
    assert!(first.len() > 15, "25 places, {} drawn", first.len());
    Ok(())
}

#[test]
fn parts_that_are_absent_are_ignored_whole() -> Result<()> {
    let with = |values: [u8; 3]| -> Result<Vec<f32>> {
        let parts = Tensor::from_vec(values.to_vec(), (1, 1, 3), &Device::Cpu)?;
        let sample = Sample::new(Tensor::zeros((3, 1, 3), DType::U8, &Device::Cpu)?, [("human_parts", parts)])?;
        Ok(floats(&apply(&[Transform::IgnoreAbsentParts], sample)?.labels["human_parts"]))
    };
    assert_eq!(with([0, 0, 0])?, [IGNORE; 3]);
    assert_eq!(with([0, 255, 0])?, [IGNORE; 3]);
    assert_eq!(with([0, 4, 0])?, [0.0, 4.0, 0.0]);
    Ok(())
}

#[test]
fn truncated_images_are_bytes_cut_off_and_never_wrapped() -> Result<()> {
    // Rows of black and white overshoot both ways when enlarged.
    let rows: Vec<u8> = (0..3 * 8 * 8).map(|i| if i / 8 % 8 < 4 { 0 } else { 255 }).collect();
    let sample = Sample::of_image(Tensor::from_vec(rows, (3, 8, 8), &Device::Cpu)?);
    let between = apply(&[resize(24, 8)], sample.clone())?;
    assert_eq!(between.image.dtype(), DType::F32);
    let got = apply(&[resize(24, 8), Transform::Truncate], sample)?;
    let (exact, bytes) = (floats(&between.image), got.image.flatten_all()?.to_vec1::<u8>()?);
    assert!(exact.iter().zip(&bytes).all(|(exact, byte)| (exact * 255.0 - f32::from(*byte) - 0.5).abs() < 0.5001));
    assert!(bytes[8 * 9] == 0 && bytes[8 * 14] == 255, "{bytes:?}");
    Ok(())
}

#[test]
fn resized_and_unit_normals_have_length_1() -> Result<()> {
    let mut labelled = sample(3, (9, 7));
    let (left, right) = (normal([0.6, 0.0, 0.8], (9, 4)), normal([-0.6, 0.0, 0.8], (9, 3)));
    labelled.labels.insert("normals".into(), Tensor::cat(&[left, right], 2)?);
    let turn = || warp(13.0, 1.1, Outside::Ignore);
    let lengths = |steps: &[Transform]| -> Result<Vec<f32>> {
        let map = apply(steps, labelled.clone())?.labels["normals"].clone();
        let known: Vec<f32> = floats(&map.sqr()?.sum(0)?.sqrt()?);
        Ok(known.into_iter().filter(|length| *length < 400.0).collect())
    };
    assert!(lengths(&[turn()])?.iter().any(|length| *length < 0.95), "a warp leaves them short along edges");
    for steps in [&[turn(), resize(5, 5)][..], &[turn(), Transform::UnitNormals]] {
        let lengths = lengths(steps)?;
        assert!(lengths.len() > 10 && lengths.iter().all(|length| (length - 1.0).abs() < 1e-5), "{lengths:?}");
    }
    Ok(())
}

#[test]
fn samples_keep_the_labels_that_they_have() -> Result<()> {
    for recipe in Recipe::ALL {
        let mut partial = sample(4, (20, 30));
        partial.labels.retain(|name, _| name == "depth" || name == "sal");
        let got = recipe.train((16, 24))?.apply(partial, &tasks(), 5)?;
        assert_eq!(got.labels.keys().collect::<Vec<_>>(), ["depth", "sal"]);
        assert!(got.labels.values().chain([&got.image]).all(|map| map.dims()[1..] == [16, 24]));
        let image = recipe.validation((16, 24))?.apply(Sample::of_image(sample(4, (20, 30)).image), &tasks(), 5)?;
        assert_eq!(image.image.dtype(), if *recipe == Recipe::Own { DType::F32 } else { DType::U8 });
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn two_flips_are_none(seed in any::<u64>(), h in 1usize..9, w in 1usize..9) {
        let bytes = sample(seed, (h, w));
        let mut shares = bytes.clone();
        shares.image = bytes.float_image().unwrap();
        for sample in [bytes, shares] {
            prop_assert!(equal(&apply(&[FLIP, FLIP], sample.clone()).unwrap(), &sample));
        }
    }

    /// Of every label but the normals each value was there before, or says that nothing is known.
    #[test]
    fn no_class_is_invented(seed in any::<u64>(), h in 1usize..20, w in 1usize..20, to in 1usize..30) {
        let before = sample(seed, (h, w));
        for recipe in Recipe::ALL {
            let after = recipe.train((to, 31 - to)).unwrap().apply(before.clone(), &tasks(), seed).unwrap();
            for task in ["semseg", "human_parts", "sal", "edge"] {
                let held: Vec<f32> = floats(&before.labels[task]);
                let outside = if *recipe == Recipe::Own { IGNORE } else { 0.0 };
                let fine = |v: &f32| held.contains(v) || *v == outside || *v == IGNORE;
                prop_assert!(floats(&after.labels[task]).iter().all(fine), "{recipe} {task}");
            }
        }
    }
}

struct Random;

impl Dataset for Random {
    fn len(&self) -> usize {
        12
    }

    fn tasks(&self) -> &TaskSet {
        static TASKS: std::sync::OnceLock<TaskSet> = std::sync::OnceLock::new();
        TASKS.get_or_init(tasks)
    }

    fn get(&self, index: usize) -> Result<Sample> {
        Ok(sample(index as u64, (10 + index, 20)))
    }
}

#[test]
fn draws_are_the_same_whatever_the_number_of_threads() -> Result<()> {
    for recipe in Recipe::ALL {
        let set = Arc::new(Transformed::new(Random, recipe.train((12, 12))?, 9));
        let batches = |workers| -> Result<Vec<Vec<f32>>> {
            let options = BatchOptions { workers, ..BatchOptions::new(5) };
            let batches = Batches::shuffled(set.clone(), 1, &options)?.take(6); // two epochs and a half
            let all = |batch: tadformer::Batch| batch.labels.values().chain([&batch.images]).flat_map(floats).collect();
            batches.map(|batch| batch.map(all)).collect()
        };
        assert!(batches(1)? == batches(4)?, "{recipe}");
        assert!(equal(&set.get(3)?, &set.draw(3, 0)?));
        assert!((0..12).any(|i| !equal(&set.draw(i, 1).unwrap(), &set.get(i).unwrap())), "another epoch");
        let other = Transformed::new(Random, recipe.train((12, 12))?, 10);
        assert!((0..12).any(|i| !equal(&other.get(i).unwrap(), &set.get(i).unwrap())), "another seed");
        assert_eq!((set.name(3), set.classes("semseg").is_none()), ("000003".to_owned(), true));
    }
    Ok(())
}

#[test]
fn steps_survive_their_files_and_what_they_do_not_know_is_refused() {
    let jitter = Transform::ColourJitter { brightness: 0.4, contrast: 0.0, saturation: 10.0, hue: 0.5 };
    let crop = Transform::Crop { height: 3, width: 2, place: Place::Random };
    let own = Recipe::Own.train((448, 512)).unwrap();
    let nyud = Recipe::Nyud.train((448, 448)).unwrap();
    let more = Transforms::new(vec![jitter, crop, Transform::Pad { height: 1, width: 9 }]).unwrap();
    for transforms in [own, nyud, more] {
        let text = serde_json::to_string(&transforms).unwrap();
        assert_eq!(serde_json::from_str::<Transforms>(&text).unwrap(), transforms, "{text}");
    }
    let short = r#"[{"kind":"warp","degrees":[-5,5],"scale":{"one_of":[1.0]}},{"kind":"resize","height":4,"width":4}]"#;
    let read: Transforms = serde_json::from_str(short).unwrap();
    assert!(matches!(read.steps()[0], Transform::Warp { outside: Outside::Ignore, .. }), "people's own by default");
    assert!(matches!(read.steps()[1], Transform::Resize { shrink: Shrink::Smooth, .. }));
    for text in [
        r#"[{"kind":"truncate","to":8}]"#,
        r#"[{"kind":"flip","probability":0.5,"p":1}]"#,
        r#"[{"kind":"rotate"}]"#,
        r#"[{"kind":"flip","probability":2}]"#,
    ] {
        assert!(serde_json::from_str::<Transforms>(text).is_err(), "{text}");
    }
    assert_eq!(serde_json::to_string(&Recipe::Own).unwrap(), r#""own""#);
    assert!(Recipe::ALL.iter().all(|recipe| recipe.to_string().parse::<Recipe>().unwrap() == *recipe));
}

#[test]
fn numbers_that_cannot_work_are_refused_by_step_and_field() {
    let flip = |probability| Transform::Flip { probability };
    let jitter = |brightness, hue| Transform::ColourJitter { brightness, contrast: 0.0, saturation: 0.0, hue };
    let scales = |scale| Transform::Warp { degrees: [0.0; 2], scale, outside: Outside::Zero };
    for (step, words) in [
        (flip(1.5), "`transforms[1].probability`: expected 0 to 1, got 1.5"),
        (flip(f64::NAN), "got NaN"),
        (jitter(-0.1, 0.0), "transforms[1].brightness"),
        (jitter(0.0, 0.6), "`transforms[1].hue`: expected 0 to 0.5"),
        (scales(Scale::Between(0.0, 1.0)), "`transforms[1].scale.between`: expected 0.1 to 10, got 0"),
        (scales(Scale::Between(1.2, 1.1)), "the smaller number first"),
        (scales(Scale::OneOf(vec![])), "expected 1 to 64 scales, got 0"),
        (scales(Scale::OneOf(vec![1.0, 11.0])), "got 11"),
        (
            Transform::Warp { degrees: [-181.0, 0.0], scale: Scale::Between(1.0, 1.0), outside: Outside::Zero },
            "-180 to 180",
        ),
        (resize(0, 4), "got 0 x 4"),
        (resize(1 << 20, 1 << 20), "at most 100000000 pixels"),
        (Transform::Pad { height: usize::MAX, width: 1 }, "1 to 1048576 a side"),
    ] {
        let message = Transforms::new(vec![FLIP, step]).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let many = Transforms::new(vec![FLIP; 65]).unwrap_err().to_string();
    assert!(many.contains("at most 64 steps"), "{many}");
}

#[test]
fn samples_that_cannot_be_transformed_are_refused() -> Result<()> {
    let zeros = |shape: (usize, usize, usize)| Tensor::zeros(shape, DType::U8, &Device::Cpu).unwrap();
    let refused = |steps: &[Transform], image, labels: Vec<(&str, Tensor)>| {
        let labels = labels.into_iter().map(|(name, map)| (name.to_owned(), map)).collect();
        apply(steps, Sample { image, labels }).unwrap_err().to_string()
    };
    let crop = Transform::Crop { height: 5, width: 4, place: Place::Centre };
    for (message, words) in [
        (refused(&[crop], zeros((3, 4, 4)), vec![]), "at least 5 x 4 (height x width), got 4 x 4 (put a `pad`"),
        (refused(&[FLIP], zeros((3, 0, 4)), vec![]), "H and W at least 1"),
        (refused(&[FLIP], zeros((1, 4, 4)), vec![]), "[3, H, W]"),
        (refused(&[FLIP], zeros((3, 4, 4)), vec![("sal", zeros((1, 4, 3)))]), "as its image"),
        (refused(&[FLIP], zeros((3, 4, 4)), vec![("normals", zeros((1, 4, 4)))]), "[3, 4, 4]"),
        (refused(&[FLIP], zeros((3, 4, 4)), vec![("rooms", zeros((1, 4, 4)))]), "one of the data set's tasks"),
    ] {
        assert!(message.contains(words), "{message}");
    }
    Ok(())
}

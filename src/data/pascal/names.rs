//! What PASCAL-Context's classes are called.

use crate::sample::{Classes, class_colour};

/// The background and VOC's 20 classes.
const SEMSEG: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv monitor",
];

/// What no part covers, and six parts of a person.
const PARTS: [&str; 7] = ["background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"];

/// The class of VOC that a person is.
pub(super) const PERSON: f64 = 15.0;

/// VOC's classes in VOC's colours.
pub(super) fn semseg() -> Classes {
    Classes { colours: (0..SEMSEG.len() as u8).map(class_colour).collect(), ..Classes::new(SEMSEG) }
}

/// The parts, hands with the lower arms and feet with the lower legs.
pub(super) fn parts() -> Classes {
    Classes::new(PARTS)
}

/// The number of the part that a name of PASCAL-Part stands for, of a person: animals share some of the names.
pub(super) fn part(name: &str) -> Option<u8> {
    Some(match name {
        "head" | "hair" | "lear" | "rear" | "leye" | "reye" | "lebrow" | "rebrow" | "mouth" | "nose" => 1,
        "neck" | "torso" => 2,
        "luarm" | "ruarm" => 3,
        "llarm" | "rlarm" | "lhand" | "rhand" => 4,
        "luleg" | "ruleg" => 5,
        "llleg" | "rlleg" | "lfoot" | "rfoot" => 6,
        _ => return None,
    })
}

//! PASCAL-Context and NYUD-v2 in their published layouts: what is missing, damaged or wrong, and the layouts that circulate. That they
//! are read as the released code reads them is `golden.rs`'s.
#![cfg(feature = "data")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/mat.rs"]
mod mat;

use candle_core::Tensor;
use image::{GrayImage, Luma, Rgb, RgbImage};
use mat::{DOUBLE, LITTLE, UINT8, UINT16};
use std::path::{Path, PathBuf};
use tadformer::data::{Dataset, NyudV2, PascalContext, open_dataset, open_dataset_with, read_npy};
use tadformer::{Sample, TaskSet};
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name)
}

/// A golden data set, to be changed.
fn copy_of(name: &str) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to)
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&golden(name), folder.path());
    folder
}

fn tasks(list: &str) -> TaskSet {
    list.parse().unwrap()
}

fn map(label: &Tensor) -> Vec<f32> {
    label.to_dtype(candle_core::DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// An `anno` with one person of this part and these masks.
fn anno(part: &str, masks: [[u32; 2]; 2]) -> Vec<u8> {
    let mask =
        |[height, width]: [u32; 2]| LITTLE.numbers("", UINT8, &[height, width], 2, &vec![1; (height * width) as usize]);
    let described = |name: &str, mask| vec![LITTLE.text("", name), mask];
    let parts = [described("head", mask(masks[0])), described(part, mask(masks[1]))];
    let parts = LITTLE.structs("", &["part_name", "mask"], &parts);
    let person = vec![LITTLE.numbers("", DOUBLE, &[1, 1], 2, &[15]), mask(masks[0]), parts];
    let objects = LITTLE.structs("", &["class_ind", "mask", "parts"], &[person]);
    LITTLE.file(&[LITTLE.structs("anno", &["objects"], &[vec![objects]])])
}

fn label_map(values: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    LITTLE.file(&[LITTLE.numbers("LabelMap", UINT16, &[values.len() as u32, 1], 4, &bytes)])
}

fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

fn png(image: &image::DynamicImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn grey(level: u8) -> Vec<u8> {
    png(&GrayImage::from_pixel(3, 2, Luma([level])).into())
}

/// The first bytes of a grey PNG that says it has 2^31 - 1 pixels a side.
fn huge_png() -> Vec<u8> {
    let mut bytes = grey(0)[..33].to_vec();
    bytes[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let checksum = crc32fast::hash(&bytes[12..29]).to_be_bytes();
    bytes[29..].copy_from_slice(&checksum);
    bytes
}

/// Replaces a file, and gives the error of the split's first sample.
fn error_with(folder: &Path, file: &str, bytes: &[u8], get: impl Fn(&Path) -> tadformer::Result<Sample>) -> String {
    let path = folder.join(file);
    let before = std::fs::read(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let message = get(folder).map(drop).unwrap_err().to_string();
    std::fs::write(&path, before).unwrap();
    message
}

#[test]
fn pascals_damaged_oversized_and_wrong_labels_name_file_and_task() {
    let folder = copy_of("pascal_mt");
    let get = |root: &Path| PascalContext::open(root, "val")?.get(0);
    let id = "2008_004600";
    let rgb = png(&RgbImage::new(53, 43).into());
    for (file, bytes, task, words) in [
        ("semseg/VOC12/ID.png", grey(21), "semseg", "0 to 20 or 255, got 21"),
        ("semseg/VOC12/ID.png", rgb.clone(), "semseg", "8-bit RGB"),
        ("semseg/VOC12/ID.png", huge_png(), "semseg", "more than the limit"),
        ("semseg/VOC12/ID.png", b"text".to_vec(), "semseg", ""),
        ("sal_distill/ID.png", rgb.clone(), "sal", "expected 8-bit grey, got 8-bit RGB"),
        ("sal_distill/ID.png", huge_png(), "sal", "more than the limit"),
        ("sal_distill/ID.png", Vec::new(), "sal", ""),
        ("normals_distill/ID.png", grey(7), "normals", "expected 8-bit RGB, got 8-bit grey"),
        (
            "normals_distill/ID.png",
            png(&RgbImage::new(5, 4).into()),
            "normals",
            "5 x 4 pixels, and its `LabelMap` has 53 x 43",
        ),
        ("normals_distill/ID.png", huge_png(), "normals", "more than the limit"),
        (
            "pascal-context/trainval/ID.mat",
            label_map(&[0, 460]),
            "normals",
            "from 0 to 459, got 460 at column 0, row 1",
        ),
        ("pascal-context/trainval/ID.mat", label_map(&[]), "normals", "an empty `LabelMap`"),
        (
            "pascal-context/trainval/ID.mat",
            anno("torso", [[2, 2]; 2]),
            "normals",
            "no variable `LabelMap`; it has anno",
        ),
        ("pascal-context/trainval/ID.mat", b"text".to_vec(), "normals", "no MATLAB 5 file"),
        ("human_parts/ID.mat", label_map(&[1]), "human_parts", "no variable `anno`; it has LabelMap"),
        ("human_parts/ID.mat", anno("tail", [[2, 2]; 2]), "human_parts", "part `tail`, which is none of the 24"),
        (
            "human_parts/ID.mat",
            anno("torso", [[2, 2], [3, 2]]),
            "human_parts",
            "masks of different sizes: 2 x 2 and 3 x 2",
        ),
        (
            "human_parts/ID.mat",
            anno("torso", [[1, (1 << 20) + 1]; 2]),
            "human_parts",
            "1048577 x 1 pixels, a side of more than 1048576",
        ),
        ("human_parts/ID.mat", anno("torso", [[2, 2]; 2])[..300].to_vec(), "human_parts", "ends within an element"),
    ] {
        let file = file.replace("ID", id);
        let message = error_with(folder.path(), &file, &bytes, get);
        let of_task = format!("{file}: label of {task}: ");
        assert!(message.contains(&of_task) && message.contains(words), "{message}");
    }
    let without_normals = |root: &Path| PascalContext::with_tasks(root, "val", tasks("edge=1"))?.get(0);
    let message = error_with(folder.path(), &format!("pascal-context/trainval/{id}.mat"), b"", without_normals);
    assert!(message.contains(": label of edge: no MATLAB 5 file"), "{message}");
    let photo = format!("JPEGImages/{id}.jpg");
    assert!(error_with(folder.path(), &photo, b"text", get).contains(&format!("{photo}: no image")));
    std::fs::remove_file(folder.path().join(&photo)).unwrap();
    let message = get(folder.path()).map(drop).unwrap_err().to_string();
    assert!(message.contains(&format!("{photo}: cannot read")), "{message}");
}

#[test]
fn nyuds_damaged_oversized_and_wrong_labels_name_file_and_task() {
    let folder = copy_of("nyud_mt");
    let get = |root: &Path| NyudV2::open(root, "train")?.get(0);
    let f32s = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    for (file, bytes, task, words) in [
        ("segmentation/ID.png", grey(41), "semseg", "expected 0 to 40, got 41 at column 0, row 0"),
        ("segmentation/ID.png", png(&RgbImage::new(3, 2).into()), "semseg", "8-bit RGB"),
        ("segmentation/ID.png", huge_png(), "semseg", "more than the limit"),
        (
            "depth/ID.npy",
            npy("<f4", "(1, 2)", &f32s(&[1.0, f32::NAN])),
            "depth",
            "metres from 0, got NaN at column 1, row 0",
        ),
        ("depth/ID.npy", npy("<f4", "(1, 2)", &f32s(&[1.0, -1.0])), "depth", "got -1"),
        ("depth/ID.npy", npy("<f4", "(1, 1, 3)", &f32s(&[1.0; 3])), "depth", "expected 1 values a pixel, got 3"),
        ("depth/ID.npy", npy("<f4", "(100000, 100000)", &[]), "depth", "more than the limit"),
        ("depth/ID.npy", npy("<f4", "(1, 2)", &[0; 7]), "depth", "7 bytes of values"),
        ("depth/ID.npy", b"text".to_vec(), "depth", "no NumPy array"),
        ("normals/ID.npy", npy("<f4", "(1, 1)", &f32s(&[1.0])), "normals", "expected 3 values a pixel, got 1"),
        (
            "normals/ID.npy",
            npy("<f4", "(1, 1, 3)", &f32s(&[0.0, 7.0, 0.0])),
            "normals",
            "a part of a unit vector, got 7",
        ),
        ("edge/ID.npy", npy("|u1", "(2, 1)", &[0, 2]), "edge", "expected 0 or 1, got 2 at column 0, row 1"),
        ("edge/ID.npy", npy("|O", "(2, 1)", &[0; 16]), "edge", "values of type `|O`"),
    ] {
        let file = file.replace("ID", "0874");
        let message = error_with(folder.path(), &file, &bytes, get);
        let of_task = format!("{file}: label of {task}: ");
        assert!(message.contains(&of_task) && message.contains(words), "{message}");
    }
    std::fs::remove_file(folder.path().join("images/0874.jpg")).unwrap();
    let message = get(folder.path()).map(drop).unwrap_err().to_string();
    assert!(message.contains("images/0874.jpg: cannot read"), "{message}");
}

#[test]
fn all_that_is_wrong_with_a_sample_is_told_at_once() {
    let folder = copy_of("pascal_mt");
    let of = |file: &str| folder.path().join(file).join("2008_004600");
    std::fs::write(of("sal_distill").with_extension("png"), b"text").unwrap();
    std::fs::write(of("pascal-context/trainval").with_extension("mat"), b"text").unwrap();
    let set = PascalContext::open(folder.path(), "val").unwrap();
    let examined = set.examine(0);
    let tasks: Vec<_> = examined.faults.iter().map(|fault| fault.task.as_deref().unwrap()).collect();
    assert_eq!(tasks, ["normals", "sal", "edge"]);
    let messages: Vec<_> = examined.faults.iter().map(|fault| fault.error.to_string()).collect();
    assert!(messages[2].contains("2008_004600.mat: label of edge: no MATLAB 5 file"), "{messages:?}");
    assert_eq!(examined.sample.unwrap().labels.keys().collect::<Vec<_>>(), ["human_parts", "semseg"]);
    assert!(set.examine(1).faults.is_empty() && set.examine(1).sample.unwrap().labels.len() == 5);
    std::fs::remove_file(of("JPEGImages").with_extension("jpg")).unwrap();
    assert!(set.examine(0).sample.is_none() && set.examine(0).faults[0].task.is_none());
}

#[cfg(unix)]
#[test]
fn a_label_that_is_a_link_to_nowhere_or_a_folder_is_an_error_and_not_missing() {
    let folder = copy_of("nyud_mt");
    let path = folder.path().join("depth/0874.npy");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(folder.path().join("none"), &path).unwrap();
    let message = || NyudV2::open(folder.path(), "train").unwrap().get(0).map(drop).unwrap_err().to_string();
    assert!(message().contains("depth/0874.npy: label of depth: cannot read"), "{}", message());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(message().contains("label of depth: a folder, where a file is expected"), "{}", message());
}

#[test]
fn what_a_folder_lacks_is_told_when_it_is_opened() {
    let (pascal, nyud) = (copy_of("pascal_mt"), copy_of("nyud_mt"));
    let (pascal, nyud) = (pascal.path(), nyud.path());
    let lists = "no list of the split `test` (there are partial, train, val)";
    assert!(PascalContext::open(pascal, "test").unwrap_err().to_string().contains(lists));
    assert!(NyudV2::open(nyud, "test").unwrap_err().to_string().contains(lists));
    for (task, words) in
        [("semseg=20", "got semseg=20"), ("depth=1", "got depth=1"), ("human_parts=15", "human_parts=7")]
    {
        let message = PascalContext::with_tasks(pascal, "val", tasks(task)).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("PASCAL-Context"), "{message}");
    }
    for task in ["semseg=41", "sal=1"] {
        let message = NyudV2::with_tasks(nyud, "val", tasks(task)).unwrap_err().to_string();
        assert!(message.contains(&format!("got {task}")) && message.contains("semseg=40"), "{message}");
    }
    std::fs::remove_dir_all(pascal.join("sal_distill")).unwrap();
    let message = PascalContext::open(pascal, "val").unwrap_err().to_string();
    assert!(message.contains("sal_distill: label of sal: no such folder (give the folder PASCAL_MT"), "{message}");
    let without = PascalContext::with_tasks(pascal, "val", tasks("rooms:semseg=21,edge=1")).unwrap();
    assert_eq!(without.get(0).unwrap().labels.keys().collect::<Vec<_>>(), ["edge", "rooms"]);
    std::fs::remove_dir_all(nyud.join("images")).unwrap();
    assert!(
        NyudV2::open(nyud, "val").unwrap_err().to_string().contains("images: no such folder (give the folder NYUD_MT")
    );
    let message = without.get(3).map(drop).unwrap_err().to_string();
    assert!(message.contains("below 3, the number of images, got 3"), "{message}");
}

#[test]
fn images_without_people_are_left_out_where_that_is_asked_for() {
    let with_people = |split: &str| {
        let set = PascalContext::with_tasks(golden("pascal_mt"), split, tasks("human_parts=7")).unwrap();
        let set = set.with_people().unwrap();
        (0..set.len()).map(|index| set.name(index)).collect::<Vec<_>>()
    };
    assert_eq!(with_people("train"), ["2008_007655"]);
    // A person without parts is one; one without a file of parts, or of no area, is none.
    assert_eq!(with_people("val"), ["2008_004600", "2010_002428", "2009_002771"]);
    assert!(with_people("partial").is_empty());
    let folder = copy_of("pascal_mt");
    std::fs::remove_dir_all(folder.path().join("human_parts")).unwrap();
    let set = PascalContext::with_tasks(folder.path(), "val", tasks("sal=1")).unwrap();
    let message = set.with_people().map(drop).unwrap_err().to_string();
    assert!(message.contains("human_parts: label of human_parts: no such folder"), "{message}");
}

#[test]
fn a_person_that_nobody_sees_has_no_parts() {
    let folder = copy_of("pascal_mt");
    let parts = |class: u8, seen: u8| {
        let mask = |set| LITTLE.numbers("", UINT8, &[1, 2], 2, &[0, set]);
        let part = LITTLE.structs("", &["part_name", "mask"], &[vec![LITTLE.text("", "rfoot"), mask(1)]]);
        let object = vec![part, mask(seen), LITTLE.numbers("", DOUBLE, &[1, 1], 2, &[class])];
        let objects = LITTLE.structs("", &["parts", "mask", "class_ind"], &[object]); // in another order than published
        let file = LITTLE.file(&[LITTLE.structs("anno", &["objects"], &[vec![objects]])]);
        std::fs::write(folder.path().join("human_parts/2008_004600.mat"), file).unwrap();
        let set = PascalContext::with_tasks(folder.path(), "val", tasks("human_parts=7")).unwrap();
        let label = map(&set.get(0).unwrap().labels["human_parts"]);
        [0.0, 6.0].map(|value| label.iter().filter(|got| **got == value).count())
    };
    let half = 43 * 53 / 2;
    let [nothing, feet] = parts(15, 1);
    assert!(nothing > half && feet > half - 43, "the right half, drawn to the image's size: {nothing}, {feet}");
    assert_eq!(parts(15, 0), [43 * 53, 0], "a person whose mask is empty");
    assert_eq!(parts(13, 1), [43 * 53, 0], "a horse with a part of a person's name");
}

#[test]
fn classes_have_names_and_vocs_have_colours() {
    let pascal =
        PascalContext::with_tasks(golden("pascal_mt"), "val", tasks("rooms:semseg=21,human_parts=7,sal=1")).unwrap();
    let semseg = pascal.classes("rooms").unwrap();
    assert_eq!((semseg.names.len(), &*semseg.name(15), semseg.colours[15]), (21, "person", [192, 128, 128]));
    assert_eq!(pascal.classes("human_parts").unwrap().names.len(), 7);
    assert!(pascal.classes("sal").is_none() && pascal.classes("semseg").is_none());
    let nyud = NyudV2::open(golden("nyud_mt"), "train").unwrap();
    let semseg = nyud.classes("semseg").unwrap();
    assert_eq!((semseg.names.len(), &*semseg.name(0), &*semseg.name(39)), (40, "wall", "other prop"));
    assert_eq!((nyud.name(0), nyud.len()), ("0874".to_owned(), 2));
}

/// ASTMT's files are matrices and pictures, InvPT's arrays and pictures: each is read as what it stands for.
#[test]
fn nyuds_other_layouts_give_the_same_labels() {
    let folder = copy_of("nyud_mt");
    let set = NyudV2::open(folder.path(), "train").unwrap();
    let before = set.get(0).unwrap();
    let at = |file: &str| folder.path().join(file);
    let remove = |file: &str| std::fs::remove_file(at(file)).unwrap();
    let (h, w) = (before.image.dims()[1], before.image.dims()[2]);
    let columns = || (0..w).flat_map(|x| (0..h).map(move |y| y * w + x));
    let dims = [h as u32, w as u32];

    let classes = map(&before.labels["semseg"]);
    let stored: Vec<u8> = columns().map(|i| (classes[i] as u8).wrapping_add(1)).collect();
    let file = LITTLE.file(&[LITTLE.compressed(&LITTLE.numbers("segmentation", UINT8, &dims, 2, &stored))]);
    std::fs::write(at("segmentation/0874.mat"), file).unwrap();
    remove("segmentation/0874.png");

    let depths = read_npy(at("depth/0874.npy")).unwrap().values;
    let stored: Vec<u8> = columns().flat_map(|i| depths[i].to_le_bytes()).collect();
    std::fs::write(at("depth/0874.mat"), LITTLE.file(&[LITTLE.numbers("depth", 7, &dims, 7, &stored)])).unwrap();
    remove("depth/0874.npy");

    let edges = map(&before.labels["edge"]);
    let edge = GrayImage::from_fn(w as u32, h as u32, |x, y| Luma([edges[y as usize * w + x as usize] as u8 * 255]));
    edge.save(at("edge/0874.png")).unwrap();
    remove("edge/0874.npy");

    let normals = map(&before.labels["normals"]);
    let level = |c: usize, x: u32, y: u32| match normals[c * h * w + y as usize * w + x as usize] {
        255.0 => 0,
        part => ((part + 1.0) * 127.5).round() as u8,
    };
    let picture = RgbImage::from_fn(w as u32, h as u32, |x, y| Rgb([0, 1, 2].map(|c| level(c, x, y))));
    picture.save(at("normals/0874.png")).unwrap();
    remove("normals/0874.npy");
    image::open(at("images/0874.jpg")).unwrap().save(at("images/0874.png")).unwrap();
    remove("images/0874.jpg");

    let after = set.get(0).unwrap();
    for task in ["semseg", "depth", "edge"] {
        assert_eq!(map(&after.labels[task]), map(&before.labels[task]), "{task}");
    }
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance(&map(&after.labels["normals"]), &normals) <= 0.5 / 127.5 + 1e-6);
    assert_eq!(map(&after.image), map(&before.image));
    std::fs::write(at("edge/0874.png"), grey(128)).unwrap();
    let message = set.get(0).map(drop).unwrap_err().to_string();
    assert!(message.contains("edge/0874.png: label of edge: expected 0 or 255, got 128"), "{message}");
}

#[test]
fn a_data_set_opens_with_some_of_its_tasks_and_without_the_others_files() {
    for (name, gone, others) in [("pascal_mt", "pascal-context", "edge"), ("nyud_mt", "depth", "depth")] {
        let root = copy_of(name);
        std::fs::remove_dir_all(root.path().join(gone)).unwrap();
        let missing = open_dataset(root.path(), None).map(drop).unwrap_err().to_string();
        assert!(missing.contains("label of ") && missing.contains(gone), "{missing}");
        let semseg = open_dataset_with(root.path(), Some("val"), &["semseg"]).unwrap();
        assert_eq!((semseg.tasks().len(), semseg.get(0).unwrap().labels.len()), (1, 1));
        let refused = |tasks: &[&str]| open_dataset_with(root.path(), None, tasks).map(drop).unwrap_err().to_string();
        assert!(refused(&[others]).contains(&format!("label of {others}")));
        assert!(refused(&["flow"]).contains("`tasks`: expected some of semseg="), "{}", refused(&["flow"]));
    }
}

#[test]
fn a_folder_opens_with_some_of_its_tasks_in_the_order_asked_for() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["images", "semseg", "sal", "depth"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    RgbImage::new(6, 4).save(root.path().join("images/a.png")).unwrap();
    for folder in ["semseg", "sal"] {
        GrayImage::from_pixel(6, 4, Luma([0])).save(root.path().join(folder).join("a.png")).unwrap();
    }
    std::fs::write(root.path().join("depth/a.png"), b"no image").unwrap();
    let set = open_dataset_with(root.path(), None, &["sal", "semseg"]).unwrap();
    assert_eq!(set.tasks().to_string(), "sal=1,semseg=2");
    assert_eq!(set.get(0).unwrap().labels.len(), 2, "the damaged label of another task is not read");
    assert!(open_dataset_with(root.path(), None, &["sal", "sal"]).is_err());
}

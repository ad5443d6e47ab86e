//! A folder of data: what is written is read as it was, what is inferred is what is there, and all that is wrong is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tadformer::data::{
    BatchOptions, Batches, Colour, Contents, Dataset, ExportOptions, Folder, FolderDescription, ImageFile, Inspection,
    Skipped, Split, Unreadable, export, inspect, open_dataset,
};
use tadformer::image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage};
use tadformer::report::contact_sheet;
use tadformer::sample::{Classes, FaultKind, IGNORE};
use tadformer::scenes::{CLASSES, Scenes};
use tadformer::{Error, Result, Sample, TaskKind, TaskSet};
use tempfile::TempDir;

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn scenes(count: usize) -> (TempDir, PathBuf, Scenes) {
    let root = tempfile::tempdir().unwrap();
    let (path, scenes) = (root.path().join("scenes"), Scenes::new(4, count, (40, 56)).unwrap());
    export(&scenes, &path, &ExportOptions::default(), &mut |_| ()).unwrap();
    (root, path, scenes)
}

/// The largest difference between a label and what was read of it.
fn worst(label: &Tensor, read: &Tensor) -> f32 {
    let (label, read) = (floats(label), floats(read));
    label.iter().zip(&read).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
fn scenes_that_are_exported_are_read_as_they_were() -> Result<()> {
    let (_root, path, scenes) = scenes(9);
    let folder = Folder::open(&path)?;
    assert_eq!((folder.len(), folder.tasks()), (9, scenes.tasks()));
    assert_eq!(folder.classes("semseg"), scenes.classes("semseg"));
    for index in 0..9 {
        let (sample, read) = (scenes.get(index)?, folder.get(index)?);
        assert_eq!(folder.name(index), scenes.name(index));
        assert_eq!((read.image.dims(), read.image.dtype()), (&[3, 40, 56][..], DType::U8));
        assert!(worst(&sample.image, &read.float_image()?) <= 0.5 / 255.0 + 1e-6);
        assert_eq!(read.labels.len(), 6);
        for task in scenes.tasks() {
            let (label, read) = (&sample.labels[task.name()], &read.labels[task.name()]);
            let most = match task.kind() {
                TaskKind::Depth => 0.0005 + 1e-6,
                // Half a step of 2 / 255, and what bringing it to length 1 again moves.
                TaskKind::Normals => 0.0085,
                _ => 0.0,
            };
            assert!(worst(label, read) <= most, "{task}: {}", worst(label, read));
            assert_eq!(label.dtype(), read.dtype(), "{task}");
        }
    }
    // Whole at its first appearance, and nothing beside it.
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    Ok(())
}

/// Samples of a few pixels with all that labels can hold: unknown pixels, labels that are missing, sizes of their own.
struct Corners {
    tasks: TaskSet,
    classes: Classes,
}

impl Corners {
    fn new() -> Self {
        let classes =
            Classes { colours: vec![[1, 2, 3], [4, 5, 6], [7, 8, 9]], ..Classes::new(["a", "b \"c\"", "é"]) };
        Self { tasks: "rooms:semseg=3,sal=1,normals=3,depth=1".parse().unwrap(), classes }
    }
}

impl Dataset for Corners {
    fn len(&self) -> usize {
        3
    }

    fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let (h, w) = (2 + index, 3);
        let map = |values: Vec<f32>, c: usize| {
            Tensor::from_iter(values.into_iter().cycle().take(c * h * w), &Device::Cpu)?.reshape((c, h, w))
        };
        let third = 1.0 / 3.0;
        let normals: Vec<f32> = [-third, IGNORE, 2.0 * third]
            .into_iter()
            .flat_map(|v| {
                (0..h * w).map(move |i| {
                    if i % 2 == 0 {
                        IGNORE
                    } else if v == IGNORE {
                        2.0 * third
                    } else {
                        v
                    }
                })
            })
            .collect();
        let labels = [
            ("rooms", map(vec![0.0, 2.0, IGNORE, 1.0], 1)?.to_dtype(DType::U8)?),
            ("sal", map(vec![1.0, IGNORE, 0.0], 1)?),
            ("normals", map(normals, 3)?),
            ("depth", map(vec![IGNORE, 0.001, 65.535, 1.2344], 1)?),
        ];
        let image = map((0..255).map(|v| v as f32).collect(), 3)?.to_dtype(DType::U8)?;
        // The first has all, the next one fewer each.
        Sample::new(image, labels.into_iter().skip(index))
    }

    fn name(&self, index: usize) -> String {
        format!("photo.{index} é")
    }

    fn classes(&self, task: &str) -> Option<&Classes> {
        (task == "rooms").then_some(&self.classes)
    }
}

#[test]
fn unknown_pixels_missing_labels_names_and_sizes_survive() -> Result<()> {
    let (root, corners) = (tempfile::tempdir().unwrap(), Corners::new());
    let splits = [("train".to_owned(), Split::Names(vec!["photo.2 é".into(), "photo.0 é".into()]))];
    let options = ExportOptions { splits: splits.into(), ..Default::default() };
    let mut told = Vec::new();
    let written = export(&corners, root.path(), &options, &mut |done| told.push(done))?;
    assert_eq!(told, [3]);
    let folder = Folder::open(root.path())?;
    assert_eq!(folder.description(), &written);
    assert_eq!(folder.classes("rooms"), Some(&corners.classes));
    for index in 0..3 {
        let (sample, read) = (corners.get(index)?, folder.get(index)?);
        assert_eq!(folder.name(index), corners.name(index));
        assert_eq!(floats(&read.image), floats(&sample.image));
        assert_eq!(read.labels.keys().collect::<Vec<_>>(), sample.labels.keys().collect::<Vec<_>>());
        for (name, label) in &sample.labels {
            let most = match name.as_str() {
                "depth" => 0.0005,
                "normals" => 0.0085,
                _ => 0.0,
            };
            assert!(worst(label, &read.labels[name]) <= most, "{name}: {}", worst(label, &read.labels[name]));
        }
    }
    let train = folder.split("train")?;
    assert_eq!((train.len(), train.name(0), train.name(1)), (2, "photo.2 é".into(), "photo.0 é".into()));
    let message = folder.split("test").unwrap_err().to_string();
    assert!(message.contains(r#"one of ["train"], got test"#), "{message}");
    let inspection = inspect(&folder, &mut |_| ());
    assert!(inspection.is_sound(), "{inspection}");
    let labelled: Vec<usize> = inspection.tasks.iter().map(|task| task.labelled).collect();
    assert_eq!(labelled, [1, 2, 3, 3]);
    Ok(())
}

#[test]
fn a_jpeg_is_close_and_its_labels_are_the_same() -> Result<()> {
    let (root, scenes) = (tempfile::tempdir().unwrap(), Scenes::new(1, 2, (64, 64))?);
    let options = |quality| ExportOptions { images: ImageFile::Jpeg(quality), ..Default::default() };
    export(&scenes, root.path().join("a"), &options(95), &mut |_| ())?;
    let folder = Folder::open(root.path().join("a"))?;
    assert!(root.path().join("a/images/000001.jpg").exists());
    let (sample, read) = (scenes.get(1)?, folder.get(1)?);
    let difference = (&sample.image - read.float_image()?)?.abs()?.mean_all()?.to_scalar::<f32>()?;
    assert!((0.0001..0.03).contains(&difference), "{difference}");
    assert_eq!(floats(&read.labels["semseg"]), floats(&sample.labels["semseg"]));
    let message = export(&scenes, root.path().join("b"), &options(0), &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("1 to 100") && !root.path().join("b").exists(), "{message}");
    Ok(())
}

#[test]
fn an_export_that_fails_leaves_nothing_and_takes_no_others_place() -> Result<()> {
    struct Ends(Scenes);
    impl Dataset for Ends {
        fn len(&self) -> usize {
            40
        }
        fn tasks(&self) -> &TaskSet {
            self.0.tasks()
        }
        fn get(&self, index: usize) -> Result<Sample> {
            if index == 30 { Err(Error::dataset(index, "the archive ends here")) } else { self.0.get(index) }
        }
    }
    let (root, ends) = (tempfile::tempdir().unwrap(), Ends(Scenes::new(0, 40, (16, 16))?));
    let to = |folder: &str| export(&ends, root.path().join(folder), &ExportOptions::default(), &mut |_| ());
    assert_eq!(to("a").unwrap_err().to_string(), "sample 30: the archive ends here");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    std::fs::create_dir(root.path().join("b")).unwrap();
    std::fs::write(root.path().join("b/mine"), "kept").unwrap();
    assert!(to("b").unwrap_err().to_string().contains("there is something already"));
    assert_eq!(std::fs::read(root.path().join("b/mine")).unwrap(), b"kept");
    Ok(())
}

#[test]
fn names_that_are_no_files_are_refused_before_anything_is_written() -> Result<()> {
    type Name = fn(usize) -> String;
    struct Named(Scenes, Name);
    impl Dataset for Named {
        fn len(&self) -> usize {
            2
        }
        fn tasks(&self) -> &TaskSet {
            self.0.tasks()
        }
        fn get(&self, index: usize) -> Result<Sample> {
            self.0.get(index)
        }
        fn name(&self, index: usize) -> String {
            (self.1)(index)
        }
    }
    let root = tempfile::tempdir().unwrap();
    let cases: [(Name, &str); 6] = [
        (|_| "same".into(), "same twice"),
        (|i| format!("../{i}"), "can be a file's name"),
        (|i| format!("a\\{i}"), "can be a file's name"),
        (|i| format!(".{i}"), "can be a file's name"),
        (|_| String::new(), "can be a file's name"),
        (|i| "x".repeat(201 + i), "at most 200 bytes"),
    ];
    for (name, words) in cases {
        let set = Named(Scenes::new(0, 2, (16, 16))?, name);
        let message = export(&set, root.path().join("a"), &Default::default(), &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains(words) && !root.path().join("a").exists(), "{message}");
    }
    Ok(())
}

#[test]
fn what_a_folder_without_a_description_holds_is_found_out() -> Result<()> {
    let (_root, path, _) = scenes(12);
    std::fs::remove_file(path.join("dataset.toml")).unwrap();
    for (from, to) in [("semseg", "anything"), ("sal", "mask"), ("normals", "directions"), ("depth", "far")] {
        std::fs::rename(path.join(from), path.join(to)).unwrap();
    }
    std::fs::create_dir(path.join("notes")).unwrap();
    std::fs::write(path.join("notes/readme.txt"), "no label").unwrap();
    let description = FolderDescription::infer(&path)?;
    let tasks = description.task_set()?.to_string();
    assert_eq!(tasks, "anything:semseg=7,human_parts=7,mask:sal=1,directions:normals=3,edge=1,far:depth=1");
    assert_eq!(description.tasks[0].colours[..3], [[0, 0, 0], [128, 0, 0], [0, 128, 0]].map(Colour));
    description.save(&path)?;
    let folder = Folder::open(&path)?;
    assert_eq!(folder.description(), &description);
    assert_eq!(folder.split("train")?.len() + folder.split("val")?.len(), 12);
    Ok(())
}

#[test]
fn a_stored_number_means_what_the_description_says() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for folder in ["images", "rooms", "shiny", "depth"] {
        std::fs::create_dir(path(folder)).unwrap();
    }
    RgbImage::new(4, 1).save(path("images/a.png")).unwrap();
    let row = |values: [u8; 4]| GrayImage::from_raw(4, 1, values.to_vec()).unwrap();
    row([0, 1, 2, 255]).save(path("rooms/a.png")).unwrap();
    row([0, 255, 90, 255]).save(path("shiny/a.png")).unwrap();
    ImageBuffer::<Luma<u16>, _>::from_raw(4, 1, vec![0u16, 1, 5000, 65535]).unwrap().save(path("depth/a.png")).unwrap();
    let text = r#"
        tasks = [
            { name = "depth", kind = "depth", scale = 0.0002 },
            { name = "rooms", kind = "semseg", classes = 3, ignore = 0 },
            { name = "shiny", kind = "sal", ignore = 90 },
        ]
    "#;
    let folder = Folder::described(root.path(), FolderDescription::parse(text)?)?;
    assert_eq!(folder.tasks().to_string(), "depth=1,rooms:semseg=3,shiny:sal=1");
    let sample = folder.get(0)?;
    assert_eq!(floats(&sample.labels["rooms"]), [IGNORE, 1.0, 2.0, IGNORE]);
    assert_eq!(floats(&sample.labels["shiny"]), [0.0, 1.0, IGNORE, 1.0]);
    assert_eq!(floats(&sample.labels["depth"]), [IGNORE, 0.0002, 1.0, 13.107]);
    Ok(())
}

/// An array as `numpy.save` writes it.
fn npy(path: &Path, shape: &str, values: &[f32]) {
    let text = format!("{:<117}\n", format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}"));
    let values = values.iter().flat_map(|v| v.to_le_bytes());
    let bytes = [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes()].concat().into_iter().chain(values);
    std::fs::write(path, bytes.collect::<Vec<_>>()).unwrap();
}

fn with_arrays() -> (TempDir, TaskSet) {
    let root = tempfile::tempdir().unwrap();
    for folder in ["images", "semseg", "sal", "normals", "depth"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    RgbImage::new(2, 1).save(root.path().join("images/a.png")).unwrap();
    for (task, shape, values) in [
        ("semseg", "1, 2", &[4.0, 255.0][..]),
        ("sal", "1, 2, 1", &[1.0, 0.0]),
        ("normals", "1, 2, 3", &[0.6, 0.0, 0.8, 0.0, 0.0, 0.0]),
        ("depth", "1, 2", &[70.125, f32::NAN]),
    ] {
        npy(&root.path().join(task).join("a.npy"), shape, values);
    }
    (root, "semseg=5,sal=1,normals=3,depth=1".parse().unwrap())
}

#[test]
fn arrays_are_labels_exactly_as_they_were_saved() -> Result<()> {
    let (root, tasks) = with_arrays();
    let folder = Folder::open(root.path())?;
    assert_eq!(folder.tasks(), &tasks);
    let labels = folder.get(0)?.labels;
    assert_eq!((floats(&labels["semseg"]), labels["semseg"].dtype()), (vec![4.0, IGNORE], DType::U8));
    assert_eq!((floats(&labels["sal"]), labels["sal"].dtype()), (vec![1.0, 0.0], DType::U8));
    assert_eq!(floats(&labels["normals"]), [0.6, IGNORE, 0.0, IGNORE, 0.8, IGNORE]);
    assert_eq!(floats(&labels["depth"]), [70.125, IGNORE]);
    let text = "tasks = [{ name = \"depth\", kind = \"depth\", scale = 0.5 }, { name = \"semseg\", kind = \"semseg\", classes = 9, ignore = 4 }]";
    let labels = Folder::described(root.path(), FolderDescription::parse(text)?)?.get(0)?.labels;
    assert_eq!((floats(&labels["depth"])[0], floats(&labels["semseg"])), (35.0625, vec![IGNORE; 2]));
    Ok(())
}

#[test]
fn arrays_that_are_no_labels_are_refused_by_name() {
    let (root, _) = with_arrays();
    let description = FolderDescription::infer(root.path()).unwrap();
    for (task, shape, values, kind, words) in [
        ("semseg", "1, 2", &[5.0, 0.0][..], FaultKind::Value, "0 to 4 or 255, got 5 at column 0"),
        ("semseg", "1, 2", &[0.0, 0.5], FaultKind::Value, "got 0.5 at column 1"),
        ("semseg", "1, 2", &[0.0, -1.0], FaultKind::Value, "got -1"),
        ("semseg", "1, 2, 3", &[0.0; 6], FaultKind::Form, "expected H x W numbers, got 3 a pixel"),
        ("semseg", "2, 1", &[0.0; 2], FaultKind::Size, "expected 2 x 1 pixels, as its image, got 1 x 2"),
        ("sal", "1, 2", &[0.0, 2.0], FaultKind::Value, "0 to 1 or 255, got 2"),
        ("normals", "1, 2", &[0.0, 2.0], FaultKind::Form, "expected H x W x 3 numbers, got 1 a pixel"),
        ("normals", "1, 2, 3", &[1.0, 0.0, 0.0, 2.0, 0.0, 0.0], FaultKind::Length, "got one of 2.00 at column 1"),
        ("depth", "1, 2", &[1.0, -1.0], FaultKind::Value, "a depth above 0, got -1"),
        ("depth", "1, 2", &[1.0, f32::INFINITY], FaultKind::Value, "got inf"),
        ("depth", "1, 3", &[1.0, 1.0], FaultKind::Unreadable, "label of depth: 8 bytes of values"),
    ] {
        let path = root.path().join(task).join("a.npy");
        let whole = std::fs::read(&path).unwrap();
        npy(&path, shape, values);
        let folder = Folder::described(root.path(), description.clone()).unwrap();
        let message = folder.get(0).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains(&format!("{task}/a.npy")), "{message}");
        let finding = inspect(&folder, &mut |_| ()).findings.remove(0);
        assert_eq!((finding.task.as_deref(), finding.kind, finding.count), (Some(task), kind, 1), "{words}");
        std::fs::write(path, whole).unwrap();
    }
}

#[test]
fn the_published_layouts_are_recognised_and_looked_through() -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    for (set, split, images) in [("pascal_mt", None, 2), ("pascal_mt", Some("val"), 3), ("nyud_mt", Some("val"), 2)] {
        let dataset = open_dataset(golden.join(set), split)?;
        let inspection = inspect(&dataset, &mut |_| ());
        assert_eq!((inspection.images, inspection.all_images), (images, images), "{set}");
        assert!(contact_sheet(&dataset, 0..images, 32)?.height() > 32);
        // And written out as a folder they hold the same.
        if inspection.is_sound() {
            let root = tempfile::tempdir().unwrap();
            export(&dataset, root.path(), &ExportOptions::default(), &mut |_| ())?;
            let again = inspect(&Folder::open(root.path())?, &mut |_| ());
            let known = |inspection: &Inspection| inspection.tasks.iter().map(|task| task.known).collect::<Vec<_>>();
            assert_eq!(known(&again), known(&inspection), "{set}");
        }
    }
    let (_root, path, _) = scenes(6);
    assert_eq!(open_dataset(&path, None)?.len(), 6);
    assert!(open_dataset(&path, Some("train"))?.len() < 6);
    Ok(())
}

fn damaged() -> (TempDir, PathBuf) {
    let (root, path, _) = scenes(8);
    let at = |name: &str| path.join(name);
    std::fs::write(at("images/000000.png"), "no image").unwrap();
    std::fs::remove_file(at("depth/000001.png")).unwrap();
    GrayImage::new(40, 56).save(at("semseg/000002.png")).unwrap();
    GrayImage::new(56, 57).save(at("edge/000002.png")).unwrap();
    GrayImage::from_pixel(56, 40, Luma([9])).save(at("semseg/000003.png")).unwrap();
    GrayImage::from_pixel(56, 40, Luma([8])).save(at("semseg/000004.png")).unwrap();
    RgbImage::from_pixel(56, 40, Rgb([255; 3])).save(at("normals/000004.png")).unwrap();
    RgbImage::from_pixel(56, 40, Rgb([128, 0, 0])).save(at("human_parts/000005.png")).unwrap();
    std::fs::write(at("sal/000006.png"), &std::fs::read(at("sal/000005.png")).unwrap()[..60]).unwrap();
    GrayImage::new(56, 40).save(at("sal/stray.png")).unwrap();
    let text = std::fs::read_to_string(at("dataset.toml")).unwrap() + "\nlisted = [\"000001\", \"gone\"]\n";
    std::fs::write(at("dataset.toml"), text).unwrap();
    (root, path)
}

#[test]
fn all_that_is_wrong_is_told_at_once() -> Result<()> {
    let (_root, path) = damaged();
    let folder = Folder::open(&path)?;
    let inspection = inspect(&folder, &mut |_| ());
    assert_eq!((inspection.images, inspection.all_images), (7, 8));
    let found: Vec<(&str, FaultKind, usize)> = inspection
        .findings
        .iter()
        .map(|finding| (finding.task.as_deref().unwrap_or(""), finding.kind, finding.count))
        .collect();
    let want = [
        ("", FaultKind::Missing, 1),
        ("", FaultKind::Unreadable, 1),
        ("edge", FaultKind::Size, 1),
        ("human_parts", FaultKind::Form, 1),
        ("normals", FaultKind::Length, 1),
        ("sal", FaultKind::Stray, 1),
        ("sal", FaultKind::Unreadable, 1),
        ("semseg", FaultKind::Size, 1),
        ("semseg", FaultKind::Value, 2),
    ];
    assert_eq!(found, want);
    let text = inspection.to_string();
    for words in [
        "7 of 8 images of 56 x 40 pixels",
        "semseg, labels with values that the task does not have: 2",
        "semseg/000003.png: label of semseg: expected 0 to 6 or 255, got 9",
        "expected 56 x 40 pixels, as its image, got 40 x 56",
        "images/000000.png: no image",
        "no image gone, which the split `listed` names",
        "sal/stray.png: a label of no image",
        "sal/000006.png: label of sal: no label",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let depth = inspection.tasks.iter().find(|task| task.task.name() == "depth").unwrap();
    assert_eq!(depth.labelled, 6, "one is missing, and one image cannot be read");
    // The same by one thread.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(alone.install(|| inspect(&folder, &mut |_| ())).to_string(), text);
    // What can be read is drawn.
    let sheet = contact_sheet(&folder, 0..8, 40)?;
    assert!(sheet.width() > 7 * 40 && sheet.height() > 8 * 28);
    let message = folder.split("listed").unwrap_err().to_string();
    assert!(message.contains("no image gone"), "{message}");
    Ok(())
}

/// What lies in place of a file.
enum Instead {
    Bytes(Vec<u8>),
    Picture(DynamicImage),
    Directory,
    Nothing,
}

impl Instead {
    fn put(self, path: &Path) {
        std::fs::remove_file(path).unwrap();
        match self {
            Self::Bytes(bytes) => std::fs::write(path, bytes).unwrap(),
            Self::Picture(picture) => picture.save(path).unwrap(),
            Self::Directory => std::fs::create_dir(path).unwrap(),
            Self::Nothing => {}
        }
    }
}

/// One file that is damaged while batches are read: an error in place of its batch, or a counted warning, that names the sample, the
/// file and the task; every other sample comes in its place.
#[test]
fn a_file_damaged_within_an_epoch_is_an_error_or_counted_and_named() -> Result<()> {
    use Instead::{Bytes, Directory, Nothing, Picture};
    let cut = |path: &Path| Bytes(std::fs::read(path).unwrap()[..60].to_vec());
    let grey = |width, height, level| Picture(GrayImage::from_pixel(width, height, Luma([level])).into());
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path) -> Instead, &'a str);
    let damages: [Damage; 11] = [
        ("images", &|_| Bytes(b"no image".to_vec()), "no image"),
        ("images", &cut, "no image"),
        ("images", &|_| Nothing, "cannot read"),
        ("images", &|_| Directory, "a folder, where a file is expected"),
        ("semseg", &|_| grey(56, 40, 9), "label of semseg: expected 0 to 6 or 255, got 9"),
        ("semseg", &|_| grey(40, 56, 0), "label of semseg: expected 56 x 40 pixels, as its image, got 40 x 56"),
        ("sal", &cut, "label of sal: "),
        ("normals", &|_| Picture(RgbImage::from_pixel(56, 40, Rgb([255; 3])).into()), "label of normals: "),
        ("depth", &|_| Nothing, "label of depth: "),
        ("edge", &|_| Directory, "label of edge: "),
        ("human_parts", &|_| Bytes(Vec::new()), "label of human_parts: "),
    ];
    for (task, damage, words) in damages {
        let (_root, path, _) = scenes(8);
        let folder = Folder::open(&path)?;
        let file = path.join(task).join("000005.png");
        damage(&file).put(&file);
        let named = |message: &str| {
            let file = format!("{task}/000005.png: ");
            assert!(
                message.starts_with("sample 5: ") && message.contains(&file) && message.contains(words),
                "{message}"
            );
        };
        let options = |unreadable| BatchOptions { unreadable, workers: 2, ..BatchOptions::new(2) };
        // Three epochs of four batches.
        let drawn = |unreadable| -> Result<(Vec<Result<usize>>, Skipped)> {
            let mut batches = Batches::shuffled(Arc::new(folder.clone()), 3, &options(unreadable))?;
            let drawn = batches.by_ref().take(12).map(|batch| batch.map(|batch| batch.len())).collect();
            Ok((drawn, batches.skipped().clone()))
        };
        let (refused, skipped) = drawn(Unreadable::Refuse)?;
        let errors: Vec<String> = refused.iter().filter_map(|batch| Some(batch.as_ref().err()?.to_string())).collect();
        assert_eq!((errors.len(), skipped.count), (3, 0), "{errors:?}");
        errors.iter().for_each(|error| named(error));
        assert!(refused.iter().flatten().all(|length| *length == 2));
        let (left, skipped) = drawn(Unreadable::Skip)?;
        assert_eq!((left.into_iter().sum::<Result<usize>>()?, skipped.count), (3 * 7, 3));
        skipped.reasons.iter().for_each(|reason| named(reason));
    }
    Ok(())
}

#[test]
fn class_shares_depths_and_masks_are_counted_over_all_pixels() -> Result<()> {
    let (_root, path, scenes) = scenes(70);
    let folder = Folder::open(&path)?;
    let inspection = inspect(&folder, &mut |_| ());
    assert!(inspection.is_sound(), "{inspection}");
    let contents = |task: &str| inspection.tasks.iter().find(|found| found.task.name() == task).unwrap();
    let labels = |task: &str| -> Vec<Vec<f32>> {
        (0..70).map(|index| floats(&scenes.get(index).unwrap().labels[task])).collect()
    };
    let Contents::Classes(classes) = &contents("semseg").contents else { panic!("classes") };
    for (class, (name, pixels, images)) in classes.iter().enumerate() {
        let is = |v: &f32| *v == class as f32;
        let labels = labels("semseg");
        assert_eq!(name, CLASSES[class]);
        assert_eq!(*pixels, labels.iter().flatten().filter(|v| is(v)).count() as u64);
        assert_eq!(*images, labels.iter().filter(|label| label.iter().any(is)).count());
    }
    let parts = contents("human_parts");
    assert_eq!(parts.known, labels("human_parts").iter().flatten().filter(|v| **v != IGNORE).count() as u64);
    assert_eq!((parts.pixels, parts.labelled), (70 * 40 * 56, 70));
    let edges = labels("edge").iter().flatten().filter(|v| **v == 1.0).count() as u64;
    assert_eq!(contents("edge").contents, Contents::Mask(edges));
    let Contents::Depth(Some((near, far)), sum) = contents("depth").contents else { panic!("depths") };
    let depths: Vec<f32> = labels("depth").concat();
    let mean = depths.iter().map(|v| f64::from(*v)).sum::<f64>() / depths.len() as f64;
    assert!((near - depths.iter().copied().fold(f32::MAX, f32::min)).abs() < 0.001);
    assert!((far - depths.iter().copied().fold(0.0, f32::max)).abs() < 0.001);
    assert!((sum / depths.len() as f64 - mean).abs() < 0.001);
    Ok(())
}

#[test]
fn what_cannot_be_a_folder_of_data_is_named() {
    let root = tempfile::tempdir().unwrap();
    let message = || Folder::open(root.path()).unwrap_err().to_string();
    assert!(message().contains("no folder of labels"), "{}", message());
    let label = |task: &str, file: &str| {
        std::fs::create_dir_all(root.path().join(task)).unwrap();
        GrayImage::new(4, 4).save(root.path().join(task).join(file)).unwrap();
    };
    label("semseg", "a.png");
    assert!(message().contains("images") && message().contains("cannot read"), "{}", message());
    std::fs::create_dir(root.path().join("images")).unwrap();
    assert!(message().contains("no JPEG or PNG file"), "{}", message());
    label("images", "a.png");
    std::fs::write(root.path().join("images/a.jpg"), b"").unwrap();
    assert!(message().contains("two files of the name a"), "{}", message());
    std::fs::remove_file(root.path().join("images/a.jpg")).unwrap();
    assert_eq!(Folder::open(root.path()).unwrap().tasks().to_string(), "semseg=2");
    std::fs::write(root.path().join("dataset.toml"), "tasks = [{ name = \"depth\", kind = \"depth\" }]").unwrap();
    assert!(message().contains("depth: no such folder"), "{}", message());
    let none = Folder::open(Path::new("/no/such/folder")).unwrap_err().to_string();
    assert!(none.contains("cannot read"), "{none}");
}

#[test]
fn a_label_of_an_image_that_its_note_turns_tells_why_it_does_not_fit() {
    let (_root, path, _) = scenes(1);
    let mut jpeg = std::io::Cursor::new(Vec::new());
    RgbImage::new(56, 40).write_to(&mut jpeg, tadformer::image::ImageFormat::Jpeg).unwrap();
    let mut bytes = jpeg.into_inner();
    let tiff = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let exif = [&[0xff, 0xe1][..], &((8 + tiff.len()) as u16).to_be_bytes(), b"Exif\0\0", tiff].concat();
    bytes.splice(2..2, exif);
    std::fs::remove_file(path.join("images/000000.png")).unwrap();
    std::fs::write(path.join("images/000000.jpg"), bytes).unwrap();
    let message = Folder::open(&path).unwrap().get(0).unwrap_err().to_string();
    assert!(message.contains("as its image, got 56 x 40") && message.contains("Exif note"), "{message}");
}

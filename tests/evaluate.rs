//! Figures image by image: those of the batches, of sets that lack labels, at each image's own size, and of sets with damaged images.
#![cfg(all(feature = "data", feature = "report", feature = "scenes", feature = "train"))]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use tadformer::candle_core::Tensor;
use tadformer::data::{BatchOptions, Batches, Dataset, Recipe, Transformed, Transforms, Unreadable};
use tadformer::metrics::{BoundaryRecipe, BoundaryRule, PASCAL_DISTANCE};
use tadformer::model::InferenceModel;
use tadformer::report::Rank;
use tadformer::scenes::Scenes;
use tadformer::train::{ComparedAt, EdgeScoring, ImageOptions, evaluate, evaluate_images};
use tadformer::{Error, Result, Sample, SwinConfig, TADFormer, TaskSet};

const TASKS: &str = "semseg=7,human_parts=7,sal=1,normals=3,edge=1,depth=1";

fn model() -> TADFormer {
    let swin = SwinConfig { embed_dim: 16, num_heads: vec![1, 2, 4, 8], image_size: 64, ..SwinConfig::tiny() };
    TADFormer::builder(swin).tasks(TASKS.parse().unwrap()).rank(4).seed(3).build().unwrap()
}

/// Six scenes of 40 x 56; some labels of theirs are taken away, and one cannot be read.
struct Rooms {
    scenes: Scenes,
    without: fn(usize, &str) -> bool,
    damaged: Option<usize>,
}

impl Rooms {
    fn all() -> Arc<Self> {
        Self::with(|_, _| false, None)
    }

    fn with(without: fn(usize, &str) -> bool, damaged: Option<usize>) -> Arc<Self> {
        Arc::new(Self { scenes: Scenes::new(5, 6, (40, 56)).unwrap(), without, damaged })
    }
}

impl Dataset for Rooms {
    fn len(&self) -> usize {
        self.scenes.len()
    }

    fn tasks(&self) -> &TaskSet {
        self.scenes.tasks()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        if self.damaged == Some(index) {
            return Err(Error::file(std::path::Path::new("scene.png"), "damaged", "mend it"));
        }
        let mut sample = self.scenes.get(index)?;
        sample.labels.retain(|name, _| !(self.without)(index, name));
        Ok(sample)
    }

    fn name(&self, index: usize) -> String {
        format!("scene-{index}")
    }
}

fn input() -> Transforms {
    Recipe::Own.validation((64, 64)).unwrap()
}

fn merged() -> InferenceModel {
    model().merge().unwrap()
}

#[test]
fn at_the_input_size_the_figures_are_those_of_the_batches() {
    let prepared = Arc::new(Transformed::new(Rooms::all(), input(), 0));
    let of_batches = evaluate(&model(), Batches::once(prepared, &BatchOptions::new(1)).unwrap()).unwrap();
    let of_images = evaluate_images(&merged(), Rooms::all(), &ImageOptions::new(input()), |_| true).unwrap();
    assert_eq!(of_images.images().len(), 6);
    for (task, meter) in of_images.meters() {
        let want = of_batches.get(task.name()).unwrap().primary.value.unwrap();
        let got = meter.scores().primary.value.unwrap();
        assert!((got - want).abs() < 2e-3 * want.abs().max(0.1), "{}: {got} {want}", task.name());
    }
    assert!(of_images.seconds_per_image().unwrap() > 0.0);
}

#[test]
fn images_that_lack_labels_leave_the_figures_of_the_others() {
    let without = |index: usize, task: &str| index >= 4 && task != "sal";
    let partial =
        evaluate_images(&merged(), Rooms::with(without, None), &ImageOptions::new(input()), |_| true).unwrap();
    let mut seen = 0;
    let first = evaluate_images(&merged(), Rooms::all(), &ImageOptions::new(input()), |_| {
        seen += 1;
        seen < 4
    });
    let first = first.unwrap();
    assert_eq!((partial.images().len(), first.images().len()), (6, 4));
    for ((task, partial), (_, first)) in partial.meters().zip(first.meters()) {
        let [partial, first] = [partial, first].map(|meter| meter.scores());
        assert_eq!(partial == first, task.name() != "sal", "{}", task.name());
    }
    let scores = &partial.images()[5].scores;
    assert!(scores[0].is_none() && scores[2].is_some());
}

/// A model that would be right at its own size is measured there: labels are not resized.
#[test]
fn at_their_own_size_images_are_compared_with_their_own_labels() {
    let options = ImageOptions { at: ComparedAt::OwnSize, ..ImageOptions::new(input()) };
    let own = evaluate_images(&merged(), Rooms::all(), &options, |_| true).unwrap();
    let pixels = |evaluation: &tadformer::train::ImageEvaluation| {
        evaluation.meters().next().unwrap().1.confusion().unwrap().pixels()
    };
    assert_eq!(pixels(&own), 6 * 40 * 56);
    let at_input = evaluate_images(&merged(), Rooms::all(), &ImageOptions::new(input()), |_| true).unwrap();
    assert_eq!(pixels(&at_input), 6 * 64 * 64);
}

#[test]
fn edges_are_scored_as_the_benchmark_does_where_that_is_asked_for() {
    let scoring = EdgeScoring { recipe: BoundaryRecipe::Plain, distance: PASCAL_DISTANCE, rule: BoundaryRule::Edges };
    let options = ImageOptions { edges: Some(scoring), at: ComparedAt::OwnSize, ..ImageOptions::new(input()) };
    let evaluation = evaluate_images(&merged(), Rooms::all(), &options, |_| true).unwrap();
    let boundary = evaluation.boundary("edge").unwrap();
    assert_eq!(boundary.images(), 6);
    assert!((0.0..1.0).contains(&boundary.ods().unwrap().f));
    assert!(evaluation.boundary("sal").is_none());
    let shown = evaluation.evaluated("m", &merged(), Rooms::all().as_ref(), &options, 0).unwrap();
    assert_eq!(shown.tasks[4].scores[0].name, "odsF");
}

#[test]
fn an_image_that_cannot_be_read_is_named_or_left_out_and_counted() {
    let damaged = || Rooms::with(|_, _| false, Some(2));
    let message = evaluate_images(&merged(), damaged(), &ImageOptions::new(input()), |_| true).unwrap_err().to_string();
    assert!(message.starts_with("sample 2: ") && message.contains("scene.png"), "{message}");
    let skipping = ImageOptions { unreadable: Unreadable::Skip, workers: 3, ..ImageOptions::new(input()) };
    let evaluation = evaluate_images(&merged(), damaged(), &skipping, |_| true).unwrap();
    let indices: Vec<usize> = evaluation.images().iter().map(|image| image.index).collect();
    assert_eq!(indices, [0, 1, 3, 4, 5]);
    assert_eq!(evaluation.skipped().count, 1);
    assert!(evaluation.skipped().reasons[0].contains("scene.png"));
}

#[test]
fn the_best_and_the_worst_images_are_drawn_and_none_is_both() {
    let options = ImageOptions::new(input());
    let evaluation = evaluate_images(&merged(), Rooms::all(), &options, |_| true).unwrap();
    let shown = evaluation.evaluated("mine", &merged(), Rooms::all().as_ref(), &options, 4).unwrap();
    for (i, task) in shown.tasks.iter().enumerate() {
        let known: Vec<f64> = evaluation.images().iter().filter_map(|image| image.scores[i]).collect();
        let of = |rank| task.examples.iter().filter(move |example| example.rank == rank);
        assert_eq!(of(Rank::Best).count(), known.len().min(4), "{}", task.name);
        assert_eq!(of(Rank::Worst).count(), known.len().saturating_sub(4), "{}", task.name);
        let best = if task.scores[0].higher_is_better { f64::max } else { f64::min };
        let first = known.iter().copied().reduce(best).unwrap();
        assert!(task.examples[0].caption.ends_with(&format!("{first:.3}")), "{}", task.examples[0].caption);
        let drawn = tadformer::image::load_from_memory(&task.examples[0].png).unwrap();
        assert!(drawn.width() > 4 * 64);
    }
}

#[test]
fn labels_that_are_no_classes_are_named_with_their_sample() {
    struct Wrong(Arc<Rooms>);
    impl Dataset for Wrong {
        fn len(&self) -> usize {
            1
        }
        fn tasks(&self) -> &TaskSet {
            self.0.tasks()
        }
        fn get(&self, index: usize) -> Result<Sample> {
            let mut sample = self.0.get(index)?;
            let nine = Tensor::full(9u8, (1, 40, 56), &tadformer::candle_core::Device::Cpu)?;
            sample.labels.insert("semseg".into(), nine);
            Ok(sample)
        }
    }
    let result = evaluate_images(&merged(), Arc::new(Wrong(Rooms::all())), &ImageOptions::new(input()), |_| true);
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with("sample 0: ") && message.contains("semseg") && message.contains('9'), "{message}");
}

#[test]
fn a_set_of_other_classes_or_of_none_of_the_models_tasks_is_refused_at_once() {
    struct Of(TaskSet);
    impl Dataset for Of {
        fn len(&self) -> usize {
            1
        }
        fn tasks(&self) -> &TaskSet {
            &self.0
        }
        fn get(&self, _: usize) -> Result<Sample> {
            panic!("nothing is read")
        }
    }
    let message = |tasks: &str| {
        let dataset = Arc::new(Of(tasks.parse().unwrap()));
        evaluate_images(&merged(), dataset, &ImageOptions::new(input()), |_| true).unwrap_err().to_string()
    };
    let other = message("sal=1,semseg=21");
    assert!(other.starts_with("`task of the data set`: expected semseg=7, got semseg=21"), "{other}");
    assert!(message("rooms:semseg=7").contains("matched by their names"));
}

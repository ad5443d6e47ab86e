//! What steps tell `tracing`, and that their definition is asked for in one place.
#![allow(clippy::unwrap_used)]

mod common;

use common::{builder, images};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tadformer::candle_core::Tensor;
use tadformer::layers::{Mode, TrainingPass};
use tadformer::ops::{Definition, GradientCheckpointing};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Every span's target, name and fields.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, BTreeMap<String, String>>>>, Arc<AtomicU64>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.1.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = BTreeMap::from([("target".into(), span.metadata().target().into())]);
        fields.insert("name".into(), span.metadata().name().into());
        span.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().insert(id, fields);
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        values.record(&mut Fields(self.0.lock().unwrap().get_mut(&id.into_u64()).unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The spans of a training step of a small model.
fn spans_of_a_step(definition: Definition) -> Vec<BTreeMap<String, String>> {
    let (model, spans) = (builder().build().unwrap(), Spans::default());
    let step = || {
        let outputs = model.forward(&images(1, 64, 64).unwrap(), Mode::Train(&TrainingPass::seeded(0))).unwrap();
        let means: Vec<Tensor> = outputs.iter().map(|(_, output)| output.mean_all().unwrap()).collect();
        Tensor::stack(&means, 0).unwrap().sum_all().unwrap().backward().unwrap();
    };
    tracing::subscriber::with_default(spans.clone(), || definition.run(step));
    let spans = spans.0.lock().unwrap();
    spans.values().cloned().collect()
}

#[test]
fn every_step_tells_its_kind_pass_definition_and_bytes() {
    let spans = spans_of_a_step(Definition::Fused);
    let is = |span: &BTreeMap<String, String>, field: &str, value: &str| {
        span.get(field).is_some_and(|got| got.trim_matches('"') == value)
    };
    for (kind, pass) in [
        ("attention-half", "forward"),
        ("attention-half", "backward"),
        ("linear", "forward"),
        ("linear", "backward"),
        ("task-mix", "backward"),
    ] {
        let found = spans.iter().find(|span| is(span, "kind", kind) && is(span, "pass", pass)).unwrap();
        assert!(found["bytes"].parse::<u64>().unwrap() > 0);
    }
    let steps = spans.iter().filter(|span| is(span, "target", "tadformer::op"));
    assert!(steps.clone().all(|span| span.contains_key("bytes")), "a step without bytes");
    assert!(steps.clone().all(|span| is(span, "definition", "fused")), "a step by candle's primitives");
    for part in ["patch-embedding", "stage", "heads", "outputs"] {
        assert!(spans.iter().any(|span| is(span, "target", "tadformer::model") && is(span, "name", part)), "{part}");
    }
}

#[test]
fn nothing_is_fused_where_the_composed_definition_is_asked_for() {
    let spans = spans_of_a_step(Definition::Composed);
    let steps = || spans.iter().filter(|span| span["target"] == "tadformer::op");
    let fused: Vec<_> = steps().filter(|span| span["definition"].contains("fused")).collect();
    assert!(steps().count() > 0, "no step was told of");
    assert!(fused.is_empty(), "{fused:?}");
}

/// Evaluation asked for none, whatever its caller had asked for.
#[test]
fn a_callers_checkpointing_holds_in_evaluation_as_in_training() {
    let (model, images, pass) = (builder().build().unwrap(), images(1, 64, 64).unwrap(), TrainingPass::seeded(0));
    let forward_passes = |checkpointing: GradientCheckpointing, mode: Mode| {
        let spans = Spans::default();
        tracing::subscriber::with_default(spans.clone(), || {
            let outputs = checkpointing.run(|| model.forward(&images, mode)).unwrap();
            outputs.get("depth").unwrap().mean_all().unwrap().backward().unwrap();
        });
        let spans = spans.0.lock().unwrap();
        let is = |span: &BTreeMap<String, String>, field: &str, value: &str| {
            span.get(field).is_some_and(|v| v.contains(value))
        };
        spans.values().filter(|span| is(span, "kind", "attention-half") && is(span, "pass", "forward")).count()
    };
    for mode in [Mode::Eval, Mode::Train(&pass)] {
        let [off, on] = [GradientCheckpointing::Off, GradientCheckpointing::On].map(|c| forward_passes(c, mode));
        assert!(on >= 2 * off && off > 0, "{off} forward passes, {on} with those made again, {mode:?}");
    }
}

//! How many parameters train, counted and held against the paper and against closed forms.
#![allow(clippy::unwrap_used)]

use tadformer::heads::HeadConfig;
use tadformer::params::{Group, ParameterTable, Pretrained, Release};
use tadformer::swin::SwinConfig;
use tadformer::{TADFormer, Tuning};

fn count(swin: SwinConfig, tuning: Tuning, rank: usize) -> ParameterTable {
    TADFormer::count(TADFormer::builder(swin).tuning(tuning, rank).config()).unwrap()
}

#[test]
fn swin_t_with_the_four_pascal_tasks_trains_what_the_paper_prints() {
    for (rank, trained) in [(16, 3_557_502), (32, 4_776_126), (64, 7_379_262)] {
        let table = count(SwinConfig::tiny(), Tuning::TADFormer, rank);
        assert_eq!(table.trained(), trained);
        assert_eq!(table.full_fine_tuning(), 29_464_442);
        let decoders = table.groups().filter(|(group, _)| matches!(group, Group::Projections | Group::Heads));
        assert_eq!(decoders.map(|(_, count)| count.trained).sum::<usize>(), 1_946_624);
    }
}

#[test]
fn every_preset_has_the_linears_of_its_sizes() {
    for swin in [SwinConfig::tiny(), SwinConfig::small(), SwinConfig::base(), SwinConfig::large()] {
        // qkv, proj, fc1, fc2 of a block: 3C² + C² + 4C² + 4C² weights and 3C + C + 4C + C biases.
        let block = |c: usize| 12 * c * c + 9 * c;
        let linears: usize = (0..4).map(|i| swin.depths[i] * block(swin.channels(i))).sum();
        let reductions: usize = (0..3).map(|i| 8 * swin.channels(i).pow(2)).sum();
        let table = count(swin.clone(), Tuning::TADFormer, 16);
        assert_eq!(table.frozen(), linears + reductions, "{swin}");
        let low_rank: usize = (0..4).map(|i| swin.depths[i] * 16 * (4 + 2 + 5 + 5) * swin.channels(i)).sum();
        let counted = table.groups().find(|(group, _)| *group == Group::LowRank).unwrap().1;
        assert_eq!(counted.trained, low_rank, "{swin}");
    }
}

#[test]
fn each_tuning_trains_what_it_says() {
    let swin = SwinConfig::tiny;
    let decoders = count(swin(), Tuning::DecodersOnly, 16);
    assert_eq!(decoders.trained(), 1_946_624);
    let bitfit = count(swin(), Tuning::BitFit, 16);
    assert_eq!(bitfit.trained(), 1_946_624 + 51_456);
    let of = |group: Pretrained| bitfit.groups().find(|(found, _)| *found == Group::Pretrained(group)).unwrap().1;
    assert_eq!((of(Pretrained::Biases).trained, of(Pretrained::Biases).frozen), (39_744, 0));
    assert_eq!((of(Pretrained::Norms).trained, of(Pretrained::Norms).frozen), (11_616, 11_616), "shifts, not scales");
    assert_eq!(of(Pretrained::PositionBias).trained, 0, "tables are no biases");
    let low_rank = count(swin(), Tuning::LowRankOnly, 16);
    assert_eq!(low_rank.trained(), 1_946_624 + 1_130_496);
    let everything = count(swin(), Tuning::Everything, 16);
    assert_eq!((everything.trained(), everything.frozen()), (29_464_442, 0));
}

#[test]
fn each_pretrained_group_is_released_alone() {
    for (group, trained) in [
        (Pretrained::Norms, 23_232),
        (Pretrained::PositionBias, 23_322),
        (Pretrained::PatchEmbedding, 4_704),
        (Pretrained::Reductions, 1_548_288),
        (Pretrained::Linears, 25_878_528),
        // Of the linears 9 C in each block, of the norms the half of what they have, and 96 of the patch embedding.
        (Pretrained::Biases, 39_744 + 11_616 + 96),
    ] {
        let decoders = TADFormer::builder(SwinConfig::tiny()).tuning(Tuning::DecodersOnly, 16);
        let released = decoders.release(Release::none().with(group));
        assert_eq!(TADFormer::count(released.config()).unwrap().trained(), 1_946_624 + trained, "{}", group.name());
    }
    assert!(Release::everything().without(Pretrained::Norms).contains(Pretrained::Linears));
}

#[test]
fn the_table_prints_totals_and_the_ratio() {
    let text = count(SwinConfig::tiny(), Tuning::TADFormer, 16).to_string();
    for words in ["low_rank", "1,130,496", "3,557,502", "27,466,560", "29,464,442: 8.3 times"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_layer_that_four_decoders_share_saves_three_of_it() {
    let of = |head: &str| {
        TADFormer::count(TADFormer::builder(SwinConfig::tiny()).head(head.parse::<HeadConfig>().unwrap()).config())
            .unwrap()
    };
    let (own, shared) = (of("hrnet"), of("hrnet-shared"));
    assert_eq!(own.trained() - shared.trained(), 874_800);
    assert_eq!(own.full_fine_tuning() - shared.full_fine_tuning(), 874_800);
    let layer = shared.groups().find(|(group, _)| *group == Group::SharedHeads).unwrap().1;
    assert_eq!((layer.trained, layer.frozen), (270 * 1080, 0));
    assert!(own.groups().all(|(group, _)| group != Group::SharedHeads));
    assert!(shared.to_string().contains("shared_heads          291,600"), "{shared}");
}

#[test]
fn each_kind_of_decoder_has_the_parameters_of_its_formula() {
    let decoder = |head: &str| {
        let builder = TADFormer::builder(SwinConfig::tiny()).tuning(Tuning::DecodersOnly, 0);
        let builder = builder.tasks("semseg=21".parse().unwrap()).head(head.parse::<HeadConfig>().unwrap());
        TADFormer::count(builder.config()).unwrap().trained()
    };
    let (widths, projections) = (192 + 384 + 768 + 768, 18 * 192 + 36 * 384 + (72 + 144) * 768);
    let (norm, h, w) = (|channels: usize| 2 * channels, 270, 256);
    assert_eq!(decoder("linear"), 21 * widths + 21);
    assert_eq!(decoder("segformer"), w * widths + 4 * w + 4 * w * w + norm(w) + 21 * (w + 1));
    let pyramid = 2 * h * w + 3 * 9 * h * w + 5 * w * w + 9 * w * w + 7 * norm(w);
    assert_eq!(decoder("aspp"), projections + pyramid + 21 * (w + 1));
    assert_eq!(decoder("hrnet"), projections + 4 * h * h + 4 * h + norm(4 * h) + 21 * (4 * h + 1));
    assert_eq!(decoder("hrnet-shared"), decoder("hrnet"), "alone it shares with nobody");
    let documented = ["hrnet", "segformer", "aspp", "linear"].map(decoder);
    assert_eq!(documented, [500_709, 809_749, 3_114_133, 44_373], "as the page of `heads` prints");
}

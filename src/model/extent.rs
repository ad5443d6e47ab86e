//! What one image of the configured size asks of a model for its tasks, and how many parameters it has: products of the sizes, bounded.

use super::{TADFormer, TADFormerConfig};
use crate::bounds::{Factor, MOST_VALUES, check_product};
use crate::params::ParameterTable;
use crate::tad::{MOST_PROMPTS, TaskPaths};
use crate::{Error, Result};

/// Values of all tasks' tokens, of which a pass holds some twenty arrays: twice what the largest Swin asks for with six tasks and images
/// of 1024.
const MOST_TASK_VALUES: usize = 1 << 27;
/// Ten times the parameters of the largest Swin.
const MOST_PARAMETERS: usize = 1 << 31;

impl TADFormerConfig {
    /// Refuses sizes that are each within their bounds and together ask for more than any model does.
    ///
    /// # Errors
    /// The first product that is too large, by its factors; too many parameters.
    pub(super) fn check_extent(&self) -> Result<()> {
        let tasks = ("tasks", self.tasks.len());
        let prompts = [tasks, ("prompts_per_task", self.tad.prompts_per_task)];
        check_product("", &prompts, MOST_PROMPTS, "prompts", "the paper uses 1 for each task")?;
        self.swin.check_extent(prompts.iter().map(|(_, size)| size).product())?;
        (0..self.swin.stages()).try_for_each(|i| self.check_stage(i))?;
        let outputs = self.tasks.iter().map(|task| task.outputs).sum();
        check_values("", &[("image_size²", self.swin.image_size.pow(2)), ("outputs", outputs)], MOST_VALUES)?;
        let projected = ("head.channels", self.head.channels.iter().sum());
        check_values("", &[("patches", self.swin.patches(0)), projected], MOST_VALUES)?;
        self.check_parameters()
    }

    /// What the tasks' own tokens, and the low-rank paths, take.
    fn check_stage(&self, i: usize) -> Result<()> {
        self.check_rank(i)?;
        let paths = if self.tad.task_paths == TaskPaths::PerTask { self.tasks.len() } else { 1 };
        let (tasks, patches) = (("tasks", paths), ("patches", self.swin.patches(i)));
        [("channels", self.swin.channels(i)), ("rank", self.tad.stage_rank(i))]
            .into_iter()
            .try_for_each(|width| check_values(&format!("stage {i}: "), &[tasks, patches, width], MOST_TASK_VALUES))
    }

    /// A path may have a rank above its linear's smaller side, for the task filter stands between A and B; not above every side.
    fn check_rank(&self, i: usize) -> Result<()> {
        let (rank, channels) = (self.tad.stage_rank(i), self.swin.channels(i));
        let widest = self.swin.hidden(i).max(3 * channels);
        if self.tad.linears.is_empty() || rank <= widest {
            return Ok(());
        }
        let expected = format!("at most {widest}, the widest linear of stage {i}");
        let cure = format!("no rank above its {channels} channels says much more: the paper uses 16 to 64");
        Err(Error::config("rank", expected, rank, cure))
    }

    fn check_parameters(&self) -> Result<()> {
        let total = ParameterTable::of(&TADFormer::shapes(self)?).total();
        if total <= MOST_PARAMETERS {
            return Ok(());
        }
        let cure = "the largest Swin has 197 million: use a smaller backbone, lower ranks or narrower decoders";
        Err(Error::config("parameters", format!("at most {MOST_PARAMETERS} in all"), total, cure))
    }
}

fn check_values(place: &str, factors: &[Factor], most: usize) -> Result<()> {
    let cure = "use smaller images, fewer tasks, or lower ranks and narrower decoders";
    check_product(place, factors, most, "values", cure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::HrNetConfig;
    use crate::params::Release;
    use crate::swin::{Preset, SwinConfig};
    use crate::tad::TadConfig;
    use crate::task::TaskSet;

    fn config(swin: SwinConfig, tad: TadConfig, tasks: TaskSet) -> TADFormerConfig {
        TADFormerConfig { swin, tad, tasks, head: HrNetConfig::default(), release: Release::default() }
    }

    fn tasks(count: usize) -> TaskSet {
        (0..count).map(|i| format!("t{i}:semseg=255")).collect::<Vec<_>>().join(",").parse().unwrap()
    }

    #[test]
    fn the_papers_settings_are_far_inside() {
        let all: TaskSet = "semseg=150,human_parts=7,sal=1,normals=3,edge=1,depth=1".parse().unwrap();
        for preset in Preset::ALL {
            let swin = SwinConfig { image_size: 1024, ..preset.config() };
            let tad = TadConfig { prompts_per_task: 20, ..TadConfig::with_rank(64) };
            config(swin, tad, all.clone()).check().unwrap();
            config(preset.config(), TadConfig::with_rank(64), TaskSet::pascal()).check().unwrap();
        }
        let swin = SwinConfig { image_size: 1280, window: 12, ..SwinConfig::large() };
        let six = "semseg=19,human_parts=7,sal=1,normals=3,edge=1,depth=1".parse().unwrap();
        config(swin, TadConfig::with_rank(64), six).check().unwrap();
    }

    #[test]
    fn each_product_of_sizes_within_their_bounds_is_refused_by_its_factors() {
        let refused = |start: &str, config: TADFormerConfig| {
            let message = config.check().unwrap_err().to_string();
            assert!(message.starts_with(start), "{start}: {message}");
        };
        let (tiny, paper) = (SwinConfig::tiny, TadConfig::default);
        let prompts = TadConfig { prompts_per_task: 300, ..paper() };
        refused(
            "`tasks x prompts_per_task`: expected at most 512 prompts, got 2 x 300 = 600",
            config(tiny(), prompts, tasks(2)),
        );
        let large = SwinConfig { image_size: 1024, ..tiny() };
        refused("`stage 0: tasks x patches x channels`", config(large.clone(), paper(), tasks(100)));
        let wide = TadConfig { linears: [crate::tad::AdaptedLinear::Qkv].into(), ..TadConfig::with_rank(1 << 14) };
        refused(
            "`rank`: expected at most 384, the widest linear of stage 0, got 16384 (no rank",
            config(tiny(), wide, tasks(2)),
        );
        let wide = TadConfig::with_rank(384);
        refused("`stage 0: tasks x patches x rank`", config(large.clone(), wide, tasks(8)));
        refused("`image_size² x outputs`", config(large.clone(), paper(), tasks(3)));
        let head = HrNetConfig { channels: vec![16383; 4] };
        let decoder = TADFormerConfig { head, ..config(large, paper(), TaskSet::pascal()) };
        refused("`patches x head.channels`", decoder);
        let head = HrNetConfig { channels: vec![8000; 4] };
        let decoder =
            TADFormerConfig { head, ..config(SwinConfig { image_size: 224, ..tiny() }, paper(), TaskSet::pascal()) };
        refused("`parameters`: expected at most 2147483648 in all", decoder);
    }
}

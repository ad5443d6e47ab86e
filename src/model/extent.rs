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
        let prompts = [tasks, ("prompts.per_task", self.method.prompts().per_task())];
        check_product("", &prompts, MOST_PROMPTS, "prompts", "the paper uses 1 for each task")?;
        self.swin.check_extent(prompts.iter().map(|(_, size)| size).product())?;
        (0..self.swin.stages()).try_for_each(|i| self.check_stage(i))?;
        let outputs = self.tasks.iter().map(|task| task.outputs).sum();
        check_values("", &[("image_size²", self.swin.image_size.pow(2)), ("outputs", outputs)], MOST_VALUES)?;
        for (place, head) in self.heads() {
            let widest = (&*format!("{place}.channels"), head.channels(self.swin.stages()));
            check_values("", &[("patches", self.swin.patches(0)), widest], MOST_VALUES)?;
        }
        self.check_parameters()
    }

    /// What the tasks' own tokens, and the low-rank paths, take.
    fn check_stage(&self, i: usize) -> Result<()> {
        let paths = if self.method.task_paths == TaskPaths::Shared { 1 } else { self.tasks.len() };
        let (tasks, patches) = (("tasks", paths), ("patches", self.swin.patches(i)));
        [("channels", self.swin.channels(i)), ("rank", self.method.stage_rank(i))]
            .into_iter()
            .try_for_each(|width| check_values(&format!("stage {i}: "), &[tasks, patches, width], MOST_TASK_VALUES))
    }

    /// Refuses more parameters in all than [`MOST_PARAMETERS`].
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
    use crate::heads::{AsppConfig, HrNetConfig, SegFormerConfig};
    use crate::swin::{Preset, SwinConfig};
    use crate::tad::{AdaptedLinear, LowRank, Method, PerTask, Prompts};
    use crate::task::TaskSet;

    fn config(swin: SwinConfig, method: Method, tasks: TaskSet) -> TADFormerConfig {
        TADFormerConfig { method, tasks, ..TADFormerConfig::new(swin) }
    }

    fn tasks(count: usize) -> TaskSet {
        (0..count).map(|i| format!("t{i}:semseg=255")).collect::<Vec<_>>().join(",").parse().unwrap()
    }

    #[test]
    fn the_papers_settings_are_far_inside() {
        let all: TaskSet = "semseg=150,human_parts=7,sal=1,normals=3,edge=1,depth=1".parse().unwrap();
        for preset in Preset::ALL {
            let swin = SwinConfig { image_size: 1024, ..preset.config() };
            let method = Method::tadformer(64).task_paths(PerTask::default().prompts(Prompts::learned(20)));
            config(swin, method, all.clone()).check().unwrap();
            config(preset.config(), Method::tadformer(64), TaskSet::pascal()).check().unwrap();
        }
        let swin = SwinConfig { image_size: 1280, window: 12, ..SwinConfig::large() };
        let six = "semseg=19,human_parts=7,sal=1,normals=3,edge=1,depth=1".parse().unwrap();
        config(swin, Method::tadformer(64), six).check().unwrap();
    }

    #[test]
    fn each_product_of_sizes_within_their_bounds_is_refused_by_its_factors() {
        let refused = |start: &str, config: TADFormerConfig| {
            let message = config.check().unwrap_err().to_string();
            assert!(message.starts_with(start), "{start}: {message}");
        };
        let (tiny, paper) = (SwinConfig::tiny, Method::default);
        let prompts = paper().task_paths(PerTask::default().prompts(Prompts::learned(300)));
        refused(
            "`tasks x prompts.per_task`: expected at most 512 prompts, got 2 x 300 = 600",
            config(tiny(), prompts, tasks(2)),
        );
        let large = SwinConfig { image_size: 1024, ..tiny() };
        refused("`stage 0: tasks x patches x channels`", config(large.clone(), paper(), tasks(100)));
        let wide = paper().linears(LowRank::new(768).on([AdaptedLinear::Proj]));
        refused("`stage 0: tasks x patches x rank`", config(large.clone(), wide, tasks(4)));
        refused("`image_size² x outputs`", config(large.clone(), paper(), tasks(3)));
        let head = || HrNetConfig::new([16383; 4]).into();
        let decoder = || config(large.clone(), paper(), TaskSet::pascal());
        refused("`patches x head.channels`", TADFormerConfig { head: head(), ..decoder() });
        let own_heads = [("sal".to_owned(), head())].into();
        refused("`patches x own_heads.sal.channels`", TADFormerConfig { own_heads, ..decoder() });
        let head = SegFormerConfig::new(16383).into();
        refused("`patches x head.channels`", TADFormerConfig { head, ..decoder() });
        let head = AsppConfig::default().width(16383).into();
        refused("`patches x head.channels`", TADFormerConfig { head, ..decoder() });
        let head = HrNetConfig::new([8000; 4]).into();
        let decoder =
            TADFormerConfig { head, ..config(SwinConfig { image_size: 224, ..tiny() }, paper(), TaskSet::pascal()) };
        refused("`parameters`: expected at most 2147483648 in all", decoder);
    }
}

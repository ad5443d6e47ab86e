//! What a model is asked to predict: tasks, their kinds, and a checked list of them.

use crate::named::find_named;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a task predicts, which settles its loss, its metric and its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskKind {
    /// A class for each pixel.
    Semseg,
    /// A part of a person for each pixel; an image without people is ignored whole.
    HumanParts,
    /// Whether a pixel belongs to what draws the eye.
    Sal,
    /// The surface's unit normal: x right, y down, z towards the viewer.
    Normals,
    /// Whether a pixel lies on the boundary of an object or part.
    Edge,
    /// Distance along the camera's axis.
    Depth,
}

impl TaskKind {
    /// All kinds, in the order in which tables list them.
    pub const ALL: &'static [Self] =
        &[Self::Semseg, Self::HumanParts, Self::Sal, Self::Normals, Self::Edge, Self::Depth];

    /// The name used in files and on command lines, after the literature's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Semseg => "semseg",
            Self::HumanParts => "human_parts",
            Self::Sal => "sal",
            Self::Normals => "normals",
            Self::Edge => "edge",
            Self::Depth => "depth",
        }
    }

    /// How many channels its label has: 3 for normals, 1 for every other.
    pub fn label_channels(self) -> usize {
        if self == Self::Normals { 3 } else { 1 }
    }

    /// Whether the outputs are one score for each of several classes.
    pub fn is_classes(self) -> bool {
        matches!(self, Self::Semseg | Self::HumanParts)
    }
}

impl FromStr for TaskKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find_named("task", Self::ALL, Self::name, name, "tasks are named by what they predict")
    }
}

/// One task of a model: its name, what it predicts, and how many channels its output has.
///
/// Written `semseg=21`; a second task of the same kind takes a name of its own: `rooms:semseg=13`.
///
/// ```
/// use tadformer::{Task, TaskKind};
/// assert_eq!("rooms:semseg=13".parse::<Task>()?, Task::named("rooms", TaskKind::Semseg, 13)?);
/// assert!(Task::new(TaskKind::Normals, 1).is_err()); // a normal has three parts
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TaskFields")]
pub struct Task {
    pub(crate) name: String,
    pub(crate) kind: TaskKind,
    pub(crate) outputs: usize,
}

/// A task as it is written in files, not checked yet.
#[derive(Deserialize)]
struct TaskFields {
    name: String,
    kind: TaskKind,
    outputs: usize,
}

impl TryFrom<TaskFields> for Task {
    type Error = Error;

    fn try_from(TaskFields { name, kind, outputs }: TaskFields) -> Result<Self> {
        Self::named(name, kind, outputs)
    }
}

impl Task {
    /// A task named after its kind.
    ///
    /// # Errors
    /// A number of outputs that the kind cannot have: 2 to 255 classes, 3 for normals, 1 for every other.
    pub fn new(kind: TaskKind, outputs: usize) -> Result<Self> {
        Self::named(kind.name(), kind, outputs)
    }

    /// A task with a name of its own.
    ///
    /// # Errors
    /// As [`Task::new`]; a name that could be no file's.
    pub fn named(name: impl Into<String>, kind: TaskKind, outputs: usize) -> Result<Self> {
        let task = Self { name: name.into(), kind, outputs };
        task.check()?;
        Ok(task)
    }

    /// The name in outputs, files and tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it predicts.
    pub fn kind(&self) -> TaskKind {
        self.kind
    }

    /// Channels of its output: classes, or 3 for normals, or 1.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !(1..=MOST_NAME).contains(&self.name.len()) || !self.name.chars().all(plain) {
            let cure = "task names become file names";
            return Err(Error::config("task", NAMES, format!("{:.1$}", self.name, MOST_NAME), cure));
        }
        let (fits, expected) = match self.kind {
            TaskKind::Semseg | TaskKind::HumanParts => ((2..=255).contains(&self.outputs), "2 to 255 classes"),
            TaskKind::Normals => (self.outputs == 3, "3 outputs"),
            _ => (self.outputs == 1, "1 output"),
        };
        if fits {
            return Ok(());
        }
        let cure = format!("write it as `{}=N`", self.name);
        Err(Error::config(format!("task {}", self.name), expected, self.outputs, cure))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name != self.kind.name() {
            write!(f, "{}:", self.name)?;
        }
        write!(f, "{}={}", if self.name == self.kind.name() { &self.name } else { self.kind.name() }, self.outputs)
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = |cure: &str| Error::config("task", "NAME=OUTPUTS, such as semseg=21", text, cure);
        let (left, outputs) = text.trim().split_once('=').ok_or_else(|| malformed("add the number of outputs"))?;
        let outputs = outputs.parse().map_err(|_| malformed("the part after `=` is a whole number"))?;
        let (name, kind) = left.split_once(':').unwrap_or((left, left));
        Self::named(name, kind.parse()?, outputs)
    }
}

/// Shorter than any system's longest name of a file, an ending included.
const MOST_NAME: usize = 100;
const NAMES: &str = "a name of letters, digits, `_` and `-`, at most 100";

/// More than anybody trains at once; a damaged file could ask for millions.
const MOST_TASKS: usize = 256;

/// At least one task, no two of the same name, in the order of the prompts and the outputs.
///
/// ```
/// use tadformer::TaskSet;
/// let tasks: TaskSet = "semseg=21,normals=3,sal=1,human_parts=7".parse()?;
/// assert_eq!(tasks.iter().count(), 4);
/// assert!("sal=1,sal=1".parse::<TaskSet>().is_err());
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Task>", into = "Vec<Task>")]
pub struct TaskSet(Vec<Task>);

impl TaskSet {
    /// Checks a list of tasks.
    ///
    /// # Errors
    /// An empty list or one of more than 256, a name given twice.
    pub fn new(tasks: Vec<Task>) -> Result<Self> {
        if tasks.is_empty() {
            return Err(Error::config("tasks", "at least one", "none", "such as semseg=21,depth=1"));
        }
        if tasks.len() > MOST_TASKS {
            let cure = "train several models on one backbone";
            return Err(Error::config("tasks", format!("at most {MOST_TASKS}"), tasks.len(), cure));
        }
        for (i, task) in tasks.iter().enumerate() {
            if tasks[..i].iter().any(|earlier| earlier.name == task.name) {
                let cure = "name the second one, such as rooms:semseg=13";
                return Err(Error::config("tasks", "each name once", format!("{} twice", task.name), cure));
            }
        }
        Ok(Self(tasks))
    }

    /// The four tasks of PASCAL-Context in the paper's order: semseg 21, normals 3, sal 1, human parts 7.
    pub fn pascal() -> Self {
        let counts = [(TaskKind::Semseg, 21), (TaskKind::Normals, 3), (TaskKind::Sal, 1), (TaskKind::HumanParts, 7)];
        Self(counts.map(|(kind, outputs)| Task { name: kind.name().to_owned(), kind, outputs }).to_vec())
    }

    /// With one more task at the end.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn with(&self, task: Task) -> Result<Self> {
        Self::new(self.iter().cloned().chain([task]).collect())
    }

    /// Without the task of this name.
    ///
    /// # Errors
    /// A name that no task has; the only task.
    pub fn without(&self, name: &str) -> Result<Self> {
        if self.get(name).is_none() {
            return Err(Error::config("tasks", format!("one of {self}"), name, "name a task of the model"));
        }
        Self::new(self.iter().filter(|task| task.name != name).cloned().collect())
    }

    /// The tasks of these names, in this order.
    ///
    /// ```
    /// use tadformer::TaskSet;
    /// assert_eq!(TaskSet::pascal().only(&["sal", "semseg"])?.to_string(), "sal=1,semseg=21");
    /// assert!(TaskSet::pascal().only(&["depth"]).is_err());
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// No name, a name that no task has, one given twice.
    pub fn only(&self, names: &[&str]) -> Result<Self> {
        let task = |name: &&str| {
            let unknown = || Error::config("tasks", format!("some of {self}"), name, "name tasks that there are");
            self.get(name).cloned().ok_or_else(unknown)
        };
        Self::new(names.iter().map(task).collect::<Result<_>>()?)
    }

    /// The tasks in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Task> {
        self.0.iter()
    }

    /// How many there are; never zero.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The task of this name.
    pub fn get(&self, name: &str) -> Option<&Task> {
        self.0.iter().find(|task| task.name == name)
    }
}

impl TryFrom<Vec<Task>> for TaskSet {
    type Error = Error;

    fn try_from(tasks: Vec<Task>) -> Result<Self> {
        Self::new(tasks)
    }
}

impl From<TaskSet> for Vec<Task> {
    fn from(tasks: TaskSet) -> Self {
        tasks.0
    }
}

impl<'a> IntoIterator for &'a TaskSet {
    type Item = &'a Task;
    type IntoIter = std::slice::Iter<'a, Task>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for TaskSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<String> = self.iter().map(Task::to_string).collect();
        f.write_str(&tasks.join(","))
    }
}

impl FromStr for TaskSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        Self::new(parts.map(Task::from_str).collect::<Result<_>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_printing_and_parsing() {
        let text = "semseg=21,rooms:semseg=13,normals=3,depth=1";
        assert_eq!(text.parse::<TaskSet>().unwrap().to_string(), text);
    }

    #[test]
    fn a_task_comes_and_goes_by_name() {
        let tasks: TaskSet = "sal=1,depth=1".parse().unwrap();
        let more = tasks.with("rooms:semseg=13".parse().unwrap()).unwrap();
        assert_eq!(more.to_string(), "sal=1,depth=1,rooms:semseg=13");
        assert_eq!(more.without("sal").unwrap().to_string(), "depth=1,rooms:semseg=13");
        let refused = |tasks: Result<TaskSet>| tasks.unwrap_err().to_string();
        assert!(refused(tasks.with("sal=1".parse().unwrap())).contains("sal twice"));
        assert!(refused(tasks.without("edge")).contains("one of sal=1,depth=1"));
        assert!(refused(tasks.without("sal").unwrap().without("depth")).contains("at least one"));
    }

    #[test]
    fn a_task_that_cannot_work_comes_from_nowhere() {
        assert!(Task::new(TaskKind::Normals, 1).unwrap_err().to_string().contains("3 outputs"));
        assert!(Task::named("a/b", TaskKind::Sal, 1).unwrap_err().to_string().contains("letters"));
        let read = |text| serde_json::from_str::<Task>(text);
        assert_eq!(
            read(r#"{"name": "sal", "kind": "sal", "outputs": 1}"#).unwrap(),
            Task::new(TaskKind::Sal, 1).unwrap()
        );
        let message = read(r#"{"name": "sal", "kind": "sal", "outputs": 0}"#).unwrap_err().to_string();
        assert!(message.contains("1 output"), "{message}");
    }

    #[test]
    fn each_bad_list_is_refused_by_name() {
        for (text, word) in [
            ("", "at least one"),
            ("sal=1,sal=1", "sal twice"),
            ("sal", "number of outputs"),
            ("sal=x", "whole number"),
            ("sal=2", "1 output"),
            ("normals=1", "3 outputs"),
            ("semseg=1", "2 to 255"),
            ("colour=3", "semseg, human_parts"),
            ("a/b:sal=1", "letters"),
            (&format!("{}:sal=1", "a".repeat(101)), "at most 100"),
        ] {
            let message = text.parse::<TaskSet>().unwrap_err().to_string();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}

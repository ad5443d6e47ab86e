//! An inspection as a table for people.

use super::{Contents, Finding, Inspection, TaskContents};
use crate::Printable;
use std::fmt::{self, Display, Formatter};

impl Display for Inspection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (images, all) = (self.images, self.all_images);
        write!(f, "{}{}", of(images, all), if all == 1 { " image" } else { " images" })?;
        match self.sizes {
            Some([(w, h), large]) if (w, h) == large => writeln!(f, " of {w} x {h} pixels")?,
            Some([(w, h), (wide, high)]) => writeln!(f, ", {w} x {h} to {wide} x {high} pixels")?,
            None => writeln!(f)?,
        }
        writeln!(f, "\n{:<24} {:>16} {:>9}  holds", "task", "images labelled", "known")?;
        self.tasks.iter().try_for_each(|task| line(f, task, images))?;
        self.tasks.iter().try_for_each(|task| classes(f, task))?;
        findings(f, &self.findings)
    }
}

/// `7`, or `3 of 7`.
fn of(some: usize, all: usize) -> String {
    if some == all { all.to_string() } else { format!("{some} of {all}") }
}

fn percent(some: u64, all: u64) -> String {
    if all == 0 { "-".into() } else { format!("{:.1} %", 100.0 * some as f64 / all as f64) }
}

fn line(f: &mut Formatter<'_>, task: &TaskContents, images: usize) -> fmt::Result {
    let (name, known) = (task.task.to_string(), percent(task.known, task.pixels));
    write!(f, "{name:<24} {:>16} {known:>9}  ", of(task.labelled, images))?;
    match &task.contents {
        Contents::Classes(classes) => {
            let seen = classes.iter().filter(|(_, pixels, _)| *pixels > 0).count();
            writeln!(f, "{} classes", of(seen, classes.len()))
        }
        Contents::Mask(positive) => writeln!(f, "{} of the known are 1", percent(*positive, task.known)),
        Contents::Normals => writeln!(f, "unit vectors"),
        Contents::Depth(None, _) => writeln!(f, "no depth"),
        Contents::Depth(Some((near, far)), sum) => {
            writeln!(f, "{near:.2} to {far:.2} m, {:.2} in the mean", sum / task.known as f64)
        }
    }
}

fn classes(f: &mut Formatter<'_>, task: &TaskContents) -> fmt::Result {
    let Contents::Classes(classes) = &task.contents else { return Ok(()) };
    writeln!(f, "\n{:<24} {:>16} {:>9}", task.task.name(), "images", "pixels")?;
    for (class, (name, pixels, images)) in classes.iter().enumerate() {
        let name = format!("{class:>3} {}", Printable(name));
        writeln!(f, "{name:<24} {images:>16} {:>9}", percent(*pixels, task.known))?;
    }
    Ok(())
}

fn findings(f: &mut Formatter<'_>, findings: &[Finding]) -> fmt::Result {
    if findings.is_empty() {
        return write!(f, "\nNothing is wrong.");
    }
    write!(f, "\nWrong:")?;
    for finding in findings {
        let task = finding.task.as_deref().unwrap_or("images");
        write!(f, "\n{task}, {}: {}", finding.kind.words(), finding.count)?;
        for message in &finding.first {
            write!(f, "\n    {message}")?;
        }
        if finding.count > finding.first.len() {
            write!(f, "\n    and {} more", finding.count - finding.first.len())?;
        }
    }
    Ok(())
}

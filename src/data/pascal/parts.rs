//! People's parts, drawn from the masks of a PASCAL-Part file.

use super::names::{PERSON, part};
use crate::data::label_map::{LabelMap, Size};
use crate::data::mat::{Numbers, Struct, Structs, Variable};
use crate::data::{PIXEL_LIMIT, pixel_limit::check_size};
use crate::{Error, Result};
use std::path::Path;

/// The parts of everybody on an image; none where nobody is seen: no person has a mask that covers anything.
///
/// Objects are drawn in the order of the file, later parts over earlier ones, whether or not a person's own mask covers them.
pub(super) fn read(path: &Path) -> Result<Option<LabelMap<u8>>> {
    let anno = Variable::read(path, "anno")?;
    let objects = objects(&anno)?;
    if !any_is_seen(objects.clone())? {
        return Ok(None);
    }
    let mut drawn = None;
    for person in people(objects) {
        for described in person?.field("parts")?.structs()? {
            let described = described?;
            let name = described.field("part_name")?.text()?;
            let Some(number) = part(&name) else {
                let problem = format!("a person's part `{name:.40}`, which is none of the 24 of a person");
                return Err(Error::file(path, problem, "take the file as it was published"));
            };
            draw(path, &mut drawn, described.field("mask")?.numbers()?, number)?;
        }
    }
    Ok(drawn)
}

/// Whether a person is seen on the image.
pub(super) fn has_people(path: &Path) -> Result<bool> {
    let anno = Variable::read(path, "anno")?;
    any_is_seen(objects(&anno)?)
}

fn objects(anno: &Variable) -> Result<Structs<'_>> {
    anno.matrix()?.one_struct()?.field("objects")?.structs()
}

/// The objects that are persons.
fn people<'a>(objects: Structs<'a>) -> impl Iterator<Item = Result<Struct<'a>>> {
    let is_person = |object: &Struct| Ok(object.field("class_ind")?.numbers()?.only() == Some(PERSON));
    objects.filter_map(move |object| {
        let object = match object {
            Ok(object) => object,
            Err(error) => return Some(Err(error)),
        };
        match is_person(&object) {
            Ok(person) => person.then_some(Ok(object)),
            Err(error) => Some(Err(error)),
        }
    })
}

fn any_is_seen(objects: Structs) -> Result<bool> {
    for person in people(objects) {
        if person?.field("mask")?.numbers()?.any() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes a part's number where its mask is set.
fn draw(path: &Path, drawn: &mut Option<LabelMap<u8>>, mask: Numbers, number: u8) -> Result<()> {
    let size @ (height, width): Size = mask.size();
    if height * width == 0 {
        return Ok(());
    }
    check_size(path, (width as u32, height as u32), PIXEL_LIMIT)?;
    let map = drawn.get_or_insert_with(|| LabelMap { values: vec![0; height * width], size });
    if map.size != size {
        let (h, w) = map.size;
        let problem = format!("masks of different sizes: {h} x {w} and {height} x {width}");
        return Err(Error::file(path, problem, "take the file as it was published"));
    }
    mask.each(|y, x, set| {
        if set != 0.0 {
            map.values[y * width + x] = number;
        }
    });
    Ok(())
}

//! Pictures side by side: titles over the columns, names before the rows, legends below.

use super::Legend;
use super::text::Letters;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

/// A table of pictures with a title over each column.
///
/// Pictures narrower than people can read are enlarged by whole numbers. A table of many columns is [`wrapped`](Panel::wrapped).
///
/// ```
/// use tadformer::image::RgbImage;
/// use tadformer::picture::{Legend, Panel, PanelRow};
/// let square = || RgbImage::new(64, 64);
/// let mut panel = Panel::new(["image".to_owned(), "depth".to_owned()]).legend(Legend::swatches("", [("floor", [128, 0, 0])]));
/// panel.push(vec![square(), square()]);
/// panel.push(PanelRow::new(vec![square(), square()]).named("second").captions(["a photo", "0.8 to 3.2 m"]));
/// assert!(panel.draw().width() > 2 * 192);
/// ```
#[derive(Clone, Debug)]
pub struct Panel {
    titles: Vec<String>,
    rows: Vec<PanelRow>,
    legends: Vec<Legend>,
    wrap: Option<Wrap>,
}

/// A row of a [`Panel`]: a picture for each column, a name before them, a line of text under each.
#[derive(Clone, Debug)]
pub struct PanelRow {
    name: String,
    pictures: Vec<RgbImage>,
    captions: Vec<String>,
}

impl PanelRow {
    /// Pictures without a name.
    pub fn new(pictures: Vec<RgbImage>) -> Self {
        Self { name: String::new(), pictures, captions: Vec::new() }
    }

    /// With a name before the pictures.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// With a line of text under each picture.
    pub fn captions(self, captions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { captions: captions.into_iter().map(Into::into).collect(), ..self }
    }
}

impl From<Vec<RgbImage>> for PanelRow {
    fn from(pictures: Vec<RgbImage>) -> Self {
        Self::new(pictures)
    }
}

/// How many columns are repeated, and how many stand beside them.
#[derive(Clone, Copy, Debug)]
struct Wrap {
    repeated: usize,
    beside: usize,
}

/// The sizes that all parts of a panel share.
struct Layout {
    /// Of a picture's cell, without its caption.
    cell: (u32, u32),
    title: Letters,
    name: Letters,
    names: u32,
    caption: Option<Letters>,
}

impl Panel {
    const GAP: u32 = 4;
    /// About as wide as a picture has to be.
    const WIDTH: u32 = 192;

    /// An empty panel of these columns.
    pub fn new(titles: impl IntoIterator<Item = String>) -> Self {
        Self { titles: titles.into_iter().collect(), rows: Vec::new(), legends: Vec::new(), wrap: None }
    }

    /// Continues below with the next columns after every `columns` of them; the first `repeated` columns stand before each part.
    pub fn wrapped(self, repeated: usize, columns: usize) -> Self {
        Self { wrap: Some(Wrap { repeated, beside: columns.max(1) }), ..self }
    }

    /// With one more legend under the pictures.
    pub fn legend(mut self, legend: Legend) -> Self {
        self.legends.push(legend);
        self
    }

    /// Adds a row of pictures, one for each column.
    pub fn push(&mut self, row: impl Into<PanelRow>) {
        self.rows.push(row.into());
    }

    /// Draws the table on white.
    pub fn draw(&self) -> RgbImage {
        let layout = self.layout();
        let mut pieces: Vec<RgbImage> = self.parts().iter().map(|columns| self.draw_part(&layout, columns)).collect();
        let width = pieces.iter().map(RgbImage::width).max().unwrap_or(1);
        pieces.extend(self.legends.iter().map(|legend| framed(&legend.draw(width.saturating_sub(2 * Self::GAP)))));
        stacked(&pieces)
    }

    /// The columns of each part.
    fn parts(&self) -> Vec<Vec<usize>> {
        let all: Vec<usize> = (0..self.titles.len()).collect();
        let Some(Wrap { repeated, beside }) = self.wrap else { return vec![all] };
        let (first, rest) = all.split_at(repeated.min(all.len()));
        if rest.is_empty() {
            return vec![all];
        }
        rest.chunks(beside).map(|columns| [first, columns].concat()).collect()
    }

    fn layout(&self) -> Layout {
        let pictures = self.rows.iter().flat_map(|row| &row.pictures);
        let sizes = pictures.map(|picture| {
            let factor = enlargement(picture);
            (picture.width() * factor, picture.height() * factor)
        });
        let cell = sizes.fold((1, 1), |(w, h), (w2, h2)| (w.max(w2), h.max(h2)));
        let names = self.rows.iter().map(|row| row.name.as_str());
        let name = Letters::fitting(names.clone(), Self::WIDTH);
        let widest = names.map(|text| name.width(text)).max().unwrap_or(0);
        let captions: Vec<&str> = self.rows.iter().flat_map(|row| &row.captions).map(String::as_str).collect();
        Layout {
            cell,
            title: Letters::fitting(self.titles.iter().map(String::as_str), cell.0),
            name,
            names: if widest == 0 { 0 } else { widest.min(2 * Self::WIDTH) + 2 * Self::GAP },
            caption: (!captions.is_empty()).then(|| Letters::fitting(captions, cell.0)),
        }
    }

    /// Some of the columns, with every row.
    fn draw_part(&self, layout: &Layout, columns: &[usize]) -> RgbImage {
        let (w, h) = layout.cell;
        let title = layout.title.side() + 2 * Self::GAP;
        let row = h + Self::GAP + layout.caption.map_or(0, |letters| letters.side() + 2 * Self::GAP);
        let size =
            (layout.names + columns.len() as u32 * (w + Self::GAP) + Self::GAP, title + self.rows.len() as u32 * row);
        let mut part = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
        let left = |i: usize| layout.names + Self::GAP + i as u32 * (w + Self::GAP);
        for (i, column) in columns.iter().enumerate() {
            layout.title.write(&mut part, &layout.title.cut(&self.titles[*column], w), (left(i), Self::GAP));
        }
        for (j, one) in self.rows.iter().enumerate() {
            let top = title + j as u32 * row;
            let name = layout.name.cut(&one.name, layout.names.saturating_sub(2 * Self::GAP));
            layout.name.write(&mut part, &name, (Self::GAP, top + h.saturating_sub(layout.name.side()) / 2));
            for (i, column) in columns.iter().enumerate() {
                if let Some(picture) = one.pictures.get(*column) {
                    imageops::replace(&mut part, &enlarged(picture), i64::from(left(i)), i64::from(top));
                }
                if let (Some(letters), Some(text)) = (layout.caption, one.captions.get(*column)) {
                    letters.write(&mut part, &letters.cut(text, w), (left(i), top + h + Self::GAP));
                }
            }
        }
        part
    }
}

/// With a gap of white around it.
fn framed(picture: &RgbImage) -> RgbImage {
    let (width, height) = (picture.width() + 2 * Panel::GAP, picture.height() + 2 * Panel::GAP);
    let mut frame = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    imageops::replace(&mut frame, picture, i64::from(Panel::GAP), i64::from(Panel::GAP));
    frame
}

/// One below the other, on white.
fn stacked(pictures: &[RgbImage]) -> RgbImage {
    let width = pictures.iter().map(RgbImage::width).max().unwrap_or(1);
    let height = pictures.iter().map(RgbImage::height).sum::<u32>();
    let mut stack = RgbImage::from_pixel(width, height.max(1), Rgb([255; 3]));
    let mut top = 0;
    for picture in pictures {
        imageops::replace(&mut stack, picture, 0, top);
        top += i64::from(picture.height());
    }
    stack
}

/// By how much a picture is enlarged to be about as wide as it has to be.
fn enlargement(picture: &RgbImage) -> u32 {
    let width = picture.width().max(1);
    ((Panel::WIDTH + width / 2) / width).max(1)
}

fn enlarged(picture: &RgbImage) -> RgbImage {
    let factor = enlargement(picture);
    imageops::resize(picture, picture.width() * factor, picture.height() * factor, FilterType::Nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(colour: [u8; 3]) -> RgbImage {
        RgbImage::from_pixel(200, 20, Rgb(colour))
    }

    fn letters(drawn: &RgbImage, rows: std::ops::Range<u32>) -> usize {
        drawn.enumerate_pixels().filter(|(_, y, pixel)| rows.contains(y) && pixel.0 == [0; 3]).count()
    }

    #[test]
    fn pictures_stand_in_their_columns_under_black_letters() {
        let mut panel = Panel::new(["image".to_owned(), "label".to_owned()]);
        panel.push(vec![plain([255, 0, 0]), plain([0, 0, 255])]);
        let drawn = panel.draw();
        assert_eq!(drawn.dimensions(), (2 * 204 + 4, 24 + 24));
        assert_eq!(drawn.get_pixel(4, 24).0, [255, 0, 0]);
        assert_eq!(drawn.get_pixel(208, 43).0, [0, 0, 255]);
        assert!(letters(&drawn, 0..24) > 200);
    }

    #[test]
    fn small_pictures_are_enlarged_by_whole_numbers() {
        let mut panel = Panel::new(["image".to_owned()]);
        panel.push(vec![RgbImage::from_fn(64, 2, |x, _| Rgb([x as u8; 3]))]);
        let drawn = panel.draw();
        assert_eq!(drawn.dimensions(), (192 + 8, 24 + 6 + 4));
        assert_eq!([4, 6, 7, 195].map(|x| drawn.get_pixel(x, 24).0[0]), [0, 0, 1, 63]);
    }

    #[test]
    fn a_wide_panel_goes_on_below_with_its_first_column_again() {
        let mut panel = Panel::new(["image", "a", "b", "c"].map(str::to_owned)).wrapped(1, 2);
        let colours = [[10, 0, 0], [20, 0, 0], [30, 0, 0], [40, 0, 0]];
        panel.push(colours.map(plain).to_vec());
        let drawn = panel.draw();
        assert_eq!(drawn.dimensions(), (3 * 204 + 4, 2 * 48));
        let at = |column: u32, part: u32| drawn.get_pixel(10 + 204 * column, 30 + 48 * part).0[0];
        assert_eq!([at(0, 0), at(1, 0), at(2, 0)], [10, 20, 30]);
        assert_eq!([at(0, 1), at(1, 1), at(2, 1)], [10, 40, 255]);
    }

    #[test]
    fn names_captions_and_legends_have_their_places() {
        let row = || vec![plain([255, 0, 0])];
        let mut panel = Panel::new(["image".to_owned()]);
        panel.push(row());
        let bare = panel.draw();
        let mut panel = Panel::new(["image".to_owned()]).legend(Legend::swatches("", [("red", [255, 0, 0])]));
        panel.push(PanelRow::new(row()).named("kitchen").captions(["0 to 1"]));
        let drawn = panel.draw();
        assert_eq!(drawn.width() - bare.width(), 7 * 16 + 8);
        assert_eq!(drawn.get_pixel(7 * 16 + 8 + 4, 24).0, [255, 0, 0]);
        assert!(letters(&drawn, 48..70) > 50, "the caption");
        assert!(letters(&drawn, 72..100) > 20, "the legend");
    }
}

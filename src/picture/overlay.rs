//! A map laid over its photo.

use crate::{Error, Result};
use image::RgbImage;

/// Lays `map` over `photo`: at an opacity of 0 the photo alone, at 1 the map alone.
///
/// # Errors
/// Pictures of different sizes.
pub fn overlay(photo: &RgbImage, map: &RgbImage, opacity: f32) -> Result<RgbImage> {
    let size = |picture: &RgbImage| [picture.height() as usize, picture.width() as usize];
    if size(photo) != size(map) {
        let expected = format!("{:?}, its photo's (resize one of them)", size(photo));
        return Err(Error::Shape { what: "a map over a photo".into(), expected, got: size(map).into() });
    }
    let opacity = opacity.clamp(0.0, 1.0);
    let mut laid = photo.clone();
    for (below, above) in laid.iter_mut().zip(map.iter()) {
        *below = (f32::from(*below) * (1.0 - opacity) + f32::from(*above) * opacity).round() as u8;
    }
    Ok(laid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn opacity_mixes_photo_and_map() -> Result<()> {
        let [photo, map] = [[100, 0, 200], [200, 100, 0]].map(|colour| RgbImage::from_pixel(2, 1, Rgb(colour)));
        let mixed = |opacity| overlay(&photo, &map, opacity).map(|laid| laid.get_pixel(1, 0).0);
        assert_eq!([mixed(0.0)?, mixed(0.25)?, mixed(7.0)?], [[100, 0, 200], [125, 25, 150], [200, 100, 0]]);
        let message = overlay(&photo, &RgbImage::new(1, 2), 0.5).unwrap_err().to_string();
        assert!(message.contains("expected shape [1, 2]") && message.contains("got [2, 1]"), "{message}");
        Ok(())
    }
}

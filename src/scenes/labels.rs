//! The exact labels of a rendered scene, read off the surface that each pixel's central ray meets.

use super::compose::FIGURE;
use super::scene::{Hit, Scene};
use crate::Result;
use crate::sample::IGNORE;
use candle_core::{Device, Tensor, WithDType};
use std::collections::BTreeMap;

/// Surfaces of one region further apart than this many metres count as a boundary.
const JUMP: f32 = 0.1;

/// One hit for each pixel, row by row.
pub(crate) struct Hits<'a> {
    pub scene: &'a Scene,
    pub size: (usize, usize),
    pub hits: Vec<Hit>,
}

impl Hits<'_> {
    /// All six labels by task name.
    pub fn labels(&self) -> Result<BTreeMap<String, Tensor>> {
        let maps = [
            ("semseg", self.tensor(1, self.map(|hit| self.class(hit)))?),
            ("human_parts", self.tensor(1, self.human_parts())?),
            ("sal", self.tensor(1, self.map(|hit| u8::from(self.is_salient(hit))))?),
            ("normals", self.tensor(3, self.normals())?),
            ("edge", self.tensor(1, self.edges())?),
            ("depth", self.tensor(1, self.map(|hit| self.depth(hit)))?),
        ];
        Ok(maps.map(|(name, map)| (name.to_owned(), map)).into())
    }

    fn tensor<T: WithDType>(&self, channels: usize, map: Vec<T>) -> Result<Tensor> {
        Ok(Tensor::from_vec(map, (channels, self.size.0, self.size.1), &Device::Cpu)?)
    }

    fn map<T>(&self, value: impl Fn(&Hit) -> T) -> Vec<T> {
        self.hits.iter().map(value).collect()
    }

    fn class(&self, hit: &Hit) -> u8 {
        hit.thing.map_or(0, |thing| self.scene.things[thing].class)
    }

    fn is_salient(&self, hit: &Hit) -> bool {
        hit.thing.is_some_and(|thing| self.scene.things[thing].salient)
    }

    fn depth(&self, hit: &Hit) -> f32 {
        self.scene.camera.depth(hit.point)
    }

    fn human_parts(&self) -> Vec<u8> {
        if self.hits.iter().any(|hit| self.class(hit) == FIGURE) {
            self.map(|hit| hit.part)
        } else {
            vec![IGNORE as u8; self.hits.len()]
        }
    }

    fn normals(&self) -> Vec<f32> {
        let seen: Vec<[f32; 3]> =
            self.hits.iter().map(|hit| self.scene.camera.direction(hit.normal).unit().array()).collect();
        (0..3).flat_map(|channel| seen.iter().map(move |normal| normal[channel])).collect()
    }

    fn edges(&self) -> Vec<u8> {
        let (height, width) = self.size;
        let is_edge = |i: usize| neighbours(i, height, width).any(|j| self.bounds(i, j));
        (0..self.hits.len()).map(|i| u8::from(is_edge(i))).collect()
    }

    /// Whether a boundary runs between neighbours and `i` is on its nearer side (or both are equally near).
    fn bounds(&self, i: usize, j: usize) -> bool {
        let (a, b) = (&self.hits[i], &self.hits[j]);
        self.depth(a) <= self.depth(b) && (a.region != b.region || self.jumps(a, b))
    }

    /// Whether one surface point lies off the tangent plane of the other by more than [`JUMP`], or by more than two
    /// pixels' width where pixels are that coarse.
    fn jumps(&self, a: &Hit, b: &Hit) -> bool {
        let camera = &self.scene.camera;
        let pixel = self.depth(a).max(self.depth(b)) / (camera.focal * self.size.0.max(self.size.1) as f32);
        let step = b.point - a.point;
        step.dot(a.normal).abs().max(step.dot(b.normal).abs()) > JUMP.max(2.0 * pixel)
    }
}

/// The pixels above, below, left and right.
fn neighbours(i: usize, height: usize, width: usize) -> impl Iterator<Item = usize> {
    let (row, column) = (i / width, i % width);
    let all = [
        (row > 0).then(|| i - width),
        (row + 1 < height).then(|| i + width),
        (column > 0).then(|| i - 1),
        (column + 1 < width).then(|| i + 1),
    ];
    all.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::render::hits;
    use crate::scenes::scene::tests::one_ball;
    use crate::scenes::scene::{Body, Thing};
    use crate::scenes::shape::Shape;
    use crate::scenes::texture::Texture;
    use crate::scenes::vector::{Pose, Vec3, vec3};
    use candle_core::DType;

    const SIZE: (usize, usize) = (65, 65);

    fn label(scene: &Scene, name: &str) -> Vec<f32> {
        let label = hits(scene, SIZE).labels().unwrap()[name].to_dtype(DType::F32).unwrap();
        label.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Pixels whose value is 1 in the central row, left to right.
    fn central_row(map: &[f32]) -> Vec<usize> {
        (0..SIZE.1).filter(|x| map[32 * SIZE.1 + x] == 1.0).collect()
    }

    #[test]
    fn the_central_pixel_of_a_ball_has_its_class_depth_and_normal() {
        let scene = one_ball();
        let middle = 32 * SIZE.1 + 32;
        assert_eq!(label(&scene, "semseg")[middle], 1.0);
        assert_eq!(label(&scene, "sal")[middle], 1.0);
        assert!((label(&scene, "depth")[middle] - 2.5).abs() < 1e-4);
        let normals = label(&scene, "normals");
        assert!((normals[2 * SIZE.0 * SIZE.1 + middle] - 1.0).abs() < 1e-5, "z towards the viewer");
        assert!(normals[middle + 8] > 0.2, "x to the right on the right side");
        assert!(normals[SIZE.0 * SIZE.1 + middle + 8 * SIZE.1] > 0.2, "y down on the lower side");
    }

    #[test]
    fn without_a_figure_parts_are_ignored() {
        assert!(label(&one_ball(), "human_parts").iter().all(|v| *v == IGNORE));
    }

    #[test]
    fn the_edge_is_the_balls_own_outline() {
        let scene = one_ball();
        let (class, edge) = (label(&scene, "semseg"), label(&scene, "edge"));
        let inside: Vec<usize> = central_row(&class);
        let lines = central_row(&edge);
        assert_eq!(lines, [inside[0], inside[inside.len() - 1]], "first and last pixel of the ball, {inside:?}");
    }

    #[test]
    fn a_crease_is_an_edge_on_its_nearer_side_and_a_slope_is_none() {
        let mut scene = one_ball();
        scene.things.clear();
        let edge = label(&scene, "edge");
        // The back wall is 5 m away and the camera 0.5 m high: the crease lies 6.5 pixels below the middle.
        let column: Vec<usize> = (0..SIZE.0).filter(|y| edge[y * SIZE.1 + 32] == 1.0).collect();
        assert_eq!(column, [39]);
    }

    #[test]
    fn a_tube_is_outlined_where_it_passes_before_itself() {
        let mut scene = one_ball();
        let pose = Pose::about_z(1.5).then(&Pose::about_x(0.4));
        let shape = Shape::Torus { major: 0.6, minor: 0.15 };
        let ring = Body::new(shape, pose, Texture::plain(Vec3::splat(0.5)), 0.0, 0);
        scene.things = vec![Thing::standing_at(5, false, vec![ring], vec3(0.0, 0.0, 2.5))];
        let map = hits(&scene, SIZE);
        let inner = (0..map.hits.len() - 1)
            .filter(|i| i % SIZE.1 + 1 < SIZE.1)
            .filter(|i| map.hits[*i].region == map.hits[i + 1].region && map.bounds(*i, i + 1))
            .count();
        assert!(inner > 0, "the near side of the ring hides a part of its far side");
    }
}

//! Points that are known to be there, for those who search.

use std::sync::Mutex;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::op::Version;

/// Acknowledged points that are remembered; older ones are overwritten at random.
const REMEMBERED_MAX: usize = 4_096;

/// An acknowledged point, and what makes it visible.
#[derive(Clone, Debug)]
pub struct KnownPoint {
    /// The point.
    pub version: Version,
    /// Session token of the acknowledgement; `None` for points that every replica held before the run.
    pub token: Option<String>,
}

/// A bounded selection of them.
#[derive(Default)]
pub struct Known {
    points: Mutex<Vec<KnownPoint>>,
}

impl Known {
    /// Points that every replica holds.
    pub fn of(versions: &[Version]) -> Known {
        let points = versions.iter().map(|version| KnownPoint { version: *version, token: None }).collect();
        Known { points: Mutex::new(points) }
    }

    /// Adds a point. When there are too many, it takes the place of another one.
    pub fn add(&self, point: KnownPoint, rng: &mut StdRng) {
        let mut points = self.points.lock().expect("nobody panics while holding the points");
        if points.len() < REMEMBERED_MAX {
            points.push(point);
        } else {
            let place = rng.random_range(0..points.len());
            points[place] = point;
        }
    }

    /// The newest one as often as any other one: what was just written is where mistakes show.
    pub fn pick(&self, rng: &mut StdRng) -> Option<KnownPoint> {
        let points = self.points.lock().expect("nobody panics while holding the points");
        if points.is_empty() {
            return None;
        }
        let place = if rng.random_bool(0.5) { points.len() - 1 } else { rng.random_range(0..points.len()) };
        Some(points[place].clone())
    }
}

//! Places in the order of a curve through a grid, and the search for those inside an area: a descent through the
//! quarters of the world that takes in what is certainly inside, leaves out what is certainly outside, and tests the
//! places of the small cells at the border one by one. The answer is exact.

use roaring::RoaringBitmap;
use vicinal_common::filter::{GeoBox, GeoPoint, GeoPolygon, GeoRadius};

use super::rows::RowBits;

/// Bits per axis of a cell's number.
const BITS: u32 = 32;
/// Cell of places that are not on the globe: always tested one by one.
const STRAY: u64 = u64::MAX;
/// So few places are tested without going further down.
const FEW: usize = 24;
/// Degrees by which the corners of a cell are moved outwards, far more than their arithmetic is off by.
const SLACK_DEGREES: f64 = 1e-7;
/// Metres and share of the radius by which a circle must clear a cell, for the same reason.
const SLACK_METRES: f64 = 1.0;
const SLACK_SHARE: f64 = 1e-9;
/// Mean radius of the Earth in metres, rounded up.
const EARTH_RADIUS: f64 = 6_371_009.0;

/// How a rectangle lies to an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Inside,
    Outside,
    /// At the border, or not known.
    Border,
}

/// A rectangle of longitudes and latitudes in degrees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rectangle {
    pub(super) west: f64,
    pub(super) east: f64,
    pub(super) south: f64,
    pub(super) north: f64,
}

/// An area that a filter asks for.
pub(super) trait Area {
    /// Exactly as the filter decides.
    fn contains(&self, place: GeoPoint) -> bool;

    /// Inside and outside must be certain for every place in the rectangle.
    fn side(&self, rectangle: &Rectangle) -> Side;
}

impl Area for GeoBox {
    fn contains(&self, place: GeoPoint) -> bool {
        GeoBox::contains(self, place)
    }

    fn side(&self, cell: &Rectangle) -> Side {
        let (left, right) = (self.top_left.lon, self.bottom_right.lon);
        let (bottom, top) = (self.bottom_right.lat, self.top_left.lat);
        if cell.north < bottom || cell.south > top {
            return Side::Outside;
        }
        let is_level = bottom < cell.south && cell.north < top;
        let (within, without) = match left > right {
            true => (cell.west > left || cell.east < right, cell.west > right && cell.east < left),
            false => (left < cell.west && cell.east < right, cell.east < left || cell.west > right),
        };
        match () {
            () if without => Side::Outside,
            () if within && is_level => Side::Inside,
            () => Side::Border,
        }
    }
}

impl Area for GeoRadius {
    fn contains(&self, place: GeoPoint) -> bool {
        GeoRadius::contains(self, place)
    }

    fn side(&self, cell: &Rectangle) -> Side {
        let middle = GeoPoint { lon: (cell.west + cell.east) / 2.0, lat: (cell.south + cell.north) / 2.0 };
        // From the middle to any place in it: never further than along the meridian and then along the parallel, which
        // is no longer than the equator's part.
        let reach = (cell.north - cell.south + cell.east - cell.west).to_radians() / 2.0 * EARTH_RADIUS;
        let clear = SLACK_METRES + self.radius.abs() * SLACK_SHARE;
        let nearer = |radius: f64| GeoRadius { center: self.center, radius }.contains(middle);
        // Near the antipode the formula is at its weakest; there every place is tested.
        let is_weak = self.radius + reach > 3.0 * EARTH_RADIUS;
        match () {
            () if is_weak => Side::Border,
            () if nearer(self.radius - reach - clear) => Side::Inside,
            () if !nearer(self.radius + reach + clear) => Side::Outside,
            () => Side::Border,
        }
    }
}

impl Area for GeoPolygon {
    fn contains(&self, place: GeoPoint) -> bool {
        GeoPolygon::contains(self, place)
    }

    fn side(&self, cell: &Rectangle) -> Side {
        let over = |value: fn(&GeoPoint) -> f64, fold: fn(f64, f64) -> f64, first: f64| {
            self.exterior.iter().map(value).fold(first, fold)
        };
        let (west, east) = (over(|p| p.lon, f64::min, f64::INFINITY), over(|p| p.lon, f64::max, f64::NEG_INFINITY));
        let (south, north) = (over(|p| p.lat, f64::min, f64::INFINITY), over(|p| p.lat, f64::max, f64::NEG_INFINITY));
        match cell.east < west || cell.west > east || cell.north < south || cell.south > north {
            true => Side::Outside,
            false => Side::Border,
        }
    }
}

/// Places in the order of their cells.
pub(super) struct Places<'a> {
    pub(super) cells: &'a [u64],
    /// Longitude and latitude.
    pub(super) places: &'a [[f64; 2]],
    pub(super) rows: &'a [u32],
}

/// The cell of a place: the bits of both coordinates in turn, those of the latitude first.
pub(super) fn cell(place: GeoPoint) -> u64 {
    if !(-180.0..=180.0).contains(&place.lon) || !(-90.0..=90.0).contains(&place.lat) {
        return STRAY;
    }
    let most = ((1u64 << BITS) - 1) as f64;
    let part = |share: f64| (share * (1u64 << BITS) as f64).clamp(0.0, most) as u64;
    let (x, y) = (part((place.lon + 180.0) / 360.0), part((place.lat + 90.0) / 180.0));
    spread(x) | spread(y) << 1
}

/// Puts a zero between every two of the lower 32 bits.
fn spread(mut bits: u64) -> u64 {
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The rows of the places inside an area.
pub(super) fn rows_inside(area: &dyn Area, places: &Places<'_>, rows: u32) -> RoaringBitmap {
    let mut found = RowBits::new(rows);
    let strays = places.cells.partition_point(|cell| *cell < STRAY);
    test(area, places, strays, places.cells.len(), &mut found);
    let mut search = Search { area, places, found };
    search.quarter(Quarter { x: 0, y: 0, level: 0 }, 0, strays);
    search.found.bitmap()
}

fn test(area: &dyn Area, places: &Places<'_>, from: usize, to: usize, found: &mut RowBits) {
    for ([lon, lat], row) in places.places[from..to].iter().zip(&places.rows[from..to]) {
        if area.contains(GeoPoint { lon: *lon, lat: *lat }) {
            found.insert(*row);
        }
    }
}

/// A square of the grid: `level` halvings, and which one it is.
#[derive(Clone, Copy)]
struct Quarter {
    x: u64,
    y: u64,
    level: u32,
}

impl Quarter {
    fn rectangle(self) -> Rectangle {
        let size = 1.0 / (1u64 << self.level) as f64;
        let (x, y) = (self.x as f64 * size, self.y as f64 * size);
        Rectangle {
            west: x * 360.0 - 180.0 - SLACK_DEGREES,
            east: (x + size) * 360.0 - 180.0 + SLACK_DEGREES,
            south: y * 180.0 - 90.0 - SLACK_DEGREES,
            north: (y + size) * 180.0 - 90.0 + SLACK_DEGREES,
        }
    }

    /// The first cell behind it.
    fn end(self) -> u128 {
        let number = u128::from(spread(self.x) | spread(self.y) << 1);
        (number + 1) << (2 * (BITS - self.level))
    }
}

struct Search<'a> {
    area: &'a dyn Area,
    places: &'a Places<'a>,
    found: RowBits,
}

impl Search<'_> {
    /// Searches one quarter, whose places are those from `from` to `to`.
    fn quarter(&mut self, quarter: Quarter, from: usize, to: usize) {
        if from == to {
            return;
        }
        match self.area.side(&quarter.rectangle()) {
            Side::Outside => {}
            Side::Inside => self.places.rows[from..to].iter().for_each(|row| {
                self.found.insert(*row);
            }),
            Side::Border if to - from <= FEW || quarter.level == BITS => {
                test(self.area, self.places, from, to, &mut self.found);
            }
            Side::Border => {
                let mut first = from;
                for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let part = Quarter { x: quarter.x * 2 + x, y: quarter.y * 2 + y, level: quarter.level + 1 };
                    let cells = &self.places.cells[first..to];
                    let next = first + cells.partition_point(|cell| u128::from(*cell) < part.end());
                    self.quarter(part, first, next);
                    first = next;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = GeoPoint> {
        let lon = prop_oneof![-180.0..180.0f64, Just(180.0), Just(-180.0), Just(0.0), 10.0..10.01f64, -400.0..400.0f64];
        let lat = prop_oneof![-90.0..90.0f64, Just(90.0), Just(-90.0), Just(0.0), 50.0..50.01f64, -200.0..200.0f64];
        (lon, lat).prop_map(|(lon, lat)| GeoPoint { lon, lat })
    }

    fn found(places: &[GeoPoint], area: &dyn Area) -> Vec<u32> {
        let mut sorted: Vec<(u64, [f64; 2], u32)> =
            places.iter().zip(0..).map(|(place, row)| (cell(*place), [place.lon, place.lat], row)).collect();
        sorted.sort_by_key(|(cell, _, _)| *cell);
        let cells: Vec<u64> = sorted.iter().map(|(cell, _, _)| *cell).collect();
        let coordinates: Vec<[f64; 2]> = sorted.iter().map(|(_, place, _)| *place).collect();
        let rows: Vec<u32> = sorted.iter().map(|(_, _, row)| *row).collect();
        let all = Places { cells: &cells, places: &coordinates, rows: &rows };
        rows_inside(area, &all, places.len() as u32).iter().collect()
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_the_filter(
            places in prop::collection::vec(place(), 0..300),
            a in place(), b in place(), c in place(),
            radius in prop_oneof![0.0..1e4f64, 0.0..3e7f64],
        ) {
            let expected = |area: &dyn Area| -> Vec<u32> {
                (0..).zip(&places).filter(|(_, place)| area.contains(**place)).map(|(row, _)| row).collect()
            };
            let rectangle = GeoBox { top_left: a, bottom_right: b };
            let upright = GeoBox {
                top_left: GeoPoint { lon: a.lon, lat: a.lat.max(b.lat) },
                bottom_right: GeoPoint { lon: b.lon, lat: a.lat.min(b.lat) },
            };
            let circle = GeoRadius { center: a, radius };
            let polygon = GeoPolygon { exterior: vec![a, b, c, a], interiors: vec![] };
            let areas: [&dyn Area; 4] = [&rectangle, &upright, &circle, &polygon];
            for area in areas {
                prop_assert_eq!(found(&places, area), expected(area));
            }
        }
    }
}

//! Places: points on the globe in degrees, and the areas a filter asks for. Edges are not inside.

use serde_json::Value;

/// Mean radius of the Earth in metres (GRS 80).
const EARTH_RADIUS: f64 = 6_371_008.8;

/// A place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoPoint {
    /// Longitude, -180 to 180 degrees.
    pub lon: f64,
    /// Latitude, -90 to 90 degrees.
    pub lat: f64,
}

/// A rectangle. When its left edge is east of its right one, it crosses the 180th meridian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoBox {
    /// North-west corner.
    pub top_left: GeoPoint,
    /// South-east corner.
    pub bottom_right: GeoPoint,
}

/// A circle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeoRadius {
    /// Its middle.
    pub center: GeoPoint,
    /// Metres along the surface.
    pub radius: f64,
}

/// An area with holes, bounded by straight lines in the plane of longitude and latitude. Each ring has at least 4
/// points, the last equal to the first.
#[derive(Clone, Debug, PartialEq)]
pub struct GeoPolygon {
    /// The outer ring.
    pub exterior: Vec<GeoPoint>,
    /// The holes.
    pub interiors: Vec<Vec<GeoPoint>>,
}

impl GeoPoint {
    /// Reads the stored form, an object with numbers `lon` and `lat`; anything else is no place.
    pub fn from_stored(value: &Value) -> Option<GeoPoint> {
        let fields = value.as_object()?;
        Some(GeoPoint { lon: fields.get("lon")?.as_f64()?, lat: fields.get("lat")?.as_f64()? })
    }

    /// Metres along the surface to another place, by the haversine formula. Filters depend on every bit of it.
    pub fn metres_to(self, place: GeoPoint) -> f64 {
        let (lat_a, lat_b) = (self.lat.to_radians(), place.lat.to_radians());
        let half_lat = ((place.lat - self.lat).to_radians() / 2.0).sin();
        let half_lon = ((place.lon - self.lon).to_radians() / 2.0).sin();
        let square = half_lat * half_lat + lat_a.cos() * lat_b.cos() * half_lon * half_lon;
        2.0 * square.sqrt().asin() * EARTH_RADIUS
    }
}

impl GeoBox {
    /// Whether the place is strictly inside.
    pub fn contains(&self, place: GeoPoint) -> bool {
        let (left, right) = (self.top_left.lon, self.bottom_right.lon);
        let between =
            if left > right { place.lon > left || place.lon < right } else { left < place.lon && place.lon < right };
        between && self.bottom_right.lat < place.lat && place.lat < self.top_left.lat
    }
}

impl GeoRadius {
    /// Whether the place is nearer to the centre than the radius.
    pub fn contains(&self, place: GeoPoint) -> bool {
        self.center.metres_to(place) < self.radius
    }
}

impl GeoPolygon {
    /// Whether the place is inside the outer ring and in no hole, and on no edge of either.
    pub fn contains(&self, place: GeoPoint) -> bool {
        side(&self.exterior, place) == Side::Inside
            && self.interiors.iter().all(|ring| side(ring, place) == Side::Outside)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Inside,
    Edge,
    Outside,
}

/// Where a place lies by the winding number of the ring around it (Sunday, "Inclusion of a Point in a Polygon", 2001).
fn side(ring: &[GeoPoint], place: GeoPoint) -> Side {
    let mut winding = 0;
    for edge in ring.windows(2) {
        let (a, b) = (edge[0], edge[1]);
        let turn = (b.lon - a.lon) * (place.lat - a.lat) - (place.lon - a.lon) * (b.lat - a.lat);
        let in_span = |from: f64, to: f64, value: f64| from.min(to) <= value && value <= from.max(to);
        if turn == 0.0 && in_span(a.lon, b.lon, place.lon) && in_span(a.lat, b.lat, place.lat) {
            return Side::Edge;
        }
        if a.lat <= place.lat && b.lat > place.lat && turn > 0.0 {
            winding += 1;
        } else if a.lat > place.lat && b.lat <= place.lat && turn < 0.0 {
            winding -= 1;
        }
    }
    if winding == 0 { Side::Outside } else { Side::Inside }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lon: f64, lat: f64) -> GeoPoint {
        GeoPoint { lon, lat }
    }

    fn ring(points: &[(f64, f64)]) -> Vec<GeoPoint> {
        points.iter().map(|&(lon, lat)| at(lon, lat)).collect()
    }

    #[test]
    fn a_box_excludes_its_edges_and_may_cross_the_meridian() {
        let plain = GeoBox { top_left: at(10.0, 60.0), bottom_right: at(20.0, 50.0) };
        assert!(plain.contains(at(15.0, 55.0)));
        assert!(!plain.contains(at(10.0, 55.0)) && !plain.contains(at(15.0, 60.0)) && !plain.contains(at(25.0, 55.0)));
        let crossing = GeoBox { top_left: at(170.0, 10.0), bottom_right: at(-170.0, -10.0) };
        assert!(crossing.contains(at(175.0, 0.0)) && crossing.contains(at(-175.0, 0.0)));
        assert!(!crossing.contains(at(0.0, 0.0)));
    }

    #[test]
    fn a_radius_is_metres_on_the_ground() {
        let paris = at(2.3522, 48.8566);
        // London is about 343.5 km away.
        let within = |radius| GeoRadius { center: paris, radius }.contains(at(-0.1276, 51.5072));
        assert!(within(345_000.0) && !within(342_000.0));
        assert!(!GeoRadius { center: paris, radius: 0.0 }.contains(paris));
    }

    #[test]
    fn a_polygon_has_holes_and_open_edges() {
        let square = ring(&[(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0), (0.0, 0.0)]);
        let hole = ring(&[(4.0, 4.0), (4.0, 6.0), (6.0, 6.0), (6.0, 4.0), (4.0, 4.0)]);
        let polygon = GeoPolygon { exterior: square, interiors: vec![hole] };
        assert!(polygon.contains(at(1.0, 1.0)) && polygon.contains(at(9.9, 5.0)));
        for outside in [(5.0, 5.0), (4.0, 5.0), (0.0, 5.0), (10.0, 10.0), (11.0, 5.0), (-1.0, 0.0)] {
            assert!(!polygon.contains(at(outside.0, outside.1)), "{outside:?}");
        }
    }
}

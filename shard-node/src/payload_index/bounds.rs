//! What is known of which rows match: some certainly do, some are open, the others certainly do not.

use roaring::RoaringBitmap;

use super::rows;

/// Bounds of a set of rows. `sure` and `open` are disjoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bounds {
    /// Rows that match.
    pub(super) sure: RoaringBitmap,
    /// Rows of which it is not known.
    pub(super) open: RoaringBitmap,
}

impl Bounds {
    /// Exactly these rows.
    pub(super) fn exact(sure: RoaringBitmap) -> Bounds {
        Bounds { sure, open: RoaringBitmap::new() }
    }

    /// At most these rows.
    pub(super) fn at_most(open: RoaringBitmap) -> Bounds {
        Bounds { sure: RoaringBitmap::new(), open }
    }

    /// These rows, and perhaps some of others.
    pub(super) fn between(sure: RoaringBitmap, possible: &RoaringBitmap) -> Bounds {
        let open = possible - &sure;
        Bounds { sure, open }
    }

    /// No row.
    pub(super) fn none() -> Bounds {
        Bounds::default()
    }

    /// Every row.
    pub(super) fn all(rows: u32) -> Bounds {
        Bounds::exact(rows::all(rows))
    }

    /// Nothing is known.
    pub(super) fn unknown(rows: u32) -> Bounds {
        Bounds::at_most(rows::all(rows))
    }

    pub(super) fn is_none(&self) -> bool {
        self.sure.is_empty() && self.open.is_empty()
    }

    /// Rows that match both.
    pub(super) fn and(self, other: &Bounds) -> Bounds {
        if self.open.is_empty() && other.open.is_empty() {
            return Bounds::exact(self.sure & &other.sure);
        }
        let sure = &self.sure & &other.sure;
        let possible = (self.sure | self.open) & (&other.sure | &other.open);
        Bounds::between(sure, &possible)
    }

    /// Rows that match at least one.
    pub(super) fn or(self, other: &Bounds) -> Bounds {
        let sure = self.sure | &other.sure;
        let open = (self.open | &other.open) - &sure;
        Bounds { sure, open }
    }

    /// Rows that do not match.
    pub(super) fn not(self, rows: u32) -> Bounds {
        let sure = rows::all(rows) - self.sure - &self.open;
        Bounds { sure, open: self.open }
    }

    /// The same upper bound without a lower one.
    pub(super) fn unsure(self) -> Bounds {
        Bounds::at_most(self.sure | self.open)
    }

    /// Leaves out rows that do not pass.
    pub(super) fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        for rows in [&mut self.sure, &mut self.open] {
            let kept: Vec<u32> = rows.iter().filter(|row| keep(*row)).collect();
            *rows = rows::of_sorted(kept.iter().copied());
        }
    }
}

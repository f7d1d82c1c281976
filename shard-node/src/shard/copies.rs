//! Applying what home shards send: of each id the newest version stays, less those that are gone.
//!
//! What one entry leaves is a function of sets, not of an order within it: of the live row of an id and the copies of
//! it, the newest, unless the entry says that exactly that version is gone or misplaced. So copies are taken first:
//! were it the other way round, a copy older than a live row that is gone would come to life.

use vicinal_common::api::WriteOp;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;
use vicinal_common::point::PointId;
use vicinal_common::publish::{Copies, Copy, ShardRole};

use super::Shard;
use super::view::View;
use super::write::Step;
use crate::segment::MemoryRun;

impl Shard {
    /// Whether a shard of this role takes such writes.
    pub(super) fn check_role(&self, op: &WriteOp) -> Result<()> {
        let (shard, role) = (self.spec.shard, self.spec.role);
        let (of, what) = match op {
            WriteOp::Copies(_) => (ShardRole::Search, "copies"),
            WriteOp::Maps(_) => (ShardRole::Search, "maps to be searched by"),
            WriteOp::Feed(_) => (ShardRole::Home, "maps to publish by"),
            WriteOp::Upsert(_)
            | WriteOp::Delete(_)
            | WriteOp::DeleteByFilter(_)
            | WriteOp::ConditionalUpsert { .. }
            | WriteOp::UpdateVectors { .. }
            | WriteOp::Edit { .. } => (ShardRole::Home, "writes of points"),
        };
        match (of == role, role) {
            (true, _) => Ok(()),
            (false, ShardRole::Home) => {
                Err(Error::BadInput(format!("shard {shard} is a home shard: it takes no {what}")))
            }
            (false, ShardRole::Search) => {
                Err(Error::BadInput(format!("shard {shard} is a search shard: it takes no {what}")))
            }
        }
    }

    /// Takes copies, or refuses them with nothing done. How many rows it wrote or removed.
    pub(super) fn take_copies(&self, draft: &mut View, step: &mut Step<'_>, copies: &Copies) -> Result<u64> {
        let is_newer = |copy: &Copy| draft.version_of(copy.point.id).is_none_or(|held| held < copy.version);
        let run = MemoryRun::from_copies(&copies.points, is_newer, &draft.layout)?;
        let mut affected = self.add_run(draft, step, run);
        let in_force = (draft.maps.oldest == draft.maps.newest).then_some(draft.maps.newest);
        let misplaced = copies.misplaced.iter().filter(|misplaced| Some(misplaced.map) == in_force);
        for (id, version) in copies.gone.iter().chain(misplaced.flat_map(|misplaced| &misplaced.pairs)) {
            if draft.version_of(*id) == Some(*version) && draft.kill(*id, step) {
                affected += 1;
            }
        }
        Ok(affected)
    }
}

impl View {
    /// The version of the live row of an id.
    fn version_of(&self, id: PointId) -> Option<LogIndex> {
        let (source, row) = self.locate(id)?;
        Some(LogIndex(source.run.versions()[row as usize]))
    }
}

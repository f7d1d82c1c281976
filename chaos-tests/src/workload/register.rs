//! Registers: a few points that are overwritten again and again by one client each, which reads back every write that was
//! acknowledged, at once, through the same coordinator and through another one.

use super::load::Turn;
use crate::client::{Client, Route, Site};
use crate::content::REGISTERS;
use crate::op::Version;

/// Registers of one client.
const KEYS: u64 = 8;

/// One client with its registers.
pub(super) struct RegisterClient {
    pub(super) client: Client,
    /// Tells its registers from those of the others.
    pub(super) slot: u64,
    pub(super) turns: u64,
}

impl Turn for RegisterClient {
    /// Overwrites one register and reads it back.
    async fn turn(&mut self, site: &Site) {
        let serial = site.serials(1);
        let id = REGISTERS + self.slot * KEYS + self.turns % KEYS;
        self.turns += 1;
        if !self.client.write(vec![Version { id, serial }]).await {
            return;
        }
        let routes =
            if self.turns.is_multiple_of(2) { [Route::Home, Route::Other] } else { [Route::Other, Route::Home] };
        for route in routes {
            // Both ways of reading by id.
            if self.turns % 4 < 2 {
                self.client.read_one(id, route).await;
            } else {
                self.client.read(vec![id], route).await;
            }
        }
    }
}

//! The operations of the shard API by name and number.

use std::fmt;

use super::ROUTE_PREFIX;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $kind:literal $text:literal,)*) => {
        /// One operation of the shard API. Numbers and names are part of the format: they never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $name = $kind,)*
        }

        impl Operation {
            /// All of them.
            pub const ALL: &[Operation] = &[$(Operation::$name),*];

            /// Its name, the last part of its route.
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$name => $text,)*
                }
            }

            /// Its whole route.
            pub fn route(self) -> &'static str {
                match self {
                    $(Operation::$name => concat!("shard/", $text),)*
                }
            }
        }
    };
}

operations! {
    /// Makes sure that a replica exists.
    CreateReplica = 1 "create-replica",
    /// Founds a shard's group.
    FoundGroup = 2 "found-group",
    /// Changes a shard's members.
    ChangeMembers = 3 "change-members",
    /// Removes a replica.
    DropReplica = 4 "drop-replica",
    /// Writes to a shard.
    Write = 5 "write",
    /// Searches shards.
    Search = 6 "search",
    /// Points by id.
    Retrieve = 7 "retrieve",
    /// Points in order of their ids.
    Scroll = 8 "scroll",
    /// Number of points.
    Count = 9 "count",
    /// Digests of shards.
    Digest = 10 "digest",
    /// State of the node.
    Status = 11 "status",
    /// What a replica shall have beside its points. (12 was one that told of payload indexes only.)
    Tune = 13 "tune",
    /// Values of a payload key.
    Facet = 14 "facet",
    /// How frequent dimensions of a sparse vector are.
    Frequencies = 15 "frequencies",
    /// Stores a map.
    PutMap = 16 "put-map",
    /// The bytes of a map.
    GetMap = 17 "get-map",
    /// Forgets maps.
    KeepMaps = 18 "keep-maps",
    /// What is in the clusters of shards.
    ClusterStats = 19 "cluster-stats",
}

impl Operation {
    /// The operation of a route, if it is one.
    pub fn from_route(route: &str) -> Option<Operation> {
        let name = route.strip_prefix(ROUTE_PREFIX)?;
        Operation::ALL.iter().copied().find(|operation| operation.name() == name)
    }

    /// Its number in frames, below [`super::ANSWER`].
    pub(super) fn kind(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

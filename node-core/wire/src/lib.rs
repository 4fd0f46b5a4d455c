//! Bytes and their meaning: the node-to-node protocol (`pool`, `team`: generated from the `.proto` files, which are
//! the specification) and the frames between wrapper and node (`ipc`). No IO.

pub mod ipc;

/// Messages and services between nodes that have a team in common.
#[cfg(feature = "grpc")]
#[allow(missing_docs, clippy::all)]
pub mod pool {
    tonic::include_proto!("potluck.pool.v1");
}

/// Membership statements and the join protocol.
#[cfg(feature = "grpc")]
#[allow(missing_docs, clippy::all)]
pub mod team {
    tonic::include_proto!("potluck.team.v1");
}

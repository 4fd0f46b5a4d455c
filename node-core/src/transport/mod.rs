//! Connections between nodes: mutual TLS with pinned keys, the join protocol for strangers, and one `Link`
//! per peer with a control and a bulk stream. What is said on a link is decided elsewhere.
//!
//! Who may say what, and when:
//!
//! * The server reads the ClientHello before it chooses a TLS configuration. A client that offers `pool/1` gets one
//!   whose verifier accepts members' keys only: a stranger is refused by a TLS alert before any application byte.
//! * A client that offers `pool-join/1` gets one that accepts any Ed25519 key, proved by the handshake's signature, and
//!   then speaks nothing but the messages of the join protocol, within its limits.
//! * The client's verifier accepts the one key that it expects, or any member's. Session resumption is off on both
//!   sides: it would skip the verifiers, and so outlive a removal.
//! * A connection ends as soon as its peer is no member any more.

pub mod connect;
mod counts;
pub mod join;
pub mod link;
pub mod serve;
pub mod stream;
pub mod tls;

pub use connect::{ConnectError, connect};
pub use join::{JoinError, Joined, Pending, Way, enter, enter_patiently, join};
pub use link::{Link, LinkError, dial, listen};
pub use serve::serve;
pub use stream::{Closer, PeerStream};

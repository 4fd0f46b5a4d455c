//! The node: the shell of sockets, files and processes around the model. See ARCHITECTURE.md.

pub mod alarm;
pub mod bytes;
pub mod cli;
pub mod core;
pub mod core_content;
pub mod cpu_group;
pub mod depend;
pub mod dirs;
pub mod guest;
pub mod identity;
pub mod image;
pub mod ipc;
pub mod log;
pub mod masquerade;
pub mod membership;
pub mod mirror;
pub mod net;
pub mod node;
pub mod outputs;
pub mod proof;
pub mod roots;
pub mod sandbox;
pub mod store;
pub mod toolchain;
pub mod transport;
pub mod tree;

//! The Lab: real nodes with real compilers in namespaces of their own, driven from outside. Every answer comes from
//! the product's programs, its logs and the files it leaves; only hostile members use its transport as a library.

pub mod trouble;

pub mod desk;
pub mod desktop;
pub mod disk;
pub mod idle;
pub mod inside;
pub mod lab;
pub mod net;
pub mod node;
pub mod person;
pub mod wait;

pub mod commands;
pub mod remains;
pub mod ruin;
pub mod run;
pub mod small;
pub mod stores;
pub mod tree;
pub mod workload;

pub mod badinput;
pub mod fuzz;
pub mod judge;
pub mod mode;
pub mod table;

pub mod hostile;
pub mod membership_sim;

pub use lab::{Lab, Plan, WorkerPlan};
pub use trouble::{Context, Outcome, Trouble};

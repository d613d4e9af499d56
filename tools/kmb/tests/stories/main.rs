//! Stories of the real program: real processes, real sockets on loopback, real files.

mod cluster;
mod command_line;
mod damage;
mod demo;
mod garbage;
mod kills;
mod node;
mod recordings;
mod sql;
mod world;

//! Stories of the whole machine on a disk that answers in any order and loses power at any moment.

mod crash;
mod disk;
mod doubt;
mod grid;
mod order;
mod stories;
mod superblock;
mod verify;
mod window;

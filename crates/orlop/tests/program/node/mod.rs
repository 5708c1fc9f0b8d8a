//! `orlop node` and `orlop volume`: volumes as the programs of others see them.

mod backup;
mod csi;
mod devices;
mod encrypted;
mod exports;
mod offline;
mod postgres;
mod watched;
mod world;

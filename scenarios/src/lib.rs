//! The jobs that Orlop is for, done end to end on real clusters: first of all the demo.
//!
//! The clusters are the sandbox's, or any that a kubeconfig leads to. Everything goes through what users have: the CRDs, the manifests in
//! `deploy/`, the program `orlop` and the API server. Nothing here reaches into the product.

pub mod damage;
pub mod demo;
pub mod environment;
pub mod images;
pub mod install;
pub mod orlop;
pub mod pods;
pub mod server;
pub mod shop;
pub mod stages;
pub mod state;
pub mod tidy;
